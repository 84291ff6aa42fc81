"""Masks select posts inside polygons, or where a raster is not 0."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from pyogrio.raw import write

from cryotile.errors import DamagedFile, InvalidValue, MissingDependency
from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid
from cryotile.geo.mask import Mask
from cryotile.pointdb import PointDB
from cryotile.runs.run import Run
from tests.support.command_line import Cryotile
from tests.support.made_up import granule
from tests.support.maps import vector_file

GRID = Grid("EPSG:3031", (-20e3, -30e3, 20e3, 30e3), 1000.0)
X, Y = np.meshgrid(GRID.x, GRID.y)
SQUARE = [(-10_500.0, -4_500.0), (7_500.0, -4_500.0), (7_500.0, 12_500.0), (-10_500.0, 12_500.0)]
HOLE = [(-3_500.0, 500.0), (2_500.0, 500.0), (2_500.0, 6_500.0), (-3_500.0, 6_500.0)]
IN_SQUARE = (X > -10_500) & (X < 7_500) & (Y > -4_500) & (Y < 12_500)
IN_HOLE = (X > -3_500) & (X < 2_500) & (Y > 500) & (Y < 6_500)


def geoparquet(path: Path, *geometries: shapely.Geometry, **column: object) -> Path:
    columns = {"geom": {"encoding": "WKB", "geometry_types": [], **column}}
    about = {"version": "1.1.0", "primary_column": "geom", "columns": columns}
    table = pa.table({"name": ["ice"] * len(geometries), "geom": list(shapely.to_wkb(geometries))})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(about)}), path)
    return path


def geotiff(path: Path, values: np.ndarray, *, pixel: float = 1000.0, **options: object) -> Path:
    """Write a raster whose first pixel is centred on the north-west post."""
    transform = rasterio.Affine(pixel, 0, -20e3 - pixel / 2, 0, -pixel, 30e3 + pixel / 2)
    rows, columns = values.shape
    shape = {"height": rows, "width": columns, "count": 1, "dtype": values.dtype}
    profile = {"driver": "GTiff", "crs": "EPSG:3031", "transform": transform, **shape, **options}
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
    return path


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb", ".parquet", ".db"])
def test_posts_inside_a_polygon_are_selected_and_those_in_its_hole_are_not(
    tmp_path: Path, suffix: str
) -> None:
    shape = shapely.Polygon(SQUARE, [HOLE])
    path = tmp_path / f"the ice{suffix}"
    if suffix == ".parquet":
        geoparquet(path, shape, crs=pyproj.CRS("EPSG:3031").to_json_dict())
    elif suffix == ".db":
        # The GeoPackage is recognized by its content.
        vector_file(path.with_suffix(".gpkg"), shape).rename(path)
    else:
        vector_file(path, shape)
    np.testing.assert_array_equal(Mask.read(path, GRID).inside, IN_SQUARE & ~IN_HOLE)


def test_all_polygons_of_all_geometries_and_layers_count(tmp_path: Path) -> None:
    with_height = shapely.Polygon([(x, y, 100.0) for x, y in HOLE])
    other = shapely.Polygon([(x + 100_000.0, y) for x, y in HOLE])
    lower = shapely.Polygon([(x, y - 20_000.0) for x, y in HOLE])
    path = vector_file(
        tmp_path / "ice.gpkg",
        shapely.MultiPolygon([with_height, other]),
        shapely.GeometryCollection([shapely.Point(0, 0), shapely.MultiPolygon([lower])]),
    )
    corner = shapely.box(15_500, 20_500, 18_500, 24_500)
    blob = np.array([shapely.to_wkb(corner)], object)
    write(path, blob, [], [], layer="more", geometry_type="Polygon", crs="EPSG:3031", append=True)
    below = (X > -3_500) & (X < 2_500) & (Y > -19_500) & (Y < -13_500)
    more = (X > 15_500) & (X < 18_500) & (Y > 20_500) & (Y < 24_500)
    np.testing.assert_array_equal(Mask.read(path, GRID).inside, IN_HOLE | below | more)


def test_polygons_in_another_crs_are_projected(tmp_path: Path) -> None:
    # Around the pole, a circle of latitude is a circle.
    circle = [(float(longitude), -89.9) for longitude in range(-180, 180, 2)]
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32761", always_xy=True)
    shape = shapely.Polygon([to_utm.transform(*p) for p in circle])
    path = vector_file(tmp_path / "ice.gpkg", shape, crs="EPSG:32761")
    assert_is_cap(Mask.read(path, GRID).inside)


def assert_is_cap(inside: np.ndarray) -> None:
    """Check that a mask selects the posts south of 89.9° S, ignoring posts within 50 m of that parallel."""
    to_xy = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
    radius = abs(to_xy.transform(0.0, -89.9)[1])
    assert inside[np.hypot(X, Y) < radius - 50].all()
    assert not inside[np.hypot(X, Y) > radius + 50].any()


@pytest.mark.parametrize(
    "ring",
    [
        [(-180, -89.9), (180, -89.9), (180, -90), (-180, -90)],
        [(longitude, -89.9) for longitude in range(-180, 180, 2)],
        [(longitude, -89.9) for longitude in range(0, 360, 2)],
        [(longitude, -89.9) for longitude in (*range(178, -181, -2), 179)],
    ],
    ids=["cut", "open", "from 0 to 360", "clockwise"],
)
def test_a_ring_around_the_pole_contains_the_pole(
    tmp_path: Path, ring: list[tuple[float, float]]
) -> None:
    path = vector_file(tmp_path / "ice.gpkg", shapely.Polygon(ring), crs="EPSG:4326")
    assert_is_cap(Mask.read(path, GRID).inside)


@pytest.mark.parametrize(("west", "east"), [(170.0, -150.0), (170.0, 210.0), (-190.0, -150.0)])
@pytest.mark.parametrize("suffix", [".geojson", ".parquet"])
def test_an_edge_along_a_parallel_is_curved_and_crosses_the_antimeridian(
    tmp_path: Path, west: float, east: float, suffix: str
) -> None:
    shape = shapely.Polygon([(west, -75.0), (east, -75.0), (east, -70.0), (west, -70.0)])
    path = tmp_path / f"ice{suffix}"
    # A GeoParquet file without a CRS is in longitude and latitude.
    geoparquet(path, shape) if suffix == ".parquet" else vector_file(path, shape, crs="EPSG:4326")
    grid = Grid("EPSG:3031", (-1.5e6, -2.5e6, 1.5e6, -1e6), 20_000.0)
    inside = Mask.read(path, grid).inside
    np.testing.assert_array_equal(inside, expected_sector(grid, inside))


def expected_sector(grid: Grid, inside: np.ndarray) -> np.ndarray:
    """Return the posts from 170° E to 150° W and 75° S to 70° S; ``inside`` for those within 2 km of its edge."""
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    x, y = np.meshgrid(grid.x, grid.y)
    longitude, latitude = to_degrees.transform(x, y)
    east = (longitude - 170.0) % 360.0
    margin = 2.0 / 111.0
    wide = margin / np.cos(np.radians(latitude))
    sure = (np.abs(latitude + 75) > margin) & (np.abs(latitude + 70) > margin)
    sure &= (east > wide) & (east < 360.0 - wide) & (np.abs(east - 40.0) > wide)
    assert sure.mean() > 0.9
    within = (east < 40.0) & (latitude > -75.0) & (latitude < -70.0)
    return np.where(sure, within, inside)


def test_posts_where_a_raster_is_not_0_are_selected(tmp_path: Path) -> None:
    values = np.flipud(IN_SQUARE).astype("uint8")
    values[0, 0] = 255
    path = geotiff(tmp_path / "ice.tif", values, nodata=255)
    np.testing.assert_array_equal(Mask.read(path, GRID).inside, IN_SQUARE)


def test_no_post_outside_a_raster_is_selected(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "ice.tif", np.ones((10, 10), "float32"))
    np.testing.assert_array_equal(Mask.read(path, GRID).inside, (X < -10e3) & (Y > 20e3))


def refused(path: Path) -> str:
    with pytest.raises(InvalidValue) as error:
        Mask.read(path, GRID)
    line = str(error.value)
    assert "\n" not in line
    assert str(path) in line
    assert "give a GeoPackage" in line
    return line


def test_an_invalid_mask_is_refused_in_one_line(tmp_path: Path) -> None:
    square = shapely.Polygon(SQUARE)
    assert "does not exist" in refused(tmp_path / "none.gpkg")
    text = tmp_path / "ice.tif"
    text.write_text("no raster")
    assert "cannot be read" in refused(text)
    assert "no polygon" in refused(vector_file(tmp_path / "points.gpkg", shapely.Point(0, 0)))
    far = shapely.box(1e6, 0, 1.1e6, 1e5)
    assert "none of the" in refused(vector_file(tmp_path / "far.gpkg", far))
    assert "no CRS" in refused(vector_file(tmp_path / "nowhere.shp", square, crs=None))
    for name in ("cut.gpkg", "cut.shp", "cut.geojson"):
        whole = vector_file(tmp_path / name, square).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        assert "cannot be read" in refused(tmp_path / name)


def test_a_geopackage_with_a_truncated_geometry_is_refused(tmp_path: Path) -> None:
    path = vector_file(tmp_path / "ice.gpkg", shapely.Polygon(SQUARE))
    with sqlite3.connect(path) as file:
        file.execute("UPDATE ice SET geom = substr(geom, 1, length(geom) - 30)")
    file.close()
    assert "cannot be read" in refused(path)
    plain = tmp_path / "plain.db"
    with sqlite3.connect(plain) as file:
        file.execute("CREATE TABLE t (a)")
    file.close()
    assert "no polygon" in refused(plain)


def test_an_invalid_geoparquet_file_is_refused_in_one_line(tmp_path: Path) -> None:
    square = shapely.Polygon(SQUARE)
    path = tmp_path / "ice.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    assert "without GeoParquet metadata" in refused(path)
    assert "no CRS" in refused(geoparquet(path, square, crs=None))
    assert "cannot be read" in refused(geoparquet(path, square, crs={"type": "nonsense"}))
    with pytest.raises(InvalidValue, match="encoded as polygon; write them as WKB"):
        Mask.read(geoparquet(path, square, encoding="polygon"), GRID)
    path.write_bytes(path.read_bytes()[:200])
    assert "cannot be read" in refused(path)


@pytest.mark.parametrize("library", ["pyogrio", "shapely", "rasterio"])
def test_a_missing_library_is_named_with_the_extra_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    path = vector_file(tmp_path / "ice.gpkg", shapely.Polygon(SQUARE))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependency, match=rf"{library}: pip install 'cryotile\[geo\]'"):
        Mask.read(path, GRID)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    PointDB.create(tmp_path / "ice.pdb", "EPSG:3031").append([granule(1, 2000, extent=20e3)])
    return tmp_path / "ice.pdb"


def test_a_masked_map_equals_the_whole_map_inside_the_mask(
    db: Path, tmp_path: Path, cryotile: Cryotile
) -> None:
    mask = vector_file(tmp_path / "ice.gpkg", shapely.Polygon(SQUARE, [HOLE]))
    plan = ["--db", db, "--where", "platform == 'icesat2'", "--recipe", "plane"]
    plan += ["--tile-size", 10, "--bounds", -20e3, -20e3, 20e3, 20e3]
    products = []
    for name, options in (("whole", []), ("part", ["--mask", mask])):
        run, product = tmp_path / name, tmp_path / f"{name}.nc"
        cryotile("plan", run, *plan, *options)
        cryotile("run", run, "--backend", "serial")
        cryotile("assemble", run, "-o", product)
        with xr.open_dataset(product) as dataset:
            products.append(dataset.load())
    whole, part = products[0].sel(x=products[1].x, y=products[1].y), products[1]
    assert (float(part.x[0]), float(part.x[-1])) == (-10_000.0, 7_000.0)
    assert (float(part.y[0]), float(part.y[-1])) == (-4_000.0, 12_000.0)
    x, y = np.meshgrid(part["x"], part["y"])
    wanted = (x > -10_500) & (x < 7_500) & (y > -4_500) & (y < 12_500)
    wanted &= ~((x > -3_500) & (x < 2_500) & (y > 500) & (y < 6_500))
    assert (part["status"].to_numpy()[~wanted] == Status.OUTSIDE_MASK).all()
    assert (whole["data_count"].to_numpy()[~wanted] > 0).any()
    assert (part["data_count"].to_numpy()[~wanted] == 0).all()
    for name in ("dhdt", "elevation", "data_count", "status"):
        np.testing.assert_array_equal(part[name].to_numpy()[wanted], whole[name].to_numpy()[wanted])
    assert (part["data_count"].to_numpy()[wanted] > 0).any()
    assert part.attrs["mask"].startswith("ice.gpkg, SHA-256")
    assert 0 < len(Run.load(tmp_path / "part").tasks) < len(Run.load(tmp_path / "whole").tasks)


def test_a_run_freezes_its_mask(db: Path, tmp_path: Path, cryotile: Cryotile) -> None:
    mask = vector_file(tmp_path / "ice.gpkg", shapely.Polygon(SQUARE))
    other = vector_file(tmp_path / "other.gpkg", shapely.Polygon(HOLE))
    run = tmp_path / "run"
    cryotile("plan", run, "--db", db, "--where", "platform == 'icesat2'", "--mask", mask)
    count = len(Run.load(run).tasks)
    assert "frozen with other settings: mask" in cryotile("plan", run, "--mask", other, status=2)
    mask.unlink()
    cryotile("plan", run, "--mask", mask)
    assert len(Run.load(run).tasks) == count
    (run / "mask.npz").write_bytes((run / "mask.npz").read_bytes()[:-40])
    with pytest.raises(DamagedFile, match=r"mask\.npz is not the mask"):
        Run.load(run)
