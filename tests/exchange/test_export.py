"""An export is read back with the same numbers, and what cryotile does not know is NaN with a reason."""

from __future__ import annotations

import csv
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

import cryotile as ct
from cryotile.errors import InvalidValue, UnwritablePath
from cryotile.exchange.layouts import read_reference
from tests.exchange.conftest import Make
from tests.exchange.published import NORTH
from tests.support.command_line import Call
from tests.support.disks import small_disk
from tests.support.errors import one_line

FULL = {"windows": ("2y", "1y"), "heights": "3m"}


@pytest.mark.parametrize("layout", ["atl15", "cci-sec"])
@pytest.mark.parametrize("posting", [1000.0, 5000.0, 10_000.0])
def test_an_export_compared_with_its_product_gives_zeros(
    layout: str, posting: float, product: Make, tmp_path: Path
) -> None:
    path = product(posting=posting, **FULL)
    (file,) = ct.export(path, layout, tmp_path / "out.nc").files
    found = ct.compare(path, file)
    assert found.overall["posts"] == ct.compare(path, path).overall["posts"]
    assert found.overall["rms"] < 1e-7
    assert "whole period" in found.product


def test_all_rates_and_heights_come_back_from_atl15(product: Make, tmp_path: Path) -> None:
    path = product(**FULL)
    ct.export(path, "atl15", tmp_path / "out.nc")
    back = read_reference([tmp_path / "out.nc"])
    with xr.open_dataset(path) as own:
        whole = {str(rate.period[0])[:10]: rate for rate in back.rates if "lag16" in rate.label}
        np.testing.assert_allclose(whole["2018-01-01"].read().value, own["dhdt"], atol=1e-7)
        windows = [rate for rate in back.rates if "lag8" in rate.label]
        assert len(windows) == own.sizes["time"] == 3
        for rate, window in zip(windows, own["window_dhdt"], strict=True):
            np.testing.assert_allclose(rate.read().value, window, atol=1e-7)
        np.testing.assert_allclose(windows[0].read().sigma, own["window_dhdt_sigma"][0], atol=1e-7)
        assert len(back.epochs) == own.sizes["height_time"] == 16
        assert [e.time for e in back.epochs] == list(own["height_time"].to_numpy())
        # The middles of quarters lie beside the datum, so that heights are shifted by less than a quarter's change.
        for epoch, height in zip(back.epochs, own["height"], strict=True):
            assert np.nanmax(np.abs(epoch.read().value - height)) < 1e-2
            np.testing.assert_allclose(epoch.read().sigma, own["height_sigma"][0], atol=1e-6)


def test_atl15_has_the_groups_variables_and_units_of_the_list_of_nsidc(
    product: Make, tmp_path: Path, granules: Path
) -> None:
    ct.export(product(about={"mask": "ice.gpkg"}, **FULL), "atl15", tmp_path / "out.nc")
    with (granules / "ATL15_output_attrs.csv").open(encoding="utf-8-sig") as lines:
        listed = [row for row in csv.DictReader(lines) if row["group"] == "height_change"]
    with netCDF4.Dataset(tmp_path / "out.nc") as file:
        for row in listed:
            stem, _, lag = row["field"].partition("_lag")
            lag, _, sigma = lag.partition("_")
            group = file[f"dhdt_lag{lag}" if lag else "delta_h"]
            variable = group[f"{stem}_{sigma}" if sigma else stem]
            assert variable.units == row["units"]
            assert variable.dtype == row["datatype"]
            told = row["dimensions"].split(",")
            assert list(variable.dimensions) == told
            if len(told) == 3:
                assert variable._FillValue == np.finfo("f4").max
                assert variable.grid_mapping == "Polar_Stereographic"
        assert "crs_wkt" in file["delta_h/Polar_Stereographic"].ncattrs()
        assert "uplift of the bedrock is not removed" in file.limitations
        assert set(file.groups) == {"delta_h", *(f"dhdt_lag{n}" for n in (1, 4, 8, 12, 16, 20, 24))}
        for lag in (1, 4, 12, 20, 24):
            rate = file[f"dhdt_lag{lag}/dhdt"]
            assert rate[:].mask.all()
            assert rate.reason == "no rate of the product has a period of this lag"
        assert not file["dhdt_lag16/ice_area"][:].mask.any()
        assert file["delta_h/data_count"].reason.startswith("the product knows it of the whole fit")


def test_averages_over_ten_kilometres_have_a_suffix(product: Make, tmp_path: Path) -> None:
    (file,) = ct.export(product(posting=10_000.0), "atl15", tmp_path).files
    assert file.name == "cryotile_ATL15_AA_20180101-20220101_10km.nc"
    with netCDF4.Dataset(file) as written:
        names = set(written["dhdt_lag16"].variables)
        assert names >= {"dhdt_10km", "dhdt_sigma_10km", "ice_area_10km"}


