"""Job scripts: the resources they request, the command they start, the effect of user options."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import tomli_w

from cryotile.errors import CryotileError, DamagedFile, InvalidValue
from cryotile.farm.task import Outcome
from cryotile.pointdb import PointDB
from cryotile.runs.cost import VISITS_PER_SECOND
from cryotile.runs.run import Run, plan_run
from cryotile.runs.submit import Job, make_job, needs, submit, submitted_tasks
from tests.support.made_up import granule
from tests.support.members import SmallRun, small_run

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run in a directory whose name a shell would split."""
    db = PointDB.create(tmp_path / "ice.pdb", "EPSG:3031")
    db.append([granule(1, 2000, extent=20e3)])
    request = {"tile_size": 7, "where": "platform == 'cryosat2'"}
    return plan_run(tmp_path / "it's $HOME; a run", request, db=db)


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install an ``sbatch`` that accepts every job, and return the file where it notes arguments and directory."""
    directory = tmp_path / "bin"
    directory.mkdir()
    notes = tmp_path / "notes"
    (directory / "sbatch").write_text(
        f'#!/bin/sh\npwd >"{notes}"; echo "$@" >>"{notes}"\necho 4711\n'
    )
    (directory / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")
    return notes


def setup(run: Run, lines: object) -> None:
    """Add ``[submit] setup`` to run.toml, as a user does with an editor."""
    with (run.path / "run.toml").open("ab") as file:
        file.write(b"\n" + tomli_w.dumps({"submit": {"setup": lines}}).encode())


def arguments(job: Job, tmp_path: Path) -> list[str]:
    """Return the arguments that a shell parses from the last line of the script."""
    *lines, last = job.script.splitlines()
    show = f"{sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
    (tmp_path / "script").write_text("\n".join([*lines, last.replace("exec", show, 1)]))
    answer = subprocess.run(
        ["bash", tmp_path / "script"], capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout)


def fail(run: Run, index: int) -> None:
    """Record a failure of a tile."""
    list(run.record([Outcome(run.tasks[index], 1.0, 3, "here", "ValueError: no")]))


@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "sge"])
def test_a_script_runs_this_python_on_this_run_whatever_its_path(
    run: Run, tmp_path: Path, scheduler: str
) -> None:
    words = arguments(make_job(run, scheduler, members=4), tmp_path)
    program = [sys.executable, "-m", "cryotile", "run", str(run.path)]
    assert words == [*program, "--backend", "array", "--submission", "1"]
    assert arguments(make_job(run, scheduler, backend="dir", members=4), tmp_path) == [
        *program,
        "--backend",
        "dir",
    ]


def test_mpi_starts_the_requested_number_of_ranks(run: Run) -> None:
    scripts = {
        scheduler: make_job(run, scheduler, backend="mpi", members=8).script
        for scheduler in ("slurm", "pbs", "sge")
    }
    assert "#SBATCH --ntasks=8" in scripts["slurm"]
    assert 'exec mpirun -n "$SLURM_NTASKS" ' in scripts["slurm"]
    assert "#PBS -l select=8:ncpus=1:mpiprocs=1:mem=" in scripts["pbs"]
    assert "exec mpirun -n 8 " in scripts["pbs"]
    assert "#$ -pe mpi 8" in scripts["sge"]
    assert all("--backend mpi\n" in script for script in scripts.values())
    assert not any("array" in script for script in scripts.values())


def test_arrays_have_no_more_members_than_there_are_tiles(run: Run) -> None:
    count = len(run.tasks)
    assert f"#SBATCH --array=0-{count - 1}\n" in make_job(run, "slurm", members=10_000).script
    assert f"#$ -t 1-{count}\n" in make_job(run, "sge", members=10_000).script
    script = make_job(run, "pbs", members=10_000).script
    assert f"#PBS -J 0-{count - 1}\n" in script
    assert f"export CRYOTILE_ARRAY=0-{count - 1}\n" in script


def test_pbs_has_no_array_of_one(run: Run) -> None:
    script = make_job(run, "pbs", members=1).script
    assert "-J" not in script
    assert "--backend index:0/1" in script
    assert "#SBATCH --array=0-0\n" in make_job(run, "slurm", members=1).script


def test_time_and_memory_follow_from_the_plan(run: Run) -> None:
    run.table["cost"] = VISITS_PER_SECOND * 3600.0
    run.table["points"] = 4_000_000
    count = len(run.tasks)
    # An hour of one core for each tile.
    one = needs(run, run.tasks, count)
    assert one.seconds == pytest.approx(2 * 3600 + 600, abs=300)
    assert one.seconds % 300 == 0
    assert needs(run, run.tasks, 2).seconds == pytest.approx(2 * 3600 * count / 2 + 600, abs=300)
    # The costliest tile sets the least time, however many members there are.
    assert needs(run, run.tasks[:1], 1000).clock == "2:10:00"
    # One and a half times 290 MB and 250 bytes for each of 4 million points, and 300 MB, in steps of 100 MB.
    assert one.megabytes == 2300


def test_setup_lines_precede_the_command(run: Run) -> None:
    setup(run, ["module load python", 'source "my env/bin/activate"'])
    lines = make_job(Run.load(run.path), "slurm", members=2).script.splitlines()
    assert lines[-3:-1] == ["module load python", 'source "my env/bin/activate"']
    assert lines[-1].startswith("exec ")


@pytest.mark.parametrize("lines", ["module load python", [1], {"a": "b"}])
def test_setup_that_is_not_a_list_of_lines_is_refused(run: Run, lines: object) -> None:
    setup(run, lines)
    with pytest.raises(DamagedFile, match=r"not a list of lines; write e\.g\. setup = "):
        make_job(run, "slurm", members=2)


def test_a_submit_that_is_not_a_table_is_refused(run: Run) -> None:
    file = run.path / "run.toml"
    file.write_text('submit = "module load python"\n' + file.read_text())
    with pytest.raises(DamagedFile, match=r"'module load python', not a list of lines"):
        make_job(Run.load(run.path), "slurm", members=2)


def test_user_options_take_precedence(run: Run) -> None:
    job = make_job(run, "slurm", members=2, options=["--mem=4G", "--time=1:00"])
    assert job.command == ("sbatch", "--parsable", "--mem=4G", "--time=1:00")
    assert "--mem-per-cpu" not in job.script
    pbs = make_job(run, "pbs", members=2, options=["-l", "walltime=1:00", "-l", "nodes=1:ppn=1"])
    assert "-l " not in pbs.script
    sge = make_job(run, "sge", backend="mpi", members=2, options=["-pe", "orte", "4"])
    assert "-pe" not in sge.script


@pytest.mark.parametrize(
    ("scheduler", "backend", "options", "kept"),
    [
        ("sge", "mpi", ["-q", "long-perf.q"], "-pe mpi 2"),
        ("slurm", "array", ["--mem-bind=local"], "--mem-per-cpu"),
        ("pbs", "array", ["-l", "pmem=3gb"], "select=1:ncpus=1:mem="),
    ],
)
def test_a_different_option_with_the_same_prefix_replaces_nothing(
    run: Run, scheduler: str, backend: str, options: list[str], kept: str
) -> None:
    assert kept in make_job(run, scheduler, backend=backend, members=2, options=options).script


def test_an_interrupted_submission_keeps_the_task_list_for_its_members(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    job = make_job(run, "slurm", members=2)
    with pytest.raises(KeyboardInterrupt):
        submit(job)
    assert submitted_tasks(run, 1) == list(job.tasks)


def test_failed_tasks_are_not_submitted(run: Run, sbatch: Path) -> None:
    fail(run, 3)
    submit(make_job(run, "slurm", members=2))
    assert [task.index for task in submitted_tasks(run, 1)] == [
        task.index for task in run.tasks if task.index != 3
    ]
    for task in run.tasks:
        fail(run, task.index)
    with pytest.raises(CryotileError, match=r"no tile to do.*retry"):
        make_job(run, "slurm", members=2)


def test_submissions_are_numbered_and_keep_their_script_and_list(run: Run, sbatch: Path) -> None:
    for number in (1, 2):
        job = make_job(run, "slurm", members=2, options=["--account=ice"])
        assert submit(job) == "4711"
        assert sbatch.read_text() == f"{job.directory}\n--parsable --account=ice job.sh\n"
        assert job.directory == run.path / "jobs" / f"{number:04d}"
        assert (job.directory / "job.sh").read_text() == job.script
        assert f"--submission {number}\n" in job.script
        assert submitted_tasks(run, number) == list(run.tasks)


def test_other_files_beside_the_submissions_do_no_harm(run: Run, sbatch: Path) -> None:
    submit(make_job(run, "slurm", members=2))
    (run.path / "jobs" / "0001").rename(run.path / "jobs" / "0001.old")
    assert make_job(run, "slurm", members=2).directory == run.path / "jobs" / "0001"


def test_a_job_has_its_id_whatever_the_encoding_of_the_scheduler_s_message(
    run: Run, sbatch: Path
) -> None:
    script = sbatch.parent / "bin" / "sbatch"
    script.write_text("#!/bin/sh\nprintf 'gr\\374n\\n' >&2; echo 4711\n")
    assert submit(make_job(run, "slurm", members=2)) == "4711"


def test_two_submissions_at_once_do_not_share_a_number(run: Run, sbatch: Path) -> None:
    first, second = (make_job(run, "slurm", members=2) for _ in range(2))
    submit(first)
    with pytest.raises(CryotileError, match="just now; look at its job"):
        submit(second)
    assert submitted_tasks(run, 1) == list(first.tasks)


def test_a_rejected_submission_leaves_no_files(
    run: Run, sbatch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = sbatch.parent / "bin" / "sbatch"
    script.write_text("#!/bin/sh\necho 'sbatch: error: invalid account' >&2; exit 1\n")
    with pytest.raises(CryotileError, match=r"rejected the job.*invalid account") as caught:
        submit(make_job(run, "slurm", members=2))
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CryotileError, match=r"sbatch is not on the PATH.*dry run"):
        submit(make_job(run, "slurm", members=2))
    assert list((run.path / "jobs").iterdir()) == []


def test_a_submission_of_another_task_list_is_refused(run: Run, sbatch: Path) -> None:
    submit(make_job(run, "slurm", members=2))
    PointDB(run.db_path).append([granule(7, 2000, extent=20e3)])
    again = plan_run(run.path, {})
    with pytest.raises(InvalidValue, match=r"task list 1, but .* task list 2; submit again"):
        submitted_tasks(again, 1)
    with pytest.raises(InvalidValue, match="has no submission 9"):
        submitted_tasks(again, 9)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ({"scheduler": "cron"}, "choose one of slurm, pbs, sge"),
        ({"backend": "local"}, "choose one of array, dir, http, mpi"),
        ({"members": 0}, "ask for 1 or more"),
    ],
)
def test_an_invalid_submission_is_refused(run: Run, words: dict[str, object], rule: str) -> None:
    values = {"scheduler": "slurm", "backend": "array", "members": 2} | words
    with pytest.raises(InvalidValue, match=rule):
        make_job(
            run,
            str(values["scheduler"]),
            backend=str(values["backend"]),
            members=int(str(values["members"])),
        )


# --- the commands -----------------------------------------------------------------------------------------------


def test_a_dry_run_shows_the_script_and_writes_nothing(call: Call, tmp_path: Path) -> None:
    small = small_run(tmp_path, "false")
    words = ("--scheduler", "slurm", "--members", 3, "--dry-run", "--", "-A", "my ice")
    code, said, _ = call("submit", small.run.path, *words)
    assert code == 0
    assert said.startswith("#!/bin/bash -l\n#SBATCH --job-name=ice-small-run\n")
    assert said.splitlines()[-1].startswith("# submitted by: sbatch --parsable -A 'my ice' job.sh")
    assert not (small.run.path / "jobs").exists()


def test_every_member_exits_0_if_its_own_share_is_complete(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryotile.backends.array.usable_cores", lambda: 1)
    small = small_run(tmp_path, "false")
    fail(small.run, 0)
    codes = {}
    for member in range(2):
        code, said, complaint = call("run", small.run.path, "--backend", f"index:{member}/2")
        codes[member] = code
        assert ("tiles are there" in said) == (code == 0)
        assert ("1 of " in complaint and "failed" in complaint) == (code == 1)
    # Only the member whose tile failed reports it.
    assert sorted(codes.values()) == [0, 1]
    assert len(small.tiles()) == len(small.run.tasks) - 1


def start_and_hold(small: SmallRun, grace: str) -> subprocess.Popen[str]:
    held = small.hold.variables
    command = small.cryotile("run", "--backend", "local:1", CRYOTILE_GRACE=grace, **held)
    assert small.held_member(command) == command.pid
    return command


def test_a_terminated_run_drains_and_returns_143(tmp_path: Path) -> None:
    small = small_run(tmp_path, "false")
    command = start_and_hold(small, "0.5")
    command.send_signal(signal.SIGTERM)
    complaint = command.communicate(timeout=240)[1]
    assert command.returncode == 143
    assert complaint.count("\n") == 1
    assert f"{len(small.run.tasks) - 1} tasks left" in complaint
    assert not small.run.failed()
    assert len(small.tiles()) == 1


def test_a_second_signal_ends_the_grace(tmp_path: Path) -> None:
    small = small_run(tmp_path, "false")
    command = start_and_hold(small, "3600")
    asked = 0
    while command.poll() is None:
        command.send_signal(signal.SIGTERM)
        asked += 1
        # Signals in quick succession merge into one.
        with suppress(subprocess.TimeoutExpired):
            command.wait(1.0)
    command.communicate()
    assert command.returncode == 143
    assert asked >= 2
