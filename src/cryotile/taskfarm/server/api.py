"""The native API: the verbs of the ledger over HTTP, many leases per call, and what monitors the server."""

from __future__ import annotations

import base64
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response, jsonify, request, stream_with_context
from msgspec import UNSET, Meta
from sqlalchemy import text
from werkzeug.exceptions import BadRequest, NotFound

from cryotile.farm.task import Task
from cryotile.ledgers.base import Ending, Lease
from cryotile.ledgers.sql.runs import RunRecord, count, create_run
from cryotile.ledgers.sql.runs import find_run as find_run_of_key
from cryotile.ledgers.sql.schema import TaskState
from cryotile.taskfarm.server import accounts
from cryotile.taskfarm.server.auth import member_run, principal
from cryotile.taskfarm.server.bodies import (
    BATCH,
    ClaimQuery,
    ClaimRequest,
    HostOutcomes,
    IndexQuery,
    LeasedTask,
    LeaseId,
    LostLeases,
    MemberRole,
    NewLeases,
    NewRun,
    Renewal,
    RunList,
    RunSummary,
    SettleAnswer,
    Settlement,
    TaskPage,
    TaskQuery,
    WorkerIdentity,
    WorkerList,
    WorkerQuery,
    storable,
)
from cryotile.taskfarm.server.listing import (
    list_runs,
    list_tasks,
    list_workers,
    note_memory,
    see_run,
    summarize,
)
from cryotile.taskfarm.server.operations import Operations
from cryotile.taskfarm.server.state import anonymous_worker, server

__all__ = ["api", "operations", "stream"]

api = Blueprint("api", __name__)
operations = Operations(api)

_RUN = "/api/v1/runs/<run>"

# Bytes of a thumbnail, and of what it holds.
LONGEST_THUMBNAIL, LONGEST_PICTURE = 1024, 65_536

# Event streams: seconds between two looks, between two events at most, and until the client must reconnect.
_PAUSE, _SILENCE, _LONGEST = 1.0, 15.0, 300.0

_RESTING: dict[str, Any] = {"clock": 0.0, "rate": 0.0, "seconds_left": None}

# Longest-lived event streams of a process at once: its other threads serve workers.
_stream_seats = threading.BoundedSemaphore(6)


@operations.add("GET", "/api/v1/runs", {200: "The runs, in order of creation."})
def get_runs() -> RunList:
    """List the runs that the caller is a member of."""
    who = principal()
    return RunList([summarize(row, who) for row in list_runs(server().database, who)])


@operations.add(
    "POST", "/api/v1/runs", {200: "The run existed already.", 201: "The run was created."}
)
def enroll(body: NewRun) -> tuple[RunSummary, int]:
    """Create a run, or list more tasks of it; idempotent for a key.

    A long list is sent in pieces with the same key, and may be compressed (Content-Encoding: gzip).
    """
    run, created = _find_or_create(body)
    if body.count:
        _enroll_range(run, body.count)
    elif body.tasks:
        tasks = [Task(index, cost) for index, cost in body.tasks]
        server().ledger(run).enroll(tasks, None if body.seen is UNSET else body.seen)
    return _summary(run), 201 if created else 200


@operations.add("GET", _RUN, {200: "The run."}, role="viewer")
def get_run(run: RunRecord) -> RunSummary:
    """Return the settings and counts of a run."""
    return _summary(run)


@operations.add("POST", f"{_RUN}/leases", {200: "The leases; perhaps none."}, role="worker")
def claim(run: RunRecord, body: ClaimRequest) -> NewLeases:
    """Claim up to n of the costliest waiting tasks."""
    ledger = server().ledger(run, _claimant(body.worker))
    leases = ledger.claim(body.n, token=_number(body.token), again=body.again)
    return NewLeases(_describe(leases), *_unsettled(run, leases))


@operations.add(
    "PATCH", f"{_RUN}/leases", {200: "All but the lost leases are prolonged."}, role="worker"
)
def renew(
    run: RunRecord, query: WorkerQuery, body: Annotated[list[Renewal], Meta(max_length=BATCH)]
) -> LostLeases:
    """Prolong leases."""
    fractions = {each.lease: each.fraction for each in body}
    worker = _worker(query.worker)
    if query.memory is not None:
        note_memory(server().database, worker, query.memory)
    return LostLeases(sorted(server().ledger(run, worker).renew(fractions)))


@operations.add("DELETE", f"{_RUN}/leases", {204: "The tasks wait again."}, role="worker")
def release(
    run: RunRecord, query: WorkerQuery, body: Annotated[list[LeaseId], Meta(max_length=BATCH)]
) -> None:
    """Hand tasks back; this costs no attempt."""
    server().ledger(run, _worker(query.worker)).release(body)


