"""Maps side by side on one sheet, with their colour bars and the text under them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cryotile.geo.projection import crs_text
from cryotile.plotting.colours import extend, label_of
from cryotile.plotting.panel import Panel, draw_panel
from cryotile.plotting.picture import new_figure
from cryotile.plotting.view import Extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["Sheet", "draw_sheet"]

SLIMMEST = 0.4
"""Smallest ratio of the shorter side of a map to its longer one."""

LEFT, RIGHT, TOP, BOTTOM, LINE = 0.8, 1.35, 0.5, 0.62, 0.155
"""Inches around maps: tick labels, colour bar, title, and below it axis label and lines of text."""

GAP, TITLE_LINE = 0.14, 0.22
"""Inches between maps that share a colour bar, and for each line of a title but the first."""


@dataclass(frozen=True)
class Sheet:
    """How maps stand on a sheet.

    Attributes
    ----------
    size : float
        Longer side of one map, inches.
    columns : int
        Maps in a row.
    one_bar : bool
        Whether all maps share the colour bar of the first.
    title : str
        Text above all maps; empty: none.
    text : str
        Sentences below them.
    """

    size: float
    columns: int = 1
    one_bar: bool = False
    title: str = ""
    text: str = ""


def draw_sheet(
    panels: Sequence[Panel], crs: pyproj.CRS | None, sheet: Sheet, figure: Figure | None = None
) -> npt.NDArray[Any]:
    """Draw maps of one extent.

    Parameters
    ----------
    panels : sequence of Panel
        At least one.
    crs : pyproj.CRS or None
        Their projection.
    sheet : Sheet
        Sizes and texts.
    figure : Figure or None
        An empty figure, which gets the size of the sheet; None: a new one.

    Returns
    -------
    ndarray of Axes, shape (panels,)
        The maps, in their order.
    """
    window = _window(panels[0].view.extent)
    rows, columns = -(-len(panels) // sheet.columns), min(sheet.columns, len(panels))
    width, height = _map_inches(window, sheet.size)
    across = width + (GAP if sheet.one_bar else RIGHT)
    total = LEFT + columns * across + (RIGHT - GAP if sheet.one_bar else 0.0)
    titles = [_wrap(panel.title, across if columns > 1 else width + RIGHT, 9) for panel in panels]
    head = TITLE_LINE * max(text.count("\n") for text in titles)
    text = textwrap.wrap(sheet.text, int(18 * (total - 0.2)))
    below = BOTTOM + LINE * len(text)
    above = (0.32 if rows > 1 or sheet.title else TOP) + head
    over = 0.34 if sheet.title else 0.0
    tall = below + rows * (height + above) + over
    figure = new_figure(total, tall, figure=figure)
    axes = np.empty(len(panels), dtype=object)
    for k, panel in enumerate(panels):
        row, column = divmod(k, sheet.columns)
        box = (LEFT + column * across, below + (rows - 1 - row) * (height + above), width, height)
        axes[k] = one = _place(figure, box)
        image = draw_panel(one, panel, crs, window)
        lowest = k + sheet.columns >= len(panels)
        _dress(one, titles[k], crs, names=(lowest, column == 0), small=rows * columns > 3)
        if not sheet.one_bar:
            _bar(figure, image, panel, (box[0] + width + 0.15, box[1], height))
        elif k == columns - 1 or (k == 0 and columns > len(panels)):
            low = below + max(0.0, rows * (height + above) - above - 4.0) / 2
            long = min(4.0, rows * (height + above) - above)
            _bar(figure, image, panel, (box[0] + width + 0.15, low, long))
    _texts(figure, sheet.title, text, (total, tall))
    return axes


def _place(figure: Figure, inches: tuple[float, float, float, float]) -> Axes:
    wide, high = figure.get_size_inches()
    x, y, across, up = inches
    return figure.add_axes((x / wide, y / high, across / wide, up / high))


def _wrap(title: str, inches: float, letters: int) -> str:
    return "\n".join(textwrap.wrap(title, int(letters * inches)))


def _window(extent: Extent) -> Extent:
    """Return the edges of the map, wider where it is too slim for axes, title and colour bar."""
    left, right, bottom, top = extent
    least = SLIMMEST * max(right - left, top - bottom)
    across, up = max(0.0, least - right + left) / 2, max(0.0, least - top + bottom) / 2
    return left - across, right + across, bottom - up, top + up


def _map_inches(window: Extent, size: float) -> tuple[float, float]:
    across, up = window[1] - window[0], window[3] - window[2]
    return size * across / max(across, up), size * up / max(across, up)


def _dress(
    axes: Axes, title: str, crs: pyproj.CRS | None, *, names: tuple[bool, bool], small: bool
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=9 if small else 12, pad=3 if small else 8)
    projection = ""
    if crs is not None:
        text = crs_text(crs)
        projection = f", {text if len(text) <= 20 else crs.name}"
    below, beside = names
    inches = axes.get_window_extent().width / axes.figure.dpi
    axes.xaxis.set_major_locator(MaxNLocator(nbins=max(2, int(inches / 0.6)), integer=False))
    axes.set_xlabel(f"x (km){projection}" if inches > 2.2 else "x (km)")
    axes.set_ylabel("y (km)")
    axes.xaxis.label.set_visible(below)
    axes.yaxis.label.set_visible(beside)
    axes.tick_params(labelbottom=below, labelleft=beside)


def _bar(figure: Figure, image: AxesImage, panel: Panel, place: tuple[float, float, float]) -> None:
    left, bottom, height = place
    axes = _place(figure, (left, bottom + 0.04 * height, 0.17, 0.92 * height))
    colours = panel.colours
    ends = "neither" if colours.ticks else extend(panel.view.values, colours.norm)
    bar = figure.colorbar(image, cax=axes, extend=ends, extendfrac=0.04)
    bar.outline.set_linewidth(0.4)
    bar.set_label("" if colours.ticks else label_of(panel.variable))
    _set_ticks(bar, panel.variable, colours.ticks)


def _set_ticks(bar: Colorbar, variable: xr.DataArray, ticks: dict[float, str]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if ticks:
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
    elif variable.dtype.kind in "iu":
        bar.locator = MaxNLocator(nbins=6, integer=True)
        bar.update_ticks()
    elif variable.dtype.kind == "M":
        bar.formatter = FuncFormatter(lambda year, _: str(_date(year)))
        bar.update_ticks()


def _date(year: float) -> np.datetime64:
    """Return the day of a decimal year, the inverse of that of :class:`cryotile.plotting.view.MapView`."""
    return np.datetime64("2000-01-01") + np.timedelta64(round((year - 2000.0) * 365.25), "D")


def _texts(figure: Figure, title: str, text: list[str], inches: tuple[float, float]) -> None:
    total, tall = inches
    if title:
        place = 0.12 / total, 1 - 0.1 / tall
        figure.text(*place, title, fontsize=12, fontweight="bold", va="top")
    figure.text(
        0.12 / total,
        (LINE * len(text) + 0.08) / tall,
        "\n".join(text),
        fontsize=7.5,
        color="0.25",
        linespacing=1.4,
        va="top",
    )
