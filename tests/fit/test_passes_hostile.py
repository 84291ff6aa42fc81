"""Hostile posts under the recipe ``passes``: each has a status, and what is finite is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cryotile import FitConfig, fit_posts
from cryotile.fit.variables import Status
from tests.support.passes_oracle import fit_passes, points_around

EPOCH = "2016-01-01"
CONFIG = FitConfig(recipe="passes", period=("2011-01-01", "2021-01-01"), reference_epoch=EPOCH)
OPEN = replace(CONFIG, min_points=4, min_passes=1, max_rate=np.inf, max_ci95=np.inf)
MODERN = np.datetime64("2011-01-01", "ms")
DAY = np.timedelta64(86_400_000, "ms")


def make_passes(lengths: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Return passes of given lengths over ten years, on a surface that falls by half a metre a year."""
    random = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(lengths)), lengths)
    days = np.sort(random.uniform(0, 3650, len(lengths)))[label]
    x, y = random.uniform(-1400, 1400, (2, len(label)))
    z = 900 + 0.01 * x - 0.5 * (days / 365.25 - 5) + 0.1 * random.normal(size=len(label))
    z += 0.2 * random.normal(size=len(lengths))[label]
    return pd.DataFrame(
        {
            "x": x,
            "y": y,
            "time": MODERN + (days * 86_400_000).astype("timedelta64[ms]"),
            "elevation": z,
            "pass_id": label,
            "ascending": label % 2 == 0,
        }
    )


def fit_one(points: pd.DataFrame, config: FitConfig = CONFIG) -> xr.Dataset:
    return fit_posts(points, [0.0], [0.0], config).isel(x=0, y=0)


def status_of(points: pd.DataFrame, config: FitConfig = CONFIG) -> Status:
    fit = fit_one(points, config)
    status = Status(int(fit["status"]))
    for name, values in fit.data_vars.items():
        if status != Status.OK and values.dtype.kind == "f":
            assert np.isnan(values), name
    return status


def test_one_pass_gives_no_rate() -> None:
    points = make_passes(np.array([40]))
    assert status_of(points) == Status.TOO_FEW_PASSES
    assert status_of(points, OPEN) != Status.OK


def test_passes_of_one_instant_give_no_rate() -> None:
    points = make_passes(np.full(12, 8)).assign(time=MODERN + 1000 * DAY)
    assert status_of(points) == Status.SINGULAR


def test_two_instants_give_the_difference_of_their_heights() -> None:
    points = make_passes(np.full(20, 8))
    late = (points["pass_id"] >= 10).to_numpy()
    points["time"] = MODERN + np.where(late, 3000, 0) * DAY
    points["elevation"] = 0.01 * points["x"] - 4.0 * late
    fit = fit_one(points)
    assert float(fit["dhdt"]) == pytest.approx(-4.0 / (3000 * 86_400 / 31_557_600), abs=1e-6)


def test_equal_passes_of_constant_height_do_not_change() -> None:
    one = make_passes(np.array([15]))
    passes = [one.assign(pass_id=k, time=MODERN + 300 * k * DAY) for k in range(12)]
    points = pd.concat(passes, ignore_index=True).assign(elevation=1234.5)
    fit = fit_one(points)
    assert int(fit["status"]) == Status.OK
    assert float(fit["dhdt"]) == pytest.approx(0.0, abs=1e-9)
    assert float(fit["elevation"]) == pytest.approx(1234.5, abs=1e-6)
    assert float(fit["dhdt_ci95"]) == pytest.approx(0.0, abs=1e-6)


def test_equal_passes_leave_only_the_rate_between_them() -> None:
    one = make_passes(np.array([15]))
    passes = [
        one.assign(
            pass_id=k,
            time=MODERN + 300 * k * DAY,
            elevation=one["elevation"] - 0.5 * 300 * k / 365.25,
        )
        for k in range(12)
    ]
    fit = fit_one(pd.concat(passes, ignore_index=True))
    assert float(fit["dhdt"]) == pytest.approx(-0.5, abs=1e-6)


