"""Terms, modes, platforms, gates, radii and columns of a fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cryotile.fit.posts
from cryotile import FitConfig, fit_posts
from cryotile.errors import InvalidValue
from cryotile.fit.terms import TermFlag
from cryotile.fit.variables import Status
from tests.support.fit_points import ALL_TERMS, EPOCH, PERIOD, X, Y, make_points
from tests.support.passes_oracle import Column, Points, fit_passes, points_around

CONFIG = FitConfig(radius=2000.0, period=PERIOD, reference_epoch=EPOCH)
BUILT_IN = TermFlag.QUADRATIC | TermFlag.DIRECTION | TermFlag.ANNUAL


def fit_one(points: pd.DataFrame, config: FitConfig = CONFIG) -> xr.Dataset:
    return fit_posts(points, [X], [Y], config).isel(x=0, y=0)


def with_terms(*terms: str, **settings: Any) -> FitConfig:
    return FitConfig(radius=2000.0, terms=terms, period=PERIOD, reference_epoch=EPOCH, **settings)


def with_acceleration(points: Points) -> Points:
    """Return points with a free column for the acceleration."""
    return replace(points, columns=(*points.columns, Column(points.tau**2 / 2)))


# --- terms


def test_the_coefficients_of_terms_are_those_of_the_reference() -> None:
    points = make_points(700, passes=40).drop(columns="mode")
    fit = fit_one(points, with_terms("power", "acceleration"))
    assert int(fit["terms"]) == BUILT_IN | TermFlag.ACCELERATION | 256
    around = points_around(points, X, Y, 2000.0, EPOCH, columns={"power": np.inf})
    around = with_acceleration(around)
    found = fit_passes(around)
    expected = found.fit.beta
    assert float(fit["dhdt"]) == pytest.approx(expected[1], abs=1e-8)
    curvature = 2 * expected[4:7] / 2000.0**2 / [1, 1, 2]
    for name, value in zip(("xx", "yy", "xy"), curvature, strict=True):
        assert float(fit[f"curvature_{name}"]) == pytest.approx(value, rel=1e-6, abs=1e-14)
    assert float(fit["direction_offset"]) == pytest.approx(expected[7], rel=1e-6)
    amplitude = np.hypot(*expected[8:10])
    assert float(fit["annual_amplitude"]) == pytest.approx(amplitude, rel=1e-6)
    phase = np.arctan2(expected[9], expected[8]) % (2 * np.pi)
    assert float(fit["annual_phase"]) == pytest.approx(phase, rel=1e-6)
    assert float(fit["power_coefficient"]) == pytest.approx(expected[10], rel=1e-6)
    assert float(fit["acceleration"]) == pytest.approx(expected[11], rel=1e-6)
    # Terms that users name have a sigma; built-in ones, which are shrunk, have none.
    for name, column in (("power_coefficient", 10), ("acceleration", 11)):
        assert float(fit[f"{name}_sigma"]) == pytest.approx(found.jackknife(column), rel=1e-6)
    assert "direction_offset_sigma" not in fit


def test_a_narrow_prior_keeps_a_coefficient_near_zero() -> None:
    points = make_points(700, passes=40).drop(columns="mode")
    free = fit_one(points, with_terms("power"))
    tied = fit_one(points, with_terms("power", priors=("power=1e-5",)))
    assert float(free["power_coefficient"]) == pytest.approx(0.01, abs=0.01)
    assert abs(float(tied["power_coefficient"])) < 0.1 * abs(float(free["power_coefficient"]))


def test_points_that_leave_the_terrain_open_have_a_fit() -> None:
    points = make_points(600, passes=40).drop(columns="mode")
    # On the circle u² + v² is nearly constant.
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, len(points))
    points["x"], points["y"] = X + 1500 * np.cos(angle), Y + 1500 * np.sin(angle)
    fit = fit_one(points)
    assert int(fit["status"]) == Status.OK
    assert float(fit["dhdt"]) == pytest.approx(0.6, abs=3 * float(fit["dhdt_ci95"]))


def test_passes_of_one_season_and_one_direction_have_a_fit() -> None:
    points = make_points(600, passes=10).drop(columns="mode").assign(ascending=True)
    number = points["pass_id"] - 2**32
    points["time"] = (np.datetime64("2011-02-01", "ms") + number * np.timedelta64(365, "D")).astype(
        "datetime64[ms]"
    )
    fit = fit_one(points)
    assert int(fit["status"]) == Status.OK
    assert float(fit["dhdt"]) == pytest.approx(0.6, abs=3 * float(fit["dhdt_ci95"]))


# --- modes and platforms


def test_mixed_modes_without_an_offset_are_reduced_to_the_majority() -> None:
    points = make_points(600, passes=30)
    most = points["mode"].value_counts().idxmax()
    fit, one_mode = fit_one(points), fit_one(points[points["mode"] == most])
    assert int(fit["terms"]) == BUILT_IN | TermFlag.MAJORITY_MODE
    assert float(fit["dhdt"]) == float(one_mode["dhdt"])


def test_an_offset_of_modes_is_fitted_and_sums_to_zero() -> None:
    points = make_points(900, passes=40, outliers=0)
    fit = fit_one(points, with_terms("mode_offset"))
    assert int(fit["terms"]) == BUILT_IN | TermFlag.MODE_OFFSET
    poca, swath = (float(fit[f"mode_offset_sarin_{kind}"]) for kind in ("poca", "swath"))
    assert poca + swath == pytest.approx(0.0, abs=1e-12)
    assert swath - poca == pytest.approx(0.3, abs=0.3)
    assert np.isnan(fit["mode_offset_lrm"])


@pytest.mark.parametrize(
    ("laser", "radar", "others"),
    [
        ("icesat2", "cryosat2", ()),
        ("airborne", "cryosat2", ("saral", "airborne")),
        ("airborne", "jason-like", (*(f"x{k}" for k in range(13)), "airborne", "jason-like")),
    ],
)
def test_platforms_are_fitted_together_with_an_offset(laser, radar, others):
    points = make_points(900, passes=40, outliers=0).drop(columns="mode")
    low = (points["pass_id"] % 3 == 0).to_numpy()
    points["platform"] = np.where(low, laser, radar)
    points["elevation"] -= 1.5 * low
    config = with_terms("platform_offset", other_platforms=others)
    fit = fit_one(points, config)
    assert int(fit["terms"]) & TermFlag.PLATFORM_OFFSET
    names = [f"platform_offset_{word.replace('-', '_')}" for word in (radar, laser)]
    step = float(fit[names[0]]) - float(fit[names[1]])
    assert step == pytest.approx(1.5, abs=0.3)
    assert float(fit["dhdt"]) == pytest.approx(0.6, abs=0.1)


def of_two_platforms(points: pd.DataFrame) -> pd.DataFrame:
    """Let every third pass be a laser's, which sees the surface 1.5 m lower."""
    low = (points["pass_id"] % 3 == 0).to_numpy()
    return points.assign(
        platform=np.where(low, "icesat2", "cryosat2"),
        mode=np.where(low, "laser", "sarin_poca"),
        elevation=points["elevation"] - 1.5 * low,
    )


