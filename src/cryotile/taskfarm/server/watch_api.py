"""Calls of a page about one run: its map, tiles, history and failures; pause, retry, reset and delete it."""

from __future__ import annotations

import gzip

from flask import Response, request
from werkzeug.exceptions import NotFound

from cryotile.ledgers.sql import runs
from cryotile.ledgers.sql.runs import RunRecord
from cryotile.taskfarm.server import accounts, watching
from cryotile.taskfarm.server.api import api, operations, stream
from cryotile.taskfarm.server.auth import principal
from cryotile.taskfarm.server.bodies import RunList
from cryotile.taskfarm.server.explaining import explanation
from cryotile.taskfarm.server.legacy_api import failed_tasks, remove_run, restart_run
from cryotile.taskfarm.server.listing import list_runs, summarize
from cryotile.taskfarm.server.operations import packed
from cryotile.taskfarm.server.state import server
from cryotile.taskfarm.server.watch_bodies import (
    Explained,
    ExplainQuery,
    FailureGroups,
    History,
    Map,
    PictureQuery,
    Reset,
    Retried,
    Retry,
    SinceQuery,
)

__all__ = ["api"]

_RUN = "/api/v1/runs/<run>"
_BINARY = "application/octet-stream"


@operations.add("PUT", f"{_RUN}/map", {204: "The map is stored."}, role="worker")
def put_map(run: RunRecord, body: Map) -> None:
    """Store where the tasks of a run lie; idempotent."""
    watching.keep_map(server().database, run, body)


@operations.add("GET", f"{_RUN}/map", {200: "The map.", 304: "The map is the same."}, role="viewer")
def get_map(run: RunRecord) -> Response:
    """Return where the tasks of a run lie, as it was stored; 404 for a run without a map."""
    row = server().database.read(lambda c: watching.MAP(c, run=run.id).one_or_none())
    if row is None:
        raise NotFound(f"run {run.uuid} has no map; only runs over tiles have one")
    response = Response(status=304)
    if not request.if_none_match.contains(row.etag):
        response = packed(row.body, "application/json")
    response.set_etag(row.etag)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


@operations.add("GET", f"{_RUN}/tiles", {200: "The tiles."}, role="viewer", media=_BINARY)
def get_tiles(run: RunRecord, query: SinceQuery) -> Response:
    """Return the tasks that are not plainly waiting, or those that have changed since a time or are leased now.

    Little endian: u32 0x54435931, u32 count, u32 epoch, f64 next; then for each task u32 index, f32 seconds, f32 cost,
    u32 number of the worker, u8 state (0 waiting, 1 leased, 2 done, 3 failed), u8 attempts, column by column.
    """
    body = server().answers.get(
        (run.id, "tiles", query.since),
        lambda: gzip.compress(watching.tiles(server().database, run, query.since), 1, mtime=0),
    )
    return packed(body, _BINARY)


@operations.add("GET", f"{_RUN}/thumbnails", {200: "Thumbnails."}, role="viewer", media=_BINARY)
def get_thumbnails(run: RunRecord, query: PictureQuery) -> Response:
    """Return thumbnails of done tasks, at most 20 000: all, those since a time, or those of some tasks.

    Little endian: u32 0x54435932, u32 count, u32 epoch, f64 next, u32 rows, u32 columns; then u32 index of each task,
    and u8 values of each, rows by columns: 0 for no data, 1 to 255 over the range of the variable.
    """
    named = None if query.tasks is None else [int(index) for index in query.tasks.split(",")]

    def make() -> bytes:
        found = watching.thumbnails(
            server().database, run, query.variable,
            since=query.since, named=named, summary=query.detail is not None,
        )  # fmt: skip
        if found is None:
            raise NotFound(
                f"run {run.uuid} has no map with the variable {query.variable!r}; see its map"
            )
        return gzip.compress(found, 1, mtime=0)

    if named is not None:
        return packed(make(), _BINARY)
    return packed(server().answers.get((run.id, query), make), _BINARY)


@operations.add("GET", f"{_RUN}/history", {200: "The history."}, role="viewer", shared=True)
def get_history(run: RunRecord) -> History:
    """Return the tasks done by minute, cost against seconds, and when workers were busy in the last hour."""
    return watching.history(server().database, run)


@operations.add("GET", f"{_RUN}/failures", {200: "The failures."}, role="viewer", shared=True)
def get_failures(run: RunRecord) -> FailureGroups:
    """Return the failures by their error, apart from numbers and paths."""
    return FailureGroups(watching.failure_groups(server().database, run))


@operations.add("POST", f"{_RUN}/retry", {200: "The tasks wait again."}, role="owner")
def retry(run: RunRecord, body: Retry) -> Retried:
    """Let failed tasks wait again: those of a group, some, or all."""
    database = server().database
    if body.group is not None:
        chosen = watching.failed_of_kind(database, run, body.group)
    else:
        chosen = failed_tasks(database, run)
        if body.tasks is not None:
            chosen = sorted({*chosen} & {*body.tasks})
    server().ledger(run).reopen(chosen)
    accounts.note("retry", f"{run.uuid} {len(chosen)} tasks", commit=True)
    return Retried(len(chosen))


@operations.add("POST", f"{_RUN}/pause", {204: "Claims get nothing."}, role="owner")
def pause(run: RunRecord) -> None:
    """Let claims get nothing; leases go on."""
    _pause(run, paused=True)


@operations.add("POST", f"{_RUN}/resume", {204: "Claims get tasks."}, role="owner")
def resume(run: RunRecord) -> None:
    """Let claims get tasks again."""
    _pause(run, paused=False)


@operations.add("POST", f"{_RUN}/restart", {204: "The tasks wait again."}, role="owner")
def restart(run: RunRecord, body: Reset) -> None:
    """Let failed tasks and those without a valid lease wait again, or all tasks."""
    restart_run(run, everything=body.all)


@operations.add("DELETE", _RUN, {204: "The run is deleted."}, role="owner")
def delete(run: RunRecord) -> None:
    """Delete a run and all that is known of it."""
    remove_run(run)


@operations.add("GET", "/api/v1/events", {200: "A stream."}, media="text/event-stream")
def get_all_events() -> Response:
    """Stream server-sent events: the caller's runs as JSON, each time a count of theirs has changed."""
    who, database = principal(), server().database
    return stream(lambda: RunList([summarize(row, who) for row in list_runs(database, who)]))


@operations.add("GET", f"{_RUN}/explain", {200: "The explanation."}, role="viewer")
def explain(run: RunRecord, query: ExplainQuery) -> Explained:
    """Explain the nearest post, as cryotile explain does; 404 if the server does not see the run directory."""
    places = server().settings.run_directories
    return Explained(explanation(run, places, query.x, query.y))


def _pause(run: RunRecord, *, paused: bool) -> None:
    runs.pause(server().database, run, paused=paused)
    accounts.note("pause" if paused else "resume", run.uuid, commit=True)
