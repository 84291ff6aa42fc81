"""The mosaic of the tiles is the whole map, and other programs can read the product."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
import xarray as xr

import cryotile
from cryotile.errors import DamagedFile, InvalidValue, UnwritablePath
from cryotile.fit.variables import VARIABLES, Status, fit_variables
from cryotile.geo.grid import Grid
from cryotile.maps.mosaic import mosaic
from cryotile.maps.product import (
    product_files,
    read_product,
    summarize_product,
    write_product,
)
from cryotile.maps.tiles import TileStore
from tests.support.disks import small_disk
from tests.support.maps import CONFIG, GRID, OVER_TIME, made_up
from tests.support.services.provide import provide

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("rioxarray")
features = pytest.importorskip("rasterio.features")
cog_validate = pytest.importorskip("rio_cogeo.cogeo").cog_validate


def fit_tiles(directory: Path, tile_size: int) -> xr.Dataset:
    """Save every tile of the grid and return their mosaic."""
    directory.mkdir()
    store, tiles = TileStore(directory), GRID.tiles(tile_size)
    for tile in tiles:
        store.save(tile, made_up(tile), "fingerprint")
    return mosaic(store, GRID, tiles=tiles)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    path = tmp_path / "dhdt.nc"
    write_product(
        made_up(GRID), path, grid=GRID, config=CONFIG, about={"selection": "mode == 'lrm'"}
    )
    return path


@pytest.mark.parametrize("tile_size", [23, 40, 1000])
def test_a_mosaic_is_the_same_for_any_tile_size(tmp_path: Path, tile_size: int) -> None:
    xr.testing.assert_identical(fit_tiles(tmp_path / "tiles", tile_size), made_up(GRID))


def test_a_mosaic_tells_posts_without_points_from_posts_not_computed(
    tmp_path: Path,
) -> None:
    saved, empty, *rest = GRID.tiles(40)
    store = TileStore(tmp_path)
    store.save(saved, made_up(saved), "fingerprint")
    whole = mosaic(store, GRID, tiles=[saved], empty=[empty])
    for tile, status in [(empty, Status.NO_POINTS), *((t, Status.NOT_COMPUTED) for t in rest)]:
        posts = whole.sel(x=tile.x, y=tile.y)
        assert (posts["status"] == status).all()
        assert posts["dhdt"].isnull().all()
        assert (posts["data_count"] == 0).all()
    xr.testing.assert_equal(whole.sel(x=saved.x, y=saved.y), made_up(saved))


def test_a_mosaic_of_a_missing_tile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="run again to make it"):
        mosaic(TileStore(tmp_path), GRID, tiles=GRID.tiles(50))


def test_a_product_has_the_same_bytes_for_any_tile_size(tmp_path: Path) -> None:
    contents = set()
    for tile_size in (30, 60):
        path = tmp_path / f"{tile_size}.nc"
        write_product(
            fit_tiles(tmp_path / str(tile_size), tile_size), path, grid=GRID, config=CONFIG
        )
        contents.add(path.read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("suffix", [".nc", ".tif"])
def test_a_product_written_in_bands_has_the_bytes_of_one_written_whole(
    tmp_path: Path, suffix: str
) -> None:
    grid = Grid("EPSG:3413", (0.0, 0.0, 19e3, 599e3), 1000.0)
    whole, told = made_up(grid), []
    write_product(whole, tmp_path / f"whole{suffix}", grid=grid, config=CONFIG)
    write_product(
        lambda part: made_up(grid.part(grid.rows[part], grid.columns)),
        tmp_path / f"bands{suffix}",
        grid=grid,
        config=CONFIG,
        advance=told.append,
    )
    contents = [(tmp_path / f"{name}{suffix}").read_bytes() for name in ("whole", "bands")]
    assert contents[0] == contents[1]
    assert (sum(told), len(told)) == (600, 3)


@pytest.mark.parametrize("suffix", [".nc", ".tif"])
def test_a_product_over_time_written_in_bands_has_the_bytes_of_one_written_whole(
    tmp_path: Path, suffix: str
) -> None:
    grid = Grid("EPSG:3413", (0.0, 0.0, 19e3, 299e3), 1000.0)
    write_product(
        made_up(grid, OVER_TIME), tmp_path / f"whole{suffix}", grid=grid, config=OVER_TIME
    )
    write_product(
        lambda part: made_up(grid.part(grid.rows[part], grid.columns), OVER_TIME),
        tmp_path / f"bands{suffix}",
        grid=grid,
        config=OVER_TIME,
    )
    contents = [(tmp_path / f"{name}{suffix}").read_bytes() for name in ("whole", "bands")]
    assert contents[0] == contents[1]


def test_windows_and_heights_have_their_times_and_bounds_in_the_product(tmp_path: Path) -> None:
    store, path = TileStore(tmp_path), tmp_path / "dhdt.nc"
    tiles = GRID.tiles(50)
    for tile in tiles:
        store.save(tile, made_up(tile, OVER_TIME), "fingerprint")
    whole = mosaic(store, GRID, tiles=tiles, variables=fit_variables(OVER_TIME))
    write_product(whole, path, grid=GRID, config=OVER_TIME)
    with xr.open_dataset(path) as product:
        assert product["window_dhdt"].dims == ("time", "y", "x")
        assert product["height"].dims == ("height_time", "y", "x")
        np.testing.assert_array_equal(
            product["window_dhdt"], made_up(GRID, OVER_TIME)["window_dhdt"].astype("float32")
        )
        assert product["window_dhdt"].attrs["cell_methods"] == "time: mean"
        assert product["time"].attrs["bounds"] == "time_bnds"
        days = product["time_bnds"].to_numpy().astype("datetime64[D]").astype(str).tolist()
        assert days == [
            ["2015-01-01", "2017-01-01"],
            ["2015-07-01", "2017-07-01"],
            ["2016-01-01", "2018-01-01"],
        ]
        assert product["height_time_bnds"].shape == (3, 2)
    assert "window_dhdt" in read_product(path)
    assert "time_bnds" not in read_product(path).data_vars


def test_a_geotiff_has_a_band_for_each_interval(tmp_path: Path) -> None:
    fit, path = made_up(GRID, OVER_TIME), tmp_path / "dhdt.tif"
    write_product(fit[["dhdt", "window_dhdt"]], path, grid=GRID, config=OVER_TIME)
    with rasterio.open(tmp_path / "dhdt-window_dhdt.tif") as seen:
        assert seen.descriptions == ("window_dhdt 1", "window_dhdt 2", "window_dhdt 3")
        expected = fit["window_dhdt"][1].astype("float32")
        np.testing.assert_array_equal(seen.read(2)[::-1], expected)
        assert seen.tags(2)["interval"] == "2015-07-01T00:00:00/2017-07-01T00:00:00"


MEASURE = """
import resource, sys
from pathlib import Path
from cryotile.geo.grid import Grid
from cryotile.maps.product import write_product
from tests.support.maps import CONFIG, made_up

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def write(rows):
    grid = Grid("EPSG:3413", (0.0, 0.0, 249e3, rows * 1e3 - 1e3), 1000.0)
    made = lambda part: made_up(grid.part(grid.rows[part], grid.columns))
    write_product(made, Path(sys.argv[1]), grid=grid, config=CONFIG)

