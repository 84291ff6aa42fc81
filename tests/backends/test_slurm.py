"""Array jobs on a real Slurm: members are killed and stopped, and missing tiles are submitted again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tests.support.members import SmallRun, small_run
from tests.support.services.slurm import Slurm

MEMBERS = ("--scheduler", "slurm", "--members", 3)
HOLD_SECOND = '[ "$SLURM_ARRAY_TASK_ID" = 1 ]'


def submit_and_wait(small: SmallRun, slurm: Slurm) -> str:
    """Submit the missing tiles, wait for the end of the job, and return the output of the command."""
    command = small.cryotile("submit", *MEMBERS, "--", "--wait", environment=slurm.environment)
    said, complaint = command.communicate(timeout=240)
    assert command.returncode == 0, complaint
    return said


@pytest.mark.parametrize("end", ["--signal=KILL", "--signal=TERM"])
def test_a_member_that_is_ended_leaves_its_share_to_the_next_submission(
    slurm: Slurm, tmp_path: Path, end: str
) -> None:
    small = small_run(tmp_path, HOLD_SECOND, "export CRYOTILE_GRACE=0.5")
    command = small.cryotile("submit", *MEMBERS, "--", "--wait", environment=slurm.environment)
    small.held_member(command)
    # A job of another test may still be completing.
    (job,) = set(slurm.call("squeue", "-h", "-t", "RUNNING,PENDING", "-o", "%F").split())
    slurm.call("scancel", "--full", end, f"{job}_1")
    said, complaint = command.communicate(timeout=240)
    assert command.returncode == 0, complaint
    assert f"{len(small.run.tasks)} tiles submitted as slurm job {job}" in said

    # Two shares are complete, and the third has the one tile that was done; no tile is damaged and none has failed.
    there = small.tiles()
    assert len(small.run.tasks) / 2 < len(there) < len(small.run.tasks)
    assert all(there[name] == small.expected[name] for name in there)
    assert not small.run.failed()
    if end == "--signal=TERM":
        assert "stopped by SIGTERM" in small.printed()

    missing = len(small.run.tasks) - len(there)
    assert f"{missing} tiles submitted" in submit_and_wait(small, slurm)
    assert small.tiles() == small.expected
    # The second submission divided the missing tiles among all its members.
    second = (small.run.path / "jobs" / "0002").glob("*.out")
    assert len(list(second)) == 3


def test_a_member_knows_the_remaining_time_of_its_job(slurm: Slurm, tmp_path: Path) -> None:
    ask = 'import os; from cryotile.backends.deadline import seconds_left; print("left", seconds_left(os.environ))'
    small = small_run(tmp_path, "false", shlex.join([sys.executable, "-c", ask]))
    submit_and_wait(small, slurm)
    assert small.tiles() == small.expected
    left = [
        float(line.split()[1]) for line in small.printed().splitlines() if line.startswith("left")
    ]
    assert len(left) == 3
    assert all(0.0 < seconds <= 900.0 for seconds in left)


def test_members_host_the_server_of_their_farm_themselves(slurm: Slurm, tmp_path: Path) -> None:
    small = small_run(tmp_path, "false")
    words = ("--scheduler", "slurm", "--members", 2, "--backend", "http", "--", "--wait")
    command = small.cryotile("submit", *words, environment=slurm.environment)
    _, complaint = command.communicate(timeout=240)
    assert command.returncode == 0, complaint
    assert small.tiles() == small.expected
    # Both were told where the server is, by whoever hosts it.
    assert small.printed().count("the server of") >= 2