def test_points_at_one_place_have_no_slope_and_a_rate() -> None:
    points = make_passes(np.full(20, 6)).assign(x=100.0, y=-50.0)
    points["elevation"] -= 0.01 * make_passes(np.full(20, 6))["x"]
    fit = fit_one(points)
    assert int(fit["status"]) == Status.OK
    assert float(fit["dhdt"]) == pytest.approx(-0.5, abs=0.1)
    assert abs(float(fit["slope_x"])) < 0.3


def test_passes_of_one_point_are_fitted_as_by_the_reference() -> None:
    points = make_passes(np.ones(30, int))
    fit, expected = fit_one(points), fit_passes(points_around(points, 0, 0, 2000.0, EPOCH))
    assert int(fit["status"]) == Status.OK
    assert float(fit["dhdt"]) == pytest.approx(expected.dhdt, abs=1e-8)
    assert float(fit["dhdt_sigma"]) == pytest.approx(expected.dhdt_sigma, rel=1e-6)


def test_a_pass_of_one_point_beside_long_ones_is_fitted_as_by_the_reference() -> None:
    for seed in range(5):
        lengths = np.random.default_rng(seed).integers(5, 60, 14)
        lengths[seed] = 1
        points = make_passes(lengths, seed)
        points.loc[points["pass_id"] == seed, "elevation"] += 30.0
        fit, expected = fit_one(points), fit_passes(points_around(points, 0, 0, 2000.0, EPOCH))
        assert float(fit["dhdt"]) == pytest.approx(expected.dhdt, abs=1e-8)
        assert int(fit["free_pass_count"]) == len(expected.fit.free) == 1


def test_a_hundred_thousand_points_in_a_circle_are_fitted() -> None:
    fit = fit_one(make_passes(np.full(100, 1000)))
    assert int(fit["status"]) == Status.OK
    assert int(fit["data_count"]) + int(fit["rejected_count"]) == 100_000
    assert float(fit["dhdt"]) == pytest.approx(-0.5, abs=3 * float(fit["dhdt_ci95"]))


def test_two_thousand_passes_at_a_post_are_fitted() -> None:
    points = make_passes(np.random.default_rng(2).integers(1, 12, 2000))
    fit = fit_one(points)
    assert int(fit["status"]) == Status.OK
    assert int(fit["pass_count"]) + int(fit["free_pass_count"]) == 2000
    assert float(fit["dhdt"]) == pytest.approx(-0.5, abs=3 * float(fit["dhdt_ci95"]))


def test_points_without_a_value_of_a_named_column_are_not_used() -> None:
    points = make_passes(np.full(12, 10))
    power = np.random.default_rng(3).normal(-150, 5, len(points))
    points = points.assign(power=power, elevation=points["elevation"] + 0.02 * power)
    config = replace(CONFIG, terms=("power",))
    missing = points.assign(power=points["power"].where(points.index % 7 != 3))
    gone = points[points.index % 7 != 3]
    for name, values in fit_one(missing, config).data_vars.items():
        np.testing.assert_array_equal(values, fit_one(gone, config)[name], err_msg=str(name))


def test_unknown_directions_say_nothing() -> None:
    points = make_passes(np.full(12, 10))
    points["ascending"] = pd.array([pd.NA] * len(points), dtype="boolean")
    unknown, absent = fit_one(points), fit_one(points.drop(columns="ascending"))
    assert int(unknown["status"]) == Status.OK
    assert float(unknown["direction_offset"]) == pytest.approx(0.0, abs=1e-9)
    xr.testing.assert_identical(unknown, absent)


def test_heights_far_above_the_ellipsoid_lose_no_digits() -> None:
    points = make_passes(np.full(12, 10))
    low = fit_one(points)
    high = fit_one(points.assign(elevation=points["elevation"] + 4096.0))
    assert float(high["dhdt"]) == pytest.approx(float(low["dhdt"]), abs=1e-9)
    assert float(high["elevation"] - low["elevation"]) == pytest.approx(4096.0, abs=1e-7)


def test_two_bad_passes_hide_each_other_from_neither_fit() -> None:
    points = make_passes(np.full(16, 10))
    wrong = points["elevation"] + 20.0 * points["pass_id"].isin([14, 15])
    fit = fit_one(points.assign(elevation=wrong))
    assert int(fit["free_pass_count"]) == 2
    assert float(fit["dhdt"]) == pytest.approx(-0.5, abs=2 * float(fit["dhdt_ci95"]))
