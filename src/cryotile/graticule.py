"""Meridians and parallels over a map in projected coordinates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyproj

from cryotile.mapview import Extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_graticule"]

STEPS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 45.0, 90.0)
"""Degrees between lines; the smallest that gives no more than :data:`LINES`."""

LINES = 6

_Values = npt.NDArray[np.float64]


def draw_graticule(axes: Axes, crs: pyproj.CRS, extent: Extent) -> None:
    """Draw labelled meridians and parallels.

    Parameters
    ----------
    axes : Axes
        In projected kilometres.
    crs : pyproj.CRS
        The projection.
    extent : Extent
        Edges of the map, kilometres.
    """
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    x, y = np.meshgrid(np.linspace(*extent[:2], 41), np.linspace(*extent[2:], 41))
    longitude, latitude = to_degrees.transform(1e3 * x, 1e3 * y)
    if not np.isfinite(longitude).all():
        return
    # Longitudes are counted from the middle of the map, so that ±180° cuts no line.
    middle = float(longitude[20, 20])
    offset = (longitude - middle + 180.0) % 360.0 - 180.0
    west, east, south, north = offset.min(), offset.max(), latitude.min(), latitude.max()
    polar = _holds_pole(offset, latitude)
    if polar:
        west, east = -180.0, 180.0
        south, north = (south, 90.0) if north > 0 else (-90.0, north)
    along_parallel = np.linspace(west - 1, east + 1, 400) + middle
    along_meridian = np.linspace(max(south - 1, -90.0), min(north + 1, 90.0), 400)
    for level in _levels(south, north):
        if abs(level) == 90.0:
            continue  # the pole is a point
        line = to_degrees.transform(along_parallel, np.full(400, level), direction="INVERSE")
        _draw_line(axes, line, extent, label=_degrees(level, "NS"), at_rim=False)
    for level in _levels(west + middle, east + middle):
        line = to_degrees.transform(np.full(400, level), along_meridian, direction="INVERSE")
        label = _degrees((level + 180.0) % 360.0 - 180.0, "EW")
        _draw_line(axes, line, extent, label=label, at_rim=polar)


def _holds_pole(offset: _Values, latitude: _Values) -> bool:
    # Around the pole longitudes take all values; elsewhere a map never spans so many.
    return bool(np.ptp(offset) > 270.0 and np.abs(latitude).max() > 80.0)


def _levels(low: float, high: float) -> list[float]:
    step = next((s for s in STEPS if (high - low) / s <= LINES), STEPS[-1])
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _degrees(value: float, letters: str) -> str:
    letter = letters[int(value < 0)] if value not in (0.0, -180.0) else ""
    return f"{abs(value):.4g}°{letter}"


def _draw_line(
    axes: Axes, line: tuple[_Values, _Values], extent: Extent, *, label: str, at_rim: bool
) -> None:
    x, y = line[0] / 1e3, line[1] / 1e3
    left, right, bottom, top = extent
    margin_x, margin_y = 0.03 * (right - left), 0.03 * (top - bottom)
    axes.plot(x, y, color="0.35", linewidth=0.4, alpha=0.55, zorder=3)
    inside = np.flatnonzero(
        (x > left + margin_x)
        & (x < right - margin_x)
        & (y > bottom + margin_y)
        & (y < top - margin_y)
    )
    if inside.size < 2:
        return
    # Labels stand where lines come nearest to the upper left corner; those of meridians around a pole, at the rim.
    away = x[inside] / (right - left) - y[inside] / (top - bottom)
    at = inside[np.argmin(-np.hypot(x[inside], y[inside]) if at_rim else away)]
    axes.annotate(
        label,
        (x[at], y[at]),
        fontsize=6,
        color="0.3",
        ha="center",
        va="center",
        zorder=4,
        bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.7, "linewidth": 0},
    )
