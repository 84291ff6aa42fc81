"""A task-farm server as users start it, that a test may kill and start again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

# How long it may take to start on a busy machine, seconds.
_LIMIT = 240.0

USER, PASSWORD = "user", "a secret of some length"


def free_port() -> int:
    """Find a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def await_answer(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers at an address, whatever it says."""
    end = time.monotonic() + _LIMIT
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            time.sleep(0.05)
            continue
        return
    raise RuntimeError(f"{server.args} does not answer at {address}:\n{log.read_text()}")


class FarmServer:
    """``cryotile serve`` in a directory of its own; a context manager.

    Parameters
    ----------
    directory : Path
        For its database, its key and what it prints.
    database_url : str
        Of another database than SQLite in the directory.

    Attributes
    ----------
    url : str
        Its address, with a user.
    seed_url : str
        Address of the seed's API.
    """

    def __init__(self, directory: Path, database_url: str = "") -> None:
        self._directory = directory
        self._database = database_url or f"sqlite:///{directory / 'farm.db'}"
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.url = f"http://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}"
        self.seed_url = f"{self.address}/api/"

    def __enter__(self) -> Self:
        added = self._command("user", "add", USER, "--password", PASSWORD)
        subprocess.run(added, env=self._environment, check=True, capture_output=True)
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self._directory / "serve.log"
        with log.open("ab") as output:
            self.server = subprocess.Popen(
                self._command("serve", "--port", self.port),
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                # So that all its processes can be killed at once.
                start_new_session=True,
            )
        await_answer(f"{self.address}/healthz", self.server, log)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send all its processes a signal, and wait until the first has ended."""
        if self.server.poll() is None:
            os.killpg(self.server.pid, number)
        self.server.wait(_LIMIT)

    def _command(self, *words: object) -> list[str]:
        options = ["--database-url", self._database]
        return [sys.executable, "-m", "cryotile", *map(str, words), *options]

    @property
    def _environment(self) -> dict[str, str]:
        place = {"XDG_DATA_HOME": str(self._directory), "PYTHONPATH": os.pathsep.join(sys.path)}
        return {**os.environ, **place}
