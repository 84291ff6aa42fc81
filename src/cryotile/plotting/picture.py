"""Picture files: formats, a common style, and bytes that depend on the picture alone."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cryotile.errors import InvalidValue, MissingDependency
from cryotile.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STYLE", "check_suffix", "new_figure", "render", "save_picture", "styled"]

# A file must not name the day or the library version that it was made with.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}

STYLE = "cryotile.plotting.style"
"""Style of every picture, by its name in ``matplotlib.style.use``."""


def new_figure(
    width: float,
    height: float,
    layout: Literal["constrained"] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Return an empty figure that a notebook shows, without pyplot.

    Figures of pyplot stay in memory after the call, and its windows belong to the user.

    Parameters
    ----------
    width, height : float
        Inches.
    layout : str or None
        Matplotlib's layout engine; None: the caller places the axes.
    figure : Figure or None
        An empty figure to use, such as one of pyplot; None: a new one.

    Returns
    -------
    Figure
        With a canvas that draws PNG.

    Raises
    ------
    MissingDependency
        matplotlib is not installed.
    """
    if figure is not None:
        figure.set_size_inches(width, height)
        figure.set_layout_engine(layout)
        return figure
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("pictures need matplotlib: pip install 'cryotile[plot]'") from error

    class NotebookFigure(Figure):
        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=110)
            return stream.getvalue()

    figure = NotebookFigure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def render(draw: Callable[[], Figure], suffix: str, *, dpi: int) -> bytes:
    """Draw a figure in the style of all pictures and return the content of its file.

    Parameters
    ----------
    draw : callable
        Returns the figure.
    suffix : str
        ``.png``, ``.pdf`` or ``.svg``.
    dpi : int
        Dots per inch of a PNG.

    Returns
    -------
    bytes
        The same for the same picture.

    Raises
    ------
    MissingDependency
        matplotlib is not installed.
    """
    content = io.BytesIO()
    with styled():
        draw().savefig(content, format=suffix[1:], metadata=_METADATA[suffix], dpi=dpi)
    return content.getvalue()


def styled() -> AbstractContextManager[None]:
    """Return a context in which matplotlib has the style of all pictures, and Crameri's colour maps.

    Raises
    ------
    MissingDependency
        matplotlib or cmcrameri is not installed.
    """
    try:
        import cmcrameri.cm  # noqa: F401  (registers its colour maps with matplotlib)
        from matplotlib import style
    except ImportError as error:
        raise MissingDependency(
            f"pictures need matplotlib and cmcrameri ({error.name} is missing): pip install 'cryotile[plot]'"
        ) from error
    context: AbstractContextManager[None] = style.context(STYLE)
    return context


def check_suffix(path: Path) -> None:
    """Raise :class:`InvalidValue` unless a path ends as a picture does."""
    if path.suffix.lower() not in _METADATA:
        raise InvalidValue(
            f"{path} has no suffix of a picture; choose one of {', '.join(_METADATA)}"
        )


def save_picture(path: Path, draw: Callable[[], Figure], *, dpi: int) -> None:
    """Draw a figure and write it to a file, whole or not at all.

    Parameters
    ----------
    path : Path
        PNG, PDF or SVG, by its suffix.
    draw : callable
        Returns the figure; called after the suffix is checked.
    dpi : int
        Dots per inch of a PNG.

    Raises
    ------
    InvalidValue
        The suffix is unknown.
    MissingDependency
        matplotlib is not installed.
    UnwritablePath
        The file cannot be written.
    """
    check_suffix(path)
    content = render(draw, path.suffix.lower(), dpi=dpi)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
