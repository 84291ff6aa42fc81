"""Points as GeoParquet: what other programs read is what the point DB has."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyproj
import pytest

from cryotile.errors import InvalidValue, UnwritablePath
from cryotile.pointdb import PointDB
from tests.support.command_line import Call
from tests.support.disks import small_disk
from tests.support.made_up import granule
from tests.support.point_dbs import filled


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> PointDB:
    batches = [[granule(seed, 400)] for seed in range(4)]
    return filled(tmp_path_factory.mktemp("points") / "ice.pdb", *batches)


def test_geopandas_reads_every_point_in_its_place_and_crs(db: PointDB, tmp_path: Path) -> None:
    path, expected = tmp_path / "points.parquet", db.read()
    assert db.to_geoparquet(path) == len(expected) == 1600
    found = geopandas.read_parquet(path)
    assert found.crs == pyproj.CRS("EPSG:3031")
    assert found.geometry.geom_type.eq("Point").all()
    np.testing.assert_array_equal(found.geometry.x, expected["x"])
    np.testing.assert_array_equal(found.geometry.y, expected["y"])
    np.testing.assert_array_equal(found["time"].dt.tz_convert(None), expected["time"])
    for name in ("elevation", "uncertainty", "pass_id"):
        np.testing.assert_array_equal(found[name], expected[name])
    for name in ("platform", "mode", "surface_type"):
        assert found[name].tolist() == expected[name].tolist()
    assert found["ascending"].astype("boolean").equals(expected["ascending"])
    assert "x" not in found


def test_the_covering_selects_points_by_their_box(db: PointDB, tmp_path: Path) -> None:
    path, whole = tmp_path / "points.parquet", db.read()
    db.to_geoparquet(path)
    x, y = whole["x"].median(), whole["y"].median()
    part = geopandas.read_parquet(path, bbox=(x, y, 1e9, 1e9))
    assert 0 < len(part) == ((whole["x"] >= x) & (whole["y"] >= y)).sum() < len(whole)


def test_duckdb_reads_the_columns_and_boxes(db: PointDB, tmp_path: Path) -> None:
    # Read as plain Parquet: the spatial extension of DuckDB, which reads the geometry, must be downloaded.
    path, expected = tmp_path / "points.parquet", db.read()
    db.to_geoparquet(path)
    count, mean, west = duckdb.sql(
        f"SELECT count(*), avg(elevation), min(bbox.xmin) FROM read_parquet('{path}')"
    ).fetchall()[0]
    assert (count, west) == (len(expected), expected["x"].min())
    assert mean == pytest.approx(expected["elevation"].mean())


def test_the_metadata_follow_geoparquet_1_1(db: PointDB, tmp_path: Path) -> None:
    db.to_geoparquet(tmp_path / "points.parquet")
    schema = pq.read_schema(tmp_path / "points.parquet")
    geo = json.loads(schema.metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Point"])
    assert pyproj.CRS.from_json_dict(column["crs"]) == pyproj.CRS("EPSG:3031")
    assert column["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]
    assert [str(field.type) for field in schema.field("bbox").type] == ["double"] * 4
    assert str(schema.field("geometry").type) == "binary"
    assert schema.field("elevation").metadata[b"unit"] == b"m"
    assert json.loads(schema.metadata[b"cryotile"])["snapshot"] == db.snapshot


def test_the_command_selects_as_reading_does(db: PointDB, tmp_path: Path, call: Call) -> None:
    whole = db.read()
    bounds = (whole["x"].min(), whole["y"].min(), whole["x"].median(), whole["y"].max())
    time = tuple(str(t.date()) for t in whole["time"].quantile([0.25, 0.75]))
    where = "elevation > 1"
    path = tmp_path / "part.parquet"
    code, out, err = call(
        *("export", db.path, "--as", "geoparquet", "-o", path, "--bounds", *bounds),
        *("--time", *time, "--where", where, "--columns", "pass_id,elevation"),
    )
    expected = db.read(bounds, time=time, where=where, columns=["pass_id", "elevation"])
    assert (code, err) == (0, "")
    assert out == f"{path}: {len(expected):,} points\n"
    found = geopandas.read_parquet(path)
    # The column of boxes serves readers alone, and some hide it.
    assert [c for c in found.columns if c != "bbox"] == ["pass_id", "elevation", "geometry"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(found[["pass_id", "elevation"]]), expected, check_like=False
    )
    code, _, err = call("export", db.path, "--as", "geoparquet", "-o", path)
    assert code == 2
    assert "exists; give --force" in err


def test_a_selection_without_points_is_an_empty_table(db: PointDB, tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    assert db.to_geoparquet(path, (9e5, 9e5, 9.1e5, 9.1e5)) == 0
    found = geopandas.read_parquet(path)
    assert len(found) == 0
    assert found.crs == pyproj.CRS("EPSG:3031")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"columns": ["hight"]}, "column 'hight' is not in this point DB"),
        ({"where": "elevation >"}, "elevation >"),
        ({"bounds": (1.0, 0.0, 0.0, 1.0)}, "are reversed"),
        ({"snapshot": 99}, "snapshot 99"),
    ],
)
def test_an_invalid_selection_leaves_no_file(
    db: PointDB, tmp_path: Path, asked: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        db.to_geoparquet(tmp_path / "points.parquet", **asked)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_file(db: PointDB, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=16k") as disk:
        with pytest.raises(UnwritablePath, match="No space left"):
            db.to_geoparquet(disk / "points.parquet")
        assert list(disk.iterdir()) == []


def test_equal_points_give_equal_bytes(db: PointDB, tmp_path: Path) -> None:
    contents = set()
    for name in "ab":
        db.to_geoparquet(tmp_path / name)
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1


def test_one_chunk_is_held_at_a_time(
    db: PointDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [len(chunk) for chunk in db.iter_chunks()]
    written = list[int]()
    real = pq.ParquetWriter.write_table
    monkeypatch.setattr(
        pq.ParquetWriter,
        "write_table",
        lambda self, table, **options: (
            written.append(len(table)),
            real(self, table, **options),
        ),
    )
    db.to_geoparquet(tmp_path / "points.parquet")
    assert written == sizes
    assert len(sizes) > 3
