"""Products as Zarr stores: the same values and attributes as in NetCDF, in the chunks of the store."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import cryotile
from cryotile import FitConfig
from cryotile.cli.describe import describe
from cryotile.errors import DamagedFile, InvalidValue, UnwritablePath
from cryotile.geo.grid import Grid
from cryotile.maps.product import read_product, summarize_product, write_product
from tests.support.disks import small_disk
from tests.support.maps import made_up

CONFIG = FitConfig(
    period=("2011-01-01", "2021-01-01"), reference_epoch="2016-01-01", windows=("5y", "1y")
)
GRID = Grid("EPSG:3031", (0.0, 0.0, 49e3, 299e3), 1000.0)


@pytest.fixture(scope="module")
def maps() -> xr.Dataset:
    return made_up(GRID, CONFIG)


def test_a_store_says_what_the_netcdf_product_says(maps, tmp_path) -> None:
    for name in ("dhdt.nc", "dhdt.zarr"):
        write_product(maps, tmp_path / name, grid=GRID, config=CONFIG, about={"history": "made"})
    with (
        xr.open_dataset(tmp_path / "dhdt.nc") as expected,
        xr.open_zarr(tmp_path / "dhdt.zarr") as found,
    ):
        assert set(found.variables) == set(expected.variables)
        assert set(found.coords) == set(expected.coords)
        assert "time_bnds" in found.data_vars
        for name, variable in expected.variables.items():
            np.testing.assert_array_equal(found[name].values, variable.values, err_msg=str(name))
            units = {"_FillValue"}
            assert {
                k: v for k, v in found[name].attrs.items() if k not in units and not np.ndim(v)
            } == {k: v for k, v in variable.attrs.items() if k not in units and not np.ndim(v)}
        assert found.attrs == expected.attrs
        assert found["dhdt"].encoding["chunks"] == (256, 50)
        assert found["window_dhdt"].encoding["chunks"] == (1, 256, 50)
    assert {entry.name for entry in tmp_path.iterdir()} == {"dhdt.nc", "dhdt.zarr"}


def test_a_store_is_replaced_whole(maps, tmp_path) -> None:
    path = tmp_path / "dhdt.zarr"
    write_product(maps, path, grid=GRID, config=CONFIG)
    (path / "left_over").write_text("of an earlier store")
    write_product(maps, path, grid=GRID, config=CONFIG)
    assert not (path / "left_over").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["dhdt.zarr"]


def test_a_full_disk_leaves_no_store(maps, tmp_path) -> None:
    with small_disk(tmp_path / "disk", "size=200k") as disk:
        with pytest.raises(UnwritablePath, match="No space left"):
            write_product(maps, disk / "dhdt.zarr", grid=GRID, config=CONFIG)
        assert list(disk.iterdir()) == []


def test_a_directory_that_is_no_store_is_not_replaced(maps, tmp_path) -> None:
    path = tmp_path / "dhdt.zarr"
    path.mkdir()
    (path / "letter.txt").write_text("mine")
    with pytest.raises(InvalidValue, match="is not a Zarr store"):
        write_product(maps, path, grid=GRID, config=CONFIG)
    assert (path / "letter.txt").read_text() == "mine"


def test_an_earlier_store_stays_where_a_new_one_fails(maps, tmp_path) -> None:
    path = tmp_path / "dhdt.zarr"
    write_product(maps, path, grid=GRID, config=CONFIG)

    def broken(part: slice) -> xr.Dataset:
        if part.start:
            raise OSError("the tiles are gone")
        return maps.isel(y=part)

    with pytest.raises(UnwritablePath, match="the tiles are gone"):
        write_product(broken, path, grid=GRID, config=CONFIG)
    assert [entry.name for entry in tmp_path.iterdir()] == ["dhdt.zarr"]
    np.testing.assert_array_equal(
        cryotile.open(path)["dhdt"].to_numpy(), maps["dhdt"].astype("float32")
    )


def test_a_store_serves_as_a_product(maps, tmp_path) -> None:
    for name in ("dhdt.nc", "dhdt.zarr"):
        write_product(maps, tmp_path / name, grid=GRID, config=CONFIG)
    path = tmp_path / "dhdt.zarr"
    assert cryotile.open(path)["dhdt"].chunksizes["y"][0] == 256
    said, expected = summarize_product(path), summarize_product(tmp_path / "dhdt.nc")
    assert said is not None
    assert expected is not None
    assert sorted(said.pop("variables")) == sorted(expected.pop("variables"))
    assert said == expected
    assert "made by cryotile" in next(iter(describe(path)))
    found = cryotile.compare(path, tmp_path / "dhdt.nc")
    assert found.overall["posts"] > 0
    assert found.overall["rms"] == 0.0
    axes = cryotile.plot(path, "dhdt")
    plt.close(axes.figure)


def test_a_damaged_store_is_refused(maps, tmp_path) -> None:
    path = tmp_path / "dhdt.zarr"
    write_product(maps, path, grid=GRID, config=CONFIG)
    (path / "dhdt" / "c" / "0" / "0").write_bytes(b"torn")
    with pytest.raises(DamagedFile, match=r"dhdt\.zarr is damaged"):
        read_product(path, ["dhdt"])
