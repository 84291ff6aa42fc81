"""Ports of the loopback interface."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

# Limit for a start on a busy machine, seconds.
_LIMIT = 240.0


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a process accepts connections at a port."""
    end = time.monotonic() + _LIMIT
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                return
        # A daemon offers no event to wait for.
        time.sleep(0.02)
    said = log.read_text() if log.exists() else ""
    raise RuntimeError(f"{process.args} does not accept connections at port {port}:\n{said}")