def test_a_period_that_is_no_lag_has_a_group_of_its_own(product: Make, tmp_path: Path) -> None:
    path = product(period=("2010-07-01", "2020-07-01"))
    found = ct.export(path, "atl15", tmp_path / "out.nc")
    assert any(note.startswith("dhdt_lag40 is no group of ATL15") for note in found.notes)
    assert ct.compare(path, tmp_path / "out.nc").overall["rms"] < 1e-7


def test_heights_without_the_datum_say_what_they_are_relative_to(
    product: Make, tmp_path: Path
) -> None:
    path = product(period=("2011-01-01", "2013-01-01"), heights="6m")
    found = ct.export(path, "atl15", tmp_path / "out.nc")
    assert any("2020-01-01 is not within the heights" in note for note in found.notes)


def test_cci_sec_has_its_variables_and_a_file_for_each_window(
    product: Make, tmp_path: Path
) -> None:
    path = product(posting=5000.0, windows=("2y", "1y"), about={"platform": "cryosat2"})
    found = ct.export(path, "cci-sec", tmp_path / "cci")
    names = [file.name for file in found.files]
    assert names[:2] == [
        "CRYOTILE-AIS-L3C-SEC-CS2-5KM-20180101-20220101-fv1.nc",
        "CRYOTILE-AIS-L3C-SEC-CS2-5KM-20180101-20200101-fv1.nc",
    ]
    assert len(names) == 4
    with xr.open_dataset(found.files[0]) as file:
        assert {"sec", "sec_uncertainty", "surface_type", "basin_id", "lat", "lon"} <= set(
            file.variables
        )
        assert file["sec"].dims == ("y", "x")
        assert file["sec"].attrs["units"] == "m/yr"
        assert file["surface_type"].isnull().all()
    back = ct.compare(path, tmp_path / "cci")
    assert back.overall["rms"] < 1e-7
    assert ct.export(path, "cci-sec", tmp_path / "one.nc").files == (tmp_path / "one.nc",)


def test_eolis_has_a_file_for_each_bin_of_heights(product: Make, tmp_path: Path) -> None:
    path = product(posting=2000.0, heights="1y")
    found = ct.export(path, "eolis", tmp_path / "eolis")
    assert [file.name for file in found.files] == [
        f"cryotile_EOLIS_GRIDDED_AA_{day}.nc"
        for day in ("2018-07-02", "2019-07-02", "2020-07-02", "2021-07-02")
    ]
    with xr.open_dataset(path) as own, netCDF4.Dataset(found.files[1]) as file:
        own_heights = own["elevation"] + own["height"][1]
        back = np.ma.filled(file["elevation"][:], np.nan)
        np.testing.assert_allclose(back, own_heights, rtol=1e-6)
        assert file["x_bnds"].shape == (21, 2)
        assert file["time"].units == "seconds since 1970-01-01"
    assert ct.compare(path, tmp_path / "eolis").overall["rms"] < 1e-4
    with pytest.raises(InvalidValue, match="give a directory instead") as error:
        ct.export(path, "eolis", tmp_path / "one.nc")
    one_line(error)


def test_without_heights_eolis_is_the_elevation_at_the_reference_epoch(
    product: Make, tmp_path: Path
) -> None:
    found = ct.export(product(posting=2000.0), "eolis", tmp_path / "one.nc")
    back = read_reference(found.files)
    assert [epoch.time for epoch in back.epochs] == [np.datetime64("2020-01-01")]
    assert np.nanmedian(back.epochs[0].read().value) == 1000.0


@pytest.mark.parametrize("layout", ["atl15", "cci-sec", "eolis"])
def test_equal_products_give_equal_bytes(layout: str, product: Make, tmp_path: Path) -> None:
    path = product(crs=NORTH)
    one = ct.export(path, layout, tmp_path / "same.nc").files[0].read_bytes()
    assert ct.export(path, layout, tmp_path / "same.nc").files[0].read_bytes() == one


def test_the_command_says_what_is_nan_and_why(product: Make, call: Call, tmp_path: Path) -> None:
    path = product()
    code, said, notes = call("export", path, "--as", "atl15", "-o", tmp_path / "out.nc")
    assert code == 0
    assert said == f"{tmp_path / 'out.nc'}\n"
    assert "NaN, because the run has no mask of ice: delta_h/ice_area" in notes
    assert call("export", path, "--as", "atl15", "-o", tmp_path / "out.nc")[0] == 2
    code, _, complaint = call("export", path, "--as", "atl15", "-o", tmp_path / "out.tif")
    assert (code, complaint.count("\n")) == (2, 1)
    code, _, complaint = call(
        "export", tmp_path / "no.nc", "--as", "atl15", "-o", tmp_path / "x.nc"
    )
    assert (code, complaint.count("\n")) == (2, 1)


def test_a_full_disk_leaves_no_file(product: Make, tmp_path: Path) -> None:
    path = product(**FULL)
    with small_disk(tmp_path / "disk", "size=128k") as disk:
        with pytest.raises(UnwritablePath) as error:
            ct.export(path, "atl15", disk / "out.nc")
        one_line(error)
        assert list(disk.glob("*out*")) == []
