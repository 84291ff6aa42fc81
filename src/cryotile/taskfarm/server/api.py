"""The native API: the ledger's verbs over HTTP, many leases a call; documented in ``openapi.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, jsonify, request
from sqlalchemy import Row
from werkzeug.exceptions import BadRequest, NotFound

from cryotile.farm.task import ATTEMPTS, Outcome, Task
from cryotile.ledgers.base import LEASE, Lease
from cryotile.ledgers.sql.runs import RunRecord, count, create_run, find_run
from cryotile.ledgers.sql.schema import State
from cryotile.taskfarm.server import accounts, body, events
from cryotile.taskfarm.server.auth import member_run, principal
from cryotile.taskfarm.server.listing import (
    list_runs,
    list_tasks,
    list_workers,
    see_run,
)
from cryotile.taskfarm.server.served import server
from cryotile.taskfarm.server.workers import anonymous

__all__ = ["api"]

api = Blueprint("api", __name__, url_prefix="/api/v1")

_WEEK = 7 * 86400.0
_MOST_TASKS = 2**31 - 1
_PIECE = 100_000
_BATCH = 10_000

_UUID = re.compile("[0-9a-f]{32}")
_KEY = re.compile(r"[^\0-\x1f]{1,200}")
_NAME = re.compile(r"[^\0-\x1f]{0,200}")
_TOKEN = re.compile("[0-9a-f]{1,15}")
_INDICES = re.compile("[0-9]{1,18}(,[0-9]{1,18}){0,99}", re.ASCII)

_NOTHING = "", 204


@api.get("/runs")
def get_runs() -> Any:
    """List the runs of which who asks is a member."""
    return jsonify(runs=[_describe(row) for row in list_runs(server().database, principal())])


@api.post("/runs")
def enroll() -> Any:
    """Create a run, or list more tasks of it."""
    names = ("key", "name", "tasks", "count", "lease", "attempts", "seen")
    given = body.members(body.read_json(), optional=names)
    tasks = _tasks(given)
    size = body.whole(given.get("count", 0), "count", int("count" in given), _MOST_TASKS)
    if tasks and size:
        raise BadRequest("both tasks and a count of them are given; give one")
    run, created = _found_or_created(given)
    if size:
        _enroll_range(run, size)
    elif tasks:
        _enroll(run, tasks, given)
    return jsonify(_seen(run)), 201 if created else 200


@api.get("/runs/<uuid>")
def get_run(uuid: str) -> Any:
    """Return the settings and counts of a run."""
    return jsonify(_seen(_run(uuid, "viewer")))


@api.post("/runs/<uuid>/leases")
def claim(uuid: str) -> Any:
    """Claim tasks for a worker."""
    run = _run(uuid, "worker")
    given = body.members(body.read_json(), required=("worker",), optional=("n", "token", "again"))
    n = body.whole(given.get("n", 1), "n", 1, _BATCH)
    token = given.get("token")
    if token is not None:
        token = body.text(token, "token", _TOKEN)
    again = given.get("again", False)
    if not isinstance(again, bool):
        raise BadRequest("again is to be true or false")
    return jsonify(_claim(run, _claimant(given["worker"]), n, token, again=again))


@api.patch("/runs/<uuid>/leases")
def renew(uuid: str) -> Any:
    """Prolong leases."""
    run = _run(uuid, "worker")
    fractions: dict[str, float | None] = {}
    for each in body.sequence(body.read_json(), _BATCH):
        renewal = body.members(each, required=("lease",), optional=("fraction",))
        fraction = renewal.get("fraction")
        if fraction is not None:
            fraction = body.quantity(fraction, "fraction", 0, 1)
        fractions[_lease(renewal["lease"])] = fraction
    return jsonify(lost=sorted(server().workers.book(run, _worker()).renew(fractions)))


@api.delete("/runs/<uuid>/leases")
def release(uuid: str) -> Any:
    """Hand tasks back."""
    run = _run(uuid, "worker")
    leases = [_lease(each) for each in body.sequence(body.read_json(), _BATCH)]
    server().workers.book(run, _worker()).release(leases)
    return _NOTHING


@api.post("/runs/<uuid>/outcomes")
def settle(uuid: str) -> Any:
    """End leases by how the attempts ended, and perhaps claim new ones."""
    run = _run(uuid, "worker")
    outcomes = dict(map(_outcome, body.sequence(body.read_json(), _BATCH)))
    n = body.query_number("claim", 0, 1, _BATCH)
    token = request.args.get("token")
    if token is not None:
        token = body.text(token, "token", _TOKEN)
    again = request.args.get("again")
    if again not in (None, "1"):
        raise BadRequest("again is to be 1, or left out")
    workers, worker = server().workers, _worker()
    if "worker" not in request.args:
        # Who had the leases settles them.
        worker = workers.book(run, worker).holder(outcomes) or worker
    book = workers.book(run, worker)
    if not n:
        return jsonify(lost=sorted(book.settle(outcomes)))
    if worker < 0:
        raise BadRequest(
            "claim is given, and neither worker nor a lease that one had; give its uuid"
        )
    lost, leases = book.exchange(outcomes, n, token=_number(token), again=again is not None)
    return jsonify({"lost": sorted(lost), **_handed_out(run, leases)})


@api.get("/runs/<uuid>/tasks")
def get_tasks(uuid: str) -> Any:
    """List tasks of one state, a page at a time."""
    run = _run(uuid, "viewer")
    state = request.args.get("state", "")
    # Those that wait may be a million, and in stock they have no rows of their own.
    if state not in ("leased", "done", "failed"):
        raise BadRequest("state is to be leased, done or failed")
    limit = body.query_number("limit", 1000, 1, _BATCH)
    after = body.query_number("after", -1, -1, 2**63 - 1)
    found = list_tasks(server().database, run, State[state.upper()], after=after, limit=limit)
    return jsonify(tasks=found, next=found[-1]["task"] if len(found) == limit else None)


@api.get("/runs/<uuid>/outcomes_elsewhere")
def get_outcomes_elsewhere(uuid: str) -> Any:
    """Tell what each host made of some tasks."""
    run = _run(uuid, "viewer")
    given = request.args.get("tasks", "")
    if _INDICES.fullmatch(given) is None:
        raise BadRequest("tasks is to be 1 to 100 indices with commas between them")
    found = (
        server().workers.book(run, 0).outcomes_elsewhere([int(index) for index in given.split(",")])
    )
    return jsonify(hosts=found)


@api.get("/runs/<uuid>/workers")
def get_workers(uuid: str) -> Any:
    """List the workers of a run."""
    return jsonify(workers=list_workers(server().database, _run(uuid, "viewer")))


@api.get("/runs/<uuid>/events")
def get_events(uuid: str) -> Any:
    """Stream the counts of a run as they change."""
    run, who, database = _run(uuid, "viewer"), principal(), server().database

    def look() -> Mapping[str, Any] | None:
        row = see_run(database, who, run)
        return None if row is None else _describe(row)

    return events.stream(look)


@api.put("/runs/<uuid>/members/<name>")
def set_member(uuid: str, name: str) -> Any:
    """Make a user a member of a run."""
    run = _run(uuid, "owner")
    role = body.members(body.read_json(), required=("role",))["role"]
    if role not in accounts.MEMBER_ROLES:
        raise BadRequest(f"role is to be one of {', '.join(accounts.MEMBER_ROLES)}")
    return _set_member(run, name, role)


@api.delete("/runs/<uuid>/members/<name>")
def remove_member(uuid: str, name: str) -> Any:
    """Make a user a stranger to a run."""
    return _set_member(_run(uuid, "owner"), name, None)


def _run(uuid: str, role: str) -> RunRecord:
    if _UUID.fullmatch(uuid) is None:
        raise NotFound("the run is unknown; its uuid has 32 hexadecimal digits")
    return member_run(uuid, role)


def _seen(run: RunRecord) -> dict[str, Any]:
    row = see_run(server().database, principal(), run)
    if row is None:
        raise NotFound(f"run {run.uuid} is no more")
    return _describe(row)


def _describe(row: Row[Any]) -> dict[str, Any]:
    who = principal()
    # What waits is not counted: in stock it has no rows.
    settled = int(row.leased) + int(row.done) + int(row.failed)
    return {
        "run": row.uuid,
        "key": row.key,
        "name": row.name,
        "owner": row.owner,
        "role": "owner" if who.admin or row.owner == who.name else row.role,
        "created": row.created,
        "clock": row.clock,
        "lease": row.lease,
        "attempts": row.attempts,
        "tasks": row.tasks,
        "waiting": row.tasks - settled,
        "leased": int(row.leased),
        "done": int(row.done),
        "failed": int(row.failed),
    }


def _tasks(given: Mapping[str, Any]) -> list[Task]:
    """Check a list of indices and costs."""
    tasks = []
    for pair in body.sequence(given.get("tasks", []), _PIECE):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRequest("each of tasks is to be a list of an index and a cost")
        index, cost = pair
        tasks.append(Task(body.whole(index, "an index", 0, 2**62), body.number(cost, "a cost")))
    if len({task.index for task in tasks}) < len(tasks):
        raise BadRequest("an index is listed twice in tasks; list each once")
    return tasks


def _found_or_created(given: Mapping[str, Any]) -> tuple[RunRecord, bool]:
    farm, who = server(), principal()
    key = given.get("key", "")
    if "key" in given:
        key = body.text(key, "key", _KEY)
        if _UUID.fullmatch(key) is not None:
            raise BadRequest("key is to be no uuid, by which runs are known, too; add something")
    name = body.text(given.get("name", ""), "name", _NAME)
    lease = body.quantity(given.get("lease", LEASE), "lease", 1, _WEEK)
    attempts = body.whole(given.get("attempts", ATTEMPTS), "attempts", 1, 1000)
    found = find_run(farm.database, key) if key else None
    if found is None:
        found = create_run(
            farm.database, key, name=name, owner=who.name, lease=lease, attempts=attempts
        )
        accounts.note("create run", found.uuid, commit=True)
        # Of two who came at once one has created it.
        return member_run(found.uuid, "worker"), True
    return member_run(found.uuid, "worker"), False


def _enroll_range(run: RunRecord, size: int) -> None:
    """List a range of tasks, once."""
    tasks = count(server().database, run).tasks
    if tasks not in (0, size):
        raise BadRequest(f"the run has {tasks} tasks already; give another key")
    if not tasks:
        server().workers.book(run, 0).enroll_range(size)


def _enroll(run: RunRecord, tasks: Sequence[Task], given: Mapping[str, Any]) -> None:
    seen = body.quantity(given["seen"], "seen", 0, 1e11) if "seen" in given else None
    server().workers.book(run, 0).enroll(tasks, seen)


def _claim(
    run: RunRecord, worker: int, n: int, token: str | None, *, again: bool
) -> dict[str, Any]:
    leases = server().workers.book(run, worker).claim(n, token=_number(token), again=again)
    return _handed_out(run, leases)


def _claimant(given: object) -> int:
    """Return the number of a worker that says who it is, or only what its uuid is."""
    workers = server().workers
    if isinstance(given, str):
        if (known := workers.find(given)) is not None:
            return known
        given = {"uuid": given, "host": request.remote_addr or "-", "pid": 0}
    worker = body.members(given, required=("uuid", "host", "pid"))
    return workers.register(worker, worker["host"])


def _number(token: str | None) -> int | None:
    return None if token is None else int(token, 16)


def _handed_out(run: RunRecord, leases: Sequence[Lease]) -> dict[str, Any]:
    answer: dict[str, Any] = {"leases": [_told(lease) for lease in leases]}
    # Who gets nothing asks next whether the run is over.
    if not leases:
        counts = count(server().database, run)
        answer["unsettled"] = counts.waiting + counts.leased
    return answer


def _told(lease: Lease) -> dict[str, Any]:
    return {
        "task": lease.task.index,
        "cost": lease.task.cost,
        "lease": lease.id,
        "attempt": lease.attempt,
        "expires": lease.expiry,
        "turn": lease.turn,
    }


def _outcome(given: object) -> tuple[str, Outcome]:
    each = body.members(given, required=("lease", "seconds"), optional=("error",))
    seconds = body.quantity(each["seconds"], "seconds", 0, 1e9)
    error = each.get("error")
    if error is not None:
        if not isinstance(error, str):
            raise BadRequest("error is to be a string, or null")
        error = body.storable(error) or "no reason was given"
    # The ledger knows of which task the lease is, and how many attempts there were.
    return _lease(each["lease"]), Outcome(Task(0, 0.0), seconds, 1, "", error)


def _lease(given: object) -> str:
    if not isinstance(given, str):
        raise BadRequest("a lease is to be the string that the claim gave")
    return given


def _worker() -> int:
    """Return the number of the worker that the query names, or one for nobody."""
    name = request.args.get("worker")
    if name is None:
        return anonymous()
    worker = server().workers.find(name)
    if worker is None:
        raise BadRequest("worker is that of no worker that has claimed before; claim first")
    return worker


def _set_member(run: RunRecord, name: str, role: str | None) -> Any:
    user = accounts.find_user(name) if accounts.NAME.fullmatch(name) else None
    if user is None:
        raise NotFound("the user is unknown")
    if name == run.owner and role != "owner":
        raise BadRequest(f"run {run.uuid} is {name}'s own, he stays its owner")
    accounts.set_member(run.id, run.uuid, user, role)
    server().access.forget()
    return _NOTHING
