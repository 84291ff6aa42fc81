"""The leases of a pool: how many are claimed, which starts are reported, and which leases are released."""

from __future__ import annotations

import pytest

from cryotile.backends.base import Attempt
from cryotile.backends.pull import LedgerSource
from cryotile.farm.task import Outcome, Task
from cryotile.ledgers.directory.ledger import DirLedger
from cryotile.testing.backends import make_tasks
from cryotile.testing.leases import at, await_claim, claim_all, ended, ids


def any_task(task: Task) -> bool:
    return True


def settle(task_source: LedgerSource, *attempts: Attempt) -> list[Outcome]:
    """Settle attempts; return the outcomes, including those of the next report."""
    return task_source.settle(attempts) + task_source.report({})


@pytest.fixture
def ledger(tmp_path) -> DirLedger:
    return DirLedger(tmp_path, "run/1")


@pytest.fixture
def other(tmp_path) -> DirLedger:
    """Return the same ledger for another worker."""
    return DirLedger(tmp_path, "run/1")


def test_no_more_long_tasks_are_claimed_than_there_are_children(ledger, other):
    tasks = make_tasks(20)
    ledger.enroll(tasks)
    task_source = LedgerSource(ledger, children=3)
    assert task_source.stock() == 3
    assert task_source.take(3, any_task) == tasks[:3]
    # No task is queued behind a long one: an idle worker elsewhere could do it sooner.
    assert task_source.ahead == 0
    assert settle(task_source, Attempt(tasks[0], 3600.0, None))
    assert task_source.stock() == 1
    assert len(claim_all(other)) == 16


def test_many_tiny_tasks_are_claimed_at_a_time(ledger):
    tasks = make_tasks(5000)
    ledger.enroll(tasks)
    task_source = LedgerSource(ledger, children=2)
    done = 0
    for _ in range(30):
        task_source.stock()
        done += len(
            settle(task_source, *(Attempt(t, 1e-6, None) for t in task_source.take(64, any_task)))
        )
    assert task_source.ahead == 1
    assert task_source.stock() >= 256
    assert done > 1000


def test_a_task_that_does_not_fit_is_left_to_others(ledger, other):
    tasks = make_tasks(20)
    ledger.enroll(tasks)
    task_source = LedgerSource(ledger, children=4)
    task_source.stock()
    assert task_source.take(4, lambda task: task.cost > 19) == tasks[:1]
    assert task_source.stock() == 0
    assert task_source.over()
    # The lease of the task that was handed out is still held.
    assert len(claim_all(other)) == 19
    task_source.put_back(tasks[:1])
    task_source.release()
    (lease,) = claim_all(other)
    assert (lease.task, lease.attempt) == (tasks[0], 1)


def test_a_task_at_which_a_worker_died_runs_alone(tmp_path):
    dead = DirLedger(tmp_path, "run/1", lease=0.3)
    tasks = make_tasks(6)
    dead.enroll(tasks)
    leases = claim_all(dead, 6)
    dead.renew(at(0.0, *leases[:2]))
    ledger = DirLedger(tmp_path, "run/1", lease=0.3)
    again = await_claim(ledger)
    ledger.release(ids(*again))
    task_source = LedgerSource(ledger, children=6)
    task_source.stock()
    assert [len(task_source.take(6, any_task)) for _ in range(3)] == [1, 1, 4]


def test_the_start_of_a_task_is_reported_at_once(ledger, other):
    tasks = make_tasks(3)
    ledger.enroll(tasks)
    task_source = LedgerSource(ledger, children=1)
    renewed = []
    ledger.renew = lambda fractions: renewed.append(fractions) or set()
    task_source.stock()
    (task,) = task_source.take(1, any_task)
    # The first report renews all leases, and so do few of the later ones.
    for fraction in (0.0, 0.1, 0.2):
        assert task_source.report({task: fraction}) == []
    assert [list(fractions.values()) for fractions in renewed] == [[0.0]]


def test_a_lost_lease_brings_no_outcome(tmp_path):
    ledger, other = (DirLedger(tmp_path, "run/1", lease=0.3) for _ in range(2))
    tasks = make_tasks(1)
    ledger.enroll(tasks)
    task_source = LedgerSource(ledger, children=1)
    task_source.stock()
    task_source.take(1, any_task)
    (lease,) = await_claim(other)
    assert settle(task_source, Attempt(tasks[0], 1.0, None)) == []
    assert other.settle(ended(lease)) == set()
    task_source.stock()
    assert task_source.over()


def test_a_quick_failure_is_settled_when_another_task_succeeds(ledger):
    tasks = make_tasks(3)
    ledger.enroll(tasks)
    task_source = LedgerSource(ledger, children=3)
    task_source.stock()
    first, second, _ = task_source.take(3, any_task)
    assert settle(task_source, Attempt(first, 0.0, "no")) == []
    assert ledger.unsettled() == 3
    assert task_source.stock() == 0
    (outcome,) = settle(task_source, Attempt(second, 0.0, None))
    assert outcome.task == second
    # The task waits for its second attempt.
    assert task_source.stock() == 1
    (task,) = task_source.take(1, any_task)
    (outcome,) = settle(task_source, Attempt(task, 0.0, None))
    assert (outcome.task, outcome.attempts) == (first, 2)


def test_a_worker_with_little_time_left_continues_with_cheaper_tasks(ledger, other):
    tasks = make_tasks(600)
    ledger.enroll(tasks)
    task_source = LedgerSource(ledger, children=2)

    def fits(task: Task) -> bool:
        return task.cost < 200

    done: list[Task] = []
    while not task_source.over():
        task_source.stock()
        done += [
            outcome.task
            for task in task_source.take(1, fits)
            for outcome in settle(task_source, Attempt(task, 2.0, None))
        ]
        task_source.report({})
    # All of them once each, costliest first.
    assert done == [task for task in tasks if fits(task)]
    # Tasks that cost too much wait for workers with more time, and were not charged.
    left = claim_all(other, 20)
    assert [lease.task for lease in left] == [task for task in tasks if not fits(task)]
    assert {lease.attempt for lease in left} == {1}
