"""A total is the sum of true area times rate, and its error that of passes deleted everywhere at once."""

from __future__ import annotations

import re

import numpy as np
import pyproj
import pytest
import shapely
from scipy import stats

import cryotile as ct
from cryotile.errors import InvalidValue
from cryotile.fit.variables import Status
from cryotile.geo.regions import Regions
from cryotile.totalling.fill import fill
from cryotile.totalling.posts import Posts
from cryotile.totalling.table import COLUMNS
from tests.support.grids import projected_grid
from tests.support.mapped_world import GRID, NAMES, World, X, height, world
from tests.support.maps import vector_file


def rows(table, term: str = "total"):
    return table[table["term"] == term].set_index("region")


def own_deltas(drawn: World) -> np.ndarray:
    return drawn.product["region_delta"].to_numpy()


def test_volume_is_true_area_times_rate_and_the_whole_is_the_sum_of_the_basins(basins, drawn):
    table = ct.totals(drawn.product, basins, "NAME", density=900)
    assert list(table.columns) == list(COLUMNS)
    assert list(table["region"]) == [*NAMES, "all"]
    number = Regions.read(basins, "NAME", GRID).number
    rate, area = drawn.product["dhdt"].to_numpy(), drawn.product["cell_area"].to_numpy()
    found = rows(table)
    for k, name in enumerate(NAMES):
        own, fitted = number == k, (number == k) & np.isfinite(rate)
        assert found.area_km2[name] == pytest.approx(area[own].sum() / 1e6)
        assert found.fitted_km2[name] == pytest.approx(area[fitted].sum() / 1e6)
        volume = (area * rate)[fitted].sum() / 1e9
        assert found.volume_km3_yr[name] == pytest.approx(volume)
        assert found.rate_m_yr[name] == pytest.approx(volume * 1e9 / area[fitted].sum())
        assert found.mass_gt_yr[name] == pytest.approx(0.9 * volume)
        assert found.mass_sigma[name] == pytest.approx(0.9 * found.volume_sigma[name])
    for column in ("area_km2", "fitted_km2", "volume_km3_yr", "mass_gt_yr"):
        assert found[column]["all"] == pytest.approx(found[column][:-1].sum())
    # Areas on the ground: at 77° N a square of the projection is some 4 % larger.
    assert found.area_km2["all"] / ((number >= 0).sum() * 4.0) == pytest.approx(1.036, abs=0.01)


def test_the_error_is_that_of_deleting_each_pass_everywhere(basins, drawn):
    found = rows(ct.totals(drawn.product, basins, "NAME"))
    for k, name in enumerate([*NAMES, "all"]):
        squares = own_deltas(drawn)[k] ** 2
        sigma, dof = np.sqrt(squares.sum()), squares.sum() ** 2 / (squares**2).sum()
        assert found.volume_sigma[name] == pytest.approx(sigma / 1e9)
        assert found.dof[name] == pytest.approx(dof)
        assert found.volume_ci95[name] == pytest.approx(stats.t.ppf(0.975, dof) * sigma / 1e9)


@pytest.mark.parametrize("why", ["planned without basins", "planned with other basins"])
def test_without_its_deltas_a_total_has_no_error_and_says_how_to_get_one(basins, drawn, why):
    product = drawn.product.assign_attrs(
        history="cryotile 0.1.0: cryotile plan RUN --db DB --radius 2000; cryotile run"
    )
    if why.endswith("without basins"):
        product = product.drop_vars(["region_rate", "region_delta", "region"])
    else:
        product = product.assign_attrs(regions_digest="0" * 64)
    table = ct.totals(product, basins, "NAME", density=917)
    for column in ("rate_sigma", "volume_sigma", "volume_ci95", "mass_sigma", "mass_ci95"):
        assert table[column].isna().all()
    assert table["volume_km3_yr"].notna().all()
    (note,) = [note for note in table.attrs["notes"] if "no standard errors" in note]
    assert why in note
    assert "cryotile plan RUN --db DB --radius 2000 --basins basins.gpkg --column NAME" in note
    pretended = float(re.search(r"pretend ([\d.e-]+) km3/yr", note)[1])
    own = np.isfinite(drawn.product["dhdt"]) & (Regions.read(basins, "NAME", GRID).number >= 0)
    alone = (drawn.product["dhdt_sigma"] * drawn.product["cell_area"]).where(own)
    assert pretended == pytest.approx(float(np.sqrt((alone**2).sum())) / 1e9, rel=0.05)
    assert pretended < 0.2 * rows(ct.totals(drawn.product, basins, "NAME")).volume_sigma["all"]


def test_a_map_that_is_not_that_of_its_sums_is_refused(basins, drawn):
    changed = drawn.product.assign(dhdt=drawn.product["dhdt"] * 1.01)
    with pytest.raises(InvalidValue, match="changed after assemble"):
        ct.totals(changed, basins, "NAME")


def test_posts_outside_the_mask_of_the_run_are_no_area_and_are_not_filled(basins, drawn):
    status = drawn.product["status"].to_numpy().copy()
    outside = (status != Status.OK) & (X > 0)
    status[outside] = Status.OUTSIDE_MASK
    product = drawn.product.assign(status=(("y", "x"), status))
    found = rows(ct.totals(product, basins, "NAME", fill="neighbours"))
    area = product["cell_area"].to_numpy()
    own = (Regions.read(basins, "NAME", GRID).number >= 0) & ~outside
    assert found.area_km2["all"] == pytest.approx(area[own].sum() / 1e6)
    assert found.unknown_km2["all"] == pytest.approx(0.0, abs=1e-6)


