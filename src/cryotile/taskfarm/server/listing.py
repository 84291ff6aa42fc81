"""Queries that list runs, their tasks and their workers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.dialect import Statement
from cryotile.ledgers.sql.runs import RunRecord
from cryotile.ledgers.sql.schema import TaskState
from cryotile.taskfarm.server.auth import Principal
from cryotile.taskfarm.server.bodies import RunSummary, TaskSummary, WorkerSummary

__all__ = ["list_runs", "list_tasks", "list_workers", "see_run", "summarize"]

_COLUMNS = """
SELECT runs.id, runs.uuid, runs.key, runs.name, runs.owner, runs.created, runs.lease, runs.attempts, runs.tasks,
       coalesce(sum(tallies.leased), 0) AS leased, coalesce(sum(tallies.done), 0) AS done,
       coalesce(sum(tallies.failed), 0) AS failed, max(tallies.seen) AS seen, [now] AS clock,
       coalesce(max(members.role), '') AS role
FROM runs LEFT JOIN tallies ON tallies.run_id = runs.id
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
-- list_workers: workers of a run, the last active one first.
SELECT uuid, host, pid, [now] - seen AS age, leased, done, failed, attempts
FROM tallies JOIN workers ON workers.id = tallies.worker_id
WHERE tallies.run_id = :run ORDER BY seen DESC, workers.id
""")


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
    return RunSummary(
        run=row.uuid, key=row.key, name=row.name, owner=row.owner,
        role="owner" if who.admin or row.owner == who.name else row.role,
        created=row.created, clock=row.clock, lease=row.lease, attempts=row.attempts,
        tasks=row.tasks, waiting=row.tasks - leased - done - failed,
        leased=leased, done=done, failed=failed,
    )  # fmt: skip


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
    return [WorkerSummary(**row._mapping) for row in rows]
