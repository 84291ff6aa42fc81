"""Tell before a run that no post can have a fit, from a few posts where points are densest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cryotile.errors import command
from cryotile.fit.config import FitConfig
from cryotile.fit.posts import fit_posts
from cryotile.fit.variables import Status, without
from cryotile.geo.grid import Tile
from cryotile.pointdb.db import MANY_FRAGMENTS
from cryotile.pointdb.sort_order import SQUARE_SIZE
from cryotile.runs.plan import Settings, seen_by, within_period

if TYPE_CHECKING:
    from cryotile.pointdb import PointDB

__all__ = ["obstacles", "scattered"]

PLACES_TRIED = 5
"""Squares with the most points, and those whose points span the longest time, in which a plan fits posts."""

POSTS_TRIED = 12
"""Most posts along either side of such a square."""


def scattered(db: PointDB, snapshot: int | None = None) -> list[str]:
    """Advise to compact a point DB whose chunks have many small fragments.

    Parameters
    ----------
    db : PointDB
        The points.
    snapshot : int or None
        The commit to look at; None: the newest.

    Returns
    -------
    list of str
        One line; empty if few fragments cover each chunk.
    """
    chunks = db.scattered_chunks(snapshot=snapshot)
    if chunks.empty:
        return []
    return [
        f"{len(chunks):,} chunks of {db.path} have more than {MANY_FRAGMENTS} small fragments (most: {chunks.max():,}),"
        f" so tiles take longer to read; merge them with '{command('compact', db.path)}' and plan again"
    ]


def obstacles(settings: Settings, db: PointDB) -> list[str]:
    """Say why posts have no fit where points are densest or span the longest time, by fitting some there.

    Parameters
    ----------
    settings : Settings
        What the run freezes.
    db : PointDB
        The points, as of their newest commit.

    Returns
    -------
    list of str
        One line with the gates that all of them fail; empty if a post has a fit.
    """
    tried: list[xr.Dataset] = []
    for place in _promising(settings, db):
        fitted = _fit_some(settings, db, place)
        if (fitted["status"] == Status.OK).any():
            return []
        tried.append(fitted)
    if not tried:
        return []
    status = np.concatenate([fitted["status"].to_numpy().ravel() for fitted in tried])
    names, counts = np.unique(status[status != Status.OUTSIDE_MASK], return_counts=True)
    where = f"none of {counts.sum():,} posts that were tried, where there are most points"
    if failed := [*_failed(settings.fit, tried)]:
        facts, remedies = zip(*failed, strict=True)
        return [f"{'; '.join(facts)}: {where}, passes; {', or '.join(remedies)}"]
    found = ", ".join(
        f"{Status(name).name.lower()} {count:,}" for name, count in zip(names, counts, strict=True)
    )
    return [
        f"{where}, has a fit ({found}); see why with 'cryotile explain', or change the selection"
    ]


def _promising(settings: Settings, db: PointDB) -> Iterator[tuple[float, float]]:
    """Yield the lower left corners of the squares with the most points, and of those that span the longest time."""
    seen = seen_by(settings.map_grid.bounds, settings.fit)
    squares = db.squares(seen, where=settings.where)
    squares = within_period(squares, settings.fit.period)
    places = squares.groupby(["x_min", "y_min"]).agg(
        {"count": "sum", "time_min": "min", "time_max": "max"}
    )
    spans = places["time_max"] - places["time_min"]
    found = [*places["count"].nlargest(PLACES_TRIED).index, *spans.nlargest(PLACES_TRIED).index]
    yield from dict.fromkeys(found)


def _fit_some(settings: Settings, db: PointDB, place: tuple[float, float]) -> xr.Dataset:
    """Fit posts that stand in a square or beside it."""
    grid, fit, chosen = settings.map_grid, settings.fit, []
    for low, numbers in zip(place, (grid.columns, grid.rows), strict=True):
        # At least the post on either side, however large the posting is.
        ends = np.array([low // grid.posting, -(-(low + SQUARE_SIZE) // grid.posting)])
        first, last = np.clip(ends, numbers[0], numbers[-1])
        chosen.append(np.unique(np.linspace(first, last, POSTS_TRIED).round().astype(int)))
    x, y = (numbers * grid.posting for numbers in chosen)
    points = db.read(
        seen_by((x[0], y[0], x[-1], y[-1]), fit),
        columns=fit.point_columns,
        where=settings.where,
        time=fit.period,
    )
    if settings.offsets is not None:
        points = settings.offsets.correct(points)
    fitted = fit_posts(points, x, y, fit)
    if settings.mask is not None:
        across, up = (range(numbers[0], numbers[-1] + 1) for numbers in chosen)
        wanted = settings.mask.of(Tile(0, 0, across, up, grid.posting))
        columns, rows = (numbers - numbers[0] for numbers in chosen)
        fitted = without(fitted, ~wanted[np.ix_(rows, columns)], fit)
    times = points["time"].to_numpy()
    days = (times.max() - times.min()) / np.timedelta64(1, "D") if len(times) else 0.0
    return fitted.assign_attrs(days=days)


def _failed(fit: FitConfig, tried: list[xr.Dataset]) -> Iterator[tuple[str, str]]:
    """Yield a fact and a remedy for each gate that all posts fail that were tried."""
    points, passes = (
        max(int(fitted[name].max()) for fitted in tried) for name in ("data_count", "pass_count")
    )
    days = max(fitted.attrs["days"] for fitted in tried)
    if points < fit.min_points:
        yield (
            f"at most {points:,} points lie around a post, and a fit needs {fit.min_points:,} (min_points)",
            "use a larger radius or a smaller min_points",
        )
    if passes < fit.min_passes:
        yield (
            f"at most {passes:,} passes lie around a post, and a fit needs {fit.min_passes:,} (min_passes)",
            "ingest more passes, use a larger radius or a lower gate",
        )
    if days < fit.min_span_days:
        yield (
            f"the points around a post span at most {days:.0f} days, and a fit needs {fit.min_span_days:.0f} days"
            " (min_span_days)",
            "use a longer period or a lower gate",
        )
