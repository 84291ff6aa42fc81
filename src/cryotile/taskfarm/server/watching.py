"""Queries and answers of a page about one run: its map, tiles, thumbnails, history and failures.

A time of an earlier answer asks for what has changed since; it is some seconds early, because changes become visible in
another order than their times.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from cryotile.farm.failures import folded, kind_of
from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.dialect import Statement
from cryotile.ledgers.sql.runs import RunRecord
from cryotile.taskfarm.picture import coarse, pack_thumbnails, pack_tiles, streams
from cryotile.taskfarm.server.watch_bodies import (
    FailureGroup,
    History,
    Map,
    Stream,
)

__all__ = [
    "MAP",
    "MOST_PICTURES",
    "failed_of_kind",
    "failure_groups",
    "history",
    "keep_map",
    "thumbnails",
    "tiles",
]

MOST_PICTURES = 20_000
"""Thumbnails in one answer."""

# Seconds by which the time of an answer is early at least, and to whose multiples it is rounded down: so watchers ask
# for the same changes, and share the answer.
_OVERLAP, _SHARED = 10.0, 4.0

# Latest tasks that show cost against seconds; ended tasks that show when workers were busy, and of how many seconds.
_SAMPLES, _SPANS, _HOUR = 1000, 20_000, 3600.0

# Minutes of a history, groups of failures, tasks and hosts of a group.
_MINUTES, _GROUPS, _TASKS, _HOSTS = 20_000, 50, 100, 20

# Tiles that are fetched at a time.
_FETCHED = 5000

# Failures whose kind is found in one transaction.
_PORTION = 500

KEEP_MAP = Statement("""
-- keep_map: of a run; the last one counts.
INSERT INTO maps (run_id, etag, legend, body) VALUES (:run, :etag, :legend, :body)
ON CONFLICT (run_id) DO UPDATE SET etag = excluded.etag, legend = excluded.legend, body = excluded.body
""")

MAP = Statement("""
-- map: of a run, as it is sent.
SELECT etag, body FROM maps WHERE run_id = :run
""")

LEGEND = Statement("""
-- legend: what the thumbnails of a run show.
SELECT legend FROM maps WHERE run_id = :run
""")

CLOCK = Statement("""
-- clock: the time, and the epoch of a run.
SELECT epoch, [now] AS clock FROM runs WHERE id = :run
""")

# Tasks that did not name their worker have number 0.
_TILE = "idx, seconds, cost, CASE WHEN worker_id > 0 THEN worker_id ELSE 0 END, state, attempts"

ALL_TILES = Statement(f"""
-- all_tiles: tasks that are not plainly waiting.
SELECT {_TILE} FROM tasks WHERE run_id = :run AND (state > 0 OR attempts > 0)
""")

NEW_TILES = Statement(f"""
-- new_tiles: tasks that were settled since a time, or are leased now.
SELECT {_TILE} FROM tasks [settled] WHERE run_id = :run AND settled >= :since AND state <> 1
UNION ALL SELECT {_TILE} FROM tasks [leased] WHERE run_id = :run AND state = 1
""")

NEW_PICTURES = Statement("""
-- new_pictures: thumbnails since a time, the first ones first.
SELECT idx, at, body FROM thumbnails WHERE run_id = :run AND at >= :since ORDER BY at, idx LIMIT :limit
""")

NAMED_PICTURES = Statement("""
-- named_pictures: thumbnails of some tasks.
WITH given AS MATERIALIZED (SELECT CAST(:run AS bigint) AS run_id, CAST(value->>0 AS bigint) AS idx FROM [given])
SELECT thumbnails.idx, at, body FROM given CROSS JOIN thumbnails
WHERE thumbnails.run_id = given.run_id AND thumbnails.idx = given.idx
""")

MINUTES = Statement("""
-- minutes: number of tasks whose last attempt ended in each minute.
SELECT [minute] AS minute, sum(CASE WHEN state = 2 THEN 1 ELSE 0 END) AS done,
       sum(CASE WHEN state = 2 THEN 0 ELSE 1 END) AS failed
