"""Job scripts for schedulers: made from a run and what is missing of it, and submitted.

A submission is a directory of the run::

    run/jobs/0001/
      job.sh        the script
      tasks.json    for array jobs: the tasks that were missing when it was made, which its members deal
      …             what its members print

The frozen list of tasks is what makes the next submission cover only what is missing: members that start hours apart
find more or less done, and would otherwise deal different lists.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryotile.errors import CryotileError, DamagedFile, InvalidValue
from cryotile.farm.task import Task
from cryotile.files import make_directory, read_sealed, write_sealed, write_text, writing
from cryotile.runs.schedulers import SCHEDULERS, Scheduler
from cryotile.runs.tasklist import TaskList

__all__ = ["BACKENDS", "Job", "Needs", "make_job", "needs", "submit", "submitted_tasks"]

BACKENDS = ("array", "dir", "mpi")
"""Backends that make sense in a job of several members."""

TIME_MARGIN = 2.0
"""The plan's estimate is good to a factor of two."""

SPARE_SECONDS = 600.0
"""For start-up on a busy file system, and for leaving in good order."""

MEMORY_MARGIN = 1.5
"""The fullest tile may take so much more than its estimate."""

SPARE_BYTES = 300e6
"""For the process that supervises the worker."""


@dataclass(frozen=True)
class Needs:
    """What each member of a job asks for.

    Attributes
    ----------
    seconds : int
        Time, a multiple of five minutes.
    megabytes : int
        Memory for each core, a multiple of 100.
    """

    seconds: int
    megabytes: int

    @property
    def clock(self) -> str:
        """The time as all schedulers read it: hours:minutes:seconds."""
        return f"{self.seconds // 3600}:{self.seconds // 60 % 60:02d}:00"


def needs(run: TaskList, tasks: Sequence[Task], workers: int) -> Needs:
    """Work out what to ask for, so that each of ``workers`` cores gets through its part of the tasks.

    Twice the expected time of a fair share, or of the costliest tile where that is longer, and ten minutes; one and
    a half times the expected memory of the fullest tile, and 300 MB.

    Parameters
    ----------
    run : TaskList
        Gives the estimates.
    tasks : sequence of Task
        What is to be done, costliest first; at least one.
    workers : int
        Cores that work on it.

    Returns
    -------
    Needs
    """
    whole, costliest = run.estimate(tasks), run.estimate(tasks[:1])
    hours = max(whole.core_hours / workers, costliest.core_hours)
    seconds = TIME_MARGIN * 3600 * hours + SPARE_SECONDS
    megabytes = (MEMORY_MARGIN * whole.peak_bytes + SPARE_BYTES) / 1e6
    return Needs(300 * math.ceil(seconds / 300), 100 * math.ceil(megabytes / 100))


@dataclass(frozen=True)
class Job:
    """A job that is ready to be submitted.

    Attributes
    ----------
    script : str
        Text of the job script.
    command : tuple of str
        Submits the script when its name is appended, and prints the job's id.
    directory : Path
        Of the submission; where the script and the list of tasks go, and what members print.
    generation : int
        The task list that ``tasks`` are of.
    tasks : tuple of Task
        What is to be done.
    """

    script: str
    command: tuple[str, ...]
    directory: Path
    generation: int
    tasks: tuple[Task, ...]


def make_job(
    run: TaskList,
    scheduler: str,
    *,
    backend: str = "array",
    members: int,
    options: Sequence[str] = (),
) -> Job:
    """Make the job that does what is missing of a run; nothing is written yet.

    Parameters
    ----------
    run : TaskList
        A run or an ingest; the lines ``[submit] setup`` in its ``run.toml`` or ``ingest.toml`` go into the script
        before the work.
    scheduler : str
        ``slurm``, ``pbs`` or ``sge``.
    backend : str
        ``array``, ``dir`` or ``mpi``.
    members : int
        Members of the array, or MPI ranks; no more are asked for than have something to do.
    options : sequence of str
        Options for the scheduler's command; where they differ from the script's they win.

    Returns
    -------
    Job

    Raises
    ------
    InvalidValue
        A value breaks its rule.
    CryotileError
        Nothing is missing.
    """
    dialect = _checked(scheduler, backend, members, options)
    tasks = tuple(run.pending())
    if not tasks:
        raise CryotileError(
            f"{run.path} has no {run.noun} to do: all are there or failed; 'cryotile status {run.path}' says which, "
            f"and 'cryotile retry {run.path}' puts failed ones back"
        )
    # Of MPI ranks the first hands out and does no task.
    master = backend == "mpi" and members > 1
    workers = min(members - master, len(tasks))
    shape = (
        "mpi" if backend == "mpi" else "array" if workers >= dialect.smallest_array else "single"
    )
    values = _values(run, workers, workers + master, needs(run, tasks, workers))
    directory = _directory(run, max(_numbers(run), default=0) + 1)
    lines = [
        "#!/bin/bash -l",
        *dialect.header(shape, values, options),
        "# One process a core does the work; libraries need no threads of their own.",
        "export OMP_NUM_THREADS=1",
        *dialect.exports(shape, values),
        *_setup(run),
        f"exec {dialect.launch(shape, values)}{_program(run, backend, shape, directory)}",
    ]
    return Job(
        script="\n".join(lines) + "\n",
        command=(*dialect.command, *options),
        directory=directory,
        generation=run.generation,
        tasks=tasks,
    )


