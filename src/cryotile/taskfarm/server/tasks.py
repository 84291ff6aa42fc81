"""Tasks as the seed's API knows them: by run and index, set by whoever asks, waiting, computing or done.

A task that has failed, which the seed does not know, counts as waiting; a restart tries it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection

from cryotile.ledgers.sql import statements as sql
from cryotile.ledgers.sql.book import Book
from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.dialect import Change, Statement
from cryotile.ledgers.sql.runs import Counts, RunRecord, restart_all, restart_stranded
from cryotile.ledgers.sql.schema import State
from cryotile.taskfarm.server.workers import anonymous

__all__ = ["STATUSES", "SeedTask", "count", "find_task", "restart", "set_percent", "set_status"]

STATUSES = {"waiting": State.WAITING, "computing": State.LEASED, "done": State.DONE}

# Tally of what a restart put back; workers count from 1, and those without a name from -1 down to -64.
_RESTART = -100

_NAMES = {**{int(state): name for name, state in STATUSES.items()}, int(State.FAILED): "waiting"}

FIND_TASK = Statement("""
-- find_task: as it is.
SELECT state, percent FROM tasks WHERE run_id = :run AND idx = :idx
""")

LOCK_TASK = Statement("""
-- lock_task: nobody changes it until this transaction has.
SELECT state, turns, lease, expires, percent FROM tasks WHERE run_id = :run AND idx = :idx [lock]
""")

STOCK_OF_RUN = Statement("""
-- stock_of_run: laid out or not.
SELECT size, indices, costs FROM stock WHERE run_id = :run
""")

SET_PERCENT = Statement("""
-- set_percent: of a task that somebody has touched before; its lease, if it has one, begins anew.
UPDATE tasks SET
    percent = :percent, begun = (:percent > 0 AND state < 2),
    expires = CASE WHEN state = 1 AND expires < [now] + 0.9 * :seconds THEN [now] + :seconds ELSE expires END
WHERE run_id = :run AND idx = :idx AND turns > 0
RETURNING idx
""")

FINISH = Change(
    """
-- finish: what somebody is computing is done, whoever says so.
UPDATE tasks SET
    state = 2, percent = coalesce(CAST(:percent AS float8), percent), settled = [now],
    started = false, begun = false, expires = NULL
WHERE run_id = :run AND idx = :idx AND state + 0 = 1
""",
    returning="idx",
    counts={"leased": "-1", "done": "1", "attempts": "1"},
)

SET_TASK = Statement("""
-- set_task: to any state; a lease that it has begins anew, and a task set computing without one has none.
UPDATE tasks SET
    state = :state, percent = :percent, begun = (:begun > 0), started = false,
    turns = CASE WHEN turns = 0 THEN 1 ELSE turns END, lease = :lease,
    settled = CASE :state WHEN 2 THEN [now] ELSE NULL END,
    expires = CASE WHEN :state = 1 AND expires IS NOT NULL THEN [now] + :seconds ELSE NULL END