def test_the_sigma_of_an_offset_is_that_of_leaving_out_passes() -> None:
    points = of_two_platforms(make_points(900, passes=40, outliers=0))
    fit = fit_one(points, with_terms("platform_offset"))
    half = points.assign(half=np.where(points["platform"] == "cryosat2", 0.5, -0.5))
    found = fit_passes(points_around(half, X, Y, 2000.0, EPOCH, columns={"half": np.inf}))
    step = float(fit["platform_offset_cryosat2"]) - float(fit["platform_offset_icesat2"])
    assert step == pytest.approx(found.fit.beta[10], rel=1e-6)
    sigmas = [float(fit[f"platform_offset_{name}_sigma"]) for name in ("cryosat2", "icesat2")]
    assert sum(sigmas) == pytest.approx(found.jackknife(10), rel=1e-6)
    assert np.isnan(fit["platform_offset_ers1_sigma"])


def test_a_coefficient_that_one_pass_alone_tells_has_no_sigma() -> None:
    points = make_points(900, passes=40, outliers=0).drop(columns="mode")
    points["power"] = (points["pass_id"] == points["pass_id"].iloc[0]).astype(float)
    fit = fit_one(points, with_terms("power"))
    assert int(fit["status"]) == Status.OK
    assert np.isfinite(fit["power_coefficient"])
    assert np.isnan(fit["power_coefficient_sigma"])


