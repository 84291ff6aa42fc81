"""The ledger's verbs on the tables of a database, for one run and one worker; SQLLedger and the server both use them.

A lease's id says which task it is of: ``index-token``.  The token is drawn by who claims, before it asks, so that a
claim whose answer was lost can be asked for again.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from sqlalchemy import Connection

from cryotile.farm.task import Outcome, Task
from cryotile.ledgers.base import Lease
from cryotile.ledgers.sql import statements as sql
from cryotile.ledgers.sql.backlog import Listed, add_range, add_tasks, listed, materialize
from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.dialect import Change
from cryotile.ledgers.sql.runs import RunRecord
from cryotile.ledgers.sql.schema import State

__all__ = ["Book"]


@dataclass(frozen=True, slots=True)
class Book:
    """One run as one worker sees it.

    Every verb is a transaction, and may be called again when its answer was lost.

    Attributes
    ----------
    database : Database
        Where.
    run : RunRecord
        Which run.
    worker : int
        Number of the worker, as of :meth:`cryotile.ledgers.sql.ledger.register`; 0 for nobody.
    """

    database: Database
    run: RunRecord
    worker: int

    def enroll(self, tasks: Sequence[Task], seen: float | None = None) -> None:
        """List what is to be done; see :meth:`cryotile.ledgers.Ledger.enroll`.

        Parameters
        ----------
        tasks : sequence of Task
            All that is missing.
        seen : float, optional
            By the database's clock, when their owner began to find that out, if that was before this call: what was
            settled after that is not missing.
        """
        # Before the tasks are looked at: what is settled while their owner finds out what is missing is not missing.
        now, known = self.database.read(self._known)
        before = now if seen is None else seen
        unknown = [task for task in tasks if task.index not in known]
        # Mostly the list is known, as to all workers but the first.
        if unknown:
            self.database.change(lambda connection: self._enroll(connection, unknown, before))

    def enroll_range(self, count: int) -> None:
        """List tasks 0 … count - 1 of a run that has none, all alike."""
        self.database.change(lambda connection: add_range(connection, self.run.id, count))

    def claim(
        self,
        n: int,
        seconds: float | None = None,
        *,
        token: int | None = None,
        again: bool = False,
    ) -> list[Lease]:
        """Lease the costliest waiting tasks.

        Parameters
        ----------
        n : int
            How many at most.
        seconds : float, optional
            For which the leases are good; the run's own length when not given.
        token : int, optional
            A random number of 62 bits, the same when the same claim is asked for again.
        again : bool
            Whether it is: what it has leased is looked for first.

        Returns
        -------
        list of Lease
            Costliest first.
        """
        call = _Claim.of(self.run, seconds, token, again=again)
        leases = self.database.change_once(
            lambda connection: self._claim_first(connection, n, call)
        )
        return self._filled(leases, n, call)

    def renew(
        self, fractions: Mapping[str, float | None], seconds: float | None = None
    ) -> set[str]:
        """Prolong leases, by their ids; see :meth:`cryotile.ledgers.Ledger.renew`.

        Parameters
        ----------
        fractions : mapping of str to float or None
            How far the task of each lease is, 0 to 1; None for one that is not started.
        seconds : float, optional
            For which the leases are good from now; the run's own length when not given.
        """
        rows = {
            id: (*place, None if fraction is None else 100.0 * fraction)
            for id, fraction in fractions.items()
            if (place := _place(id)) is not None
        }
        length = self.run.lease if seconds is None else seconds
        renewed = self._change(sql.RENEW, rows, seconds=length)
        return {id for id in fractions if id not in rows or rows[id][0] not in renewed}

    def settle(self, outcomes: Mapping[str, Outcome]) -> set[str]:
        """End leases, by their ids; see :meth:`cryotile.ledgers.Ledger.settle`."""
        rows, errors = _ended(outcomes)
        if errors:
            settled = self.database.change(lambda c: self._settle(c, rows, errors))
        else:
            settled = self._change(sql.SETTLE, rows, attempts=self.run.attempts)
        return self._lost(outcomes, rows, settled)

    def exchange(
        self,
        outcomes: Mapping[str, Outcome],
        n: int,
        seconds: float | None = None,
        *,
        token: int | None = None,
        again: bool = False,
    ) -> tuple[set[str], list[Lease]]:
        """Settle and claim in one transaction; see :meth:`settle` and :meth:`claim`."""
        rows, errors = _ended(outcomes)
        call = _Claim.of(self.run, seconds, token, again=again)

        def settle_and_claim(connection: Connection) -> tuple[set[int], list[Lease]]:
            settled = self._settle(connection, rows, errors) if rows else set()
            return settled, self._claim_first(connection, n, call)

        settled, leases = self.database.change(settle_and_claim)
        return self._lost(outcomes, rows, settled), self._filled(leases, n, call)

    def release(self, leases: Iterable[str]) -> None:
        """Hand tasks back, by the ids of their leases; see :meth:`cryotile.ledgers.Ledger.release`."""
        self._change(sql.RELEASE, {id: place for id in leases if (place := _place(id)) is not None})

    def holder(self, leases: Iterable[str]) -> int | None:
        """Return the number of a worker that has or had one of some leases, by their ids; None when none did."""
        rows = {id: place for id in leases if (place := _place(id)) is not None}
        return self.database.read(
            lambda c: sql.FIND_HOLDER(c, run=self.run.id, given=_given(rows)).scalar_one_or_none()
        )

    def reopen(self, indices: Collection[int]) -> None:
        """Let those of some tasks that are settled wait again, with no attempt made."""
        self.database.change(lambda connection: self._reopen(connection, indices))

    def outcomes_elsewhere(self, tasks: Collection[int]) -> dict[str, dict[int, bool]]:
        """Tell what hosts made of tasks; see :meth:`cryotile.ledgers.Ledger.outcomes_elsewhere`."""

        def ask(connection: Connection) -> dict[str, dict[int, bool]]:
            hosts = sql.HOSTS(connection, run=self.run.id).scalars()
            found: dict[str, dict[int, bool]] = {host: {} for host in hosts}
            given = json.dumps([[index] for index in tasks])
            for row in sql.OUTCOMES_ELSEWHERE(connection, run=self.run.id, given=given):
                ended = found.setdefault(row.host, {})
                ended[row.idx] = bool(row.done) or ended.get(row.idx, False)
            return found

        return self.database.read(ask)

    def _claim_first(self, connection: Connection, n: int, call: _Claim) -> list[Lease]:
        # Only a claim that is asked for again can have leased something.
        found = self._claimed(connection, call) if call.again else []
        call.again = True
        return found or self._claim(connection, n, call)

    def _claim(self, connection: Connection, n: int, call: _Claim) -> list[Lease]:
        rows = sql.CLAIM(
            connection, run=self.run.id, worker=self.worker, n=n, lease=call.token, seconds=call.seconds
        )  # fmt: skip
        return call.leases(rows)

    def _claimed(self, connection: Connection, call: _Claim) -> list[Lease]:
        return call.leases(sql.FIND_CLAIMED(connection, run=self.run.id, lease=call.token))

    def _filled(self, leases: list[Lease], n: int, call: _Claim) -> list[Lease]:
        """Claim more if that were too few and there is more; costliest first."""
        if len(leases) < n and self._has_more(leases):
            more = self.database.change(lambda c: self._claim_more(c, n, leases, call))
            leases = [*leases, *more]
        return sorted(leases, key=lambda lease: (-lease.task.cost, lease.task.index))

    def _claim_more(
        self, connection: Connection, n: int, had: Sequence[Lease], call: _Claim
    ) -> list[Lease]:
        """Lay out stock and reap expired leases, as long as there are fewer than ``n`` tasks to claim."""
        sql.LOCK_RUN(connection, run=self.run.id)
        known = {lease.id for lease in had}
        found = [lease for lease in self._claimed(connection, call) if lease.id not in known]
        while (wanted := n - len(had) - len(found)) > 0:
            # Whoever had the lock before may have laid out enough.
            if claimed := self._claim(connection, wanted, call):
                found += claimed
            elif not materialize(connection, self.run.id) and (
                had or found or not self._reap(connection)
            ):
                break
        return found

    def _has_more(self, leases: Sequence[Lease]) -> bool:
        """Tell whether there is stock or, for who has found nothing at all, a lease that has expired."""
        query = sql.STOCK_LEFT if leases else sql.STOCK_OR_EXPIRED_LEFT
        return self.database.read(lambda c: query(c, run=self.run.id).one_or_none()) is not None

    def _reap(self, connection: Connection) -> int:
        return len(sql.REAP(connection, run=self.run.id, worker=self.worker))

    def _change(
        self, statement: Change, rows: Mapping[str, Sequence[Any]], **more: Any
    ) -> set[int]:
        """Change the tasks of leases; the indices of those of which the lease was not lost."""
        if not rows:
            return set()
        given = {"run": self.run.id, "worker": self.worker, "given": _given(rows), **more}
        return self.database.change_once(lambda c: {row.idx for row in statement(c, **given)})

    def _settle(
        self,
        connection: Connection,
        rows: Mapping[str, Sequence[Any]],
        errors: Mapping[int, Outcome],
    ) -> set[int]:
        """Settle leases, and note why attempts failed; the indices of those of which the lease was not lost."""
        run, worker = self.run.id, self.worker
        changed = sql.SETTLE(
            connection, run=run, worker=worker, given=_given(rows), attempts=self.run.attempts
        )
        notes = [
            {
                "run": run,
                "idx": row.idx,
                "attempt": row.attempts,
                "worker": worker,
                "seconds": errors[row.idx].seconds,
                "error": errors[row.idx].error,
            }
            for row in changed
            if row.idx in errors
        ]
        sql.NOTE_FAILURE.many(connection, notes)
        return {row.idx for row in changed}

    def _lost(
        self, ids: Collection[str], rows: Mapping[str, Sequence[Any]], settled: set[int]
    ) -> set[str]:
        """Tell which leases are lost, of those that settled nothing just now."""
        suspect = {id: row for id, row in rows.items() if row[0] not in settled}
        if suspect:
            given = _given(suspect)
            before = self.database.read(
                lambda c: set(sql.FIND_SETTLED(c, run=self.run.id, given=given).scalars())
            )
            settled = settled | before
        return {id for id in ids if id not in rows or rows[id][0] not in settled}

    def _known(self, connection: Connection) -> tuple[float, Listed]:
        """Return what waits or is leased, and the time."""
        now = sql.NOW(connection).scalar_one()
        # The stock first: what is laid out meanwhile is then seen twice, and not missed.
        known = listed(connection, self.run.id)
        known.indices.update(sql.OPEN_TASKS(connection, run=self.run.id).scalars())
        return now, known

    def _enroll(self, connection: Connection, tasks: Sequence[Task], before: float) -> None:
        """List tasks that were not open at a time."""
        sql.LOCK_RUN(connection, run=self.run.id)
        _, known = self._known(connection)
        rows = sql.SETTLED_TASKS(connection, run=self.run.id)
        settled: dict[int, float] = {row.idx: row.settled for row in rows}
        lost = [task.index for task in tasks if settled.get(task.index, inf) <= before]
        self._reopen(connection, lost)
        new = [task for task in tasks if task.index not in known and task.index not in settled]
        add_tasks(connection, self.run.id, new)

    def _reopen(self, connection: Connection, indices: Collection[int]) -> None:
        if not indices:
            return
        given = {"run": self.run.id, "given": json.dumps([[index] for index in indices])}
        for state in (State.DONE, State.FAILED):
            sql.REOPEN(connection, worker=self.worker, state=int(state), **given)
        sql.FORGET_FAILURES(connection, **given)


@dataclass(slots=True)
class _Claim:
    """One claim, however often it is asked for.

    Attributes
    ----------
    token : int
        By which the ledger knows it.
    seconds : float
        For which its leases are good.
    again : bool
        Whether it was asked for before, so that it may have leased something.
    """

    token: int
    seconds: float
    again: bool

    @classmethod
    def of(cls, run: RunRecord, seconds: float | None, token: int | None, *, again: bool) -> _Claim:
        """Fill in what is not given."""
        return cls(
            secrets.randbits(62) if token is None else token,
            run.lease if seconds is None else seconds,
            again,
        )

    def leases(self, rows: Iterable[Any]) -> list[Lease]:
        """Make leases of rows."""
        token, seconds = f"{self.token:x}", self.seconds
        return [
            Lease(Task(idx, cost), f"{idx}-{token}", attempts + 1, seconds, turns)
            for idx, cost, attempts, turns, *_ in rows
        ]


def _ended(
    outcomes: Mapping[str, Outcome],
) -> tuple[dict[str, tuple[int, int, float, int]], dict[int, Outcome]]:
    """Make rows of outcomes, by the ids of their leases; and those that failed, by index."""
    rows = {
        id: (*place, outcome.seconds, int(outcome.error is not None))
        for id, outcome in outcomes.items()
        if (place := _place(id)) is not None
    }
    errors = {rows[id][0]: outcomes[id] for id in rows if outcomes[id].error is not None}
    return rows, errors


def _place(id: str) -> tuple[int, int] | None:
    """Read a lease's id: the index of its task and its token; None when it cannot be one."""
    index, _, token = id.partition("-")
    try:
        place = int(index), int(token, 16)
    except ValueError:
        return None
    return place if max(place) < 2**63 and min(place) >= 0 else None


def _given(rows: Mapping[str, Sequence[Any]]) -> str:
    return json.dumps([list(row) for row in rows.values()])
