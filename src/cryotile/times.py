"""Instants and the time scales that they are counted on: UTC, TAI and GPS.

TAI counts seconds without a break; UTC inserts a leap second now and then, and so falls behind TAI.  GPS time is TAI
less 19 s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryotile.errors import InvalidValue

__all__ = [
    "CLOCKS",
    "LEAP_SECONDS",
    "SECONDS_PER_YEAR",
    "TimeUnit",
    "duration",
    "gps_to_utc",
    "leap_seconds",
    "parse_date",
    "parse_dates",
    "parse_instant",
    "seconds_since",
    "tai_to_utc",
    "utc_instants",
    "utc_to_gps",
    "utc_to_tai",
]

SECONDS_PER_YEAR = 31_557_600.0
"""Length of a year of 365.25 days, in which all rates are given."""

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
"""TAI − UTC in seconds, from 00:00 UTC of each day on.

Source: IERS Bulletin C (https://hpiers.obspm.fr/iers/bul/bulc/), which announces leap seconds half a year ahead.
"""

GPS_BEHIND_TAI = 19.0
"""TAI − GPS, seconds; constant (IS-GPS-200)."""

GPS_EPOCH = "1980-01-06"

CLOCKS: Mapping[str, float | None] = {"utc": None, "tai": 0.0, "gps": GPS_BEHIND_TAI}
"""Clock → seconds that it is behind TAI; None for UTC, which leap seconds interrupt."""

_SECOND = np.timedelta64(1, "s")
_LEAP_DAYS = np.array([day for day, _ in LEAP_SECONDS], dtype="datetime64[ms]")
_OFFSETS = np.array([offset for _, offset in LEAP_SECONDS], dtype="timedelta64[s]").astype(
    "timedelta64[ms]"
)
_STEPS = _LEAP_DAYS + _OFFSETS

# 3000 years: larger numbers, such as 1.8e308, are fill values.
_LONGEST = 1e11


# After hours and minutes, with colons or without.
_LEAP_SECOND = r"([T\s]\d?\d:\d\d:|[T\s]\d{4})60(?!\d)"


Instant = str | date | np.datetime64
"""A text in ISO 8601, a day, a datetime (a Timestamp is one), or numpy's; UTC unless it has a time zone."""


def parse_instant(text: str) -> pd.Timestamp:
    """Return the instant that a text names.

    Parameters
    ----------
    text : str
        ISO 8601, to the microsecond; UTC unless it carries an offset.  A second 60 is as of :func:`parse_date`.

    Returns
    -------
    Timestamp
        UTC without a time zone, in microseconds.

    Raises
    ------
    InvalidValue
        The text is not an instant in the years 1 to 9999.
    """
    try:
        whole, leap = re.subn(_LEAP_SECOND, r"\g<1>59", text)
        instant = datetime.fromisoformat(whole) + timedelta(seconds=leap)
        if instant.tzinfo is not None:
            instant = instant.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, TypeError, OverflowError):
        shown = repr(text) if len(str(text)) <= 80 else repr(f"{str(text)[:77]}...")
        raise InvalidValue(
            f"{shown} is not an instant in ISO 8601; write it as 2015-07-01 or 2015-07-01T12:00:00 (UTC)"
        ) from None
    return pd.Timestamp(instant).as_unit("us")


def instant_text(value: Instant) -> str:
    """Return an instant in ISO 8601, UTC; a text stays as it is.

    Parameters
    ----------
    value : Instant
        Any.

    Raises
    ------
    InvalidValue
        It is of another type.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, date | np.datetime64):
        raise InvalidValue(f"{value!r} is not an instant; write it as '2015-07-01', or give a date")
    instant = pd.Timestamp(value)
    instant = instant if instant.tzinfo is None else instant.tz_convert(None)
    # A day is the same setting as its text.
    return instant.isoformat().removesuffix("T00:00:00")


def parse_date(text: str) -> pd.Timestamp:
    """Return the instant of a date in any common notation, such as ``30-SEP-2020 23:56:08.507`` or ``2000-1-1 0:0:0``.

    Parameters
    ----------
    text : str
        UTC unless it carries an offset; ``23:59:60`` is the first second of the day after it.

    Returns
    -------
    Timestamp
        UTC without a time zone.

    Raises
    ------
    ValueError
        The text is not a date.
    """
    whole, leap = re.subn(_LEAP_SECOND, r"\g<1>59", text)
    instant = pd.Timestamp(whole) + pd.Timedelta(seconds=leap)
    if pd.isna(instant):
        raise ValueError(f"{text!r} is not a date")
    return instant if instant.tz is None else instant.tz_convert(None)


def parse_dates(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Return the instants (UTC, with the time zone) of dates in ISO 8601, as :func:`parse_date`; others give NaT."""
    leap = np.zeros(len(texts), bool)
    if not pd.api.types.is_datetime64_any_dtype(texts.dtype):
        given = texts.astype("string")
        # A search for text is ten times as fast as one for a pattern, and most dates have no such second.
        some = given.str.contains("60", regex=False).fillna(False).to_numpy(bool)
        if some.any():
            whole = given[some].str.replace(_LEAP_SECOND, r"\g<1>59", regex=True)
            leap[some] = (whole != given[some]).to_numpy(bool)
            texts = given.where(~some, whole)
    instants = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    return instants + pd.to_timedelta(leap.astype(np.int64), unit="s") if leap.any() else instants


def seconds_since(time: NDArray[np.datetime64], epoch: str) -> NDArray[np.float64]:
    """Return seconds from an epoch to instants, every day counted as 86 400 s.

    Parameters
    ----------
    time : ndarray of datetime64
        UTC.
    epoch : str
        ISO 8601, UTC.

    Returns
    -------
    ndarray, shape of ``time``
        Seconds.
    """
    seconds: NDArray[np.float64] = (time - np.datetime64(epoch)) / _SECOND
    return seconds


