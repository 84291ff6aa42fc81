"""The runs of a database: found, created, counted, put back and removed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import Connection

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
    "restart_all",
    "restart_stranded",
]

_NOBODY = 0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a database says of a run.

    Attributes
    ----------
    id, uuid, key, name, owner
        Its number in the database, its name in addresses, the key of its task list, its name for people, and whose it
        is (None: nobody's in particular).
    lease : float
        Seconds for which a lease is good.
    attempts : int
        How many attempts a task gets.
    created : float
        Seconds since 1970.
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
    """How many tasks a run has, and of these: how many wait (``returned``: after a lease), are leased, done, failed."""

    tasks: int
    waiting: int
    leased: int
    done: int
    failed: int
    returned: int


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
    """Create a run without tasks, or find the one that has the key.

    Parameters
    ----------
    database : Database
        Where.
    key : str
        Of its task list; its uuid when not given.
    name : str
        For people.
    owner : str, optional
        Whose it is.
    lease : float
        Seconds for which a lease is good.
    attempts : int
        How many attempts a task gets.

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
    """Count the tasks of a run by what they are, whatever their number at the same cost."""
    return database.read(lambda connection: _count(connection, run.id))


def restart_all(database: Database, run: RunRecord) -> None:
    """Let every task wait again, as if none was ever claimed; all leases are lost."""

    def restart(connection: Connection) -> None:
        sql.LOCK_RUN(connection, run=run.id)
        sql.REFILL_BACKLOG(connection, run=run.id)
        _clear(connection, run.id)

    database.change(restart)


def restart_stranded(database: Database, run: RunRecord) -> int:
    """Let those leased tasks wait again whose lease has expired, or that have none; how many they were."""
    return database.change_once(
        lambda connection: len(sql.RESTART_STRANDED(connection, run=run.id, worker=_NOBODY))
    )


def delete_run(database: Database, run: RunRecord) -> None:
    """Remove a run with all its tasks."""

    def delete(connection: Connection) -> None:
        sql.LOCK_RUN(connection, run=run.id)
        _clear(connection, run.id)
        for statement in (sql.DELETE_BACKLOG, sql.DELETE_TALLIES, sql.DELETE_RUN):
            statement(connection, run=run.id)

    database.change(delete)


def _clear(connection: Connection, run_id: int) -> None:
    """Remove the rows of a run's tasks, and what they add to its counts."""
    sql.DELETE_FAILURES(connection, run=run_id)
    if connection.dialect.name == "postgresql":
        # Others may be settling tasks at this moment: what is subtracted is what was deleted.
        sql.CLEAR(connection, run=run_id, worker=_NOBODY)
    else:
        sql.DELETE_TASKS(connection, run=run_id)
        sql.ZERO_TALLIES(connection, run=run_id)


def _find(connection: Connection, name: str) -> RunRecord | None:
    row = sql.FIND_RUN(connection, name=name).one_or_none()
    return None if row is None else RunRecord(**row._mapping)


def _count(connection: Connection, run_id: int) -> TaskCounts:
    tasks, leased, done, failed, returned = map(int, sql.COUNT(connection, run=run_id).one())
    return TaskCounts(tasks, tasks - leased - done - failed, leased, done, failed, returned)