def test_unfitted_area_is_left_out_and_named_unless_it_is_filled(basins, drawn):
    table = ct.totals(drawn.product, basins, "NAME")
    whole = rows(table).loc["all"]
    assert whole.unknown_km2 == pytest.approx(whole.area_km2 - whole.fitted_km2)
    assert any(
        "have no fit and are left out of the totals" in note for note in table.attrs["notes"]
    )
    table = ct.totals(drawn.product, basins, "NAME", fill="neighbours")
    whole = rows(table).loc["all"]
    assert whole.filled_km2 == pytest.approx(whole.area_km2 - whole.fitted_km2)
    assert not any("left out of the totals" in note for note in table.attrs["notes"])


def test_basins_in_degrees_give_the_same_totals(basins, drawn, tmp_path):
    to_degrees = pyproj.Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    angles = np.linspace(0.3, 0.3 + 2 * np.pi, 9)
    shapes = []
    for low in angles[:-1]:
        arc = np.linspace(low, low + np.pi / 4, 20)
        ring = np.vstack([[0.0, 0.0], 58e3 * np.column_stack([np.cos(arc), np.sin(arc)])])
        edge = shapely.segmentize(shapely.Polygon(ring + np.array([0.0, -1_350e3])), 200.0)
        shapes.append(
            shapely.transform(edge, lambda xy: np.column_stack(to_degrees.transform(*xy.T)))
        )
    path = vector_file(tmp_path / "degrees.geojson", *shapes, crs="EPSG:4326", NAME=list(NAMES))
    one, other = (rows(ct.totals(drawn.product, p, "NAME")) for p in (basins, path))
    np.testing.assert_allclose(one.volume_km3_yr, other.volume_km3_yr)


def test_a_basin_without_a_post_is_a_row_of_zero_area_and_one_beyond_the_map_is_named(
    drawn, tmp_path
):
    inner, outer = (
        shapely.box(-20e3, -1_370e3, 20e3, -1_330e3),
        shapely.box(40e3, -1_360e3, 90e3, -1_340e3),
    )
    far = shapely.box(200e3, -1_360e3, 240e3, -1_340e3)
    path = vector_file(
        tmp_path / "b.gpkg", inner, outer, far, crs="EPSG:3413", id=["in", "edge", "far"]
    )
    product = drawn.product.drop_vars(["region_rate", "region_delta", "region"])
    table = ct.totals(product, path, "id")
    far_row = rows(table).loc["far"]
    assert far_row.area_km2 == 0.0
    assert np.isnan(far_row.volume_km3_yr)
    notes = " ".join(table.attrs["notes"])
    assert "basin far has no post of the map" in notes
    assert re.search(r"5[5-9] % of basin edge lie beyond the map", notes)


def test_basins_that_overlap_or_lie_elsewhere_are_refused(drawn, tmp_path):
    inner, other = (
        shapely.box(-20e3, -1_370e3, 20e3, -1_330e3),
        shapely.box(0.0, -1_370e3, 30e3, -1_330e3),
    )
    far = shapely.box(200e3, -1_360e3, 240e3, -1_340e3)
    for name, shapes, says in (
        ("o.gpkg", (inner, other), "a and b overlap at"),
        ("f.gpkg", (far,), "contain none of the"),
    ):
        names = ["a", "b"][: len(shapes)]
        path = vector_file(tmp_path / name, *shapes, crs="EPSG:3413", id=names)
        with pytest.raises(InvalidValue, match=says) as caught:
            ct.totals(drawn.product, path, "id")
        assert "\n" not in str(caught.value)


def test_a_dataset_that_is_no_map_of_rates_is_refused(basins, drawn):
    with pytest.raises(InvalidValue, match="no dhdt; give a run, or a product"):
        ct.totals(drawn.product.drop_vars("dhdt"), basins, "NAME")
    with pytest.raises(InvalidValue, match="no crs or posting"):
        ct.totals(drawn.product.drop_attrs(), basins, "NAME")


def test_totals_cover_the_truth_where_posts_taken_as_independent_do_not(basins, tmp_path):
    dem = projected_grid(tmp_path / "dem.nc", GRID, dem=(height(), "m"))
    inside = dict.fromkeys(("none", "hypsometric", "neighbours", "independent"), 0)
    worlds = 6
    for seed in range(worlds):
        drawn = world(basins, seed)
        posts = Posts.of(drawn.product, basins, "NAME")
        alone = np.sqrt(posts.sums((posts.sigma * posts.area) ** 2)) / 1e9
        for by in ("none", "hypsometric", "neighbours"):
            path = dem if by == "hypsometric" else None
            table = rows(ct.totals(drawn.product, basins, "NAME", fill=by, dem=path))
            has_rate = np.isfinite(fill(posts, by, path).rate)
            error = (
                table.volume_km3_yr
                - posts.sums(np.where(has_rate, drawn.truth, 0.0) * posts.area) / 1e9
            )
            inside[by] += int((abs(error) <= table.volume_ci95)[:-1].sum())
            if by == "none":
                inside["independent"] += int((abs(error) <= 1.96 * alone)[:-1].sum())
    share = {by: count / (8 * worlds) for by, count in inside.items()}
    for by in ("none", "hypsometric", "neighbours"):
        assert 0.9 <= share[by] <= 1.0, share
    assert share["independent"] < 0.6, share
