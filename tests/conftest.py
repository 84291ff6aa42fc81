"""What every test may use: the real granules that stand beside the project, and the command line."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from cryotile.cli import main
from tests.support import PROJECT
from tests.support.command_line import Call, Cryotile
from tests.support.services.gridengine import grid_engine
from tests.support.services.mpi import debian_openmpi, mpich, openmpi
from tests.support.services.postgres import postgres
from tests.support.services.slurm import slurm

# A service that tests of several files use is imported here alone: each import starts one of its own.
__all__ = ["debian_openmpi", "grid_engine", "mpich", "openmpi", "postgres", "slurm"]

# Processes that tests start find the modules of the tests, and, in any directory, what this process finds.
_GIVEN = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
os.environ["PYTHONPATH"] = os.pathsep.join([str(PROJECT), *map(os.path.abspath, _GIVEN)])

# So that a broken contract is explained like any other failed assertion.
pytest.register_assert_rewrite("cryotile.testing")

# A shell makes the commands that it starts in the background ignore SIGINT, and processes inherit that: processes that
# tests interrupt would never notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Processes die in tests, and machines do not: waiting for the disk would take half of the time of some folders.
os.fsync = lambda descriptor: None

# Hypothesis draws the same examples everywhere, and does not hold it against one that the machine is busy.
settings.load_profile("ci")


@pytest.fixture(scope="session")
def granules() -> Path:
    """Directory of real granules: ``$CRYOTILE_GRANULES``, else ``../shared/granules`` beside the project."""
    directory = Path(os.environ.get("CRYOTILE_GRANULES", PROJECT.parent / "shared" / "granules"))
    if not directory.is_dir():
        message = f"no real granules at {directory}: set CRYOTILE_GRANULES to their directory"
        if os.environ.get("CRYOTILE_WITHOUT_GRANULES"):
            pytest.skip(message)
        pytest.fail(message)
    return directory


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process and return its exit code, output and complaints."""

    def cryotile(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cryotile", *map(str, words)])
        with pytest.raises(SystemExit) as leaving:
            main()
        said = capsys.readouterr()
        return int(leaving.value.code or 0), said.out, said.err

    return cryotile


@pytest.fixture
def cryotile(call: Call) -> Cryotile:
    """Run a command in this process, check its exit code (``status``, default 0), and return what it printed."""

    def cryotile(*words: object, status: int = 0) -> str:
        code, output, errors = call(*words)
        assert code == status, output + errors
        return output + errors

    return cryotile
