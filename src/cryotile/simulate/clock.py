"""Clocks of the products: UTC inside, TAI and GPS seconds where a product counts them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["EPOCH", "gps_seconds", "tai_seconds", "utc_seconds"]

EPOCH = np.datetime64("2000-01-01T00:00:00", "us")
"""The zero of CryoSat's time scales."""

GPS_EPOCH = np.datetime64("1980-01-06T00:00:00", "us")
TAI_MINUS_GPS = 19.0

# First day and TAI − UTC from that day on, s (IERS Bulletin C).
LEAPS = {
    "1999-01-01": 32,
    "2006-01-01": 33,
    "2009-01-01": 34,
    "2012-07-01": 35,
    "2015-07-01": 36,
    "2017-01-01": 37,
}
LEAP_DAYS = np.array(list(LEAPS), "datetime64[us]")
LEAP_SECONDS = np.array(list(LEAPS.values()), "float64")


def utc_seconds(time: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Seconds of UTC since 2000, every day counted as 86 400 s: Cryo-TEMPO's time.

    Parameters
    ----------
    time : ndarray of datetime64
        UTC.

    Returns
    -------
    ndarray, shape of `time`
        s.
    """
    return (time - EPOCH) / np.timedelta64(1, "s")


def tai_seconds(time: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Seconds of TAI since 2000-01-01 00:00:00 TAI: the time of ESA's CryoSat-2 products.

    Parameters
    ----------
    time : ndarray of datetime64
        UTC, 1999 or later.

    Returns
    -------
    ndarray, shape of `time`
        s.
    """
    return utc_seconds(time) + leap_seconds(time)


def gps_seconds(time: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Seconds of GPS time since 1980-01-06, which no leap second interrupts.

    Parameters
    ----------
    time : ndarray of datetime64
        UTC, 1999 or later.

    Returns
    -------
    ndarray, shape of `time`
        s.
    """
    return (time - GPS_EPOCH) / np.timedelta64(1, "s") + leap_seconds(time) - TAI_MINUS_GPS


def leap_seconds(time: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """TAI − UTC, s."""
    return LEAP_SECONDS[np.searchsorted(LEAP_DAYS, time, side="right") - 1]
