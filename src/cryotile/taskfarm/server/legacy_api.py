"""The API of the first task farm (PyPI's ``taskfarm``), path by path, on a ledger with leases.

Its clients know tasks by run and index, and set their status to waiting, computing or done regardless of claims.
A task that its client claims is leased for an hour after each update, ``CRYOTILE_SEED_LEASE``.  A failed task, a state
that this API does not have, counts as waiting, and a restart tries it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from flask import Blueprint, Response, jsonify, request
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection
from werkzeug.exceptions import BadRequest, NotFound

from cryotile.ledgers.sql import statements as sql
from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.dialect import COUNTS, Statement, TaskUpdate
from cryotile.ledgers.sql.runs import (
    RunRecord,
    TaskCounts,
    create_run,
    delete_run,
    restart_all,
    restart_stranded,
    tasks_counted,
)
from cryotile.ledgers.sql.schema import GREATEST_COST, TaskState
from cryotile.taskfarm.server import accounts
from cryotile.taskfarm.server.auth import principal
from cryotile.taskfarm.server.bodies import Body, BodyReader, HostName, ProcessId, WorkerUuid
from cryotile.taskfarm.server.listing import list_runs
from cryotile.taskfarm.server.operations import find_run
from cryotile.taskfarm.server.state import anonymous_worker, server

__all__ = ["legacy_api"]

legacy_api = Blueprint("legacy", __name__, url_prefix="/api")

_NO_CONTENT = "", 204

# The legacy API has no attempts: a task is tried until it is done.
_ATTEMPTS = 32_000

# A task has no id of its own; the client gets run id * _TASK_IDS + index.
_TASK_IDS = 2**32

# Worker id of the tally that counts tasks put back by a restart; unnamed workers have -1 to -64.
_RESTART_TALLY = -100

_STATES = {"waiting": TaskState.WAITING, "computing": TaskState.LEASED, "done": TaskState.DONE}
_STATUSES = {int(state): name for name, state in _STATES.items()} | {
    int(TaskState.FAILED): "waiting"
}


class LegacyRun(Body, frozen=True):
    """A run of the legacy API."""

    numTasks: Annotated[int, Meta(ge=1, le=2**31 - 1)]  # noqa: N815 - names of the legacy API


class LegacyClaim(Body, frozen=True):
    """A claim of the legacy API; a worker_uuid of the wrong type is an unknown worker."""

    worker_uuid: Any


class LegacyWorker(Body, frozen=True):
    """A worker of the legacy API."""

    uuid: WorkerUuid
    hostname: HostName
    pid: ProcessId


class TaskChange(Body, frozen=True):
    """A change of a task of the legacy API."""

    status: Literal["waiting", "computing", "done"] | UnsetType = UNSET
    percentCompleted: Annotated[float, Meta(ge=0, le=100)] | UnsetType = UNSET  # noqa: N815

    def __post_init__(self) -> None:
        """Check that the change is one."""
        if self.status is UNSET and self.percentCompleted is UNSET:
            raise ValueError("neither status nor percentCompleted is given; give one")


_new_run, _new_worker = BodyReader(LegacyRun), BodyReader(LegacyWorker)
_claim, _change = BodyReader(LegacyClaim), BodyReader(TaskChange)


@dataclass(frozen=True, slots=True)
class LegacyTask:
    """A task as the legacy API shows it.

    Attributes
    ----------
    status : str
        ``waiting``, ``computing`` or ``done``.
    percent : float
        Progress as last reported, 0 to 100.
    """

    status: str
    percent: float


@legacy_api.get("/token")
def get_token() -> Any:
    """Return a new token for a password, or for another token."""
    who = principal()
    token = accounts.issue_token(who.id, who.name, server().settings.token_lifetime)
    return jsonify(token=token)


@legacy_api.delete("/token")
def delete_token() -> Any:
    """Revoke the token of the request, or with ``?all=True`` all tokens of its user; an addition to the API."""
    who = principal()
    everything = _flag("all")
    if who.token is None and not everything:
        raise BadRequest(
            "a password was given, so there is no token to revoke; give a token or ?all=True"
        )
    accounts.revoke_tokens(who.id, who.name, None if everything else who.token)
    server().access.forget()
    return _NO_CONTENT


@legacy_api.post("/run")
def create() -> Any:
    """Create a run of equal tasks."""
    size = _new_run.read().numTasks
    run = create_run(server().database, owner=principal().name, attempts=_ATTEMPTS)
    server().ledger(run).enroll_range(size)
    accounts.note("create run", run.uuid, commit=True)
    return jsonify(id=run.id, numTasks=size, uuid=run.uuid), 201


@legacy_api.get("/runs")
def get_runs() -> Any:
    """List the runs that the caller is a member of, in order of creation."""
    rows = list_runs(server().database, principal())
    return jsonify(data=[{"id": r.id, "numTasks": r.tasks, "uuid": r.uuid} for r in rows])


@legacy_api.get("/runs/<uuid>")
def get_run(uuid: str) -> Any:
    """Return the counts of a run, or one of them."""
    run = find_run(uuid, "viewer")
    found = _count(server().database, run)
    if found is None:
        raise NotFound(f"run {uuid} was deleted; create it again")
    counts, percent = found
    return _answer(
        {
            "id": run.id,
            "numComputing": counts.leased,
            "numDone": counts.done,
            "numTasks": counts.tasks,
            # The legacy API does not count a task that nobody has claimed or changed yet.
            "numWaiting": min(counts.waiting, counts.returned) + counts.failed,
            "percentDone": percent,
            "uuid": run.uuid,
        },
        ("percentDone", "numWaiting", "numDone", "numComputing"),
    )


@legacy_api.delete("/runs/<uuid>")
def delete(uuid: str) -> Any:
    """Delete a run and its tasks."""
    remove_run(find_run(uuid, "owner"))
    return _NO_CONTENT


@legacy_api.post("/runs/<uuid>/restart")
def restart(uuid: str) -> Any:
    """Put back tasks without a valid lease that are not done, or with ``?all=True`` all tasks."""
    run = find_run(uuid, "owner")
    restart_run(run, everything=_flag("all"))
    return _NO_CONTENT


@legacy_api.post("/runs/<uuid>/task")
def claim(uuid: str) -> Any:
    """Claim the next task for a worker."""
    run = find_run(uuid, "worker")
    name = _claim.read().worker_uuid
    worker = server().workers.find(name) if isinstance(name, str) else None
    if worker is None:
        raise NotFound("worker_uuid names no known worker; register the worker at /api/worker")
    leases = server().ledger(run, worker, lease=server().settings.legacy_lease).claim()
    if not leases:
        return _NO_CONTENT
    return jsonify(_describe(run, leases[0].task.index, LegacyTask("computing", 0.0))), 201


@legacy_api.get("/runs/<uuid>/tasks/<number>")
def get_task(uuid: str, number: str) -> Any:
    """Return a task, or one property of it."""
    run, index = find_run(uuid, "viewer"), _index(number)
    found = _find_task(server().database, run, index)
    if found is None:
        raise _no_task(run, index)
    return _answer(_describe(run, index, found), ("status", "percentCompleted"))


@legacy_api.put("/runs/<uuid>/tasks/<number>")
def put_task(uuid: str, number: str) -> Any:
    """Set the status of a task, its progress, or both."""
    run, index = find_run(uuid, "worker"), _index(number)
    change = _change.read()
    status = None if change.status is UNSET else change.status
    percent = None if change.percentCompleted is UNSET else change.percentCompleted
    if not _set(run, index, status, percent):
        raise _no_task(run, index)
    return _NO_CONTENT


@legacy_api.post("/worker")
def create_worker() -> Any:
    """Register a worker; registering it again changes nothing."""
    given = _new_worker.read()
    worker = server().workers.register(given.uuid, given.hostname, given.pid)
    return jsonify(id=worker, uuid=given.uuid), 201


def _index(number: str) -> int:
    if re.fullmatch("[0-9]{1,18}", number, re.ASCII) is None:
        raise NotFound(f"the run has no task {number[:40]!r}; give an index from 0")
    return int(number)


def _no_task(run: RunRecord, index: int) -> NotFound:
    return NotFound(f"run {run.uuid} has no task {index}; see its numTasks")


def _describe(run: RunRecord, index: int, task: LegacyTask) -> dict[str, Any]:
    return {
        "id": run.id * _TASK_IDS + index,
        "percentCompleted": task.percent,
        "status": task.status,
        "task": index,
    }


def _answer(found: Mapping[str, Any], single: tuple[str, ...]) -> Response:
    """Answer with everything, or with the one value that ``?info=`` names."""
    name = request.args.get("info", "")
    if not name:
        return jsonify(found)
    if name not in single:
        raise NotFound(f"info {name[:40]!r} is unknown; give one of {', '.join(single)}, or none")
    return jsonify({name: found[name]})


def _flag(name: str) -> bool:
    given = request.args.get(name, "False")
    if given not in ("True", "False"):
        raise NotFound(f"{name} = {given[:40]!r} is invalid; give True or False")
    return given == "True"


# The tasks of this API in the tables of the ledger.

FIND_TASK = Statement("""
-- find_task: one task.
SELECT state, percent FROM tasks WHERE run_id = :run AND idx = :idx
""")

LOCK_TASK = Statement("""
-- lock_task: one task, locked until the end of this transaction.
SELECT state, lease_count, lease, expires, percent, cost FROM tasks WHERE run_id = :run AND idx = :idx [lock]
""")

BACKLOG_OF_RUN = Statement("""
-- backlog_of_run: all listed tasks, materialized or not.
SELECT size, indices, costs FROM backlog WHERE run_id = :run
""")

SET_PERCENT = Statement("""
-- set_percent: of a task that was claimed or changed before; its lease, if it has one, begins anew.
UPDATE tasks SET
    percent = :percent, begun = (:percent > 0 AND state < 2),
    expires = CASE WHEN state = 1 AND expires < [now] + 0.9 * :seconds THEN [now] + :seconds ELSE expires END
