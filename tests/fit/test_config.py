"""Settings of the fit: invalid values are refused, unset ones are filled in."""

from __future__ import annotations

import pandas as pd
import pytest

from cryotile import FitConfig
from cryotile.errors import InvalidValue


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


def test_freezing_fills_in_unset_settings_and_nothing_else():
    first, last = pd.Timestamp("2010-07-18"), pd.Timestamp("2020-12-31 23:59:59")
    frozen = FitConfig().frozen(first, last)
    assert frozen.period == ("2010-01-01", "2021-01-01")
    assert frozen.reference_epoch == "2015-07-03T00:00:00"
    assert frozen.frozen(pd.Timestamp("1990-01-01"), last) == frozen
    assert (
        FitConfig(reference_epoch="2012-01-01").frozen(first, last).reference_epoch == "2012-01-01"
    )
