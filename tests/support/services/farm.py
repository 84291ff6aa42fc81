"""A task-farm server, started as users start it, that a test may kill and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self
from urllib.parse import quote

from cryotile.taskfarm.server import ServerSettings, accounts, create_app
from tests.support.services.ports import free_port
from tests.support.waiting import LIMIT, wait_for_service

USER, PASSWORD = "user", "a secret of some length"


def await_answer(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers at an address, with any status."""

    def answers() -> bool:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return False
        return True

    wait_for_service(answers, server, log)


def add_user(database_url: str, name: str, role: str | None = None) -> None:
    """Add a user of a server with the password of all, or give that password to the user anew."""
    app = create_app(ServerSettings(database_url=database_url, secret_key="a key for no session"))
    with app.app_context():
        accounts.add_user(name, PASSWORD, role)
    app.extensions["cryotile"].database.engine.dispose()


class FarmServer:
    """``cryotile serve`` with a database and a user of its own; a context manager.

    Parameters
    ----------
    directory : Path
        Directory for its database, its key and its output.
    database_url : str
        Another database than SQLite in the directory.
    variables : str
        Environment variables of the server.

    Attributes
    ----------
    program : tuple of str
        Arguments of Python that make it the command line.
    address : str
        Address of the server.
    url : str
        The same with user and password.
    seed_url : str
        Address of the legacy API.
    """

    program = ("-m", "cryotile")

    def __init__(self, directory: Path, database_url: str = "", **variables: str) -> None:
        self._directory = directory
        self.database_url = database_url or f"sqlite:///{directory / 'farm.db'}"
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.url = f"http://{USER}:{quote(PASSWORD)}@127.0.0.1:{self.port}"
        self.seed_url = f"{self.address}/api/"
        self.environment = {**os.environ, "XDG_DATA_HOME": str(directory), **variables}
        self.environment.pop("CRYOTILE_SECRET_KEY", None)

    def __enter__(self) -> Self:
        add_user(self.database_url, USER)
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        log = self._directory / "serve.log"
        words = ("serve", "--port", str(self.port), "--database-url", self.database_url)
        with log.open("ab") as output:
            self.server = subprocess.Popen(
                [sys.executable, *self.program, *words],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A session of its own, so that all its processes can be killed at once.
                start_new_session=True,
            )
        await_answer(f"{self.address}/healthz", self.server, log)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to all processes of the server, and wait for the end of the first one."""
        if self.server.poll() is None:
            os.killpg(self.server.pid, number)
        self.server.wait(LIMIT)
