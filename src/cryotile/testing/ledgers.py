"""The contract of ledgers, as tests: the behaviour that the workers of a pull backend rely on.

Subclass the suite, define how a worker opens your ledger, and let pytest collect it:

.. code-block:: python

    class TestMine(LedgerContract):
        @pytest.fixture
        def open_ledger(self, tmp_path):
            def open_ledger(host="here", key="run/1", lease=LEASE):
                return MyLedger(tmp_path, key, lease=lease, host=host)

            return open_ledger

Every call opens the same ledger again, as another worker does.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from cryotile.farm.task import ATTEMPTS, Pending, Task
from cryotile.ledgers import Lease
from cryotile.testing.leases import (
    DEADLINE,
    SHORT,
    TICK,
    OpenLedger,
    at,
    await_tasks,
    claim_all,
    ended,
    ids,
    indices,
    tasks_of,
)

__all__ = ["LedgerContract"]


class LedgerContract:
    """Tests of any ledger; subclass and override the fixture ``open_ledger``."""

    @pytest.fixture
    def open_ledger(self) -> OpenLedger:
        """Return a function that opens the ledger under test."""
        raise NotImplementedError(
            "override the fixture open_ledger: it returns a function (host, key, lease) → ledger"
        )

    @pytest.mark.parametrize("n", [1, 7, 100, 1000])
    def test_each_task_is_leased_once_and_the_costliest_first(
        self, open_ledger: OpenLedger, n: int
    ) -> None:
        """For any number of leases per claim, which is never exceeded."""
        tasks, ledger = tasks_of(300), open_ledger()
        ledger.enroll(tasks)
        leases: list[Lease] = []
        while found := ledger.claim(n):
            assert len(found) <= n
            leases += found
        assert [lease.task for lease in leases] == sorted(tasks, key=lambda task: -task.cost)
        assert len({lease.id for lease in leases}) == len(tasks)
        assert all(lease.attempt == 1 and lease.expiry > 0 for lease in leases)

    def test_the_costliest_come_first_when_a_worker_asks_for_more_or_less_each_time(
        self, open_ledger: OpenLedger
    ) -> None:
        """A ledger that cuts its list into batches must not skip the rest of one."""
        tasks, ledger, draw = tasks_of(50), open_ledger(), random.Random(50)
        ledger.enroll(tasks)
        leases = ledger.claim(14)
        while found := ledger.claim(draw.randint(3, 6)):
            leases += found
        assert [lease.task for lease in leases] == sorted(tasks, key=lambda task: -task.cost)

    def test_workers_share_the_tasks(self, open_ledger: OpenLedger) -> None:
        """No task is leased twice, though workers alternate and ask for different numbers."""
        workers = [open_ledger(host) for host in ("a", "b", "c")]
        tasks = tasks_of(300)
        workers[0].enroll(tasks)
        leases: list[Lease] = []
        while found := [
            lease for n, worker in enumerate(workers, 1) for lease in worker.claim(n * n)
        ]:
            leases += found
        assert Counter(indices(leases)) == Counter(task.index for task in tasks)

    def test_workers_that_claim_at_the_same_time_get_different_tasks(
        self, open_ledger: OpenLedger
    ) -> None:
        """Eight at once: no task is leased twice, and none is left."""
        tasks = tasks_of(800)
        open_ledger().enroll(tasks)
        start = threading.Barrier(8)

        def work(number: int) -> list[Lease]:
            ledger = open_ledger(f"host {number}")
            start.wait(DEADLINE)
            leases: list[Lease] = []
            while found := ledger.claim(1 + 3 * number):
                ledger.renew(at(0.0, *found))
                assert not ledger.settle(ended(*found))
                leases += found
            return leases

        with ThreadPoolExecutor(8) as pool:
            leases = [lease for part in pool.map(work, range(8)) for lease in part]
        assert Counter(indices(leases)) == Counter(task.index for task in tasks)
        assert open_ledger().unsettled() == 0

    def test_settled_tasks_are_not_leased_again(self, open_ledger: OpenLedger) -> None:
        """At the end nothing is unsettled."""
        ledger, other = open_ledger("a"), open_ledger("b")
        ledger.enroll(tasks_of(20))
        assert ledger.unsettled() == other.unsettled() == 20
        first = ledger.claim(2)
        assert ledger.settle(ended(*first)) == set()
        assert ledger.unsettled() == other.unsettled() == 20 - len(first)
        rest = claim_all(other, 5)
        assert not set(indices(first)) & set(indices(rest))
        other.settle(ended(*rest))
        assert ledger.unsettled() == 0
        assert ledger.claim(5) == other.claim(5) == open_ledger("c").claim(5) == []

    def test_a_failed_attempt_waits_again_until_the_third(self, open_ledger: OpenLedger) -> None:
        """Any worker may make the next attempt, and the lease gives its number."""
        ledger, other = open_ledger("a"), open_ledger("b")
        ledger.enroll([Task(7, 1.0), Task(8, 0.0)])
        for attempt in range(1, ATTEMPTS + 1):
            worker = other if attempt == 2 else ledger
            (lease,) = worker.claim()
            assert (lease.task.index, lease.attempt) == (7, attempt)
            assert worker.settle(ended(lease, error="ValueError: no")) == set()
        assert ledger.unsettled() == 1
        assert indices(claim_all(other)) == [8]

    def test_an_exchange_settles_and_then_claims(self, open_ledger: OpenLedger) -> None:
        """A task whose attempt failed may be among the new leases."""
        ledger = open_ledger()
        ledger.enroll(tasks_of(5))
        done, failed, lost = claim_all(ledger)[:3]
        ledger.release(ids(lost))
        gone, leases = ledger.exchange(ended(done) | ended(failed, error="no"), 5)
        leases += claim_all(ledger, 5)
        assert gone == set()
        assert {lease.task: lease.attempt for lease in leases} == {failed.task: 2, lost.task: 1}

    def test_a_worker_may_claim_only_tasks_that_fit(self, open_ledger: OpenLedger) -> None:
        """The other tasks wait for other workers, without a charge."""
        ledger, other = open_ledger("a"), open_ledger("b")
        tasks = tasks_of(20)
        ledger.enroll(tasks)
        leases = ledger.claim_fitting(20, lambda task: task.cost < 10)
        assert {lease.task for lease in leases} == {task for task in tasks if task.cost < 10}
        rest = claim_all(other, 20)
        assert {lease.task for lease in rest} == {task for task in tasks if task.cost >= 10}
        assert {lease.attempt for lease in rest} == {1}

    def test_a_task_that_came_back_without_an_outcome_is_suspect(
        self, open_ledger: OpenLedger
    ) -> None:
        """If the ledger counts leases; the worker of the first lease may have died at the task."""
        dead, other = open_ledger("a", lease=SHORT), open_ledger("b", lease=SHORT)
        dead.enroll(tasks_of(1))
        (first,) = dead.claim()
        assert not first.suspect
        (again,) = await_tasks(other, 1)
        assert again.suspect or again.lease_count is None

    def test_settling_twice_changes_nothing(self, open_ledger: OpenLedger) -> None:
        """A settlement whose answer was lost is repeated; the first one counts."""
        ledger = open_ledger()
        ledger.enroll(tasks_of(3))
        good, bad, last = claim_all(ledger)
        assert ledger.settle(ended(good)) == set()
        assert ledger.settle(ended(good)) == set()
        assert ledger.settle(ended(good, error="late")) == set()
        ledger.settle(ended(bad, error="no"))
        assert ledger.settle(ended(bad)) == set()
        assert ledger.unsettled() == 2
        (again,) = ledger.claim()
        assert (again.task, again.attempt) == (bad.task, 2)
        ledger.settle(ended(again, last))
        assert ledger.unsettled() == 0

    def test_settling_renewing_or_releasing_nothing_is_allowed(
        self, open_ledger: OpenLedger
    ) -> None:
        """Also before any task is enrolled."""
        ledger = open_ledger()
        ledger.enroll([])
        assert ledger.claim(3) == []
        assert ledger.settle({}) == ledger.renew({}) == set()
        ledger.release([])
        assert ledger.unsettled() == 0

    @pytest.mark.parametrize("started", [False, True])
    def test_a_released_task_waits_again_without_a_charge(
        self, open_ledger: OpenLedger, started: bool
    ) -> None:
        """Whether it was started or not; earlier charges stay."""
        ledger, other = open_ledger("a"), open_ledger("b")
        ledger.enroll(tasks_of(20))
        (first,) = ledger.claim()
        ledger.settle(ended(first, error="no"))
        leases = claim_all(ledger, 20)
        attempts = {lease.task: lease.attempt for lease in leases}
        assert attempts[first.task] == 2
        if started:
            ledger.renew(at(0.5, *leases))
        ledger.release(ids(*leases))
        again = claim_all(other, 20)
        assert {lease.task: lease.attempt for lease in again} == attempts
        assert ledger.settle(ended(*leases)) in (set(), ids(*leases))
        assert other.unsettled() == 20

    def test_a_part_of_what_was_claimed_may_be_released(self, open_ledger: OpenLedger) -> None:
        """The other leases stay valid."""
        ledger, other = open_ledger("a"), open_ledger("b")
        ledger.enroll(tasks_of(40))
        leases = claim_all(ledger, 40)
        ledger.release(ids(*leases[10:]))
        again = claim_all(other, 3)
        assert sorted(indices(again)) == sorted(indices(leases[10:]))
        assert ledger.settle(ended(*leases[:10])) == set()
        other.settle(ended(*again))
        assert other.unsettled() == 0

    def test_only_the_started_tasks_of_a_dead_worker_are_charged(
        self, open_ledger: OpenLedger
    ) -> None:
        """All tasks wait again when the leases have expired."""
        dead, other = open_ledger("a", lease=SHORT), open_ledger("b", lease=SHORT)
        dead.enroll(tasks_of(20))
        leases = await_tasks(dead, 20)
        dead.renew(at(None, *leases) | at(0.0, leases[3]))
        dead.settle(ended(*leases[:3]))
        again = await_tasks(other, 17)
        assert sorted(indices(again)) == sorted(indices(leases[3:]))
        charged = {lease.task for lease in again if lease.attempt > 1}
        assert charged == {leases[3].task}

    def test_a_lost_lease_settles_nothing_and_its_holder_is_told(
        self, open_ledger: OpenLedger
    ) -> None:
        """A worker continues after its lease has expired."""
        sleeper, other = open_ledger("a", lease=SHORT), open_ledger("b", lease=SHORT)
        sleeper.enroll(tasks_of(2))
        (old,), (unaware,) = sleeper.claim(), sleeper.claim()
        taken = await_tasks(other, 2)
        assert not {old.id, unaware.id} & {lease.id for lease in taken}
        assert sleeper.renew(at(0.5, old)) == ids(old)
        assert sleeper.settle(ended(old)) == ids(old)
        # The loss of this lease is not known to the worker yet.
        assert sleeper.settle(ended(unaware)) == ids(unaware)
        assert other.unsettled() == 2
        sleeper.release(ids(old, unaware))
        assert other.renew(at(0.5, *taken)) == set()
        assert other.settle(ended(*taken)) == set()
        assert sleeper.settle(ended(old, unaware, error="no")) == ids(old, unaware)
        assert other.unsettled() == sleeper.unsettled() == 0

    def test_a_renewed_lease_is_not_lost(self, open_ledger: OpenLedger) -> None:
        """However long the task takes, and whether it runs or waits for its worker."""
        # Long enough to be renewed in time on a busy machine.
        holder, other = open_ledger("a", lease=2.0), open_ledger("b", lease=2.0)
        holder.enroll(tasks_of(2))
        running, waiting = claim_all(holder, 2)
        end, pause = time.monotonic() + 2.5, threading.Event()
        while time.monotonic() < end:
            assert holder.renew(at(0.5, running) | at(None, waiting)) == set()
            assert other.claim(2) == []
            pause.wait(SHORT / 10)
        assert holder.settle(ended(running, waiting)) == set()
        assert other.unsettled() == 0

    def test_a_task_that_kills_three_workers_can_only_be_settled_as_failed(
        self, open_ledger: OpenLedger
    ) -> None:
        """The fourth lease says so by its number; other tasks are done."""
        open_ledger(lease=SHORT).enroll([Task(1, 2.0), Task(2, 1.0)])
        for attempt in range(1, ATTEMPTS + 1):
            victim = open_ledger(f"host {attempt}", lease=SHORT)
            lease = min(await_tasks(victim, 2), key=lambda lease: lease.task.index)
            assert lease.attempt == attempt
            victim.renew(at(0.0, lease))
        survivor = open_ledger("b", lease=SHORT)
        leases = await_tasks(survivor, 2)
        numbers = {lease.task.index: lease.attempt for lease in leases}
        assert numbers == {1: ATTEMPTS + 1, 2: 1}
        poison, good = sorted(leases, key=lambda lease: lease.task.index)
        assert survivor.settle(ended(poison, error="three workers died") | ended(good)) == set()
        assert survivor.unsettled() == 0

    def test_enrolling_again_does_not_change_open_tasks(self, open_ledger: OpenLedger) -> None:
        """Workers join at any time, each with its own view of the list."""
        ledger, other = open_ledger("a"), open_ledger("b")
        tasks = tasks_of(20)
        ledger.enroll(tasks)
        held, failed, *_ = claim_all(ledger)
        ledger.settle(ended(failed, error="no"))
        other.enroll(tasks)
        other.enroll(tasks[5:])
        assert other.unsettled() == 20
        (again,) = claim_all(other)
        assert (again.task, again.attempt) == (failed.task, 2)
        assert ledger.renew(at(0.5, held)) == set()

    def test_workers_that_enroll_at_the_same_time_list_each_task_once(
        self, open_ledger: OpenLedger
    ) -> None:
        """Also if their lists differ."""
        tasks = tasks_of(200)
        start = threading.Barrier(4)

        def enroll(number: int) -> None:
            ledger = open_ledger(f"host {number}")
            start.wait(DEADLINE)
            ledger.enroll(tasks[number * 10 :])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(enroll, range(4)))
        ledger = open_ledger()
        assert ledger.unsettled() == 200
        assert sorted(indices(claim_all(ledger, 16))) == sorted(task.index for task in tasks)

    def test_a_settled_task_that_is_enrolled_again_is_open_with_no_attempt_made(
        self, open_ledger: OpenLedger
    ) -> None:
        """Its result was lost, or it failed and is retried; the others stay settled."""
        ledger, other = open_ledger("a"), open_ledger("b")
        ledger.enroll(tasks_of(20))
        for _ in range(ATTEMPTS - 1):
            ledger.settle(ended(*ledger.claim(), error="no"))
        (failed,) = ledger.claim()
        ledger.settle(ended(failed, error="no"))
        done = claim_all(ledger)
        ledger.settle(ended(*done))
        assert ledger.unsettled() == 0
        lost = [failed.task, done[4].task, done[9].task]
        for _ in range(2):
            other.enroll(lost)
            assert ledger.unsettled() == other.unsettled() == 3
            again = claim_all(ledger)
            assert {lease.task for lease in again} == set(lost)
            assert all(lease.attempt == 1 for lease in again)
            ledger.settle(ended(*again))
            assert other.unsettled() == 0

    def test_tasks_settled_while_a_worker_looks_for_missing_results_stay_settled(
        self, open_ledger: OpenLedger
    ) -> None:
        """A worker that joins a run does not repeat tasks that others complete at that moment."""
        ledger, joining = open_ledger("a"), open_ledger("b")
        tasks = tasks_of(20)
        ledger.enroll(tasks)
        first, second, *_ = claim_all(ledger)
        ledger.settle(ended(first))
        tick = threading.Event()
        tick.wait(TICK)

        def find_missing(frozen: Sequence[Task]) -> list[Task]:
            tick.wait(TICK)
            ledger.settle(ended(second))
            return list(frozen)

        joining.enroll(Pending(tasks, find_missing))
        assert joining.unsettled() == 19
        assert indices(joining.claim()) == [first.task.index]

    def test_extra_tasks_may_be_enrolled(self, open_ledger: OpenLedger) -> None:
        """Workers may add tasks to a list at any time."""
        ledger, other = open_ledger("a"), open_ledger("b")
        ledger.enroll([Task(1, 5.0), Task(2, 1.0)])
        other.enroll([Task(3, 7.0), Task(1, 5.0), Task(4, 3.0)])
        fresh = open_ledger("c")
        assert fresh.unsettled() == 4
        assert sorted(indices(claim_all(fresh))) == [1, 2, 3, 4]

    def test_lists_of_different_keys_are_independent(self, open_ledger: OpenLedger) -> None:
        """A new generation of a run starts with all tasks waiting."""
        old, new = open_ledger(key="run/1"), open_ledger(key="run/2")
        old.enroll(tasks_of(4))
        new.enroll(tasks_of(6))
        old.settle(ended(*claim_all(old)))
        assert (old.unsettled(), new.unsettled()) == (0, 6)

    def test_outcomes_elsewhere_are_those_of_other_hosts(self, open_ledger: OpenLedger) -> None:
        """Both done and failed ones; the outcomes of the own host are left out."""
        a, b = open_ledger("a"), open_ledger("b")
        a.enroll(tasks_of(40))
        assert dict(b.outcomes_elsewhere([5])) == {}
        done, failed, held, *more = claim_all(a, 40)
        a.settle(ended(done))
        a.settle(ended(failed, error="no"))
        asked = indices([done, failed, held])
        assert b.outcomes_elsewhere(asked) == {
            "a": {done.task.index: True, failed.task.index: False}
        }
        assert dict(a.outcomes_elsewhere(asked)) == {}
        a.settle(ended(held, *more))
        b.settle(ended(*claim_all(b)))
        outcomes_elsewhere = open_ledger("c").outcomes_elsewhere(asked)
        assert set(outcomes_elsewhere) == {"a", "b"}
        assert outcomes_elsewhere["a"][done.task.index]
        assert outcomes_elsewhere["a"][held.task.index]
        assert outcomes_elsewhere["b"] == {failed.task.index: True}
