"""Seconds in the time scales of the missions to instants in UTC.

TAI runs evenly; UTC is set back by a second now and then.  GPS time runs with TAI, 19 s behind it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["CLOCKS", "LEAP_SECONDS", "TimeUnit", "gps_to_utc", "tai_to_utc", "utc_instants"]

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


CLOCKS: Mapping[str, float | None] = {"utc": None, "tai": 0.0, "gps": GPS_BEHIND_TAI}
"""Clock → seconds that it is behind TAI; None for UTC, which runs evenly but for the days of its leap seconds."""

_SECONDS = {"millisecond": 1e-3, "second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
_SHORT = {
    "ms": "millisecond",
    "s": "second",
    "sec": "second",
    "min": "minute",
    "h": "hour",
    "d": "day",
}
_SINCE = re.compile(r"\s*(?:utc\s+)?([a-z]+)\s+(?:since|from)\s+(.+)", re.IGNORECASE)
_DECIMAL_YEAR = re.compile(r"\s*decimal[ _]years?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class TimeUnit:
    """What numbers of time count.

    Attributes
    ----------
    seconds : float
        Length of the unit; 0 for decimal years, such as 2019.25, whose length is that of the year.
    epoch : str
        ISO 8601; from when they count.
    clock : str
        A key of :data:`CLOCKS`: on which clock the epoch stands and the seconds tick.
    """

    seconds: float
    epoch: str
    clock: str = "utc"

    @classmethod
    def parse(cls, text: str, clock: str = "utc") -> TimeUnit:
        """Understand ``"days since 2000-01-01"``, as CF writes it, or ``"decimal year"``.

        Raises
        ------
        ValueError
            It is neither.
        """
        if _DECIMAL_YEAR.fullmatch(text):
            return cls(0.0, "1970-01-01", clock)
        match = _SINCE.fullmatch(text)
        word = match[1].lower() if match else ""
        name = _SHORT.get(word, word.removesuffix("s"))
        if match is None or name not in _SECONDS:
            raise ValueError(f"{text!r} is no unit of time")
        epoch = pd.Timestamp(match[2])
        epoch = epoch if epoch.tz is None else epoch.tz_convert(None)
        return cls(_SECONDS[name], epoch.isoformat(), clock)

    def to_utc(self, numbers: NDArray[np.float64]) -> NDArray[np.datetime64]:
        """Instants that ``numbers`` count to; NaN gives NaT.

        Parameters
        ----------
        numbers : ndarray
            In this unit.

        Returns
        -------
        ndarray of datetime64[ms], shape of ``numbers``
            UTC.
        """
        behind = CLOCKS[self.clock]
        seconds = numbers * self.seconds if self.seconds else _since_1970(numbers)
        if behind is None:
            return utc_instants(seconds, self.epoch)
        return tai_to_utc(seconds + behind, epoch=self.epoch)


def _since_1970(years: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds since 1970 of decimal years, each as long as the calendar has it."""
    known = np.abs(years) < 9999.0
    whole = np.floor(np.where(known, years, 1970.0))
    first = (whole.astype(np.int64) - 1970).astype("datetime64[Y]")
    begin, end = (year.astype("datetime64[s]").astype(np.float64) for year in (first, first + 1))
    seconds = begin + (years - whole) * (end - begin)
    return np.where(known, seconds, np.nan)
