"""Picture files: formats, a common style, and bytes that depend on the picture alone."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryotile.errors import InvalidValue, MissingDependency
from cryotile.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STYLE", "new_figure", "save_picture"]

# A file must not name the day or the library version that it was made with.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}

# The salt gives the elements of an SVG the same names each time: equal pictures, equal bytes.
STYLE: dict[Any, Any] = {"font.size": 9, "axes.linewidth": 0.6, "svg.hashsalt": "cryotile"}
"""Matplotlib settings of every picture."""


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """Return an empty figure that a notebook shows, without pyplot.

    Figures of pyplot stay in memory after the call, and its windows belong to the user.

    Parameters
    ----------
    width, height : float
        Inches.
    layout : str or None
        Matplotlib's layout engine; None: the caller places the axes.

    Returns
    -------
    Figure
        With a canvas that draws PNG.

    Raises
    ------
    MissingDependency
        matplotlib is not installed.
    """
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


def save_picture(path: Path, draw: Callable[[], Figure], *, dpi: int) -> None:
    """Draw a figure and write it to a file, whole or not at all.

    Parameters
    ----------
    path : Path
        PNG, PDF or SVG, by its suffix.
    draw : callable
        Returns the figure; called in the style :data:`STYLE`, after the suffix is checked.
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
    suffix = path.suffix.lower()
    if suffix not in _METADATA:
        raise InvalidValue(
            f"{path} has no suffix of a picture; choose one of {', '.join(_METADATA)}"
        )
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingDependency("pictures need matplotlib: pip install 'cryotile[plot]'") from error
    content = io.BytesIO()
    with mpl.rc_context(STYLE):
        draw().savefig(content, format=suffix[1:], metadata=_METADATA[suffix], dpi=dpi)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())
