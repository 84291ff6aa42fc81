"""Ingest on a farm: the same point DB from every backend even if workers die; bad granules; memory."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import h5py
import numpy as np
import pytest

import cryotile as ct
from cryotile.errors import InvalidValue
from cryotile.farm.journal import Journaled
from cryotile.farm.task import Outcome, Task
from cryotile.pointdb import PointDB
from cryotile.points import Batch, Granule
from cryotile.readers import read_granule
from cryotile.runs import ingest, ingest_batch, progress
from cryotile.runs.ingest import Ingest, freeze_ingest
from cryotile.runs.ingest_batch import Criteria, points_within, take_in
from cryotile.runs.progress import Followed
from cryotile.runs.work import complete_ingest
from cryotile.simulate import World, simulate
from tests.support.command_line import Call, start
from tests.support.made_up import granule
from tests.support.point_dbs import same_points
from tests.support.services.dask import DaskCluster

WORLD = World(bounds=(-300e3, -1500e3, 300e3, -900e3))


@pytest.fixture(scope="session")
def mission(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return granules of two weeks of a satellite over Greenland."""
    return simulate(tmp_path_factory.mktemp("mission"), years=0.04, world=WORLD)


@pytest.fixture(scope="session")
def whole(mission: list[Path], tmp_path_factory: pytest.TempPathFactory) -> PointDB:
    """Return the point DB of the mission, made through the Python library."""
    db = PointDB.create(tmp_path_factory.mktemp("whole") / "ice.pdb", WORLD.crs)
    taken = take_in(mission, db, Criteria(), ignore)
    assert taken.problems == []
    assert len(taken.ids) == len(mission) > 20
    return db


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make batches of a few thousand points."""
    monkeypatch.setattr(ingest, "LEAST_POINTS", 2000)


def ignore(fraction: float) -> None:
    """Accept a progress call and do nothing."""


def frozen(db: Path) -> Ingest:
    """Return the only ingest of a point DB."""
    (directory,) = (db / "ingests").iterdir()
    return Ingest.load(directory)


@pytest.mark.parametrize("backend", ["serial", "local:2", "dir"])
def test_every_backend_makes_the_same_point_db(
    backend: str, call: Call, mission: list[Path], whole: PointDB, tmp_path: Path
) -> None:
    path = tmp_path / "ice.pdb"
    words = ("ingest", path, *mission, "--crs", WORLD.crs, "--backend", backend)
    code, said, complaint = call(*words)
    assert (code, complaint) == (0, "")
    assert f"{len(mission)} granules added, 0 there already" in said
    same_points(PointDB(path), whole)
    assert len(frozen(path).tasks) > 1 or backend == "serial"
    snapshot = PointDB(path).snapshot
    code, said, _ = call(*words)
    assert f"0 granules added, {len(mission)} there already" in said
    assert PointDB(path).snapshot == snapshot


def test_members_of_an_array_job_share_an_ingest(
    call: Call, mission: list[Path], whole: PointDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryotile.backends.array.usable_cores", lambda: 1)
    path = tmp_path / "ice.pdb"
    words = ("ingest", path, *mission, "--crs", WORLD.crs, "--backend")
    added = 0
    for number in range(2):
        code, said, _ = call(*words, f"index:{number}/2")
        assert code == 0
        added += int(said.split(": ")[1].split()[0])
    assert added == len(mission)
    same_points(PointDB(path), whole)


@contextmanager
def farm(style: str, words: Sequence[object], home: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Start an ingest on a farm of many hosts: one program, or the members that share it."""
    if style == "array":
        array = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "2"}
        array |= {"SLURM_ARRAY_TASK_STEP": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
        array |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1"}
        yield [
            start(*words, "--backend", "array", SLURM_ARRAY_TASK_ID=number, **array)
            for number in ("1", "2")
        ]
    else:
        with DaskCluster(home, workers=2) as cluster:
            yield [start(*words, "--backend", f"dask:{cluster.address}")]


# Members that share only the point DB, and long-lived workers.  For an ingest, mpi does not differ from local,
# nor do HTTP and SQL from dir.
@pytest.mark.parametrize("style", ["array", "dask"])
def test_an_ingest_on_a_farm_of_many_hosts_makes_the_same_point_db(
    style: str,
    mission: list[Path],
    whole: PointDB,
    tmp_path: Path,
) -> None:
    path = tmp_path / "ice.pdb"
    # The commands use the frozen ingest and its batches; made anew, so short a mission would be one batch.
    frozen = freeze_ingest(PointDB.create(path, WORLD.crs), mission, Criteria(), workers=3)
    assert len(frozen.tasks) >= 3
    words = ["ingest", path, *mission, "--crs", WORLD.crs]
    with farm(style, words, tmp_path) as commands:
        answers = [command.communicate(timeout=240) for command in commands]
    assert [command.returncode for command in commands] == [0] * len(commands), answers
    assert [directory.name for directory in (path / "ingests").iterdir()] == [frozen.path.name]
    assert frozen.missing() == []
    # Each batch is committed once, in a commit of its own.
    assert PointDB(path).snapshot == len(frozen.tasks)
    same_points(PointDB(path), whole)


def test_a_frozen_ingest_can_be_run_submitted_and_watched(
    call: Call, mission: list[Path], whole: PointDB, tmp_path: Path
) -> None:
    path = tmp_path / "ice.pdb"
    code, said, _ = call("ingest", path, *mission, "--crs", WORLD.crs, "--freeze")
    assert code == 0
    directory = frozen(path).path
    assert str(directory) in said
    assert PointDB(path).snapshot == 0
    script = call("submit", directory, "--scheduler", "slurm", "--members", 4, "--dry-run")[1]
    assert f"cryotile run {directory} --backend array" in script
    assert "batches done, 0 running" in call("status", directory)[1]
    assert call("run", directory, "--backend", "serial")[0] == 0
    assert " 0 waiting, 0 failed" in call("status", directory)[1]
    same_points(PointDB(path), whole)


def test_bad_granules_are_named_at_the_end_and_the_others_are_ingested(
    call: Call, mission: list[Path], whole: PointDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, torn, gone = Path("ice.pdb"), Path("torn.nc"), Path("gone.nc")
    torn.write_bytes(mission[0].read_bytes()[:5000])
    files = [*mission[:9], torn, *mission[9:], gone]
    for backend in ("local:2", "serial"):
        words = ("ingest", path, *files, "--crs", WORLD.crs, "--backend", backend)
        code, said, complaint = call(*words)
        assert code == 1
        first, second, last = complaint.splitlines()
        assert {first.split()[2], second.split()[2]} == {"torn.nc", "gone.nc"}
        total = f"{len(files)} granules did not go in"
        assert last.startswith("cryotile: 2 of")
        assert total in last
        same_points(PointDB(path), whole)
    assert f"0 granules added, {len(mission)} there already" in said
    # Once repaired, they are ingested by the same command.
    shutil.copy(mission[0], torn)
    shutil.copy(mission[1], gone)
    code, said, complaint = call(*words)
    assert (code, complaint) == (0, "")
    assert f"0 granules added, {len(files)} there already" in said


def test_removed_granules_are_ingested_again_by_the_same_command(
    call: Call, mission: list[Path], whole: PointDB, tmp_path: Path
) -> None:
    path = tmp_path / "ice.pdb"
    words = ("ingest", path, *mission, "--crs", WORLD.crs, "--backend", "serial")
    assert call(*words)[0] == 0
    assert call("remove", path, mission[3].name)[0] == 0
    assert "1 granule added" in call(*words)[1]
    same_points(PointDB(path), whole)


KILLED = """
import os, signal, sys
from cryotile.runs import ingest
from cryotile.cli import main
ingest.LEAST_POINTS, ingest.BATCH_GRANULES = 2000, 8
outcomes = ingest.Ingest.record
def record(self, found):
    for count, outcome in enumerate(outcomes(self, found), start=1):
        yield outcome
        if count == int(os.environ["DIE_AFTER"]):
            os.killpg(0, signal.SIGINT) if os.environ["DIE_BY"] == "^C" else os.kill(os.getpid(), signal.SIGKILL)
ingest.Ingest.record = record
main()
"""


def test_a_killed_ingest_continues_with_the_same_command(
    call: Call, mission: list[Path], whole: PointDB, tmp_path: Path
) -> None:
    path = tmp_path / "ice.pdb"
    words = ["ingest", path, *mission, "--crs", WORLD.crs, "--backend", "local:2"]
    for after in (1, 2):
        environment = {**os.environ, "DIE_AFTER": str(after), "DIE_BY": "kill"}
        command = [sys.executable, "-c", KILLED, *map(str, words)]
        died = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert died.returncode == -signal.SIGKILL
        # Every batch that reported success is stored, and everything stored is complete.
        done = [frozen(path).taken(task.index) for task in frozen(path).tasks]
        reported = {id for taken in done if taken is not None for id in taken.ids}
        assert reported <= set(PointDB(path).granules["id"])
        assert list(PointDB(path).verify()) == []
    there = len(PointDB(path).granules)
    assert 0 < there <= len(mission)
    code, said, _ = call(*words[:-1], "serial")
    assert code == 0
    assert f"{len(mission) - there:,} granule" in said
    same_points(PointDB(path), whole)


@pytest.mark.parametrize("backend", ["serial", "local:2"])
def test_an_interrupted_ingest_says_what_is_in_and_which_command_goes_on(
    backend: str, call: Call, mission: list[Path], whole: PointDB, tmp_path: Path
) -> None:
    path = tmp_path / "my ice.pdb"
    # A granule of an earlier ingest does not count.
    assert call("ingest", path, mission[0], "--crs", WORLD.crs, "--backend", "serial")[0] == 0
    words = ["ingest", path, *mission[1:], "--backend", backend]
    # As a terminal does: the children get the signal, too.
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, words)],
        env={**os.environ, "DIE_AFTER": "2", "DIE_BY": "^C"},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert ended.returncode == 130
    db = PointDB(path)
    added = db.granules[db.granules["name"] != mission[0].name]
    assert 0 < len(added) < len(mission) - 1
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith(
        f"cryotile: interrupted; {len(added)} of {len(mission) - 1} granules are in {path}, with"
        f" {added['rows'].sum():,} points; go on with the same command, or with: cryotile run"
        f" '{path}/ingests/"
    )
    assert list(db.verify()) == []
    command = shlex.split(ended.stderr.rpartition(": cryotile ")[2])
    assert call(*command, "--backend", "serial")[0] == 0
    same_points(PointDB(path), whole)