def utc_instants(seconds: NDArray[np.float64], epoch: str) -> NDArray[np.datetime64]:
    """Return the instants that lie ``seconds`` after ``epoch`` on a clock without leap seconds.

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
    start = np.datetime64(epoch, "s")
    fraction = float((np.datetime64(epoch) - start) / _SECOND)
    milliseconds = np.rint((np.where(known, seconds, 0.0) + fraction) * 1000.0)
    instants = start.astype("datetime64[ms]") + milliseconds.astype("timedelta64[ms]")
    return np.where(known, instants, np.datetime64("NaT", "ms"))


def tai_to_utc(seconds: NDArray[np.float64], *, epoch: str) -> NDArray[np.datetime64]:
    """Convert TAI seconds since ``epoch`` (itself in TAI) to UTC.

    Parameters
    ----------
    seconds : ndarray
        Seconds since the epoch; NaN and fill values give NaT.
    epoch : str
        ISO 8601, 1980 or later, in TAI.

    Returns
    -------
    ndarray of datetime64[ms], shape of ``seconds``
        UTC.  A leap second is given as the first second of the day after it.
    """
    tai = utc_instants(seconds, epoch)
    step = np.searchsorted(_STEPS, tai, side="right") - 1
    utc: NDArray[np.datetime64] = tai - _OFFSETS[np.maximum(step, 0)]
    return utc


def gps_to_utc(seconds: NDArray[np.float64]) -> NDArray[np.datetime64]:
    """Convert GPS seconds since 1980-01-06 00:00:00 to UTC.

    Parameters
    ----------
    seconds : ndarray
        Full GPS seconds; NaN and fill values give NaT.

    Returns
    -------
    ndarray of datetime64[ms], shape of ``seconds``
        UTC.
    """
    return tai_to_utc(seconds + GPS_BEHIND_TAI, epoch=GPS_EPOCH)


def leap_seconds(time: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Return TAI − UTC, seconds, at instants (UTC) of 1980 or later."""
    step = np.searchsorted(_LEAP_DAYS, time, side="right") - 1
    return (_OFFSETS[step] / _SECOND).astype(np.float64)


def utc_to_tai(time: NDArray[np.datetime64], *, epoch: str) -> NDArray[np.float64]:
    """Convert UTC to TAI seconds since ``epoch`` (itself in TAI).

    Parameters
    ----------
    time : ndarray of datetime64
        UTC, 1980 or later.
    epoch : str
        ISO 8601, in TAI.

    Returns
    -------
    ndarray, shape of ``time``
        Seconds.
    """
    return seconds_since(time, epoch) + leap_seconds(time)


def utc_to_gps(time: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Convert UTC (1980-01-06 or later) to GPS seconds since 1980-01-06 00:00:00; the inverse of :func:`gps_to_utc`."""
    return utc_to_tai(time, epoch=GPS_EPOCH) - GPS_BEHIND_TAI


# The names of UDUNITS, which CF refers to; all but those of one or two letters may have an s.
_SECONDS: Mapping[str, float] = {
    name: length
    for names, length in (
        ("nanosecond nanosec nsec ns", 1e-9),
        ("microsecond microsec usec us µs μs", 1e-6),
        ("millisecond millisec msec ms", 1e-3),
        ("second sec s", 1.0),
        ("minute min", 60.0),
        ("hour hr h", 3600.0),
        ("day d", 86_400.0),
    )
    for name in names.split()
}


def duration(unit: str) -> float | None:
    """Return the length of a unit, such as ``"hours"``, in seconds; None if there is no such unit."""
    word = unit.strip().lower()
    return _SECONDS.get(word, _SECONDS.get(word.removesuffix("s")))


_SINCE = re.compile(r"\s*(?:utc\s+)?([a-zµμ]+)\s+(?:since|from)\s+(.+)", re.IGNORECASE)
_DECIMAL_YEAR = re.compile(r"\s*decimal[ _]years?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class TimeUnit:
    """The unit of numbers that are times.

    Attributes
    ----------
    seconds : float
        Length of the unit; 0 for decimal years, such as 2019.25, whose length follows the calendar.
    epoch : str
        ISO 8601; the instant of number 0.
    clock : str
        The clock of epoch and seconds, a key of :data:`CLOCKS`.
    """

    seconds: float
    epoch: str
    clock: str = "utc"

    @classmethod
    def parse(cls, text: str, clock: str = "utc") -> TimeUnit:
        """Parse ``"days since 2000-01-01"``, as CF writes it, or ``"decimal year"``.

        Raises
        ------
        ValueError
            The text is neither.
        """
        if _DECIMAL_YEAR.fullmatch(text):
            return cls(0.0, "1970-01-01", clock)
        match = _SINCE.fullmatch(text)
        seconds = duration(match[1]) if match else None
        if match is None or seconds is None:
            raise ValueError(f"{text!r} is not a unit of time")
        return cls(seconds, parse_date(match[2]).isoformat(), clock)

    def to_utc(self, numbers: NDArray[np.float64]) -> NDArray[np.datetime64]:
        """Return the instants of ``numbers``; NaN gives NaT.

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
    """Return seconds since 1970 of decimal years; a leap year is a day longer."""
    known = np.abs(years) < 9999.0
    whole = np.floor(np.where(known, years, 1970.0))
    first = (whole.astype(np.int64) - 1970).astype("datetime64[Y]")
    begin, end = (year.astype("datetime64[s]").astype(np.float64) for year in (first, first + 1))
    seconds = begin + (years - whole) * (end - begin)
    return np.where(known, seconds, np.nan)