WHERE run_id = :run AND idx = :idx
""")

PERCENTS = Statement("""
-- percents: of what is begun, from its index; the rest is at 0 or, when done, at 100.
SELECT coalesce(sum(percent), 0) FROM tasks [begun] WHERE run_id = :run AND begun
""")

NOTE_RESTART = Statement("""
-- note_restart: so many tasks wait that somebody had touched before; their rows are gone.
INSERT INTO tallies (run_id, worker_id, seen, returned) VALUES (:run, :worker, [now], :returned)
ON CONFLICT (run_id, worker_id) DO UPDATE SET seen = excluded.seen, returned = excluded.returned
""")

FAILED = Statement("""
-- failed: indices of tasks that failed for good.
SELECT idx FROM tasks [failed] WHERE run_id = :run AND state = 3
""")


@dataclass(frozen=True, slots=True)
class SeedTask:
    """A task.

    Attributes
    ----------
    status : str
        ``waiting``, ``computing`` or ``done``.
    percent : float
        As last reported, 0 to 100.
    """

    status: str
    percent: float


def count(database: Database, run: RunRecord) -> tuple[Counts, float] | None:
    """Count the tasks of a run, and how many percent of it are done; None when it is gone."""

    def ask(connection: Connection) -> tuple[Counts, float] | None:
        row = sql.COUNT(connection, run=run.id).one_or_none()
        if row is None:
            return None
        tasks, leased, done, failed, returned = map(int, row)
        begun = float(PERCENTS(connection, run=run.id).scalar_one())
        counts = Counts(tasks, tasks - leased - done - failed, leased, done, failed, returned)
        return counts, min(100.0, (100.0 * done + begun) / max(1, tasks))

    return database.read(ask)


def find_task(database: Database, run: RunRecord, index: int) -> SeedTask | None:
    """Find a task of a run; None when the run has no such."""

    def ask(connection: Connection) -> SeedTask | None:
        row = FIND_TASK(connection, run=run.id, idx=index).one_or_none()
        if row is not None:
            return SeedTask(_NAMES[row.state], row.percent)
        listed = _find_stocked(connection, run.id, index) is not None
        return SeedTask("waiting", 0.0) if listed else None

    return database.read(ask)


def set_percent(
    database: Database, run: RunRecord, index: int, percent: float, *, seconds: float
) -> bool:
    """Set how far a task is; its lease, if any, is good for so many seconds from now.  False when there is none."""
    given = {"run": run.id, "idx": index, "percent": percent, "seconds": seconds}
    if database.change_once(lambda c: SET_PERCENT(c, **given).one_or_none()) is not None:
        return True
    return database.change(
        lambda connection: _set(connection, run.id, index, None, percent, seconds)
    )


def set_status(
    database: Database,
    run: RunRecord,
    index: int,
    status: str,
    percent: float | None,
    *,
    seconds: float,
) -> bool:
    """Set what a task is, and perhaps how far; False when the run has no such task."""
    state = STATUSES[status]
    if state == State.DONE:
        given = {"run": run.id, "worker": anonymous(), "idx": index, "percent": percent}
        if database.change_once(lambda c: FINISH(c, **given)):
            return True
    return database.change(lambda c: _set(c, run.id, index, state, percent, seconds))


def restart(database: Database, run: RunRecord, *, everything: bool) -> None:
    """Let those tasks wait again that nobody is computing with a living lease, or all."""
    if everything:
        _restart_all(database, run)
        return
    restart_stranded(database, run)
    failed = database.read(lambda c: list(FAILED(c, run=run.id).scalars()))
    Book(database, run, 0).reopen(failed)


def _restart_all(database: Database, run: RunRecord) -> None:
    found = count(database, run)
    restart_all(database, run)
    if found is None:
        return
    counts = found[0]
    touched = min(counts.tasks, counts.returned + counts.leased + counts.done + counts.failed)
    given = {"run": run.id, "worker": _RESTART, "returned": touched}
    database.change(lambda connection: NOTE_RESTART(connection, **given).close())


def _set(
    connection: Connection,
    run: int,
    index: int,
    state: State | None,
    percent: float | None,
    seconds: float,
) -> bool:
    """Set a task, which is laid out first if it is in stock still; and what that changes of the counts."""
    old = LOCK_TASK(connection, run=run, idx=index).one_or_none()
    if old is None:
        cost = _find_stocked(connection, run, index)
        if cost is None:
            return False
        sql.MATERIALIZE(connection, run=run, given=json.dumps([[index, cost]]))
        old = LOCK_TASK(connection, run=run, idx=index).one()
    new = old.state if state is None else int(state)
    # A lease ends when its task is put back; that of a done task is kept, so that its worker may settle it once more.
    keeps = new == State.DONE or (new == State.LEASED == old.state)
    percent = old.percent if percent is None else percent
    SET_TASK(
        connection, run=run, idx=index, state=new, percent=percent, seconds=seconds,
        lease=old.lease if keeps else None, begun=int(new < State.DONE and percent > 0),
    )  # fmt: skip
    before, after = _counts(old.state, old.turns > 0), _counts(new, True)
    change = {name: after[name] - before[name] for name in before}
    ended = int(new == State.DONE != old.state)
    sql.ADD_TALLY(connection, run=run, worker=anonymous(), attempts=ended, **change)
    return True


def _counts(state: int, touched: bool) -> dict[str, int]:
    """Which counts of its run a task is in."""
    return {
        "leased": int(state == State.LEASED),
        "done": int(state == State.DONE),
        "failed": int(state == State.FAILED),
        "returned": int(state == State.WAITING and touched),
    }


def _find_stocked(connection: Connection, run: int, index: int) -> float | None:
    """Return the cost of a task that is listed; None when it is not."""
    row: Any
    for row in STOCK_OF_RUN(connection, run=run):
        if row.indices is None:
            if index < row.size:
                return 0.0
            continue
        places = np.flatnonzero(np.frombuffer(row.indices, "<i8") == index)
        if len(places):
            return float(np.frombuffer(row.costs, "<f8")[places[0]])
    return None