def test_each_platform_keeps_its_most_frequent_mode() -> None:
    points = of_two_platforms(make_points(900, passes=40, outliers=0))
    swath = (points["pass_id"] % 3 == 1) & (np.arange(len(points)) % 8 == 0)
    points["mode"] = np.where(swath, "sarin_swath", points["mode"])
    fit = fit_one(points, with_terms("platform_offset"))
    same = fit_one(points[~swath], with_terms("platform_offset"))
    assert int(fit["terms"]) & TermFlag.MAJORITY_MODE
    assert float(fit["dhdt"]) == float(same["dhdt"])
    step = float(fit["platform_offset_cryosat2"]) - float(fit["platform_offset_icesat2"])
    assert step == pytest.approx(1.5, abs=0.3)


def test_penetration_is_the_rate_of_radars_less_that_of_lasers() -> None:
    points = of_two_platforms(make_points(1200, passes=60, outliers=0))
    years = (points["time"].to_numpy() - np.datetime64(EPOCH, "ms")) / np.timedelta64(
        31_557_600, "s"
    )
    points["elevation"] += np.where(points["mode"] == "laser", 0.0, -0.2 * years)
    fit = fit_one(points, with_terms("platform_offset", "penetration"))
    assert int(fit["terms"]) & TermFlag.PENETRATION
    rate, sigma = float(fit["penetration_rate"]), float(fit["penetration_rate_sigma"])
    assert abs(rate + 0.2) < 3 * sigma < 0.2
    # The rate of the fit is the mean of both.
    assert float(fit["dhdt"]) == pytest.approx(0.6 - 0.1, abs=3 * float(fit["dhdt_sigma"]))
    # Radars alone do not tell it.
    one = fit_one(points[points["mode"] != "laser"], with_terms("platform_offset", "penetration"))
    assert int(one["status"]) == Status.SINGULAR


def test_penetration_without_an_offset_of_platforms_is_refused():
    with pytest.raises(InvalidValue, match="needs the term platform_offset"):
        with_terms("penetration")


def test_an_invalid_platform_is_refused():
    points = make_points()
    points["platform"] = np.where(points["pass_id"] % 2, "icesat3", "icesat2")
    with pytest.raises(InvalidValue, match="platform 'icesat3' is unknown"):
        fit_one(points, with_terms("platform_offset"))


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (("SARAL",), "lower-case word"),
        (("saral", "saral"), "one twice"),
        (("jason-like", "jason_like"), "one twice"),
        (("ers1",), "a known one"),
        (tuple(f"x{k}" for k in range(16)), "16 other platforms are more than 15"),
    ],
)
def test_other_platforms_are_words_and_not_too_many(others, said):
    with pytest.raises(InvalidValue, match=said):
        with_terms("platform_offset", other_platforms=others)


# --- gates and fallback


def test_each_gate_of_the_recipe_has_its_status() -> None:
    points = make_points(600, passes=40).drop(columns="mode")
    assert fit_one(points.iloc[:5])["status"] == Status.TOO_FEW_POINTS
    ids = points["pass_id"].drop_duplicates().sort_values().iloc[[0, 13, 26, 39]]
    assert fit_one(points[points["pass_id"].isin(ids)])["status"] == Status.TOO_FEW_PASSES
    years = (points["time"].to_numpy() - np.datetime64(EPOCH, "ms")) / np.timedelta64(
        31_557_600, "s"
    )
    fast = fit_one(points.assign(elevation=points["elevation"] + 40 * years))
    assert fast["status"] == Status.RATE_OUT_OF_BOUNDS
    short = points.sort_values("time").groupby("pass_id", sort=False).head(40)
    short = short[short["pass_id"].isin(short["pass_id"].unique()[:6])]
    wild = np.random.default_rng(1).normal(0, 5, 50)
    shaken = short["elevation"] + wild[short["pass_id"] - 2**32]
    assert fit_one(short.assign(elevation=shaken))["status"] == Status.TOO_UNCERTAIN
    assert np.isnan(fast["dhdt"])
    assert int(fast["data_count"]) > 0


