"""Small multiples of a variable over time: a grid of maps, a film strip of one row, or an animation."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.plotting.caption import text_under
from cryotile.plotting.colours import Shading, choose_colours, title_of
from cryotile.plotting.look import Look, crs_of, within
from cryotile.plotting.panel import Panel
from cryotile.plotting.sheet import Sheet, draw_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["animate", "plot_film", "plot_windows"]

MOST, FRAMES = 12, 6
"""Most maps of small multiples and of a film strip; an animation has all."""

FRAME_TIME = 700
"""Milliseconds that an animation shows each map."""


def plot_windows(
    product: xr.Dataset, variable: str, look: Look, figure: Figure | None = None
) -> npt.NDArray[Any]:
    """Draw a map for each window, or for :data:`MOST` evenly spaced ones, in the same colours.

    Parameters
    ----------
    product : Dataset
        The variable over (time, y, x) or (height_time, y, x), the bounds of these times, and ``status``.
    variable : str
        Name of the variable.
    look : Look
        Choices of the user.
    figure : Figure or None
        An empty figure; None: a new one.

    Returns
    -------
    ndarray of Axes, shape (maps,)
        In the order of time.
    """
    count = product[variable].shape[0]
    columns = count if count <= 3 else 3 if count in (5, 6, 9) else 4
    return _draw(product, variable, look, (min(count, MOST), columns, 2.5), figure)


def plot_film(
    product: xr.Dataset, variable: str, look: Look, figure: Figure | None = None
) -> npt.NDArray[Any]:
    """Draw a film strip: one row of at most :data:`FRAMES` maps, evenly spaced in time.

    Parameters
    ----------
    product, variable, look, figure
        As of :func:`plot_windows`.

    Returns
    -------
    ndarray of Axes, shape (maps,)
        In the order of time.
    """
    count = min(product[variable].shape[0], FRAMES)
    return _draw(product, variable, look, (count, count, 2.0), figure)


def animate(product: xr.Dataset, variable: str, look: Look, *, dpi: int) -> bytes:
    """Return an animation of all windows as a GIF.

    Parameters
    ----------
    product, variable, look
        As of :func:`plot_windows`.
    dpi : int
        Dots per inch.

    Returns
    -------
    bytes
        The same for the same maps.
    """
    from PIL import Image

    product = within(product, look.bounds)
    sheet = Sheet(look.size or 5.0, title=look.title or title_of(product[variable]))
    frames = []
    for panel in _panels(product, variable, look, np.arange(product[variable].shape[0])):
        axes = draw_sheet([panel], crs_of(product, variable), sheet)[0]
        picture = io.BytesIO()
        axes.figure.savefig(picture, format="png", dpi=dpi)
        frames.append(Image.open(picture).convert("RGB"))
    # One palette for all, or colours would flicker.
    first = frames[0].quantize(255, dither=Image.Dither.NONE)
    rest = [frame.quantize(palette=first, dither=Image.Dither.NONE) for frame in frames[1:]]
    film = io.BytesIO()
    options = {"duration": FRAME_TIME, "loop": 0, "optimize": False}
    first.save(film, format="GIF", save_all=True, append_images=rest, **options)
    return film.getvalue()


def _draw(
    product: xr.Dataset,
    variable: str,
    look: Look,
    plan: tuple[int, int, float],
    figure: Figure | None,
) -> npt.NDArray[Any]:
    """Draw so many maps, in so many columns, of such a size."""
    count, columns, size = plan
    product = within(product, look.bounds)
    every = product[variable].shape[0]
    chosen = np.linspace(0, every - 1, count).round().astype(int)
    panels = list(_panels(product, variable, look, chosen))
    # The legend names the colours of the map with the most squares without a value.
    emptiest = max(panels, key=lambda panel: int(np.isnan(panel.view.values).sum()))
    text = text_under(product, variable, emptiest)
    text += f" {count} of {every} maps, evenly spaced." if count < every else ""
    title = look.title or title_of(product[variable])
    sheet = Sheet(look.size or size, columns, one_bar=True, title=title, text=text)
    return draw_sheet(panels, crs_of(product, variable), sheet, figure)


def _panels(
    product: xr.Dataset, variable: str, look: Look, chosen: npt.NDArray[np.integer]
) -> Iterator[Panel]:
    """Yield maps in colours that suit all windows."""
    values = product[variable]
    along = str(values.dims[0])
    if values.shape[0] == 0:
        raise InvalidValue(f"{variable} has no window; plan a run with --window 5y")
    numbers = values.to_numpy()
    if numbers.dtype.kind == "f" and look.limits is None:
        norm = choose_colours(values, numbers.reshape(-1, numbers.shape[-1]), look.shading).norm
        shading = Shading((float(norm.vmin or 0.0), float(norm.vmax or 0.0)), look.colour_map)
    else:
        shading = look.shading
    titles = _titles(product, along)
    status = "window_status" if along == "time" and "window_status" in product else "status"
    for k in chosen.tolist():
        one = product.isel({along: k})
        yield Panel.of(one, variable, shading=shading, title=titles[k], status=status)


def _titles(product: xr.Dataset, along: str) -> list[str]:
    """Return the months or days of the intervals, or their middles if the bounds are unknown."""
    if along not in product.coords:
        return [f"{along} {k}" for k in range(product.sizes[along])]
    if f"{along}_bnds" not in product.variables:
        return [str(day) for day in product[along].to_numpy().astype("datetime64[D]")]
    bounds = product[f"{along}_bnds"].to_numpy()
    months = bounds.astype("datetime64[M]")
    whole = (months.astype(bounds.dtype) == bounds).all()
    return [
        " to ".join(map(str, ends))
        for ends in (months if whole else bounds.astype("datetime64[D]"))
    ]
