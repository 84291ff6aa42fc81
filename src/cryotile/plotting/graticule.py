"""Meridians and parallels over a map in projected coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyproj

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cryotile.plotting.view import Extent

__all__ = ["draw_graticule"]

STEPS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 45.0, 90.0)
"""Degrees between lines; the smallest step that gives at most :data:`LINES` lines is used."""

LINES = 6

FONT_SIZE = 6.0
"""Typographic points."""

_Values = npt.NDArray[np.float64]


def draw_graticule(axes: Axes, crs: pyproj.CRS, extent: Extent) -> None:
    """Draw labelled meridians and parallels.

    Parameters
    ----------
    axes : Axes
        Axes in projected kilometres.
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
    # Longitudes are relative to the middle of the map, so that no line is cut at ±180°.
    middle = float(longitude[20, 20])
    offset = (longitude - middle + 180.0) % 360.0 - 180.0
    west, east, south, north = offset.min(), offset.max(), latitude.min(), latitude.max()
    polar = _holds_pole(offset, latitude)
    if polar:
        west, east = -180.0, 180.0
        south, north = (south, 90.0) if north > 0 else (-90.0, north)
    along_parallel = np.linspace(west - 1, east + 1, 400) + middle
    along_meridian = np.linspace(max(south - 1, -90.0), min(north + 1, 90.0), 400)
    lines = _Lines(axes, extent)
    for level in _levels(south, north):
        if abs(level) == 90.0:
            continue  # The pole is a point, not a line.
        line = to_degrees.transform(along_parallel, np.full(400, level), direction="INVERSE")
        lines.draw(line, label=_degrees(level, "NS"), at_rim=False)
    meridians = _levels(west + middle, east + middle)
    # 180° W and 180° E are one meridian.
    for level in [m for m in meridians if m < meridians[0] + 360.0]:
        line = to_degrees.transform(np.full(400, level), along_meridian, direction="INVERSE")
        label = _degrees((level + 180.0) % 360.0 - 180.0, "EW")
        lines.draw(line, label=label, at_rim=polar)


def _holds_pole(offset: _Values, latitude: _Values) -> bool:
    # Around a pole longitudes take all values; other maps span less.
    return bool(np.ptp(offset) > 270.0 and np.abs(latitude).max() > 80.0)


def _levels(low: float, high: float) -> list[float]:
    step = next((s for s in STEPS if (high - low) / s <= LINES), STEPS[-1])
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _degrees(value: float, letters: str) -> str:
    letter = letters[int(value < 0)] if value not in (0.0, -180.0) else ""
    return f"{abs(value):.4g}°{letter}"


@dataclass(frozen=True, eq=False)
class _Lines:
    """The axes, and the labels drawn so far."""

    axes: Axes
    extent: Extent
    labels: list[tuple[float, float, float]] = field(default_factory=list)
    """Centre x and y, and half width of each label, km."""

    def draw(self, line: tuple[_Values, _Values], *, label: str, at_rim: bool) -> None:
        """Draw a line (m), and its label if there is room for it."""
        x, y = line[0] / 1e3, line[1] / 1e3
        self.axes.plot(x, y, color="0.35", linewidth=0.4, alpha=0.55, zorder=3)
        across, up = self._half_sizes(label)
        at = self._place(x, y, across, up, at_rim)
        if at is None:
            return
        self.labels.append((x[at], y[at], across))
        self.axes.annotate(
            label,
            (x[at], y[at]),
            fontsize=FONT_SIZE,
            color="0.3",
            ha="center",
            va="center",
            zorder=4,
            bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.7, "linewidth": 0},
        )

    def _half_sizes(self, label: str) -> tuple[float, float]:
        """Return half of the width and height of a label with its margin, km."""
        left, right, bottom, top = self.extent
        figure, place = self.axes.get_figure(root=True), self.axes.get_position()
        assert figure is not None
        wide, high = figure.get_size_inches()
        # A letter is about two thirds as wide as high.
        width, height = FONT_SIZE * (0.65 * len(label) + 0.8), FONT_SIZE * 1.7
        return (
            width / 2 / (72 * wide * place.width) * (right - left),
            height / 2 / (72 * high * place.height) * (top - bottom),
        )

    def _place(self, x: _Values, y: _Values, across: float, up: float, at_rim: bool) -> int | None:
        """Return the vertex of a line where its label fits best, clear of the frame and other labels."""
        left, right, bottom, top = self.extent
        room = (x > left + across) & (x < right - across) & (y > bottom + up) & (y < top - up)
        for other_x, other_y, other_across in self.labels:
            room &= (np.abs(x - other_x) > across + other_across) | (np.abs(y - other_y) > 2 * up)
        inside = np.flatnonzero(room)
        if inside.size == 0:
            return None
        # Nearest to the upper left corner; for meridians around a pole, nearest to the rim.
        away = x[inside] / (right - left) - y[inside] / (top - bottom)
        return int(inside[np.argmin(-np.hypot(x[inside], y[inside]) if at_rim else away)])