WHERE run_id = :run AND idx = :idx AND lease_count > 0
RETURNING idx
""")

FINISH = TaskUpdate(
    """
-- finish: a task in state computing becomes done, regardless of the caller.
UPDATE tasks SET
    state = 2, percent = coalesce(CAST(:percent AS float8), percent), settled = [now],
    started = false, begun = false, expires = NULL
WHERE run_id = :run AND idx = :idx AND state + 0 = 1
""",
    returning="idx",
    counts={"leased": "-1", "done": "1", "attempts": "1", "cost": sql.COUNTED_COST},
)

SET_TASK = Statement("""
-- set_task: to any state; an existing lease begins anew, and a task set computing without one has none.
UPDATE tasks SET
    state = :state, percent = :percent, begun = (:begun > 0), started = false,
    lease_count = CASE WHEN lease_count = 0 THEN 1 ELSE lease_count END, lease = :lease,
    settled = CASE :state WHEN 2 THEN [now] ELSE NULL END,
    expires = CASE WHEN :state = 1 AND expires IS NOT NULL THEN [now] + :seconds ELSE NULL END
WHERE run_id = :run AND idx = :idx
""")

PERCENTS = Statement("""
-- percents: sum over begun tasks, by their index; all others are at 0 or, when done, at 100.
SELECT coalesce(sum(percent), 0) FROM tasks [begun] WHERE run_id = :run AND begun
""")

NOTE_RESTART = Statement("""
-- note_restart: the number of waiting tasks that were claimed or changed before a restart; their rows are gone.
INSERT INTO tallies (run_id, worker_id, seen, returned) VALUES (:run, :worker, [now], :returned)
ON CONFLICT (run_id, worker_id) DO UPDATE SET seen = excluded.seen, returned = excluded.returned
""")

FAILED = Statement("""
-- failed: indices of tasks whose last attempt failed.
SELECT idx FROM tasks [failed] WHERE run_id = :run AND state = 3
""")


def _count(database: Database, run: RunRecord) -> tuple[TaskCounts, float] | None:
    """Return the counts of a run and its percentage done; None if it was deleted."""

    def ask(connection: Connection) -> tuple[TaskCounts, float] | None:
        row = sql.COUNT(connection, run=run.id).one_or_none()
        if row is None:
            return None
        counts = tasks_counted(row)
        begun = float(PERCENTS(connection, run=run.id).scalar_one())
        return counts, min(100.0, (100.0 * counts.done + begun) / max(1, counts.tasks))

    return database.read(ask)


def _find_task(database: Database, run: RunRecord, index: int) -> LegacyTask | None:
    """Return a task of a run; None if the run has no such task."""

    def ask(connection: Connection) -> LegacyTask | None:
        row = FIND_TASK(connection, run=run.id, idx=index).one_or_none()
        if row is not None:
            return LegacyTask(_STATUSES[row.state], row.percent)
        listed = _find_listed(connection, run.id, index) is not None
        return LegacyTask("waiting", 0.0) if listed else None

    return database.read(ask)


def _set(run: RunRecord, index: int, status: str | None, percent: float | None) -> bool:
    """Change a task, and return whether the run has it.

    Almost all changes are progress, or done, of a claimed task; each is one statement.
    """
    database, seconds = server().database, server().settings.legacy_lease
    given = {"run": run.id, "idx": index, "percent": percent}
    if status is None:
        given |= {"seconds": seconds}
        if database.change_once(lambda c: SET_PERCENT(c, **given).one_or_none()) is not None:
            return True
    elif status == "done":
        given |= {"worker": anonymous_worker()}
        if database.change_once(lambda c: FINISH(c, **given)):
            return True
    state = None if status is None else _STATES[status]
    return database.change(lambda c: _set_any(c, run.id, index, state, percent, seconds))


def _set_any(
    connection: Connection,
    run: int,
    index: int,
    state: TaskState | None,
    percent: float | None,
    seconds: float,
) -> bool:
    """Change a task in any state, materialize it first if need be, and update the counts of its run."""
    old = LOCK_TASK(connection, run=run, idx=index).one_or_none()
    if old is None:
        cost = _find_listed(connection, run, index)
        if cost is None:
            return False
        sql.MATERIALIZE(connection, run=run, given=json.dumps([[index, cost]]))
        old = LOCK_TASK(connection, run=run, idx=index).one()
    new = old.state if state is None else int(state)
    # A lease ends when its task is put back; a done task keeps it, so that its worker may settle it once more.
    keeps = new == TaskState.DONE or (new == TaskState.LEASED == old.state)
    percent = old.percent if percent is None else percent
    SET_TASK(
        connection, run=run, idx=index, state=new, percent=percent, seconds=seconds,
        lease=old.lease if keeps else None, begun=int(new < TaskState.DONE and percent > 0),
    )  # fmt: skip
    if old.state >= TaskState.DONE > new:
        sql.NEW_EPOCH(connection, run=run)
    before, after = _tally(old.state, old.lease_count > 0, old.cost), _tally(new, True, old.cost)
    change = dict.fromkeys(COUNTS, 0) | {name: after[name] - before[name] for name in before}
    change["attempts"] = int(new == TaskState.DONE != old.state)
    sql.ADD_TALLY(connection, run=run, worker=anonymous_worker(), **change)
    return True


def _tally(state: int, touched: bool, cost: float) -> dict[str, float]:
    """Return the counts of the run that a task contributes to."""
    return {
        "cost": cost if state > TaskState.LEASED and abs(cost) < GREATEST_COST else 0.0,
        "leased": int(state == TaskState.LEASED),
        "done": int(state == TaskState.DONE),
        "failed": int(state == TaskState.FAILED),
        "returned": int(state == TaskState.WAITING and touched),
    }


def _find_listed(connection: Connection, run: int, index: int) -> float | None:
    """Return the cost of a listed task; None if it is not listed."""
    row: Any
    for row in BACKLOG_OF_RUN(connection, run=run):
        if row.indices is None:
            if index < row.size:
                return 0.0
            continue
        places = np.flatnonzero(np.frombuffer(row.indices, "<i8") == index)
        if len(places):
            return float(np.frombuffer(row.costs, "<f8")[places[0]])
    return None


def remove_run(run: RunRecord) -> None:
    """Delete a run with its tasks and members."""
    delete_run(server().database, run)
    accounts.forget_run(run.id, run.uuid)
    server().access.forget()


def restart_run(run: RunRecord, *, everything: bool) -> None:
    """Put back tasks without a valid lease that are not done, or with ``everything`` all tasks."""
    (_restart_all if everything else _restart_stranded)(server().database, run)
    accounts.note("restart all" if everything else "restart", run.uuid, commit=True)


def _restart_stranded(database: Database, run: RunRecord) -> None:
    restart_stranded(database, run)
    server().ledger(run).reopen(failed_tasks(database, run))


def failed_tasks(database: Database, run: RunRecord) -> list[int]:
    """Return the indices of the failed tasks of a run."""
    return database.read(lambda c: list(FAILED(c, run=run.id).scalars()))


def _restart_all(database: Database, run: RunRecord) -> None:
    found = _count(database, run)
    restart_all(database, run)
    if found is None:
        return
    counts = found[0]
    touched = min(counts.tasks, counts.returned + counts.leased + counts.done + counts.failed)
    given = {"run": run.id, "worker": _RESTART_TALLY, "returned": touched}
    database.change(lambda connection: NOTE_RESTART(connection, **given).close())