@operations.add(
    "POST", f"{_RUN}/outcomes", {200: "All but the lost leases are settled."}, role="worker"
)
def settle(
    run: RunRecord, query: ClaimQuery, body: Annotated[list[Settlement], Meta(max_length=BATCH)]
) -> SettleAnswer:
    """End leases by the outcomes of their attempts, idempotent by lease; with claim, also claim new ones."""
    endings = {each.lease: _ending(each) for each in body}
    worker = _worker(query.worker)
    ledger = server().ledger(run, worker)
    if query.worker is None and (holder := ledger.holder(endings)) is not None:
        worker, ledger = holder, server().ledger(run, holder)
    if query.claim is None:
        return SettleAnswer(sorted(ledger.settle(endings)))
    if worker < 0:
        raise BadRequest(
            "claim is given, but neither worker nor a lease that a worker had; give worker=UUID"
        )
    lost, leases = ledger.exchange(
        endings, query.claim, token=_number(query.token), again=query.again is not None
    )
    return SettleAnswer(sorted(lost), _describe(leases), *_unsettled(run, leases))


@operations.add("GET", f"{_RUN}/tasks", {200: "A page of tasks."}, role="viewer")
def get_tasks(run: RunRecord, query: TaskQuery) -> TaskPage:
    """List tasks of one state by index; failed ones with their text."""
    state, limit = TaskState[query.state.upper()], query.limit
    found = list_tasks(server().database, run, state, after=query.after, limit=limit)
    return TaskPage(found, found[-1].task if len(found) == limit else None)


@operations.add("GET", f"{_RUN}/outcomes_elsewhere", {200: "By host, then by task."}, role="viewer")
def get_outcomes_elsewhere(run: RunRecord, query: IndexQuery) -> HostOutcomes:
    """Return the outcomes of some tasks on each host."""
    indices = [int(index) for index in query.tasks.split(",")]
    return HostOutcomes(server().ledger(run).outcomes_elsewhere(indices))


@operations.add("GET", f"{_RUN}/workers", {200: "The workers."}, role="viewer", shared=True)
def get_workers(run: RunRecord) -> WorkerList:
    """List the workers of a run, the last active one first."""
    return WorkerList(list_workers(server().database, run))


@operations.add(
    "GET", f"{_RUN}/events", {200: "A stream."}, role="viewer", media="text/event-stream"
)
def get_events(run: RunRecord) -> Response:
    """Stream server-sent events: the run as JSON, each time its counts have changed."""
    who, database = principal(), server().database

    def look() -> RunSummary | None:
        row = see_run(database, who, run)
        return None if row is None else summarize(row, who)

    return stream(look)


@operations.add("PUT", f"{_RUN}/members/<name>", {204: "The role is set."}, role="owner")
def set_member(run: RunRecord, name: str, body: MemberRole) -> None:
    """Make a user owner, worker or viewer of the run."""
    _set_role(run, name, body.role)


@operations.add("DELETE", f"{_RUN}/members/<name>", {204: "The member is removed."}, role="owner")
def remove_member(run: RunRecord, name: str) -> None:
    """Remove a member from the run."""
    _set_role(run, name, None)


@operations.add("GET", "/api/v1/openapi.json", {200: "The document."})
def openapi() -> Response:
    """Return this document."""
    return jsonify(operations.document)


@operations.add("GET", "/healthz", {200: "The server and its database answer."}, public=True)
def healthz() -> Response:
    """Tell whether the server and its database answer; open to everyone."""
    server().database.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())
    return jsonify(status="ok")


@operations.add("GET", "/metrics", {200: "The metrics."}, media="text/plain")
def metrics() -> Response:
    """Return the counts of the caller's runs in the text format of Prometheus."""
    lines = [
        "# HELP cryotile_tasks Number of tasks of a run by state.",
        "# TYPE cryotile_tasks gauge",
    ]
    who = principal()
    for row in list_runs(server().database, who):
        run = summarize(row, who)
        lines += [
            f'cryotile_tasks{{run="{run.run}",state="{name}"}} {getattr(run, name)}'
            for name in ("waiting", "leased", "done", "failed")
        ]
    return Response("\n".join(lines) + "\n", mimetype="text/plain; version=0.0.4")


def _summary(run: RunRecord) -> RunSummary:
    who = principal()
    row = see_run(server().database, who, run)
    if row is None:
        raise NotFound(f"run {run.uuid} was deleted; create it again")
    return summarize(row, who)


def _find_or_create(given: NewRun) -> tuple[RunRecord, bool]:
    database, who = server().database, principal()
    found = find_run_of_key(database, given.key) if given.key else None
    created = found is None
    if found is None:
        found = create_run(
            database, given.key, name=given.name, owner=who.name, lease=given.lease,
            attempts=given.attempts,
        )  # fmt: skip
        accounts.note("create run", found.uuid, commit=True)
    # Of two callers at the same moment only one has created it, so that the other's role is checked.
    return member_run(found.uuid, "worker"), created


