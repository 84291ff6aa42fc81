"""The status of a run is true: tiles done, tasks running, workers lost."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cryotile.backends import open_backend
from cryotile.cli import status as status_command
from cryotile.farm.journal import Journaled
from cryotile.farm.task import Outcome, Progress, Task, Work
from cryotile.runs.run import Run
from cryotile.runs.status import Observer, RunningTask, RunStatus, State
from cryotile.runs.status_page import status_page
from cryotile.runs.work import FitTile
from cryotile.testing.backends import HoldingWork, await_holder, holders
from tests.support.command_line import Call, Cryotile, start
from tests.support.small_run import fit, make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


def look(run: Run) -> RunStatus:
    """Return the status that a new observer sees."""
    return Observer(Run.load(run.path)).look()


def journaled(run: Run, work: Work | None = None) -> Journaled:
    return Journaled(work or FitTile(run.path, run.generation), run.journal)


def work_on(run: Run, work: Work, backend: str = "serial") -> Generator[Outcome]:
    farm = open_backend(backend, home=run.path, key=run.key)
    return run.record(farm.run(run.tasks, journaled(run, work)))  # type: ignore[return-value]


def write_journal(run: Run, name: str, *lines: dict[str, object]) -> None:
    """Write the journal of a worker on another host."""
    run.journal.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (run.journal / f"{name}.jsonl").write_text(text, "utf-8")


def counts(status: RunStatus) -> tuple[int, int, int, int]:
    """Return the tiles done, running, waiting and failed; they add up to all tiles."""
    numbers = status.done, len(status.running), status.waiting, len(status.failed)
    assert sum(numbers) == status.tiles
    return numbers


def test_all_tiles_of_a_new_run_wait_and_its_rate_is_unknown(run: Run) -> None:
    status = look(run)
    assert counts(status) == (0, 0, len(run.tasks), 0)
    assert (status.hosts, status.tiles_per_minute, status.seconds_left) == ({}, 0.0, None)
    assert not status.over


def test_a_complete_run_is_over(run: Run) -> None:
    assert all(outcome.error is None for outcome in work_on(run, FitTile(run.path, run.generation)))
    status = look(run)
    assert counts(status) == (len(run.tasks), 0, 0, 0)
    assert status.over
    assert status.lost == ()


@dataclass(frozen=True)
class Failing:
    """Work that fails at one tile and fits the others."""

    work: FitTile
    index: int

    def __call__(self, task: Task, progress: Progress) -> None:
        if task.index == self.index:
            raise RuntimeError(f"tile {task.index} is cursed")
        self.work(task, progress)


def test_a_tile_that_failed_is_named_with_its_error_until_it_is_retried(run: Run) -> None:
    list(work_on(run, Failing(FitTile(run.path, run.generation), 2)))
    status = look(run)
    assert counts(status) == (len(run.tasks) - 1, 0, 0, 1)
    assert status.over
    ((tile, error),) = status.failed.items()
    assert tile == run.tile(2).name
    assert error.strip().endswith("RuntimeError: tile 2 is cursed")
    run.retry()
    assert counts(look(run)) == (len(run.tasks) - 1, 0, 1, 0)
    fit(run, 2)
    assert look(run).over


def running_and_killed(run: Run, pipe: Path) -> tuple[RunStatus, RunStatus]:
    """Return the status while a worker fits the second tile, and just after it was killed unnoticed."""
    with holders(pipe) as reader:
        outcomes = work_on(run, HoldingWork(pipe, run.tasks[0].index), "local:1")
        next(outcomes)
        await_holder(reader)
        before = look(run)
        holder = int(os.read(reader, 100))
        os.kill(holder, signal.SIGKILL)
        # Wait until it has ended, but do not reap it.
        os.waitid(os.P_PID, holder, os.WEXITED | os.WNOWAIT)
        after = look(run)
        outcomes.close()
    return before, after


def test_the_worker_of_a_tile_is_shown_and_lost_from_its_death_to_the_next_worker(
    run: Run, tmp_path: Path
) -> None:
    before, after = running_and_killed(run, tmp_path / "pipe")
    (attempt,) = before.running
    assert attempt.tile == run.tile(1).name
    assert attempt.host == os.uname().nodename
    assert before.hosts == {attempt.host: 1}
    assert 0 <= attempt.seconds < 60
    assert counts(before) == (0, 1, len(run.tasks) - 1, 0)
    assert before.tiles_per_minute > 0
    assert before.seconds_left is not None
    assert counts(after) == (0, 0, len(run.tasks), 0)
    assert [(lost.tile, lost.pid) for lost in after.lost] == [(attempt.tile, attempt.pid)]
    assert after.seconds_left is None
    # Another worker takes it over.
    journaled(run)(run.tasks[1], lambda fraction: None)
    status = look(run)
    assert status.lost == ()
    assert status.done == 1


def test_a_worker_on_another_host_runs_until_its_heartbeats_stop(run: Run) -> None:
    now = time.time()
    write_journal(
        run,
        "node-01-7-aa",
        {"time": now - 300, "start": 0},
        {"time": now - 5, "task": 0, "fraction": 0.5, "seconds": 295.0},
    )
    write_journal(run, "node-02-8-bb", {"time": now - 7200, "start": 1})
    status = look(run)
    assert [(a.tile, a.host, a.pid, a.fraction) for a in status.running] == [
        (run.tile(0).name, "node-01", 7, 0.5)
    ]
    assert [(a.tile, a.host) for a in status.lost] == [(run.tile(1).name, "node-02")]
    assert status.running[0].seconds == pytest.approx(300, abs=30)
    assert status.hosts == {"node-01": 1}


def test_a_tile_with_two_workers_is_shown_with_the_later_one(run: Run) -> None:
    now = time.time()
    write_journal(run, "a-1-x", {"time": now - 60, "start": 0})
    write_journal(run, "b-2-y", {"time": now - 30, "start": 0})
    assert [attempt.host for attempt in look(run).running] == ["b"]


def test_a_saved_tile_is_done_whatever_the_journal_says(run: Run) -> None:
    fit(run, 0)
    write_journal(run, "a-1-x", {"time": time.time(), "start": 0})
    assert counts(look(run)) == (1, 0, len(run.tasks) - 1, 0)


def test_the_journals_of_an_older_task_list_are_ignored(run: Run) -> None:
    write_journal(run, "a-1-x", {"time": time.time(), "start": 0})
    (run.path / "generations" / "0001").rename(run.path / "generations" / "0002")
    assert look(run).running == ()


def test_the_time_left_follows_from_the_costs_and_the_pool(run: Run) -> None:
    """Two workers share the rest; a task takes one second plus a time proportional to its cost."""
    now, law = time.time(), 1e-3
    taken = {index: 1 + law * run.tasks[index].cost for index in range(6)}
    for host, indices in (("a", range(3)), ("b", range(3, 6))):
        begin = now - sum(taken[index] for index in indices)
        lines = []
        for index in indices:
            begin += taken[index]
            lines.append({"time": begin, "end": index, "seconds": taken[index]})
            fit(run, index)
        write_journal(run, f"{host}-1-x", *lines, {"time": now, "start": 6 if host == "a" else 7})
    status = look(run)
    passed = time.time() - now
    left = [1 + law * task.cost for task in run.tasks[6:]]
    least = max(sum(left) / 2, max(left))
    # The costliest task may start when the other worker has nothing left to do.
    expected = (least, max(least, (sum(left) + max(left)) / 2))
    assert status.seconds_left == pytest.approx(expected, rel=0.02, abs=2 * passed)
    spent = [sum(taken[index] for index in part) for part in (range(3), range(3, 6))]
    most, least = (sum(180 / (each + more) for each in spent) for more in (-0.01, passed + 0.01))
    assert least < status.tiles_per_minute < most


def test_an_observer_sees_changes(run: Run) -> None:
    observer = Observer(run)
    seen = [counts(observer.look())[0]]
    for index in range(3):
        journaled(run)(run.tasks[index], lambda fraction: None)
        seen.append(counts(observer.look())[0])
    assert seen == [0, 1, 2, 3]


# --- the command -------------------------------------------------------------------------------------------------


def test_the_status_for_programs_is_complete(call: Call, run: Run) -> None:
    fit(run, 0)
    write_journal(run, "a-1-x", {"time": time.time(), "start": 1})
    code, output, _ = call("status", run.path, "--json")
    assert code == 0
    said = json.loads(output)
    assert set(said) == set(RunStatus.__dataclass_fields__)
    assert set(said["running"][0]) == set(RunningTask.__dataclass_fields__)
    assert (said["done"], said["waiting"], said["failed"]) == (1, len(run.tasks) - 2, {})


def test_the_status_for_people_has_counts_tiles_errors_and_the_remedy(call: Call, run: Run) -> None:
    list(work_on(run, Failing(FitTile(run.path, run.generation), 2), "local:1"))
    run.store.file(run.tile(1)).unlink()
    code, said, _ = call("status", run.path)
    assert code == 0
    assert (
        f"{len(run.tasks) - 2} of {len(run.tasks)} tiles done, 0 running, 1 waiting, 1 failed"
        in said
    )
    assert "no worker is running" in said
    assert "RuntimeError: tile 2 is cursed" in said
    assert f"go on with: cryotile run {run.path}" in said


def test_watching_ends_with_the_run_and_prints_each_change_once(run: Run) -> None:
    fit(run, *range(2, len(run.tasks)))
    watch = start("status", run.path, "--watch")
    assert watch.stdout is not None
    first = watch.stdout.readline()
    assert "2 waiting, 0 failed" in first
    fit(run, 0, 1)
    rest, complaint = watch.communicate(timeout=240)
    assert watch.returncode == 0, complaint
    said = [first, *rest.splitlines(keepends=True)]
    assert len(set(said)) == len(said)
    assert "0 waiting, 0 failed" in said[-1]


def test_watching_a_run_that_ends_with_failures_returns_1(call: Call, run: Run) -> None:
    list(work_on(run, Failing(FitTile(run.path, run.generation), 2)))
    code, _, complaint = call("status", run.path, "--watch")
    assert code == 1
    assert f"cryotile retry {run.path}" in complaint


def test_interrupted_watching_returns_130(run: Run) -> None:
    watch = start("status", run.path, "--watch")
    assert watch.stdout is not None
    watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    _, complaint = watch.communicate(timeout=240)
    assert watch.returncode == 130
    assert "Traceback" not in complaint


def test_retry_restores_a_failed_tile(call: Call, run: Run) -> None:
    list(work_on(run, Failing(FitTile(run.path, run.generation), 2)))
    code, _, complaint = call("run", run.path, "--backend", "serial")
    assert code == 1
    assert f"the first, {run.tile(2).name}: RuntimeError: tile 2 is cursed" in complaint
    assert call("retry", run.path)[0] == 0
    code, said, _ = call("run", run.path, "--backend", "serial")
    assert code == 0
    assert f"all {len(run.tasks)} tiles are there" in said


def test_the_page_of_a_run_is_one_file_with_what_a_server_would_tell(
    cryotile: Cryotile, run: Run, tmp_path: Path
) -> None:
    fit(run, 0, 2)
    write_journal(
        run, "a-1-x",
        {"time": 1000.0, "start": 0}, {"time": 1010.0, "end": 0, "seconds": 10.0},
        {"time": 1011.0, "start": 1}, {"time": 1100.0, "end": 1, "seconds": 5.0, "error": "OSError: 7"},
        {"time": 1101.0, "start": 2}, {"time": 1103.5, "end": 2, "seconds": 2.5},
    )  # fmt: skip
    error = "Traceback\nOSError: cannot read /data/7"
    list(run.record([Outcome(run.tasks[1], 5.0, 3, "a", error)]))
    file = tmp_path / "status.html"
    assert str(file) in cryotile("status", run.path, "--html", file)
    html = file.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    told = json.loads(re.search(r'id="embedded">(.*?)</script>', html)[1])
    assert (told["run"]["done"], told["run"]["failed"], told["run"]["tasks"]) == (
        2,
        1,
        len(run.tasks),
    )
    assert told["map"]["columns"] == run.table["ix"].tolist()
    tiles = base64.b64decode(told["tiles"])
    assert struct.unpack_from("<II", tiles) == (0x54435931, 3)
    assert np.frombuffer(tiles, "<u4", 3, 20).tolist() == [0, 1, 2]
    assert np.frombuffer(tiles, "<f4", 3, 32).tolist() == [10.0, 5.0, 2.5]
    assert list(tiles[-6:]) == [2, 3, 2, 1, 1, 1]
    pictures = base64.b64decode(told["thumbnails"]["status"])
    assert np.frombuffer(pictures, "<u4", 2, 28).tolist() == [0, 2]
    status = run.store.load(run.tile(2))["status"].to_numpy()
    assert np.array_equal(np.frombuffer(pictures, "u1")[-100:], 1 + status.ravel())
    assert told["history"]["minutes"] == [[16, 1, 0], [18, 1, 1]]
    assert told["history"]["samples"] == [[run.tasks[2].cost, 2.5], [run.tasks[0].cost, 10.0]]
    assert told["history"]["streams"][0]["spans"][0] == [1000.0, 1010.0]
    (worker,) = told["workers"]["workers"]
    assert (worker["host"], worker["done"], worker["failed"]) == ("a", 2, 1)
    groups = {group["error"]: group for group in told["failures"]["groups"]}
    assert groups["OSError: cannot read …"]["tasks"] == [1]
    assert groups["OSError: cannot read …"]["text"] == error


def test_the_page_shows_workers_at_their_first_tile(run: Run) -> None:
    now = time.time()
    write_journal(
        run, "node-01-7-aa",
        {"time": now - 300, "start": 0}, {"time": now - 5, "task": 0, "fraction": 0.5, "seconds": 295.0},
    )  # fmt: skip
    write_journal(run, "node-02-8-bb", {"time": now - 7200, "start": 1})
    told = json.loads(re.search(r'id="embedded">(.*?)</script>', status_page(run))[1])
    works, lost = told["workers"]["workers"]
    assert (works["host"], works["pid"], works["leased"], works["stuck"]) == (
        "node-01",
        7,
        1,
        False,
    )
    assert (lost["host"], lost["pid"], lost["leased"], lost["stuck"]) == ("node-02", 8, 0, True)
    assert works["age"] < 60 < 7000 < lost["age"]
    assert told["run"]["seen"] == pytest.approx(now - 5, abs=1)
    (stream,) = told["history"]["streams"]
    ((begin, end),) = stream["spans"]
    assert (stream["worker"], begin) == (works["number"], pytest.approx(now - 300, abs=1))
    assert end == told["history"]["clock"]
    tiles = base64.b64decode(told["tiles"])
    assert struct.unpack_from("<II", tiles) == (0x54435931, 1)
    assert np.frombuffer(tiles, "<u4", 1, 32).tolist() == [works["number"]]


def test_the_page_of_a_run_is_a_file_alone(cryotile: Cryotile, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "status.html"
    assert "leave --watch" in cryotile("status", run.path, "--html", file, "--watch", status=2)
    assert "has a page" in cryotile("status", "https://farm.example", "--html", file, status=2)
    assert not file.exists()


def test_watching_on_a_terminal_draws_one_screen_in_place(run: Run) -> None:
    fit(run, *range(1, len(run.tasks)))
    master, slave = pty.openpty()
    watch = subprocess.Popen(
        [sys.executable, "-m", "cryotile", "status", str(run.path), "--watch"],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        stdout=slave,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(slave)
    said = b""
    try:
        while piece := os.read(master, 10_000):
            if b"1 waiting" in said + piece and b"1 waiting" not in said:
                fit(run, 0)
            said += piece
    except OSError:
        # The terminal is closed at its other end.
        pass
    os.close(master)
    _, complaint = watch.communicate(timeout=240)
    assert watch.returncode == 0, complaint
    text = said.decode()
    first, last = text.index("1 waiting"), text.rindex("0 waiting, 0 failed")
    # The cursor goes up, and what was there is drawn again.
    assert "\x1b[1A" in text[first:last]
    assert "█" in text[first:last]
    assert "cryotile assemble" in text[last:]


def test_a_terminal_shows_a_coarse_map_of_the_tiles(run: Run) -> None:
    observer = Observer(run)
    seen = observer.look()
    columns, rows = (run.table[name].to_numpy() for name in ("ix", "iy"))
    observer.states[:] = State.DONE
    observer.states[(columns == columns.min()) & (rows == rows.max())] = State.FAILED
    console = Console(force_terminal=True, width=60, height=40, file=io.StringIO(), record=True)
    console.print(status_command._picture(seen, observer, run, console, watching=True))
    lines = console.export_text().splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.startswith("x")]
    width, height = int(np.ptp(columns)) + 1, (int(np.ptp(rows)) + 2) // 2
    assert lines[first].strip() == "x" + "█" * (width - 1)
    assert lines[first + 1 : first + height] == ["█" * width] * (height - 1)
