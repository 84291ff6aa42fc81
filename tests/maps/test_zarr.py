"""Products as Zarr stores: the same values and attributes as in NetCDF, in the chunks of the store."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from cryotile import FitConfig
from cryotile.errors import UnwritablePath
from cryotile.geo.grid import Grid
from cryotile.maps.product import write_product
from tests.support.disks import small_disk
from tests.support.maps import made_up

CONFIG = FitConfig(
    period=("2011-01-01", "2021-01-01"), reference_epoch="2016-01-01", windows=("5y", "1y")
)
GRID = Grid("EPSG:3031", (0.0, 0.0, 99e3, 599e3), 1000.0)


@pytest.fixture(scope="module")
def maps() -> xr.Dataset:
    return made_up(GRID, CONFIG)


def test_a_store_says_what_the_netcdf_product_says(maps, tmp_path) -> None:
    for name in ("dhdt.nc", "dhdt.zarr"):
        write_product(maps, tmp_path / name, grid=GRID, config=CONFIG, about={"history": "made"})
    with (
        xr.open_dataset(tmp_path / "dhdt.nc") as expected,
        xr.open_zarr(tmp_path / "dhdt.zarr", consolidated=False) as found,
    ):
        assert set(found.variables) == set(expected.variables)
        for name, variable in expected.variables.items():
            np.testing.assert_array_equal(found[name].values, variable.values, err_msg=str(name))
            units = {"_FillValue"}
            assert {
                k: v for k, v in found[name].attrs.items() if k not in units and not np.ndim(v)
            } == {k: v for k, v in variable.attrs.items() if k not in units and not np.ndim(v)}
        assert found.attrs == expected.attrs
        assert found["dhdt"].encoding["chunks"] == (256, 100)
        assert found["window_dhdt"].encoding["chunks"] == (1, 256, 100)
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