FROM tasks [settled] WHERE run_id = :run AND settled IS NOT NULL
GROUP BY [minute] ORDER BY [minute] DESC LIMIT :limit
""")

SAMPLES = Statement("""
-- samples: cost and seconds of the tasks that were done last.
SELECT cost, seconds FROM tasks [settled]
WHERE run_id = :run AND settled IS NOT NULL AND state = 2 AND seconds IS NOT NULL
ORDER BY settled DESC LIMIT :limit
""")

SPANS = Statement("""
-- spans: when workers were busy, the latest first.
SELECT worker_id, settled - seconds AS start, settled AS stop FROM tasks [settled]
WHERE run_id = :run AND settled >= :since AND seconds IS NOT NULL AND worker_id IS NOT NULL
ORDER BY settled DESC LIMIT :limit
""")

AT_WORK = Statement("""
-- at_work: workers that hold a task, and since when they are known.
SELECT DISTINCT worker_id, workers.created FROM tasks [leased] JOIN workers ON workers.id = tasks.worker_id
WHERE run_id = :run AND state = 1 AND expires > [now]
""")

KINDLESS = Statement("""
-- kindless: failures that an earlier version noted.
SELECT idx, attempt, error FROM failures WHERE run_id = :run AND kind IS NULL LIMIT :limit
""")

SET_KIND = Statement("""
-- set_kind: of a failure.
UPDATE failures SET kind = :kind WHERE run_id = :run AND idx = :idx AND attempt = :attempt
""")

KINDS = Statement("""
-- kinds: of the failures of a run, the most frequent first.
SELECT kind, count(*) AS attempts FROM failures WHERE run_id = :run
GROUP BY kind ORDER BY count(*) DESC, kind LIMIT :limit
""")

_LAST_FAILURES = """
FROM tasks [failed] JOIN failures
     ON failures.run_id = tasks.run_id AND failures.idx = tasks.idx AND failures.attempt = tasks.attempts
WHERE tasks.run_id = :run AND tasks.state = 3
"""

FAILED_BY_KIND = Statement(f"""
-- failed_by_kind: number of failed tasks by the kind of their last failure.
SELECT kind, count(*) AS tasks {_LAST_FAILURES} GROUP BY kind
""")

FAILED_OF_KIND = Statement(f"""
-- failed_of_kind: failed tasks whose last failure is of a kind.
SELECT tasks.idx {_LAST_FAILURES} AND kind = :kind ORDER BY tasks.idx LIMIT :limit
""")

FAILURE_OF_KIND = Statement("""
-- failure_of_kind: one failure of a kind.
SELECT error FROM failures WHERE run_id = :run AND kind = :kind ORDER BY worker_id, idx LIMIT 1
""")

HOSTS_OF_KIND = Statement("""
-- hosts_of_kind: hosts with failures of a kind.
SELECT DISTINCT host FROM failures JOIN workers ON workers.id = failures.worker_id
WHERE run_id = :run AND kind = :kind ORDER BY host LIMIT :limit
""")


def keep_map(database: Database, run: RunRecord, given: Map) -> None:
    """Store the map of a run."""
    # Without a time, so that the same map has the same digest.
    body = gzip.compress(msgspec.json.encode(given), mtime=0)
    legend = msgspec.json.encode(
        {"shape": given.thumbnail_shape, "variables": given.variables}
    ).decode()
    etag = hashlib.sha256(body).hexdigest()[:32]
    database.change(lambda c: KEEP_MAP(c, run=run.id, etag=etag, legend=legend, body=body).close())


def tiles(database: Database, run: RunRecord, since: float | None) -> bytes:
    """Return the state of the tasks of a run that are not plainly waiting, or what has changed since a time."""

    def ask(connection: Connection) -> bytes:
        epoch, after = _clock(connection, run)
        wanted, given = (ALL_TILES, {}) if since is None else (NEW_TILES, {"since": since})
        found = wanted(connection, run=run.id, **given)
        # In portions, between which other threads answer; as plain tuples, which cost less than rows of SQLAlchemy.
        cursor: Any = found.cursor
        packed = pack_tiles(epoch, after, iter(lambda: cursor.fetchmany(_FETCHED), []))
        found.close()
        return packed

    return database.read(ask)


def _clock(connection: Connection, run: RunRecord) -> tuple[int, float]:
    """Return the epoch of a run, and the time from which to ask for changes."""
    row = CLOCK(connection, run=run.id).one_or_none()
    # A run that is deleted at this moment has none.
    return (0, 0.0) if row is None else (row.epoch, (row.clock - _OVERLAP) // _SHARED * _SHARED)


def thumbnails(
    database: Database,
    run: RunRecord,
    variable: str,
    *,
    since: float = 0.0,
    named: Sequence[int] | None = None,
    summary: bool = False,
) -> bytes | None:
    """Return thumbnails of one variable; None if the run has no map with this variable.

    Parameters
    ----------
    database : Database
        The database.
    run : RunRecord
        The run.
    variable : str
        Name of the variable.
    since : float
        Only those that came after this time.
    named : sequence of int, optional
        In place of ``since``, the tasks.
    summary : bool
        One value a tile.
    """

    def ask(connection: Connection) -> tuple[str | None, tuple[int, float], Sequence[Any]]:
        legend = LEGEND(connection, run=run.id).scalar_one_or_none()
        now = _clock(connection, run)
        if legend is None:
            return None, now, ()
        if named is not None:
            given = msgspec.json.encode([[index] for index in named]).decode()
            return legend, now, NAMED_PICTURES(connection, run=run.id, given=given).all()
        rows = NEW_PICTURES(connection, run=run.id, since=since, limit=MOST_PICTURES).all()
        return legend, now, rows

    found, (epoch, after), rows = database.read(ask)
    legend = msgspec.json.decode(found or "{}", type=dict[str, Any])
    names = list(legend.get("variables", ()))
    if variable not in names:
        return None
    ny, nx = legend["shape"]
    values = _unpacked([row.body for row in rows], (len(names), ny, nx))[:, names.index(variable)]
    if summary:
        values = coarse(values, flags=bool(legend["variables"][variable]["flags"]))
    if named is None and len(rows) == MOST_PICTURES:
        after = rows[-1].at
    return pack_thumbnails(epoch, after, [row.idx for row in rows], values)


def _unpacked(bodies: Sequence[bytes], shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Return the values of all thumbnails; those of a worker that knows another map are cut or padded."""
    size = math.prod(shape)
    parts = (zlib.decompressobj().decompress(body, size).ljust(size, b"\0") for body in bodies)
    return np.frombuffer(b"".join(parts), "u1").reshape(len(bodies), *shape)


