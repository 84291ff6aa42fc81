"""A ledger in a database: SQLite for the workers of one machine, PostgreSQL for those of many.

The id of a lease names its task: ``index-token``.  The claimant draws the token before it asks, so that a claim whose
answer was lost can be repeated.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

from cryotile.errors import MissingDependency
from cryotile.farm.failures import kind_of
from cryotile.farm.task import Task
from cryotile.ledgers.base import LEASE, Ending, Lease, Ledger

try:
    from sqlalchemy import Connection

    from cryotile.ledgers.sql import statements as sql
    from cryotile.ledgers.sql.backlog import (
        BacklogIndices,
        add_range,
        add_tasks,
        is_scarce,
        materialize,
        read_backlog,
        stock,
    )
    from cryotile.ledgers.sql.database import Database
    from cryotile.ledgers.sql.dialect import TaskUpdate
    from cryotile.ledgers.sql.runs import RunRecord, count, create_run
    from cryotile.ledgers.sql.schema import TaskState, upgrade
except ModuleNotFoundError as error:
    raise MissingDependency(
        "a ledger in a database needs SQLAlchemy: pip install 'cryotile[database]'"
    ) from error

__all__ = ["SqlLedger", "register"]

# Tasks that are claimed, on average, between two looks at how many still have rows.
_LOOK = 128


def register(database: Database, name: str, host: str, pid: int) -> int:
    """Register a worker by its uuid, or find it; return its number."""
    return database.change(
        lambda connection: int(sql.REGISTER(connection, uuid=name, host=host, pid=pid).scalar_one())
    )


class SqlLedger(Ledger):
    """Tasks in a database; see :class:`cryotile.ledgers.Ledger`.

    Every verb is a transaction, and may be repeated when its answer was lost.

    Parameters
    ----------
    database : str or Database
        ``sqlite:///path`` or ``postgresql://user@host/name``, or an open database.
    key : str
        Name of the task list; another list has another key.
    lease : float
        Seconds for which a lease is valid.
    host : str
        Name of this host.

    Raises
    ------
    InvalidValue
        The address is invalid, or the file is on a network file system.
    """

    def __init__(
        self, database: str | Database, key: str, *, lease: float = LEASE, host: str = ""
    ) -> None:
        self._database = Database(database) if isinstance(database, str) else database
        self._key = key
        self._lease = lease
        self._host = host or socket.gethostname()

    @classmethod
    def of_worker(
        cls, database: Database, run: RunRecord, worker: int, *, lease: float | None = None
    ) -> SqlLedger:
        """Open the ledger of a known run for a worker on any host; 0 stands for no worker."""
        ledger = cls(database, run.key, lease=run.lease if lease is None else lease)
        ledger._run, ledger._worker, ledger._host = run, worker, ""
        ledger._joined = database
        return ledger

    @cached_property
    def _joined(self) -> Database:
        """The database, after the run was found or created in it and this worker was registered.

        Every verb starts here, because a transaction must not start another one.
        """
        self._database.change(upgrade)
        self._run = create_run(self._database, self._key, lease=self._lease)
        self._worker = register(self._database, uuid.uuid4().hex, self._host, os.getpid())
        return self._database

    def enroll(self, tasks: Sequence[Task], seen: float | None = None) -> None:
        """List the tasks to do; see :meth:`cryotile.ledgers.Ledger.enroll`.

        Parameters
        ----------
        tasks : sequence of Task
            The tasks whose results are missing.
        seen : float, optional
            Time by the database's clock when the caller began to look for missing results, if that was before this
            call: a task that was settled after it stays settled.
        """
        # Read before the tasks, which may be lazy, so that tasks settled during their evaluation are not reopened.
        now, known = self._joined.read(self._known)
        before = now if seen is None else seen
        unknown = [task for task in tasks if task.index not in known]
        # For all workers but the first the list is known.
        if unknown:
            self._joined.change(lambda connection: self._enroll(connection, unknown, before))

    def enroll_range(self, count: int) -> None:
        """List tasks 0 … count - 1, all of cost 0, of a run that has no tasks."""
        self._joined.change(lambda connection: add_range(connection, self._run.id, count))

    def claim(self, n: int = 1, *, token: int | None = None, again: bool = False) -> list[Lease]:
        """Lease waiting tasks; see :meth:`cryotile.ledgers.Ledger.claim`.

        Parameters
        ----------
        n : int
            Maximum number of leases.
        token : int, optional
            A random number of 62 bits; a repeated claim has the same one.
        again : bool
            Whether the claim is repeated: the leases that it made before are looked for first.

        Returns
        -------
        list of Lease
            Costliest first.
        """
        first, more = self._calls(token, again)
        leases = self._joined.change_once(
            lambda connection: self._claim_first(connection, n, first)
        )
        return self._filled(leases, n, more)

    def renew(self, fractions: Mapping[str, float | None]) -> set[str]:
        """Prolong leases; see :meth:`cryotile.ledgers.Ledger.renew`."""
        rows = {
            id: (*place, None if fraction is None else 100.0 * fraction)
            for id, fraction in fractions.items()
            if (place := _place(id)) is not None
        }
        renewed = self._change(sql.RENEW, rows, seconds=self._lease)
        return {id for id in fractions if id not in rows or rows[id][0] not in renewed}

    def settle(self, endings: Mapping[str, Ending]) -> set[str]:
        """End leases; see :meth:`cryotile.ledgers.Ledger.settle`."""
        rows, noted = _ended(endings)
        if not rows:
            return set(endings)
        change = self._joined.change if noted else self._joined.change_once
        settled = change(lambda connection: self._settle(connection, rows, noted))
        return self._lost(endings, rows, settled)

    def exchange(
        self,
        endings: Mapping[str, Ending],
        n: int,
        *,
        token: int | None = None,
        again: bool = False,
    ) -> tuple[set[str], list[Lease]]:
        """Settle and claim in one transaction; see :meth:`settle` and :meth:`claim`."""
        rows, noted = _ended(endings)
        first, more = self._calls(token, again)

        def settle_and_claim(connection: Connection) -> tuple[set[int], list[Lease]]:
            settled = self._settle(connection, rows, noted) if rows else set()
            return settled, self._claim_first(connection, n, first)

        settled, leases = self._joined.change(settle_and_claim)
        return self._lost(endings, rows, settled), self._filled(leases, n, more)

    def release(self, leases: Collection[str]) -> None:
        """Hand tasks back; see :meth:`cryotile.ledgers.Ledger.release`."""
        self._change(sql.RELEASE, {id: place for id in leases if (place := _place(id)) is not None})

    def unsettled(self) -> int:
        """Return the number of open tasks; see :meth:`cryotile.ledgers.Ledger.unsettled`."""
        counts = count(self._joined, self._run)
        return counts.waiting + counts.leased

    def holder(self, leases: Iterable[str]) -> int | None:
        """Return the number of a worker that has or had one of some leases, by their ids; None without one."""
        rows = {id: place for id in leases if (place := _place(id)) is not None}
        return self._joined.read(
            lambda c: sql.FIND_HOLDER(c, run=self._run.id, given=_given(rows)).scalar_one_or_none()
        )

    def reopen(self, indices: Collection[int]) -> None:
        """Open those of some tasks that are settled, with no attempt made."""
        self._joined.change(lambda connection: self._reopen(connection, indices))

    def outcomes_elsewhere(self, tasks: Collection[int]) -> dict[str, dict[int, bool]]:
        """Return the outcomes of tasks on other hosts; see :meth:`cryotile.ledgers.Ledger.outcomes_elsewhere`."""

        def ask(connection: Connection) -> dict[str, dict[int, bool]]:
            hosts = sql.HOSTS(connection, run=self._run.id).scalars()
            found: dict[str, dict[int, bool]] = {host: {} for host in hosts}
            given = json.dumps([[index] for index in tasks])
            for row in sql.OUTCOMES_ELSEWHERE(connection, run=self._run.id, given=given):
                ended = found.setdefault(row.host, {})
                ended[row.idx] = bool(row.done) or ended.get(row.idx, False)
            found.pop(self._host, None)
            return found

        return self._joined.read(ask)

    def _calls(self, token: int | None, again: bool) -> tuple[_Claim, _Claim]:
        """Return the two transactions of a claim."""
        token = secrets.randbits(62) if token is None else token
        return _Claim(token, self._lease, again), _Claim(token, self._lease, again)

    def _claim_first(self, connection: Connection, n: int, call: _Claim) -> list[Lease]:
        return self._claimed(connection, call) or self._claim(connection, n, call)

    def _claim(self, connection: Connection, n: int, call: _Claim) -> list[Lease]:
        rows = sql.CLAIM(
            connection, run=self._run.id, worker=self._worker, n=n, lease=call.token, seconds=call.seconds
        )  # fmt: skip
        return call.leases(rows)

    def _claimed(self, connection: Connection, call: _Claim) -> list[Lease]:
        """Return the leases that a claim has already; only a repeated one can have some."""
        again, call.again = call.again, True
        if not again:
            return []
        return call.leases(sql.FIND_CLAIMED(connection, run=self._run.id, lease=call.token))

    def _filled(self, leases: list[Lease], n: int, call: _Claim) -> list[Lease]:
        """Claim more leases if there are too few and more tasks; return all, costliest first."""
        if len(leases) < n and self._has_more(leases):
            more = self._joined.change(lambda c: self._claim_more(c, n, leases, call))
            leases = [*leases, *more]
        elif call.token % _LOOK < n and self._joined.read(lambda c: is_scarce(c, self._run.id)):
            self._joined.change(lambda c: stock(c, self._run.id))
        return sorted(leases, key=lambda lease: (-lease.task.cost, lease.task.index))

    def _claim_more(
        self, connection: Connection, n: int, had: Sequence[Lease], call: _Claim
    ) -> list[Lease]:
        """Materialize tasks of the backlog and reap expired leases until there are ``n`` leases or no more tasks."""
        run = sql.LOCK_RUN(connection, run=self._run.id).one_or_none()
        known = {lease.id for lease in had}
        found = [lease for lease in self._claimed(connection, call) if lease.id not in known]
        if run is None or run.paused:
            return found
        while (wanted := n - len(had) - len(found)) > 0:
            # The last holder of the lock may have materialized enough.
            if claimed := self._claim(connection, wanted, call):
                found += claimed
            elif not materialize(connection, self._run.id) and (
                had or found or not self._reap(connection)
            ):
                break
        return found

    def _has_more(self, leases: Sequence[Lease]) -> bool:
        """Return whether there is a backlog or, if nothing was claimed, an expired lease."""
        query = sql.BACKLOG_LEFT if leases else sql.BACKLOG_OR_EXPIRED_LEFT
        return self._joined.read(lambda c: query(c, run=self._run.id).one_or_none()) is not None

    def _reap(self, connection: Connection) -> int:
        return len(sql.REAP(connection, run=self._run.id, worker=self._worker))

    def _change(
        self, statement: TaskUpdate, rows: Mapping[str, Sequence[Any]], **more: Any
    ) -> set[int]:
        """Update the tasks of leases; return the indices of those whose lease is not lost."""
        if not rows:
            return set()
        database = self._joined
        given = {"run": self._run.id, "worker": self._worker, "given": _given(rows), **more}
        return database.change_once(lambda c: {row.idx for row in statement(c, **given)})

    def _settle(
        self,
        connection: Connection,
        rows: Mapping[str, Sequence[Any]],
        noted: Mapping[int, Ending],
    ) -> set[int]:
        """Settle leases, and keep errors and thumbnails; return the indices of the tasks whose lease is not lost."""
        run, worker = self._run.id, self._worker
        changed = sql.SETTLE(
            connection, run=run, worker=worker, given=_given(rows), attempts=self._run.attempts
        )
        ended = [(row, noted[row.idx]) for row in changed if row.idx in noted]
        notes = [
            {
                "run": run,
                "idx": row.idx,
                "attempt": row.attempts,
                "worker": worker,
                "seconds": ending.seconds,
                "error": ending.error,
                "kind": kind_of(ending.error),
            }
            for row, ending in ended
            if ending.error is not None
        ]
        sql.NOTE_FAILURE.many(connection, notes)
        pictures = [
            {"run": run, "idx": row.idx, "body": ending.thumbnail}
            for row, ending in ended
            if ending.error is None
        ]
        sql.KEEP_THUMBNAIL.many(connection, pictures)
        return {row.idx for row in changed}

    def _lost(
        self, ids: Collection[str], rows: Mapping[str, Sequence[Any]], settled: set[int]
    ) -> set[str]:
        """Return the lost leases; those that settled their task in an earlier call are not lost."""
        suspect = {id: row for id, row in rows.items() if row[0] not in settled}
        if suspect:
            given = _given(suspect)
            before = self._joined.read(
                lambda c: set(sql.FIND_SETTLED(c, run=self._run.id, given=given).scalars())
            )
            settled = settled | before
        return {id for id in ids if id not in rows or rows[id][0] not in settled}

    def _known(self, connection: Connection) -> tuple[float, BacklogIndices]:
        """Return the time, and the indices of the open tasks."""
        now = sql.NOW(connection).scalar_one()
        # The backlog first: tasks that are materialized meanwhile are then seen twice, and not missed.
        known = read_backlog(connection, self._run.id)
        known.indices.update(sql.OPEN_TASKS(connection, run=self._run.id).scalars())
        return now, known

    def _enroll(self, connection: Connection, tasks: Sequence[Task], before: float) -> None:
        """List tasks; reopen those that were settled before a time."""
        sql.LOCK_RUN(connection, run=self._run.id)
        _, known = self._known(connection)
        rows = sql.SETTLED_TASKS(connection, run=self._run.id)
        settled: dict[int, float] = {row.idx: row.settled for row in rows}
        lost = [task.index for task in tasks if settled.get(task.index, inf) <= before]
        self._reopen(connection, lost)
        new = [task for task in tasks if task.index not in known and task.index not in settled]
        add_tasks(connection, self._run.id, new)

    def _reopen(self, connection: Connection, indices: Collection[int]) -> None:
        if not indices:
            return
        given = {"run": self._run.id, "given": json.dumps([[index] for index in indices])}
        opened = 0
        for state in (TaskState.DONE, TaskState.FAILED):
            opened += len(sql.REOPEN(connection, worker=self._worker, state=int(state), **given))
        sql.FORGET_FAILURES(connection, **given)
        sql.FORGET_THUMBNAILS(connection, **given)
        if opened:
            sql.NEW_EPOCH(connection, run=self._run.id)


@dataclass(slots=True)
class _Claim:
    """A claim, which may be repeated.

    Attributes
    ----------
    token : int
        Identifies the claim in the database.
    seconds : float
        Seconds for which its leases are valid.
    again : bool
        Whether it may have leases already.
    """

    token: int
    seconds: float
    again: bool

    def leases(self, rows: Iterable[Any]) -> list[Lease]:
        """Return the leases of rows."""
        token, seconds = f"{self.token:x}", self.seconds
        return [
            Lease(Task(idx, cost), f"{idx}-{token}", attempts + 1, seconds, lease_count)
            for idx, cost, attempts, lease_count, *_ in rows
        ]


def _ended(
    endings: Mapping[str, Ending],
) -> tuple[dict[str, tuple[int, int, float, int]], dict[int, Ending]]:
    """Return the rows of endings by lease id, and by task index those with an error or a thumbnail."""
    rows = {
        id: (*place, ending.seconds, int(ending.error is not None))
        for id, ending in endings.items()
        if (place := _place(id)) is not None
    }
    noted = {
        rows[id][0]: ending
        for id, ending in endings.items()
        if id in rows and (ending.error is not None or ending.thumbnail is not None)
    }
    return rows, noted


def _place(id: str) -> tuple[int, int] | None:
    """Return the task index and the token of a lease id; None if it is not one."""
    index, _, token = id.partition("-")
    try:
        place = int(index), int(token, 16)
    except ValueError:
        return None
    return place if max(place) < 2**63 and min(place) >= 0 else None


def _given(rows: Mapping[str, Sequence[Any]]) -> str:
    return json.dumps([list(row) for row in rows.values()])
