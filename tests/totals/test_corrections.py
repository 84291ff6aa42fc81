"""Uplift and firn air are subtracted, each as a row with its own error; densities make masses."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
import rasterio
import shapely

import cryotile as ct
from cryotile.errors import DamagedFile, InvalidValue
from cryotile.geo.regions import Regions
from tests.support.grids import degree_grid, projected_grid
from tests.support.mapped_world import GRID, X, Y
from tests.support.maps import vector_file

MM = "mm yr-1"


def rows(table, term: str = "total"):
    return table[table["term"] == term].set_index("region")


def grid(path, **maps):
    return projected_grid(path, GRID, **maps)


def constant(value):
    return np.full(X.shape, value)


def test_a_correction_is_a_row_and_the_total_is_the_sum_of_rows(basins, drawn, tmp_path):
    gia = grid(tmp_path / "gia.nc", uplift=(constant(4.0), MM), uplift_sigma=(constant(1.5), MM))
    firn = grid(tmp_path / "fac.nc", fac=(0.001 + X * 1e-7, "m a-1"))
    table = ct.totals(drawn.product, basins, "NAME", density=917, gia=gia, firn=firn)
    assert list(table["term"][:4]) == ["dhdt", "gia", "firn", "total"]
    dhdt, up, air, total = (rows(table, term) for term in ("dhdt", "gia", "firn", "total"))
    np.testing.assert_allclose(up.volume_km3_yr, -0.004 * up.fitted_km2 / 1e3)
    for column in ("volume_km3_yr", "mass_gt_yr", "rate_m_yr"):
        np.testing.assert_allclose(total[column], dhdt[column] + up[column] + air[column])
    # The error of a model has one sign all over a basin.
    np.testing.assert_allclose(up.volume_sigma, 0.0015 * up.fitted_km2 / 1e3)
    np.testing.assert_allclose(up.volume_ci95, 1.959964 * up.volume_sigma, rtol=1e-6)
    assert air.volume_sigma.isna().all()
    np.testing.assert_allclose(total.volume_sigma, np.hypot(dhdt.volume_sigma, up.volume_sigma))
    np.testing.assert_allclose(total.mass_sigma, 0.917 * total.volume_sigma)
    assert (total.dof > dhdt.dof).all()
    notes = table.attrs["notes"]
    assert any("uplift converted from mm yr-1 to m yr-1" in note for note in notes)
    assert any(note.startswith("firn: the file has no standard error") for note in notes)
    bare = rows(ct.totals(drawn.product, basins, "NAME"))
    np.testing.assert_allclose(bare.volume_km3_yr, dhdt.volume_km3_yr)


def test_a_grid_in_degrees_or_with_other_posts_is_brought_to_the_posts(basins, drawn, tmp_path):
    path = degree_grid(tmp_path / "gia.nc", 60.0, 89.0, gia=(0.3, "cm/year"))
    table = rows(ct.totals(drawn.product, basins, "NAME", gia=path), "gia")
    np.testing.assert_allclose(table.rate_m_yr, -0.003)


def test_posts_without_a_correction_are_counted_and_named(basins, drawn, tmp_path):
    path = grid(tmp_path / "gia.nc", gia=(np.where(X > 0, np.nan, 2.0), MM))
    table = ct.totals(drawn.product, basins, "NAME", gia=path)
    number = Regions.read(basins, "NAME", GRID).number
    lost = (number >= 0) & np.isfinite(drawn.product["dhdt"].to_numpy()) & (X > -2000)
    area = drawn.product["cell_area"].to_numpy()[lost].sum() / 1e6
    # Between a value and a missing one there is none.
    assert rows(table, "gia").unknown_km2["all"] == pytest.approx(area, rel=0.06)
    assert any("gia: no value over" in note for note in table.attrs["notes"])
    whole = rows(table).loc["all"]
    assert np.isfinite(whole.volume_km3_yr)


def refused(drawn, basins, **options) -> str:
    with pytest.raises(InvalidValue) as caught:
        ct.totals(drawn.product, basins, "NAME", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_units_and_errors_that_a_file_does_not_state_are_named_and_not_guessed(
    basins, drawn, tmp_path
):
    names = (tmp_path / f"gia{k}.nc" for k in count())

    def gia(**maps) -> str:
        return refused(drawn, basins, gia=grid(next(names), **maps))

    one = constant(1.0)
    assert "states no unit; set its attribute units" in gia(gia=(one, ""))
    assert "'degC'" in gia(gia=(one, "degC"))
    assert "'m'" in gia(gia=(one, "m"))
    assert "is a variance by its name" in gia(gia=(one, MM), gia_variance=(one, MM))
    assert "2 maps (uplift, rsl); name the rate" in gia(uplift=(one, MM), rsl=(one, MM))
    assert "2 maps of errors" in gia(gia=(one, MM), a_sigma=(one, MM), b_sigma=(one, MM))
    two = grid(tmp_path / "two.nc", uplift=(one, MM), rsl=(5 * one, MM))
    table = rows(ct.totals(drawn.product, basins, "NAME", gia=f"{two}:rsl"), "gia")
    np.testing.assert_allclose(table.rate_m_yr, -0.005)
    assert "has no map 'x'; choose one of" in refused(drawn, basins, gia=f"{two}:x")
    assert "does not exist" in refused(drawn, basins, gia=tmp_path / "absent.nc")
    assert "or is not a file" in refused(drawn, basins, gia=tmp_path)
    cut = tmp_path / "cut.nc"
    cut.write_bytes(two.read_bytes()[:2000])
    with pytest.raises(DamagedFile, match=r"cut\.nc cannot be read as NetCDF; fetch it again"):
        ct.totals(drawn.product, basins, "NAME", gia=cut)
    text = tmp_path / "text.nc"
    text.write_text("gia")
    assert "not a NetCDF file" in refused(drawn, basins, gia=text)


@pytest.mark.parametrize(
    ("units", "metres"), [("ft/yr", 0.3048), ("mm/yr", 0.001), ("m yr-1", 1.0)]
)
def test_a_unit_that_is_stated_is_converted_and_said(basins, drawn, tmp_path, units, metres):
    path = grid(tmp_path / "gia.nc", gia=(constant(1.0), units))
    table = ct.totals(drawn.product, basins, "NAME", gia=path)
    np.testing.assert_allclose(rows(table, "gia").rate_m_yr, -metres)
    assert any(f"converted from {units}" in note for note in table.attrs["notes"]) == (metres != 1)


def test_a_variance_with_the_unit_of_one_gives_its_square_root(basins, drawn, tmp_path):
    path = grid(tmp_path / "gia.nc", gia=(constant(1.0), MM), gia_var=(constant(9.0), "mm2 yr-2"))
    table = ct.totals(drawn.product, basins, "NAME", gia=path)
    np.testing.assert_allclose(rows(table, "gia").rate_sigma, 0.003)
    assert any("square root" in note for note in table.attrs["notes"])


def test_a_grid_of_another_place_is_refused(basins, drawn, tmp_path):
    south = degree_grid(tmp_path / "south.nc", -89.0, -60.0, gia=(1.0, MM))
    assert "covers no place of the map's CRS" in refused(drawn, basins, gia=south)
    band = degree_grid(tmp_path / "band.nc", 60.0, 66.0, gia=(1.0, MM))
    assert "no value at any of the" in refused(drawn, basins, gia=band)
    density = degree_grid(tmp_path / "density.nc", 60.0, 66.0, rho=(900.0, "kg m-3"))
    assert "no value at any of the" in refused(drawn, basins, density=density)


def test_a_density_grid_weighs_each_post(basins, drawn, tmp_path):
    rho = np.where(Y > -1_350e3, 400.0, 900.0)
    path = grid(tmp_path / "rho.nc", rho=(rho / 1000, "g cm-3"))
    table = ct.totals(drawn.product, basins, "NAME", density=path)
    number = Regions.read(basins, "NAME", GRID).number
    kilograms = (drawn.product["dhdt"] * drawn.product["cell_area"]).to_numpy() * rho
    # At the border of the two halves the grid is interpolated.
    whole = rows(table).loc["all"]
    assert whole.mass_gt_yr == pytest.approx(np.nansum(kilograms[number >= 0]) / 1e12, rel=0.02)
    assert 400 <= 1000 * whole.mass_sigma / whole.volume_sigma <= 900
    assert any("converted from g cm-3" in note for note in table.attrs["notes"])


def test_posts_without_a_density_are_named_and_have_no_mass(basins, drawn, tmp_path):
    path = grid(tmp_path / "rho.nc", rho=(np.where(X > 0, np.nan, 900.0), "kg m-3"))
    table = ct.totals(drawn.product, basins, "NAME", density=path)
    number = Regions.read(basins, "NAME", GRID).number
    change = (drawn.product["dhdt"] * drawn.product["cell_area"]).to_numpy()
    known = (number >= 0) & (X < 0)
    assert rows(table).mass_gt_yr["all"] == pytest.approx(0.9 * np.nansum(change[known]) / 1e9)
    assert any("count as volume and not as mass" in note for note in table.attrs["notes"])


def test_a_firn_mask_gives_350_inside_and_917_outside(basins, drawn, tmp_path):
    west = vector_file(
        tmp_path / "firn.gpkg", shapely.box(-90e3, -1_450e3, 0, -1_250e3), crs="EPSG:3413"
    )
    table = rows(ct.totals(drawn.product, basins, "NAME", firn_mask=west))
    number = Regions.read(basins, "NAME", GRID).number
    rho = np.where(X < 0, 350.0, 917.0)
    change = (drawn.product["dhdt"] * drawn.product["cell_area"]).to_numpy() * rho
    own = (number >= 0) & (X != 0)
    assert table.mass_gt_yr["all"] == pytest.approx(np.nansum(change[own]) / 1e12, rel=0.02)
    both = refused(drawn, basins, firn_mask=west, density=917)
    assert "exclude each other" in both
    air = grid(tmp_path / "fac.nc", fac=(constant(1.0), MM))
    notes = ct.totals(drawn.product, basins, "NAME", firn_mask=west, firn=air).attrs["notes"]
    assert any("the air of firn counts twice" in note for note in notes)


@pytest.mark.parametrize(
    ("density", "reason"),
    [
        (0.917, "not between 100 and 1000"),
        (-917, "not between"),
        (float("nan"), "not between"),
        ("917 kg", "does not exist"),
        (True, "not between"),
        ([917], "must be a number"),
    ],
)
def test_a_density_that_is_none_is_refused(basins, drawn, density, reason):
    assert reason in refused(drawn, basins, density=density)


def test_a_density_grid_in_geotiff_needs_a_unit(basins, drawn, tmp_path):
    path = tmp_path / "rho.tif"
    half = GRID.posting / 2
    corner = rasterio.Affine(GRID.posting, 0, GRID.x[0] - half, 0, -GRID.posting, GRID.y[-1] + half)
    profile = {"driver": "GTiff", "crs": "EPSG:3413", "transform": corner, "count": 1}
    with rasterio.open(path, "w", **profile, height=61, width=61, dtype="float32") as file:
        file.write(np.full((61, 61), 850.0, "float32"), 1)
    assert "no unit; state its unit as kg m-3" in refused(drawn, basins, density=path)
    with rasterio.open(path, "r+") as file:
        file.set_band_unit(1, "kg m-3")
    table = rows(ct.totals(drawn.product, basins, "NAME", density=path))
    np.testing.assert_allclose(table.mass_gt_yr, 0.85 * table.volume_km3_yr)


def test_a_total_says_what_it_does_not_know_and_not_what_is_subtracted(basins, drawn, tmp_path):
    product = drawn.product.assign_attrs(source_modes="lrm")
    said = " ".join(ct.totals(product, basins, "NAME").attrs["notes"])
    for word in ("radar penetrates", "firn", "bedrock", "drift"):
        assert word in said
    gia = grid(tmp_path / "gia.nc", gia=(constant(1.0), MM))
    said = " ".join(ct.totals(product, basins, "NAME", gia=gia).attrs["notes"])
    assert "uplift of the bedrock is not removed" not in said