def history(database: Database, run: RunRecord) -> History:
    """Return what has happened in a run: by minute, by cost, and by worker in the last hour."""

    def ask(connection: Connection) -> History:
        clock = CLOCK(connection, run=run.id).one().clock
        minutes = MINUTES(connection, run=run.id, limit=_MINUTES).all()
        samples = SAMPLES(connection, run=run.id, limit=_SAMPLES).all()
        since = clock - _HOUR
        spans = SPANS(connection, run=run.id, since=since, limit=_SPANS).all()
        if len(spans) == _SPANS:
            since = spans[-1].stop
        # No row says when a lease began: workers go on at once, so that it was when their last task ended.
        last = {row.worker_id: row.stop for row in reversed(spans)}
        present = [
            (row.worker_id, max(since, row.created, last.get(row.worker_id, since)), clock)
            for row in AT_WORK(connection, run=run.id)
        ]
        return History(
            clock=clock,
            minutes=[[int(each) for each in row] for row in reversed(minutes)],
            samples=[list(row) for row in samples],
            streams_from=since,
            streams=[
                Stream(worker, busy)
                for worker, busy in streams([*map(tuple, spans), *present]).items()
            ],
        )

    return database.read(ask)


def failure_groups(database: Database, run: RunRecord) -> list[FailureGroup]:
    """Return the failures of a run by kind, the most frequent first."""
    # Few runs have failures without a kind, and a transaction that writes waits for the workers'.
    while database.read(lambda c: KINDLESS(c, run=run.id, limit=1).all()):
        database.change(lambda connection: _find_kinds(connection, run.id))

    def ask(connection: Connection) -> list[FailureGroup]:
        failed = {row.kind: row.tasks for row in FAILED_BY_KIND(connection, run=run.id)}
        rows = KINDS(connection, run=run.id, limit=_GROUPS).all()
        return [_group(connection, run.id, row, failed.get(row.kind, 0)) for row in rows]

    return database.read(ask)


def failed_of_kind(database: Database, run: RunRecord, kind: str) -> list[int]:
    """Return the indices of the failed tasks whose last failure is of a kind."""
    given = {"run": run.id, "kind": kind, "limit": 2**62}
    return database.read(lambda c: list(FAILED_OF_KIND(c, **given).scalars()))


def _find_kinds(connection: Connection, run_id: int) -> None:
    """Find the kinds of some failures that have none yet."""
    rows = KINDLESS(connection, run=run_id, limit=_PORTION).all()
    kinds = [
        {"run": run_id, "idx": row.idx, "attempt": row.attempt, "kind": kind_of(row.error)}
        for row in rows
    ]
    SET_KIND.many(connection, kinds)


def _group(connection: Connection, run_id: int, row: Any, tasks: int) -> FailureGroup:
    """Describe a kind of failures; ``tasks`` is the number of tasks that it made fail for good."""
    given = {"run": run_id, "kind": row.kind}
    text = FAILURE_OF_KIND(connection, **given).scalar_one_or_none() or ""
    indices = FAILED_OF_KIND(connection, limit=_TASKS, **given).scalars() if tasks else ()
    return FailureGroup(
        group=row.kind,
        error=folded(text),
        text=text,
        count=tasks,
        attempts=row.attempts,
        hosts=list(HOSTS_OF_KIND(connection, limit=_HOSTS, **given).scalars()),
        tasks=list(indices),
    )
