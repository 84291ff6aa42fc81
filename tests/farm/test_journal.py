"""A journal records what its worker does, also if the worker dies, and never costs a task."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cryotile.backends import open_backend
from cryotile.farm import journal
from cryotile.farm.journal import SILENCE, Journaled, Journals, Worker
from cryotile.farm.task import Progress, Task
from cryotile.processes import is_alive, this_process

TASK = Task(17, 3.0)


def do_nothing(task: Task, progress: Progress) -> None:
    progress(0.5)


def fail(task: Task, progress: Progress) -> None:
    raise ValueError("no such\nluck")


def kill_itself(task: Task, progress: Progress) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def do(directory: Path, *tasks: Task) -> None:
    for task in tasks:
        Journaled(do_nothing, directory)(task, lambda fraction: None)


def the_file(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def lines(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in the_file(directory).read_text("utf-8").splitlines()]


def the_worker(directory: Path) -> Worker:
    (worker,) = Journals(directory).read()
    return worker


def test_a_journal_has_a_line_before_and_after_the_work(tmp_path: Path) -> None:
    before = time.time()
    do(tmp_path, TASK)
    process, start, end = lines(tmp_path)
    assert process["process"] == this_process()
    assert start["start"] == end["end"] == 17
    assert before - 1e-3 <= start["time"] <= end["time"] <= time.time() + 1e-3
    assert 0 <= end["seconds"] <= end["time"] - start["time"] + 2e-3


def test_a_failure_is_recorded_in_a_line_and_raised_to_the_farm(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such\nluck"):
        Journaled(fail, tmp_path)(TASK, lambda fraction: None)
    assert lines(tmp_path)[-1]["error"] == "ValueError: no such"
    worker = the_worker(tmp_path)
    assert worker.task is None
    assert not worker.ended


def test_progress_is_reported_to_the_farm_and_recorded_at_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []
    monkeypatch.setattr(journal, "PROGRESS_INTERVAL", 3600.0)
    Journaled(do_nothing, tmp_path / "often")(TASK, heard.append)
    assert heard == [0.5]
    assert len(lines(tmp_path / "often")) == 3
    monkeypatch.setattr(journal, "PROGRESS_INTERVAL", 0.0)
    Journaled(do_nothing, tmp_path / "always")(TASK, heard.append)
    assert lines(tmp_path / "always")[2]["fraction"] == 0.5


def test_a_reader_follows_a_worker_from_task_to_task(tmp_path: Path) -> None:
    journals = Journals(tmp_path / "not there yet")
    assert journals.read() == []
    journals = Journals(tmp_path)
    seen: list[tuple[int | None, float]] = []

    def look(task: Task, progress: Progress) -> None:
        (worker,) = journals.read()
        seen.append((worker.task, len(worker.ended)))

    for index in (5, 3):
        Journaled(look, tmp_path)(Task(index, 1.0), lambda fraction: None)
    assert seen == [(5, 0), (3, 1)]
    (worker,) = journals.read()
    assert worker.task is None
    assert [ended.task for ended in worker.ended] == [5, 3]
    assert (worker.host, worker.pid) == (os.uname().nodename, os.getpid())


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_half_a_line_is_read_when_it_is_complete(tmp_path: Path, kept: float) -> None:
    do(tmp_path, TASK)
    path = the_file(tmp_path)
    whole = path.read_bytes()
    end = whole.rindex(b'{"time"')
    path.write_bytes(whole[: end + int(kept * (len(whole) - end))])
    journals = Journals(tmp_path)
    assert journals.read()[0].task == 17
    path.write_bytes(whole)
    assert journals.read()[0].task is None


@pytest.mark.parametrize("junk", [b"\0\xff\xfe\n", b"{\n", b"17\n", b"{}\n", b'{"time": 1'])
def test_invalid_lines_are_skipped(tmp_path: Path, junk: bytes) -> None:
    do(tmp_path, TASK)
    with the_file(tmp_path).open("ab") as file:
        file.write(junk + b"\n")
    do(tmp_path, Task(18, 1.0))
    assert [ended.task for ended in the_worker(tmp_path).ended] == [17, 18]


def test_only_the_end_of_a_long_journal_is_read(tmp_path: Path) -> None:
    do(tmp_path, *(Task(index, 1.0) for index in range(2000)))
    assert the_file(tmp_path).stat().st_size > 3 * journal._TAIL
    worker = the_worker(tmp_path)
    assert worker.process == this_process()
    assert [ended.task for ended in worker.ended] == list(range(2000))[-len(worker.ended) :]
    assert len(worker.ended) > 100


def test_a_killed_worker_leaves_a_start_and_is_known_to_be_lost(tmp_path: Path) -> None:
    (outcome,) = open_backend("local:1", home=None, key="").run(
        [TASK], Journaled(kill_itself, tmp_path)
    )
    assert "SIGKILL" in (outcome.error or "")
    workers = Journals(tmp_path).read()
    assert [worker.task for worker in workers] == [17, 17, 17]
    assert all(worker.is_lost(time.time()) for worker in workers)


def test_a_worker_on_another_host_is_lost_after_a_long_silence(tmp_path: Path) -> None:
    heard = 1e9
    for process in ("", "another-boot.4026531836:1:77"):
        worker = Worker("elsewhere", 1, process, heard=heard)
        assert not worker.is_lost(heard + SILENCE - 1)
        assert worker.is_lost(heard + SILENCE + 1)


def test_a_process_is_alive_until_it_has_ended_even_if_no_parent_waits_for_it() -> None:
    command = (
        "from cryotile.processes import this_process; print(this_process(), flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    assert is_alive(name)
    # Another process that is given its number later is another process.
    assert is_alive(name + "0") is False
    process.stdin.close()
    assert process.stdout.read() == ""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(name) is False
    process.wait()
    process.stdout.close()
    assert is_alive(name) is False


# Newer Pythons warn of a fork beside other threads; this child takes no lock of theirs.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_each_thread_and_each_forked_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    do(tmp_path, TASK)
    thread = threading.Thread(target=do, args=(tmp_path, TASK))
    thread.start()
    thread.join()
    child = os.fork()
    if not child:
        do(tmp_path, TASK)
        os._exit(0)
    os.waitpid(child, 0)
    workers = Journals(tmp_path).read()
    assert sorted(worker.pid for worker in workers) == sorted([os.getpid(), os.getpid(), child])
    assert all(len(worker.ended) == 1 for worker in workers)


def test_a_journal_that_cannot_be_written_costs_one_warning_and_no_task(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        do(tmp_path / "file" / "journal", TASK, TASK)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the work continues" in caplog.text


def test_a_disk_that_is_full_for_a_while_costs_one_line_at_most(tmp_path: Path) -> None:
    """A limit on the size of a file stands for the disk: a write is cut short, then refused."""
    before, handler = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    try:
        do(tmp_path, TASK)
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (the_file(tmp_path).stat().st_size + 20, before[1])
        )
        do(tmp_path, Task(18, 1.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    seen = []
    work = Journaled(lambda task, progress: seen.append(the_worker(tmp_path).task), tmp_path)
    work(Task(19, 1.0), lambda fraction: None)
    assert seen == [19]
    assert [ended.task for ended in the_worker(tmp_path).ended] == [17, 19]
    assert len(list(tmp_path.iterdir())) == 1
