from __future__ import annotations

import dataclasses
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow.parquet as pq
import pytest

import cryotile
from cryotile.errors import CryotileError, DamagedFile, InvalidValue, UnwritablePath
from cryotile.pointdb import PointDB, append, entries
from cryotile.pointdb.entries import Entries
from cryotile.pointdb.log import Log
from cryotile.pointdb.state import Change, State
from cryotile.points import Granule
from made_up import granule

KILLS = 200 if os.environ.get("CRYOTILE_LONG") else 8
"""How often a writer is killed."""

WRITER = Path(__file__).with_name("pointdb_writer.py")


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server that is late is so by less than a second."""
    monkeypatch.setattr(entries, "VISIBILITY_LIMIT", 1.0)


def filled(path: Path, *seeds: int, count: int = 300) -> PointDB:
    db = PointDB.create(path, "EPSG:3031")
    for seed in seeds:
        db.append([granule(seed, count)])
    return db


def assert_whole(db: PointDB, ids: set[str], scratch: Path, count: int = 60) -> None:
    """The DB holds exactly these granules, and all files that its log names."""
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


def one_line(error: pytest.ExceptionInfo[CryotileError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def write(*arguments: object) -> subprocess.Popen[str]:
    source = str(Path(cryotile.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{WRITER.parent}"}
    command = [sys.executable, str(WRITER), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> dict[str, list[str]]:
    output, _ = process.communicate(timeout=120)
    words: dict[str, list[str]] = {"begin": [], "end": [], "touched": []}
    for line in output.splitlines():
        word, what = line.split()
        words[word].append(what)
    return words


def test_killed_at_any_moment_a_writer_leaves_whole_commits(tmp_path: Path) -> None:
    # A first writer makes the directories of all chunks, so that those after it touch about as much as it counts.
    db = filled(tmp_path / "killed.pdb", 0, count=60)
    words = said(write(db.path, 1, 2, 0))
    committed = {granule(seed).id for seed in range(3)}
    assert words["end"] == ["made-up-1", "made-up-2"]
    touches = int(words["touched"][0])
    moments = random.Random(20190504).sample(range(1, touches * 9 // 10), KILLS)
    before, after = 0, 0
    for attempt, kill_at in enumerate(moments, start=1):
        words = said(process := write(db.path, 3 * attempt, 3, kill_at))
        assert process.returncode == -signal.SIGKILL
        ids = set(PointDB(db.path).granules["id"])
        committed |= set(words["end"])
        hit = set(words["begin"]) - set(words["end"])
        assert committed <= ids <= committed | hit
        before += bool(hit - ids)
        after += bool(hit & ids)
        committed = ids
    assert_whole(db, committed, tmp_path / "reference.pdb")
    assert before + after == KILLS, "every kill hits inside an append"
    assert before >= KILLS // 2
    # What the killed ones began goes in as if nothing had been.
    seeds = range(3 * (KILLS + 1))
    again = PointDB(db.path).append([granule(seed, 60) for seed in seeds])
    assert set(again.unchanged) == committed
    assert_whole(db, {granule(seed).id for seed in seeds}, tmp_path / "all.pdb")


def test_writers_at_once_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    db = filled(tmp_path / "busy.pdb")
    writers = [write(db.path, first, 12, 0) for first in (0, 4, 8)]
    for writer in writers:
        assert len(said(writer)["end"]) == 12
        assert writer.returncode == 0
    assert_whole(db, {granule(seed).id for seed in range(20)}, tmp_path / "reference.pdb")
    assert PointDB(db.path).snapshot == 20


@pytest.fixture
def rival(monkeypatch: pytest.MonkeyPatch) -> Callable[[PointDB, Granule], None]:
    """Lets another writer commit a granule just before the next commit."""

    def arrange(db: PointDB, other: Granule) -> None:
        commit = Log.commit

        def outrun(self: Log, state: State, change: Change) -> State:
            monkeypatch.setattr(Log, "commit", commit)
            PointDB(db.path).append([other])
            return commit(self, state, change)

        monkeypatch.setattr(Log, "commit", outrun)

    return arrange


def test_who_loses_a_number_takes_the_next(
    tmp_path: Path, rival: Callable[[PointDB, Granule], None]
) -> None:
    db = filled(tmp_path / "a.pdb", 1)
    rival(db, granule(2))
    assert db.append([granule(3)]).added == ("made-up-3",)
    assert db.snapshot == 3
    assert_whole(db, {f"made-up-{i}" for i in (1, 2, 3)}, tmp_path / "reference.pdb", 300)


def test_a_granule_that_another_writer_added_meanwhile_is_not_doubled(
    tmp_path: Path, rival: Callable[[PointDB, Granule], None]
) -> None:
    db = filled(tmp_path / "a.pdb", 1)
    rival(db, granule(2))
    appended = db.append([granule(2), granule(3)])
    assert (appended.added, appended.unchanged) == (("made-up-3",), ("made-up-2",))
    assert_whole(db, {f"made-up-{i}" for i in (1, 2, 3)}, tmp_path / "reference.pdb", 300)
    rival(db, granule(4))
    assert db.append([granule(4)]).unchanged == ("made-up-4",)
    files = {p.relative_to(db.path).as_posix() for p in db.path.rglob("chunks/**/*.parquet")}
    assert files == set(Log(db.path / "log").load().fragments["path"].to_pylist())


def test_another_delivery_that_came_in_meanwhile_stays(
    tmp_path: Path, rival: Callable[[PointDB, Granule], None]
) -> None:
    db = filled(tmp_path / "a.pdb", 1)
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
    monkeypatch.setattr(append, "hashlib", hashes)
    db = filled(tmp_path / "a.pdb", 1)
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
    db = filled(tmp_path / "a.pdb", 1)
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
    db = filled(tmp_path / "a.pdb", 1)
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
    db = filled(tmp_path / "a.pdb", 1)
    rival(db, granule(2))
    read, refusals = Entries.read, iter(range(3))

    def late(self: Entries, number: int) -> dict[str, object]:
        if number == 2 and self is db._snapshots.log.entries and next(refusals, None) is not None:
            raise FileNotFoundError
        return read(self, number)

    monkeypatch.setattr(Entries, "read", late)
    assert db.append([granule(3)]).snapshot == 3
    assert next(refusals, None) is None
    assert_whole(db, {f"made-up-{i}" for i in (1, 2, 3)}, tmp_path / "reference.pdb", 300)


def test_two_creators_make_one_db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pdb"
    rename = Path.rename

    def outrun(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        filled(path, 1)
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
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_stops_with_one_line_and_loses_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    db = filled(small_disk / "a.pdb")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    seeds = iter(range(100))
    with pytest.raises(UnwritablePath) as caught:
        exhaust(db.append([granule(seed, 60)]) for seed in seeds)
    assert "No space left" in one_line(caught)
    assert "free some space" in one_line(caught)
    ids = set(PointDB(db.path).granules["id"])
    assert 0 < len(ids) < 100
    files = {p.relative_to(db.path).as_posix() for p in db.path.rglob("chunks/**/*.parquet")}
    assert files == set(Log(db.path / "log").load().fragments["path"].to_pylist())
    assert not list((db.path / "log").glob(".*"))
    assert_whole(db, ids, tmp_path / "reference.pdb")
    ballast.unlink()
    seed = next(seeds) - 1
    assert db.append([granule(seed, 60)]).added == (granule(seed).id,)


def test_a_read_only_file_system_is_named(small_disk: Path) -> None:
    db = filled(small_disk / "a.pdb", 1, count=60)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UnwritablePath) as caught:
        db.append([granule(2, 60)])
    assert "read-only" in one_line(caught)
    with pytest.raises(UnwritablePath):
        PointDB.create(small_disk / "b.pdb", "EPSG:3031")
    assert len(PointDB(db.path).read()) == 60


def test_what_no_commit_names_does_not_exist(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", 1, 2)
    log = db.path / "log"
    (log / ".00000003.deadbeef.tmp").mkdir()
    (log / ".00000003.deadbeef.tmp" / "commit.json").write_text('{"half')
    (log / "00000003").mkdir()
    fragment = next(db.path.rglob("chunks/**/*.parquet"))
    shutil.copy(fragment, fragment.with_name("orphan.parquet"))
    assert_whole(db, {"made-up-1", "made-up-2"}, tmp_path / "reference.pdb", 300)
    assert db.append([granule(3)]).snapshot == 3


def damaged(path: Path) -> str:
    """The one line that opening, reading or counting a damaged DB gives."""
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
    db = filled(tmp_path / "a.pdb", 1, 2, 3)
    path = db.path / "log" / "00000002" / name
    if damage == "flip":
        flip(path)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    assert str(path.parent) in damaged(db.path)


def test_a_missing_commit_is_named(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", 1, 2, 3)
    shutil.rmtree(db.path / "log" / "00000002")
    assert "log/00000002 is missing" in damaged(db.path)
    shutil.rmtree(db.path / "log")
    assert "log is missing" in damaged(db.path)


def test_a_commit_in_the_place_of_another_is_named(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", 1, 2)
    shutil.rmtree(db.path / "log" / "00000002")
    shutil.copytree(db.path / "log" / "00000001", db.path / "log" / "00000002")
    assert "commit 1" in damaged(db.path)


def largest_fragment(db: PointDB) -> Path:
    return max(db.path.rglob("chunks/**/*.parquet"), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("where", [0.0, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_flipped_bit_in_a_fragment_never_becomes_a_point(tmp_path: Path, where: float) -> None:
    db = filled(tmp_path / "a.pdb", 1, count=5000)
    fragment = largest_fragment(db)
    before = db.read()
    flip(fragment, where)
    try:
        after = PointDB(db.path).read()
    except DamagedFile as error:
        message = str(error)
    else:
        # The bit was one that no reader looks at.
        message = str(fragment)
        pd.testing.assert_frame_equal(after, before)
    assert str(fragment) in message
    assert "\n" not in message


def test_a_truncated_or_missing_fragment_is_named(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", 1, count=5000)
    fragment = largest_fragment(db)
    content = fragment.read_bytes()
    fragment.write_bytes(content[: len(content) // 2])
    assert str(fragment) in damaged(db.path)
    fragment.unlink()
    assert fragment.name in damaged(db.path)


def test_a_reader_that_loses_a_fragment_to_a_newer_commit_goes_on(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", 1)
    log = Log(db.path / "log")
    state = log.load()
    before = db.read()
    renamed = []
    for entry in state.fragments.to_pylist():
        new = entry["path"].replace(".parquet", "-again.parquet")
        (db.path / entry["path"]).rename(db.path / new)
        renamed.append({**entry, "path": new})
    nothing = db._snapshots.log.squares(state).slice(0, 0)
    log.commit(state, Change([], renamed, nothing, (), state.fragments["path"].to_pylist()))
    pd.testing.assert_frame_equal(db.read(), before)
    assert db.snapshot == 2


def test_a_db_that_is_none_or_gone_or_newer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="moved away"):
        PointDB(tmp_path / "gone.pdb")
    with pytest.raises(InvalidValue, match="no point DB"):
        PointDB(tmp_path)
    db = filled(tmp_path / "a.pdb", 1)
    description = db.path / "cryotile.json"
    text = description.read_text()
    for version, rule in [(2, r"version 2.*newer cryotile"), (0, "checksum")]:
        description.write_text(text.replace('"format_version": 1', f'"format_version": {version}'))
        with pytest.raises(CryotileError, match=rule):
            PointDB(db.path)
    description.write_text("{}")
    with pytest.raises(DamagedFile, match=r"cryotile\.json"):
        PointDB(db.path)
    db.path.rename(tmp_path / "elsewhere.pdb")
    with pytest.raises(UnwritablePath, match="moved away"):
        db.append([granule(2)])
    assert not db.path.exists()
