"""Tables larger than memory: read in pieces, they have the points that they have as a whole."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryotile.errors import GranuleError
from cryotile.pointdb import PointDB
from cryotile.points import SURFACE_TYPES
from cryotile.readers import ColumnMapping, read_granule, table_reader
from cryotile.readers.pass_inference import PassSurvey, infer_passes
from cryotile.readers.tables import columns
from cryotile.readers.tables.reader import TablePieces
from cryotile.runs import ingest_batch
from cryotile.runs.ingest_batch import Criteria, take_in
from tests.support.made_up import granule
from tests.support.tables import save_table

FORMATS = ("csv", "csv.gz", "parquet", "hdf5", "netcdf", "netcdf3")
ROWS = 700

MAPPING_TEXT = """
missing = [-9999]
[columns]
longitude = "lon"
latitude = "lat"
time = {name = "t", unit = "days since 2010-01-01"}
elevation = {name = "h", unit = "cm"}
mode = {name = "how", values = {1 = "lrm", 3 = "sarin_poca"}}
[constants]
platform = "envisat"
[extra]
power = "backscatter"
"""
MAPPING = ColumnMapping.parse(tomllib.loads(MAPPING_TEXT))


def ignore(fraction: float = 0.0) -> None:
    """Accept a progress call."""


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Return forty passes over northern Greenland, unordered, with missing values and rows to drop."""
    rng = np.random.default_rng(5)
    count = 3000
    orbit = rng.integers(0, 40, count)
    along = rng.random(count)
    north = orbit % 2 == 0
    frame = pd.DataFrame(
        {
            "lon": -40 + 4 * along + orbit / 10,
            "lat": np.where(north, 77 + 3 * along, 80 - 3 * along),
            "t": orbit * 1.7 + along * 250 / 86400,
            "h": rng.normal(2e5, 3e3, count).round(),
            "how": rng.choice([1, 3], count),
            "backscatter": rng.normal(size=count),
            "nobody_asks": 7.0,
        }
    )
    frame.loc[10:1400:90, "h"] = -9999
    frame.loc[5:2900:300, "lat"] = 95.0
    frame.loc[2000:2003, "how"] = 2
    return frame


def save(frame: pd.DataFrame, directory: Path, form: str) -> Path:
    return save_table(frame, directory / f"table.{form}", form)


def in_pieces(path: Path, mapping: ColumnMapping | None = MAPPING, rows: int = ROWS) -> TablePieces:
    asked = {"surface_types": SURFACE_TYPES, "columns": ("power",)}
    return table_reader(mapping).read_pieces(path, rows=rows, seen=ignore, **asked)


def same(path: Path, mapping: ColumnMapping | None = MAPPING, rows: int = ROWS) -> None:
    whole = read_granule(path, surface_types=SURFACE_TYPES, columns=("power",), mapping=mapping)
    parts = in_pieces(path, mapping, rows)
    for _ in range(2):
        pieces = list(parts)
        points = pd.concat([piece.points for piece in pieces], ignore_index=True)
        pd.testing.assert_frame_equal(points, whole.points, check_exact=True)
        dropped = sum((Counter(piece.dropped) for piece in pieces), Counter())
        assert dropped == whole.dropped
        assert sum(piece.record_count for piece in pieces) == whole.record_count
    assert len(pieces) > 1
    for piece in (*pieces, parts.granule):
        assert (piece.id, piece.checksum, piece.name) == (whole.id, whole.checksum, whole.name)
    assert {piece.notes for piece in pieces} == {whole.notes}


