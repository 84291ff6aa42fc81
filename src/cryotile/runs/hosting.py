"""A task-farm server that the workers of a run host themselves: one of them at a time, and another when it is gone.

The server's database is a file on the machine of its host, since SQLite's locks are unreliable on network file systems;
the host copies it into the run every few seconds, and when it ends.  The next host begins with the copy.  What was
settled after the last copy is not lost: tiles are in the run, and a worker that is given the task of a tile that is
there settles it at once.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryotile.errors import CryotileError, InvalidValue, MissingDependency, Unfinished
from cryotile.farm.place import HOSTED, LOOKS, Place
from cryotile.files import atomic_path
from cryotile.runs.tasklist import TaskList

__all__ = ["COPY", "Host", "served"]

log = logging.getLogger(__name__)

COPY = "server.db"
"""File in the run with the database of its server; for its owner alone."""

EVERY = 5.0
"""Seconds between two looks at the place of the server."""

PATIENCE = 120.0
"""Seconds for a server to start."""

_STORAGE_ERRORS = (CryotileError, OSError, sqlite3.Error)
"""Errors of the file system, at the place or at the copy."""

_SHARE = 20
"""Seconds between two copies of the database, over the seconds that a copy takes."""

_LOGIN_HOSTS = ("SLURM_SUBMIT_HOST", "PBS_O_HOST", "SGE_O_HOST")
"""Variables in which schedulers name the host that a job was submitted from."""


@dataclass
class _Server:
    """A server on this machine: its process, and its database."""

    process: subprocess.Popen[bytes]
    directory: Path
    said: dict[str, Any]
    database: sqlite3.Connection
    # SQLite's data_version at the last copy: it differs after another connection has written.
    version: int = -1
    # By the monotonic clock, s.
    next_copy: float = 0.0


@dataclass
class Host:
    """One of the processes that host the server of a run: while it is entered, there is a server.

    Parameters
    ----------
    run : TaskList
        A run or an ingest.
    tell : callable
        Receives lines about where the server is.
    every : float
        Seconds between two looks.
    """

    run: TaskList
    tell: Callable[[str], object] = log.info
    every: float = EVERY
    _server: _Server | None = None
    _told: str = ""
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._place = Place(self.run.path / HOSTED, self.every, private=True)
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)

    def __enter__(self) -> Self:
        """Host the server if no other process does; return when it is there.

        Raises
        ------
        Unfinished
            There is none after two minutes.
        """
        end = time.monotonic() + PATIENCE
        while not self._look():
            if time.monotonic() > end:
                holder = self._place.holder()
                who = "nobody" if holder is None else f"process {holder.pid} on {holder.host}"
                raise Unfinished(
                    f"no server of {self.run.path} was there within {PATIENCE:.0f} s ({who} hosts it); repeat the"
                    " command"
                )
            time.sleep(min(self.every, 0.5))
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the server to others, with all that it knows."""
        self._over.set()
        self._thread.join()
        if self._server is not None:
            said = {**self._server.said, "addresses": []}
            self._stop(copied=True)
            try:
                self._place.leave(said)
            except _STORAGE_ERRORS as error:
                # Not raised, as it would hide the error that ended the run.
                log.warning(
                    "%s: %s; the next host waits until this one is silent", self._place.path, error
                )

    def _keep_looking(self) -> None:
        while not self._over.wait(self.every):
            try:
                self._look()
            except _STORAGE_ERRORS as error:
                # The run goes on without a server for as long as its workers have patience.
                log.warning("%s: %s; the server is tried again", self.run.path, error)

    def _look(self) -> bool:
        """Look at the place: keep it, take it, or let it be; return whether there is a server."""
        if self._server is not None:
            return self._keep(self._server)
        holder = self._place.holder()
        if self._place.is_free(holder):
            known = {} if holder is None else holder.said
            if self._place.take({**known, "addresses": []}):
                self._server = self._start(known)
                return self._keep(self._server)
            return False
        assert holder is not None
        if holder.said.get("addresses"):
            self._say(holder.said["addresses"])
        return bool(holder.said.get("addresses"))

    def _keep(self, server: _Server) -> bool:
        """Keep hosting: say so, let the server live, and copy its database if it has changed."""
        if not self._place.keep(server.said):
            log.warning(
                "%s: another process hosts the server, as this one was silent", self.run.path
            )
            self._stop(copied=False)
            return False
        try:
            assert server.process.stdin is not None
            server.process.stdin.write(b".")
            server.process.stdin.flush()
        except OSError:
            self._stop(copied=True)
            self._server = self._start(server.said)
            return True
        self._say(server.said["addresses"])
        self._copy(server)
        return True

    def _start(self, known: dict[str, Any]) -> _Server:
        """Start a server with what is known of the last one."""
        directory = Path(tempfile.mkdtemp(prefix="cryotile-server-"))
        database = directory / "farm.db"
        if not _restore(self.run.path / COPY, database):
            self.tell(f"{self.run.path / COPY} is damaged: the server begins anew from the tiles")
        key = known.get("key") or secrets.token_urlsafe(32)
        process = subprocess.Popen(
            [sys.executable, "-m", "cryotile.taskfarm.server.hosted"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A signal to the job must not end the server before the workers have settled their tasks.
            start_new_session=True,
        )
        asked = {
            "database": str(database),
            "secret_key": key,
            "token": known.get("token"),
            "silence": LOOKS * self.every,
        }
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
        with process.stdout:
            answer = process.stdout.readline()
        if not answer:
            shutil.rmtree(directory, ignore_errors=True)
            process.wait()
            raise MissingDependency(
                "the server did not start; it needs: pip install 'cryotile[server]'; what it said is above"
            )
        told = json.loads(answer)
        addresses = [f"http://{name}:{told['port']}" for name in _names()]
        said = {"addresses": addresses, "token": told["token"], "key": key}
        # Threads take turns: one looks until it is joined by the one that stops the server.
        return _Server(process, directory, said, sqlite3.connect(database, check_same_thread=False))

    def _copy(self, server: _Server) -> None:
        """Copy the database into the run, whole or not at all, if it has changed."""
        start = time.monotonic()
        if start < server.next_copy:
            return
        (version,) = server.database.execute("PRAGMA data_version").fetchone()
        if version == server.version:
            return
        with atomic_path(self.run.path / COPY) as temporary:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(temporary)) as target:
                server.database.backup(target)
        server.version = version
        server.next_copy = time.monotonic() + _SHARE * (time.monotonic() - start)

    def _stop(self, *, copied: bool) -> None:
        """Stop the server on this machine, and copy its database if this process still holds the place."""
        server, self._server = self._server, None
        assert server is not None
        assert server.process.stdin is not None
        with suppress(OSError):
            server.process.stdin.close()
        server.process.wait()
        if copied:
            server.next_copy = 0.0
            try:
                self._copy(server)
            except _STORAGE_ERRORS as error:
                log.warning(
                    "%s: the last copy of the server's database failed (%s); what was settled since the one before is"
                    " found in the %s",
                    self.run.path,
                    error,
                    self.run.nouns,
                )
        server.database.close()
        shutil.rmtree(server.directory, ignore_errors=True)

    def _say(self, addresses: list[str]) -> None:
        """Say once where the server is, and how its page is reached."""
        if self._told == addresses[0]:
            return
        self._told = addresses[0]
        port = addresses[0].rpartition(":")[2]
        host = addresses[0].removeprefix("http://").rpartition(":")[0]
        login = next(filter(None, map(os.environ.get, _LOGIN_HOSTS)), "LOGIN-HOST")
        self.tell(
            f"the server of {self.run.path} is at {addresses[0]}; to see its page: ssh -L 5000:{host}:{port} {login},"
            f" then http://localhost:5000/ with the token in {self.run.path / HOSTED} as the name"
        )


