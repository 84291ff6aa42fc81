"""The distribution of a variable over posts."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.plotting.colours import label_of, title_of
from cryotile.plotting.look import Look, within
from cryotile.plotting.picture import new_figure
from cryotile.plotting.view import axis_numbers, date_axis, is_date, numbers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_histogram"]

BINS = 80
TAIL = 0.5
"""Percent of the values at either end that the axis leaves out; their number is in the text."""


def plot_histogram(
    product: xr.Dataset, variable: str, look: Look, figure: Figure | None = None
) -> Axes:
    """Draw the number of posts by value, with median and quartiles.

    Parameters
    ----------
    product : Dataset, dimensions (y, x)
        The variable.
    variable : str
        Its name.
    look : Look
        Choices of the user; ``limits`` are the ends of the axis, of instants in decimal years.
    figure : Figure or None
        An empty figure; None: a new one.

    Returns
    -------
    Axes
        Of the histogram.

    Raises
    ------
    InvalidValue
        The variable has flags, or no value.
    """
    shown = within(product, look.bounds)[variable]
    if "flag_meanings" in shown.attrs:
        raise InvalidValue(
            f"{variable} has flags, not numbers; its map shows the share of each: choose the kind map"
        )
    values = axis_numbers(shown, numbers_of(shown)).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise InvalidValue(f"{variable} has no value; choose another variable or other bounds")
    limits = None if look.limits is None else axis_numbers(shown, np.array(look.limits))
    low, high = np.percentile(values, [TAIL, 100.0 - TAIL]) if limits is None else limits
    if low == high:
        low, high = low - 0.5, high + 0.5
    size = look.size or 6.0
    axes: Axes = new_figure(size, 0.6 * size, "constrained", figure).subplots()
    edges = _edges(shown, low, high)
    axes.hist(values, edges, color="#3b6fb6", alpha=0.75)
    first, median, third = np.percentile(values, [25.0, 50.0, 75.0])
    for value, style in ((median, "-"), (first, ":"), (third, ":")):
        axes.axvline(value, color="0.1", linewidth=1.0, linestyle=style)
    if low < 0.0 < high:
        axes.axvline(0.0, color="#c8553d", linewidth=0.8, linestyle="--")
    axes.set_xlim(low, high)
    axes.set_xlabel(label_of(shown))
    if is_date(shown):
        date_axis(axes.xaxis)
    axes.set_ylabel("posts")
    beyond = int(((values < low) | (values > high)).sum())
    numbers = (
        f"{values.size:,} posts",
        f"median (line) {_text(shown, median)}",
        f"quartiles (dotted) {_text(shown, first)} and {_text(shown, third)}",
        f"mean {_text(shown, values.mean())}",
        *([f"{beyond:,} beyond the axis"] if beyond else []),
    )
    lines = textwrap.wrap("; ".join(numbers), int(16 * size), break_on_hyphens=False)
    axes.set_title(look.title or title_of(shown), pad=5 + 11 * len(lines))
    small: dict[str, Any] = {
        "fontsize": 7.5,
        "color": "0.25",
        "linespacing": 1.3,
        "in_layout": False,
    }
    axes.text(0.0, 1.02, "\n".join(lines), transform=axes.transAxes, **small)
    return axes


def _text(variable: xr.DataArray, number: float) -> str:
    """Return a number, or the day that it stands for."""
    if is_date(variable):
        return str(np.datetime64(round(number), "D"))
    return f"{number:.3g}".replace("-", "−")


def _edges(variable: xr.DataArray, low: float, high: float) -> list[float]:
    """Return the edges of bins; bins of counts hold whole numbers."""
    if variable.dtype.kind in "iu":
        step = max(1, round((high - low) / BINS))
        return [float(edge) for edge in np.arange(np.floor(low) - 0.5, high + step, step)]
    return [float(edge) for edge in np.linspace(low, high, BINS + 1)]
