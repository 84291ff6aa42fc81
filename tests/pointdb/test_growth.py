"""Memory, reads and listings of a point DB that has grown: bounded, or linear in what it holds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.pointdb import PointDB, compact, log, squares
from cryotile.pointdb.encoding import SQUARES, Stored
from cryotile.pointdb.log import Log
from cryotile.pointdb.repair import set_damage_aside
from cryotile.pointdb.snapshot import Commit
from cryotile.pointdb.squares import SquareChanges, add_up
from tests.support.made_up import granule, points, with_points
from tests.support.point_dbs import filled, fragment_files, named_fragments

SIDE = 300
"""Squares along one side of the grown point DB."""


def all_squares() -> pa.Table:
    """Return a change of every square."""
    index = np.arange(SIDE**2)
    times = pa.array(index).cast(SQUARES.field("time_min").type)
    text = {
        name: pa.DictionaryArray.from_arrays(np.zeros(len(index), np.int8), [value])
        for name, value in (("platform", "cryosat2"), ("mode", "lrm"))
    }
    columns = {
        "ix": (index % SIDE).astype(np.int32),
        "iy": (index // SIDE).astype(np.int32),
        **text,
        "count": np.ones(len(index), np.int64),
        "digest": index.astype(np.uint64),
        "time_min": times,
        "time_max": times,
    }
    return pa.table(columns, schema=SQUARES)


def entry(number: int) -> dict[str, object]:
    """Return the row of a fragment in the log."""
    limits = {f"{n}_{end}": number for n in ("x_cm", "y_cm", "time") for end in ("min", "max")}
    return {
        "path": f"chunks/00/00/00/00/{number:016x}-0.parquet",
        "chunk": number,
        "rows": 1,
        "bytes": 1,
        "checksum": f"{number:064x}",
        **limits,
        "platform": "cryosat2",
        "mode": "lrm",
        "granules": [number],
    }


PROGRAM = """
import resource, sys
from cryotile.pointdb import PointDB
from cryotile.pointdb.log import Log
from cryotile.pointdb.snapshot import Commit

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

PointDB(sys.argv[2]).squares()
begin = peak()
found = PointDB(sys.argv[1]).squares()
counted = peak()
log = Log(PointDB(sys.argv[1]).path / "log")
log.commit(log.load(), Commit(squares=log.table(1, "squares", log.read(1))))
print(counted - begin, peak() - begin)
"""


def test_a_checkpoint_takes_no_more_memory_than_a_few_tables_of_squares(tmp_path: Path) -> None:
    db = PointDB.create(tmp_path / "a.pdb", "EPSG:3031")
    small = filled(tmp_path / "b.pdb", [granule(1)])
    change, journal = all_squares(), Log(db.path / "log")
    snapshot = journal.load()
    for number in range(1, log.CHECKPOINT_INTERVAL):
        added = [entry(1000 * number + at) for at in range(100)]
        snapshot = journal.commit(snapshot, Commit(fragments=added, squares=change))
    command = [sys.executable, "-c", PROGRAM, str(db.path), str(small.path)]
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    # All tables at once take 63 times as much as one, and as much again while they are summed.
    counted, committed = (int(word) / change.nbytes for word in said.stdout.split())
    assert counted < 25
    assert committed < 25
    found = PointDB(db.path).squares()
    assert len(found) == len(change)
    assert (found["count"] == log.CHECKPOINT_INTERVAL).all()


def test_a_sum_does_not_depend_on_how_its_changes_are_grouped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(1)
    whole = all_squares()
    changes = [whole.take(random.integers(0, 300, size)) for size in (0, 1, 300, 7, 90, 1000)]
    expected = add_up(changes)
    for held in (0, 100, 1 << 18):
        monkeypatch.setattr(squares, "FEWEST_HELD", held)
        total = SquareChanges()
        for change in changes:
            total.add(change)
        assert total.total() == expected
        # A sum that was asked for can grow.
        total.add(changes[2])
        assert total.total() == add_up([*changes, changes[2]])


@pytest.fixture
def summed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of rows of each sum over squares."""
    rows, original = list[int](), squares._summed

    def count(stored: Stored) -> Stored:
        rows.append(len(stored["ix"]))
        return original(stored)

    monkeypatch.setattr(squares, "_summed", count)
    return rows


def scattered(seed: int, count: int) -> pd.DataFrame:
    """Return points that lie in squares of their own."""
    random = np.random.default_rng(seed)
    place: npt.NDArray[np.float64] = random.uniform(-2e6, 2e6, (2, count))
    return points(seed, count).assign(x=place[0], y=place[1])


