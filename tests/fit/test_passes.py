"""The recipe ``passes``: the kernel against the fixed numbers of its definition and against the slow reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import t as student

from cryotile import FitConfig, fit_posts
from cryotile.fit.variables import Status
from tests.support.passes_oracle import (
    FIXED_POSTS,
    TAU,
    Points,
    Post,
    Result,
    fit_heights,
    fit_passes,
    fit_window,
    fixed_post,
    points_around,
)

EPOCH = "2016-01-01"
YEAR = 31_557_600.0
CONFIG = FitConfig(
    recipe="passes", radius=2000.0, period=("2010-01-01", "2022-01-01"), reference_epoch=EPOCH
)
EVERYTHING = replace(CONFIG, min_points=4, min_passes=1, max_rate=np.inf, max_ci95=np.inf)
"""The recipe without gates: what the fit itself says."""


def as_table(points: Points, x: float = 0.0, y: float = 0.0) -> pd.DataFrame:
    """Return the points of a post at (x, y) as a table."""
    # Microseconds: the fixed post has no year of whole milliseconds.
    times = np.round(points.tau * YEAR * 1e9).astype("timedelta64[ns]")
    return pd.DataFrame(
        {
            "x": points.u * points.radius + x,
            "y": points.v * points.radius + y,
            "time": np.datetime64(EPOCH, "ns") + times,
            "elevation": points.z,
            "pass_id": points.label,
            "ascending": points.side > 0,
        }
    )


def fit_one(table: pd.DataFrame, config: FitConfig = EVERYTHING) -> xr.Dataset:
    return fit_posts(table, [0.0], [0.0], config).isel(x=0, y=0)


def make_post(seed: int, *, least: int = 5, most: int = 30, length: float = 2.0) -> pd.DataFrame:
    """Return the points of some post: few or many passes of any length, outliers, bad passes, slopes, seasons."""
    random = np.random.default_rng(seed)
    count = int(random.integers(least, most))
    lengths = np.maximum(1, random.lognormal(length, 0.8, count).astype(int))
    label = np.repeat(np.arange(count), lengths)
    total = len(label)
    days = np.sort(random.uniform(0, 4380, count))
    ascending = random.random(count) < 0.5
    azimuth = np.where(ascending, np.deg2rad(62), np.deg2rad(121))[label]
    along, across = random.uniform(-1900, 1900, total), random.uniform(-1500, 1500, count)[label]
    x = along * np.cos(azimuth) - across * np.sin(azimuth)
    y = along * np.sin(azimuth) + across * np.cos(azimuth)
    tau = days[label] / 365.25 - 6
    spread = random.choice([0.0, 0.1, 0.4])
    z = 1500 + random.normal(0, 0.02) * x + random.normal(0, 0.02) * y
    z += random.normal(0, 3e-7) * x * x + random.normal(0, 3e-7) * x * y - 0.7 * tau
    z += random.choice([0, 0.3]) * np.cos(2 * np.pi * tau) + 0.2 * ascending[label]
    z += spread * random.normal(size=count)[label] + 0.15 * random.normal(size=total)
    power = random.normal(-150, 5, total)
    z += random.choice([0, 0.02]) * power
    bad = random.choice(count, int(random.integers(0, 3)), replace=False)
    z += np.isin(label, bad) * random.choice([1.5, 5.0, 50.0])
    z += (random.random(total) < 0.03) * random.normal(0, 20, total)
    times = (days[label] * 86_400_000).astype("timedelta64[ms]") + np.arange(
        total
    ) * np.timedelta64(20, "ms")
    return pd.DataFrame(
        {
            "x": x,
            "y": y,
            "time": np.datetime64("2010-01-01", "ms") + times,
            "elevation": z,
            "pass_id": label + 2**40,
            "ascending": ascending[label],
            "power": power,
            "uncertainty": random.uniform(0.05, 0.5, total),
        }
    )


def assert_same(fit: xr.Dataset, expected: Result) -> None:
    """Compare a fit with the reference."""
    assert int(fit["status"]) == Status.OK
    counts = {
        "data_count": expected.kept.sum(),
        "rejected_count": (~expected.kept).sum(),
        "pass_count": expected.passes,
        "free_pass_count": len(expected.fit.free),
    }
    assert {name: int(fit[name]) for name in counts} == counts
    assert float(fit["dhdt"]) == pytest.approx(expected.dhdt, abs=1e-8)
    assert float(fit["elevation"]) == pytest.approx(expected.elevation, abs=1e-7)
    for name in (
        "dhdt_sigma",
        "dhdt_ci95",
        "dhdt_sigma_formal",
        "noise_sigma",
        "pass_offset_sigma",
    ):
        assert float(fit[name]) == pytest.approx(getattr(expected, name), rel=1e-6), name
    assert float(fit["elevation_sigma"]) == pytest.approx(expected.jackknife(0), rel=1e-6)


@pytest.mark.parametrize("case", FIXED_POSTS)
def test_the_fixed_post_has_the_numbers_of_the_definition(case: tuple[float, float]) -> None:
    fit = fit_one(as_table(fixed_post(*case)))
    dhdt, sigma, ci95, passes, free, points, _, _, elevation = FIXED_POSTS[case]
    assert [int(fit[name]) for name in ("pass_count", "free_pass_count", "data_count")] == [
        *(passes, free, points)
    ]
    found = [float(fit[name]) for name in ("dhdt", "dhdt_sigma", "dhdt_ci95", "elevation")]
    # Times are given in whole nanoseconds, and sigma is known to some nine digits.
    np.testing.assert_allclose(found, (dhdt, sigma, ci95, elevation), rtol=0, atol=2e-9)


def test_a_plane_falling_half_a_metre_a_year_falls_half_a_metre_a_year() -> None:
    table = as_table(fixed_post())
    years = (table["time"] - pd.Timestamp(EPOCH)).dt.total_seconds() / YEAR
    table["elevation"] = 900 + 0.01 * table["x"] - 0.004 * table["y"] - 0.5 * years
    fit = fit_one(table, CONFIG)
    assert float(fit["dhdt"]) == pytest.approx(-0.5, abs=1e-6)
    assert float(fit["elevation"]) == pytest.approx(900, abs=1e-3)
    assert float(fit["slope_x"]) == pytest.approx(0.01, abs=1e-6)
    assert float(fit["slope_y"]) == pytest.approx(-0.004, abs=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_a_post_is_fitted_as_by_the_reference(seed: int) -> None:
    table = make_post(seed)
    assert_same(fit_one(table), fit_passes(points_around(table, 0, 0, 2000.0, EPOCH)))


@pytest.mark.parametrize("seed", range(124, 154))
def test_passes_of_one_or_two_points_are_fitted_as_by_the_reference(seed: int) -> None:
    # Of some (seed 152), the second screen keeps no point, so that fewer passes are searched than before.
    table = make_post(seed, least=8, most=14, length=0.5)
    assert_same(fit_one(table), fit_passes(points_around(table, 0, 0, 2000.0, EPOCH)))


@pytest.mark.parametrize("seed", range(40, 50))
def test_weights_and_named_columns_are_fitted_as_by_the_reference(seed: int) -> None:
    table = make_post(seed)
    prior: Mapping[str, float] = {"power": 0.02 if seed % 2 else np.inf}
    config = replace(
        EVERYTHING,
        terms=("power",),
        priors=("power=0.02",) if seed % 2 else (),
        weights=("uncertainty", "distance"),
        distance_scale=1500.0,
    )
    weight = (
        1 / (table["uncertainty"] ** 2 + 0.01) * np.exp(-np.hypot(table["x"], table["y"]) / 1500)
    )
    expected = fit_passes(
        points_around(table, 0, 0, 2000.0, EPOCH, weight=weight.to_numpy(), columns=prior)
    )
    fit = fit_one(table, config)
    assert_same(fit, expected)
    assert float(fit["power_coefficient"]) == pytest.approx(expected.fit.beta[10], abs=1e-7)


@pytest.mark.parametrize("seed", range(50, 56))
def test_windows_are_refits_of_their_passes(seed: int) -> None:
    table = make_post(seed)
    config = replace(EVERYTHING, windows=("5y", "6m"))
    fit = fit_one(table, config)
    points = points_around(table, 0, 0, 2000.0, EPOCH)
    result = fit_passes(points)
    points = replace(points, z=points.z - result.mean)
    post = Post(points.take(result.kept), result.sigma)
    seen = 0
    for k, (start, end) in enumerate(config.intervals["time"]):
        years = [
            (instant - np.datetime64(EPOCH, "ms")) / np.timedelta64(1, "ms") / YEAR / 1e3
            for instant in (start, end)
        ]
        window, change = fit_window(post, result.fit, *years)
        one = fit.isel(time=k)
        assert int(one["window_pass_count"]) == len(change)
        if int(one["window_status"]) != Status.OK:
            continue
        seen += 1
        sigma = float(np.sqrt(sum(d[TAU] ** 2 for d in change.values())))
        assert float(one["window_dhdt"]) == pytest.approx(window.beta[TAU], abs=1e-8)
        assert float(one["window_dhdt_sigma"]) == pytest.approx(sigma, rel=1e-6)
        ci95 = student.ppf(0.975, len(change) - 1) * sigma
        assert float(one["window_dhdt_ci95"]) == pytest.approx(ci95, rel=1e-6)
    assert seen > 5
    middle = fit["time"].to_numpy()[0]
    assert middle == np.datetime64("2012-07-02", "ms")
    assert fit["time_bnds"].to_numpy()[0].tolist() == config.intervals["time"][0].tolist()


@pytest.mark.parametrize("seed", range(56, 62))
def test_heights_are_those_of_the_reference(seed: int) -> None:
    table = make_post(seed)
    fit = fit_one(table, replace(EVERYTHING, heights="6m"))
    points = points_around(table, 0, 0, 2000.0, EPOCH)
    result = fit_passes(points)
    points = replace(points, z=points.z - result.mean)
    post = Post(points.take(result.kept), result.sigma)
    edges = pd.date_range("2010-01-01", "2022-01-01", freq="6MS") - pd.Timestamp(EPOCH)
    bins = np.digitize(
        [points.tau[points.label == g].mean() for g in post.labels],
        edges.total_seconds() / YEAR,
    )
    of_pass = dict(zip(post.labels.tolist(), (bins - 1).tolist(), strict=True))
    expected = fit_heights(post, result.fit, of_pass)
    height, sigma = fit["height"].to_numpy(), fit["height_sigma"].to_numpy()
    assert np.flatnonzero(np.isfinite(height)).tolist() == expected.bins.tolist()
    relative = expected.height + result.mean - result.elevation
    np.testing.assert_allclose(height[expected.bins], relative, rtol=0, atol=1e-7)
    true_sigma = np.sqrt(np.diag(expected.covariance))
    np.testing.assert_allclose(sigma[expected.bins], true_sigma, rtol=1e-6)
    np.testing.assert_allclose(
        fit["height_ci95"].to_numpy()[expected.bins],
        true_sigma * student.ppf(0.975, expected.dof),
        rtol=1e-6,
    )


def test_windows_and_heights_leave_the_fit_of_the_period_as_it_is() -> None:
    table = make_post(7)
    plain = fit_one(table)
    more = fit_one(table, replace(EVERYTHING, windows=("5y", "1m"), heights="1m"))
    for name, values in plain.data_vars.items():
        np.testing.assert_array_equal(values, more[name], err_msg=str(name))


# --- gates


def test_each_gate_is_an_option_and_gives_its_status() -> None:
    table = make_post(3)
    fit = fit_one(table)
    for setting, status in (
        ({"min_points": int(fit["data_count"]) + 1}, Status.TOO_FEW_POINTS),
        ({"min_passes": int(fit["pass_count"]) + 1}, Status.TOO_FEW_PASSES),
        ({"max_rate": abs(float(fit["dhdt"])) * 0.999}, Status.RATE_OUT_OF_BOUNDS),
        ({"max_ci95": float(fit["dhdt_ci95"]) * 0.999}, Status.TOO_UNCERTAIN),
    ):
        refused = fit_one(table, replace(EVERYTHING, **setting))
        assert int(refused["status"]) == status
        assert np.isnan(refused["dhdt"])
        assert np.isnan(refused["dhdt_ci95"])
    just = replace(
        CONFIG,
        min_points=int(fit["data_count"]),
        min_passes=int(fit["pass_count"]),
        max_rate=abs(float(fit["dhdt"])) * 1.001,
        max_ci95=float(fit["dhdt_ci95"]) * 1.001,
    )
    assert int(fit_one(table, just)["status"]) == Status.OK


def test_a_free_pass_does_not_count_towards_the_gate_of_passes() -> None:
    table = as_table(fixed_post(50.0))
    assert int(fit_one(table, replace(EVERYTHING, min_passes=10))["status"]) == Status.OK
    refused = fit_one(table, replace(EVERYTHING, min_passes=11))
    assert int(refused["status"]) == Status.TOO_FEW_PASSES


def test_a_window_passes_the_gates_by_itself() -> None:
    table = make_post(3)
    fit = fit_one(table, replace(CONFIG, windows=("2y", "1y")))
    assert int(fit["status"]) == Status.OK
    status, passes = fit["window_status"].to_numpy(), fit["window_pass_count"].to_numpy()
    assert Status.TOO_FEW_PASSES in status
    assert (status[passes < 5] != Status.OK).all()
    assert np.isnan(fit["window_dhdt"].to_numpy()[status != Status.OK]).all()
    assert (fit["window_dhdt_ci95"].to_numpy()[status == Status.OK] <= 1.0).all()


def test_a_bad_pass_shapes_the_terrain_and_not_the_rate() -> None:
    table = make_post(1)
    for step in (5.0, 50.0):
        wrong = table["elevation"] + step * (table["pass_id"] == table["pass_id"].iloc[0])
        fit = fit_one(table.assign(elevation=wrong))
        assert int(fit["free_pass_count"]) >= 1
        assert float(fit["dhdt"]) == pytest.approx(-0.7, abs=3 * float(fit["dhdt_ci95"]))


# --- determinism


def test_posts_do_not_affect_each_other() -> None:
    table = pd.concat(
        [make_post(seed).assign(x=lambda t, s=seed: t["x"] + 1500 * s) for seed in range(4)],
        ignore_index=True,
    )
    x = np.arange(-2000.0, 8000.0, 500.0)
    config = replace(EVERYTHING, windows=("5y", "1y"), heights="1y")
    together = fit_posts(table, x, [0.0, 500.0], config)
    threaded = fit_posts(table, x, [0.0, 500.0], config, threads=2)
    xr.testing.assert_identical(together, threaded)
    for first, last in pairwise((0, 7, 13, 20)):
        part = fit_posts(table, x[first:last], [0.0, 500.0], config)
        xr.testing.assert_identical(part, together.isel(x=slice(first, last)))
