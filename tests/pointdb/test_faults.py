"""A point DB survives kills, rival writers, full disks, slow file servers and damaged files."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count as count_up
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cryotile.errors import CryotileError, DamagedFile, InvalidValue, UnwritablePath
from cryotile.pointdb import PointDB, log, write
from cryotile.pointdb.log import Log
from cryotile.pointdb.snapshot import Commit, Snapshot
from cryotile.points import Granule
from tests.support import disks, forked, pointdb_writer
from tests.support.errors import one_line
from tests.support.made_up import granule
from tests.support.point_dbs import filled, fragment_files, named_fragments
from tests.support.pointdb_writer import STAGES

KILLS = 200 if os.environ.get("CRYOTILE_LONG") else 8
"""Number of times that a writer is killed."""

_numbers = count_up()


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a slow file server be late by less than a second."""
    monkeypatch.setattr(log, "VISIBILITY_LIMIT", 1.0)


def seeded(path: Path, *seeds: int, count: int = 300) -> PointDB:
    """Create a point DB with one commit for the granule of each seed."""
    return filled(path, *([granule(seed, count)] for seed in seeds))


def assert_whole(db: PointDB, ids: set[str], scratch: Path, count: int = 60) -> None:
    """Assert that the DB holds exactly these granules, and all files that its log names."""
    db = PointDB(db.path)
    assert set(db.granules["id"]) == ids
    reference = PointDB.create(scratch, "EPSG:3031")
    if ids:
        reference.append([granule(int(i.rpartition("-")[2]), count) for i in sorted(ids)])
    pd.testing.assert_frame_equal(db.read(), reference.read(), check_exact=True)
    pd.testing.assert_frame_equal(db.squares(), reference.squares(), check_exact=True)


def exhaust(iterator: Iterator[object]) -> None:
    for _ in iterator:
        pass


class Writer:
    """A process that writes to a point DB, and what it said of its commits."""

    def __init__(self, what: str, db: PointDB, kill: str, *numbers: int) -> None:
        self._said = db.path.parent / f"said-{next(_numbers)}"
        self._process = forked.start(
            pointdb_writer.main, what, str(db.path), kill, *numbers, output=self._said
        )

    def end(self) -> tuple[int | None, dict[str, list[str]]]:
        """Wait for its end; return its exit code, and the granules whose append it began, and ended."""
        self._process.join(240)
        words: dict[str, list[str]] = {"begin": [], "end": []}
        for line in self._said.read_text().splitlines():
            word, what = line.split()
            words[word].append(what)
        return self._process.exitcode, words


def moments(kills: int, stages: Sequence[str]) -> list[str]:
    """Return moments to kill: each stage in turn, at a seeded number of passes through it."""
    drawn = random.Random(20190504)
    often = {"fragment": 20, "file": 5, "fsync of an entry": 8, "rename": 3}
    most = [next(n for word, n in often.items() if word in stage) for stage in stages]
    at = [index % len(stages) for index in range(kills)]
    return [f"{stages[i]} {drawn.randint(1, most[i])}" for i in at]


def test_killed_at_any_moment_a_writer_leaves_whole_commits(tmp_path: Path) -> None:
    db = seeded(tmp_path / "killed.pdb", 0, count=60)
    stages = STAGES[:-1]
    committed, begun = {granule(0).id}, {granule(0).id}
    before, after = 0, 0
    # Other processes write and compact meanwhile; their commits count, too.
    first_of_others = 1000
    others = [
        Writer("append", db, "never 0", first_of_others, KILLS * 2),
        Writer("compact", db, "never 0", KILLS),
    ]
    for attempt, kill in enumerate(moments(KILLS, stages), start=1):
        code, words = Writer("append", db, kill, 3 * attempt, 3).end()
        assert code == -signal.SIGKILL, kill
        ids = set(PointDB(db.path).granules["id"])
        committed |= set(words["end"])
        hit = set(words["begin"]) - set(words["end"])
        begun |= set(words["begin"])
        assert (
            committed <= ids <= begun | {granule(first_of_others + i).id for i in range(KILLS * 2)}
        )
        before += bool(hit - ids)
        after += bool(hit & ids)
        committed |= hit & ids
    for other in others:
        code, words = other.end()
        assert code == 0
        committed |= {word for word in words["end"] if word.startswith("made-up")}
    assert_whole(db, committed, tmp_path / "reference.pdb")
    assert before + after == KILLS, "every kill hits inside an append"
    assert after >= KILLS // len(stages), "some hit after the rename"
    assert before >= KILLS // 2
    db = PointDB(db.path)
    db.compact()
    assert fragment_files(db) == named_fragments(db)
    # The granules of the killed writers can be appended afterwards.
    again = db.append([granule(seed, 60) for seed in range(3 * (KILLS + 1))])
    assert set(again.unchanged) == {
        i for i in committed if int(i.rpartition("-")[2]) < first_of_others
    }
    assert list(db.verify()) == []


