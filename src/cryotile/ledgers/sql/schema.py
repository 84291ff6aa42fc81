"""The tables of the database ledger, and their creation and upgrades; the server keeps its own tables beside them.

==========  ==============================================================================================
runs        one task list: its key, its size, the length of its leases, the attempts that a task gets
backlog     tasks that have no row in ``tasks`` yet, costliest first; a row holds thousands, or a whole range
tasks       one row a task, from shortly before it is claimed; waiting, leased, done or failed
tallies     for each worker: its changes of the counts of a run, and when it was last seen
failures    one row a failed attempt: the worker, and the error
workers     host and process of each worker
maps        where the tasks of a run lie, for a page that draws them
thumbnails  a small picture of the result of a task
==========  ==============================================================================================

A count of a run is the sum of its tallies.  Each worker adds to a row of its own, so no worker waits for another, and
tasks are never counted.  A tally also holds the sums from which durations are estimated by cost.  Enrolling or
restarting a million tasks touches hundreds of rows of the backlog; a task without a row waits, and no attempt was made
of it.

Times are seconds since 1970 by the database's clock.  There are no foreign keys: rows are removed with their run in one
transaction, and every claim would pay for the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    column,
    select,
    text,
)
from sqlalchemy.schema import CreateColumn

from cryotile.errors import CryotileError

__all__ = [
    "GREATEST_COST",
    "TaskState",
    "backlog",
    "failures",
    "maps",
    "metadata",
    "runs",
    "tallies",
    "tasks",
    "thumbnails",
    "total_cost",
    "upgrade",
    "workers",
]

GREATEST_COST = 1e100
"""Costs of this size or more are left out of sums: databases refuse a sum or a product that overflows."""

# A 64-bit number that the database assigns; SQLite does this for INTEGER only.
_Number = BigInteger().with_variant(Integer, "sqlite")


class TaskState(IntEnum):
    """The state of a task, as a number in the table ``tasks``."""

    WAITING = 0
    LEASED = 1
    DONE = 2
    FAILED = 3


metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("uuid", String(32), nullable=False, unique=True),
    # Workers that enroll under the same key work on the same list.
    Column("key", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("owner", Text),
    Column("tasks", BigInteger, nullable=False, server_default="0"),
    # Seconds for which a lease is valid.
    Column("lease", Float(53), nullable=False),
    Column("attempts", SmallInteger, nullable=False),
    Column("created", Float(53), nullable=False),
    # Sum of the costs of its tasks.
    Column("cost", Float(53), nullable=False, server_default="0"),
    # Whether claims get nothing.
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    # Number of times that settled tasks were opened again: what a page knows of the tasks is then invalid.
    Column("epoch", Integer, nullable=False, server_default="0"),
)

backlog = Table(
    "backlog",
    metadata,
    Column("run_id", BigInteger, nullable=False, primary_key=True),
    Column("number", Integer, nullable=False, primary_key=True),
    # Cost of the costliest task; 0 for a range.
    Column("top", Float(53), nullable=False, server_default="0"),
    Column("size", BigInteger, nullable=False),
    # Number of its tasks, from the first, that have rows in tasks.
    Column("taken", BigInteger, nullable=False, server_default="0"),
    # Indices (int64) and costs (float64) as bytes; NULL for a range of indices from 0.
    Column("indices", LargeBinary),
    Column("costs", LargeBinary),
)
Index(
    "backlog_left",
    backlog.c.run_id,
    backlog.c.top.desc(),
    backlog.c.number,
    postgresql_where=backlog.c.taken < backlog.c.size,
    sqlite_where=backlog.c.taken < backlog.c.size,
)

tasks = Table(
    "tasks",
    metadata,
    Column("run_id", BigInteger, nullable=False, primary_key=True),
    Column("idx", BigInteger, nullable=False, primary_key=True),
    Column("cost", Float(53), nullable=False, server_default="0"),
    Column("state", SmallInteger, nullable=False, server_default="0"),
    # Attempts that count: those that ended, and those whose worker died.
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    # Whether the task was reported as running under its present lease.
    Column("started", Boolean, nullable=False, server_default=text("false")),
    # Number of leases so far.
    Column("lease_count", Integer, nullable=False, server_default="0"),
    # The present lease, or the one that settled the task or its last attempt; NULL after it was lost or released.
    Column("lease", BigInteger),
    # When the lease expires; NULL for a task that the legacy API set computing without a lease.
    Column("expires", Float(53)),
    Column("worker_id", BigInteger),
    Column("percent", Float(53), nullable=False, server_default="0"),
    # Whether that is more than 0 and the task is not settled.
    Column("begun", Boolean, nullable=False, server_default=text("false")),
    Column("seconds", Float(53)),
    Column("settled", Float(53)),
    # Room for new versions of a row beside the old one: a report of progress then touches no index.
    postgresql_with={"fillfactor": 70},
    sqlite_with_rowid=False,
)
Index(
    "tasks_waiting",
    tasks.c.run_id,
    tasks.c.cost.desc(),
    tasks.c.idx,
    postgresql_where=tasks.c.state == text("0"),
    sqlite_where=tasks.c.state == text("0"),
)
Index(
    "tasks_leased",
    tasks.c.run_id,
    tasks.c.expires,
    postgresql_where=tasks.c.state == text("1"),
    sqlite_where=tasks.c.state == text("1"),
)
# The progress of a run follows from its tallies and from the tasks that are begun: no other rows are read.
Index(
    "tasks_begun",
    tasks.c.run_id,
    tasks.c.idx,
    postgresql_where=tasks.c.begun,
    sqlite_where=tasks.c.begun,
)
Index(
    "tasks_failed",
    tasks.c.run_id,
    tasks.c.idx,
    postgresql_where=tasks.c.state == text("3"),
    sqlite_where=tasks.c.state == text("3"),
)
# What has changed since a time, and the number of tasks that ended in each minute.
Index(
    "tasks_settled",
    tasks.c.run_id,
    tasks.c.settled,
    tasks.c.state,
    postgresql_where=tasks.c.settled.isnot(None),
    sqlite_where=tasks.c.settled.isnot(None),
)

tallies = Table(
    "tallies",
    metadata,
    Column("run_id", BigInteger, nullable=False, primary_key=True),
    # 0 for changes that no worker made.
    Column("worker_id", BigInteger, nullable=False, primary_key=True, autoincrement=False),
    # When the worker was last seen.
    Column("seen", Float(53), nullable=False),
    # What the worker added to the numbers of leased, done and failed tasks of the run; may be below 0.
    Column("leased", BigInteger, nullable=False, server_default="0"),
    Column("done", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
    # What it added to the number of tasks that wait again after a lease.
    Column("returned", BigInteger, nullable=False, server_default="0"),
    # Attempts that it ended.
    Column("attempts", BigInteger, nullable=False, server_default="0"),
    # Costs of the tasks that it settled for good.
    Column("cost", Float(53), nullable=False, server_default="0"),
    # Number of tasks that it did in a known time, and sums over them: of cost, seconds, and their squares and product.
    Column("timed", BigInteger, nullable=False, server_default="0"),
    Column("timed_cost", Float(53), nullable=False, server_default="0"),
    Column("timed_seconds", Float(53), nullable=False, server_default="0"),
    Column("timed_cost2", Float(53), nullable=False, server_default="0"),
    Column("timed_seconds2", Float(53), nullable=False, server_default="0"),
    Column("timed_product", Float(53), nullable=False, server_default="0"),
    # Two earlier times, and done and timed_seconds by then: they give a recent rate.
    Column("mark_at", Float(53), nullable=False, server_default="0"),
    Column("mark_done", BigInteger, nullable=False, server_default="0"),
    Column("mark_seconds", Float(53), nullable=False, server_default="0"),
    Column("last_at", Float(53), nullable=False, server_default="0"),
    Column("last_done", BigInteger, nullable=False, server_default="0"),
    Column("last_seconds", Float(53), nullable=False, server_default="0"),
    postgresql_with={"fillfactor": 50},
    sqlite_with_rowid=False,
)

failures = Table(
    "failures",
    metadata,
    Column("run_id", BigInteger, nullable=False, primary_key=True),
    Column("idx", BigInteger, nullable=False, primary_key=True),
    Column("attempt", SmallInteger, nullable=False, primary_key=True),
    Column("worker_id", BigInteger, nullable=False),
    Column("seconds", Float(53), nullable=False),
    Column("error", Text, nullable=False),
    Column("at", Float(53), nullable=False),
    # Digest of the error without what differs from task to task; NULL for failures of version 2.
    Column("kind", String(16)),
)
Index("failures_kind", failures.c.run_id, failures.c.kind, failures.c.worker_id, failures.c.idx)

workers = Table(
    "workers",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("uuid", String(64), nullable=False, unique=True),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("created", Float(53), nullable=False),
    # Memory of the worker and its children when it last said so, bytes.
    Column("memory", BigInteger),
)

maps = Table(
    "maps",
    metadata,
    Column("run_id", BigInteger, nullable=False, primary_key=True, autoincrement=False),
    # Digest of the body.
    Column("etag", String(32), nullable=False),
    # The variables and the shape of thumbnails, as JSON.
    Column("legend", Text, nullable=False),
    # The whole map: JSON, compressed by gzip.
    Column("body", LargeBinary, nullable=False),
)

thumbnails = Table(
    "thumbnails",
    metadata,
    Column("run_id", BigInteger, nullable=False, primary_key=True),
    Column("idx", BigInteger, nullable=False, primary_key=True),
    Column("at", Float(53), nullable=False),
    # Values of all variables, one byte each, compressed by zlib.
    Column("body", LargeBinary, nullable=False),
)
Index("thumbnails_at", thumbnails.c.run_id, thumbnails.c.at)

# Version of each part of the schema: that of the ledger, and that of the server.
_versions = Table(
    "schema_versions",
    metadata,
    Column("part", String(32), primary_key=True),
    Column("version", Integer, nullable=False),
)

_RUN_PROGRESS = """
-- run_progress: the progress of each run, for psql and sqlite3; one row a run.
CREATE VIEW run_progress AS
SELECT runs.uuid, runs.key, runs.name, runs.owner, runs.tasks,
       runs.tasks - coalesce(sum(tallies.leased + tallies.done + tallies.failed), 0) AS waiting,
       coalesce(sum(tallies.leased), 0) AS leased,
       coalesce(sum(tallies.done), 0) AS done,
       coalesce(sum(tallies.failed), 0) AS failed,
       CASE WHEN runs.tasks = 0 THEN 100.0
            ELSE 100.0 * coalesce(sum(tallies.done), 0) / runs.tasks END AS percent_done,
       runs.created,
       max(tallies.seen) AS seen
