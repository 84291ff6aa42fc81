"""TAI and GPS seconds become UTC with the leap seconds of their day."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from cryotile.errors import InvalidValue
from cryotile.times import (
    LEAP_SECONDS,
    TimeUnit,
    gps_to_utc,
    parse_date,
    parse_dates,
    parse_instant,
    tai_to_utc,
    utc_to_gps,
    utc_to_tai,
)


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


@pytest.mark.parametrize("day", ["1999-06-01", "2012-06-30T23:59:59", "2017-01-01", "2020-09-30"])
def test_seconds_of_an_instant_lead_back_to_it(day):
    time = np.array([day], "datetime64[ms]")
    assert tai_to_utc(utc_to_tai(time, epoch="2000-01-01"), epoch="2000-01-01") == time
    assert gps_to_utc(utc_to_gps(time)) == time


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2015-07-01", "2015-07-01"),
        ("2015-07-01T12:00:00", "2015-07-01T12:00:00"),
        ("2015-07-01T12:00:00Z", "2015-07-01T12:00:00"),
        ("2015-07-01T12:00:00+02:00", "2015-07-01T10:00:00"),
        ("2019-01-01T01:00+02:00", "2018-12-31T23:00:00"),
        ("2019-01-01 00:00:00.123456", "2019-01-01T00:00:00.123456"),
        ("9999-12-31", "9999-12-31"),
        ("2016-12-31T23:59:60", "2017-01-01"),
        ("2016-12-31 23:59:60.25Z", "2017-01-01T00:00:00.250000"),
        ("2017-01-01T00:59:60+01:00", "2017-01-01"),
        ("20161231T235960Z", "2017-01-01"),
        ("2019-06-05T12:34:60", "2019-06-05T12:35:00"),
        ("2019-06-05T12:34:59.60", "2019-06-05T12:34:59.600000"),
    ],
)
def test_an_instant_is_utc_unless_it_has_an_offset(text, utc):
    assert parse_instant(text).tz is None
    assert parse_instant(text).to_datetime64() == np.datetime64(utc)


@pytest.mark.parametrize(
    "text",
    [
        "now",
        "",
        "NaT",
        "2019",
        "01/02/2019",
        "2019-13-01",
        None,
        2019,
        "0001-01-01T00:00+01:00",
        "9999-12-31T23:59:60",
        "2019-06-05T12:34:61",
        "2019-06-05T12:60:00",
        "2019-06-05T12:34:600",
        ":60",
        "x" * 200,
    ],
)
def test_a_text_that_is_not_an_instant_is_refused_in_one_line(text):
    with pytest.raises(InvalidValue, match="is not an instant in ISO 8601; write it as") as caught:
        parse_instant(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("unit", "seconds"),
    [
        ("ns", 1e-9),
        ("nanoseconds", 1e-9),
        ("us", 1e-6),
        ("microseconds", 1e-6),
        ("msec", 1e-3),
        ("msecs", 1e-3),
        ("secs", 1.0),
        ("mins", 60.0),
        ("hrs", 3600.0),
        ("Hours", 3600.0),
        ("d", 86_400.0),
    ],
)
def test_units_of_time_have_the_names_of_udunits(unit, seconds):
    instants = TimeUnit.parse(f"{unit} since 2019-05-04 11:18:32.25").to_utc(
        np.array([0.0, 7200.0 / seconds])
    )
    assert instants.tolist() == [
        datetime.datetime(2019, 5, 4, 11, 18, 32, 250_000),
        datetime.datetime(2019, 5, 4, 13, 18, 32, 250_000),
    ]


def test_the_fraction_of_an_epoch_counts_to_the_last_digit():
    unit = TimeUnit.parse("microseconds since 2019-05-04 11:18:32.123456789")
    instants = unit.to_utc(np.array([0.0, 43.0, 44.0]))
    assert [str(instant)[-3:] for instant in instants] == ["123", "123", "124"]


@pytest.mark.parametrize(
    "text", ["2016-12-31T23:59:60.500Z", "2016-12-31 23:59:60.5", "31-DEC-2016 23:59:60.500000"]
)
def test_a_leap_second_is_the_first_second_of_the_day_after_it(text):
    assert parse_date(text) == pd.Timestamp("2017-01-01T00:00:00.5")


def test_leap_seconds_in_rows_are_instants():
    rows = pd.Series(["2016-12-31T23:59:59", "2016-12-31T23:59:60.25Z", "2017-01-01", "no", None])
    assert parse_dates(rows).dt.tz_localize(None).tolist()[:3] == [
        pd.Timestamp("2016-12-31T23:59:59"),
        pd.Timestamp("2017-01-01T00:00:00.25"),
        pd.Timestamp("2017-01-01"),
    ]
    assert parse_dates(rows).isna().tolist() == [False, False, False, True, True]


def test_digits_that_are_no_leap_second_stay_as_they_are():
    rows = pd.Series(
        ["2019-06-05T12:34:59.60", "2019-06-05T12:34:56.360", "20190605T123460", "x60"]
    )
    assert parse_dates(rows).dt.tz_localize(None).tolist()[:3] == [
        pd.Timestamp("2019-06-05T12:34:59.6"),
        pd.Timestamp("2019-06-05T12:34:56.36"),
        pd.Timestamp("2019-06-05T12:35:00"),
    ]
    assert parse_dates(rows).isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize("text", ["2016-12-31T23:59:60.5", "20161231T235960.5"])
def test_an_instant_is_the_same_in_rows_in_attributes_and_in_options(text):
    (row,) = parse_dates(pd.Series([text])).dt.tz_localize(None)
    assert row == parse_date(text) == parse_instant(text) == pd.Timestamp("2017-01-01T00:00:00.5")


def test_nanoseconds_are_exact_to_the_millisecond_of_the_point():
    unit = TimeUnit.parse("nanoseconds since 1970-01-01")
    random = np.random.default_rng(1)
    whole = random.integers(1.2e12, 1.7e12, 10_000)
    shifts = random.integers(-499_000, 499_000, 10_000)
    instants = unit.to_utc((whole * 1_000_000 + shifts).astype(np.float64))
    assert (instants.astype(np.int64) == whole).all()
