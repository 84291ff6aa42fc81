"""Places along a line over the posts of a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.geo.projection import point_scale

__all__ = ["Along", "edges", "inside", "places_along", "posting_of"]

Array = npt.NDArray[np.float64]

MOST = 40_000
"""Places of one line."""


@dataclass(frozen=True, eq=False)
class Along:
    """Places along a line.

    Attributes
    ----------
    x, y : ndarray, shape (places,)
        Metres.
    distance : ndarray, shape (places,)
        From the start of the line along the ground, metres.
    inside : ndarray of bool, shape (places,)
        Whether the nearest post is within half a posting along x and y.
    """

    x: Array
    y: Array
    distance: Array
    inside: npt.NDArray[np.bool_]


def places_along(
    maps: xr.Dataset, vertices: Array, crs: pyproj.CRS | None, per_post: int = 1
) -> Along:
    """Return places along a line of straight pieces, a posting apart or a little closer.

    Parameters
    ----------
    maps : Dataset, dimensions (y, x)
        The posts.
    vertices : ndarray, shape (vertices, 2)
        x, y, metres.
    crs : pyproj.CRS or None
        Their projection, by which projected metres are metres on the ground; None: they are.
    per_post : int
        Places per posting.

    Raises
    ------
    InvalidValue
        The line has no length, or no place of it is among the posts.
    """
    pieces = np.hypot(*np.diff(vertices, axis=0).T)
    along = np.append(0.0, np.cumsum(pieces))
    shown = " ".join(f"{value:.10g}" for value in vertices[[0, -1]].ravel())
    if not along[-1] > 0.0:
        raise InvalidValue(f"line {shown} has no length; give two different places")
    count = int(np.ceil(min(per_post * along[-1] / posting_of(maps), MOST)))
    # A vertex that is there twice has no place of its own.
    own = np.append(True, pieces > 0.0)
    at = np.linspace(0.0, along[-1], max(2, count + 1))
    x, y = (np.interp(at, along[own], column[own]) for column in vertices.T)
    among = inside(maps, x, y)
    if not among.any():
        raise InvalidValue(
            f"line {shown} has no post; the posts are within {edges(maps)} m, and a line takes metres or, with"
            " lonlat=True, degrees"
        )
    scale = np.ones(x.size) if crs is None else point_scale(crs, x, y)
    steps = np.hypot(np.diff(x), np.diff(y)) / ((scale[1:] + scale[:-1]) / 2)
    return Along(x, y, np.append(0.0, np.cumsum(steps)), among)


def inside(maps: xr.Dataset, x: Array, y: Array) -> npt.NDArray[np.bool_]:
    """Return which places are within half a posting of the posts."""
    half = posting_of(maps) / 2
    within = np.ones(x.shape, bool)
    for name, values in (("x", x), ("y", y)):
        posts = maps[name].to_numpy()
        within &= (values >= posts.min() - half) & (values <= posts.max() + half)
    return within


def posting_of(maps: xr.Dataset) -> float:
    """Return the distance of neighbouring posts, m."""
    for axis in ("x", "y"):
        if maps.sizes[axis] > 1:
            at = maps[axis].to_numpy()
            return float(abs(at[-1] - at[0])) / (len(at) - 1)
    return float(maps.attrs.get("posting", 1000.0))


def edges(maps: xr.Dataset) -> str:
    """Return x_min, y_min, x_max, y_max of the posts as text."""
    x, y = maps["x"].to_numpy(), maps["y"].to_numpy()
    return " ".join(f"{edge:.10g}" for edge in (x.min(), y.min(), x.max(), y.max()))
