"""Heartbeats: a farm has them while it runs, and their absence shows that a whole host is gone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from cryotile.backends import open_backend
from cryotile.farm import heartbeat
from cryotile.farm.heartbeat import FAINT, Heartbeat, heartbeat_ages
from cryotile.farm.journal import Journaled
from cryotile.farm.task import Progress, Task
from cryotile.processes import this_process
from cryotile.runs.run import Run
from cryotile.runs.status import Observer
from tests.support.command_line import Call
from tests.support.small_run import make_run
from tests.support.waiting import wait_until

FARM, WORKER = "elsewhere.1:70:1", "elsewhere.1:71:2"


def do_nothing(task: Task, progress: Progress) -> None:
    """Do nothing."""


def sign(directory: Path, process: str = "") -> Path:
    return directory / f"{process or this_process()}.heartbeat"


def await_sign(path: Path) -> None:
    """Wait until the time of a file is not 0."""
    wait_until(lambda: path.exists() and path.stat().st_mtime > 0, lambda: "no heartbeat")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run whose first tile a worker on another host has just started."""
    run = make_run(tmp_path)
    run.journal.mkdir(parents=True)
    lines = [
        {"time": time.time(), "process": WORKER, "farm": FARM},
        {"time": time.time(), "start": run.tasks[0].index},
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (run.journal / "elsewhere-71-0a0a.jsonl").write_text(text, "utf-8")
    return run


def test_a_farm_has_heartbeats_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    with Heartbeat(tmp_path / "journal"):
        path = sign(tmp_path / "journal")
        await_sign(path)
        os.utime(path, (0, 0))
        await_sign(path)
    assert path.stat().st_mtime == 0


def test_a_farm_that_cannot_write_heartbeats_still_works(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Heartbeat(tmp_path / "file" / "journal"):
        (tmp_path / "work").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"file", "work"}


def test_a_journal_names_the_farm_of_its_worker(tmp_path: Path) -> None:
    list(open_backend("local:1", home=None, key="k").run([Task(0, 1.0)], Journaled(do_nothing, tmp_path)))  # fmt: skip
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text("utf-8").partition("\n")[0])["farm"] == this_process()


@pytest.mark.parametrize("process", [FARM, WORKER])
def test_a_worker_on_another_host_is_lost_without_heartbeats(run: Run, process: str) -> None:
    assert len(Observer(run).look().running) == 1
    path = sign(run.journal, process)
    path.touch()
    now = path.stat().st_mtime
    os.utime(path, (now, now + FAINT))
    assert len(Observer(run).look().running) == 1
    os.utime(path, (now, now - FAINT - 1))
    seen = Observer(run).look()
    assert (len(seen.running), len(seen.lost), seen.waiting) == (0, 1, len(run.tasks))


def test_without_permission_to_write_heartbeats_are_compared_with_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for process, time_of in (("a", 1000.0), ("b", 1030.0)):
        sign(tmp_path, process).touch()
        os.utime(sign(tmp_path, process), (time_of, time_of))

    def refuse(**options: object) -> None:
        raise PermissionError

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert heartbeat_ages(tmp_path, ["a", "b", "no such"]) == {"a": 30.0, "b": 0.0}


def test_the_command_writes_heartbeats_beside_the_journals(tmp_path: Path, call: Call) -> None:
    run = make_run(tmp_path)
    assert call("run", run.path, "--backend", "serial")[0] == 0
    assert sign(run.journal).stat().st_mtime == 0
