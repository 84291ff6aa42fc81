"""Screening against an elevation model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio

from cryotile.cli import main
from cryotile.errors import InvalidValue, MissingDependency
from cryotile.geo import raster
from cryotile.geo.dem import Dem
from cryotile.pointdb import PointDB
from cryotile.runs.ingest_batch import FAR_FROM_DEM, Criteria, take_in
from tests.support.errors import one_line

GREENLAND = pyproj.CRS("EPSG:3413")

WEST, NORTH, PIXEL = -400e3, -1000e3, 1000.0
NY, NX = 60, 80

Write = Callable[..., Path]


def plane(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a surface that bilinear interpolation reproduces exactly."""
    return 1500.0 + 0.01 * (x - WEST) - 0.02 * (y - NORTH)


def heights(hole: slice | None = None) -> np.ndarray:
    """Return the plane at the centres of pixels, from north to south."""
    x = WEST + PIXEL * (np.arange(NX) + 0.5)
    y = NORTH - PIXEL * (np.arange(NY) + 0.5)
    values = plane(*np.meshgrid(x, y))
    if hole is not None:
        values[hole, hole] = np.nan
    return values


def geotiff(path: Path, *, crs: str | None = "EPSG:3413", hole: slice | None = None) -> Path:
    options = {"height": NY, "width": NX, "count": 1, "dtype": "float64", "nodata": -9999.0}
    transform = rasterio.Affine(PIXEL, 0.0, WEST, 0.0, -PIXEL, NORTH)
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **options) as file:
        file.write(np.nan_to_num(heights(hole), nan=-9999.0), 1)
    return path


def netcdf(path: Path, *, crs: str | None = "EPSG:3413", hole: slice | None = None) -> Path:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("y", NY)
        file.createDimension("x", NX)
        file.createVariable("x", "f8", ("x",))[:] = WEST + PIXEL * (np.arange(NX) + 0.5)
        # Rows from south to north, as in many NetCDF files, and values as scaled integers.
        file.createVariable("y", "f8", ("y",))[:] = NORTH - PIXEL * (np.arange(NY)[::-1] + 0.5)
        file.createVariable("count", "i4", ("y", "x"))[:] = 1
        height = file.createVariable("elevation", "i4", ("y", "x"), fill_value=-(2**31))
        height.scale_factor = 0.001
        values = heights(hole)[::-1]
        height[:] = np.ma.array(np.nan_to_num(values), mask=np.isnan(values))
        if crs is not None:
            height.grid_mapping = "projection"
            file.createVariable("projection", "i1").setncatts(pyproj.CRS(crs).to_cf())
    return path


def points(count: int = 500) -> pd.DataFrame:
    """Return points five metres above the plane, between the centres of the outermost pixels."""
    random = np.random.default_rng(3)
    x = random.uniform(WEST + PIXEL / 2, WEST + PIXEL * (NX - 0.5), count)
    y = random.uniform(NORTH - PIXEL * (NY - 0.5), NORTH - PIXEL / 2, count)
    return pd.DataFrame({"x": x, "y": y, "elevation": plane(x, y) + 5.0})