def test_a_post_with_too_few_points_uses_the_next_radius_and_records_it():
    points = make_points(800, passes=30).drop(columns="mode")
    points = points[np.hypot(points["x"] - X, points["y"] - Y) > 900]
    config = FitConfig(radius=900.0, fallback_radii=(910.0, 2000.0), period=PERIOD)
    fits = fit_posts(points, [X, X + 1500], [Y], config)
    at_once = FitConfig(radius=2000.0, period=PERIOD)
    assert fits["radius"].to_numpy()[0, 0] == 2000.0
    assert fits["dhdt"].to_numpy()[0, 0] == fit_posts(points, [X], [Y], at_once)["dhdt"].item()


# --- columns


def test_weighting_by_a_missing_uncertainty_names_the_column():
    config = with_terms(weights=("uncertainty",))
    points = make_points()
    for other in (points.drop(columns="uncertainty"), points.assign(uncertainty=np.nan)):
        with pytest.raises(InvalidValue, match="uncertainty"):
            fit_one(other, config)


def test_a_term_without_its_column_is_named():
    with pytest.raises(InvalidValue, match="no column 'coherence'"):
        fit_one(make_points(), with_terms("coherence"))
    with pytest.raises(InvalidValue, match="column 'power' has no finite value"):
        fit_one(make_points().assign(power=np.nan), with_terms("power"))


def test_a_point_without_a_value_of_a_term_is_not_used():
    points = make_points().drop(columns="mode")
    points.loc[::9, "power"] = np.nan
    config = with_terms("power")
    assert fit_one(points, config).identical(fit_one(points.dropna(), config))


def test_heights_that_are_fill_values_are_refused():
    points = make_points()
    points.loc[3, "elevation"] = 9.97e36
    with pytest.raises(InvalidValue, match=r"column 'elevation' holds 9\.97e"):
        fit_one(points)


# --- the same bytes


def test_the_bytes_do_not_depend_on_threads_or_on_the_tile():
    points = pd.concat([make_points(3000, seed=k, passes=60) for k in range(4)], ignore_index=True)
    points[["x", "y"]] = np.random.default_rng(0).uniform(-9000, 9000, (len(points), 2))
    axis = np.arange(-6000.0, 6001.0, 1000.0)
    config = with_terms(*ALL_TERMS, weights=("uncertainty", "distance"))
    whole = fit_posts(points, axis, axis, config)
    assert whole.identical(fit_posts(points, axis, axis, config, threads=3))
    near = points[points["x"].between(-5000, 3000) & points["y"].between(-4000, 6000)]
    part = fit_posts(near, axis[3:8], axis[4:11], config)
    assert part.identical(whole.isel(x=slice(3, 8), y=slice(4, 11)))
    assert (whole["status"] == Status.OK).mean() > 0.9


@pytest.mark.parametrize("recipe", ["plane", "passes"])
def test_circles_too_large_for_one_thread_get_the_same_bytes(recipe, monkeypatch):
    points = make_points(3000, passes=60).drop(columns="mode")
    points[["x", "y"]] = np.random.default_rng(0).normal(0, 3000, (len(points), 2))
    axis = np.arange(-3000.0, 3001.0, 1000.0)
    config = FitConfig(recipe=recipe, period=PERIOD)
    whole = fit_posts(points, axis, axis, config)
    monkeypatch.setattr(cryotile.fit.posts, "ROOM", int(whole["data_count"].median()))
    assert whole.identical(fit_posts(points, axis, axis, config, threads=3))
