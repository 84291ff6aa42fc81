"""TAI and GPS seconds become UTC with the leap seconds of their day."""

from __future__ import annotations

import numpy as np
import pytest

from cryotile.times import LEAP_SECONDS, gps_to_utc, tai_to_utc


def seconds(instant: str, epoch: str) -> np.ndarray:
    return np.array(
        [(np.datetime64(instant, "ms") - np.datetime64(epoch, "ms")) / np.timedelta64(1, "s")]
    )


@pytest.mark.parametrize(
    ("utc", "offset"),
    [
        ("2010-07-18T00:14:50", 34),
        ("2012-06-30T23:59:59", 34),
        ("2012-07-01T00:00:00", 35),
        ("2015-01-31T18:27:46", 35),
        ("2015-07-01T00:00:00", 36),
        ("2016-12-31T23:59:59", 36),
        ("2017-01-01T00:00:00", 37),
        ("2020-09-30T23:56:08", 37),
    ],
)
def test_tai_runs_ahead_of_utc_by_the_leap_seconds(utc, offset):
    tai = seconds(utc, "2000-01-01") + offset
    assert tai_to_utc(tai, epoch="2000-01-01") == np.datetime64(utc, "ms")


def test_gps_runs_ahead_of_utc_by_19_seconds_less():
    # The first segment of a real ATL06 granule and its data_start_utc; the epoch is the file's atlas_sdp_gps_epoch.
    gps = np.array([1198800018.0 + 40642765.83524227])
    assert gps_to_utc(gps) == np.datetime64("2019-04-16T09:39:25.835", "ms")
    assert gps_to_utc(np.array([0.0])) == np.datetime64("1980-01-06", "ms")


def test_missing_times_and_fill_values_are_not_a_time():
    times = tai_to_utc(np.array([np.nan, np.inf, 1.7976931348623157e308, 0.0]), epoch="2000-01-01")
    assert np.isnat(times).tolist() == [True, True, True, False]


def test_leap_seconds_come_one_at_a_time():
    days, offsets = zip(*LEAP_SECONDS, strict=True)
    assert list(days) == sorted(days)
    assert offsets == tuple(range(19, 38))
