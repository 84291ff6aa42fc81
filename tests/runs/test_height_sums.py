"""Heights of basins: what they say is what a fit of every post without each pass says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cryotile
from cryotile.fit.inputs import kernel_intervals
from cryotile.runs.run import Run
from tests.support import PROJECT
from tests.support.heights_oracle import departures, region_heights
from tests.support.passes_oracle import points_around
from tests.support.two_missions import EPOCH, SETTINGS, two_missions

# In most bins some posts have a height and others none, and many have it of one pass.
FEW = {**SETTINGS, "posting": 4000.0, "bounds": (54e3, 2e3, 66e3, 22e3), "heights": "1y"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("heights")


def product_of(home, db, basins, name: str, backend: str = "serial", **settings) -> xr.Dataset:
    run = cryotile.plan(home / name, db, basins=basins, column="name", **settings)
    cryotile.run(run, backend=backend)
    return cryotile.assemble(run, run.path.with_suffix(".nc")).load()


@pytest.fixture(scope="module")
def few(home, db, basins) -> xr.Dataset:
    return product_of(home, db, basins, "few", tile_size=2, **FEW)


def test_heights_and_their_covariance_are_those_of_posts_fitted_without_each_pass(
    home, db, few
) -> None:
    run = Run.load(home / "few")
    config, number = run.settings.fit, run.settings.regions.number
    assert len(run.tasks) > 2
    bins = kernel_intervals(config)[1]
    points = db.read(columns=["x", "y", "time", "elevation", "pass_id", "ascending"],
                     where=SETTINGS["where"], time=SETTINGS["period"])  # fmt: skip
    passes, lost = few["pass_id"].to_numpy().tolist(), 0
    whole = np.zeros((len(passes), bins.size - 1))
    for k in range(2):
        rows, columns = np.nonzero((few["status"] == 0).to_numpy() & (number == k))
        assert rows.size > 2
        posts = [
            departures(points_around(points, x, y, config.radius, EPOCH), bins)
            for x, y in zip(few["x"].to_numpy()[columns], few["y"].to_numpy()[rows], strict=True)
        ]
        lost += sum(len(post.lost) for post in posts)
        areas = few["cell_area"].to_numpy()[rows, columns].tolist()
        height, change = region_heights(posts, areas, bins)
        own = few.isel(region=k)
        np.testing.assert_allclose(own["region_height"], height, rtol=1e-7)
        changes = np.zeros(whole.shape)
        for one, values in change.items():
            changes[passes.index(one)] = values
        covariance = changes.T @ changes
        scale = float(np.nanmax(covariance))
        np.testing.assert_allclose(
            own["region_height_covariance"], covariance, rtol=1e-6, atol=1e-7 * scale
        )
        whole += changes
    assert lost > 5
    np.testing.assert_allclose(
        few["whole_height_covariance"], whole.T @ whole, rtol=1e-6, atol=1e-7 * scale
    )


def test_all_is_the_sum_of_the_basins_and_areas_are_those_of_posts_with_a_height(few) -> None:
    has_height = np.isfinite(few["height"]) & (few["status"] == 0)
    seen = few["region_height_area"].sum("region")
    np.testing.assert_allclose(seen, few["cell_area"].where(has_height).sum(("y", "x")))
    regions = few["region_height"].sum("region", skipna=False)
    np.testing.assert_allclose(few["whole_height"], regions, rtol=1e-12)
    # The missions end before the last bins.
    assert np.isnan(few["whole_height"].to_numpy()[7:]).all()
    assert (seen.to_numpy()[7:] == 0).all()
    assert np.isfinite(few["whole_height"]).sum() > 3


def test_ice_that_sinks_evenly_gives_the_straight_line_whenever_it_was_seen(home, basins) -> None:
    # No error: a bin at whose start alone there are passes, and posts without a height, change nothing.
    db = two_missions(home / "exact.pdb", 4, passes=50, error=0.0)
    product = product_of(home, db, basins, "exact", tile_size=100, **FEW)
    partly = product["region_height_area"] < product["region_fitted_area"]
    known = np.isfinite(product["region_height"].to_numpy())
    assert (partly.to_numpy() & known).any()
    epoch, years = np.datetime64(EPOCH), np.timedelta64(31_557_600, "s")
    tau = (product["height_time"].to_numpy() - epoch) / years
    area = product["region_fitted_area"].to_numpy()[:, None]
    off = product["region_height"].to_numpy() / area + 0.2 * tau
    sigma = np.sqrt(np.diagonal(product["region_height_covariance"], axis1=1, axis2=2)) / area
    assert np.abs(off[known]).max() < 5e-4
    assert sigma[known].max() < 5e-4


def test_tiles_and_backends_say_the_same_of_heights(home, db, basins, few) -> None:
    one = product_of(home, db, basins, "one", tile_size=100, **FEW)
    names = [n for n in few.data_vars if n.startswith(("region_height", "whole_height"))]
    assert len(names) == 7
    for name in names:
        np.testing.assert_allclose(one[name], few[name], rtol=1e-9)
    product_of(home, db, basins, "side", "local:2", tile_size=2, **FEW)
    assert (home / "side.nc").read_bytes() == (home / "few.nc").read_bytes()
    # A run that is open says the same as its product.
    opened = cryotile.open_run(Run.load(home / "few"))
    for name in names:
        np.testing.assert_array_equal(opened[name], few[name])


def test_a_volume_over_time_is_near_the_truth_of_the_ice(few) -> None:
    found = cryotile.series(few)
    assert list(found["region"].values) == ["west", "east", "all"]
    middle = found["height_time"].to_numpy()
    years = (middle - middle[0]) / np.timedelta64(31_557_600, "s")
    areas = [*few["region_fitted_area"].to_numpy(), float(few["region_fitted_area"].sum())]
    truth = -0.2 * (years - years[0]) * np.array(areas)[:, None] / 1e9
    known = np.isfinite(found["volume"].to_numpy())
    assert known.sum() > 10
    truth -= truth[:, known[0].argmax()][:, None]
    held = (found["volume_lower"] <= truth) & (truth <= found["volume_upper"])
    assert (held.to_numpy() & known).sum() >= 0.8 * known.sum()
    assert 0 < found["seen"].to_numpy()[known].min() < 1
    assert (found["volume_sigma"].to_numpy()[known] > 0).sum() == known.sum() - 3
    assert "normal distribution" not in found.attrs["notes"]


def test_a_bin_that_one_pass_alone_has_seen_has_no_height(home, db, basins) -> None:
    points = db.read(FEW["bounds"], columns=["time", "pass_id"], where=SETTINGS["where"])
    first = points.groupby("pass_id")["time"].min().sort_values()
    end = first[first > np.datetime64("2014-01-01")].iloc[1]
    where = f"{SETTINGS['where']} and time < '{end}'"
    settings = {**FEW, "where": where}
    product = product_of(home, db, basins, "alone", tile_size=100, **settings)
    last = product["height_pass_count"].sum(("y", "x")).to_numpy() > 0
    lone = int(np.flatnonzero(last)[-1])
    assert product["height_pass_count"][lone].max() == 1 < product["height_pass_count"].max()
    assert (product["region_height_area"][:, lone] > 0).any()
    assert np.isnan(product["region_height"][:, lone]).all()
    assert np.isnan(product["region_height_covariance"][:, lone]).all()
    assert np.isfinite(product["region_height"][:, :lone]).any()


def test_differences_of_two_dates_hold_the_truth_as_often_as_they_say(monkeypatch) -> None:
    # Worlds of the benchmark of two years alone: `make bench-totals` draws longer ones, and more.
    monkeypatch.syspath_prepend(str(PROJECT))
    from benchmarks import totals

    period = ("2011-01-01", "2013-01-01")
    config = replace(totals.CONFIG, period=period, reference_epoch="2012-01-01")
    monkeypatch.setattr(totals, "END", np.datetime64(period[1]))
    monkeypatch.setattr(totals, "CONFIG", config)
    rows = pd.DataFrame([row for seed in range(4) for row in totals.of_series(seed, 0.3, "6m")])
    totals.flown.cache_clear()
    assert len(rows) > 200
    assert 0.9 <= rows["inside"].mean() <= 0.99
    assert 0.5 < rows["error"].std() / np.sqrt((rows["sigma"] ** 2).mean()) < 1.3


def test_tiles_of_an_earlier_version_have_no_heights_of_basins(home, few, monkeypatch) -> None:
    run = Run.load(home / "few")
    sums_of = type(run.store).sums_of

    def without(store, tiles):
        return [{n: v for n, v in sums.items() if n != "heights"} for sums in sums_of(store, tiles)]

    monkeypatch.setattr(type(run.store), "sums_of", without)
    opened = cryotile.open_run(run)
    assert "region_rate" in opened
    assert "region_height" not in opened
