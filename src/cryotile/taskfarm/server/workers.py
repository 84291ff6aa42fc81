"""The workers that a process has met, and the books that they have open."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from cryotile.ledgers.sql.book import Book
from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.dialect import Statement
from cryotile.ledgers.sql.ledger import register
from cryotile.ledgers.sql.runs import RunRecord
from cryotile.taskfarm.server import body

__all__ = ["NAME", "Workers", "anonymous"]

NAME = re.compile("[0-9A-Za-z_-]{1,64}")
"""Uuids of workers, with or without dashes."""

HOST = re.compile(r"[^\0-\x1f]{1,255}")

_BIGGEST_PID = 2**31 - 1
_MEMORY = 20_000

FIND_WORKER = Statement("""
-- find_worker: its number by its uuid.
SELECT id FROM workers WHERE uuid = :uuid
""")


class Workers:
    """Numbers of workers by their uuids; they never change.

    Parameters
    ----------
    database : Database
        Where they are registered.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, int] = {}

    def register(self, given: Mapping[str, Any], host: str) -> int:
        """Make a worker known, or find it; its number.

        Parameters
        ----------
        given : mapping
            Has ``uuid`` and ``pid``.
        host : str
            Name of its host.
        """
        name = body.text(given["uuid"], "uuid", NAME)
        pid = body.whole(given["pid"], "pid", 0, _BIGGEST_PID)
        host = body.text(host, "host", HOST)
        if (known := self._known.get(name)) is not None:
            return known
        return self._keep(name, register(self._database, name, host, pid))

    def find(self, name: str) -> int | None:
        """Return the number of a worker; None when it is unknown."""
        if (known := self._known.get(name)) is not None:
            return known
        if NAME.fullmatch(name) is None:
            return None
        row = self._database.read(lambda c: FIND_WORKER(c, uuid=name).one_or_none())
        return None if row is None else self._keep(name, row.id)

    def book(self, run: RunRecord, worker: int) -> Book:
        """Open the book of a run for a worker."""
        return Book(self._database, run, worker)

    def _keep(self, name: str, worker: int) -> int:
        if len(self._known) > _MEMORY:
            self._known.clear()
        self._known[name] = worker
        return worker


def anonymous() -> int:
    """Return the number under which to count what no worker says it did; of one thread, so that few share a row."""
    return -1 - threading.get_native_id() % 64
