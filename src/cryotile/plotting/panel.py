"""One map on one pair of axes: values, places without values, relief, outline, graticule and scale bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cryotile.geo.projection import point_scale
from cryotile.plotting.coast import draw_coast
from cryotile.plotting.colours import Colours, Shading, choose_colours, title_of
from cryotile.plotting.graticule import draw_graticule
from cryotile.plotting.view import Extent, MapView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = ["NO_FIT", "NO_POINTS", "Panel", "draw_panel"]

NO_FIT, NOT_COMPUTED, NO_POINTS, OUTSIDE = "#979fa6", "#efe6cf", "#ccd2d6", "#ffffff"
"""Colours of squares without a value; none is that of zero in a map of changes."""

DARKEST, BRIGHTEST = 0.16, 0.30
"""Opacity of the relief's black and white; zero stays lighter than squares without a fit."""

COAST_FROM = 200.0
"""Kilometres; on a smaller map the coast would be off by more than its line is wide."""

_Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Panel:
    """What one map shows.

    Attributes
    ----------
    variable : DataArray
        Its attributes name the map and its units.
    view : MapView
        Values and the state of each square.
    colours : Colours
        Of the values.
    title : str
        Text above the map.
    relief : ndarray, shape (ny, nx), or None
        Light from the upper left, from -1 (shade) to 1; NaN without an elevation.
    uncertain : ndarray of bool, shape (ny, nx), or None
        Squares to hatch.
    """

    variable: xr.DataArray
    view: MapView
    colours: Colours
    title: str
    relief: _Values | None = None
    uncertain: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of(
        cls,
        product: xr.Dataset,
        name: str,
        *,
        shading: Shading | None = None,
        title: str | None = None,
        status: str = "status",
        hatch: bool = False,
    ) -> Panel:
        """Return the map of a variable.

        Parameters
        ----------
        product : Dataset, dimensions (y, x)
            The variable; ``status``, ``elevation`` and ``dhdt_ci95`` are used where it has them.
        name : str
            Name of the variable.
        shading : Shading or None
            What a user asks of the colours.
        title : str or None
            Text above the map; None: the variable's long name.
        status : str
            Name of the status of the variable.
        hatch : bool
            Whether to hatch squares where ``dhdt_ci95`` exceeds the rate.

        Returns
        -------
        Panel
            Without a relief for flags, whose colours must be found again in the legend.
        """
        view = MapView.of(product, name, status=status)
        colours = choose_colours(product[name], view.values, shading)
        shaded = "elevation" in product and not colours.ticks
        return cls(
            variable=product[name],
            view=view,
            colours=colours,
            title=title_of(product[name]) if title is None else title,
            relief=_relief(MapView.of(product, "elevation").values) if shaded else None,
            uncertain=_uncertain(product, name, view) if hatch else None,
        )


def _uncertain(product: xr.Dataset, name: str, view: MapView) -> npt.NDArray[np.bool_] | None:
    """Return where the confidence interval of a rate includes zero; None if the interval is unknown."""
    if name != "dhdt" or "dhdt_ci95" not in product:
        return None
    return MapView.of(product, "dhdt_ci95").values > np.abs(view.values)


def _relief(elevation: _Values) -> _Values | None:
    """Return the slope towards the upper left, less its median, so that a plain has no shade."""
    if min(elevation.shape) < 3:
        return None
    light = (_step(elevation, 1) - _step(elevation, 0)) / math.sqrt(2.0)
    if not np.isfinite(light).any():
        return None
    light = light - np.nanmedian(light)
    strongest = np.nanpercentile(np.abs(light), 98.0)
    return np.clip(light / strongest, -1.0, 1.0) if strongest > 0.0 else None


def _step(elevation: _Values, axis: int) -> _Values:
    """Return the change from square to square, on one side alone beside a gap."""
    steps = np.diff(elevation, axis=axis)
    gap = np.full_like(np.take(elevation, [0], axis=axis), np.nan)
    pair = np.stack([np.append(steps, gap, axis=axis), np.append(gap, steps, axis=axis)])
    known = np.isfinite(pair)
    total = np.where(known, pair, 0.0).sum(axis=0)
    counts: _Values = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
    return counts


