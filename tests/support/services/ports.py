"""Ports of the loopback interface."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from tests.support.waiting import wait_for_service


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a process accepts connections at a port."""

    def accepts() -> bool:
        with socket.socket() as knock:
            return knock.connect_ex(("127.0.0.1", port)) == 0

    wait_for_service(accepts, process, log)
