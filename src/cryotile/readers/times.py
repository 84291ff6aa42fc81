"""Seconds in the time scales of the missions to instants in UTC.

TAI runs evenly; UTC is set back by a second now and then.  GPS time runs with TAI, 19 s behind it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAP_SECONDS", "gps_to_utc", "tai_to_utc", "utc_instants"]

LEAP_SECONDS = (
    ("1980-01-01", 19),
    ("1981-07-01", 20),
    ("1982-07-01", 21),
    ("1983-07-01", 22),
    ("1985-07-01", 23),
    ("1988-01-01", 24),
    ("1990-01-01", 25),
    ("1991-01-01", 26),
    ("1992-07-01", 27),
    ("1993-07-01", 28),
    ("1994-07-01", 29),
    ("1996-01-01", 30),
    ("1997-07-01", 31),
    ("1999-01-01", 32),
    ("2006-01-01", 33),
    ("2009-01-01", 34),
    ("2012-07-01", 35),
    ("2015-07-01", 36),
    ("2017-01-01", 37),
)
"""TAI − UTC in seconds, from 00:00 UTC of the day on.

Source: IERS Bulletin C (https://hpiers.obspm.fr/iers/bul/bulc/), which announces a new one half a year ahead.
"""

GPS_BEHIND_TAI = 19.0
"""TAI − GPS, seconds; constant (IS-GPS-200)."""

_OFFSETS = np.array([offset for _, offset in LEAP_SECONDS], dtype="timedelta64[s]").astype(
    "timedelta64[ms]"
)
_STEPS = np.array([day for day, _ in LEAP_SECONDS], dtype="datetime64[ms]") + _OFFSETS

# Fill values such as 1.8e308 are no times: 3000 years are.
_LONGEST = 1e11


def utc_instants(seconds: NDArray[np.float64], epoch: str) -> NDArray[np.datetime64]:
    """Instants that lie ``seconds`` after ``epoch`` on a clock without leap seconds.

    Parameters
    ----------
    seconds : ndarray
        Seconds since the epoch; NaN and fill values give NaT.
    epoch : str
        ISO 8601, e.g. ``"2000-01-01"``.

    Returns
    -------
    ndarray of datetime64[ms], shape of ``seconds``
        Rounded to the millisecond.
    """
    known = np.abs(seconds) < _LONGEST
    milliseconds = np.rint(np.where(known, seconds, 0.0) * 1000.0).astype("timedelta64[ms]")
    return np.where(known, np.datetime64(epoch, "ms") + milliseconds, np.datetime64("NaT", "ms"))


def tai_to_utc(seconds: NDArray[np.float64], *, epoch: str) -> NDArray[np.datetime64]:
    """TAI seconds since ``epoch`` (itself in TAI) to UTC.

    Parameters
    ----------
    seconds : ndarray
        Seconds since the epoch; NaN and fill values give NaT.
    epoch : str
        ISO 8601, not before 1980, in TAI.

    Returns
    -------
    ndarray of datetime64[ms], shape of ``seconds``
        UTC.  A leap second shows as the first second of the day that follows it.
    """
    tai = utc_instants(seconds, epoch)
    step = np.searchsorted(_STEPS, tai, side="right") - 1
    utc: NDArray[np.datetime64] = tai - _OFFSETS[np.maximum(step, 0)]
    return utc


def gps_to_utc(seconds: NDArray[np.float64]) -> NDArray[np.datetime64]:
    """GPS seconds since 1980-01-06 00:00:00 to UTC.

    Parameters
    ----------
    seconds : ndarray
        Full GPS seconds; NaN and fill values give NaT.

    Returns
    -------
    ndarray of datetime64[ms], shape of ``seconds``
        UTC.
    """
    return tai_to_utc(seconds + GPS_BEHIND_TAI, epoch="1980-01-06")
