"""The runs of a database: find, create, count, restart and delete them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from cryotile.farm.task import ATTEMPTS
from cryotile.ledgers.base import LEASE
from cryotile.ledgers.sql import statements as sql
from cryotile.ledgers.sql.database import Database

__all__ = [
    "RunRecord",
    "TaskCounts",
    "count",
    "create_run",
    "delete_run",
    "find_run",
    "pause",
    "restart_all",
    "restart_stranded",
    "tasks_counted",
]

_NOBODY = 0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run in a database.

    Attributes
    ----------
    id, uuid, key, name, owner
        Number in the database, name in addresses, key of the task list, name for people, and user who owns the run
        (None without one).
    lease : float
        Seconds for which a lease is valid.
    attempts : int
        Attempts that a task gets.
    created : float
        Time of creation, seconds since 1970.
    """

    id: int
    uuid: str
    key: str
    name: str
    owner: str | None
    lease: float
    attempts: int
    created: float


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """Number of tasks of a run, and of those that wait (``returned``: after a lease), are leased, done and failed.

    ``paused`` tells whether claims get nothing.
    """

    tasks: int
    waiting: int
    leased: int
    done: int
    failed: int
    returned: int
    paused: bool


def find_run(database: Database, name: str) -> RunRecord | None:
    """Find a run by its key or uuid."""
    return database.read(lambda connection: _find(connection, name))


def create_run(
    database: Database,
    key: str = "",
    *,
    name: str = "",
    owner: str | None = None,
    lease: float = LEASE,
    attempts: int = ATTEMPTS,
) -> RunRecord:
    """Create a run without tasks, or find the run with this key.

    Parameters
    ----------
    database : Database
        The database.
    key : str
        Key of the task list; the uuid of the run by default.
    name : str
        Name for people.
    owner : str, optional
        User who owns the run.
    lease : float
        Seconds for which a lease is valid.
    attempts : int
        Attempts that a task gets.

    Returns
    -------
    RunRecord
    """
    if key and (found := find_run(database, key)) is not None:
        return found
    name_in_addresses = uuid.uuid4().hex

    def create(connection: Connection) -> RunRecord:
        sql.CREATE_RUN(
            connection, uuid=name_in_addresses, key=key or name_in_addresses, name=name, owner=owner,
            lease=lease, attempts=attempts,
        )  # fmt: skip
        run = _find(connection, key or name_in_addresses)
        assert run is not None
        return run

    return database.change(create)


def count(database: Database, run: RunRecord) -> TaskCounts:
    """Count the tasks of a run by state; the time does not depend on their number."""
    return database.read(lambda connection: _count(connection, run.id))


def restart_all(database: Database, run: RunRecord) -> None:
    """Put every task back, as if none was ever claimed; all leases are lost."""

    def restart(connection: Connection) -> None:
        sql.LOCK_RUN(connection, run=run.id)
        sql.NEW_EPOCH(connection, run=run.id)
        sql.REFILL_BACKLOG(connection, run=run.id)
        _clear(connection, run.id)

    database.change(restart)


def restart_stranded(database: Database, run: RunRecord) -> int:
    """Put back the leased tasks whose lease has expired or is missing; return their number."""
    return database.change_once(
        lambda connection: len(sql.RESTART_STRANDED(connection, run=run.id, worker=_NOBODY))
    )


def pause(database: Database, run: RunRecord, *, paused: bool) -> None:
    """Let claims of a run get nothing, or tasks again; leases go on."""
    database.change(lambda connection: sql.PAUSE(connection, run=run.id, paused=paused).close())


def delete_run(database: Database, run: RunRecord) -> None:
    """Delete a run with all its tasks."""

    def delete(connection: Connection) -> None:
        sql.LOCK_RUN(connection, run=run.id)
        _clear(connection, run.id)
        for statement in (
            sql.DELETE_BACKLOG, sql.DELETE_TALLIES, sql.DELETE_MAP, sql.DELETE_RUN
        ):  # fmt: skip
            statement(connection, run=run.id)

    database.change(delete)


def _clear(connection: Connection, run_id: int) -> None:
    """Delete the rows of the tasks of a run, and their part of its counts."""
    sql.DELETE_FAILURES(connection, run=run_id)
    sql.DELETE_THUMBNAILS(connection, run=run_id)
    if connection.dialect.name == "postgresql":
        # Other workers may settle tasks at this moment, so the counts of the deleted rows are subtracted.
        sql.CLEAR(connection, run=run_id, worker=_NOBODY)
    else:
        sql.DELETE_TASKS(connection, run=run_id)
        sql.ZERO_TALLIES(connection, run=run_id)


def _find(connection: Connection, name: str) -> RunRecord | None:
    row = sql.FIND_RUN(connection, name=name).one_or_none()
    return None if row is None else RunRecord(**row._mapping)


def _count(connection: Connection, run_id: int) -> TaskCounts:
    return tasks_counted(sql.COUNT(connection, run=run_id).one())


def tasks_counted(row: Row[Any]) -> TaskCounts:
    """Return the counts of a row of the statement ``COUNT``."""
    tasks, leased, done, failed, returned, paused = map(int, row)
    waiting = tasks - leased - done - failed
    return TaskCounts(tasks, waiting, leased, done, failed, returned, bool(paused))
