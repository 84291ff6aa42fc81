"""The command line and Python in processes of their own, which find what this process finds (tests/conftest.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

Call = Callable[..., tuple[int, str, str]]
"""The fixture ``call``: runs a command and returns its exit code, output and complaints."""

Cryotile = Callable[..., str]
"""The fixture ``cryotile``: runs a command, checks its exit code, and returns what it printed."""

LIMIT = 240.0
"""Limit for a command on a busy machine, seconds."""


def start(
    *words: object, environment: Mapping[str, str] | None = None, **variables: str
) -> subprocess.Popen[str]:
    """Start ``cryotile`` with words in an environment, this process's by default, with variables added."""
    return subprocess.Popen(
        [sys.executable, "-m", "cryotile", *map(str, words)],
        env={**(os.environ if environment is None else environment), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    *words: object, environment: Mapping[str, str] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``cryotile`` as :func:`start` starts it, and wait for its end."""
    with start(*words, environment=environment, **variables) as process:
        try:
            output, errors = process.communicate(timeout=LIMIT)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def output_of(*words: object, **variables: str) -> str:
    """Run ``cryotile``, check that it succeeds, and return its output."""
    done = run(*words, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_python(*words: object, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python in a directory, whose modules it finds first."""
    path = [str(directory)] if directory is not None else []
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*path, os.environ["PYTHONPATH"]])},
        capture_output=True,
        text=True,
        check=False,
    )