def test_the_sums_of_verify_grow_with_the_points_alone(
    tmp_path: Path, summed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squares, "FEWEST_HELD", 100)
    monkeypatch.setattr(squares, "TABLE_ROWS", 1)
    db = filled(
        tmp_path / "a.pdb", *[[with_points(granule(s), scattered(s, 200))] for s in range(4)]
    )
    fragments = len(fragment_files(db))
    assert fragments > 500
    summed.clear()
    assert list(db.verify()) == []
    # Each point is counted once, and its square is summed a few times; not once for each of the fragments.
    assert sum(summed) < 8 * 800


def test_a_compaction_lists_all_files_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = filled(tmp_path / "a.pdb", *[[granule(seed, 120)] for seed in range(4)])
    monkeypatch.setattr(compact, "POINTS_PER_COMMIT", 60)
    before, listed, original = db.read(), list[str](), Path.glob

    def glob(self: Path, pattern: str) -> Iterator[Path]:
        listed.append(pattern)
        return original(self, pattern)

    monkeypatch.setattr(Path, "glob", glob)
    compacted = db.compact()
    assert compacted.snapshot > 4 + 4
    assert len(listed) == 1
    monkeypatch.undo()
    assert fragment_files(db) == named_fragments(db)
    pd.testing.assert_frame_equal(PointDB(db.path).read(), before)


@pytest.fixture
def grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PointDB:
    """Return a point DB of ten commits with a checkpoint at the fourth and eighth."""
    monkeypatch.setattr(log, "CHECKPOINT_INTERVAL", 4)
    return filled(tmp_path / "a.pdb", *[[granule(seed, 60)] for seed in range(10)])


def kept_squares(db: PointDB) -> list[int]:
    return sorted(int(path.parent.name) for path in db.path.glob("log/*/squares.parquet"))


def test_a_compaction_deletes_squares_behind_the_oldest_checkpoint_that_is_needed(
    grown: PointDB,
) -> None:
    before = grown.squares()
    grown.compact()
    assert kept_squares(grown) == [9, 10, 11]
    opened = PointDB(grown.path)
    assert opened.history()["snapshot"].tolist() == list(range(11, 0, -1))
    pd.testing.assert_frame_equal(opened.squares(), before)
    assert list(opened.verify()) == []
    for seed in range(10, 17):
        opened.append([granule(seed, 60)])
    opened.compact()
    assert kept_squares(opened) == [17, 18, 19]
    whole = filled(grown.path.with_name("b.pdb"), [granule(seed, 60) for seed in range(17)])
    pd.testing.assert_frame_equal(PointDB(grown.path).squares(), whole.squares())


def test_squares_of_a_snapshot_to_keep_stay(grown: PointDB) -> None:
    before = grown.squares(snapshot=6)
    grown.compact(keep=[6])
    assert kept_squares(grown) == [5, 6, 9, 10, 11]
    pd.testing.assert_frame_equal(PointDB(grown.path).squares(snapshot=6), before)
    grown.compact()
    assert kept_squares(grown) == [9, 10, 11, 12]


def test_an_open_db_counts_squares_after_a_compaction_deleted_its_own(grown: PointDB) -> None:
    opened = PointDB(grown.path)
    expected = opened.squares()
    early = filled(grown.path.with_name("b.pdb"), *[[granule(seed, 60)] for seed in range(3)])
    late = PointDB(early.path)
    for seed in range(3, 10):
        early.append([granule(seed, 60)])
    early.compact()
    # Its snapshot has ended: the newest takes its place, unless the caller wants that one.
    pd.testing.assert_frame_equal(late.squares(), expected)
    with pytest.raises(InvalidValue, match=r"snapshot 3 .* was ended by the compaction"):
        late.squares(snapshot=3)


@pytest.mark.parametrize("name", ["all-squares", "all-fragments"])
def test_a_damaged_checkpoint_behind_which_squares_are_deleted_is_restored(
    grown: PointDB, name: str
) -> None:
    before, expected = grown.read(), grown.squares()
    grown.compact()
    (grown.path / "log" / "00000008" / f"{name}.parquet").write_bytes(b"torn")
    if name == "all-squares":
        with pytest.raises(DamagedFile, match=r"cryotile remove DB --damaged"):
            PointDB(grown.path).squares()
    assert set_damage_aside(grown.path) is None
    opened = PointDB(grown.path)
    pd.testing.assert_frame_equal(opened.read(), before)
    pd.testing.assert_frame_equal(opened.squares(), expected)
    assert bool(list(opened.verify())) == (name == "all-fragments")