@pytest.mark.parametrize("form", FORMATS)
def test_the_pieces_of_a_table_are_the_table(
    form: str, table: pd.DataFrame, tmp_path: Path
) -> None:
    same(save(table, tmp_path, form), rows=ROWS)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_dates_orbits_and_words_are_read_in_pieces_too(
    form: str, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "HEAD", 50)
    orbit = (table["t"] // 1.7).astype(int)
    own = pd.DataFrame(
        {
            "longitude": table["lon"],
            "latitude": table["lat"],
            "time": pd.Timestamp("2015-01-01")
            + pd.to_timedelta(table["t"], unit="D").dt.round("s"),
            "elevation": table["h"] / 100,
            "platform": np.where(np.arange(len(table)) % 3, "envisat", "ers2"),
            "mode": "lrm",
            "orbit": orbit.where(orbit != 13),
            "power": table["backscatter"],
        }
    )
    # A piece without a date, and one whose dates look like numbers.
    own["time"] = own["time"].astype(str).mask(own.index // ROWS == 2)
    own["time"] = own["time"].mask(own.index // ROWS == 3, "2015")
    same(save(own, tmp_path, form), None)


def test_passes_do_not_depend_on_the_order_of_points() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(1, 400))
        # −1 is an unknown platform.
        platform = rng.integers(-1, 2, count)
        # Seconds from one to another around the longest gap of 600.
        time = np.datetime64("2016-02-28", "ms") + rng.choice(
            [1000, 30_000, 599_999, 600_000, 600_001, 10**8], count
        ).cumsum().astype("timedelta64[ms]")
        order = rng.permutation(count)
        latitude = 70 + rng.normal(size=count) / 10 + np.arange(count) * rng.choice([-1, 1])
        time, latitude = time[order], np.clip(latitude, -95, 95)[order]
        time[rng.random(count) < 0.05] = "NaT"
        orbit, ascending = infer_passes(platform, time, latitude)
        survey = PassSurvey()
        for part in np.array_split(np.arange(count), rng.integers(1, 9)):
            survey.add(platform[part], time[part], latitude[part])
        again = survey.of(platform, time)
        np.testing.assert_array_equal(again[0], orbit)
        assert (again[1] == ascending).fillna(True).all()
        np.testing.assert_array_equal(again[1].isna(), ascending.isna())
        np.testing.assert_array_equal(orbit, orbits_by_hand(platform, time))


def orbits_by_hand(platform: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return the first instant of each point's pass in units of 600 s, gap by gap."""
    orbits = np.zeros(len(time), np.int64)
    for one in np.unique(platform):
        first = last = None
        for at in np.argsort(time, kind="stable"):
            if platform[at] != one or np.isnat(time[at]):
                continue
            if last is None or time[at] - last > np.timedelta64(600, "s"):
                first = time[at].astype(np.int64) // 600_000
            last = time[at]
            orbits[at] = first
    return orbits


def test_an_invalid_row_is_named_by_its_number_in_the_table(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    wrong = table.astype({"h": object})
    wrong.loc[2500, "h"] = "high"
    path = save(wrong, tmp_path, "csv")
    with pytest.raises(
        GranuleError, match=r"column 'h' has 'high' in row 2501, which is not a number"
    ):
        list(in_pieces(path))


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make workers that can hold a few hundred rows."""
    monkeypatch.setattr(ingest_batch, "WORKER_BYTES", Criteria().memory - 1000)
    monkeypatch.setattr(ingest_batch, "points_within", lambda memory, extra: ROWS)
    monkeypatch.setattr(ingest_batch, "_rows_within", lambda memory, extra: ROWS)


@pytest.fixture
def mapping_file(tmp_path: Path) -> Path:
    path = tmp_path / "mapping.toml"
    path.write_text(MAPPING_TEXT)
    return path


def make_db(path: Path) -> PointDB:
    db = PointDB.create(path, "EPSG:3413", columns=["power"])
    db.append([granule(1)])
    return db


def same_content(one: PointDB, other: PointDB) -> None:
    everything = one.column_names
    pd.testing.assert_frame_equal(one.read(columns=everything), other.read(columns=everything))
    pd.testing.assert_frame_equal(one.squares(), other.squares())
    pd.testing.assert_frame_equal(one.granules, other.granules)
    assert list(other.verify()) == []


@pytest.mark.parametrize("form", ["csv", "parquet", "hdf5"])
def test_a_table_too_large_for_a_worker_is_ingested(
    form: str,
    table: pd.DataFrame,
    tmp_path: Path,
    mapping_file: Path,
    request: pytest.FixtureRequest,
) -> None:
    criteria = Criteria(mapping=mapping_file, where="power > -1")
    path = save(table, tmp_path, form)
    whole = make_db(tmp_path / "whole.pdb")
    assert take_in([path], whole, criteria, ignore).problems == []
    request.getfixturevalue("little_memory")
    pieced = make_db(tmp_path / "pieced.pdb")
    taken = take_in([path], pieced, criteria, ignore)
    assert (taken.problems, len(taken.ids)) == ([], 1)
    assert pieced.snapshot == whole.snapshot == 2
    same_content(whole, pieced)
    assert len(pieced.fragments()) > len(whole.fragments())
    pieced.compact()
    same_content(whole, PointDB(pieced.path))
    assert take_in([path], pieced, criteria, ignore).ids == taken.ids
    # A newer version replaces all pieces of the old one.
    mapping_file.write_text("version = 1\n" + mapping_file.read_text())
    shorter = save(table[:2000], tmp_path, form)
    for db in (whole, pieced):
        assert take_in([shorter], db, criteria, ignore).problems == []
    assert (whole.granules["version"] == 1).sum() == 2
    one, other = whole.read(columns=whole.column_names), pieced.read(columns=whole.column_names)
    pd.testing.assert_frame_equal(one, other)
    pd.testing.assert_frame_equal(whole.squares(), pieced.squares())
    assert list(pieced.verify()) == []


def test_an_error_in_a_later_piece_rejects_the_whole_table_and_nothing_else(
    table: pd.DataFrame, tmp_path: Path, mapping_file: Path, little_memory: None
) -> None:
    (tmp_path / "good").mkdir()
    good = save(table, tmp_path / "good", "csv")
    wrong = table.astype({"h": object})
    wrong.loc[2500, "h"] = "high"
    bad = save(wrong, tmp_path, "csv")
    db = make_db(tmp_path / "ice.pdb")
    taken = take_in([bad, good], db, Criteria(mapping=mapping_file), ignore)
    ((path, line),) = taken.problems
    assert path == str(bad)
    assert "'high' in row 2501" in line
    assert len(taken.ids) == 1
    assert len(db.granules) == 2
    # No fragment of the failed pieces remains for a compaction.
    assert set(db.path.glob("chunks/*/*/*/*/*.parquet")) == set(db.fragments())


def test_a_long_table_reports_progress_with_each_piece(
    table: pd.DataFrame, tmp_path: Path, mapping_file: Path, little_memory: None
) -> None:
    told: list[float] = []
    files = [save(table[:ROWS], tmp_path, "parquet"), save(table, tmp_path, "csv")]
    db = make_db(tmp_path / "ice.pdb")
    assert take_in(files, db, Criteria(mapping=mapping_file), told.append).problems == []
    pieces = -(-len(table) // ROWS)
    # The bar moves with each piece, when the table is surveyed and when its points are taken in.
    assert len(told) > 1 + 2 * pieces
    assert told == sorted(set(told))


def test_another_commit_between_pieces_is_kept(
    table: pd.DataFrame,
    tmp_path: Path,
    mapping_file: Path,
    little_memory: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    db, other = make_db(tmp_path / "ice.pdb"), granule(2)
    monkeypatch.setattr(
        ingest_batch, "project_batch", _once_before(db.path, other, ingest_batch.project_batch)
    )
    taken = take_in([save(table, tmp_path, "csv")], db, Criteria(mapping=mapping_file), ignore)
    assert taken.problems == []
    assert db.snapshot == 3
    assert len(db.granules) == 3
    assert list(db.verify()) == []


def _once_before(path: Path, granule, project):
    """Append a granule by another writer while the first piece is projected."""
    left = [granule]

    def call(*arguments):
        while left:
            PointDB(path).append([left.pop()])
        return project(*arguments)

    return call
