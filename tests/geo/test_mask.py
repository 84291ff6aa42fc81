"""Maps of a part only: posts inside polygons, or where a raster is not 0."""

from __future__ import annotations

import sqlite3
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr

from cryotile.cli import main
from cryotile.errors import DamagedFile, InvalidValue
from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid
from cryotile.geo.mask import Mask
from cryotile.pointdb import PointDB
from cryotile.runs.run import Run
from tests.support.made_up import granule

GRID = Grid("EPSG:3031", (-20e3, -30e3, 20e3, 30e3), 1000.0)
X, Y = np.meshgrid(GRID.x, GRID.y)
SQUARE = [(-10_500.0, -4_500.0), (7_500.0, -4_500.0), (7_500.0, 12_500.0), (-10_500.0, 12_500.0)]
HOLE = [(-3_500.0, 500.0), (2_500.0, 500.0), (2_500.0, 6_500.0), (-3_500.0, 6_500.0)]
IN_SQUARE = (X > -10_500) & (X < 7_500) & (Y > -4_500) & (Y < 12_500)
IN_HOLE = (X > -3_500) & (X < 2_500) & (Y > 500) & (Y < 6_500)

Ring = Sequence[tuple[float, ...]]


def polygon(*rings: Ring, order: str = "<", kind: int = 3) -> bytes:
    """Well-known binary of a polygon."""
    parts = [struct.pack(f"{order}BII", order == "<", kind, len(rings))]
    for ring in rings:
        closed = [*ring, ring[0]]
        numbers = [number for point in closed for number in point]
        parts.append(struct.pack(f"{order}I{len(numbers)}d", len(closed), *numbers))
    return b"".join(parts)


def multi(*polygons: bytes) -> bytes:
    return struct.pack("<BII", 1, 6, len(polygons)) + b"".join(polygons)


def geopackage(path: Path, *geometries: bytes, crs: str = "EPSG:3031") -> Path:
    """A GeoPackage of one layer, with what a reader needs of the standard's tables."""
    file = sqlite3.connect(path)
    file.execute("CREATE TABLE gpkg_spatial_ref_sys (srs_id INTEGER PRIMARY KEY, definition TEXT)")
    file.execute("CREATE TABLE gpkg_geometry_columns (table_name, column_name, srs_id)")
    file.execute('CREATE TABLE "the ice" (fid INTEGER PRIMARY KEY, geom BLOB)')
    file.execute(
        "INSERT INTO gpkg_spatial_ref_sys VALUES (7, ?)", (pyproj.CRS(crs).to_wkt("WKT1_GDAL"),)
    )
    file.execute("INSERT INTO gpkg_geometry_columns VALUES ('the ice', 'geom', 7)")
    for geometry in geometries:
        header = b"GP" + struct.pack("<BBi", 0, 1, 7)
        file.execute('INSERT INTO "the ice" (geom) VALUES (?)', (header + geometry,))
    file.commit()
    file.close()
    return path


def geotiff(path: Path, values: np.ndarray, *, pixel: float = 1000.0, **options: object) -> Path:
    """A raster whose pixels' centres begin at the posts' north-west corner."""
    transform = rasterio.Affine(pixel, 0, -20e3 - pixel / 2, 0, -pixel, 30e3 + pixel / 2)
    rows, columns = values.shape
    shape = {"height": rows, "width": columns, "count": 1, "dtype": values.dtype}
    profile = {"driver": "GTiff", "crs": "EPSG:3031", "transform": transform, **shape, **options}
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
    return path


def test_posts_inside_a_polygon_are_wanted_and_those_in_its_hole_are_not(tmp_path: Path) -> None:
    path = geopackage(tmp_path / "ice.gpkg", polygon(SQUARE, HOLE))
    np.testing.assert_array_equal(Mask.read(path, GRID).inside, IN_SQUARE & ~IN_HOLE)


def test_all_polygons_of_all_geometries_count(tmp_path: Path) -> None:
    with_height = [(x, y, 100.0) for x, y in HOLE]
    other = [(x + 100_000.0, y) for x, y in HOLE]
    path = geopackage(
        tmp_path / "ice.gpkg",
        multi(polygon(with_height, kind=1003), polygon(other, order=">")),
        polygon([(x, y - 20_000.0) for x, y in HOLE], order=">"),
    )
    lower = (X > -3_500) & (X < 2_500) & (Y > -19_500) & (Y < -13_500)
    np.testing.assert_array_equal(Mask.read(path, GRID).inside, IN_HOLE | lower)


