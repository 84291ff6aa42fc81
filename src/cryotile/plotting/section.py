"""A variable along a line, with its interval, over the surface, and where the line is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.geo.places import from_degrees
from cryotile.geo.projection import crs_text
from cryotile.maps.along import places_along
from cryotile.plotting.colours import label_of, title_of
from cryotile.plotting.look import Look, crs_of, uncertainties, within
from cryotile.plotting.panel import Panel, draw_panel
from cryotile.plotting.picture import new_figure
from cryotile.plotting.view import axis_numbers, date_axis, is_date, numbers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Line", "plot_section"]

Line = tuple[float, float, float, float]
"""x and y of its start, x and y of its end, m."""

_Values = npt.NDArray[np.float64]


def plot_section(
    product: xr.Dataset, variable: str, look: Look, figure: Figure | None = None
) -> npt.NDArray[Any]:
    """Draw a variable along a straight line of the projection.

    The value at a place of the line is that of the nearest post.

    Parameters
    ----------
    product : Dataset, dimensions (y, x)
        The variable; its interval ``…_ci95`` (or ``…_sigma``) and ``elevation`` are drawn where it has them.
    variable : str
        Name of the variable.
    look : Look
        Choices of the user; ``line`` is needed.
    figure : Figure or None
        An empty figure; None: a new one.

    Returns
    -------
    ndarray of Axes, shape (2,) or (3,)
        The variable, the elevation if there is one, and the map with the line.

    Raises
    ------
    InvalidValue
        There is no line, or it has no length or no post.
    """
    product = within(product, look.bounds)
    crs = crs_of(product, variable)
    line = _metres(look, crs)
    places = places_along(product, line, crs, per_post=2)
    distance, inside = places.distance / 1e3, places.inside
    at = {name: xr.DataArray(getattr(places, name), dims="place") for name in ("x", "y")}
    along = product.sel(at, method="nearest")
    size = look.size or 6.0
    figure = new_figure(1.55 * size, 0.62 * size, "constrained", figure)
    relief = variable != "elevation" and "elevation" in product
    ratios = (2.0, 1.0) if relief else (1.0,)
    cells = figure.add_gridspec(len(ratios), 2, width_ratios=(1.7, 1.0), height_ratios=ratios)
    top = figure.add_subplot(cells[0, 0])
    _curve(top, along, variable, (distance, inside))
    top.set_title(look.title or title_of(product[variable]), pad=16)
    if look.limits is not None:
        top.set_ylim(*axis_numbers(product[variable], np.array(look.limits)))
    drawn = [top]
    if relief:
        drawn.append(figure.add_subplot(cells[1, 0], sharex=top))
        _curve(drawn[1], along, "elevation", (distance, inside))
        top.tick_params(labelbottom=False)
    drawn[-1].set_xlabel(f"distance on the ground from A (km){_outside(distance, inside)}")
    place = figure.add_subplot(cells[:, 1])
    _map(place, product, variable, (look, line))
    _mark(top, place, distance[-1], line)
    return np.array([*drawn, place], dtype=object)


def _metres(look: Look, crs: pyproj.CRS | None) -> _Values:
    """Return the ends of the line in metres of the projection; shape (2, 2)."""
    if look.line is None:
        raise InvalidValue(
            "a section needs a line; give --line x y x y, its start and end in metres"
        )
    ends = np.reshape(look.line, (2, 2))
    if not look.lonlat:
        return ends
    if crs is None:
        raise InvalidValue(
            "the data name no CRS, so degrees have no place; give the line in metres"
        )
    return np.column_stack(from_degrees(ends[:, 0], ends[:, 1], crs_text(crs)))


def _curve(
    axes: Axes,
    along: xr.Dataset,
    variable: str,
    place: tuple[_Values, npt.NDArray[np.bool_]],
) -> None:
    distance, inside = place
    numbers = axis_numbers(along[variable], numbers_of(along[variable]))
    value = np.where(inside, numbers, np.nan)
    changes = variable != "elevation"
    colour = "#3b6fb6" if changes else "0.25"
    axes.plot(distance, value, color=colour, drawstyle="steps-mid", linewidth=1.0)
    name = next((n for n in uncertainties(variable) if n in along), None)
    if name is not None and changes:
        half = along[name].to_numpy()
        what = "95 % interval" if name.endswith("ci95") else "± standard error"
        band: dict[str, Any] = {"step": "mid", "alpha": 0.25, "color": colour, "linewidth": 0}
        axes.fill_between(distance, value - half, value + half, label=what, **band)
        axes.legend(loc="best")
    finite = value[np.isfinite(value)]
    if changes and finite.size and finite.min() < 0.0 < finite.max():
        axes.axhline(0.0, color="0.4", linewidth=0.6)
    axes.set_xlim(distance[0], distance[-1])
    axes.set_ylabel(label_of(along[variable]))
    if is_date(along[variable]):
        date_axis(axes.yaxis)


def _outside(distance: _Values, inside: npt.NDArray[np.bool_]) -> str:
    """Return what a reader must know of the part of the line without posts."""
    if inside.all():
        return ""
    length = float(distance[-1]) * float((~inside).mean())
    return f"; {length:.3g} km of it lie outside the posts"


def _map(axes: Axes, product: xr.Dataset, variable: str, of: tuple[Look, _Values]) -> None:
    look, line = of
    panel = Panel.of(product, variable, shading=look.shading, title="")
    left, right, bottom, top = panel.view.extent
    x, y = line.T / 1e3
    window = (min(left, *x), max(right, *x), min(bottom, *y), max(top, *y))
    draw_panel(axes, panel, crs_of(product, variable), window)
    axes.set_xlabel("x (km)")
    axes.set_ylabel("y (km)")


def _mark(top: Axes, place: Axes, length: float, line: _Values) -> None:
    """Draw the line on the map, and its ends A and B on both."""
    start, end = (line / 1e3).tolist()
    for colour, width, order in (("white", 2.6, 7), ("0.05", 1.2, 8)):
        place.plot(*(line.T / 1e3), color=colour, linewidth=width, zorder=order)
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0, "alpha": 0.85}
    for letter, where, share in (("A", start, 0.0), ("B", end, length)):
        place.annotate(
            letter, where, fontweight="bold", ha="center", va="center", zorder=9, bbox=box
        )
        top.annotate(
            letter,
            (share, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            fontweight="bold",
            ha="center",
        )
