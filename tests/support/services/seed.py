"""The first task farm, PyPI's ``taskfarm`` and ``taskfarm-worker`` 0.4.0, each in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.services.farm import PASSWORD, USER, await_answer
from tests.support.services.ports import free_port
from tests.support.services.provide import exclusively, unavailable

_CLIENT = [["taskfarm-worker==0.4.0", "setuptools<80", "wheel"]]

# The newest versions that it works with; its build needs pkg_resources, which newer setuptools lack.
_SERVER = [
    [
        *("setuptools<80", "wheel", "flask<2.3", "werkzeug<2.3", "flask-sqlalchemy<3"),
        *("sqlalchemy<2", "authlib<2", "passlib", "psycopg2-binary", "gunicorn"),
    ],
    ["--no-build-isolation", "taskfarm==0.4.0"],
]


def seed_client(place: Path) -> Path:
    """Return the directory of the client's programs, installed in ``place`` if it is missing."""
    return _installed(place, _CLIENT, sys.executable)


def seed_stress(place: Path) -> list[Path]:
    """Return the import paths of the stress test, which only the source archive contains, and of the client."""
    programs = seed_client(place)
    sources = place / "sources"
    if not sources.exists():
        pip = [str(programs / "python"), "-m", "pip", "download", "-q", "--no-deps"]
        pip += ["--no-build-isolation", "--no-binary", "taskfarm-worker", "-d", str(place)]
        _call([*pip, "taskfarm-worker==0.4.0"])
        (archive,) = place.glob("taskfarm*worker-0.4.0.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(sources, filter="data")
    (stress,) = sources.glob("*/stress")
    (packages,) = place.glob("lib/*/site-packages")
    return [stress, packages]


class SeedServer:
    """The first server; a context manager.

    Parameters
    ----------
    place : Path
        Environment that it is installed in, created if it is missing.
    directory : Path
        Directory for its database and output.
    database_url : str
        Another database than SQLite in the directory.
    processes : int
        Number of processes; with more than one, SQLite fails.

    Attributes
    ----------
    address : str
        Address of the server.
    seed_url : str
        Address of its API.
    """

    def __init__(
        self, place: Path, directory: Path, *, database_url: str = "", processes: int = 1
    ) -> None:
        self._programs = _installed(place, _SERVER, _old_python())
        self._directory = directory
        self._database = database_url or f"sqlite:///{directory / 'seed.db'}"
        self._processes = processes
        self._port = free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self.seed_url = f"{self.address}/api/"

    def __enter__(self) -> Self:
        for words in (["--init-db"], ["-u", USER, "-p", PASSWORD]):
            self._run(["adminTF", *words])
        log = self._directory / "seed.log"
        words = ["-w", str(self._processes), "-b", f"127.0.0.1:{self._port}", "taskfarm:app"]
        with log.open("wb") as output:
            self.server = subprocess.Popen(
                [self._programs / "gunicorn", *words],
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        await_answer(f"{self.seed_url}token", self.server, log)
        return self

    def __exit__(self, *error: object) -> None:
        self.server.terminate()
        self.server.wait()

    def _run(self, words: Sequence[str]) -> None:
        command = [self._programs / words[0], *words[1:]]
        subprocess.run(command, env=self._environment, check=True, capture_output=True)

    @property
    def _environment(self) -> dict[str, str]:
        outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**outside, "DATABASE_URL": self._database}


def _old_python() -> str:
    """Return a Python that the server runs on."""
    if sys.version_info < (3, 13):
        return sys.executable
    found = shutil.which("python3.12") or shutil.which("python3.11")
    if found is None:
        unavailable("the first server needs Python 3.12 or older, which is not installed")
    return found


def _installed(place: Path, steps: Sequence[Sequence[str]], python: str) -> Path:
    """Install packages into an environment unless that is done; return the directory of its programs."""
    done, wanted = place / "installed", repr(steps)
    with exclusively(place):
        if done.exists() and done.read_text() == wanted:
            return place / "bin"
        commands = [[python, "-m", "venv", "--clear", str(place)]]
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q"]
        commands += [[*pip, *step] for step in steps]
        for command in commands:
            _call(command)
        done.write_text(wanted)
    return place / "bin"


def _call(command: Sequence[str]) -> None:
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(command, env=outside, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        unavailable(f"{' '.join(command)}: {answer.stderr.strip()[-2000:]}")
