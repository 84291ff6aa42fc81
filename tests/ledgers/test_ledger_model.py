"""Every ledger does what a dictionary in memory does, for any order of calls of several workers."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from cryotile.farm.task import ATTEMPTS, Task
from cryotile.ledgers import Lease, Ledger
from cryotile.ledgers.directory.ledger import DirLedger
from cryotile.ledgers.sql.ledger import SqlLedger
from cryotile.ledgers.sql.runs import count as count_tasks
from cryotile.ledgers.sql.runs import create_run, restart_all
from cryotile.testing.leases import at, ended, ids
from tests.support.databases import open_database

WORKERS = 3
_numbers = count()


@dataclass
class Known:
    """The state of a task in the model: the attempts that count, its lease if it has one, whether it is settled."""

    cost: float
    attempts: int = 0
    lease: Lease | None = None
    started: bool = False
    settled: bool = False


class LedgerMachine(RuleBasedStateMachine):
    """Three workers, one list, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[int, Known] = {}
        self.ledgers: list[Ledger] = []
        # Leases that were lost or have ended.
        self.old: list[Lease] = []

    def open_ledgers(self) -> list[Ledger]:
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.ledgers = self.open_ledgers()

    @rule(worker=st.integers(0, WORKERS - 1), first=st.integers(0, 60), size=st.integers(1, 40))
    def enroll(self, worker: int, first: int, size: int) -> None:
        listed = [Task(index, float(index * 7 % 31)) for index in range(first, first + size)]
        self.ledgers[worker].enroll(listed)
        for task in listed:
            known = self.tasks.setdefault(task.index, Known(task.cost))
            if known.settled:
                self.tasks[task.index] = Known(task.cost)

    @rule(worker=st.integers(0, WORKERS - 1), n=st.integers(1, 12))
    def claim(self, worker: int, n: int) -> None:
        waiting = {i: k for i, k in self.tasks.items() if not k.settled and k.lease is None}
        leases = self.ledgers[worker].claim(n)
        assert len({lease.task.index for lease in leases}) == len(leases) <= n
        assert bool(leases) == bool(waiting)
        for lease in leases:
            known = waiting[lease.task.index]
            assert (lease.task.cost, lease.attempt) == (known.cost, known.attempts + 1)
            known.lease = lease
        self.check_claim(leases, waiting, n)

    def check_claim(self, leases: list[Lease], waiting: dict[int, Known], n: int) -> None:
        """Check more properties of the leases."""

    def held(self, data: st.DataObject) -> list[Lease]:
        """Draw some of the valid leases."""
        alive = [known.lease for known in self.tasks.values() if known.lease is not None]
        return data.draw(st.lists(st.sampled_from(alive), unique=True)) if alive else []

    @rule(worker=st.integers(0, WORKERS - 1), data=st.data(), good=st.booleans())
    def settle(self, worker: int, data: st.DataObject, good: bool) -> None:
        for lease in self.held(data):
            ledger = self.holder(lease)
            ending = ended(lease, error=None if good else "no")
            # The second answer is that to a worker that did not get the first.
            assert ledger.settle(ending) == ledger.settle(ending) == set()
            known = self.tasks[lease.task.index]
            known.lease, known.started = None, False
            known.attempts = min(known.attempts + 1, ATTEMPTS)
            known.settled = good or lease.attempt >= ATTEMPTS
            self.old.append(lease)

    @rule(data=st.data(), started=st.booleans())
    def renew(self, data: st.DataObject, started: bool) -> None:
        for lease in self.held(data):
            assert self.holder(lease).renew(at(0.5 if started else None, lease)) == set()
            self.tasks[lease.task.index].started |= started

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        for lease in self.held(data):
            self.holder(lease).release(ids(lease))
            known = self.tasks[lease.task.index]
            known.lease, known.started = None, False
            self.old.append(lease)

    @rule(data=st.data())
    def settle_what_has_ended(self, data: st.DataObject) -> None:
        """Settle a lease that has ended, which changes nothing."""
        if self.old:
            lease = data.draw(st.sampled_from(self.old))
            self.holder(lease).settle(ended(lease))
            self.holder(lease).release(ids(lease))

    def holder(self, lease: Lease) -> Ledger:
        """Return the ledger of the worker that holds a lease, or any ledger if all may settle it."""
        raise NotImplementedError

    @invariant()
    def the_same_is_left(self) -> None:
        left = sum(not known.settled for known in self.tasks.values())
        assert {ledger.unsettled() for ledger in self.ledgers} <= {left}


