"""Passes of points whose product does not say which pass they are of: told apart by gaps in time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["LONGEST_GAP", "NOTE", "infer_passes"]

LONGEST_GAP = np.timedelta64(600, "s")
"""A longer gap between two points of a platform is one between two passes; a satellite crosses Greenland in less."""

NOTE = "passes were inferred from gaps of more than 600 s in time, directions from how latitude changes along them"

_FEWEST = 3
_STRAIGHT = 0.9
"""Least correlation of latitude and time at which a pass has a direction: a swath across the track blurs it, and a pass
that turns at its highest latitude has none."""


def infer_passes(
    platform: NDArray[np.int64], time: NDArray[np.datetime64], latitude: NDArray[np.float64]
) -> tuple[NDArray[np.int64], pd.arrays.BooleanArray]:
    """Tell passes apart, and say in which direction each is flown.

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
        In place of the number of the orbit: the first moment of the pass, in units of 600 s since 1970.  Passes of one
        platform have different ones; two files that share a pass nearly always agree on it.
    ascending : BooleanArray, shape (points,)
        Whether the pass leads north; NA where that cannot be told.
    """
    known = ~np.isnat(time)
    milliseconds = np.where(known, time.astype("datetime64[ms]").astype(np.int64), 0)
    order = np.lexsort((milliseconds, platform))
    gap = np.diff(milliseconds[order]) > LONGEST_GAP / np.timedelta64(1, "ms")
    begins = np.append(True, gap | (np.diff(platform[order]) != 0))[: len(order)]
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(begins) - 1
    first = milliseconds[order][begins] // (1000 * 600)
    orbit = first.astype(np.int64) % 2**31
    north = _leads_north(number, milliseconds - milliseconds.min(initial=0), latitude, known)
    return orbit[number], north[number]


def _leads_north(
    number: NDArray[np.int64],
    milliseconds: NDArray[np.int64],
    latitude: NDArray[np.float64],
    known: NDArray[np.bool_],
) -> pd.arrays.BooleanArray:
    """Direction of each pass, from the correlation of latitude with time along it."""
    usable = known & (np.abs(latitude) <= 90.0)
    frame = pd.DataFrame({"t": milliseconds[usable] / 1000.0, "u": latitude[usable]})
    # Centred per pass before squares are taken, or years in seconds would swallow the differences.
    passes = number[usable]
    frame -= frame.groupby(passes).transform("mean")
    sums = (
        frame.assign(tt=frame["t"] ** 2, uu=frame["u"] ** 2, tu=frame["t"] * frame["u"], n=1.0)
        .groupby(passes)[["tt", "uu", "tu", "n"]]
        .sum()
        .reindex(range(int(number.max(initial=-1)) + 1), fill_value=0.0)
    )
    least = _STRAIGHT * np.sqrt(sums["tt"] * sums["uu"])
    told = (sums["n"] >= _FEWEST) & (sums["tu"].abs() >= least) & (least > 0)
    return pd.arrays.BooleanArray((sums["tu"] > 0).to_numpy(bool), ~told.to_numpy(bool))