def test_a_directory_and_a_list_stand_for_their_granules(
    call: Call, mission: list[Path], whole: PointDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, path = tmp_path / "data", tmp_path / "data" / "ice.pdb"
    below = data / "2011"
    below.mkdir(parents=True)
    for file in mission[:9]:
        shutil.copy(file, below)
    (below / f"._{mission[0].name}").write_text("left by another system")
    ingest = ("ingest", path, "--backend", "serial")
    code, said, complaint = call(*ingest, data, "--crs", WORLD.crs)
    assert code == 0
    assert "9 granules added, 0 there already" in said
    first = f"the first: {below}/._{mission[0].name}"
    assert complaint.splitlines()[0] == f"note: 1 file left out, no granules by name ({first})"
    # The point DB lies below the directory now, and its own files are no granules.
    assert "0 granules added, 9 there already" in call(*ingest, data)[1]
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{file}\r\n\n" for file in mission[9:15]))
    assert "6 granules added" in call(*ingest, "--files-from", listed)[1]
    lines = BytesIO(b"\n".join(os.fsencode(file) for file in mission[15:]))
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(lines))
    assert f"{len(mission) - 15} granules added" in call(*ingest, "--files-from", "-")[1]
    same_points(PointDB(path), whole)
    assert len(ct.ingest(path, data).last_ingest.added) == 0


