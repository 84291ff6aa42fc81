"""Programs that tests need: installed if they are missing, which needs root on Debian."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

# Debian's directories of daemons may be missing in the PATH of a user.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def unavailable(reason: str) -> NoReturn:
    """Skip the test; fail it if every test must run (``CI=true``)."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def exclusively(directory: Path) -> Iterator[None]:
    """Hold a lock beside a directory, so that test processes install into it one after another."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def provide(programs: Sequence[str], packages: Sequence[str]) -> dict[str, str]:
    """Return the paths of programs, and install Debian packages first if one is missing.

    Returns
    -------
    dict
        Program → path.
    """
    if _missing(programs):
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            unavailable(f"{', '.join(_missing(programs))}: missing, and this is not root on Debian")
        said = apt("update") + apt("install", "--yes", "--no-install-recommends", *packages)
        if missing := _missing(programs):
            unavailable(f"{', '.join(missing)}: missing after apt-get install:\n{said}")
    return {program: str(shutil.which(program, path=SEARCH)) for program in programs}


def _missing(programs: Sequence[str]) -> list[str]:
    return [program for program in programs if shutil.which(program, path=SEARCH) is None]


def apt(*words: str) -> str:
    """Run apt-get, and return its errors; wait for the lock of another test session that is installing."""
    patience = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=5"]
    command = ["apt-get", "-q", *patience, *words]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=quiet, capture_output=True, text=True, check=False).stderr