@pytest.mark.parametrize("write", [geotiff, netcdf])
def test_a_plane_is_interpolated_exactly(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks end within the model, and points lie on both sides of their seams.
    monkeypatch.setattr(raster, "BLOCK", 16)
    path = write(tmp_path / "dem")
    above = Dem(path, GREENLAND).difference(points())
    np.testing.assert_allclose(above, 5.0, atol=0.001)
    corner = pd.DataFrame(
        {"x": [WEST + PIXEL / 2, WEST + PIXEL * (NX - 0.5)], "y": NORTH - PIXEL / 2, "elevation": 0}
    )
    expected = -plane(corner["x"].to_numpy(), corner["y"].to_numpy())
    np.testing.assert_allclose(Dem(path, GREENLAND).difference(corner), expected, atol=0.001)


@pytest.mark.parametrize("write", [geotiff, netcdf])
def test_the_difference_is_nan_where_the_model_has_no_value(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path / "dem", hole=slice(10, 20))
    outside = pd.DataFrame({"x": [WEST - 1e6, np.nan], "y": [NORTH, NORTH], "elevation": 0.0})
    assert np.isnan(Dem(path, GREENLAND).difference(outside)).all()
    found = points(5000)
    above = Dem(path, GREENLAND).difference(found)
    column = (found["x"] - WEST) / PIXEL - 0.5
    row = (NORTH - found["y"]) / PIXEL - 0.5
    hole = (column > 9) & (column < 20) & (row > 9) & (row < 20)
    assert np.isnan(above[hole]).all()
    np.testing.assert_allclose(above[~hole], 5.0, atol=0.001)


def test_a_model_in_another_crs_is_sampled_at_the_same_places(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "dem.tif")
    utm = pyproj.CRS("EPSG:32620")
    there = points()
    to_utm = pyproj.Transformer.from_crs(GREENLAND, utm, always_xy=True)
    x, y = to_utm.transform(there["x"].to_numpy(), there["y"].to_numpy())
    moved = there.assign(x=x, y=y)
    np.testing.assert_allclose(
        Dem(path, utm).difference(moved), Dem(path, GREENLAND).difference(there), atol=1e-3
    )


def test_a_global_model_covers_all_longitudes(tmp_path: Path) -> None:
    path = tmp_path / "global.nc"
    with netCDF4.Dataset(path, "w") as file:
        for name, first, step, count in (("lat", 60.0, 0.5, 61), ("lon", 0.0, 0.5, 720)):
            file.createDimension(name, count)
            axis = file.createVariable(name, "f8", (name,))
            axis[:] = first + step * np.arange(count)
            axis.units = "degrees_north" if name == "lat" else "degrees_east"
        latitude = file["lat"][:]
        file.createVariable("z", "f8", ("lat", "lon"))[:] = np.repeat(latitude[:, None], 720, 1)
    to_map = pyproj.Transformer.from_crs("EPSG:4326", GREENLAND, always_xy=True)
    latitude = np.array([70.25, 65.0, 80.0])
    x, y = to_map.transform(np.array([-45.0, 170.0, -179.75]), latitude)
    above = Dem(path, GREENLAND).difference(pd.DataFrame({"x": x, "y": y, "elevation": 0.0}))
    np.testing.assert_allclose(above, -latitude, atol=1e-9)


@pytest.mark.parametrize("step", [0.25, -0.25])
def test_a_global_model_has_no_gap_at_its_seam(tmp_path: Path, step: float) -> None:
    with netCDF4.Dataset(tmp_path / "dem.nc", "w") as file:
        for name, values in (
            ("lat", np.arange(-90.0, 90.1, 0.25)),
            ("lon", np.arange(0.0, 360.0, 0.25)[:: int(np.sign(step))]),
        ):
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,))[:] = values
            file[name].units = "degrees"
        lon = file["lon"][:]
        surface = 1000.0 + 10.0 * np.cos(np.radians(lon))
        file.createVariable("z", "f4", ("lat", "lon"))[:] = np.tile(surface, (721, 1))
    longitude = np.array([-0.2, -0.125, -0.001, 0.0, 0.1, 359.9, 180.0])
    x, y = pyproj.Transformer.from_crs("EPSG:4326", GREENLAND, always_xy=True).transform(
        longitude, np.full(7, 72.0)
    )
    found = Dem(tmp_path / "dem.nc", GREENLAND).difference(
        pd.DataFrame({"x": x, "y": y, "elevation": 1000.0 + 10.0 * np.cos(np.radians(longitude))})
    )
    np.testing.assert_allclose(found, 0.0, atol=1e-3)


@pytest.mark.parametrize(
    ("units", "metres"),
    [("m", 1.0), ("cm", 0.01), ("km", 1000.0), ("feet", 0.3048), ("US survey foot", 1200 / 3937)],
)
@pytest.mark.parametrize("write", [geotiff, netcdf])
def test_heights_are_converted_to_metres(
    write: Write, tmp_path: Path, units: str, metres: float
) -> None:
    path, some = write(tmp_path / "dem"), points()
    # The stored numbers are metres; the scale factor converts them to the unit.
    if write is geotiff:
        with rasterio.open(path, "r+") as file:
            file.set_band_unit(1, units)
            file.scales = (1.0 / metres,)
    else:
        with netCDF4.Dataset(path, "a") as file:
            file["elevation"].units = units
            file["elevation"].scale_factor = 0.001 / metres
    np.testing.assert_allclose(Dem(path, GREENLAND).difference(some), 5.0, atol=2e-3)


@pytest.mark.parametrize("write", [geotiff, netcdf])
def test_a_unit_other_than_a_length_is_refused(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path / "dem")
    if write is geotiff:
        with rasterio.open(path, "r+") as file:
            file.set_band_unit(1, "degC")
    else:
        with netCDF4.Dataset(path, "a") as file:
            file["elevation"].units = "degC"
    with pytest.raises(InvalidValue, match=r"heights in 'degC'.*convert them to metres"):
        Dem(path, GREENLAND)