def test_a_list_or_directory_without_granules_is_refused_with_the_remedy(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, listed = tmp_path / "empty", tmp_path / "list.txt"
    empty.mkdir()
    (empty / "README").touch()
    listed.write_text("\n \n")
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO()))
    for words, says in {
        (empty,): "is a directory without a file that may be a granule (README and the like",
        ("--files-from", listed): "list.txt names no granule; give one path a line",
        ("--files-from", "-"): "standard input names no granule; give one path a line",
        ("--files-from", tmp_path / "no.txt"): "no.txt cannot be read: No such file",
        (): "no granule was named; give the paths of one or more, or of a directory",
    }.items():
        code, _, complaint = call("ingest", tmp_path / "ice.pdb", *words, "--crs", WORLD.crs)
        assert code == 2
        assert len(complaint.splitlines()) == 1
        assert says in complaint
    assert not (tmp_path / "ice.pdb").exists()


def test_missing_paths_of_a_list_are_counted_before_and_named_after(
    call: Call, mission: list[Path], tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{mission[0]}\n{tmp_path}/gone 1.nc\n{tmp_path}/gone 2.nc\n")
    words = ("ingest", tmp_path / "ice.pdb", "--crs", WORLD.crs, "--backend", "serial")
    words += ("--files-from", listed)
    code, said, complaint = call(*words)
    assert code == 1
    assert "1 granule added" in said
    first, *others = complaint.splitlines()
    assert first == f"note: 2 of 3 listed paths do not exist (the first: '{tmp_path}/gone 1.nc')"
    assert ["gone 1.nc" in others[0], "gone 2.nc" in others[1]] == [True, True]
    assert others[2].startswith("cryotile: 2 of 3 granules did not go in")


def test_progress_counts_the_bytes_of_files_and_of_pieces_of_a_long_table(
    mission: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []
    files = sorted(mission[:6], key=lambda file: file.stat().st_size)
    take_in(files, PointDB.create(tmp_path / "a.pdb", WORLD.crs), Criteria(), heard.append)
    sizes = np.array([file.stat().st_size for file in files])
    begins = (np.cumsum(sizes) - sizes) / sizes.sum()
    assert heard == pytest.approx(ingest_batch.READING * begins)
    # Of text the number of rows is not known before they are read.
    (table,) = simulate(tmp_path / "csv", product="csv", years=0.04, world=WORLD)
    rows = len(read_granule(table).points) // 4
    monkeypatch.setattr(ingest_batch, "_rows_within", lambda memory, extra: rows)
    monkeypatch.setattr(ingest_batch._IngestBatchState, "_is_long", lambda self, file: True)
    heard.clear()
    take_in([table], PointDB.create(tmp_path / "b.pdb", WORLD.crs), Criteria(), heard.append)
    assert heard == sorted(heard)
    assert len(set(heard)) >= 8
    assert max(heard) == ingest_batch.READING


def test_a_bar_moves_within_a_batch_that_a_worker_reads(
    mission: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryotile.farm.journal.PROGRESS_INTERVAL", 0.0)
    db = PointDB.create(tmp_path / "ice.pdb", WORLD.crs)
    tasks = freeze_ingest(db, mission, Criteria(), workers=3)
    first = tasks.tasks[0]
    followed = Followed(tasks, tasks.tasks, "ingest", tasks.journal)

    def read_half(task: Task, progress: Callable[[float], None]) -> None:
        progress(0.5)
        assert followed.position() == pytest.approx(first.cost / 2, rel=1e-3)

    assert followed.total == sum(file.stat().st_size for file in mission)
    Journaled(read_half, tasks.journal)(first, ignore)
    assert followed.position() == 0.0
    followed.settle(Outcome(first, 1.0, 1, "host"))
    assert followed.position() == first.cost
    percent = int(100 * first.cost / followed.total)
    size = tasks.sizes[0]
    assert followed.line() == (f"ingest {size} of {len(mission)} granules, {percent} % after 0 min")


def test_without_a_terminal_a_line_says_every_minute_how_far_it_is(
    mission: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert progress.LINE_INTERVAL == 60.0
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.001)
    told = threading.Event()
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        told.set()

    def read_when_told(file: Path, **options: object) -> Granule:
        assert told.wait(60)
        return read_granule(file, **options)

    monkeypatch.setattr(ingest_batch, "read_granule", read_when_told)
    db = PointDB.create(tmp_path / "ice.pdb", WORLD.crs)
    complete_ingest(freeze_ingest(db, mission, Criteria(), workers=1), "serial", tell=tell)
    assert lines[0] == f"ingest 0 of {len(mission)} granules, 0 % after 0 min"


def test_a_worker_holds_no_more_points_than_its_memory_allows(
    mission: list[Path], whole: PointDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    of = Batch.of
    monkeypatch.setattr(ingest_batch, "points_within", lambda memory, extra: 5000)
    monkeypatch.setattr(
        ingest_batch.Batch,
        "of",
        lambda granules: held.append(of(granules)) or held[-1],
        raising=False,
    )
    db = PointDB.create(tmp_path / "ice.pdb", WORLD.crs)
    take_in(mission, db, Criteria(), ignore)
    assert db.snapshot == len(held) > 2
    largest = max(len(read_granule(path).points) for path in mission)
    assert max(len(batch.points) for batch in held) <= max(5000, largest)
    same_points(db, whole)


def test_the_size_of_batches_follows_from_memory_and_workers(
    mission: list[Path], whole: PointDB, tmp_path: Path
) -> None:
    few, many = (
        freeze_ingest(PointDB.create(tmp_path / str(n), WORLD.crs), mission, Criteria(), workers=n)
        for n in (1, 3)
    )
    assert len(few.tasks) == 1
    assert 3 <= len(many.tasks) <= 8
    assert sum(many.sizes) == len(mission)
    assert [task.cost for task in many.tasks] == sorted((t.cost for t in many.tasks), reverse=True)
    listed = [file for task in many.tasks for file in many.files(task.index)]
    assert sorted(listed) == sorted(mission)
    assert (
        points_within(1e9) < points_within(2e9) <= ingest_batch.MOST_POINTS == points_within(1e12)
    )
    assert points_within(1e9, extra=3) < points_within(1e9)
    with pytest.raises(InvalidValue, match=r"200 MB is too little.*give 280MB"):
        points_within(200e6)


def test_a_granule_too_large_for_the_memory_is_refused_by_name(
    whole: PointDB, tmp_path: Path
) -> None:
    giant = tmp_path / "giant.nc"
    with h5py.File(giant, "w") as file:
        file.attrs["short_name"] = "ATL06"
        file["beam/elevation"] = np.random.default_rng(1).normal(size=(2, 150_000))
    taken = take_in([giant], PointDB(whole.path), Criteria(memory=290e6), ignore)
    ((path, problem),) = taken.problems
    assert path == str(giant)
    assert "some 300,000 records" in problem
    assert 'give memory="340MB" or more' in problem


def test_a_large_granule_that_cannot_be_opened_is_the_only_one_that_is_left_out(
    mission: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "locked.csv"
    locked.write_bytes(b"1,2,3\n" * 100_000)
    real_open = Path.open

    def refusing(path: Path, *given: object, **more: object) -> object:
        if path == locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real_open(path, *given, **more)

    # Root, as whom the tests may run, may open any file.
    monkeypatch.setattr(Path, "open", refusing)
    db = PointDB.create(tmp_path / "ice.pdb", WORLD.crs)
    taken = take_in([locked, mission[0]], db, Criteria(memory=285e6), ignore)
    assert len(taken.ids) == 1
    assert taken.problems == [
        (str(locked), f"granule {locked} cannot be opened: Permission denied; check the path")
    ]


def test_sizes_are_accepted_in_common_spellings(
    call: Call, mission: list[Path], tmp_path: Path
) -> None:
    words = ("ingest", tmp_path / "ice.pdb", mission[0], "--crs", WORLD.crs)
    words += ("--backend", "serial", "--memory")
    for wrong in ("much", "0GB", "1.2.3MB"):
        code, _, complaint = call(*words, wrong)
        assert code == 2
        assert "is not a size; write e.g. 800MB or 2GB" in complaint
    code, _, complaint = call(*words, "100MB")
    assert code == 2
    assert "memory 100 MB is too little" in complaint
    assert not (tmp_path / "ice.pdb").exists()
    assert call(*words, "0.5 GB")[0] == 0
    assert frozen(tmp_path / "ice.pdb").criteria.memory == 5e8


def test_a_batch_counts_the_points_that_it_drops() -> None:
    granules = [granule(1, 5), granule(2, 0), granule(3, 4)]
    batch = Batch.of(granules)
    kept = batch.keep(np.arange(9) % 2 == 0, "odd")
    assert kept.sizes.tolist() == [3, 0, 2]
    assert [g.dropped.get("odd", 0) for g in kept.granules] == [2, 0, 2]
    for before, after in zip(granules, kept.split(), strict=True):
        assert len(after.points) + sum(after.dropped.values()) == before.record_count
    assert batch.keep(np.ones(9, bool), "none") is batch
    assert len(Batch.of([]).points) == 0


def test_a_granule_whose_points_cannot_be_stored_does_not_block_others(tmp_path: Path) -> None:
    db = PointDB.create(tmp_path / "a.pdb", "EPSG:3031")
    bad = granule(2, 50)
    bad = replace(bad, points=bad.points.drop(columns="pass_id"))
    appended = db.append([granule(1, 50), bad, granule(3, 50)])
    assert appended.added == ("made-up-1", "made-up-3")
    assert "pass_id" in appended.refused["made-up-2"]


def test_retry_restores_a_batch_that_failed_three_times(
    call: Call, mission: list[Path], whole: PointDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reads = tmp_path / "ice.pdb", []

    def fall_over(file: Path, **options: object) -> Granule:
        if file == mission[5]:
            reads.append(file)
            raise RuntimeError("a reader of a third party fell over")
        return read_granule(file, **options)

    monkeypatch.setattr(ingest_batch, "read_granule", fall_over)
    monkeypatch.setattr(ingest, "read_granule", read_granule)
    words = ("ingest", path, *mission, "--crs", WORLD.crs, "--backend", "serial")
    for _ in range(2):
        code, _, complaint = call(*words)
        assert code == 1
        assert "1 of 1 batches did not go in (the first: RuntimeError: a reader" in complaint
        assert f": cryotile retry {frozen(path).path}\n" in complaint
    assert len(reads) == 3
    assert "1 failed" in call("status", frozen(path).path)[1]
    monkeypatch.undo()
    assert "1 failed batches put back" in call("retry", frozen(path).path)[1]
    assert call(*words)[0] == 0
    same_points(PointDB(path), whole)
