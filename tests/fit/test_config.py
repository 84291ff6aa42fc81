"""Settings of the fit: invalid values are refused, unset ones are filled in."""

from __future__ import annotations

import math
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest

from cryotile import FitConfig
from cryotile.errors import InvalidValue
from cryotile.fit.config import RECIPES


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("radius", -1.0),
        ("radius", 0.0),
        ("radius", float("nan")),
        ("radius", float("inf")),
        ("radius", 1e9),
        ("recipe", "robuts"),
        ("period", ("2020-01-01", "2011-01-01")),
        ("period", ("2020-01-01", "2020-01-01")),
        ("period", ("yesterday", "2020-01-01")),
        ("period", ("2011-01-01",)),
        ("period", "2011"),
        ("period", ("2020-01-01", "3020-01-01")),
        ("reference_epoch", "now"),
        ("min_points", 3),
        ("min_passes", 0),
        ("min_span_days", -1.0),
        ("min_span_days", float("nan")),
        ("min_tolerance", 0.0),
        ("min_tolerance", 1.5),
    ],
)
def test_an_invalid_setting_is_refused_in_one_line(setting, value):
    with pytest.raises(InvalidValue) as caught:
        FitConfig(**{setting: value})
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"min_span_days": 30.0}, "not a gate of the recipe passes"),
        ({"min_tolerance": 1e-3}, "not a gate of the recipe passes"),
        ({"max_ci95": 0.0}, "must be above 0"),
        ({"max_ci95": float("nan")}, "must be above 0"),
        ({"terms": ("annual",)}, "is built into the recipe passes"),
        ({"terms": ("power",), "priors": ("power",)}, "must give a term and its plausible size"),
        ({"terms": ("power",), "priors": ("power=0",)}, "must give a term and its plausible size"),
        (
            {"terms": ("power",), "priors": ("power=nan",)},
            "must give a term and its plausible size",
        ),
        ({"terms": ("power",), "priors": ("width=1",)}, "must give a term and its plausible size"),
        ({"terms": ("power",), "priors": ("power=1", "power=2")}, "once"),
        ({"priors": "power=1"}, "must be a list"),
        ({"windows": "5y"}, "must be a list"),
        ({"windows": ("5y",)}, "must be a length and a step"),
        ({"windows": ("5 years", "1m")}, "whole number of months or years"),
        ({"windows": ("5y", "0m")}, "whole number of months or years"),
        ({"heights": "30d"}, "whole number of months or years"),
        (
            {"windows": ("5y", "1m"), "period": ("2015-01-01", "2019-12-31")},
            "does not fit into the period",
        ),
        ({"recipe": "plane", "windows": ("5y", "1m")}, "recipe is plane"),
        ({"recipe": "plane", "heights": "1y"}, "recipe is plane"),
        ({"recipe": "plane", "max_ci95": 1.0}, "not a gate of the recipe plane"),
        ({"recipe": "plane", "terms": ("power",), "priors": ("power=1",)}, "which has no terms"),
        ({"recipe": "plane", "priors": ("power=1",)}, "must give a term"),
        ({"recipe": "plane", "weights": ("distance",)}, "all points weigh the same"),
        ({"recipe": "robust"}, "is retired: .*; use passes"),
    ],
)
def test_what_the_recipe_does_not_have_is_refused_in_one_line(
    settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidValue, match=complaint) as caught:
        FitConfig(**{"recipe": "passes"} | settings)
    assert "\n" not in str(caught.value)


def test_the_settings_of_a_config_make_the_same_config_again() -> None:
    for recipe in RECIPES:
        config = FitConfig(recipe=recipe)
        assert FitConfig(**asdict(config)) == config


def test_every_fit_of_the_recipe_passes_has_terrain_direction_and_season() -> None:
    config = FitConfig(recipe="passes", terms=("power", "mode_offset"), priors=("power=0.02",))
    assert config.fitted_terms == ("quadratic", "direction", "annual", "mode_offset", "power")
    assert {"ascending", "mode", "power"} <= set(config.point_columns)
    assert config.prior_sizes == {"power": 0.02, "mode_offset": math.inf}


def test_windows_begin_every_step_and_end_within_the_period() -> None:
    config = FitConfig(
        recipe="passes", windows=("2y", "6m"), period=("2011-03-01", "2014-02-28T12:00:00")
    )
    starts_and_ends = config.intervals["time"].astype("datetime64[D]").astype(str).tolist()
    assert starts_and_ends == [["2011-03-01", "2013-03-01"], ["2011-09-01", "2013-09-01"]]


def test_bins_cover_the_period_and_end_with_it() -> None:
    config = FitConfig(recipe="passes", heights="1m", period=("2011-01-31", "2011-04-10"))
    days = config.intervals["height_time"].astype("datetime64[D]").astype(str).tolist()
    # Months have different lengths: each edge is counted from the first.
    edges = ["2011-01-31", "2011-02-28", "2011-03-31", "2011-04-10"]
    assert days == [list(pair) for pair in pairwise(edges)]


def test_while_the_period_is_open_there_is_no_interval() -> None:
    config = FitConfig(recipe="passes", windows=("5y", "1m"), heights="1y")
    assert [len(one) for one in config.intervals.values()] == [0, 0]
    with pytest.raises(InvalidValue, match="does not fit into the period"):
        config.frozen(pd.Timestamp("2016-01-01"), pd.Timestamp("2017-06-01"))


def test_freezing_fills_in_unset_settings_and_nothing_else():
    first, last = pd.Timestamp("2010-07-18"), pd.Timestamp("2020-12-31 23:59:59")
    frozen = FitConfig().frozen(first, last)
    assert frozen.period == ("2010-01-01", "2021-01-01")
    assert frozen.reference_epoch == "2015-07-03T00:00:00"
    assert frozen.frozen(pd.Timestamp("1990-01-01"), last) == frozen
    assert (
        FitConfig(reference_epoch="2012-01-01").frozen(first, last).reference_epoch == "2012-01-01"
    )
