"""Posts without a fit take the median of their band of height or the mean of their neighbours, and are flagged."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import cryotile as ct
from cryotile.errors import InvalidValue
from cryotile.geo.regions import Regions
from cryotile.totalling.fill import BAND, fill
from cryotile.totalling.posts import Posts
from cryotile.totalling.sigma import Variogram
from tests.support.grids import projected_grid
from tests.support.mapped_world import GRID, NAMES, X, Y, height


@pytest.fixture(scope="module")
def dem(tmp_path_factory):
    return projected_grid(tmp_path_factory.mktemp("dem") / "dem.nc", GRID, dem=(height(), "m"))


def mapped(drawn, rate):
    """Return the map with other rates at the same posts; it has no sums of a run."""
    rate = np.where(np.isfinite(drawn.product["dhdt"]), rate, np.nan)
    product = drawn.product.drop_vars(["region_rate", "region_delta", "region"])
    return product.assign(dhdt=(("y", "x"), rate, product["dhdt"].attrs))


def test_a_band_of_height_gives_the_median_of_its_fits_in_the_basin(basins, drawn, dem):
    number = Regions.read(basins, "NAME", GRID).number
    band = np.floor(height() / BAND)
    rate = 0.1 * number + 0.02 * band + np.where((X + Y) // 2000 % 7 == 0, 5.0, 0.0)
    posts = Posts.of(mapped(drawn, rate), basins, "NAME")
    filled = fill(posts, "hypsometric", dem)
    for k in range(len(NAMES)):
        for level in np.unique(band):
            own = posts.wanted & (number == k) & (band == level)
            fits = posts.rate[own & posts.fitted]
            if len(fits) >= 5:
                gaps = own & ~posts.fitted
                np.testing.assert_array_equal(filled.rate[gaps], np.median(fits))
    assert not filled.filled[posts.fitted].any()


def test_a_band_with_few_fits_takes_the_nearest_and_is_named(basins, drawn, dem):
    low = height() < 600.0
    product = mapped(drawn, np.where(height() // BAND == 6, -1.0, 0.5))
    product = product.assign(dhdt=product["dhdt"].where(~low))
    posts = Posts.of(product, basins, "NAME")
    filled = fill(posts, "hypsometric", dem)
    below = filled.filled & low
    assert below.any()
    np.testing.assert_array_equal(filled.rate[below], -1.0)
    assert any("the median of the nearest band" in note for note in filled.notes)


def test_neighbours_reproduce_a_constant_and_stay_within_the_rates_around(basins, drawn):
    posts = Posts.of(mapped(drawn, np.full(X.shape, -0.7)), basins, "NAME")
    filled = fill(posts, "neighbours")
    np.testing.assert_allclose(filled.rate[posts.wanted], -0.7)
    posts = Posts.of(mapped(drawn, X / 1e5), basins, "NAME")
    filled = fill(posts, "neighbours")
    gaps = filled.filled
    assert np.abs(filled.rate - X / 1e5)[gaps].max() < 0.1
    assert filled.rate[gaps].min() >= np.nanmin(posts.rate)


@pytest.mark.parametrize("by", ["hypsometric", "neighbours"])
def test_filled_posts_are_flagged_in_the_map_and_counted_in_the_table(
    basins, drawn, dem, tmp_path, by
):
    path = tmp_path / "filled.nc"
    heights = dem if by == "hypsometric" else None
    table = ct.totals(drawn.product, basins, "NAME", fill=by, dem=heights, filled_map=path)
    own = Regions.read(basins, "NAME", GRID).number >= 0
    has_fit = np.isfinite(drawn.product["dhdt"].to_numpy())
    with xr.open_dataset(path) as written:
        assert written["fill_flag"].attrs["flag_meanings"] == f"no_rate fitted {by}"
        np.testing.assert_array_equal(
            written["fill_flag"], np.select([own & has_fit, own], [1, 2], 0)
        )
        np.testing.assert_array_equal(np.isfinite(written["dhdt"]), own)
        number = written["region_number"].to_numpy()
        names = np.array(written["region_number"].attrs["flag_meanings"].split())
        for row in table[table["term"] == "total"].iloc[:-1].itertuples():
            inside = names[number] == row.region
            volume = float((written["dhdt"] * written["cell_area"]).where(inside).sum()) / 1e9
            assert row.volume_km3_yr == pytest.approx(volume)
            filled = written["cell_area"].where(inside & (written["fill_flag"] == 2)).sum()
            assert row.filled_km2 == pytest.approx(float(filled) / 1e6)
            assert row.filled_by == by
    again = tmp_path / "again.nc"
    ct.totals(drawn.product, basins, "NAME", fill=by, dem=heights, filled_map=again)
    assert again.read_bytes() == path.read_bytes()


def test_the_error_grows_with_the_filled_area(basins, drawn):
    few = ct.totals(drawn.product, basins, "NAME", fill="neighbours")
    lost = drawn.product["dhdt"].where((X // 8000 + Y // 8000) % 2 == 0)
    posts = [
        Posts.of(mapped(drawn, 0).assign(dhdt=rate), basins, "NAME")
        for rate in (drawn.product["dhdt"], lost)
    ]
    less, more = (fill(p, "neighbours").estimates for p in posts)
    assert all(a.variance < b.variance for a, b in zip(less, more, strict=True))
    none = ct.totals(drawn.product, basins, "NAME")
    assert (few["volume_sigma"] > none["volume_sigma"]).all()


def test_the_variance_of_a_filled_sum_is_that_of_the_double_sum_over_posts():
    random = np.random.default_rng(0)
    weights = np.zeros((30, 40))
    weights[5:15, 8:30] = random.normal(size=(10, 22))
    weights[weights != 0] -= weights.sum() / (weights != 0).sum()
    variogram = Variogram(nugget=0.02, sill=0.3, reach=7e3)
    y, x = np.mgrid[:30, :40] * 2000.0
    distance = np.hypot(*(a.ravel()[:, None] - a.ravel() for a in (x, y)))
    gamma = np.where(distance > 0, 0.02 + 0.3 * (1 - np.exp(-distance / 7e3)), 0.0)
    w = weights.ravel()
    found = variogram.estimate(weights, 2000.0, area=2e9, lost=0)
    assert found.variance == pytest.approx(-w @ gamma @ w, rel=1e-9)
    places = 2e9 / (np.pi * 7e3**2 / 2)
    assert found.dof == pytest.approx(places - 1)
    # Two coefficients were fitted to the values before: their residuals are too small.
    fewer = variogram.estimate(weights, 2000.0, area=2e9, lost=2)
    assert fewer.variance == pytest.approx(found.variance * places / (places - 2))


def test_a_variogram_finds_the_reach_and_the_sill_of_a_field():
    random = np.random.default_rng(1)
    x, y = random.uniform(0, 200e3, (2, 900))
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    root = np.linalg.cholesky(0.4 * np.exp(-distance / 8e3) + 0.1 * np.eye(900))
    found = [Variogram.fit(x, y, root @ random.normal(size=900), 1000.0) for _ in range(5)]
    assert np.mean([v.nugget + v.sill for v in found]) == pytest.approx(0.5, rel=0.1)
    assert np.median([v.reach for v in found]) == pytest.approx(8e3, rel=0.5)


def test_bad_fills_are_refused(basins, drawn, dem):
    def refused(**options):
        with pytest.raises(InvalidValue) as caught:
            ct.totals(drawn.product, basins, "NAME", **options)
        return str(caught.value)

    assert "choose one of none, hypsometric, neighbours" in refused(fill="kriging")
    assert 'give an elevation model: dem="FILE"' in refused(fill="hypsometric")
    assert 'serves fill="hypsometric" alone' in refused(fill="neighbours", dem=dem)
    assert "does not exist" in refused(fill="hypsometric", dem="absent.tif")
