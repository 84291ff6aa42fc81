"""Maintenance of a point DB: replacing, removing, compacting, verifying, reading earlier snapshots."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.geo.grid import Grid
from cryotile.pointdb import Damage, PointDB, compact, log
from cryotile.pointdb.fragments import Writer
from cryotile.pointdb.log import Log
from cryotile.pointdb.snapshot import FRAGMENTS, Commit
from cryotile.points import Granule
from cryotile.selection import Where
from tests.support.made_up import START, granule, points, with_points
from tests.support.point_dbs import filled, fragment_files, named_fragments

GRANULES = [granule(seed, 120) for seed in range(6)]

SQUARES = ["x_min", "y_min", "platform", "mode", "count", "digest"]
"""All columns except times, which may be wider than those of the remaining points."""


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "VISIBILITY_LIMIT", 0.2)


def newer(original: Granule, seed: int, *, baseline: str = "E", version: int = 1) -> Granule:
    """Return a later delivery of a granule, with as many points at other places."""
    return dataclasses.replace(
        original,
        baseline=baseline,
        version=version,
        name=f"{original.name}.{baseline}{version}",
        checksum=f"{seed:064x}",
        points=points(seed, len(original.points)),
    )


def assert_same(db: PointDB, other: PointDB) -> None:
    """Assert that both hold the same points and counts, and that neither is damaged."""
    db, other = PointDB(db.path), PointDB(other.path)
    pd.testing.assert_frame_equal(db.read(), other.read())
    pd.testing.assert_frame_equal(db.squares()[SQUARES], other.squares()[SQUARES])
    assert set(db.granules["id"]) == set(other.granules["id"])
    assert list(db.verify()) == list(other.verify()) == []


def test_a_newer_delivery_replaces_an_older_one(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:3], GRANULES[3:])
    later = [newer(GRANULES[1], 101), newer(GRANULES[4], 104, baseline="D", version=2)]
    appended = db.append([GRANULES[0], *later])
    assert appended.added == ("made-up-1", "made-up-4")
    assert set(appended.replaced) == {"MADE_UP_1.nc", "MADE_UP_4.nc"}
    assert appended.unchanged == ("made-up-0",)
    assert db.snapshot == 3
    others = [g for g in GRANULES if g.id not in appended.added]
    assert_same(db, filled(tmp_path / "b.pdb", [*others, *later]))
    assert db.append(later).unchanged == ("made-up-1", "made-up-4")
    assert "older" in db.append([GRANULES[1]]).refused["made-up-1"]
    before = filled(tmp_path / "c.pdb", GRANULES)
    pd.testing.assert_frame_equal(db.read(snapshot=2), before.read())


def test_the_newer_of_two_deliveries_in_one_batch_is_stored(tmp_path: Path) -> None:
    later = newer(GRANULES[1], 101)
    db = filled(tmp_path / "a.pdb")
    appended = db.append([GRANULES[1], GRANULES[0], later])
    assert appended.added == ("made-up-0", "made-up-1")
    assert list(appended.refused) == ["made-up-1"]
    assert_same(db, filled(tmp_path / "b.pdb", [later, GRANULES[0]]))


def test_a_newer_delivery_without_points_empties_its_squares(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:1])
    points = GRANULES[0].points
    # All its records, which the newer delivery has and rejects.
    records = np.column_stack([points["x"], points["y"], points["time"].astype("int64")])
    empty = with_points(newer(GRANULES[0], 1), points[:0])
    db.append([dataclasses.replace(empty, extent=records)])
    assert len(db.read()) == len(db.squares()) == 0
    assert len(Log(db.path / "log").load().fragments) == 0
    assert list(db.verify()) == []


def test_other_points_in_the_same_squares_change_their_digests(tmp_path: Path) -> None:
    # The count of each square does not change, so only its digest shows that tiles are stale.
    db = filled(tmp_path / "a.pdb", GRANULES[:1])
    before = db.squares()
    higher = GRANULES[0].points.assign(elevation=GRANULES[0].points["elevation"] + 1)
    db.append([dataclasses.replace(newer(GRANULES[0], 1), points=higher)])
    after = db.squares()
    pd.testing.assert_frame_equal(before[SQUARES[:-1]], after[SQUARES[:-1]])
    assert (before["digest"] != after["digest"]).all()


@pytest.mark.parametrize("name", ["made-up-1", "MADE_UP_1.nc"])
def test_a_removed_granule_leaves_no_trace(tmp_path: Path, name: str) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:3], GRANULES[3:])
    removed = db.remove([name])
    assert (removed.granules, removed.rows, removed.snapshot) == (("MADE_UP_1.nc",), 120, 3)
    others = [g for g in GRANULES if g.id != "made-up-1"]
    assert_same(db, filled(tmp_path / "b.pdb", others))
    assert db.append([GRANULES[1]]).added == ("made-up-1",)
    assert_same(db, filled(tmp_path / "c.pdb", GRANULES))


def test_a_granule_that_is_not_in_the_db_cannot_be_removed(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:2])
    with pytest.raises(InvalidValue, match=r"made-up-7 is not in point DB .*a\.pdb"):
        db.remove(["made-up-0", "made-up-7"])
    assert db.snapshot == 1
    assert len(PointDB(db.path).granules) == 2


def test_compaction_merges_fragments_and_changes_no_content(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", *[[g] for g in GRANULES])
    before, squares, small = db.read(), db.squares(), len(fragment_files(db))
    compacted = db.compact()
    assert (compacted.merged, compacted.written, compacted.deleted) == (small, 16, small)
    assert compacted.freed > 0
    assert fragment_files(db) == named_fragments(db)
    assert len(fragment_files(db)) == 16
    for reader in (db, PointDB(db.path)):
        pd.testing.assert_frame_equal(reader.read(), before)
        pd.testing.assert_frame_equal(reader.squares(), squares)
    assert db.granules["snapshot"].tolist() == [1, 2, 3, 4, 5, 6]
    assert list(db.verify()) == []
    again = db.compact()
    assert (again.snapshot, again.merged, again.deleted) == (compacted.snapshot, 0, 0)
    db.append([newer(GRANULES[2], 102)])
    db.remove(["made-up-5"])
    assert_same(
        db, filled(tmp_path / "b.pdb", [*GRANULES[:2], newer(GRANULES[2], 102), *GRANULES[3:5]])
    )


def test_large_fragments_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "SMALL", 50)
    monkeypatch.setattr(compact, "FULL", 100)
    near = [with_points(granule(s), one_chunk(s, n)) for s, n in enumerate([60, 20, 30, 45, 10])]
    db = filled(tmp_path / "a.pdb", *[[g] for g in near])
    large = next(e for e in Log(db.path / "log").load().fragments.to_pylist() if e["rows"] == 60)
    db.compact()
    rows = Log(db.path / "log").load().fragments["rows"].to_pylist()
    assert sorted(rows) == [10, 60, 95]
    assert large["path"] in fragment_files(db)
    assert_same(db, filled(tmp_path / "b.pdb", near))


def one_chunk(seed: int, count: int) -> pd.DataFrame:
    frame = points(seed, count, extent=40e3)
    return frame.assign(x=frame["x"] + 50e3, y=frame["y"] + 50e3)


def test_a_compaction_ends_the_snapshots_that_keep_does_not_name(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", *[[g] for g in GRANULES[:4]])
    second = db.read(snapshot=2)
    assert db.compact(keep=[2]).snapshot == 5
    db.append(GRANULES[4:])
    for opened in (db, PointDB(db.path)):
        pd.testing.assert_frame_equal(opened.read(snapshot=2), second)
        with pytest.raises(InvalidValue) as caught:
            opened.read(snapshot=3)
        assert "snapshot 3" in str(caught.value)
        assert "2, 5 to 6" in str(caught.value)
        assert "--keep 3" in str(caught.value)
        # Snapshot 4 has the points of snapshot 5.
        assert len(opened.read(snapshot=4)) == len(opened.read(snapshot=5)) == 480
    assert [db.has_snapshot(n) for n in range(8)] == [*[n in (2, 4, 5, 6) for n in range(7)], False]
    assert db.history()["available"].tolist() == [True, True, True, False, True, False]
    assert fragment_files(db) > named_fragments(db)
    with pytest.raises(InvalidValue, match="snapshot 3"):
        db.compact(keep=[3])
    db.compact()
    assert fragment_files(db) == named_fragments(db)
    with pytest.raises(InvalidValue, match="snapshot 2"):
        PointDB(db.path).read(snapshot=2)


def test_the_history_lists_what_commits_changed(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:2], [newer(GRANULES[0], 100), GRANULES[2]])
    db.remove(["made-up-1"])
    db.compact()
    history = db.history()
    assert history["snapshot"].tolist() == [4, 3, 2, 1]
    assert history["added"].tolist() == [0, 0, 2, 2]
    assert history["removed"].tolist() == [0, 1, 1, 0]
    assert history["rows"].tolist() == [0, 0, 240, 240]
    assert history["compaction"].tolist() == [True, False, False, False]
    assert history["time"].is_monotonic_decreasing
    assert db.history(last=1)["snapshot"].tolist() == [4]
    assert filled(tmp_path / "b.pdb").history().empty


def test_a_reader_continues_while_its_fragments_are_merged(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", *[[g] for g in GRANULES])
    newest, pinned, ended = PointDB(db.path), PointDB(db.path), PointDB(db.path)
    before = db.read()
    chunks = PointDB(db.path).iter_chunks()
    parts = [next(chunks)]
    db.compact()
    pd.testing.assert_frame_equal(newest.read(), before)
    pd.testing.assert_frame_equal(pinned.read(snapshot=6), before)
    parts += chunks
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), before)
    db.append([granule(9)])
    db.compact()
    with pytest.raises(InvalidValue, match="snapshot 6"):
        ended.read(snapshot=6)
    assert len(newest.read()) == len(before) + 300


def test_the_log_can_be_read_after_old_checkpoints_are_deleted(tmp_path: Path) -> None:
    small = [with_points(granule(s), one_chunk(s, 3)) for s in range(200)]
    db = filled(tmp_path / "a.pdb", *[[g] for g in small])
    third = db.read(snapshot=70)
    db.compact(keep=[70])
    checkpoints = {p.parent.name for p in db.path.glob("log/*/all-*.parquet")}
    assert checkpoints == {"00000064", "00000192"}
    opened = PointDB(db.path)
    pd.testing.assert_frame_equal(opened.read(snapshot=70), third)
    pd.testing.assert_frame_equal(opened.squares(), db.squares())
    assert len(opened.history()) == 201
    assert list(opened.verify()) == []


def test_orphans_are_not_damage_and_a_compaction_deletes_them(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:1])
    fragment = db.path / sorted(fragment_files(db))[0]
    orphan = fragment.with_name("0123456789abcdef-0.parquet")
    orphan.write_bytes(fragment.read_bytes()[:100])
    (db.path / "writers").mkdir(exist_ok=True)
    (db.path / "writers" / "0123456789abcdef").write_text("")
    stale = db.path / "log" / ".00000002.fedcba9876543210.tmp"
    stale.mkdir()
    assert list(db.verify()) == []
    with Writer(db.path) as alive:
        alive.beat()
        coming = fragment.with_name(f"{alive.id}-0.parquet")
        coming.write_bytes(b"half a fragment")
        # The writer of another host is presumed alive while its marker is fresh.
        db.compact()
        assert orphan.exists()
        assert not stale.exists()
        (db.path / "writers" / "0123456789abcdef").unlink()
        db.compact()
        assert not orphan.exists()
        assert coming.exists()
    db.compact()
    assert fragment_files(db) == named_fragments(db)
    assert list((db.path / "writers").iterdir()) == []


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_marker_from_another_time_is_that_of_a_dead_writer(tmp_path: Path, jump: float) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:1])
    orphan = (db.path / sorted(fragment_files(db))[0]).with_name("0123456789abcdef-0.parquet")
    orphan.write_bytes(b"orphan")
    marker = db.path / "writers" / "0123456789abcdef"
    marker.parent.mkdir(exist_ok=True)
    marker.write_text("another machine:1:1")
    now = orphan.stat().st_mtime
    os.utime(marker, (now + jump, now + jump))
    db.compact()
    assert not orphan.exists()
    assert not marker.exists()


def test_a_writer_wrongly_presumed_dead_writes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:1])
    commit = Log.commit

    def bury(self: Log, *arguments: object) -> object:
        monkeypatch.setattr(Log, "commit", commit)
        monkeypatch.setattr(Writer, "others", lambda self: ({self.id}, set()))
        assert PointDB(db.path).compact().deleted == 16
        return commit(self, *arguments)

    monkeypatch.setattr(Log, "commit", bury)
    assert db.append(GRANULES[1:3]).added == ("made-up-1", "made-up-2")
    assert_same(db, filled(tmp_path / "b.pdb", GRANULES[:3]))


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [spoil, Path.unlink, lambda p: p.write_bytes(b"PAR1")])
def test_damage_is_named_with_the_granules_to_ingest_again(tmp_path: Path, harm: object) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:2], GRANULES[2:4], GRANULES[4:])
    victim = Log(db.path / "log").load().fragments.to_pylist()[20]
    harm(db.path / victim["path"])  # type: ignore[operator]
    (damage,) = db.verify()
    assert damage.path == db.path / victim["path"]
    assert damage.granules == ("MADE_UP_2.nc", "MADE_UP_3.nc")
    if harm is not spoil:
        # Only verify finds a changed bit that no reader needs.
        with pytest.raises(DamagedFile, match=r"remove .*a\.pdb --damaged") as caught:
            db.read()
        assert victim["path"] in str(caught.value)
    with pytest.raises(DamagedFile, match=r"remove .*a\.pdb --damaged"):
        db.remove(["made-up-2"])
    assert set(db.remove(damage.granules).granules) == set(damage.granules)
    assert_same(db, filled(tmp_path / "b.pdb", [*GRANULES[:2], *GRANULES[4:]]))
    db.append(GRANULES)
    assert_same(db, filled(tmp_path / "c.pdb", GRANULES))


def test_damage_of_the_log_is_found(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", *[[g] for g in GRANULES])
    spoil(db.path / "log" / "00000003" / "squares.parquet")
    (db.path / "log" / "00000004" / "commit.json").unlink()
    damages = list(db.verify())
    assert [d.path.name for d in damages[:2]] == ["00000003", "00000004"]
    assert all("put it back from a copy" in d.reason for d in damages[:2])


def changed(entry: dict[str, object], name: str) -> dict[str, object]:
    value = entry[name]
    return {
        **entry,
        name: value + 1 if isinstance(value, int) else [7] if name == "granules" else "lrm",
    }


@pytest.mark.parametrize("name", ["rows", "x_cm_min", "time_max", "mode", "granules", "chunk"])
def test_every_statistic_is_compared(tmp_path: Path, name: str) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:1])
    commits = Log(db.path / "log")
    snapshot = commits.load()
    entry = snapshot.fragments.to_pylist()[0]
    assert set(entry) == set(FRAGMENTS.names)
    commits.commit(snapshot, Commit((), [changed(entry, name)], removed_fragments=[entry["path"]]))
    damages = list(PointDB(db.path).verify())
    assert isinstance(damages[0], Damage)
    assert damages[0].path == db.path / entry["path"]
    assert "another chunk" in damages[0].reason or name in damages[0].reason


def test_chunks_one_after_another_equal_the_whole(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:3], GRANULES[3:])
    where, bounds = "platform == 'cryosat2'", (-120e3, -90e3, 40e3, 120e3)
    chunks = list(db.iter_chunks(bounds, where=where, columns=["x", "y", "elevation"]))
    whole = db.read(bounds, where=where, columns=["x", "y", "elevation"])
    assert len(chunks) == len((whole[["x", "y"]] // 100e3).drop_duplicates()) > 4
    pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), whole)
    for chunk in chunks:
        assert chunk.attrs["crs"] == "EPSG:3031"
        assert chunk["x"].floordiv(100e3).nunique() == chunk["y"].floordiv(100e3).nunique() == 1
    with pytest.raises(InvalidValue, match="elevaton"):
        next(db.iter_chunks(columns=["elevaton"]))


def test_a_tile_can_be_read(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES)
    tile = Grid("EPSG:3031", (-50e3, -50e3, 50e3, 50e3), 1000.0).tiles(50)[0]
    pd.testing.assert_frame_equal(db.read(tile), db.read(tile.bounds))
    assert len(db.read(tile)) > 0


@pytest.mark.parametrize(
    "where",
    [
        "coherence > 0.6 and power > -160",
        "coherence > 0.97",
        "not (coherence < 0.97)",
        "time > '2015-01-01T01:00:00' and time < '2015-01-01T01:10:00'",
        "mode == 'lrm'",
        "ascending",
        "not ascending and pass_id == 4294967299",
        "uncertainty < 0.001",
        "elevation - 2000 > 950 or coherence / power < -0.0061",
        "x > 1400 and y < 200",
    ],
)
def test_row_groups_are_pruned_and_no_point_is_lost(tmp_path: Path, where: str) -> None:
    count = 4 << 16
    random = np.random.default_rng(4)
    frame = points(5, count, extent=2000.0).assign(
        x=lambda f: f["x"].abs(),
        y=lambda f: f["y"].abs(),
        time=START + np.arange(count) * np.timedelta64(100, "ms"),
        coherence=np.where(random.random(count) < 0.1, np.nan, np.linspace(0, 1, count)),
        power=-170 + 20 * random.random(count),
        mode=np.repeat(["lrm", "sar", "sarin_poca", "sar"], count // 4),
        ascending=pd.array(np.repeat([True, False, False, True], count // 4), "boolean"),
    )
    db = filled(
        tmp_path / "a.pdb", [with_points(GRANULES[0], frame)], columns=["coherence", "power"]
    )
    everything = db.read(columns=db.column_names)
    expected = everything[Where.parse(where).mask(everything)].reset_index(drop=True)
    assert 0 < len(expected) < count
    pd.testing.assert_frame_equal(db.read(columns=db.column_names, where=where), expected)


def test_a_row_group_in_which_no_point_can_match_is_not_read(tmp_path: Path) -> None:
    count = 3 << 16
    frame = points(5, count, extent=1000.0).assign(
        x=lambda f: f["x"].abs(),
        y=lambda f: f["y"].abs(),
        time=START + np.arange(count) * np.timedelta64(1, "ms"),
        coherence=np.linspace(0, 1, count),
    )
    db = filled(tmp_path / "a.pdb", [with_points(GRANULES[0], frame)], columns=["coherence"])
    (path,) = (db.path / name for name in fragment_files(db))
    blank(path, "x_cm")
    with pytest.raises(DamagedFile, match=path.name):
        db.read()
    assert len(db.read(where="coherence > 0.5", columns=["elevation"])) == count // 2


def blank(path: Path, column: str) -> None:
    """Zero a column of the first row group of a fragment; its footer stays as it is."""
    metadata = pq.ParquetFile(path).metadata
    chunk = metadata.row_group(0).column(metadata.schema.names.index(column))
    start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
    content, size = bytearray(path.read_bytes()), chunk.total_compressed_size
    content[start : start + size] = bytes(size)
    path.write_bytes(content)


def test_a_text_that_all_points_of_the_fragments_share_is_not_read(tmp_path: Path) -> None:
    frame = one_chunk(1, 200).assign(platform="icesat2", mode="laser")
    db = filled(tmp_path / "a.pdb", [with_points(GRANULES[0], frame)])
    expected = db.read(where="platform == 'icesat2'")
    assert len(expected) == 200
    assert set(expected["mode"]) == {"laser"}
    (path,) = fragment_files(db)
    mixed = one_chunk(2, 200).assign(mode=["lrm", "sar"] * 100)
    db.append([with_points(GRANULES[1], mixed)])
    for name in ("platform", "mode"):
        blank(db.path / path, name)
    for where in (None, "platform == 'icesat2' and not mode == 'lrm'"):
        pd.testing.assert_frame_equal(db.read(where=where, snapshot=1), expected)
    assert db.read(where="platform == 'cryosat2'", snapshot=1).empty
    counts = db.read(where="mode == 'laser' or mode == 'sar'")["mode"].value_counts()
    assert (counts["laser"], counts["sar"], counts["lrm"]) == (200, 100, 0)


def overlapping(original: Granule, product: str, *, later: str = "0h") -> Granule:
    frame = original.points.assign(time=original.points["time"] + pd.Timedelta(later))
    return dataclasses.replace(
        original, id=f"{product}-{original.id}", product=product, points=frame
    )


def test_the_same_pass_in_two_products_is_noted(tmp_path: Path) -> None:
    l2i = [overlapping(g, "cryosat2_l2i") for g in GRANULES[:2]]
    tempo = [overlapping(g, "cryotempo_land_ice") for g in GRANULES[:2]]
    db = filled(tmp_path / "a.pdb")
    assert db.append(l2i).notes == {}
    ((note, names),) = db.append(tempo).notes.items()
    assert "cryosat2_l2i and cryotempo_land_ice" in note
    assert names == ["MADE_UP_0.nc", "MADE_UP_1.nc"]
    assert db.append(tempo).notes == {}
    assert list(filled(tmp_path / "b.pdb").append([*l2i, *tempo]).notes) == [note]
    # Another part of the same pass, in another mode, is valid.
    db = filled(tmp_path / "c.pdb", l2i)
    later = [overlapping(g, "cryosat2_l2", later="400h") for g in GRANULES[:2]]
    assert db.append(later).notes == {}
