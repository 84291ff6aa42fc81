"""Array jobs on a real Grid Engine: a member is killed, and missing tiles are submitted again."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from tests.support import command_line
from tests.support.members import small_run
from tests.support.services.gridengine import GridEngine
from tests.support.waiting import wait_until

MEMBERS = ("--scheduler", "sge", "--members", 3)
# mem_free: a small machine may have less than the plan requests.
WAIT = ("--", "-sync", "y", "-l", "mem_free=1M")


def test_a_member_that_is_killed_leaves_its_share_to_the_next_submission(
    grid_engine: GridEngine, tmp_path: Path
) -> None:
    small = small_run(tmp_path, '[ "$SGE_TASK_ID" = 2 ]')
    command = small.cryotile("submit", *MEMBERS, *WAIT, environment=grid_engine.environment)
    os.kill(small.held_member(command), signal.SIGKILL)
    said, complaint = command.communicate(timeout=240)
    assert command.returncode == 0, complaint
    assert f"{len(small.run.tasks)} tiles submitted as sge job" in said
    there = small.tiles()
    assert len(small.run.tasks) / 2 < len(there) < len(small.run.tasks)
    assert all(there[name] == small.expected[name] for name in there)

    again = small.cryotile("submit", *MEMBERS, *WAIT, environment=grid_engine.environment)
    said, complaint = again.communicate(timeout=240)
    assert again.returncode == 0, complaint
    assert f"{len(small.run.tasks) - len(there)} tiles submitted" in said
    assert small.tiles() == small.expected


def test_a_job_that_is_not_an_array_is_no_member_and_knows_its_remaining_time(
    grid_engine: GridEngine, tmp_path: Path
) -> None:
    python = shlex.quote(sys.executable)
    small = small_run(tmp_path, "false")
    ask = "import os; from cryotile.backends.deadline import seconds_left; print(seconds_left(os.environ))"
    script = tmp_path / "script.sh"
    source = Path(sys.modules["cryotile"].__file__ or "").parent.parent
    script.write_text(
        f"export PYTHONPATH={source}\n{python} -c '{ask}'\n"
        f"{python} -m cryotile run {shlex.quote(str(small.run.path))} --backend array; echo $?\n"
    )
    limit = ["-l", "h_rt=0:10:00"]
    command = ["qsub", "-S", "/bin/bash", "-j", "y", "-o", str(tmp_path / "said"), "-sync", "y"]
    subprocess.run(
        [*command, *limit, str(script)], env=grid_engine.environment, check=True, timeout=240
    )
    left, complaint, code = (tmp_path / "said").read_text().splitlines()
    assert float(left) == 600.0
    assert "this process is not in one" in complaint
    assert code == "2"


def test_jobs_in_error_are_named_and_others_do_the_work(
    grid_engine: GridEngine, tmp_path: Path
) -> None:
    small = small_run(tmp_path, "false")

    def grow(*words: str) -> str:
        words = ("--scheduler", "sge", "--every", "0.5", *words, "-l", "mem_free=1M")
        done = command_line.run(
            "farm", "grow", small.run.path, *words, environment=grid_engine.environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # Grid Engine cannot create the output: each job gets into the state Eqw when it starts.
    broken = ("--workers", "2..2", "--once", "--", "-o", "/no/such/directory/")
    assert "0 workers in the queue, 2 added" in grow(*broken)
    wait_until(
        lambda: grid_engine.call("qstat", "-g", "d").count(" Eqw ") == 2,
        lambda: "no job is in error",
    )
    said = grow(*broken)
    assert said.startswith("2 workers in the queue are held or in error, and are not counted")
    assert "added" not in said
    assert "0 workers in the queue, 2 added" in grow("--workers", "2..4", "--")
    assert small.tiles() == small.expected
    # Those in error were cancelled with the rest.
    wait_until(lambda: " Eqw " not in grid_engine.call("qstat"), lambda: "jobs in error stay")