def test_polygons_in_another_crs_are_projected(tmp_path: Path) -> None:
    # Around the pole, a circle of latitude is a circle.
    circle = [(float(longitude), -89.9) for longitude in range(-180, 180, 2)]
    path = geopackage(tmp_path / "ice.gpkg", polygon(circle), crs="EPSG:32761")
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32761", always_xy=True)
    path.unlink()
    geopackage(path, polygon([to_utm.transform(*p) for p in circle]), crs="EPSG:32761")
    to_xy = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
    radius = abs(to_xy.transform(0.0, -89.9)[1])
    inside = Mask.read(path, GRID).inside
    assert inside[np.hypot(X, Y) < radius - 50].all()
    assert not inside[np.hypot(X, Y) > radius + 50].any()


def test_posts_where_a_raster_is_not_0_are_wanted(tmp_path: Path) -> None:
    values = np.flipud(IN_SQUARE).astype("uint8")
    values[0, 0] = 255
    path = geotiff(tmp_path / "ice.tif", values, nodata=255)
    np.testing.assert_array_equal(Mask.read(path, GRID).inside, IN_SQUARE)


def test_outside_of_a_raster_nothing_is_wanted(tmp_path: Path) -> None:
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


def test_what_is_no_mask_is_one_line(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.gpkg")
    text = tmp_path / "ice.tif"
    text.write_text("no raster")
    assert "cannot be read" in refused(text)
    points = struct.pack("<BI2d", 1, 1, 0.0, 0.0)
    assert "no polygon" in refused(geopackage(tmp_path / "points.gpkg", points))
    far = [(x + 1e6, y) for x, y in SQUARE]
    assert "none of the" in refused(geopackage(tmp_path / "far.gpkg", polygon(far)))
    cut = polygon(SQUARE)[:-30]
    assert "cannot be read" in refused(geopackage(tmp_path / "cut.gpkg", cut))
    plain = tmp_path / "plain.db"
    with sqlite3.connect(plain) as file:
        file.execute("CREATE TABLE t (a)")
    file.close()
    assert "cannot be read" in refused(plain)


Call = Callable[..., str]


@pytest.fixture
def cryotile(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["cryotile", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.out + printed.err
        return printed.out + printed.err

    return call


@pytest.fixture
def db(tmp_path: Path) -> Path:
    PointDB.create(tmp_path / "ice.pdb", "EPSG:3031").append([granule(1, 2000, extent=20e3)])
    return tmp_path / "ice.pdb"


def test_a_masked_map_is_the_whole_map_where_it_is_wanted(
    db: Path, tmp_path: Path, cryotile: Call
) -> None:
    mask = geopackage(tmp_path / "ice.gpkg", polygon(SQUARE, HOLE))
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
    whole, part = products
    x, y = np.meshgrid(part["x"], part["y"])
    wanted = (x > -10_500) & (x < 7_500) & (y > -4_500) & (y < 12_500)
    wanted &= ~((x > -3_500) & (x < 2_500) & (y > 500) & (y < 6_500))
    assert (part["status"].to_numpy()[~wanted] == Status.NOT_COMPUTED).all()
    assert (whole["data_count"].to_numpy()[~wanted] > 0).any()
    assert (part["data_count"].to_numpy()[~wanted] == 0).all()
    for name in ("dhdt", "elevation", "data_count", "status"):
        np.testing.assert_array_equal(part[name].to_numpy()[wanted], whole[name].to_numpy()[wanted])
    assert (part["data_count"].to_numpy()[wanted] > 0).any()
    assert part.attrs["mask"].startswith("ice.gpkg, SHA-256")
    assert 0 < len(Run.load(tmp_path / "part").tasks) < len(Run.load(tmp_path / "whole").tasks)


def test_a_mask_is_frozen(db: Path, tmp_path: Path, cryotile: Call) -> None:
    mask = geopackage(tmp_path / "ice.gpkg", polygon(SQUARE))
    other = geopackage(tmp_path / "other.gpkg", polygon(HOLE))
    run = tmp_path / "run"
    cryotile("plan", run, "--db", db, "--where", "platform == 'icesat2'", "--mask", mask)
    count = len(Run.load(run).tasks)
    assert "frozen with other settings: mask" in cryotile("plan", run, "--mask", other, code=2)
    mask.unlink()
    cryotile("plan", run, "--mask", mask)
    assert len(Run.load(run).tasks) == count
    (run / "mask.npz").write_bytes((run / "mask.npz").read_bytes()[:-40])
    with pytest.raises(DamagedFile, match=r"mask\.npz is not the mask"):
        Run.load(run)
