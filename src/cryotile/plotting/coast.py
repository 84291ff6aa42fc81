"""The coast of the polar regions.

Natural Earth's land at 1:50 million, in the public domain (naturalearthdata.com), as the npm package world-atlas 2.0.2
packs it; poleward of 55°, simplified to 1 km, islands under 100 km² left out.  Land ends where its ice shelves begin.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyproj

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["coast_lines", "draw_coast"]


@cache
def coast_lines() -> tuple[npt.NDArray[np.float64], ...]:
    """Return the lines of the coast.

    Returns
    -------
    tuple of ndarray, shape (n, 2)
        Longitude and latitude, degrees.
    """
    with (files("cryotile.plotting") / "coast.npz").open("rb") as stream, np.load(stream) as data:
        points = data["points"] / 1e3
        return tuple(np.split(points, data["ends"][:-1]))


def draw_coast(axes: Axes, crs: pyproj.CRS) -> None:
    """Draw the coast over a map.

    Parameters
    ----------
    axes : Axes
        Axes in projected kilometres.
    crs : pyproj.CRS
        The projection.
    """
    from matplotlib.collections import LineCollection

    to_map = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    lines = []
    for line in coast_lines():
        x, y = to_map.transform(*line.T)
        if np.isfinite(x).all() and np.isfinite(y).all():
            lines.append(np.column_stack([x, y]) / 1e3)
    axes.add_collection(
        LineCollection(lines, colors="0.25", linewidths=0.5, zorder=2.5), autolim=False
    )
