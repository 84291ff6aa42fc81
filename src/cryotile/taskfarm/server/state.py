"""State that the requests of one process share: settings, database, rights, and the ids of known workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import cast

from flask import current_app

from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.dialect import Statement
from cryotile.ledgers.sql.ledger import SqlLedger, register
from cryotile.ledgers.sql.runs import RunRecord
from cryotile.taskfarm.server.auth import Access
from cryotile.taskfarm.server.bodies import is_worker_uuid
from cryotile.taskfarm.server.settings import ServerSettings

__all__ = ["KeptAnswers", "Server", "WorkerIds", "anonymous_worker", "server"]

_CACHED = 20_000

FIND_WORKER = Statement("""
-- find_worker: id of a worker by its uuid.
SELECT id FROM workers WHERE uuid = :uuid
""")


class WorkerIds:
    """Database ids of workers by uuid; an id never changes, so a cached one stays valid.

    Parameters
    ----------
    database : Database
        Database that workers are registered in.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache: dict[str, int] = {}

    def register(self, uuid: str, host: str, pid: int) -> int:
        """Return the id of a worker, and register it if it is new."""
        if (known := self._cache.get(uuid)) is not None:
            return known
        return self._keep(uuid, register(self._database, uuid, host, pid))

    def find(self, uuid: str) -> int | None:
        """Return the id of a worker; None if it is unknown."""
        if (known := self._cache.get(uuid)) is not None:
            return known
        if not is_worker_uuid(uuid):
            return None
        row = self._database.read(lambda c: FIND_WORKER(c, uuid=uuid).one_or_none())
        return None if row is None else self._keep(uuid, row.id)

    def _keep(self, uuid: str, worker: int) -> int:
        if len(self._cache) > _CACHED:
            self._cache.clear()
        self._cache[uuid] = worker
        return worker


# An answer is kept if it takes more seconds of a processor, or is longer than this many bytes; such answers at most.
_CHEAP, _SHORT, _KEPT = 0.01, 8192, 64

# Seconds for which an answer is given, at least and at most, and how many times as long as it took.  The page asks a
# second after a change, so that a short answer is never older than the change.
_LEAST, _MOST, _TIMES = 1.0, 10.0, 20.0


class KeptAnswers:
    """Answers that many watchers of a run ask for at the same time, and that are costly if the run is large.

    However many ask, a costly answer is made once a second at most, and takes a twentieth of the time at most, up to
    an age of ten seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Hashable, _Kept] = {}

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the answer of a key: a kept one, or a new one if it was cheap or is too old."""
        with self._lock:
            if key not in self._kept:
                # Few ask for the changes since a time of long ago.
                past = time.monotonic() - _MOST
                self._kept = {k: each for k, each in self._kept.items() if each.until > past}
                if len(self._kept) >= _KEPT:
                    self._kept.clear()
            kept = self._kept.setdefault(key, _Kept())
        if (answer := kept.fresh()) is not None:
            return answer
        # While one thread makes an answer, the others give the old one if there is one.
        old = kept.answer
        if not kept.lock.acquire(blocking=old is None):
            assert old is not None
            return old
        try:
            # The thread that this one waited for may have made it.
            if (answer := kept.fresh()) is not None:
                return answer
            begin, worked = time.monotonic(), time.thread_time()
            answer = make()
            costly = len(answer) > _SHORT or time.thread_time() - worked > _CHEAP
            took = time.monotonic() - begin
            kept.answer = answer if costly else None
            kept.until = begin + min(max(_LEAST, _TIMES * took), _MOST)
            return answer
        finally:
            kept.lock.release()


@dataclass
class _Kept:
    """An answer, until when it is given, and the lock of the thread that makes the next one."""

    answer: bytes | None = None
    until: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fresh(self) -> bytes | None:
        """Return the answer if it is not too old."""
        answer = self.answer
        return answer if time.monotonic() < self.until else None


@dataclass(frozen=True)
class Server:
    """State that the requests of one process share.

    Attributes
    ----------
    database : Database
        Database of the ledger and of the accounts.
    settings : ServerSettings
        Settings of the server.
    access : Access
        Users and their rights.
    workers : WorkerIds
        Ids of workers.
    answers : KeptAnswers
        Answers for those who watch runs.
    """

    database: Database
    settings: ServerSettings
    access: Access
    workers: WorkerIds
    answers: KeptAnswers = field(default_factory=KeptAnswers)

    def ledger(self, run: RunRecord, worker: int = 0, *, lease: float | None = None) -> SqlLedger:
        """Return the ledger of a run as a worker sees it; worker 0 stands for none."""
        return SqlLedger.of_worker(self.database, run, worker, lease=lease)


def server() -> Server:
    """Return the state of the application that handles the current request."""
    return cast("Server", current_app.extensions["cryotile"])


def anonymous_worker() -> int:
    """Return the worker id that counts settlements of unnamed workers; one per thread, to spread row locks."""
    return -1 - threading.get_native_id() % 64