FROM runs LEFT JOIN tallies ON tallies.run_id = runs.id
GROUP BY runs.id, runs.uuid, runs.key, runs.name, runs.owner, runs.tasks, runs.created
"""

# lock_schema: if several processes find an old schema, one upgrades it and the others wait.  The lock ends with the
# transaction, so it also works behind a connection pooler.  No other lock has this number.
_LOCK_SCHEMA = "SELECT pg_advisory_xact_lock(7166101)"


def _create_ledger(connection: Connection) -> None:
    """Create the tables as they are now; the further steps find nothing to do."""
    present = [runs, backlog, tasks, tallies, failures, workers, maps, thumbnails]
    metadata.create_all(connection, tables=present, checkfirst=False)
    connection.execute(text(_RUN_PROGRESS))


def _upgrade_to_2(connection: Connection) -> None:
    """Rename tables and columns: ``backlog`` was called ``stock``, ``lease_count`` was called ``turns``."""
    if connection.dialect.has_table(connection, "stock"):
        connection.execute(text("ALTER TABLE stock RENAME TO backlog"))
        connection.execute(text("ALTER TABLE tasks RENAME COLUMN turns TO lease_count"))


# Columns that version 3 adds to each table.
_ADDED = {
    runs: ("cost", "paused", "epoch"),
    tallies: (
        "cost", "timed", "timed_cost", "timed_seconds", "timed_cost2", "timed_seconds2", "timed_product",
        "mark_at", "mark_done", "mark_seconds", "last_at", "last_done", "last_seconds",
    ),
    failures: ("kind",),
    workers: ("memory",),
}  # fmt: skip

_MARK_NOW = """
-- mark_now: rates begin at the upgrade.
UPDATE tallies SET mark_at = seen, mark_done = done, last_at = seen, last_done = done
"""

_ADD_SETTLED_COST = """
-- add_settled_cost: of the tasks that are settled at the upgrade.
UPDATE tallies SET cost = (
    SELECT coalesce(sum(tasks.cost), 0) FROM tasks
    WHERE tasks.run_id = tallies.run_id AND tasks.state > 1 AND abs(tasks.cost) < 1e100
)
WHERE worker_id = (SELECT min(worker_id) FROM tallies AS others WHERE others.run_id = tallies.run_id)
"""


def _upgrade_to_3(connection: Connection) -> None:
    """Add what a page about a run shows without reading all tasks; compute it for the runs that are there."""
    if connection.dialect.has_table(connection, maps.name):
        return
    for table, names in _ADDED.items():
        for name in names:
            definition = CreateColumn(table.c[name]).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
    for table, index in ((tasks, "tasks_settled"), (failures, "failures_kind")):
        next(each for each in table.indexes if each.name == index).create(connection)
    metadata.create_all(connection, tables=[maps, thumbnails], checkfirst=False)
    connection.execute(text(_MARK_NOW))
    connection.execute(text(_ADD_SETTLED_COST))
    for run_id in connection.execute(select(runs.c.id)).scalars().all():
        rows = select(backlog.c.costs).where(
            backlog.c.run_id == run_id, backlog.c.costs.isnot(None)
        )
        cost = sum(total_cost(row.costs) for row in connection.execute(rows))
        connection.execute(runs.update().where(runs.c.id == run_id).values(cost=cost))


def total_cost(costs: bytes) -> float:
    """Return the sum of the costs of a row of the backlog, without those that no database can add up."""
    each = np.frombuffer(costs, "<f8")
    return float(each[np.abs(each) < GREATEST_COST].sum())


Step = Callable[[Connection], None]

LEDGER_STEPS: Sequence[Step] = (_create_ledger, _upgrade_to_2, _upgrade_to_3)
"""The steps from each version of the ledger's tables to the next."""


