"""Errors that the passes of a season or a campaign share show, and errors of single passes do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import cryotile.fit.inputs
from cryotile import FitConfig
from cryotile._fit import SIMD_LEVELS
from cryotile.fit.groups import Grouping, Sharing, campaigns, leave_out, seasons, sharing, variables
from cryotile.fit.inputs import simd_level
from cryotile.fit.variables import Status
from tests.support.flown_run import PERIOD, WORLD, fly_over
from tests.support.passes_oracle import TAU, Post, fit_passes, points_around

CONFIG = FitConfig(radius=1500.0, period=PERIOD, reference_epoch="2015-01-01")
X, Y = (centre + np.arange(-11_000.0, 11_001.0, 1000.0) for centre in WORLD.centre)
MILLISECOND = np.timedelta64(1, "ms")


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    """Return points whose passes have independent errors of 0.2 m."""
    points = fly_over()
    _, codes = np.unique(points["pass_id"], return_inverse=True)
    offsets = np.random.default_rng(0).normal(0, 0.2, codes.max() + 1)
    return points.assign(elevation=points["elevation"] + offsets[codes])


def granules(*extents: tuple[str, str, str]) -> pd.DataFrame:
    """Return a table of granules of a platform, a start and an end each."""
    columns = zip(*extents, strict=True)
    platforms, starts, ends = (list(column) for column in columns)
    return pd.DataFrame(
        {
            "platforms": [[platform] for platform in platforms],
            "rows": 1,
            "time_min": np.array(starts, "datetime64[ms]"),
            "time_max": np.array(ends, "datetime64[ms]"),
        }
    )


def of_times(grouping: Grouping, *times: str, platform: str = "cryosat2") -> list[str]:
    """Return the part of each time; empty for none."""
    labels = grouping.labels(np.array(times, "datetime64[ns]"), np.full(len(times), platform))
    return [grouping.parts[grouping.groups[label][0]] if label >= 0 else "" for label in labels]


# --- groups


def test_a_season_lasts_three_months_and_winter_spans_two_years() -> None:
    found = seasons(PERIOD)
    times = ("2011-01-01", "2012-02-29T23:59", "2012-03-01", "2012-08-31T23:59", "2012-11-30")
    assert of_times(found, *times) == ["DJF", "DJF", "MAM", "JJA", "SON"]
    december, january, next_december = found.labels(
        np.array(["2012-12-01", "2013-01-31", "2013-12-01"], "datetime64[ns]"), np.full(3, "any")
    )
    assert december == january != next_december
    assert of_times(found, "2010-11-30", "2019-03-01") == ["", ""]


def test_every_instant_of_a_period_has_one_season() -> None:
    for period in (PERIOD, ("2011-11-30T12:00", "2012-12-01T00:00"), ("2012-05-03", "2012-05-04")):
        times = pd.date_range(*period, freq="7h", inclusive="left").to_numpy()
        found = seasons(period)
        labels = found.labels(times.astype("datetime64[ns]"), np.full(times.size, ""))
        assert (labels >= 0).all()
        assert set(labels) == set(range(len(found.groups)))


def test_pauses_divide_campaigns_and_a_platform_that_never_pauses_is_cut_into_years() -> None:
    table = granules(
        ("icesat", "2003-09-25", "2003-10-20"),
        ("icesat", "2003-10-21", "2003-11-18"),
        ("icesat", "2004-02-17", "2004-03-21"),
        *(
            ("cryosat2", f"{year}-{month:02}-01", f"{year}-{month:02}-28")
            for year in (2011, 2012)
            for month in range(1, 13)
        ),
    )
    found = campaigns(table, ("2003-01-01", "2020-01-01"))
    assert sorted(found.parts) == [
        *("cryosat2 2011", "cryosat2 2012", "icesat 2003-09-25", "icesat 2004-02-17")
    ]
    assert of_times(found, "2003-11-01", "2004-01-01", platform="icesat") == [
        "icesat 2003-09-25",
        "",
    ]
    assert of_times(found, "2011-12-31T23:59", "2012-01-01") == ["cryosat2 2011", "cryosat2 2012"]
    assert of_times(found, "2003-10-01", platform="cryosat2") == [""]


def test_campaigns_are_those_of_the_period_and_of_granules_with_points() -> None:
    table = granules(("icesat", "2003-09-25", "2003-11-18"), ("icesat", "2004-02-17", "2004-03-21"))
    assert campaigns(table, ("2004-01-01", "2005-01-01")).parts == ("icesat 2004-02-17",)
    assert campaigns(table.assign(rows=0), ("2003-01-01", "2005-01-01")).groups == ()


# --- leaving groups out


def test_leaving_out_a_group_is_the_refit_without_its_passes_at_the_same_spread(
    points: pd.DataFrame,
) -> None:
    place = (0.0, -1340000.0)
    grouping = replace(
        seasons(PERIOD), parts=("2013",), groups=((0, "", "2013-01-01", "2014-01-01"),)
    )
    one = leave_out(points, np.array(place[:1]), np.array(place[1:]), CONFIG, grouping).isel(
        x=0, y=0
    )
    around = points_around(points, *place, 1500.0, "2015-01-01")
    whole = fit_passes(around)
    kept = replace(around, z=around.z - whole.mean).take(whole.kept)
    # A free pass says nothing about the rate, and stays for the terrain.
    is_free = np.isin(kept.label, list(whole.fit.free))
    rest = kept.take((kept.tau < -2) | (kept.tau >= -1) | is_free)
    without = Post(rest, whole.sigma).fit(whole.fit.theta, whole.fit.free)
    change = without.beta[TAU] - whole.fit.beta[TAU]
    assert float(one["dhdt_sigma_season"]) == pytest.approx(abs(change), abs=1e-8)
    assert float(one["dhdt"]) == pytest.approx(whole.dhdt, abs=1e-8)
    # The variance of an efficient estimate and that of the change add up.
    more = without.inverse[TAU, TAU] - whole.fit.inverse[TAU, TAU]
    dof = float(one["pass_count"]) - 1
    ratio = abs(change) / np.sqrt(whole.fit.R / whole.fit.nu * more) * np.sqrt((dof - 2) / dof)
    assert float(one["season_ratio"]) == pytest.approx(ratio, rel=1e-6)


def test_posts_that_are_not_wanted_and_posts_without_a_fit_have_no_change(
    points: pd.DataFrame,
) -> None:
    wanted = np.ones((Y.size, X.size), bool)
    wanted[:3] = False
    found = leave_out(points, X, Y, CONFIG, seasons(PERIOD), wanted=wanted)
    assert list(found) == [variable.name for variable in variables(seasons(PERIOD))]
    assert (found["status"][:3] == Status.NOT_COMPUTED).all()
    lost = (found["status"] != Status.OK).to_numpy()
    assert lost.sum() > lost[:3].sum()
    for name in ("season_ratio", "dhdt_sigma_season", "ratio_jja", "dhdt"):
        assert np.isnan(found[name].to_numpy()[lost]).all()
        assert np.isfinite(found[name].to_numpy()[~lost]).mean() > 0.9


@pytest.mark.parametrize("level", SIMD_LEVELS)
def test_every_level_of_vector_instructions_gives_the_same_bytes(
    points: pd.DataFrame, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if SIMD_LEVELS.index(level) > SIMD_LEVELS.index(simd_level()):
        pytest.skip("this machine lacks these instructions")
    expected = leave_out(points, X, Y, CONFIG, seasons(PERIOD))
    monkeypatch.setattr(cryotile.fit.inputs, "_LEVEL", level)
    assert leave_out(points, X, Y, CONFIG, seasons(PERIOD)).identical(expected)


def test_the_radius_is_the_one_that_gave_a_fit(points: pd.DataFrame) -> None:
    few = points[points["pass_id"] % 3 == 0]
    narrow = replace(CONFIG, radius=300.0)
    wide = replace(CONFIG, radius=2500.0)
    both = leave_out(few, X, Y, replace(narrow, fallback_radii=(2500.0,)), seasons(PERIOD))
    first, second = (leave_out(few, X, Y, config, seasons(PERIOD)) for config in (narrow, wide))
    settled = first["status"] == Status.OK
    assert 0 < settled.sum() < settled.size
    for name in ("dhdt", "season_ratio", "dhdt_sigma_season"):
        expected = first[name].where(settled, second[name])
        np.testing.assert_array_equal(both[name], expected.where(both["status"] == Status.OK))


# --- what shows


def shown(points: pd.DataFrame, grouping: Grouping) -> dict[str, Sharing]:
    found = sharing(leave_out(points, X, Y, CONFIG, grouping), grouping)
    return {one.part: one for one in found}


def all_campaigns() -> Grouping:
    return campaigns(granules(("cryosat2", "2011-01-01", "2018-12-31")), PERIOD)


def test_passes_that_share_no_error_show_none(points: pd.DataFrame) -> None:
    for grouping in (seasons(PERIOD), all_campaigns()):
        found = shown(points, grouping)
        assert {*found} == {"all", *grouping.parts}
        assert not any(one.shows for one in found.values())
        assert found["all"].ratio == pytest.approx(1, abs=0.15)
        assert found["all"].beyond < 0.15


def test_an_error_that_the_passes_of_each_summer_share_shows_in_summer(
    points: pd.DataFrame,
) -> None:
    years = points["time"].dt.year.to_numpy() - 2011
    summer = points["time"].dt.month.isin([6, 7, 8]).to_numpy()
    errors = np.random.default_rng(5).normal(0, 0.8, 8)[years] * summer
    found = shown(points.assign(elevation=points["elevation"] + errors), seasons(PERIOD))
    assert found["JJA"].shows
    assert not any(found[part].shows for part in ("DJF", "MAM", "SON"))


def test_an_error_that_a_campaign_shares_shows_in_that_campaign(points: pd.DataFrame) -> None:
    errors = 0.8 * (points["time"].dt.year == 2017)
    found = shown(points.assign(elevation=points["elevation"] + errors), all_campaigns())
    assert [part for part, one in found.items() if one.shows and part != "all"] == ["cryosat2 2017"]
    assert found["all"].sigma > 1.2


def test_nothing_is_summarized_where_nothing_is_left_out(points: pd.DataFrame) -> None:
    found = leave_out(points.iloc[:3], X, Y, CONFIG, seasons(PERIOD))
    assert sharing(found, seasons(PERIOD)) == []
