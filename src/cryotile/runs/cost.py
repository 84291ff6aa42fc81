"""Cost of each tile of a run and digest of its points, from the log of the point DB alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile.geo.grid import Tile
from cryotile.pointdb.sort_order import SQUARE_SIZE
from cryotile.runs.origin import Origin, keep_origin
from cryotile.runs.plan import Settings, within_period
from cryotile.runs.tasklist import Estimate

if TYPE_CHECKING:
    from cryotile.pointdb import PointDB

__all__ = ["estimate", "tile_table"]

VISITS_PER_SECOND = 2.5e7
"""Pairs of point and post that one core fits a second, measured on two cores of a 2020s server, robust recipe."""

PLANE_SHARE = 0.1
"""Time of a visit of the plane recipe in that of a robust one."""

# One core reads, decodes and sorts some 3 million points a second, and opens and saves a tile in a tenth of a second.
# Without these, the member that gets the margin of an ice sheet would have thousands of tiles of no cost.
VISITS_PER_READ = VISITS_PER_SECOND / 3e6
VISITS_PER_TILE = VISITS_PER_SECOND * 0.1

BYTES_PER_POINT = 250
BYTES_PER_WORKER = 250e6


def tile_table(settings: Settings, db: PointDB, *, snapshot: int | None = None) -> pd.DataFrame:
    """List the tiles that have points and a wanted post, costliest first, with costs and digests of their points.

    Parameters
    ----------
    settings : Settings
        Grid, tile size, selection and radius.
    db : PointDB
        The points.
    snapshot : int or None
        The commit to look at; None: the newest.

    Returns
    -------
    DataFrame, one row per tile
        ``ix, iy`` (tile), ``cost`` (expected points visited: pairs of a point and a post within the radius, a tenth of
        them where planes are fitted, and as many as could be visited while the points are read and the tile is saved),
        ``points`` (in the 5 km squares that the tile's window touches), ``digest`` (uint64, of those squares).
        It keeps the origin of the points, see :func:`cryotile.runs.origin.origin_of`.
    """
    squares = within_period(
        db.squares(where=settings.where, snapshot=snapshot), settings.fit.period
    )
    tiles = settings.grid.tiles(settings.tile_size)
    if settings.mask is not None:
        tiles = [tile for tile in tiles if settings.mask.of(tile).any()]
    share = 1.0 if settings.fit.rejects else PLANE_SHARE
    rows = _tile_rows(tiles, squares, settings.fit.reach, share)
    table = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    table = table[table["points"] > 0]
    table = table.sort_values(
        ["cost", "iy", "ix"], ascending=[False, True, True], ignore_index=True
    )
    keep_origin(table, Origin.find(settings, db, snapshot))
    return table


_Floats = npt.NDArray[np.float64]
_Row = tuple[int, int, float, int, int]
_COLUMNS = {"ix": "int32", "iy": "int32", "cost": "float64", "points": "int64", "digest": "uint64"}


def _tile_rows(
    tiles: Sequence[Tile], squares: pd.DataFrame, radius: float, share: float
) -> list[_Row]:
    # Sorted by rows of squares, so that a tile compares its own band only.
    squares = squares.sort_values(["y_min", "x_min"], ignore_index=True)
    x, y = squares["x_min"].to_numpy(), squares["y_min"].to_numpy()
    count = squares["count"].to_numpy()
    digest = squares["digest"].to_numpy()
    rows = []
    for tile in tiles:
        x_min, y_min, x_max, y_max = tile.window(radius)
        # A square holds its lower edges and not its upper ones; a window holds all of its edges.
        low, high = np.searchsorted(y, [y_min - SQUARE_SIZE, y_max], "right")
        near = np.arange(low, high)
        near = near[(x[near] > x_min - SQUARE_SIZE) & (x[near] <= x_max)]
        visits = count[near] @ _visits(tile, x[near], y[near], radius)
        cost = share * visits + VISITS_PER_READ * count[near].sum() + VISITS_PER_TILE
        # Sums of uint64 wrap, as an order-free digest needs.
        rows.append(
            (tile.ix, tile.iy, float(cost), int(count[near].sum()), int(digest[near].sum()))
        )
    return rows


def _visits(tile: Tile, x: _Floats, y: _Floats, radius: float) -> _Floats:
    """Return how many posts of the tile a point of each square is expected to be within the radius of."""
    # A post sees, of a square widened by the radius on each side, the share that its circle covers.
    share = math.pi * radius**2 / (SQUARE_SIZE + 2 * radius) ** 2
    return np.float64(share) * _posts_near(tile.x, x, radius) * _posts_near(tile.y, y, radius)


def _posts_near(posts: _Floats, square: _Floats, radius: float) -> npt.NDArray[np.int64]:
    """Return how many posts stand within the radius of a square along one axis."""
    after = np.searchsorted(posts, square + SQUARE_SIZE + radius, "right")
    return after - np.searchsorted(posts, square - radius, "left")


def estimate(table: pd.DataFrame) -> Estimate:
    """Estimate what the tiles of a table will need.

    Parameters
    ----------
    table : DataFrame
        As of :func:`tile_table`.

    Returns
    -------
    Estimate
        Good to a factor of two; a run's own journal is better.
    """
    seconds = table["cost"].sum() / VISITS_PER_SECOND
    fullest = 0 if table.empty else int(table["points"].max())
    return Estimate(
        core_hours=seconds / 3600, peak_bytes=BYTES_PER_WORKER + BYTES_PER_POINT * fullest
    )