write(256)
before = peak()
write(2560)
print(peak() - before)
"""


@pytest.mark.parametrize("suffix", [".nc", ".tif"])
def test_the_memory_of_a_product_does_not_grow_with_its_rows(tmp_path: Path, suffix: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / f"dhdt{suffix}")]
    grown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    # Ten times the rows add 85 MB of values; the number is in kilobytes.
    assert int(grown.stdout) < 40_000


@pytest.mark.parametrize("suffix", [".nc", ".tif"])
def test_a_product_that_a_full_disk_cuts_is_refused(tmp_path: Path, suffix: str) -> None:
    write_product(made_up(GRID), tmp_path / f"whole{suffix}", grid=GRID, config=CONFIG)
    pages = -(-(tmp_path / f"whole{suffix}").stat().st_size // 4096)
    for lacking in (1, 2, 5, pages // 2):
        with small_disk(tmp_path / f"{lacking}", f"size={4 * (pages - lacking)}k") as disk:
            with pytest.raises(UnwritablePath, match="No space left"):
                write_product(made_up(GRID), disk / f"dhdt{suffix}", grid=GRID, config=CONFIG)
            assert list(disk.iterdir()) == []


def test_a_product_does_not_record_when_or_where_it_was_made(product: Path) -> None:
    content = product.read_bytes()
    for trace in (str(product.parent), time.strftime("%Y-%m-%d")):
        assert trace.encode() not in content


def test_writing_a_product_does_not_change_the_mosaic(tmp_path: Path) -> None:
    whole = made_up(GRID)
    write_product(whole, tmp_path / "dhdt.nc", grid=GRID, config=CONFIG)
    xr.testing.assert_identical(whole, made_up(GRID))


def test_xarray_reads_every_value_of_a_product_without_a_warning(product: Path) -> None:
    expected = made_up(GRID)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_dataset(product) as opened:
            for variable in VARIABLES:
                found, wanted = opened[variable.name], expected[variable.name]
                assert found.dims == ("y", "x")
                if wanted.dtype.kind == "f":
                    wanted = wanted.astype("float32")
                    assert found.dtype == np.float32
                assert found.dtype.kind == wanted.dtype.kind
                np.testing.assert_array_equal(found, wanted)
            # Sums over posts of float32 times float64 are made in float64.
            assert opened["cell_area"].dtype == np.float64


def test_gdal_reads_crs_and_bounds(product: Path) -> None:
    with rasterio.open(f"netcdf:{product}:dhdt") as seen:
        assert seen.crs == rasterio.crs.CRS.from_epsg(3031)
        assert seen.bounds == (-1_510_500.0, -480_500.0, -1_424_500.0, -409_500.0)
        assert seen.shape == GRID.shape
        expected = made_up(GRID)["dhdt"].astype("float32")
        np.testing.assert_array_equal(seen.read(1)[::-1], expected)


@pytest.mark.parametrize(
    "bounds", [(0.0, 0.0, 9e3, 0.0), (0.0, 0.0, 0.0, 9e3), (5e3, 5e3, 5e3, 5e3)]
)
def test_gdal_reads_the_bounds_of_a_grid_one_post_wide(
    tmp_path: Path, bounds: tuple[float, float, float, float]
) -> None:
    grid = Grid("EPSG:3413", bounds, 1000.0)
    write_product(made_up(grid), tmp_path / "dhdt.nc", grid=grid, config=CONFIG)
    with rasterio.open(f"netcdf:{tmp_path / 'dhdt.nc'}:dhdt") as seen:
        x_min, y_min, x_max, y_max = bounds
        assert seen.bounds == (x_min - 500.0, y_min - 500.0, x_max + 500.0, y_max + 500.0)


# rioxarray uses a feature of the affine library that is about to be deprecated.
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
@pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3413", "EPSG:32633"])
def test_rioxarray_locates_every_post_correctly(tmp_path: Path, crs: str) -> None:
    grid = Grid(crs, (300_000.0, 7_000_000.0, 331_000.0, 7_023_000.0), 1000.0)
    write_product(made_up(grid), tmp_path / "dhdt.nc", grid=grid, config=CONFIG)
    left, bottom, right, top = (299_500.0, 6_999_500.0, 331_500.0, 7_023_500.0)
    north = shapely.box(left, 7_015_500.0, right, top)
    with xr.open_dataset(tmp_path / "dhdt.nc", decode_coords="all") as opened:
        dhdt = opened["elevation"]
        assert dhdt.rio.crs == pyproj.CRS(crs)
        assert dhdt.rio.bounds() == (left, bottom, right, top)
        # The first value of the array is the post in the south-west.
        assert tuple(dhdt.rio.transform())[:6] == (1000.0, 0.0, left, 0.0, 1000.0, bottom)
        seen = features.geometry_mask([north], dhdt.shape, dhdt.rio.transform(), invert=True)
        np.testing.assert_array_equal(seen, np.repeat(grid.y[:, None] > 7_015_500.0, 32, axis=1))
        clipped = dhdt.rio.clip([north], drop=False)
        np.testing.assert_array_equal(np.isfinite(clipped), np.isfinite(dhdt) & seen)


@pytest.mark.parametrize("bounds", [(0.0, 0.0, 9e3, 0.0), (5e3, 5e3, 5e3, 5e3)])
def test_rioxarray_reads_the_bounds_of_a_grid_one_post_high(
    tmp_path: Path, bounds: tuple[float, float, float, float]
) -> None:
    grid = Grid("EPSG:3413", bounds, 1000.0)
    write_product(made_up(grid), tmp_path / "dhdt.nc", grid=grid, config=CONFIG)
    with xr.open_dataset(tmp_path / "dhdt.nc", decode_coords="all") as opened:
        x_min, y_min, x_max, y_max = bounds
        assert opened["dhdt"].rio.bounds() == (x_min - 500, y_min - 500, x_max + 500, y_max + 500)


ACCENTED = {"mask": "Küste.gpkg", "title": "Fonte à 60°N", "creator_name": "Jökull Ø, 冰"}


@pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3413", "EPSG:32633", "EPSG:3976"])
def test_gmt_opens_every_map(tmp_path: Path, crs: str) -> None:
    # Needs GMT (apt-get install gmt); the text of EPSG:3413 has a degree sign.
    gmt = provide(["gmt"], ["gmt"])["gmt"]
    grid = Grid(crs, (300_000.0, -1_000_000.0, 331_000.0, -977_000.0), 1000.0)
    about = ACCENTED if crs == "EPSG:3413" else {}
    write_product(made_up(grid), tmp_path / "dhdt.nc", grid=grid, config=CONFIG, about=about)
    for name in ("dhdt", "data_count", "cell_area", "status"):
        command = [gmt, "grdinfo", "-C", f"{tmp_path / 'dhdt.nc'}?{name}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert [float(edge) for edge in answer.stdout.split()[1:5]] == [3e5, 3.31e5, -1e6, -9.77e5]
        assert answer.stderr == ""


def test_the_text_of_a_product_keeps_its_accents(tmp_path: Path) -> None:
    path, grid = tmp_path / "dhdt.nc", Grid("EPSG:32633", (3e5, 7e6, 3.1e5, 7.01e6), 1000.0)
    write_product(made_up(grid), path, grid=grid, config=CONFIG, about=ACCENTED)
    with xr.open_dataset(path) as opened:
        assert {name: opened.attrs[name] for name in ACCENTED} == ACCENTED
        # Programs parse the text of a CRS, and some read ASCII only.
        wkt = opened["transverse_mercator"].attrs["crs_wkt"]
        assert wkt.isascii()
        assert "Between 12 deg E and 18 deg E" in wkt


@pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3413", "EPSG:32633", "EPSG:6931", "EPSG:3408"])
def test_the_crs_can_be_read_back_from_the_grid_mapping(tmp_path: Path, crs: str) -> None:
    grid = Grid(crs, (300_000.0, -1_000_000.0, 303_000.0, -998_000.0), 1000.0)
    write_product(made_up(grid), tmp_path / "dhdt.nc", grid=grid, config=CONFIG)
    with xr.open_dataset(tmp_path / "dhdt.nc") as opened:
        mapping = opened[opened["dhdt"].attrs["grid_mapping"]]
        assert pyproj.CRS.from_cf(mapping.attrs) == pyproj.CRS(crs)


def test_metadata_follow_the_cf_conventions(product: Path) -> None:
    with xr.open_dataset(product) as opened:
        assert opened.attrs["Conventions"] == "CF-1.11, ACDD-1.3"
        assert opened["x"].attrs["standard_name"] == "projection_x_coordinate"
        assert (opened["y"].attrs["axis"], opened["y"].attrs["units"]) == ("Y", "m")
        assert opened["polar_stereographic"].attrs["latitude_of_projection_origin"] == -90.0
        assert opened["polar_stereographic"].attrs["standard_parallel"] == -71.0
        assert len(opened["status"].attrs["flag_values"]) == len(Status)
        for name, variable in opened.data_vars.items():
            if variable.ndim == 2:
                assert variable.attrs["grid_mapping"] == "polar_stereographic"
                assert variable.attrs["long_name"], name


def test_a_product_records_the_settings_of_the_fit(product: Path) -> None:
    with xr.open_dataset(product) as opened:
        about = opened.attrs
    assert (about["time_coverage_start"], about["time_coverage_end"]) == (
        "2015-01-01",
        "2018-01-01",
    )
    assert (about["reference_epoch"], about["recipe"], about["radius"]) == (
        "2016-07-02",
        "plane",
        2000.0,
    )
    assert about["year_length_seconds"] == 31_557_600.0
    assert about["selection"] == "mode == 'lrm'"
    assert about["history"] == f"cryotile {cryotile.__version__}: plan, run, assemble"
    assert -90.0 < about["geospatial_lat_min"] < about["geospatial_lat_max"] < -70.0


def test_cell_areas_are_areas_on_the_ellipsoid(product: Path) -> None:
    with xr.open_dataset(product) as opened:
        total = float(opened["cell_area"].sum())
    x_min, y_min, x_max, y_max = -1_510_500.0, -480_500.0, -1_424_500.0, -409_500.0
    along_x, along_y = np.linspace(x_min, x_max, 500), np.linspace(y_min, y_max, 500)
    edge_x = np.concatenate([along_x, np.full(500, x_max), along_x[::-1], np.full(500, x_min)])
    edge_y = np.concatenate([np.full(500, y_min), along_y, np.full(500, y_max), along_y[::-1]])
    to_degrees = pyproj.Transformer.from_crs("EPSG:3031", "EPSG:4326", always_xy=True)
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(
        *to_degrees.transform(edge_x, edge_y)
    )
    assert total == pytest.approx(abs(area), rel=1e-6)


def offsets_of_images(path: Path) -> list[tuple[int, int, int]]:
    """Return width, height and first byte of the pixels of each image of a TIFF, in the order of the file."""
    content = path.read_bytes()
    assert content[:4] == b"II*\0"
    images, place = [], struct.unpack_from("<I", content, 4)[0]
    while place:
        (count,) = struct.unpack_from("<H", content, place)
        tags = {}
        for k in range(count):
            tag, kind, n = struct.unpack_from("<HHI", content, place + 2 + 12 * k)
            size = {3: "H", 4: "I"}.get(kind)
            if size is not None:
                form = f"<{n}{size}"
                inside = struct.calcsize(form) <= 4
                at = place + 10 + 12 * k
                at = at if inside else struct.unpack_from("<I", content, at)[0]
                tags[tag] = struct.unpack_from(form, content, at)
        assert {322, 323} <= tags.keys(), "an image without tiles"
        images.append((tags[256][0], tags[257][0], min(o for o in tags[324] if o), place))
        place = struct.unpack_from("<I", content, place + 2 + 12 * count)[0]
    return images


def test_a_geotiff_is_cloud_optimised(tmp_path: Path) -> None:
    grid, path = Grid("EPSG:3031", (0.0, 0.0, 599e3, 799e3), 1000.0), tmp_path / "dhdt.tif"
    fit = made_up(grid)[["dhdt", "status", "time_start"]]
    write_product(fit, path, grid=grid, config=CONFIG)
    for name, file in (("dhdt", path), ("status", tmp_path / "dhdt-status.tif")):
        # The rule of the format: directories first, pixels of overviews from small to large, then the full image.
        images = offsets_of_images(file)
        assert [image[:2] for image in images] == [(600, 800), (300, 400), (150, 200)]
        assert [image[2] for image in images] == sorted((i[2] for i in images), reverse=True)
        assert max(image[3] for image in images) < min(image[2] for image in images)
        assert cog_validate(file, strict=True) == (True, [], [])
        with rasterio.open(file) as seen:
            expected = fit[name].astype("float32") if name == "dhdt" else fit[name]
            assert seen.dtypes == (str(expected.dtype),)
            assert (seen.nodata is not None) == (name == "dhdt")
            np.testing.assert_array_equal(seen.read(1)[::-1], expected)
            if name == "status":
                low = seen.read(1, out_shape=(400, 300))
                assert set(np.unique(low)) <= {Status.OK, Status.SINGULAR}
    assert {file.name for file in tmp_path.iterdir()} == {
        *("dhdt.tif", "dhdt-status.tif", "dhdt-time_start.tif", "dhdt-cell_area.tif")
    }


def test_a_geotiff_holds_one_variable(tmp_path: Path) -> None:
    path = tmp_path / "dhdt.tif"
    write_product(made_up(GRID), path, grid=GRID, config=CONFIG)
    names = [*(v.name for v in VARIABLES), "cell_area"]
    files = product_files(path, names)
    assert {file.name for file in files} == {file.name for file in tmp_path.iterdir()}
    for name, file in zip(names, files, strict=True):
        with rasterio.open(file) as seen:
            assert seen.descriptions == (name,)
            assert seen.crs == rasterio.crs.CRS.from_epsg(3031)
            assert seen.bounds == (-1_510_500.0, -480_500.0, -1_424_500.0, -409_500.0)
            assert seen.dtypes[0] in ("float32", "int32", "int8") or name.startswith(
                ("time", "cell")
            )
    with rasterio.open(path) as seen:
        assert seen.units[0] == "m yr-1"


def test_a_product_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for name in ("dhdt.nc", "dhdt.tif"):
        with pytest.raises(UnwritablePath, match=f"gone/{name} cannot be written"):
            write_product(made_up(GRID), tmp_path / "gone" / name, grid=GRID, config=CONFIG)


def test_a_file_that_is_not_a_product_is_refused(tmp_path: Path, product: Path) -> None:
    made_up(GRID)[["dhdt"]].to_netcdf(tmp_path / "foreign.nc")
    (tmp_path / "text.nc").write_text("no NetCDF")
    for name in ("foreign.nc", "text.nc", "absent.nc"):
        assert summarize_product(tmp_path / name) is None
        with pytest.raises(InvalidValue, match=f"{name} (is not a product|does not exist)"):
            read_product(tmp_path / name)
    with pytest.raises(InvalidValue, match=r"no variable 'dhdx'; choose one of dhdt, dhdt_sigma"):
        read_product(product, ["dhdx"])


def test_a_summary_counts_posts_by_status(product: Path) -> None:
    found = summarize_product(product)
    assert found is not None
    status = made_up(GRID)["status"].to_numpy()
    assert found["status"]["ok"] == (status == Status.OK).sum()
    assert found["status"]["singular"] == (status == Status.SINGULAR).sum() > 0
    assert sum(found["status"].values()) == status.size
    assert found["shape"] == [71, 86]
    assert found["attributes"]["time_coverage_start"] == "2015-01-01"
    rates = made_up(GRID)["dhdt"].to_numpy()
    np.testing.assert_allclose(found["dhdt"], np.nanpercentile(rates, [5, 50, 95]), rtol=1e-6)