def test_heights_above_a_geoid_are_refused(tmp_path: Path) -> None:
    netcdf(tmp_path / "named.nc")
    with netCDF4.Dataset(tmp_path / "named.nc", "a") as file:
        file["projection"].geoid_name = "EGM2008"
    netcdf(tmp_path / "compound.nc", crs="EPSG:3413+3855")
    netcdf(tmp_path / "ellipsoid.nc")
    with netCDF4.Dataset(tmp_path / "ellipsoid.nc", "a") as file:
        file["elevation"].vertical_datum = "WGS84 ellipsoid"
    for name in ("named", "compound"):
        with pytest.raises(InvalidValue, match=r"EGM2008.*not above the ellipsoid; convert it"):
            Dem(tmp_path / f"{name}.nc", GREENLAND)
    geotiff(tmp_path / "compound.tif", crs="EPSG:3413+3855")
    with pytest.raises(InvalidValue, match=r"EGM2008.*not above the ellipsoid; convert it"):
        Dem(tmp_path / "compound.tif", GREENLAND)
    Dem(tmp_path / "ellipsoid.nc", GREENLAND)


@pytest.mark.parametrize(
    ("void", "attributes"),
    [
        (1000.0, {"missing_value": 1000.0}),
        (1000.0, {"valid_range": [1001.0, 9000.0]}),
        (1000.0, {"valid_min": 1001.0}),
        (8000.0, {"valid_max": 7999.0}),
        (-9999.0, {}),
        (9999.0, {}),
        (-32768.0, {}),
    ],
)
@pytest.mark.parametrize("write", [geotiff, netcdf])
def test_every_marker_of_a_missing_height_works_in_any_file(
    write: Write, tmp_path: Path, void: float, attributes: dict[str, object]
) -> None:
    path = tmp_path / "dem"
    values = np.full((NY, NX), 1500.0)
    values[:, NX // 2 :] = void
    if write is geotiff:
        transform = rasterio.Affine(PIXEL, 0.0, WEST, 0.0, -PIXEL, NORTH)
        options = {"height": NY, "width": NX, "count": 1, "dtype": "float64", "crs": "EPSG:3413"}
        with rasterio.open(path, "w", driver="GTiff", transform=transform, **options) as file:
            file.write(values, 1)
            file.update_tags(1, **{n: str(v).strip("[]") for n, v in attributes.items()})
    else:
        netcdf(path)
        with netCDF4.Dataset(path, "a") as file:
            file.renameVariable("elevation", "packed")
            height = file.createVariable("dem", "f8", ("y", "x"), fill_value=False)
            height.setncatts(attributes | {"grid_mapping": "projection"})
            height.set_auto_maskandscale(False)
            height[:] = values
    some = points()
    found = Dem(path, GREENLAND).difference(some)
    edge = WEST + PIXEL * NX / 2
    clear = np.abs(some["x"] - edge) > PIXEL
    np.testing.assert_array_equal(np.isnan(found)[clear], (some["x"] > edge)[clear])


def test_a_leading_band_axis_of_length_one_is_ignored(tmp_path: Path) -> None:
    netcdf(tmp_path / "dem.nc")
    with netCDF4.Dataset(tmp_path / "dem.nc", "a") as file:
        file.createDimension("band", 1)
        file.renameVariable("elevation", "flat")
        height = file.createVariable("elevation", "f8", ("band", "y", "x"))
        height.grid_mapping = "projection"
        height[0] = file["flat"][:]
    some = points()
    np.testing.assert_allclose(Dem(tmp_path / "dem.nc", GREENLAND).difference(some), 5.0, atol=2e-3)


def test_a_model_with_several_bands_needs_the_name_of_one(tmp_path: Path) -> None:
    transform = rasterio.Affine(PIXEL, 0.0, WEST, 0.0, -PIXEL, NORTH)
    options = {"height": NY, "width": NX, "count": 2, "dtype": "float64", "crs": "EPSG:3413"}
    with rasterio.open(
        tmp_path / "dem.tif", "w", driver="GTiff", transform=transform, **options
    ) as file:
        file.write(np.zeros((NY, NX)), 1)
        file.write(heights(), 2)
    with pytest.raises(InvalidValue, match="has 2 bands, and none is named dem"):
        Dem(tmp_path / "dem.tif", GREENLAND)
    with rasterio.open(tmp_path / "dem.tif", "r+") as file:
        file.set_band_description(2, "dem")
    np.testing.assert_allclose(
        Dem(tmp_path / "dem.tif", GREENLAND).difference(points()), 5.0, atol=1e-6
    )


def test_an_unusable_model_is_refused_in_one_line(tmp_path: Path) -> None:
    antarctica = pyproj.CRS("EPSG:3031")
    with pytest.raises(InvalidValue, match="does not exist") as caught:
        Dem(tmp_path / "no.tif", GREENLAND)
    assert "no.tif" in one_line(caught)
    for write in (geotiff, netcdf):
        with pytest.raises(InvalidValue, match="does not say in which CRS") as caught:
            Dem(write(tmp_path / "nowhere", crs=None), GREENLAND)
        assert "EPSG" in one_line(caught)
        with pytest.raises(InvalidValue, match="covers no place") as caught:
            Dem(write(tmp_path / "greenland"), antarctica)
        assert "Antarctic" in one_line(caught)
    text = tmp_path / "text.tif"
    text.write_text("no model")
    with pytest.raises(InvalidValue, match="neither a GeoTIFF nor a NetCDF"):
        Dem(text, GREENLAND)


def test_a_file_without_a_map_is_refused_as_a_model(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "track.nc", "w") as file:
        file.createDimension("time", 3)
        file.createVariable("elevation", "f8", ("time",))[:] = 1.0
    with pytest.raises(InvalidValue, match=r"has no map \(no variable over y, x\); give a GeoTIFF"):
        Dem(tmp_path / "track.nc", GREENLAND)


def test_reading_a_geotiff_without_rasterio_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = geotiff(tmp_path / "dem.tif")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MissingDependency, match=r"cryotile\[geo\]") as caught:
        Dem(path, GREENLAND)
    one_line(caught)