def upgrade(
    connection: Connection, part: str = "ledger", steps: Sequence[Step] = LEDGER_STEPS
) -> None:
    """Upgrade one part of the schema to the present version, if it is older.

    Any number of processes may do this at once.  Each step runs once in the life of a database.

    Parameters
    ----------
    connection : Connection
        A connection in a transaction that may write.
    part : str
        Name of the part.
    steps : sequence of callable
        The first creates version 1, each following one the next version; called with the connection.

    Raises
    ------
    CryotileError
        The tables are of a newer version.
    """
    if _version(connection, part) == len(steps):
        return
    if connection.dialect.name == "postgresql":
        connection.execute(text(_LOCK_SCHEMA))
    _versions.create(connection, checkfirst=True)
    version = _version(connection, part)
    if version > len(steps):
        raise CryotileError(
            f"the database's {part} tables have version {version}, this cryotile knows versions up to {len(steps)}; "
            "upgrade cryotile, or give another database"
        )
    for step in steps[version:]:
        step(connection)
    connection.execute(_versions.delete().where(column("part") == part))
    connection.execute(_versions.insert().values(part=part, version=len(steps)))


def _version(connection: Connection, part: str) -> int:
    """Return the version of a part, 0 without one."""
    if not connection.dialect.has_table(connection, _versions.name):
        return 0
    query = _versions.select().where(_versions.c.part == part)
    row = connection.execute(query).one_or_none()
    return 0 if row is None else row.version
