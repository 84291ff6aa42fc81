"""Processes that start at once: they are forked from one that has imported what they need, which takes seconds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

_CONTEXT = get_context("forkserver")

# A fork keeps one thread; these modules start none that matters: those of OpenBLAS start anew.
_CONTEXT.set_forkserver_preload(
    ["tests.support.mortal", "tests.support.mortal_sql", "tests.support.pointdb_writer"]
)


# multiprocessing reads the exit code of a process once, and loses it if two threads look at the same moment.
_LOCK = threading.Lock()


def start(
    function: Callable[..., object], *arguments: object, output: Path = Path(os.devnull)
) -> ForkServerProcess:
    """Start a function of a module in a process of its own, whose output and complaints go to the end of a file."""
    process = _CONTEXT.Process(target=_run, args=(output, function, *arguments))
    with _LOCK:
        process.start()
    return process


def exit_code(process: ForkServerProcess, moment: float | None = None) -> int | None:
    """Wait for the end of a process, and kill it if it has not ended after ``moment`` seconds; return its exit code."""
    if not wait([process.sentinel], moment):
        process.kill()
        wait([process.sentinel])
    with _LOCK:
        process.join()
        return process.exitcode


def barrier(parties: int) -> Barrier:
    """Return a barrier that a number of such processes reach together."""
    return _CONTEXT.Barrier(parties)


def _run(output: Path, function: Callable[..., object], *arguments: object) -> None:
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    function(*arguments)