@pytest.fixture
def file(granules: Path) -> Path:
    return next(granules.glob("CS_OFFL_SIR_TDP_LI_GREENL_*.nc"))


def surrounding(path: Path, db: PointDB, above: float, hole: bool) -> Path:
    """Write a model ``height`` above most points of a point DB, without values in the north."""
    seen = db.read()
    x = np.arange(seen["x"].min() - 5e3, seen["x"].max() + 5e3, 1000.0)
    y = np.arange(seen["y"].min() - 5e3, seen["y"].max() + 5e3, 1000.0)
    with netCDF4.Dataset(path, "w") as data:
        for name, values in (("y", y), ("x", x)):
            data.createDimension(name, len(values))
            data.createVariable(name, "f8", (name,))[:] = values
        height = data.createVariable("dem", "f4", ("y", "x"), fill_value=np.nan)
        values = np.full((len(y), len(x)), seen["elevation"].median() + above)
        if hole:
            values[y > np.median(y)] = np.nan
        height[:] = values
        height.grid_mapping = "crs"
        data.createVariable("crs", "i1").crs_wkt = pyproj.CRS("EPSG:3413").to_wkt()
    return path


def test_points_far_from_the_model_are_dropped_and_counted_under_their_own_reason(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["cryotile", *map(str, words)])
        with pytest.raises(SystemExit) as leaving:
            main()
        assert leaving.value.code == 0
        return capsys.readouterr().out

    command("ingest", tmp_path / "all.pdb", file, "--crs", "EPSG:3413")
    everything = PointDB(tmp_path / "all.pdb")
    model = surrounding(tmp_path / "dem.nc", everything, 20.0, hole=True)
    path = tmp_path / "screened.pdb"
    options = ("--crs", "EPSG:3413", "--dem", model, "--max-dem-difference", 150)
    said = command("ingest", path, file, *options)
    points = everything.read()
    above = Dem(model, GREENLAND).difference(points)
    near = ~(np.abs(above) > 150.0)
    assert np.isnan(above).any()
    assert 0 < (~near).sum() < len(points)
    screened = PointDB(path)
    pd.testing.assert_frame_equal(
        screened.read(), points[near].reset_index(drop=True), check_exact=True
    )
    dropped = screened.granules["dropped"][0]
    assert dropped[FAR_FROM_DEM] == (~near).sum()
    for text in (said, command("info", path)):
        assert f"{(~near).sum()}  far_from_dem: too far above or below the DEM" in text


def test_a_granule_outside_the_model_is_reported_as_not_screened(
    file: Path, tmp_path: Path
) -> None:
    db = PointDB.create(tmp_path / "a.pdb", "EPSG:3413")
    model = geotiff(tmp_path / "dem.tif")
    taken = take_in([file], db, Criteria(dem=model, max_dem_difference=1.0), lambda fraction: None)
    ((note, names),) = taken.notes.items()
    assert "not screened" in note
    assert names == [file.name]
    assert FAR_FROM_DEM not in db.granules["dropped"][0]
