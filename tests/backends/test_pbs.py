"""Array jobs of PBS, with substitutes for its commands."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests.support.members import SmallRun, small_run
from tests.support.services.pbs import PBS, pbs

__all__ = ["pbs"]

WAIT = ("--", "-W", "block=true")


def submit_and_wait(small: SmallRun, pbs: PBS, members: int) -> str:
    """Submit the missing tiles, wait for the end of the job, and return the output of the command."""
    words = ("submit", "--scheduler", "pbs", "--members", members, *WAIT)
    command = small.cryotile(*words, environment=pbs.environment)
    said, complaint = command.communicate(timeout=240)
    assert command.returncode == 0, complaint
    return said


def test_a_member_that_is_killed_leaves_its_share_to_the_next_submission(
    pbs: PBS, tmp_path: Path
) -> None:
    small = small_run(tmp_path, '[ "$PBS_ARRAY_INDEX" = 1 ]')
    words = ("submit", "--scheduler", "pbs", "--members", 3, *WAIT)
    command = small.cryotile(*words, environment=pbs.environment)
    os.kill(small.held_member(command), signal.SIGKILL)
    said, complaint = command.communicate(timeout=240)
    assert command.returncode == 0, complaint
    assert f"{len(small.run.tasks)} tiles submitted as pbs job 1[].fake" in said
    there = small.tiles()
    assert len(small.run.tasks) / 2 < len(there) < len(small.run.tasks)
    assert all(there[name] == small.expected[name] for name in there)
    missing = len(small.run.tasks) - len(there)
    assert f"{missing} tiles submitted as pbs job 2[].fake" in submit_and_wait(small, pbs, 3)
    assert small.tiles() == small.expected


def test_one_member_is_not_an_array_and_knows_its_remaining_time(pbs: PBS, tmp_path: Path) -> None:
    ask = 'import os; from cryotile.backends.deadline import seconds_left; print("left", seconds_left(os.environ))'
    small = small_run(tmp_path, "false", shlex.join([sys.executable, "-c", ask]))
    assert "as pbs job 1.fake" in submit_and_wait(small, pbs, 1)
    assert small.tiles() == small.expected
    assert "left 900.0" in small.printed()


@pytest.mark.parametrize("option", ["-J", "-J0-5"])
def test_options_that_change_the_array_are_refused(pbs: PBS, tmp_path: Path, option: str) -> None:
    small = small_run(tmp_path, "false")
    words = ("submit", "--scheduler", "pbs", "--members", 3, "--", option)
    command = small.cryotile(*words, environment=pbs.environment)
    assert "use members" in command.communicate(timeout=240)[1]
    assert command.returncode == 2