def _enroll_range(run: RunRecord, size: int) -> None:
    tasks = count(server().database, run).tasks
    if tasks not in (0, size):
        raise BadRequest(f"the run has {tasks} tasks already, not {size}; give another key")
    if not tasks:
        server().ledger(run).enroll_range(size)


def _claimant(given: WorkerIdentity | str) -> int:
    """Return the id of a worker that gives its identity, or its uuid alone."""
    workers = server().workers
    if isinstance(given, str):
        if (known := workers.find(given)) is not None:
            return known
        given = WorkerIdentity(given, request.remote_addr or "-", 0)
    return workers.register(given.uuid, given.host, given.pid)


def _worker(uuid: str | None) -> int:
    """Return the id of the worker that the query names, or one of an unnamed worker."""
    # Its claim may be missing in a database that was restored: its leases are lost, and it goes on.
    return anonymous_worker() if uuid is None else _claimant(uuid)


def _number(token: str | None) -> int | None:
    return None if token is None else int(token, 16)


def _ending(given: Settlement) -> Ending:
    error = None if given.error is None else storable(given.error) or "no reason was given"
    return Ending(given.seconds, error, _thumbnail(given.thumbnail))


def _thumbnail(given: str | None) -> bytes | None:
    if given is None:
        return None
    try:
        body = base64.b64decode(given, validate=True)
        values = zlib.decompressobj().decompress(body, LONGEST_PICTURE)
    except (ValueError, zlib.error) as error:
        raise BadRequest(
            f"a thumbnail is not base64 of zlib ({error}); see /api/v1/openapi.json"
        ) from error
    if not values or len(body) > LONGEST_THUMBNAIL:
        raise BadRequest(
            f"a thumbnail has {len(body)} bytes and must have 1 to {LONGEST_THUMBNAIL}; make it coarser"
        )
    return body


def _describe(leases: Sequence[Lease]) -> list[LeasedTask]:
    return [
        LeasedTask(
            each.task.index, each.task.cost, each.id, each.attempt, each.expiry, each.lease_count or 1
        )
        for each in leases
    ]  # fmt: skip


def _unsettled(
    run: RunRecord, leases: Sequence[Lease]
) -> tuple[int | msgspec.UnsetType, bool | msgspec.UnsetType]:
    """Count the unsettled tasks if a claim got none: the client asks next whether the run is over, or paused."""
    if leases:
        return UNSET, UNSET
    counts = count(server().database, run)
    return counts.waiting + counts.leased, counts.paused or UNSET


def _set_role(run: RunRecord, name: str, role: str | None) -> None:
    user = accounts.find_user(name)
    if user is None:
        raise NotFound(f"user {name[:64]!r} is unknown; see 'cryotile user list'")
    if name == run.owner and role != "owner":
        raise BadRequest(f"{name} created run {run.uuid}; the creator's role cannot be changed")
    accounts.set_member(run.id, run.uuid, user, role)
    server().access.forget()


def stream(look: Callable[[], RunSummary | RunList | None]) -> Response:
    """Answer with events until the run is over; if no thread can be spared, with one event, and the client reconnects.

    ``look`` returns None if the run was deleted.  A stream ends, too, when the token of its reader is revoked.
    """
    token, access = principal().token, server().access

    def look_again() -> RunSummary | RunList | None:
        return None if token is not None and access.of_token(token) is None else look()

    stays = bool(request.environ.get("wsgi.multithread")) and _stream_seats.acquire(blocking=False)
    response = Response(
        stream_with_context(_events(look_again, stays)), mimetype="text/event-stream"
    )
    # nginx would buffer events otherwise.
    response.headers["X-Accel-Buffering"] = "no"
    if stays:
        response.call_on_close(_stream_seats.release)
    return response


def _events(look: Callable[[], RunSummary | RunList | None], stays: bool) -> Iterator[str]:
    last, spoke = None, time.monotonic()
    end = spoke + _LONGEST
    yield "retry: 2000\n\n"
    while (seen := look()) is not None:
        runs = seen.runs if isinstance(seen, RunList) else [seen]
        # What changes with the clock is no event.
        state = [msgspec.structs.replace(run, **_RESTING) for run in runs]
        now = time.monotonic()
        # Repeated as a sign of life: without one the page takes the connection for lost.
        if state != last or now - spoke > _SILENCE:
            last, spoke = state, now
            yield f"data: {json.dumps(msgspec.to_builtins(seen))}\n\n"
        over = isinstance(seen, RunSummary) and seen.waiting + seen.leased == 0
        if not stays or now > end or over:
            return
        time.sleep(_PAUSE)
