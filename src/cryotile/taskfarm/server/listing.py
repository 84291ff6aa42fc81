"""Queries that list runs, their tasks and their workers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from cryotile.farm.estimate import Durations, rate_left, time_left
from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.dialect import Statement
from cryotile.ledgers.sql.runs import RunRecord
from cryotile.ledgers.sql.schema import TaskState
from cryotile.taskfarm.server.auth import Principal
from cryotile.taskfarm.server.bodies import RunSummary, TaskSummary, WorkerSummary

__all__ = ["list_runs", "list_tasks", "list_workers", "note_memory", "see_run", "summarize"]

# A worker counts as at work for this long after its last call, beyond the length of a lease.
_GRACE = 60.0

_AT_WORK = f"tallies.worker_id <> 0 AND tallies.seen > clock - runs.lease - {_GRACE}"
# At least a second: otherwise a worker that has just begun would seem arbitrarily fast.
_SPAN = "CASE WHEN clock - tallies.last_at > 1 THEN clock - tallies.last_at ELSE 1 END"
# The clock is read once: for each of thousands of workers it would take most of the time.
_COLUMNS = f"""
WITH time AS MATERIALIZED (SELECT [now] AS clock)
SELECT runs.id, runs.uuid, runs.key, runs.name, runs.owner, runs.created, runs.lease, runs.attempts, runs.tasks,
       runs.cost, runs.paused, runs.epoch, EXISTS (SELECT 1 FROM maps WHERE maps.run_id = runs.id) AS map,
       coalesce(sum(tallies.leased), 0) AS leased, coalesce(sum(tallies.done), 0) AS done,
       coalesce(sum(tallies.failed), 0) AS failed, max(tallies.seen) AS seen, max(clock) AS clock,
       coalesce(sum(tallies.cost), 0) AS settled_cost, coalesce(sum(tallies.timed), 0) AS timed,
       coalesce(sum(tallies.timed_cost), 0) AS timed_cost, coalesce(sum(tallies.timed_seconds), 0) AS timed_seconds,
       coalesce(sum(tallies.timed_cost2), 0) AS timed_cost2, coalesce(sum(tallies.timed_seconds2), 0) AS timed_seconds2,
       coalesce(sum(tallies.timed_product), 0) AS timed_product,
       sum(CASE WHEN {_AT_WORK} THEN 1 ELSE 0 END) AS workers,
       sum(CASE WHEN {_AT_WORK} THEN (tallies.done - tallies.last_done) / {_SPAN} ELSE 0 END) AS rate,
       sum(CASE WHEN {_AT_WORK} THEN (tallies.timed_seconds - tallies.last_seconds) / {_SPAN} ELSE 0 END) AS busy,
       coalesce((SELECT max(cost) FROM tasks [waiting] WHERE tasks.run_id = runs.id AND state = 0), 0) AS next_cost,
       coalesce((SELECT max(top) FROM backlog WHERE backlog.run_id = runs.id AND taken < size), 0) AS next_top,
       coalesce(max(members.role), '') AS role
FROM time CROSS JOIN runs LEFT JOIN tallies ON tallies.run_id = runs.id
LEFT JOIN members ON members.run_id = runs.id AND members.user_id = :user
"""
_GROUPED = "GROUP BY runs.id ORDER BY runs.id"

LIST_RUNS = Statement(f"""
-- list_runs: all runs, or those that a user is a member of; in order of creation.
{_COLUMNS} WHERE :all = 1 OR runs.owner = :name OR members.role IS NOT NULL {_GROUPED}
""")

SEE_RUN = Statement(f"""
-- see_run: one run.
{_COLUMNS} WHERE runs.id = :run {_GROUPED}
""")

# Failed tasks are few among many, and have an index in the order of their numbers.
_INDICES = {TaskState.LEASED: "", TaskState.DONE: "", TaskState.FAILED: "[failed]"}

LIST_TASKS = {
    state: Statement(f"""
-- list_tasks: tasks of one state, with the last failure of those that have one.
SELECT tasks.idx, tasks.attempts, tasks.percent, tasks.seconds, workers.host, failures.error,
       coalesce(tasks.settled, tasks.expires) AS at
FROM tasks {index}
LEFT JOIN workers ON workers.id = tasks.worker_id
LEFT JOIN failures ON failures.run_id = tasks.run_id AND failures.idx = tasks.idx
     AND failures.attempt = (SELECT max(attempt) FROM failures AS others
                             WHERE others.run_id = tasks.run_id AND others.idx = tasks.idx)