class DirMachine(LedgerMachine):
    """The ledger in a directory, where only the process that claimed a lease can settle it."""

    def open_ledgers(self) -> list[Ledger]:
        self.place = Path(tempfile.mkdtemp())
        self.holders: dict[Lease, Ledger] = {}
        return [DirLedger(self.place, "run/1", host=f"host {n}") for n in range(WORKERS)]

    @rule(worker=st.integers(0, WORKERS - 1), n=st.integers(1, 12))
    def claim(self, worker: int, n: int) -> None:
        before = {known.lease for known in self.tasks.values()}
        super().claim(worker, n)
        new = {known.lease for known in self.tasks.values()} - before
        self.holders.update(dict.fromkeys(new, self.ledgers[worker]))

    def holder(self, lease: Lease) -> Ledger:
        return self.holders[lease]

    def teardown(self) -> None:
        if self.ledgers:
            shutil.rmtree(self.place)


class SQLMachine(LedgerMachine):
    """The ledger in a database: its order is exact, and its leases can be made to expire."""

    url = ""

    def open_ledgers(self) -> list[Ledger]:
        key = f"model {next(_numbers)}"
        self.database = open_database(self.url)
        self.run = create_run(self.database, key)
        return [SqlLedger(self.url, key, host=f"host {n}") for n in range(WORKERS)]

    def holder(self, lease: Lease) -> Ledger:
        return self.ledgers[lease.task.index % WORKERS]

    def check_claim(self, leases: list[Lease], waiting: dict[int, Known], n: int) -> None:
        costliest = sorted((known.cost for known in waiting.values()), reverse=True)
        assert [lease.task.cost for lease in leases] == costliest[:n]

    @rule(worker=st.integers(0, WORKERS - 1))
    def leases_expire_and_nothing_else_waits(self, worker: int) -> None:
        """Let leases expire: the next claim gets one of these tasks, and those that were started are charged."""
        if any(not known.settled and known.lease is None for known in self.tasks.values()):
            return
        sooner = text("UPDATE tasks SET expires = 0 WHERE run_id = :run AND state = 1")
        self.database.change(lambda connection: connection.execute(sooner, {"run": self.run.id}))
        for known in self.tasks.values():
            if known.lease is not None:
                self.old.append(known.lease)
                known.attempts += known.started
                known.lease, known.started = None, False
        self.claim(worker, 1)

    @rule()
    def restart(self) -> None:
        """Restart the run: all tasks wait, with no attempt made."""
        restart_all(self.database, self.run)
        self.old += [known.lease for known in self.tasks.values() if known.lease is not None]
        self.tasks = {index: Known(known.cost) for index, known in self.tasks.items()}

    @invariant()
    def the_counts_are_right(self) -> None:
        if self.ledgers:
            counts = count_tasks(self.database, self.run)
            leased = sum(known.lease is not None for known in self.tasks.values())
            settled = sum(known.settled for known in self.tasks.values())
            assert (counts.tasks, counts.leased) == (len(self.tasks), leased)
            assert counts.done + counts.failed == settled


MODEL = settings(
    max_examples=15,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)


def test_a_directory_does_what_the_model_does():
    run_state_machine_as_test(DirMachine, settings=MODEL)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_database_does_what_the_model_does(database, tmp_path, request):
    class Machine(SQLMachine):
        url = (
            f"sqlite:///{tmp_path}/farm.db"
            if database == "sqlite"
            else request.getfixturevalue("postgres").url
        )

    run_state_machine_as_test(Machine, settings=MODEL)
