"""Cost of each tile of a run and digest of its points, from the log of the point DB alone."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile.geo.grid import Tile
from cryotile.pointdb.sort_order import SQUARE_SIZE
from cryotile.runs.origin import Origin, keep_origin
from cryotile.runs.plan import Settings, within_period
from cryotile.runs.tasklist import Estimate

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from cryotile.pointdb import PointDB

__all__ = ["estimate", "tile_table"]

VISITS_PER_SECOND = 1e7
"""Pairs of point and post that one core fits a second: recipe ``passes`` at 700 points a post, on a 2020s server."""

PLANE_SHARE = 0.1
"""Time of a visit of the recipe ``plane`` in that of one of ``passes``."""

# One core reads, decodes and sorts some 3 million points a second, and opens and saves a tile in a tenth of a second.
# Without these, the member that gets the margin of an ice sheet would have thousands of tiles of no cost.
VISITS_PER_READ = VISITS_PER_SECOND / 3e6
VISITS_PER_TILE = VISITS_PER_SECOND * 0.1

# Measured as the peak of a child of ``local``: 287 MB with 42,000 points, imports included, 1490 MB with 5 million.
BYTES_PER_POINT = 250
BYTES_PER_WORKER = 290e6


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
    from scipy.sparse import csr_array  # takes half a second, and workers need no table

    squares = within_period(
        db.squares(where=settings.where, snapshot=snapshot), settings.fit.period
    )
    reach, (columns, rows) = settings.fit.reach, settings.grid.cuts(settings.tile_size)
    x, across = np.unique(squares["x_min"], return_inverse=True)
    y, up = np.unique(squares["y_min"], return_inverse=True)
    posting = settings.grid.posting
    touched_x, posts_x = _near(columns.values(), x, posting, reach)
    touched_y, posts_y = _near(rows.values(), y, posting, reach)

    def summed(name: str, dtype: str, in_y: csr_array, in_x: csr_array) -> npt.NDArray[Any]:
        # Integers: exact in any order; sums of uint64 wrap, as an order-free digest needs.
        values = squares[name].to_numpy().astype(dtype)
        held = csr_array((values, (up, across)), shape=(len(y), len(x)))
        sums = in_y.astype(dtype) @ held @ in_x.astype(dtype).T
        return np.asarray(sums.toarray()).ravel()

    points = summed("count", "int64", touched_y, touched_x)
    # A post sees, of a square widened by the radius on each side, the share that its circle covers.
    share = math.pi * reach**2 / (SQUARE_SIZE + 2 * reach) ** 2
    share *= PLANE_SHARE if settings.fit.recipe == "plane" else 1.0
    visits = share * summed("count", "int64", posts_y, posts_x)
    table = pd.DataFrame(
        {
            "ix": np.tile(np.array([*columns], np.int32), len(rows)),
            "iy": np.repeat(np.array([*rows], np.int32), len(columns)),
            "cost": visits + VISITS_PER_READ * points + VISITS_PER_TILE,
            "points": points,
            "digest": summed("digest", "uint64", touched_y, touched_x),
        }
    )
    table = table[table["points"] > 0]
    if (mask := settings.mask) is not None:
        places = zip(table["ix"], table["iy"], strict=True)
        tiles = (Tile(ix, iy, columns[ix], rows[iy], posting) for ix, iy in places)
        table = table[[bool(mask.of(tile).any()) for tile in tiles]]
    table = table.sort_values(
        ["cost", "iy", "ix"], ascending=[False, True, True], ignore_index=True
    )
    keep_origin(table, Origin.find(settings, db, snapshot))
    return table


def _near(
    tiles: Collection[range], squares: npt.NDArray[np.float64], posting: float, radius: float
) -> tuple[csr_array, csr_array]:
    """Return, along one axis, which tiles' windows touch which squares, and how many posts are near a square.

    Parameters
    ----------
    tiles : collection of range
        Numbers of each tile's posts.
    squares : ndarray of float64
        Lower edges, metres, ascending.
    posting, radius : float
        Metres.

    Returns
    -------
    (csr_array, csr_array), shape (tiles, squares)
        1 where a window touches a square; number of posts within the radius of the square.
    """
    from scipy.sparse import csr_array

    touched, near, ends = [], [], [0]
    for numbers in tiles:
        posts = np.arange(numbers.start, numbers.stop) * posting
        # A square holds its lower edge and not its upper one; a window holds both of its edges.
        window = [posts[0] - radius - SQUARE_SIZE, posts[-1] + radius]
        some = np.arange(*np.searchsorted(squares, window, "right"))
        after = np.searchsorted(posts, squares[some] + SQUARE_SIZE + radius, "right")
        touched.append(some)
        near.append(after - np.searchsorted(posts, squares[some] - radius, "left"))
        ends.append(ends[-1] + len(some))
    place, shape = np.concatenate(touched), (len(tiles), len(squares))
    return (
        csr_array((np.ones(len(place), np.int64), place, ends), shape=shape),
        csr_array((np.concatenate(near), place, ends), shape=shape),
    )


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
