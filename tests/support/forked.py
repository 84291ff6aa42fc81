"""Processes that start at once: they are forked from one that has imported what they need, which takes seconds."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = get_context("forkserver")

# A fork keeps one thread; these modules start none that matters: those of OpenBLAS start anew.
_CONTEXT.set_forkserver_preload(
    ["tests.support.mortal", "tests.support.mortal_sql", "tests.support.pointdb_writer"]
)


def start(
    function: Callable[..., object], *arguments: object, output: Path = Path(os.devnull)
) -> ForkServerProcess:
    """Start a function of a module in a process of its own, whose output and complaints go to the end of a file."""
    process = _CONTEXT.Process(target=_run, args=(output, function, *arguments))
    process.start()
    return process


def _run(output: Path, function: Callable[..., object], *arguments: object) -> None:
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    function(*arguments)
