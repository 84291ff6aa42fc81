"""Wait for what offers no event."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

LIMIT = 240.0
"""Limit for a start or an end on a busy machine, seconds."""


def wait_until(condition: Callable[[], bool], complaint: Callable[[], str]) -> None:
    """Ask again and again until a condition holds; raise TimeoutError with a complaint at the limit."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{complaint()} after {LIMIT:g} s")
        time.sleep(0.02)


def wait_for_service(
    answers: Callable[[], bool], process: subprocess.Popen[bytes], log: Path
) -> None:
    """Wait until a process serves; raise RuntimeError with its log if it ends before."""

    def said() -> str:
        return f"{process.args} does not serve:\n{log.read_text() if log.exists() else ''}"

    def settled() -> bool:
        if process.poll() is not None:
            raise RuntimeError(said())
        return answers()

    wait_until(settled, said)
