"""Connections to a database: few, short, and opened again when they break.

A worker has one connection, from a request until half a second without one, so that a database serves many more workers
than it allows connections.  Behind a pooler, which may give each transaction another connection, a connection holds no
state, neither settings nor prepared statements.

If a transaction fails because the database is unreachable, full or busy, it is retried, for minutes if need be.
Transactions must allow this: one whose answer was lost may have been committed.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as NoConnection

from cryotile.errors import CryotileError, InvalidValue, MissingDependency
from cryotile.files import network_file_system, writing
from cryotile.processes import backoff

__all__ = ["PATIENCE", "Database", "Unreachable"]

PATIENCE = 600.0
"""Seconds for which a failed transaction is retried."""

# The first and the longest pause between two tries, seconds.
_PAUSES = 0.02, 5.0

# Seconds without a request after which a connection is closed.
_LINGER = 0.5

# Seconds for which SQLite waits for a writer outside our queue, e.g. sqlite3 in a terminal.
_BUSY = 30.0

# Number of times that a connection executes a statement before PostgreSQL keeps its plan.
_PREPARED = 5

# SQLite learned RETURNING in 3.35 and ->> in 3.38.
_OLDEST_SQLITE = 3, 38

# Errors that a retry does not cure, in the words of libpq and SQLite, which give no code for them.
_LASTING = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied",
    "no password supplied",
    "could not translate host name",
    "unable to open database file",
    "readonly database",
    "not a database",
    "malformed",
)

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Unreachable(CryotileError):
    """A database did not answer within the time limit, or refuses for good; everything settled before is kept."""


class Database:
    """A database that several processes use at once.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` or ``postgresql://user@host/name``.
    connections : int
        Maximum number of connections; each busy thread needs one.
    patience : float
        Seconds for which a failed transaction is retried.
    linger : float
        Seconds without a request after which the connections are closed; infinite to keep them.

    Attributes
    ----------
    engine : Engine
        The engine of SQLAlchemy, for callers that keep its connections (``linger`` infinite).
    name : str
        The address without the password.

    Raises
    ------
    InvalidValue
        The address is invalid, or the file is on a network file system.
    MissingDependency
        SQLite is too old, or psycopg is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = 1,
        patience: float = PATIENCE,
        linger: float = _LINGER,
    ) -> None:
        address = _checked(url)
        self.name = address.render_as_string(hide_password=True)
        self._patience = patience
        self._file = address.database if address.get_backend_name() == "sqlite" else None
        # Most transactions are one statement; only for longer ones does a connection to PostgreSQL leave autocommit.
        self._single = self.engine = _make_engine(address, connections)
        if self._file is None:
            self.engine = self._single.execution_options(isolation_level="READ COMMITTED")
        self._reader = self._single.execution_options(reads=True)
        self._errors = (DBAPIError, NoConnection, self.engine.dialect.loaded_dbapi.Error)
        # A database that is no longer referenced leaves no connection open.
        weakref.finalize(self, self._single.dispose)
        self._closer = _Closer(self._single, linger)

    def read(self, ask: Callable[[Connection], T]) -> T:
        """Run a transaction that only reads; ``ask`` may be called again."""
        return self._try(lambda: self._use(self._reader, ask))

    def change(self, ask: Callable[[Connection], T]) -> T:
        """Run a transaction that writes; ``ask`` may be called again, even after a transaction that succeeded."""
        return self._try(lambda: self._use(self.engine, ask))

    def change_once(self, ask: Callable[[Connection], T]) -> T:
        """Like :meth:`change` for one :class:`~cryotile.ledgers.sql.dialect.TaskUpdate`, a transaction in itself."""
        return self._try(lambda: self._use(self._single, ask))

    def _use(self, engine: Engine, ask: Callable[[Connection], T]) -> T:
        reads = engine is self._reader
        with self._closer.in_use(), self._turn(reads), engine.begin() as connection:
            return ask(connection)

    @contextmanager
    def _turn(self, reads: bool) -> Iterator[None]:
        """Wait until this process may write to SQLite.

        SQLite polls for its lock.  With many writers, waiting for a lock of the kernel takes a tenth of the time; the
        kernel releases the lock of a process that dies.
        """
        if self._file is None or reads:
            yield
            return
        with writing(Path(self._file)):
            line = os.open(f"{self._file}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(line, fcntl.LOCK_EX)
            yield
        finally:
            os.close(line)

    def _try(self, call: Callable[[], T]) -> T:
        """Call until it succeeds, fails for good, or the time limit is reached."""
        end = time.monotonic() + self._patience
        for pause in backoff(*_PAUSES):
            try:
                return call()
            except self._errors as error:
                self._refused(error, end, pause)
            time.sleep(pause)
        raise AssertionError("backoff never ends")

    def _refused(self, error: Exception, end: float, pause: float) -> None:
        """Log why a transaction failed; raise if a retry does not help or the time is over."""
        if not _passes(error) or time.monotonic() >= end:
            raise Unreachable(
                f"database {self.name}: {_reason(error)}; correct that, then repeat the command to continue"
            ) from error
        level = logging.WARNING if pause > 1 else logging.DEBUG
        logger.log(level, "database %s: %s; trying again", self.name, _reason(error))


class _Closer:
    """Closes the connections of an engine after a time without use."""

    def __init__(self, engine: Engine, linger: float) -> None:
        self._engine = engine
        self._linger = linger
        self._lock = threading.Lock()
        self._users = 0
        self._watched = False
        self._last = 0.0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the connections open within a ``with`` block."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._last = time.monotonic()
                if not self._watched and math.isfinite(self._linger):
                    self._watch(self._linger)

    def _watch(self, seconds: float) -> None:
        self._watched = True
        timer = threading.Timer(seconds, self._look)
        timer.daemon = True
        timer.start()

    def _look(self) -> None:
        with self._lock:
            left = self._last + self._linger - time.monotonic()
            if self._users or left > 0:
                self._watch(max(left, self._linger))
            else:
                self._watched = False
                # With the lock held, because a connection in use would be left open.
                self._engine.dispose()


def _checked(url: str) -> URL:
    """Parse an address, and check that it can be used."""
    try:
        address = make_url(url)
        kind = address.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        # Without user and password.
        shown = re.sub("//.*@", "//", url)
        raise InvalidValue(
            f"invalid database address {shown!r}; write sqlite:///path or postgresql://user@host/name"
        ) from error
    if kind == "postgresql":
        return address.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise InvalidValue(
            f"database {kind!r} is not supported; write sqlite:///path or postgresql://user@host/name"
        )
    if address.database in (None, "", ":memory:"):
        raise InvalidValue(
            "a database in memory is visible to one process only; name a file, e.g. sqlite:///farm.db"
        )
    if address.query:
        raise InvalidValue(
            f"the address of a SQLite database has no options, and {', '.join(address.query)} is given; leave it out"
        )
    path = Path(str(address.database)).absolute()
    if (network := network_file_system(path)) is not None:
        raise InvalidValue(
            f"{path} is on a network file system ({network}), where SQLite's locks are unreliable and the database "
            "would be damaged; use postgresql://…, the backend dir, or a file on a local disk"
        )
    return address.set(drivername="sqlite+pysqlite", database=str(path))


def _make_engine(address: URL, connections: int) -> Engine:
    """Create an engine whose connections are set up for its database."""
    limits: dict[str, Any] = {
        "poolclass": QueuePool, "pool_size": connections, "max_overflow": 0, "pool_timeout": 30.0
    }  # fmt: skip
    if address.get_backend_name() == "postgresql":
        options: dict[str, Any] = {"prepare_threshold": None, "connect_timeout": 10}
        try:
            engine = create_engine(
                address, connect_args=options, isolation_level="AUTOCOMMIT", **limits
            )
        except ImportError as error:
            raise MissingDependency(
                "PostgreSQL needs psycopg: pip install 'cryotile[database]'"
            ) from error
        event.listen(engine, "connect", _set_up_postgresql)
        return engine
    options = {"timeout": _BUSY, "check_same_thread": False, "isolation_level": None}
    engine = create_engine(address, connect_args=options, **limits)
    if engine.dialect.loaded_dbapi.sqlite_version_info < _OLDEST_SQLITE:
        raise MissingDependency(
            f"SQLite {engine.dialect.loaded_dbapi.sqlite_version} is too old: 3.38 or newer is needed; use a newer "
            "Python, e.g. conda's, or postgresql://…"
        )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_postgresql(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy passes it
    """Let PostgreSQL keep plans, which take longer to make than to execute, unless a pooler stands in front of it."""
    # A pooler gives itself another process number.  A kept plan is as old as the last ANALYZE: a table that was small
    # then must not be read whole now.  PostgreSQL would compile a plan that cannot avoid that.
    direct = connection.execute(
        "SELECT set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false)"
        " WHERE pg_backend_pid() = %s",
        (connection.info.backend_pid,),
    ).fetchone()
    if direct is not None:
        connection.prepare_threshold = _PREPARED


def _set_up_sqlite(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy passes it
    """Let readers work beside a writer, and keep acknowledged changes through a power failure."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "journal_size_limit = 67108864"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """Begin a transaction that writes as a writer, because SQLite may refuse to upgrade a reader."""
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _passes(error: Exception) -> bool:
    """Return whether a retry may help: connections that break or are refused, locks, a full disk."""
    if isinstance(error, NoConnection):
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if not kinds & {"OperationalError", "InterfaceError"}:
        return False
    return not any(words in str(cause) for words in _LASTING)


def _reason(error: Exception) -> str:
    """Return the message of a driver, in one line."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(cause).split()) or type(cause).__name__