@contextmanager
def served(
    run: TaskList, backend: str, serve: bool, tell: Callable[[str], object] = log.info
) -> Iterator[None]:
    """Let this process be one of those that host the server of a run, if that is asked.

    Parameters
    ----------
    run : TaskList
        A run or an ingest.
    backend : str
        Spec of the backend.
    serve : bool
        Whether to host.
    tell : callable
        As of :class:`Host`.

    Raises
    ------
    InvalidValue
        The backend has no server, or one at a given address.
    """
    if not serve:
        yield
        return
    if backend.partition(":")[0] != "http" or "//" in backend:
        raise InvalidValue(
            f'backend {backend.partition("//")[0]!r} has no server that its workers host; give backend="http", or no'
            " serve=True"
        )
    with Host(run, tell):
        yield


def _restore(copy: Path, database: Path) -> bool:
    """Begin with the copy in the run, if there is one; False if it is damaged."""
    if not copy.exists():
        return True
    shutil.copyfile(copy, database)
    try:
        with closing(sqlite3.connect(database)) as restored:
            (found,) = restored.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        database.unlink()
    return bool(found == "ok")


def _names() -> list[str]:
    """Return the names of this machine by which others may reach it, the most likely first."""
    name = socket.getfqdn()
    found = [name] if _is_reachable(name) else []
    with suppress(OSError):
        for *_, place in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET):
            found.append(str(place[0]))
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        # Nothing is sent: the address of the interface that would be used.
        sender.connect(("192.0.2.1", 9))
        found.append(sender.getsockname()[0])
    return [each for each in dict.fromkeys(found) if not each.startswith("127.")] or ["127.0.0.1"]


def _is_reachable(name: str) -> bool:
    """Tell whether a name is known, as more than this machine's own."""
    try:
        return not socket.gethostbyname(name).startswith("127.")
    except OSError:
        return False
