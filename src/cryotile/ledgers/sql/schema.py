"""The tables of the database ledger, and how a database comes to have them; the server keeps its own beside them.

==========  ==============================================================================================
runs        one task list: its key, its size, how long a lease is good, how many attempts a task gets
stock       tasks that are listed but not laid out yet, costliest first, thousands or a whole range in a row
tasks       one row a task, from when its turn comes near; whether it waits, is leased, done or has failed
tallies     for each worker by how much it changed the counts of a run, and when it was last heard of
failures    one row a failed attempt: whose, and why
workers     host and process of each worker
==========  ==============================================================================================

A count of a run is the sum of its tallies.  Each worker adds to a row of its own, so that no two ever wait for each
other, and nobody counts tasks.  Since tasks wait as stock, to list a million or to put a million back costs hundreds
of rows, not millions; a task that has no row waits, and no attempt at it was made.

All times are seconds since 1970 by the database's clock.  There are no foreign keys: rows come and go with their run,
in transactions that see to it, and every claim would pay for the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

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
    text,
)

from cryotile.errors import CryotileError

__all__ = [
    "State",
    "failures",
    "metadata",
    "runs",
    "stock",
    "tallies",
    "tasks",
    "upgrade",
    "workers",
]

# A big number that SQLite, too, hands out by itself: there only an INTEGER does.
_Number = BigInteger().with_variant(Integer, "sqlite")


class State(IntEnum):
    """What a task is: as numbers in the table ``tasks``."""

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
    # Whoever enrolls under the same key works on the same list.
    Column("key", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("owner", Text),
    Column("tasks", BigInteger, nullable=False, server_default="0"),
    # Seconds for which a lease is good.
    Column("lease", Float(53), nullable=False),
    Column("attempts", SmallInteger, nullable=False),
    Column("created", Float(53), nullable=False),
)

stock = Table(
    "stock",
    metadata,
    Column("run_id", BigInteger, nullable=False, primary_key=True),
    Column("number", Integer, nullable=False, primary_key=True),
    # Cost of the costliest task; without costs all are alike.
    Column("top", Float(53), nullable=False, server_default="0"),
    Column("size", BigInteger, nullable=False),
    # How many of them, from the first, are laid out.
    Column("taken", BigInteger, nullable=False, server_default="0"),
    # Indices (int64) and costs (float64) as bytes; without them a range of indices from 0.
    Column("indices", LargeBinary),
    Column("costs", LargeBinary),
)
Index(
    "stock_left",
    stock.c.run_id,
    stock.c.top.desc(),
    stock.c.number,
    postgresql_where=stock.c.taken < stock.c.size,
    sqlite_where=stock.c.taken < stock.c.size,
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
    # Whether the task was reported to run under its present lease.
    Column("started", Boolean, nullable=False, server_default=text("false")),
    # How many leases there were.
    Column("turns", Integer, nullable=False, server_default="0"),
    # The present lease, or the one that settled the task or its last attempt; none once it was lost or released.
    Column("lease", BigInteger),
    # When the lease expires; never, for a task that somebody set computing without one.
    Column("expires", Float(53)),
    Column("worker_id", BigInteger),
    Column("percent", Float(53), nullable=False, server_default="0"),
    # Whether that is more than 0, of a task that is not settled.
    Column("begun", Boolean, nullable=False, server_default=text("false")),
    Column("seconds", Float(53)),
    Column("settled", Float(53)),
    # Room for new versions of a row beside the old: a report of progress then touches no index.
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
# How far a run is follows from the tallies and from what is begun: so much is looked at, and no more.
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

tallies = Table(
    "tallies",
    metadata,
    Column("run_id", BigInteger, nullable=False, primary_key=True),
    # 0 for what no worker did.
    Column("worker_id", BigInteger, nullable=False, primary_key=True, autoincrement=False),
    # Last sign of life.
    Column("seen", Float(53), nullable=False),
    # What the worker added to the number of leased, done and failed tasks of the run; one may be below 0.
    Column("leased", BigInteger, nullable=False, server_default="0"),
    Column("done", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
    # And to the number of those that wait again, after a lease.
    Column("returned", BigInteger, nullable=False, server_default="0"),
    # Attempts that it ended.
    Column("attempts", BigInteger, nullable=False, server_default="0"),
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
)

workers = Table(
    "workers",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("uuid", String(64), nullable=False, unique=True),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("created", Float(53), nullable=False),
)

# Which step each part of the schema (this ledger's, the server's) has come to.
_versions = Table(
    "schema_versions",
    metadata,
    Column("part", String(32), primary_key=True),
    Column("version", Integer, nullable=False),
)

_RUN_PROGRESS = """
-- run_progress: how far each run is, for psql and sqlite3; one row a run.
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

# lock_schema: of several processes that find an old schema one upgrades it, and the others wait; to the end of the
# transaction, so that it holds behind a connection pooler, too.  The number is ours alone.
_LOCK_SCHEMA = "SELECT pg_advisory_xact_lock(7166101)"


def _create_ledger(connection: Connection) -> None:
    """Version 1."""
    metadata.create_all(
        connection, tables=[runs, stock, tasks, tallies, failures, workers], checkfirst=False
    )
    connection.execute(text(_RUN_PROGRESS))


Step = Callable[[Connection], None]

LEDGER_STEPS: Sequence[Step] = (_create_ledger,)
"""What brings the ledger's tables from each version to the next."""


def upgrade(
    connection: Connection, part: str = "ledger", steps: Sequence[Step] = LEDGER_STEPS
) -> None:
    """Bring one part of the schema to this version, if it is not there yet.

    Any number of processes may do so at once.  Each step runs once in the life of a database.

    Parameters
    ----------
    connection : Connection
        In a transaction that may write.
    part : str
        Name of the part.
    steps : sequence of callable
        The first creates version 1 out of nothing, each further one the next version; called with the connection.

    Raises
    ------
    CryotileError
        The database is of a newer version.
    """
    if _version(connection, part) == len(steps):
        return
    if connection.dialect.name == "postgresql":
        connection.execute(text(_LOCK_SCHEMA))
    _versions.create(connection, checkfirst=True)
    version = _version(connection, part)
    if version > len(steps):
        raise CryotileError(
            f"the database's {part} tables are of version {version}, this cryotile knows up to {len(steps)}; "
            "upgrade cryotile, or give another database"
        )
    for step in steps[version:]:
        step(connection)
    connection.execute(_versions.delete().where(column("part") == part))
    connection.execute(_versions.insert().values(part=part, version=len(steps)))


def _version(connection: Connection, part: str) -> int:
    """Return the version of a part, 0 when there is none."""
    if not connection.dialect.has_table(connection, _versions.name):
        return 0
    query = _versions.select().where(_versions.c.part == part)
    row = connection.execute(query).one_or_none()
    return 0 if row is None else row.version
