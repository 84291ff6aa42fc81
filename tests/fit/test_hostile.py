"""Hostile points get a status or an error, never a crash; every processor gives the same bytes."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cryotile.fit.inputs
from cryotile import FitConfig, fit_posts
from cryotile._fit import SIMD_LEVELS
from cryotile.errors import InvalidValue
from cryotile.fit.variables import Status
from tests.support.fit_points import ALL_TERMS, EPOCH, PERIOD, make_points

AVAILABLE = SIMD_LEVELS[: SIMD_LEVELS.index(cryotile.fit.inputs.simd_level()) + 1]


@pytest.mark.parametrize("level", AVAILABLE)
@pytest.mark.parametrize(
    ("recipe", "terms"), [("plane", ()), ("passes", ()), ("passes", ALL_TERMS)]
)
def test_every_level_of_vector_instructions_gives_the_same_bytes(level, recipe, terms, monkeypatch):
    points = make_points(4000, passes=50)
    points[["x", "y"]] = np.random.default_rng(1).uniform(-4000, 4000, (len(points), 2))
    more = {"windows": ("5y", "1y"), "heights": "1y"} if recipe == "passes" else {}
    config = FitConfig(recipe=recipe, terms=terms, period=PERIOD, reference_epoch=EPOCH, **more)
    axis = np.arange(-3000.0, 3001.0, 1000.0)
    expected = fit_posts(points, axis, axis, config)
    monkeypatch.setattr(cryotile.fit.inputs, "_LEVEL", level)
    assert fit_posts(points, axis, axis, config).identical(expected)


def hostile(seed: int, size: int, spread: float, days: int, passes: int) -> pd.DataFrame:
    """Return random points at few places and times, with missing, infinite and repeated values."""
    generator = np.random.default_rng(seed)
    points = make_points(max(size, 1), seed=seed % 7, passes=max(passes, 2)).iloc[:size]
    points["x"] = spread * generator.normal(size=size)
    points["y"] = np.round(spread * generator.normal(size=size), generator.integers(-3, 3))
    points["time"] = np.datetime64("2011-01-01", "ms") + (
        generator.integers(0, days, size) * 86_400_000
    ).astype("timedelta64[ms]")
    points["elevation"] *= 10.0 ** generator.integers(-6, 3)
    for name in ("x", "y", "elevation", "power"):
        bad = generator.random(size) < 0.05
        points.loc[bad, name] = generator.choice([np.nan, np.inf, -np.inf], bad.sum())
    points.loc[generator.random(size) < 0.05, "time"] = pd.NaT
    return pd.concat([points, points.iloc[: size // 3]])


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(0, 400),
    spread=st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 500.0, 1e5, 1e12]),
    days=st.sampled_from([1, 2, 400, 3650]),
    passes=st.sampled_from([1, 2, 7, 40, 300]),
    radius=st.sampled_from([1e-3, 1.0, 2000.0, 1e7]),
    terms=st.sampled_from([None, (), ("acceleration",), ALL_TERMS]),
    weights=st.sampled_from([(), ("uncertainty", "distance")]),
)
def test_hostile_points_get_a_status_or_an_error_that_names_a_column(
    seed, size, spread, days, passes, radius, terms, weights
):
    settings = {"radius": radius, "period": PERIOD, "min_points": 4}
    if terms is None:
        terms, config = (), FitConfig(recipe="plane", **settings)
    else:
        settings |= {"weights": weights, "distance_scale": radius, "min_passes": 1}
        config = FitConfig(terms=terms, max_ci95=np.inf, **settings)
    points = hostile(seed, size, spread, days, passes)
    known = np.isfinite(points["power"]).any() or "power" not in terms or points.empty
    if not known:
        with pytest.raises(InvalidValue, match="column 'power'"):
            fit_posts(points, [0.0], [0.0], config)
        return
    fits = fit_posts(points, [0.0, 1e6 * radius], [0.0, 1e-4], config)
    ok = fits["status"].to_numpy() == Status.OK
    assert (fits["status"].to_numpy() != Status.NOT_COMPUTED).all()
    for name in ("dhdt", "elevation", "slope_x", "misfit_rms"):
        assert np.isfinite(fits[name].to_numpy()[ok]).all()
        assert np.isnan(fits[name].to_numpy()[~ok]).all()


def test_many_points_at_one_post_are_fitted_as_few_are():
    points = pd.concat([make_points(3000, seed=k, passes=40) for k in range(70)], ignore_index=True)
    fits = fit_posts(points.drop(columns="mode"), [300.0], [-200.0], FitConfig(period=PERIOD))
    assert fits["status"].item() == Status.OK
    assert fits["data_count"].item() > 190_000


@pytest.mark.parametrize("recipe", ["plane", "passes"])
def test_millions_of_points_at_one_post_give_the_true_rate(recipe):
    size = 10_000_000 if os.environ.get("CRYOTILE_LONG") else 1_000_000
    generator = np.random.default_rng(0)
    number = np.arange(size) % 50
    years = generator.uniform(0, 10, 50)[number]
    points = pd.DataFrame(
        {
            "x": generator.uniform(-1400, 1400, size),
            "y": generator.uniform(-1400, 1400, size),
            "time": np.datetime64("2011-01-01", "s")
            + (years * 31_557_600).astype("timedelta64[s]"),
            "elevation": 0.25 * years + generator.normal(0, 1, size),
            "pass_id": number,
        }
    )
    fit = fit_posts(points, [0.0], [0.0], FitConfig(recipe=recipe, period=PERIOD))
    assert fit["status"].item() == Status.OK
    assert fit["dhdt"].item() == pytest.approx(0.25, abs=6 * 2 / size**0.5)
    assert fit["data_count"].item() + fit["rejected_count"].item() == size
