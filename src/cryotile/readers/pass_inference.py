"""Inference of passes from gaps in time, for products that do not state the pass of a point."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "DIRECTION_NOTE",
    "LONGEST_GAP",
    "NOTE",
    "PassSurvey",
    "infer_directions",
    "infer_passes",
    "number_of_start",
]

LONGEST_GAP = np.timedelta64(600, "s")
"""A longer gap between points of a platform divides two passes; a satellite crosses Greenland in less time."""

NOTE = "passes were inferred from gaps of more than 600 s in time, directions from how latitude changes along them"

DIRECTION_NOTE = "directions were inferred from how latitude changes along the passes"

_GAP = int(LONGEST_GAP / np.timedelta64(1, "ms"))

_FEWEST = 3
_STRAIGHT = 0.9
"""Least correlation of latitude and time of a pass with a direction: a swath across the track lowers it, and a pass
that turns at its highest latitude has no direction."""


def infer_passes(
    platform: NDArray[np.int64], time: NDArray[np.datetime64], latitude: NDArray[np.float64]
) -> tuple[NDArray[np.int64], pd.arrays.BooleanArray]:
    """Infer the pass of each point and the direction of each pass.

    Parameters
    ----------
    platform : ndarray of int, shape (points,)
        A number for each platform.
    time : ndarray of datetime64[ms], shape (points,)
        UTC, in any order; NaT where missing.
    latitude : ndarray, shape (points,)
        Degrees; NaN where missing.

    Returns
    -------
    orbit : ndarray of int64, shape (points,)
        Substitute for the orbit number: the first instant of the pass, in units of 600 s since 1970.  It differs
        between passes of one platform; if two files with points of one pass disagree on it,
        :func:`cryotile.points.join_passes` joins them.
    ascending : BooleanArray, shape (points,)
        Whether the pass leads north; NA where unknown.
    """
    survey = PassSurvey()
    survey.add(platform, time, latitude)
    return survey.of(platform, time)


def number_of_start(instant: np.datetime64) -> int:
    """Return the substitute for the orbit number of a pass that begins at an instant, as of :func:`infer_passes`."""
    return int(instant.astype("datetime64[ms]").astype(np.int64)) // _GAP


def infer_directions(
    passes: NDArray[np.int64], time: NDArray[np.datetime64], latitude: NDArray[np.float64]
) -> pd.arrays.BooleanArray:
    """Infer the direction of each point of known passes, which may turn at their highest latitude.

    Parameters
    ----------
    passes : ndarray of int, shape (points,)
        A number for each pass.
    time, latitude : ndarray, shape (points,)
        As in :func:`infer_passes`.

    Returns
    -------
    BooleanArray, shape (points,)
        Whether the satellite flies north; NA where unknown.
    """
    ascending = infer_passes(passes, time, latitude)[1]
    for number in np.unique(passes):
        own = np.flatnonzero((passes == number) & ~np.isnat(time) & (np.abs(latitude) <= 90.0))
        if own.size == 0:
            continue
        after = time[own] > time[own[np.argmax(np.abs(latitude[own]))]]
        sides = infer_passes(after.astype(np.int64), time[own], latitude[own])[1]
        # The highest latitude is a turn only if the satellite flies one way before it and the other way after it.
        if not sides.isna().any() and sides.unique().size == 2:
            ascending[own] = sides
    return ascending


class PassSurvey:
    """The passes of points that are added in pieces, in any order; it keeps nine numbers per pass."""

    def __init__(self) -> None:
        self._passes = _summed_up(pd.DataFrame(columns=list(_COLUMNS)).astype(_COLUMNS))

    def add(
        self,
        platform: NDArray[np.int64],
        time: NDArray[np.datetime64],
        latitude: NDArray[np.float64],
    ) -> None:
        """Add points; the arguments are those of :func:`infer_passes`."""
        known = ~np.isnat(time)
        points = pd.DataFrame(
            {"platform": platform[known], "first": _milliseconds(time[known])}, copy=False
        )
        u = latitude[known]
        usable = np.abs(u) <= 90.0
        points = points.assign(
            last=points["first"], n=usable * 1.0, t=0.0, u=np.where(usable, u, 0.0)
        )
        points = points.assign(tt=0.0, uu=0.0, tu=0.0)
        own = _summed_up(points)
        self._passes = _summed_up(pd.concat([self._passes, own], ignore_index=True))

    def of(
        self, platform: NDArray[np.int64], time: NDArray[np.datetime64]
    ) -> tuple[NDArray[np.int64], pd.arrays.BooleanArray]:
        """Return orbit and direction of points that were added, as :func:`infer_passes` does."""
        passes, known = self._passes, ~np.isnat(time)
        platforms = np.unique(passes["platform"])
        firsts = np.unique(passes["first"])

        def rank(platform: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
            """Return a number that increases with the platform, then with the time."""
            code = np.searchsorted(platforms, platform)
            return code * (len(firsts) + 1) + np.searchsorted(firsts, first, side="right")

        begins = rank(passes["platform"].to_numpy(), passes["first"].to_numpy())
        at = np.searchsorted(begins, rank(platform[known], _milliseconds(time[known])), "right") - 1
        orbit = np.zeros(len(time), np.int64)
        orbit[known] = (passes["first"].to_numpy()[at] // _GAP) % 2**31
        north, told = np.zeros(len(time), bool), np.zeros(len(time), bool)
        north[known], told[known] = (column[at] for column in _directions(passes))
        return orbit, pd.arrays.BooleanArray(north, ~told)


_COLUMNS = {
    "platform": "int64",
    "first": "int64",
    "last": "int64",
    "n": "float64",
    "t": "float64",
    "u": "float64",
    "tt": "float64",
    "uu": "float64",
    "tu": "float64",
}
"""Columns of a pass or a part of one: first and last instant (ms since 1970), number of points with a latitude, their
mean time (s since the first instant) and latitude, and the sums of squares and products about the means."""


def _milliseconds(time: NDArray[np.datetime64]) -> NDArray[np.int64]:
    return time.astype("datetime64[ms]").astype(np.int64)


def _summed_up(parts: pd.DataFrame) -> pd.DataFrame:
    """Join parts of passes that no gap divides; sorted by platform, then time."""
    order = np.lexsort((parts["first"], parts["platform"]))
    if (np.diff(order) < 0).any():
        parts = parts.take(order).reset_index(drop=True)
    platform, first, last = (parts[name].to_numpy() for name in ("platform", "first", "last"))
    other = np.ones(len(platform), bool)
    other[1:] = platform[1:] != platform[:-1]
    so_far = last
    if ((np.diff(last, prepend=0) < 0) & ~other).any():
        so_far = parts.groupby("platform")["last"].cummax().to_numpy()
    begins = other.copy()
    begins[1:] |= first[1:] - so_far[:-1] > _GAP
    starts, number = np.flatnonzero(begins), np.cumsum(begins)
    n = parts["n"].to_numpy()

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(number, weights=values)[1:].astype(np.float64, copy=False)

    # Moments about means, because squares of years in seconds would lose the differences.
    count = total(n)
    late = parts["t"].to_numpy() + (first - first[starts][number - 1]) / 1000.0
    t, u = (total(n * x) / np.maximum(count, 1.0) for x in (late, parts["u"].to_numpy()))
    dt, du = late - t[number - 1], parts["u"].to_numpy() - u[number - 1]
    return pd.DataFrame(
        {
            "platform": platform[starts],
            "first": first[starts],
            "last": np.maximum.reduceat(last, starts) if len(starts) else last,
            "n": count,
            "t": t,
            "u": u,
            "tt": total(parts["tt"].to_numpy() + n * dt * dt),
            "uu": total(parts["uu"].to_numpy() + n * du * du),
            "tu": total(parts["tu"].to_numpy() + n * dt * du),
        }
    ).astype(_COLUMNS)


def _directions(passes: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether each pass leads north and whether its direction is known, from latitude against time."""
    least = _STRAIGHT * np.sqrt(passes["tt"] * passes["uu"])
    told = (passes["n"] >= _FEWEST) & (passes["tu"].abs() >= least) & (least > 0)
    return (passes["tu"] > 0).to_numpy(bool), told.to_numpy(bool)
