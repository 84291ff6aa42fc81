"""Changes of the point DB since a run was planned, from counts and digests alone: no point is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile.pointdb.sort_order import SQUARE_SIZE
from cryotile.points import Bounds
from cryotile.runs.cost import tile_table
from cryotile.runs.directory import first_snapshot
from cryotile.runs.plan import extent_of, within_period
from cryotile.runs.run import Run
from cryotile.times import parse_instant

if TYPE_CHECKING:
    from cryotile.pointdb import PointDB

__all__ = ["Beyond", "beyond_bounds", "beyond_period", "changed_tiles"]


@dataclass(frozen=True)
class Beyond:
    """New points outside a run's bounds.

    Attributes
    ----------
    count : int
        Number of points; never 0.
    extent : Bounds
        Bounds of the points, metres, to 5 km.
    """

    count: int
    extent: Bounds


def changed_tiles(run: Run, db: PointDB) -> list[str]:
    """Return the names of the tiles whose points differ from those that the newest task list was made from.

    Parameters
    ----------
    run : Run
        With its task list.
    db : PointDB
        The points, as of their newest commit.

    Returns
    -------
    list of str
        Tiles that planning again would list anew, including tiles that had no points.
    """
    if db.snapshot == run.snapshot:
        return []
    points = ["ix", "iy", "points", "digest"]
    ours = run.table[points].assign(there=True)
    both = tile_table(run.settings, db)[points].merge(ours, how="outer", indicator=True)
    changed = both.loc[both["_merge"] != "both", ["ix", "iy"]].drop_duplicates()
    tiles = {(t.ix, t.iy): t.name for t in run.settings.grid.tiles(run.settings.tile_size)}
    return [tiles[ix, iy] for ix, iy in changed.sort_values(["iy", "ix"]).itertuples(index=False)]


def beyond_bounds(run: Run, db: PointDB) -> Beyond | None:
    """Count the points that were added since the run was first planned and that no post of it can see.

    Parameters
    ----------
    run : Run
        Its bounds are frozen.
    db : PointDB
        The points, as of their newest commit.

    Returns
    -------
    Beyond or None
        None if there are none.  If a compaction ended the first snapshot, all points beyond the bounds count.
    """
    now = _outside(run, db, None)
    first = first_snapshot(run.path)
    if first == db.snapshot:
        return None
    if db.has_snapshot(first):
        now = now.sub(_outside(run, db, first), fill_value=0)
    came = now[now > 0]
    if came.empty:
        return None
    places = came.index.to_frame(index=False)
    return Beyond(int(came.sum()), extent_of(places))


def beyond_period(run: Run, db: PointDB) -> tuple[pd.Timestamp, pd.Timestamp] | None:
    """Return the time range of the points if points before or after the period of a run were added.

    Parameters
    ----------
    run : Run
        Its period is frozen.
    db : PointDB
        The points, as of their newest commit.

    Returns
    -------
    (Timestamp, Timestamp) or None
        First and last instant (UTC) of all points that the run selects; None if no new point is outside its period.
    """
    period, first = run.settings.fit.period, first_snapshot(run.path)
    assert period is not None
    start, end = (parse_instant(text) for text in period)
    earliest, latest = _span(run, db, None)
    if db.has_snapshot(first):
        was_earliest, was_latest = _span(run, db, first)
        start, end = min(start, was_earliest), max(end, was_latest + pd.Timedelta(milliseconds=1))
    return (earliest, latest) if earliest < start or latest >= end else None


def _span(run: Run, db: PointDB, snapshot: int | None) -> tuple[pd.Timestamp, pd.Timestamp]:
    squares = db.squares(where=run.settings.where, snapshot=snapshot)
    return squares["time_min"].min(), squares["time_max"].max()


def _outside(run: Run, db: PointDB, snapshot: int | None) -> pd.Series[int]:
    """Count the points in squares that touch no window of the run, by the corner of the square."""
    squares = within_period(
        db.squares(where=run.settings.where, snapshot=snapshot), run.settings.fit.period
    )
    x_min, y_min, x_max, y_max = run.settings.grid.bounds
    reach = run.settings.fit.reach

    def apart(corner: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.bool_]:
        return (corner + SQUARE_SIZE <= low - reach) | (corner > high + reach)

    outside = apart(squares["x_min"].to_numpy(), x_min, x_max)
    outside |= apart(squares["y_min"].to_numpy(), y_min, y_max)
    return squares[outside].groupby(["x_min", "y_min"])["count"].sum()