def submit(job: Job) -> str:
    """Write a job's script and list of tasks and give them to the scheduler.

    Parameters
    ----------
    job : Job
        The job.

    Returns
    -------
    str
        The id that the scheduler gave it.

    Raises
    ------
    CryotileError
        The scheduler is not there, or does not take the job; or somebody else submitted at the same moment.
    """
    make_directory(job.directory.parent)
    try:
        with writing(job.directory):
            # Whoever makes the directory has the number.
            job.directory.mkdir()
    except CryotileError as error:
        if not isinstance(error.__cause__, FileExistsError):
            raise
        raise CryotileError(
            f"{job.directory} was made by another 'cryotile submit' just now; look at its job before you submit again"
        ) from error
    try:
        write_sealed(
            job.directory / "tasks.json",
            {"generation": job.generation, "tasks": [task.index for task in job.tasks]},
        )
        write_text(job.directory / "job.sh", job.script)
        return _hand_over(job)
    except CryotileError:
        # The scheduler did not take it: the next submission has the number.  Of any other end that is not known, and a
        # member that is to come will look for its tasks here.
        shutil.rmtree(job.directory, ignore_errors=True)
        raise


def submitted_tasks(run: TaskList, number: int) -> list[Task]:
    """Return the tasks that a submission froze.

    Parameters
    ----------
    run : TaskList
        The run.
    number : int
        Of the submission, counted from 1.

    Returns
    -------
    list of Task
        Costliest first.

    Raises
    ------
    InvalidValue
        There is no such submission, or the run was planned again since.
    DamagedFile
        Its list is not what was written.
    """
    path = _directory(run, number) / "tasks.json"
    try:
        frozen = read_sealed(path)
    except FileNotFoundError:
        raise InvalidValue(
            f"{run.path} has no submission {number}; leave it out, or make one with 'cryotile submit'"
        ) from None
    if frozen["generation"] != run.generation:
        raise InvalidValue(
            f"submission {number} is of task list {frozen['generation']}, but {run.path} was planned again and has "
            f"task list {run.generation}; submit again"
        )
    return [run.tasks[index] for index in frozen["tasks"]]


def _checked(scheduler: str, backend: str, members: int, options: Sequence[str]) -> Scheduler:
    if scheduler not in SCHEDULERS:
        raise InvalidValue(
            f"scheduler {scheduler!r} is unknown; choose one of {', '.join(SCHEDULERS)}"
        )
    if backend not in BACKENDS:
        raise InvalidValue(
            f"backend {backend!r} cannot be submitted; choose one of {', '.join(BACKENDS)}"
        )
    if members < 1:
        raise InvalidValue(f"{members} members can do nothing; ask for 1 or more")
    dialect = SCHEDULERS[scheduler]
    fixed = [option for option in options if option.startswith(dialect.fixed)]
    if fixed:
        raise InvalidValue(
            f"option {fixed[0]} says how large the array is, which its members must know, too; use --members"
        )
    return dialect


def _values(run: TaskList, workers: int, members: int, asked: Needs) -> dict[str, object]:
    """Return what schedulers' texts are filled in with."""
    return {
        "members": members,
        "last": workers - 1,
        "clock": asked.clock,
        "megabytes": asked.megabytes,
        # PBS takes 15 characters, Grid Engine no digit in front.
        "name": re.sub(r"[^A-Za-z0-9_-]", "-", f"ice-{run.path.resolve().name}")[:15],
    }


def _program(run: TaskList, backend: str, shape: str, directory: Path) -> str:
    """Command line of one member."""
    words = [sys.executable, "-m", "cryotile", "run", str(run.path.resolve())]
    if backend == "array":
        spec = "array" if shape == "array" else "index:0/1"
        words += ["--backend", spec, "--submission", str(int(directory.name))]
    else:
        words += ["--backend", backend]
    return shlex.join(words)


def _setup(run: TaskList) -> list[str]:
    """Lines that a user put into ``run.toml``: modules to load, an environment to activate."""
    path = run.path / run.file_name
    table = tomllib.loads(path.read_text(encoding="utf-8")).get("submit", {})
    lines = table.get("setup", [])
    if not (isinstance(lines, list) and all(isinstance(line, str) for line in lines)):
        raise DamagedFile(
            f'[submit] setup in {path} is {lines!r}, not a list of lines; write e.g. setup = ["module load python"]'
        )
    return lines


def _directory(run: TaskList, number: int) -> Path:
    return run.path.resolve() / "jobs" / f"{number:04d}"


def _numbers(run: TaskList) -> list[int]:
    return [int(entry.name) for entry in (run.path / "jobs").glob("[0-9]*")]


def _hand_over(job: Job) -> str:
    """Give the script to the scheduler and return the id it prints."""
    program = job.command[0]
    try:
        # From its directory: there the scheduler puts what members print, whatever its path looks like.
        answer = subprocess.run(
            [*job.command, "job.sh"],
            cwd=job.directory,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise CryotileError(
            f"{program} is not on the PATH; submit on a host of the cluster, or see the script with --dry-run"
        ) from None
    # An id begins with a digit.  Told to wait for the job, a scheduler also says and returns how that ended.
    said = [line for line in answer.stdout.splitlines() if line[:1].isdecimal()]
    if not said:
        complaint = (answer.stderr or answer.stdout).strip().replace(
            "\n", "; "
        ) or "it says nothing"
        raise CryotileError(
            f"{program} did not take the job ({complaint}); correct the options behind --, or [submit] setup"
        )
    return said[0]
