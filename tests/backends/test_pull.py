"""Pull workers share leases, and leave tasks to others if their own host is broken."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from cryotile.backends import Context, open_backend
from cryotile.backends.base import STALL
from cryotile.backends.pull import DirBackend, PullBackend
from cryotile.errors import CryotileError, InvalidValue
from cryotile.farm.task import Outcome, Progress, Task
from cryotile.ledgers.directory.ledger import DirLedger
from cryotile.testing.backends import MakeBackend, RecordingWork, SupervisedContract, make_tasks
from cryotile.testing.leases import at, await_tasks, claim_all, ended
from tests.support.waiting import wait_until


class TestDir(SupervisedContract):
    @pytest.fixture
    def make_backend(self, tmp_path) -> MakeBackend:
        return lambda workers=2, stall=STALL: DirBackend(
            str(workers), Context(tmp_path, "contract/1", stall)
        )


@dataclass(frozen=True)
class Refusing:
    """Work that fails at once on one host, as without a library."""

    directory: Path
    broken: str
    host: str

    def __call__(self, task: Task, progress: Progress) -> None:
        with (self.directory / f"tried-{self.host}").open("ab", buffering=0) as notes:
            notes.write(b"%d\n" % task.index)
        if self.host == self.broken:
            raise ImportError("no such library")

    def tried(self) -> list[int]:
        notes = self.directory / f"tried-{self.host}"
        return [int(line) for line in notes.read_text().split()] if notes.exists() else []


def test_the_members_of_a_farm_share_a_run(tmp_path):
    tasks = make_tasks(400)
    work = RecordingWork(tmp_path)

    def take_part(name: str) -> list[Outcome]:
        backend = PullBackend(DirLedger(tmp_path, "run/1", host=name), children=1)
        return list(backend.run(tasks, work))

    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(take_part, ("a", "b", "c")))
    outcomes = [outcome for part in parts for outcome in part]
    assert sorted(outcome.task.index for outcome in outcomes) == [task.index for task in tasks]
    assert sorted(work.started) == [task.index for task in tasks]


def test_a_worker_that_starts_when_all_is_done_has_nothing_to_do(tmp_path):
    tasks, work = make_tasks(20), RecordingWork(tmp_path)
    backend = DirBackend("1", Context(tmp_path, "run/1"))
    assert len(list(backend.run(tasks, work))) == 20
    assert list(backend.run([], work)) == []
    assert len(work.started) == 20


def test_a_task_that_is_enrolled_again_is_done_again(tmp_path):
    tasks, work = make_tasks(20), RecordingWork(tmp_path, {1: ("raise", 3)})
    outcomes = list(DirBackend("1", Context(tmp_path, "run/1")).run(tasks, work))
    assert [outcome.task.index for outcome in outcomes if outcome.error] == [1]
    (outcome,) = DirBackend("1", Context(tmp_path, "run/1")).run([tasks[0]], work)
    assert (outcome.task, outcome.attempts, outcome.error) == (tasks[0], 1, None)


def test_a_task_that_has_killed_three_workers_is_failed_by_the_next(tmp_path):
    tasks = make_tasks(3)
    for attempt in range(1, 4):
        victim = DirLedger(tmp_path, "run/1", lease=0.3)
        victim.enroll(tasks)
        (lease,) = (lease for lease in await_tasks(victim, 3) if lease.task == tasks[0])
        assert lease.attempt == attempt
        victim.renew(at(0.0, lease))
    work = RecordingWork(tmp_path)
    outcomes = list(
        PullBackend(DirLedger(tmp_path, "run/1", lease=0.3), children=1).run(tasks, work)
    )
    errors = {outcome.task: outcome.error for outcome in outcomes}
    assert set(errors) == set(tasks)
    assert "3 workers died" in errors[tasks[0]]
    assert errors[tasks[1]] is errors[tasks[2]] is None
    assert tasks[0].index not in work.started


def test_a_host_where_all_tasks_fail_leaves_them_to_others(tmp_path, caplog):
    tasks = make_tasks(60)
    good = DirLedger(tmp_path, "run/1", host="good")
    good.enroll(tasks)
    (first,) = good.claim()
    good.settle(ended(first))
    bad_work = Refusing(tmp_path, "bad", "bad")
    with ThreadPoolExecutor(1) as pool:
        bad = PullBackend(DirLedger(tmp_path, "run/1", host="bad"), children=1)
        run = pool.submit(lambda: list(bad.run(tasks[1:], bad_work)))
        # The healthy host takes part once the broken one has tried three tasks.
        wait_until(lambda: len(bad_work.tried()) >= 3, lambda: "the broken host tries nothing")
        good_work = Refusing(tmp_path, "bad", "good")
        outcomes = list(PullBackend(good, children=1).run(tasks[1:], good_work))
        with pytest.raises(CryotileError, match=r"is broken: tasks .* was done on good") as caught:
            run.result()
    assert "\n" not in str(caught.value)
    assert bad_work.tried() == [task.index for task in tasks[1:4]]
    assert {outcome.task for outcome in outcomes} == set(tasks[1:])
    # Nothing was charged.
    assert all(outcome.error is None and outcome.attempts == 1 for outcome in outcomes)


def test_a_single_host_is_never_suspect(tmp_path):
    tasks = make_tasks(12)
    work = Refusing(tmp_path, "here", "here")
    outcomes = list(DirBackend("2", Context(tmp_path, "run/1")).run(tasks, work))
    assert {outcome.task for outcome in outcomes} == set(tasks)
    assert all(outcome.attempts == 3 and outcome.error for outcome in outcomes)


def test_tasks_that_fail_on_every_host_fail_for_good(tmp_path):
    tasks = make_tasks(10)
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(
                lambda host=host: list(
                    PullBackend(DirLedger(tmp_path, "run/1", host=host, lease=2.0), children=1).run(
                        tasks,
                        RecordingWork(tmp_path, {task.index: ("raise", 99) for task in tasks}),
                    )
                )
            )
            for host in ("a", "b")
        ]
        outcomes = [outcome for run in runs for outcome in run.result()]
    assert sorted(outcome.task.index for outcome in outcomes) == [task.index for task in tasks]
    assert all(outcome.error and outcome.attempts == 3 for outcome in outcomes)


def test_leases_are_released_when_the_farm_is_closed(tmp_path):
    tasks = make_tasks(10)
    ledger = DirLedger(tmp_path, "run/1")
    outcomes = PullBackend(ledger, children=2).run(tasks, RecordingWork(tmp_path))
    next(outcomes)
    outcomes.close()
    other = DirLedger(tmp_path, "run/1")
    assert len(claim_all(other)) == other.unsettled() > 0


def test_dir_needs_a_directory():
    with pytest.raises(InvalidValue, match="backend 'dir' needs a directory"):
        open_backend("dir", home=None, key="run/1")


@pytest.mark.parametrize("argument", ["0", "x", "-1"])
def test_dir_needs_a_positive_number_of_children(tmp_path, argument):
    with pytest.raises(InvalidValue, match=f"'dir:{argument}'.*write dir:4"):
        open_backend(f"dir:{argument}", home=tmp_path, key="run/1")
