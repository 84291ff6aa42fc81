"""The seed's API, path by path: what its clients say and expect, on a ledger with leases.

What its client claims is leased for an hour from its last update, ``CRYOTILE_SEED_LEASE``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest, NotFound

from cryotile.ledgers.sql.runs import RunRecord, create_run, delete_run
from cryotile.taskfarm.server import accounts, body, tasks
from cryotile.taskfarm.server.auth import member_run, principal
from cryotile.taskfarm.server.listing import list_runs
from cryotile.taskfarm.server.served import server

__all__ = ["legacy_api"]

legacy_api = Blueprint("seed", __name__, url_prefix="/api")

_NOTHING = "", 204

# The seed has no attempts: a task is tried until somebody has done it.
_ENDLESS = 32_000

_MOST_TASKS = 2**31 - 1

# Tasks have no number of their own; the one that the seed's client is told is theirs alone.
_ROOM = 2**32

_UUID = re.compile("[0-9a-f]{32}")


@legacy_api.get("/token")
def get_token() -> Any:
    """Make a token for who gives his password, or another token."""
    who = principal()
    token = accounts.issue_token(who.id, who.name, server().settings.token_lifetime)
    return jsonify(token=token)


@legacy_api.delete("/token")
def delete_token() -> Any:
    """End the token that is given, or with ``?all=True`` all of its user; the seed has nothing like it."""
    who = principal()
    everything = _flag("all")
    if who.token is None and not everything:
        raise BadRequest("a password was given, and no token to end; give a token, or ?all=True")
    accounts.revoke_tokens(who.id, who.name, None if everything else who.token)
    server().access.forget()
    return _NOTHING


@legacy_api.post("/run")
def create() -> Any:
    """Create a run of so many tasks, all alike."""
    given = body.members(body.read_json(), required=("numTasks",))
    size = body.whole(given["numTasks"], "numTasks", 1, _MOST_TASKS)
    farm = server()
    run = create_run(farm.database, owner=principal().name, attempts=_ENDLESS)
    farm.workers.book(run, 0).enroll_range(size)
    accounts.note("create run", run.uuid, commit=True)
    return jsonify(id=run.id, numTasks=size, uuid=run.uuid), 201


@legacy_api.get("/runs")
def get_runs() -> Any:
    """List the runs of which who asks is a member, in the order of their creation."""
    rows = list_runs(server().database, principal())
    return jsonify(data=[{"id": r.id, "numTasks": r.tasks, "uuid": r.uuid} for r in rows])


@legacy_api.get("/runs/<uuid>")
def get_run(uuid: str) -> Any:
    """Say how far a run is, or one thing of it."""
    run = _run(uuid, "viewer")
    found = tasks.count(server().database, run)
    if found is None:
        raise NotFound(f"run {uuid} is no more")
    counts, percent = found
    return _answer(
        {
            "id": run.id,
            "numComputing": counts.leased,
            "numDone": counts.done,
            "numTasks": counts.tasks,
            # To the seed a task that nobody has touched yet is none.
            "numWaiting": min(counts.waiting, counts.returned) + counts.failed,
            "percentDone": percent,
            "uuid": run.uuid,
        },
        ("percentDone", "numWaiting", "numDone", "numComputing"),
    )


@legacy_api.delete("/runs/<uuid>")
def delete(uuid: str) -> Any:
    """Remove a run with its tasks."""
    run = _run(uuid, "owner")
    delete_run(server().database, run)
    accounts.forget_run(run.id, run.uuid)
    server().access.forget()
    return _NOTHING


@legacy_api.post("/runs/<uuid>/restart")
def restart(uuid: str) -> Any:
    """Put back the tasks that nobody is computing any more, or all."""
    run = _run(uuid, "owner")
    everything = _flag("all")
    tasks.restart(server().database, run, everything=everything)
    accounts.note("restart all" if everything else "restart", run.uuid, commit=True)
    return _NOTHING


@legacy_api.post("/runs/<uuid>/task")
def claim(uuid: str) -> Any:
    """Hand out the next task to a worker."""
    run = _run(uuid, "worker")
    given = body.members(body.read_json(), required=("worker_uuid",))
    name = given["worker_uuid"]
    worker = server().workers.find(name) if isinstance(name, str) else None
    if worker is None:
        raise NotFound("worker_uuid is that of no worker; register it at /api/worker")
    leases = server().workers.book(run, worker).claim(1, server().settings.seed_lease)
    if not leases:
        return _NOTHING
    task = _task(run, leases[0].task.index, tasks.SeedTask("computing", 0.0))
    return jsonify(task), 201


@legacy_api.get("/runs/<uuid>/tasks/<number>")
def get_task(uuid: str, number: str) -> Any:
    """Say what a task is, or one thing of it."""
    run, index = _run(uuid, "viewer"), _index(number)
    found = tasks.find_task(server().database, run, index)
    if found is None:
        raise _no_task(run, index)
    return _answer(_task(run, index, found), ("status", "percentCompleted"))


@legacy_api.put("/runs/<uuid>/tasks/<number>")
def put_task(uuid: str, number: str) -> Any:
    """Set what a task is, how far it is, or both."""
    run, index = _run(uuid, "worker"), _index(number)
    given = body.members(body.read_json(), optional=("status", "percentCompleted"))
    if not given:
        raise BadRequest("neither status nor percentCompleted is given; give one")
    percent = None
    if "percentCompleted" in given:
        percent = body.quantity(given["percentCompleted"], "percentCompleted", 0, 100)
    database, seconds = server().database, server().settings.seed_lease
    if "status" in given:
        status = given["status"]
        if not isinstance(status, str) or status not in tasks.STATUSES:
            raise BadRequest("status is to be waiting, computing or done")
        known = tasks.set_status(database, run, index, status, percent, seconds=seconds)
    else:
        assert percent is not None
        known = tasks.set_percent(database, run, index, percent, seconds=seconds)
    if not known:
        raise _no_task(run, index)
    return _NOTHING


@legacy_api.post("/worker")
def create_worker() -> Any:
    """Make a worker known; the same again is the same worker."""
    given = body.members(body.read_json(), required=("uuid", "hostname", "pid"))
    worker = server().workers.register(given, given["hostname"])
    return jsonify(id=worker, uuid=given["uuid"]), 201


def _run(uuid: str, role: str) -> RunRecord:
    if _UUID.fullmatch(uuid) is None:
        raise NotFound("the run is unknown")
    return member_run(uuid, role)


def _index(number: str) -> int:
    if re.fullmatch("[0-9]{1,18}", number, re.ASCII) is None:
        raise NotFound("the run has no such task")
    return int(number)


def _no_task(run: RunRecord, index: int) -> NotFound:
    return NotFound(f"run {run.uuid} has no task {index}")


def _task(run: RunRecord, index: int, task: tasks.SeedTask) -> dict[str, Any]:
    return {
        "id": run.id * _ROOM + index,
        "percentCompleted": task.percent,
        "status": task.status,
        "task": index,
    }


def _answer(found: Mapping[str, Any], single: tuple[str, ...]) -> Response:
    """Answer with all there is, or the one thing that ``?info=`` asks for."""
    name = request.args.get("info", "")
    if not name:
        return jsonify(found)
    if name not in single:
        raise NotFound(f"info is to be one of {', '.join(single)}, or left out")
    return jsonify({name: found[name]})


def _flag(name: str) -> bool:
    given = request.args.get(name, "False")
    if given not in ("True", "False"):
        raise NotFound(f"{name} is to be True or False")
    return given == "True"
