"""A ledger in a database: SQLite for the workers of one machine, PostgreSQL for those of many."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from cryotile.errors import MissingDependency
from cryotile.farm.task import Outcome, Task
from cryotile.ledgers.base import LEASE, Lease

try:
    from cryotile.ledgers.sql import statements
    from cryotile.ledgers.sql.book import Book
    from cryotile.ledgers.sql.database import PATIENCE, Database
    from cryotile.ledgers.sql.runs import count, create_run
    from cryotile.ledgers.sql.schema import upgrade
except ModuleNotFoundError as error:
    raise MissingDependency(
        "a ledger in a database needs SQLAlchemy: pip install 'cryotile[database]'"
    ) from error

__all__ = ["SQLLedger", "open_database", "register"]


def open_database(url: str, *, connections: int = 1, patience: float = PATIENCE) -> Database:
    """Open a database, and create or upgrade the ledger's tables in it.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` or ``postgresql://user@host/name``.
    connections : int
        How many at most; each thread at work needs one.
    patience : float
        Seconds for which what fails is tried again.

    Returns
    -------
    Database

    Raises
    ------
    InvalidValue
        The address is wrong, or that of a file on a network file system.
    MissingDependency
        The library for this database is not installed.
    Unreachable
        It does not answer, or refuses.
    CryotileError
        Its tables are of a newer version.
    """
    database = Database(url, connections=connections, patience=patience)
    database.change(upgrade)
    return database


def register(database: Database, name: str, host: str, pid: int) -> int:
    """Make a worker known by its uuid, or find it; its number."""
    return database.change(
        lambda connection: int(
            statements.REGISTER(connection, uuid=name, host=host, pid=pid).scalar_one()
        )
    )


class SQLLedger:
    """Tasks in a database; see :class:`cryotile.ledgers.Ledger`.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` or ``postgresql://user@host/name``.
    key : str
        Name of the task list; another list has another key.
    lease : float
        Seconds for which a lease is good.
    host : str
        Name of this host.

    Raises
    ------
    InvalidValue
        The address is wrong, or that of a file on a network file system.
    """

    def __init__(self, url: str, key: str, *, lease: float = LEASE, host: str = "") -> None:
        self._database = Database(url)
        self._key = key
        self._lease = lease
        self._host = host or socket.gethostname()

    def enroll(self, tasks: Sequence[Task]) -> None:
        """List what is to be done; see :meth:`cryotile.ledgers.Ledger.enroll`."""
        self._book.enroll(tasks)

    def claim(self, n: int = 1) -> list[Lease]:
        """Lease waiting tasks; see :meth:`cryotile.ledgers.Ledger.claim`."""
        return self._book.claim(n, self._lease)

    def renew(self, fractions: Mapping[Lease, float | None]) -> set[Lease]:
        """Prolong leases; see :meth:`cryotile.ledgers.Ledger.renew`."""
        lost = self._book.renew({lease.id: f for lease, f in fractions.items()}, self._lease)
        return {lease for lease in fractions if lease.id in lost}

    def settle(self, outcomes: Mapping[Lease, Outcome]) -> set[Lease]:
        """End leases; see :meth:`cryotile.ledgers.Ledger.settle`."""
        lost = self._book.settle({lease.id: outcome for lease, outcome in outcomes.items()})
        return {lease for lease in outcomes if lease.id in lost}

    def exchange(self, outcomes: Mapping[Lease, Outcome], n: int) -> tuple[set[Lease], list[Lease]]:
        """Settle and claim in one transaction; see :meth:`cryotile.ledgers.Exchange.exchange`."""
        ended = {lease.id: outcome for lease, outcome in outcomes.items()}
        lost, leases = self._book.exchange(ended, n, self._lease)
        return {lease for lease in outcomes if lease.id in lost}, leases

    def release(self, leases: Collection[Lease]) -> None:
        """Hand tasks back; see :meth:`cryotile.ledgers.Ledger.release`."""
        self._book.release(lease.id for lease in leases)

    def unsettled(self) -> int:
        """Return how many tasks wait or are leased; see :meth:`cryotile.ledgers.Ledger.unsettled`."""
        counts = count(self._database, self._book.run)
        return counts.waiting + counts.leased

    def outcomes_elsewhere(self, tasks: Collection[int]) -> dict[str, dict[int, bool]]:
        """Tell what other hosts made of tasks; see :meth:`cryotile.ledgers.Ledger.outcomes_elsewhere`."""
        found = self._book.outcomes_elsewhere(tasks)
        found.pop(self._host, None)
        return found

    @cached_property
    def _book(self) -> Book:
        """The run in the database, created when it is first asked for."""
        self._database.change(upgrade)
        run = create_run(self._database, self._key, lease=self._lease)
        return Book(
            self._database, run, register(self._database, uuid.uuid4().hex, self._host, os.getpid())
        )