WHERE tasks.run_id = :run AND tasks.state = {int(state)} AND tasks.idx > :after
ORDER BY tasks.idx LIMIT :limit
""")
    for state, index in _INDICES.items()
}

LIST_WORKERS = Statement("""
-- list_workers: workers of a run, the last active one first; with the time until its first lease expires.
SELECT workers.id AS number, uuid, host, pid, memory, [now] - seen AS age, leased, done, failed, attempts,
       first.expires - [now] AS expires
FROM tallies JOIN workers ON workers.id = tallies.worker_id
LEFT JOIN (SELECT worker_id, min(expires) AS expires FROM tasks [leased] WHERE run_id = :run AND state = 1
           GROUP BY worker_id) AS first ON first.worker_id = workers.id
WHERE tallies.run_id = :run ORDER BY seen DESC, workers.id
""")


NOTE_MEMORY = Statement("""
-- note_memory: of the processes of a worker.
UPDATE workers SET memory = :memory WHERE id = :worker
""")

# Part of a lease that is left when a worker looks stuck.
_STUCK = 0.3


def list_runs(database: Database, who: Principal) -> list[Row[Any]]:
    """Return the runs that a user is a member of."""
    given = {"all": int(who.admin), "name": who.name, "user": who.id}
    return database.read(lambda connection: list(LIST_RUNS(connection, **given)))


def see_run(database: Database, who: Principal, run: RunRecord) -> Row[Any] | None:
    """Return one run as :func:`list_runs` does; None if it was deleted."""
    return database.read(
        lambda connection: SEE_RUN(connection, run=run.id, user=who.id).one_or_none()
    )


def summarize(row: Row[Any], who: Principal) -> RunSummary:
    """Return the settings and counts of a row of :func:`list_runs`, with the role of a user in the run."""
    leased, done, failed = int(row.leased), int(row.done), int(row.failed)
    rate = max(0.0, row.rate or 0.0)
    return RunSummary(
        run=row.uuid, key=row.key, name=row.name, owner=row.owner,
        role="owner" if who.admin or row.owner == who.name else row.role,
        created=row.created, clock=row.clock, lease=row.lease, attempts=row.attempts,
        tasks=row.tasks, waiting=row.tasks - leased - done - failed,
        leased=leased, done=done, failed=failed, paused=bool(row.paused), epoch=row.epoch, map=bool(row.map),
        seen=row.seen, workers=int(row.workers or 0), rate=rate,
        seconds_left=None if row.paused else _seconds_left(row, row.tasks - done - failed, rate, done),
    )  # fmt: skip


def _seconds_left(row: Row[Any], left: int, rate: float, done: int) -> list[float] | None:
    """Return the range of the time that is left; None if nobody works or nothing is left."""
    law = Durations(
        int(row.timed), row.timed_cost, row.timed_seconds, row.timed_cost2, row.timed_seconds2, row.timed_product
    ).law()  # fmt: skip
    if left <= 0:
        return None
    if law is not None and (busy := row.busy or 0.0) > 0:
        longest = law.total(1, max(row.next_cost, row.next_top))
        cost = row.cost - row.settled_cost
        work = law.total(left, cost)
        return [*time_left(law, tasks=left, cost=cost, work=work, longest=longest, workers=busy)]
    return [*rate_left(left, rate, done)] if rate > 0 and done > 0 else None


def list_tasks(
    database: Database, run: RunRecord, state: TaskState, *, after: int, limit: int
) -> list[TaskSummary]:
    """Return up to ``limit`` tasks of a state with an index above ``after``, by index."""
    given = {"run": run.id, "after": after, "limit": limit}
    rows = database.read(lambda connection: list(LIST_TASKS[state](connection, **given)))
    name: Any = state.name.lower()
    return [
        TaskSummary(
            task=row.idx, state=name, attempts=row.attempts, percent=row.percent, host=row.host,
            seconds=row.seconds, at=row.at, error=row.error,
        )
        for row in rows
    ]  # fmt: skip


def list_workers(database: Database, run: RunRecord) -> list[WorkerSummary]:
    """Return the workers of a run, the last active one first."""
    rows = database.read(lambda connection: list(LIST_WORKERS(connection, run=run.id)))
    return [_summarize_worker(dict(row._mapping), run.lease) for row in rows]


def _summarize_worker(row: dict[str, Any], lease: float) -> WorkerSummary:
    expires = row.pop("expires")
    # Workers renew at a third of the lease or earlier.
    stuck = expires is not None and expires < _STUCK * lease
    return WorkerSummary(**row, stuck=stuck)


def note_memory(database: Database, worker: int, memory: int) -> None:
    """Keep the memory that a worker reports, bytes."""
    database.change(lambda c: NOTE_MEMORY(c, worker=worker, memory=memory).close())