def test_cuts_of_writers_that_race_and_are_killed_are_the_granule(tmp_path: Path) -> None:
    db = seeded(tmp_path / "cuts.pdb", 0, count=60)
    for kill in ("before the rename of an entry 3", "after the rename of an entry 2"):
        forth, back = Writer("cuts", db, kill, 0, 9), Writer("cuts", db, "never 0", 9, 5)
        assert (forth.end()[0], back.end()[0]) == (-signal.SIGKILL, 0)
    assert Writer("cuts", db, "never 0", 0, 9).end()[0] == 0
    # A repetition changes nothing.
    snapshot = PointDB(db.path).snapshot
    assert Writer("cuts", db, "never 0", 9, 0).end()[0] == 0
    db = PointDB(db.path)
    assert db.snapshot == snapshot == 11
    whole = seeded(tmp_path / "whole.pdb", 0, count=60)
    whole.append([granule(77, 200)])
    pd.testing.assert_frame_equal(db.read(), whole.read(), check_exact=True)
    pd.testing.assert_frame_equal(db.squares(), whole.squares(), check_exact=True)
    assert list(db.verify()) == []


def test_killed_at_any_moment_a_compaction_changes_nothing(tmp_path: Path) -> None:
    db = seeded(tmp_path / "killed.pdb", 0, count=60)
    kills = max(len(STAGES), KILLS // 4)
    ids, killed = {granule(0).id}, 0
    for attempt, kill in enumerate(moments(kills, STAGES), start=1):
        added = [granule(3 * attempt + i, 60) for i in range(2)]
        for one in added:
            db.append([one])
        other = Writer("append", db, "never 0", 3 * attempt + 2, 1)
        code, _ = Writer("compact", db, kill, 2).end()
        killed += code == -signal.SIGKILL
        assert len(other.end()[1]["end"]) == 1
        ids |= {granule(3 * attempt + i).id for i in range(3)}
        assert set(PointDB(db.path).granules["id"]) == ids
    assert killed >= kills * 2 // 3
    assert_whole(db, ids, tmp_path / "reference.pdb")
    PointDB(db.path).compact()
    assert_whole(db, ids, tmp_path / "again.pdb")
    assert list(PointDB(db.path).verify()) == []


def test_concurrent_writers_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    db = seeded(tmp_path / "busy.pdb")
    writers = [Writer("append", db, "never 0", first, 12) for first in (0, 4, 8)]
    for writer in writers:
        code, words = writer.end()
        assert code == 0
        assert len(words["end"]) == 12
    assert_whole(db, {granule(seed).id for seed in range(20)}, tmp_path / "reference.pdb")
    assert PointDB(db.path).snapshot == 20


def test_a_writer_that_loses_a_number_takes_the_next(
    tmp_path: Path, rival: Callable[[PointDB, Granule], None]
) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    rival(db, granule(2))
    assert db.append([granule(3)]).added == ("made-up-3",)
    assert db.snapshot == 3
    assert_whole(db, {f"made-up-{i}" for i in (1, 2, 3)}, tmp_path / "reference.pdb", 300)


def test_a_granule_that_another_writer_added_meanwhile_is_not_doubled(
    tmp_path: Path, rival: Callable[[PointDB, Granule], None]
) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    rival(db, granule(2))
    appended = db.append([granule(2), granule(3)])
    assert (appended.added, appended.unchanged) == (("made-up-3",), ("made-up-2",))
    assert_whole(db, {f"made-up-{i}" for i in (1, 2, 3)}, tmp_path / "reference.pdb", 300)
    rival(db, granule(4))
    assert db.append([granule(4)]).unchanged == ("made-up-4",)
    assert fragment_files(db) == named_fragments(db)


def test_a_newer_delivery_that_another_writer_added_meanwhile_stays(
    tmp_path: Path, rival: Callable[[PointDB, Granule], None]
) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    rival(db, granule(2))
    appended = db.append([dataclasses.replace(granule(2), baseline="C"), granule(3)])
    assert appended.added == ("made-up-3",)
    assert "older" in appended.refused["made-up-2"]
    assert_whole(db, {f"made-up-{i}" for i in (1, 2, 3)}, tmp_path / "reference.pdb", 300)


def test_granules_whose_hashes_clash_get_numbers_of_their_own(
    tmp_path: Path, rival: Callable[[PointDB, Granule], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = SimpleNamespace(digest=lambda: b"\xff\xff\xff\xff")
    hashes = SimpleNamespace(blake2b=lambda *arguments, **keywords: constant)
    monkeypatch.setattr(write, "hashlib", hashes)
    db = seeded(tmp_path / "a.pdb", 1)
    rival(db, granule(2))
    db.append([granule(3), granule(4)])
    numbers = db.granules.set_index("id")["number"]
    assert numbers.to_dict() == {
        "made-up-1": 2**31 - 1,
        "made-up-2": 0,
        "made-up-3": 1,
        "made-up-4": 2,
    }
    for entry in Log(db.path / "log").load().fragments.to_pylist():
        held = pq.read_table(db.path / entry["path"], partitioning=None)["granule"].unique()
        assert sorted(held.to_pylist()) == entry["granules"]


def test_a_reply_that_a_file_server_lost_is_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    rename = Path.rename

    def lose_reply(self: Path, target: Path) -> Path:
        rename(self, target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))

    monkeypatch.setattr(Path, "rename", lose_reply)
    assert db.append([granule(2)]).added == ("made-up-2",)
    monkeypatch.undo()
    assert_whole(db, {"made-up-1", "made-up-2"}, tmp_path / "reference.pdb", 300)


def test_interrupted_after_the_rename_the_fragments_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    rename = Path.rename

    def interrupt(self: Path, target: Path) -> Path:
        rename(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        db.append([granule(2)])
    monkeypatch.undo()
    assert_whole(db, {"made-up-1", "made-up-2"}, tmp_path / "reference.pdb", 300)


def test_an_entry_that_a_file_server_shows_late_is_waited_for(
    tmp_path: Path, rival: Callable[[PointDB, Granule], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    rival(db, granule(2))
    # Long enough for a fourth attempt on a busy machine.
    monkeypatch.setattr(log, "VISIBILITY_LIMIT", 60.0)
    find, refusals = Log.find, iter(range(3))

    def late(self: Log, number: int) -> dict[str, object] | None:
        if number == 2 and self is db._store.log and next(refusals, None) is not None:
            return None
        return find(self, number)

    monkeypatch.setattr(Log, "find", late)
    assert db.append([granule(3)]).snapshot == 3
    assert next(refusals, None) is None
    assert_whole(db, {f"made-up-{i}" for i in (1, 2, 3)}, tmp_path / "reference.pdb", 300)


def test_two_creators_make_one_db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pdb"
    rename = Path.rename

    def outrun(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        seeded(path, 1)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", outrun)
    assert PointDB.create(path, "EPSG:3031").snapshot == 1
    path = tmp_path / "b.pdb"
    monkeypatch.setattr(Path, "rename", outrun)
    with pytest.raises(InvalidValue, match="EPSG:3413"):
        PointDB.create(path, "EPSG:3413")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdb", "b.pdb"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", "size=600k") as disk:
        yield disk


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", "nr_inodes=300") as disk:
        yield disk


def test_without_inodes_nothing_is_lost(few_inodes: Path, tmp_path: Path) -> None:
    db = seeded(few_inodes / "a.pdb")
    ballast = [few_inodes / f"ballast-{i}" for i in range(40)]
    for path in ballast:
        path.touch()
    seeds = iter(range(100))
    with pytest.raises(UnwritablePath, match="No space left") as caught:
        exhaust(db.append([granule(seed, 60)]) for seed in seeds)
    assert "free some space" in one_line(caught)
    ids = set(PointDB(db.path).granules["id"])
    assert 0 < len(ids) < 100
    assert_whole(db, ids, tmp_path / "reference.pdb")
    # A compaction needs some inodes first, then frees many.
    for path in ballast:
        path.unlink()
    assert db.compact().freed > 0
    assert_whole(db, ids, tmp_path / "again.pdb")
    assert db.append([granule(next(seeds) - 1, 60)]).rows == 60


def test_an_exhausted_quota_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    files, fsync = iter(range(9)), os.fsync

    def refuse(descriptor: int) -> None:
        if next(files, None) is None:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UnwritablePath, match="your quota") as caught:
        db.append([granule(2)])
    assert str(db.path / "chunks") in one_line(caught)
    with pytest.raises(UnwritablePath, match="your quota"):
        db.remove(["made-up-1"])
    monkeypatch.undo()
    assert_whole(db, {"made-up-1"}, tmp_path / "reference.pdb", 300)
    assert named_fragments(db) == fragment_files(db)


def test_no_link_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    db = seeded(tmp_path / "a.pdb", 1, 2)
    db.compact()
    assert_whole(db, {"made-up-1", "made-up-2"}, tmp_path / "reference.pdb", 300)
    db.remove(["made-up-1"])
    assert list(db.verify()) == []


def test_a_fragment_that_a_file_server_shows_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    late = db.path / sorted(fragment_files(db))[3]
    away = late.with_name("away")
    late.rename(away)
    follow = Log.follow

    def show(self: Log, *arguments: Snapshot) -> Snapshot:
        if away.exists():
            away.rename(late)
        return follow(self, *arguments)

    monkeypatch.setattr(Log, "follow", show)
    assert len(db.read()) == 300


def test_a_clock_that_jumps_does_not_change_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    for seed, jump in ((2, -1e9), (3, 1e9), (4, -3600)):
        now = time.time() + jump
        monkeypatch.setattr(time, "time", lambda now=now: now)
        db.append([granule(seed)])
        for path in db.path.rglob("*"):
            os.utime(path, (now, now))
    db.compact()
    assert_whole(db, {f"made-up-{i}" for i in (1, 2, 3, 4)}, tmp_path / "reference.pdb", 300)


def test_a_full_disk_stops_with_one_line_and_loses_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    db = seeded(small_disk / "a.pdb")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    seeds = iter(range(100))
    with pytest.raises(UnwritablePath) as caught:
        exhaust(db.append([granule(seed, 60)]) for seed in seeds)
    assert "No space left" in one_line(caught)
    assert "free some space" in one_line(caught)
    ids = set(PointDB(db.path).granules["id"])
    assert 0 < len(ids) < 100
    assert fragment_files(db) == named_fragments(db)
    assert not list((db.path / "log").glob(".*"))
    assert_whole(db, ids, tmp_path / "reference.pdb")
    ballast.unlink()
    seed = next(seeds) - 1
    assert db.append([granule(seed, 60)]).added == (granule(seed).id,)


def test_a_read_only_file_system_is_named(small_disk: Path) -> None:
    db = seeded(small_disk / "a.pdb", 1, count=60)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UnwritablePath) as caught:
        db.append([granule(2, 60)])
    assert "read-only" in one_line(caught)
    with pytest.raises(UnwritablePath):
        PointDB.create(small_disk / "b.pdb", "EPSG:3031")
    assert len(PointDB(db.path).read()) == 60


def test_a_file_that_no_commit_names_does_not_exist(tmp_path: Path) -> None:
    db = seeded(tmp_path / "a.pdb", 1, 2)
    log = db.path / "log"
    (log / ".00000003.deadbeef.tmp").mkdir()
    (log / ".00000003.deadbeef.tmp" / "commit.json").write_text('{"half')
    (log / "00000003").mkdir()
    fragment = next(db.path.rglob("chunks/**/*.parquet"))
    shutil.copy(fragment, fragment.with_name("orphan.parquet"))
    assert_whole(db, {"made-up-1", "made-up-2"}, tmp_path / "reference.pdb", 300)
    assert db.append([granule(3)]).snapshot == 3


def damaged(path: Path) -> str:
    """Return the one-line error of opening, reading or counting a damaged DB."""
    with pytest.raises(DamagedFile) as caught:
        use(path)
    return one_line(caught)


def use(path: Path) -> pd.DataFrame:
    db = PointDB(path)
    db.squares()
    return db.read()


def flip(path: Path, where: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["commit.json", "squares.parquet"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_commit_is_named(tmp_path: Path, name: str, damage: str) -> None:
    db = seeded(tmp_path / "a.pdb", 1, 2, 3)
    path = db.path / "log" / "00000002" / name
    if damage == "flip":
        flip(path)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    assert str(path.parent) in damaged(db.path)


def test_a_missing_commit_is_named(tmp_path: Path) -> None:
    db = seeded(tmp_path / "a.pdb", 1, 2, 3)
    shutil.rmtree(db.path / "log" / "00000002")
    assert "log/00000002 is missing" in damaged(db.path)
    shutil.rmtree(db.path / "log")
    assert "log is missing" in damaged(db.path)


def test_a_copy_of_another_commit_is_named(tmp_path: Path) -> None:
    db = seeded(tmp_path / "a.pdb", 1, 2)
    shutil.rmtree(db.path / "log" / "00000002")
    shutil.copytree(db.path / "log" / "00000001", db.path / "log" / "00000002")
    assert "commit 1" in damaged(db.path)


def largest_fragment(db: PointDB) -> Path:
    return max(db.path.rglob("chunks/**/*.parquet"), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("where", [0.0, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_flipped_bit_in_a_fragment_never_becomes_a_point(tmp_path: Path, where: float) -> None:
    db = seeded(tmp_path / "a.pdb", 1, count=5000)
    fragment = largest_fragment(db)
    before = db.read()
    flip(fragment, where)
    try:
        after = PointDB(db.path).read()
    except DamagedFile as error:
        message = str(error)
    else:
        # No reader needs the flipped bit.
        message = str(fragment)
        pd.testing.assert_frame_equal(after, before)
    assert str(fragment) in message
    assert "\n" not in message


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PointDB:
    return seeded(tmp_path_factory.mktemp("flips") / "a.pdb", 1, 2, count=900)


PLACES = {
    "footer": ("chunks/**/*.parquet", lambda size, footer: (size - footer, size)),
    "pages": ("chunks/**/*.parquet", lambda size, footer: (0, size - footer)),
    "squares": ("log/*/squares.parquet", lambda size, footer: (0, size)),
    "commit": ("log/*/commit.json", lambda size, footer: (0, size)),
    "description": ("cryotile.json", lambda size, footer: (0, size)),
}
"""Kind → files, and where in one of them bits are flipped, from its size and that of its footer."""

FLIPS = 400 if os.environ.get("CRYOTILE_LONG") else 30
"""Number of bits that are flipped in each kind."""


@pytest.mark.parametrize("kind", PLACES)
def test_a_bit_flipped_anywhere_changes_no_point_or_is_one_line(kind: str, whole: PointDB) -> None:
    pattern, limits = PLACES[kind]
    path = max(whole.path.glob(pattern), key=lambda p: p.stat().st_size)
    content, draw = path.read_bytes(), random.Random(kind)
    footer = int.from_bytes(content[-8:-4], "little") + 8
    points, squares, messages = whole.read(), whole.squares(), list[str]()
    where = "time >= '2015-01-02' and platform == 'icesat2'"
    selected = whole.read(where=where)
    try:
        for _ in range(FLIPS):
            altered = bytearray(content)
            altered[draw.randrange(*limits(len(content), footer))] ^= 1 << draw.randrange(8)
            path.write_bytes(altered)
            try:
                opened = PointDB(whole.path)
                pd.testing.assert_frame_equal(opened.squares(), squares)
                pd.testing.assert_frame_equal(opened.read(where=where), selected)
                pd.testing.assert_frame_equal(opened.read(), points)
            except CryotileError as error:
                messages.append(str(error))
    finally:
        path.write_bytes(content)
    assert not any("\n" in message for message in messages)
    # Only some bits of a page's header have no effect; the description is put back from its copy.
    assert len(messages) == (0 if kind == "description" else FLIPS) or kind == "pages"


def test_a_point_db_without_digests_of_footers_can_be_read(tmp_path: Path) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    before = db.read()
    commits = Log(db.path / "log")
    snapshot = commits.load()
    old = [
        {n: v for n, v in row.items() if n != "footer"} for row in snapshot.fragments.to_pylist()
    ]
    removed = snapshot.fragments["path"].to_pylist()
    for row in old:
        new = row["path"].replace(".parquet", "-again.parquet")
        (db.path / row["path"]).rename(db.path / new)
        row["path"] = new
    commits.commit(snapshot, Commit(fragments=old, removed_fragments=removed))
    pd.testing.assert_frame_equal(PointDB(db.path).read(), before)


def test_a_truncated_or_missing_fragment_is_named(tmp_path: Path) -> None:
    db = seeded(tmp_path / "a.pdb", 1, count=5000)
    fragment = largest_fragment(db)
    content = fragment.read_bytes()
    fragment.write_bytes(content[: len(content) // 2])
    assert str(fragment) in damaged(db.path)
    fragment.unlink()
    assert fragment.name in damaged(db.path)


def test_a_reader_that_loses_a_fragment_to_a_newer_commit_continues(tmp_path: Path) -> None:
    db = seeded(tmp_path / "a.pdb", 1)
    commits = Log(db.path / "log")
    snapshot = commits.load()
    before = db.read()
    renamed = []
    for entry in snapshot.fragments.to_pylist():
        new = entry["path"].replace(".parquet", "-again.parquet")
        (db.path / entry["path"]).rename(db.path / new)
        renamed.append({**entry, "path": new})
    nothing = commits.squares(snapshot).slice(0, 0)
    removed = snapshot.fragments["path"].to_pylist()
    commits.commit(snapshot, Commit([], renamed, nothing, (), removed))
    pd.testing.assert_frame_equal(db.read(), before)
    assert db.snapshot == 2


def test_a_path_that_is_gone_or_not_a_point_db_or_newer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="moved away"):
        PointDB(tmp_path / "gone.pdb")
    with pytest.raises(InvalidValue, match="not a point DB"):
        PointDB(tmp_path)
    db = seeded(tmp_path / "a.pdb", 1)
    # The description and its copy.
    descriptions = [db.path / "cryotile.json", db.path / "log" / "cryotile.json"]
    text = descriptions[0].read_text()
    for version, rule in [(2, r"version 2.*newer cryotile"), (0, "checksum")]:
        for file in descriptions:
            file.write_text(text.replace('"format_version": 1', f'"format_version": {version}'))
        with pytest.raises(CryotileError, match=rule):
            PointDB(db.path)
    for file in descriptions:
        file.write_text("{}")
    with pytest.raises(DamagedFile, match=r"cryotile\.json"):
        PointDB(db.path)
    db.path.rename(tmp_path / "elsewhere.pdb")
    with pytest.raises(UnwritablePath, match="moved away"):
        db.append([granule(2)])
    assert not db.path.exists()