def draw_panel(axes: Axes, panel: Panel, crs: pyproj.CRS | None, window: Extent) -> AxesImage:
    """Draw a map.

    Parameters
    ----------
    axes : Axes
        Axes with their final size, in projected kilometres.
    panel : Panel
        What to draw.
    crs : pyproj.CRS or None
        The projection; None: without graticule, and a scale bar of projected length.
    window : Extent
        Edges of the axes, km.

    Returns
    -------
    AxesImage
        For a colour bar.
    """
    view, colours = panel.view, panel.colours
    show = partial(axes.imshow, extent=view.extent, origin="lower", interpolation="nearest")
    show(_background(view))
    image = show(np.ma.masked_invalid(colours.values), cmap=colours.colour_map, norm=colours.norm)
    if panel.relief is not None and panel.relief.shape == view.values.shape:
        show(_shade(np.where(np.isfinite(view.values), panel.relief, np.nan)))
    _outline(axes, view)
    if panel.uncertain is not None:
        _hatch(axes, view, panel.uncertain)
    wide = max(window[1] - window[0], window[3] - window[2]) >= COAST_FROM
    if crs is not None:
        if wide and not view.outside_mask.any():
            draw_coast(axes, crs)
        draw_graticule(axes, crs, window)
    axes.set_xlim(window[:2])
    axes.set_ylim(window[2:])
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_facecolor(OUTSIDE if view.outside_mask.any() else NO_POINTS)
    _scale_bar(axes, crs, window)
    return image


def _background(view: MapView) -> _Values:
    from matplotlib.colors import to_rgb

    colours = np.broadcast_to(to_rgb(NO_POINTS), (*view.values.shape, 3)).copy()
    for where, colour in (
        (view.outside_mask, OUTSIDE),
        (view.not_computed, NOT_COMPUTED),
        (view.has_points, NO_FIT),
    ):
        colours[where] = to_rgb(colour)
    return colours


def _shade(light: _Values) -> _Values:
    """Return white and black of an opacity that grows with the relief, shape (ny, nx, 4)."""
    light = np.nan_to_num(light)
    opacity = np.where(light < 0.0, -DARKEST * light, BRIGHTEST * light)
    return np.concatenate([np.repeat((light > 0.0)[..., None], 3, axis=2), opacity[..., None]], 2)


def _centres(view: MapView) -> tuple[_Values, _Values]:
    ny, nx = view.values.shape
    left, right, bottom, top = view.extent
    x = left + (np.arange(nx) + 0.5) * (right - left) / nx
    return x, bottom + (np.arange(ny) + 0.5) * (top - bottom) / ny


def _outline(axes: Axes, view: MapView) -> None:
    outside = view.outside_mask
    if min(outside.shape) > 1 and outside.any() and not outside.all():
        axes.contour(*_centres(view), outside, [0.5], colors="0.2", linewidths=0.6)


def _hatch(axes: Axes, view: MapView, where: npt.NDArray[np.bool_]) -> None:
    if min(where.shape) < 2 or not where.any():
        return
    filled = axes.contourf(*_centres(view), where, [0.5, 1.5], colors="none", hatches=["/////"])
    filled.set_edgecolor("0.15")
    filled.set_linewidth(0.0)


def _scale_bar(axes: Axes, crs: pyproj.CRS | None, window: Extent) -> None:
    """Draw a bar of a round length on the ground in the middle of the map, in its lower right corner."""
    from matplotlib.patches import Rectangle

    left, right, bottom, top = window
    scale = 1.0
    if crs is not None:
        middle = np.array([500.0 * (left + right)]), np.array([500.0 * (bottom + top)])
        scale = float(point_scale(crs, *middle)[0])
    if not (math.isfinite(scale) and scale > 0.0):
        return
    room = 0.28 * (right - left) / scale
    power = 10.0 ** math.floor(math.log10(room))
    length = max(step for step in (1.0, 2.0, 5.0) if step * power <= room) * power
    share = length * scale / (right - left)
    place = axes.get_position()
    figure = axes.get_figure(root=True)
    assert figure is not None
    wide, high = figure.get_size_inches() * (place.width, place.height)
    margin, height = 0.10, 0.24  # inches
    box = (1 - share - 2 * margin / wide, 0.05 / high, share + 1.6 * margin / wide, height / high)
    white: dict[str, Any] = {
        "transform": axes.transAxes,
        "color": "white",
        "alpha": 0.75,
        "linewidth": 0,
    }
    axes.add_patch(Rectangle(box[:2], *box[2:], zorder=5, **white))
    start = box[0] + 0.8 * margin / wide
    axes.plot(
        (start, start + share),
        (0.11 / high, 0.11 / high),
        transform=axes.transAxes,
        color="0.1",
        linewidth=2.0,
        solid_capstyle="butt",
        zorder=6,
        scalex=False,
        scaley=False,
    )
    axes.text(
        start + share / 2,
        0.15 / high,
        f"{length:g} km" if length >= 1.0 else f"{1e3 * length:g} m",
        transform=axes.transAxes,
        fontsize=7,
        color="0.1",
        ha="center",
        va="bottom",
        zorder=6,
    )
