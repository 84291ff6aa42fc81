"""A worker knows how much time its job has left, and starts nothing that will not end in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cryotile.backends import pool
from cryotile.backends.base import Attempt, TaskQueue
from cryotile.backends.deadline import MARGIN, SAFETY, Deadline, seconds_left
from cryotile.errors import InvalidValue, Unfinished
from cryotile.farm.task import Task
from cryotile.testing.backends import RecordingWork

Answer = Callable[[str, str], Path]


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Return a function that puts a command on the PATH that notes its arguments and prints one answer."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")

    def give(command: str, text: str) -> Path:
        script, notes = tmp_path / "bin" / command, tmp_path / "asked"
        script.write_text(f'#!/bin/sh\necho "$*" >"{notes}"\ncat <<"END"\n{text}\nEND\n')
        script.chmod(0o755)
        return notes

    return give


@pytest.mark.parametrize("name", ["CRYOTILE_JOB_END", "SLURM_JOB_END_TIME"])
def test_an_end_in_the_environment_is_a_time_of_day(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert seconds_left({name: "1000000100"}) == 100.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45", 45),
        ("1:30", 90),
        ("2:00:01", 7201),
        ("3-04:05:06", 3 * 86400 + 4 * 3600 + 306),
        ("UNLIMITED", math.inf),
        ("INVALID", math.inf),
        ("", math.inf),
    ],
)
def test_slurm_is_asked_for_this_member(answer: Answer, text: str, seconds: float) -> None:
    notes = answer("squeue", text)
    array = {
        "SLURM_JOB_ID": "12",
        "SLURM_ARRAY_JOB_ID": "10",
        "SLURM_ARRAY_TASK_ID": "2",
    }
    assert seconds_left(array) == seconds
    assert notes.read_text().split() == ["-h", "-j", "10_2", "-o", "%L"]
    assert seconds_left({"SLURM_JOB_ID": "12"}) == seconds
    assert notes.read_text().split()[2] == "12"


def test_pbs_tells_the_limit_and_the_time_used(answer: Answer) -> None:
    notes = answer(
        "qstat",
        "Job Id: 7[3].server\n    resources_used.walltime = 00:10:00\n    Resource_List.walltime = 01:00:00",
    )
    assert seconds_left({"PBS_JOBID": "7[3].server"}) == 3000.0
    assert notes.read_text().split() == ["-f", "7[3].server"]
    answer("qstat", "    Resource_List.walltime = 01:00:00")
    assert seconds_left({"PBS_JOBID": "7[3].server"}) == 3600.0
    answer("qstat", "    Resource_List.ncpus = 1")
    assert seconds_left({"PBS_JOBID": "7[3].server"}) == math.inf
    assert seconds_left({"PBS_WALLTIME": "1800", "PBS_JOBID": "7"}) == 1800.0


def test_grid_engine_tells_the_limit(answer: Answer) -> None:
    job = {"SGE_TASK_ID": "undefined", "JOB_ID": "5"}
    answer("qstat", "job_number: 5\nhard resource_list:         h_rt=900,mem_free=700M\n")
    assert seconds_left(job) == 900.0
    answer("qstat", "job_number: 5\n")
    assert seconds_left(job) == math.inf


def test_lsf_tells_hours_and_minutes(answer: Answer) -> None:
    notes = answer("bjobs", "1:30 L")
    assert seconds_left({"LSB_JOBID": "9", "LSB_JOBINDEX": "4"}) == 5400.0
    assert notes.read_text().split()[-1] == "9[4]"
    answer("bjobs", "-")
    assert seconds_left({"LSB_JOBID": "9", "LSB_JOBINDEX": "0"}) == math.inf


def test_a_scheduler_that_does_not_answer_sets_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seconds_left({}) == math.inf
    monkeypatch.setenv("PATH", str(tmp_path))
    assert seconds_left({"SLURM_JOB_ID": "12"}) == math.inf
    (tmp_path / "squeue").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    assert seconds_left({"SLURM_JOB_ID": "12"}) == math.inf


def test_an_invalid_end_of_the_job_is_refused_with_a_remedy() -> None:
    with pytest.raises(InvalidValue, match=r"'tonight', not a Unix time.*date \+%s"):
        seconds_left({"CRYOTILE_JOB_END": "tonight"})


def test_the_duration_of_a_task_is_learned_from_those_that_ended() -> None:
    deadline = Deadline(SAFETY * 10.0 + MARGIN + 1.0)
    # Until a first task has ended, nothing is known, and every task may start.
    assert deadline.may_start(Task(0, 1e9))
    deadline.ended(Attempt(Task(0, 100.0), 4.0, None, "here"))
    deadline.ended(Attempt(Task(1, 300.0), 12.0, None, "here"))
    deadline.ended(Attempt(Task(2, 1.0), 1e6, "failed", "here"))
    assert deadline.expected(Task(3, 200.0)) == 8.0
    assert deadline.may_start(Task(3, 250.0))
    assert not deadline.may_start(Task(3, 300.0))
    # The cheapest task takes as long as the shortest so far.
    assert deadline.expected(Task(3, 0.0)) == 4.0


def test_a_job_that_is_about_to_end_starts_nothing() -> None:
    assert not Deadline(MARGIN - 1.0).may_start(Task(0, 0.0))


def test_a_pool_leaves_tasks_that_do_not_fit_and_says_so(tmp_path: Path) -> None:
    deadline = Deadline(SAFETY * 100.0 + MARGIN + 50.0)
    deadline.ended(Attempt(Task(9, 100.0), 100.0, None, "here"))
    # The costly tasks do not fit; the others are done.
    tasks = [Task(0, 500.0), Task(1, 400.0), Task(2, 50.0), Task(3, 40.0)]
    work, outcomes = RecordingWork(tmp_path), []
    with pytest.raises(Unfinished, match="2 tasks are left that would not end within") as caught:
        outcomes.extend(pool.work(TaskQueue(tasks), work, children=1, deadline=deadline))
    assert [outcome.task.index for outcome in outcomes] == work.started == [2, 3]
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
