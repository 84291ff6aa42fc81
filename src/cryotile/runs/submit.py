"""Job scripts for schedulers: make one for the missing tasks of a run, and submit it.

A submission is a directory of the run::

    run/jobs/0001/
      job.sh        the script
      tasks.json    for array jobs: the tasks that were missing when it was made, which its members share
      …             output of its members

The list of tasks is frozen, because members that start hours apart find different tasks missing and would otherwise
share different lists.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryotile.errors import CryotileError, DamagedFile, InvalidValue, command
from cryotile.farm.task import Task
from cryotile.files import make_directory, read_sealed, write_sealed, write_text, writing
from cryotile.runs.tasklist import TaskList

__all__ = [
    "BACKENDS",
    "SCHEDULERS",
    "Job",
    "Needs",
    "make_job",
    "needs",
    "submit",
    "submitted_tasks",
    "walltime",
]

BACKENDS = ("array", "dir", "http", "mpi")
"""Backends that make sense in a job of several members."""

TIME_MARGIN = 2.0
"""Factor over the estimated time, which is good to a factor of two."""

SPARE_SECONDS = 600.0
"""Seconds for the start on a busy file system, and for an orderly end."""

MEMORY_MARGIN = 1.5
"""Factor over the estimated memory of the fullest tile."""

SPARE_BYTES = 300e6
"""Memory of the process that supervises the worker, bytes."""


Directives = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """Command and directives of one scheduler.

    In the texts, ``{members}``, ``{last}`` (number of the last member, counted from 0), ``{clock}``, ``{megabytes}``
    and ``{name}`` are replaced.

    Attributes
    ----------
    command : tuple of str
        Command that submits a script and prints the id of the job.
    prefix : str
        Start of a directive.
    common : mapping of str to tuple of str
        Directives of every job.  A directive is left out if an option of the user matches one of its patterns: the
        command line wins anyway, but some options exclude each other.
    shapes : mapping of str to mapping
        Further directives of an ``array`` job, a ``single`` process, an ``mpi`` job.
    mpirun : str
        Command that starts an MPI program in an ``mpi`` job.
    array_variable : str
        Line for array jobs that tells members the size of the array if the scheduler does not.
    smallest_array : int
        Smallest number of members that the scheduler accepts for an array.
    fixed : tuple of str
        Options that the user must not give, because the script fixes their values.
    """

    command: tuple[str, ...]
    prefix: str
    common: Directives
    shapes: Mapping[str, Directives]
    mpirun: str
    array_variable: str = ""
    smallest_array: int = 1
    fixed: tuple[str, ...] = ()

    def header(self, shape: str, values: Mapping[str, object], options: Sequence[str]) -> list[str]:
        """Return the directives of a job, without those that options of the user replace.

        Parameters
        ----------
        shape : str
            ``array``, ``single`` or ``mpi``.
        values : mapping of str to object
            Name in the texts → what replaces it.
        options : sequence of str
            Options of the user, to the command that submits.
        """
        directives = {**self.common, **self.shapes[shape]}
        return [
            f"{self.prefix} {text.format_map(values)}"
            for text, patterns in directives.items()
            if not any(re.search(pattern, option) for pattern in patterns for option in options)
        ]

    def exports(self, shape: str, values: Mapping[str, object]) -> list[str]:
        """Return the lines of a script that tell members the size of the array."""
        if shape != "array" or not self.array_variable:
            return []
        return [self.array_variable.format_map(values)]

    def launch(self, shape: str, values: Mapping[str, object]) -> str:
        """Return the command in front of that of the program."""
        return self.mpirun.format_map(values) + " " if shape == "mpi" else ""


_SLURM_MEMBER: Directives = {
    "--ntasks=1": (),
    # A minute before its time is over, a member gets SIGTERM, and drains.
    "--signal=B:TERM@60": (),
}
# A resource may follow -l as its own word, be joined to it, or follow others.
_PBS_EXCLUSIVE = (r"(^(-l)?|[:,+\s])(select|nodes|ncpus|mem)=",)
_PBS_MEMBER: Directives = {"-l select=1:ncpus=1:mem={megabytes}mb": _PBS_EXCLUSIVE}

SCHEDULERS: Mapping[str, Scheduler] = {
    "slurm": Scheduler(
        command=("sbatch", "--parsable"),
        prefix="#SBATCH",
        common={
            "--job-name={name}": (),
            "--time={clock}": (),
            "--mem-per-cpu={megabytes}M": (r"^--mem(-per-(cpu|gpu))?(=|$)",),
        },
        shapes={
            "array": {"--array=0-{last}": (), "--output=%A_%a.out": (), **_SLURM_MEMBER},
            "single": {"--output=%j.out": (), **_SLURM_MEMBER},
            "mpi": {"--ntasks={members}": (), "--output=%j.out": ()},
        },
        mpirun='mpirun -n "$SLURM_NTASKS"',
    ),
    "pbs": Scheduler(
        command=("qsub",),
        prefix="#PBS",
        common={
            "-N {name}": (),
            "-S /bin/bash": (),
            "-j oe": (),
            "-l walltime={clock}": (r"(^(-l)?|[:,\s])walltime=",),
        },
        shapes={
            "array": {"-J 0-{last}": (), **_PBS_MEMBER},
            "single": _PBS_MEMBER,
            "mpi": {
                "-l select={members}:ncpus=1:mpiprocs=1:mem={megabytes}mb": _PBS_EXCLUSIVE,
            },
        },
        mpirun="mpirun -n {members}",
        # PBS tells a member its index only.
        array_variable="export CRYOTILE_ARRAY=0-{last}",
        smallest_array=2,
        fixed=("-J",),
    ),
    "sge": Scheduler(
        command=("qsub", "-terse"),
        prefix="#$",
        common={
            "-N {name}": (),
            "-S /bin/bash": (),
            "-cwd": (),
            "-j y": (),
            "-l h_rt={clock}": (r"(^(-l)?|[,\s])h_rt=",),
            # A host with this much free memory, not a limit: h_vmem counts address space, of which Python uses much.
            "-l mem_free={megabytes}M": (r"(^(-l)?|[,\s])(mem_free|h_vmem)=",),
        },
        shapes={
            "array": {"-t 1-{members}": ()},
            "single": {},
            # Names of parallel environments differ from site to site.
            "mpi": {"-pe mpi {members}": ("^-pe$",)},
        },
        mpirun='mpirun -n "$NSLOTS"',
    ),
}
"""Schedulers by name."""


@dataclass(frozen=True)
class Needs:
    """Time and memory that each member of a job requests.

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
        """Time in the form that all schedulers read: hours:minutes:seconds."""
        return f"{self.seconds // 3600}:{self.seconds // 60 % 60:02d}:00"


def needs(run: TaskList, tasks: Sequence[Task], workers: int) -> Needs:
    """Return the time and memory to request so that each of ``workers`` cores completes its part of the tasks.

    Time is twice the expected time of a fair share, or of the costliest tile if that is longer, and ten minutes; memory
    is one and a half times that of the fullest tile, and 300 MB.

    Parameters
    ----------
    run : TaskList
        The run, which estimates its tasks.
    tasks : sequence of Task
        Tasks to do, costliest first; at least one.
    workers : int
        Number of cores that work on it.

    Returns
    -------
    Needs
    """
    whole, costliest = run.estimate(tasks), run.estimate(tasks[:1])
    hours = max(whole.core_hours / workers, costliest.core_hours)
    seconds = TIME_MARGIN * 3600 * hours + SPARE_SECONDS
    megabytes = (MEMORY_MARGIN * whole.peak_bytes + SPARE_BYTES) / 1e6
    return Needs(300 * math.ceil(seconds / 300), 100 * math.ceil(megabytes / 100))


_TIMES = {
    "slurm": re.compile(r"(?:^|\0)(?:--time[=\0]|-t\0?)([\d:-]+)(?=\0|$)"),
    "pbs": re.compile(r"(?:^|[\0,:]|-l)walltime=([\d:]+)"),
    "sge": re.compile(r"(?:^|[\0,]|-l)h_rt=([\d:]+)"),
}
"""Scheduler → the time of a job among its options, which are joined by null characters."""


def walltime(scheduler: str, options: Sequence[str]) -> int | None:
    """Return the time that options of a scheduler's command give to a job.

    Parameters
    ----------
    scheduler : str
        ``slurm``, ``pbs`` or ``sge``.
    options : sequence of str
        Options of the command, e.g. ``("--time=2:00:00",)``, in the forms of the manual pages of ``sbatch`` (minutes,
        minutes:seconds, hours:minutes:seconds, days-hours and so on) and of ``qsub`` (seconds, hours:minutes:seconds).

    Returns
    -------
    int or None
        Seconds, at least 1; None if no option gives a time, or one that is unlimited.
    """
    found = _TIMES[scheduler].findall("\0".join(options))
    if not found:
        return None
    days, dash, clock = found[-1].rpartition("-")
    fields = [int(field or 0) for field in clock.split(":")]
    if dash:
        # Hours come first, whatever follows.
        hours, minutes, seconds = (*fields, 0, 0)[:3]
    elif scheduler == "slurm" and len(fields) < 3:
        hours, minutes, seconds = (0, *fields, 0)[:3]
    else:
        hours, minutes, seconds = (0, 0, *fields)[-3:]
    return 86400 * int(days or 0) + 3600 * hours + 60 * minutes + seconds or None


@dataclass(frozen=True)
class Job:
    """A job that is ready to be submitted.

    Attributes
    ----------
    script : str
        Text of the script.
    command : tuple of str
        Command that submits the script, whose name is appended, and prints the id of the job.
    directory : Path
        Directory of the submission: the script, the list of tasks and the output of members.
    generation : int
        The task list that ``tasks`` belong to.
    tasks : tuple of Task
        The tasks that the members do.
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
    asked: Needs | None = None,
) -> Job:
    """Return a job for the missing tasks of a run; nothing is written.

    Parameters
    ----------
    run : TaskList
        A run or an ingest; the lines ``[submit] setup`` in its ``run.toml`` or ``ingest.toml`` go into the script
        before the work.
    scheduler : str
        ``slurm``, ``pbs`` or ``sge``.
    backend : str
        ``array``, ``dir``, ``http`` (whose members host the server themselves) or ``mpi``.
    members : int
        Members of the array, or MPI ranks; no more are requested than there are tasks.
    options : sequence of str
        Options of the command of the scheduler; they override those of the script.
    asked : Needs or None
        Time and memory of a member; None: those of :func:`needs`.

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
            f"{run.path} has no {run.noun} to do: all are there or failed; see which with:"
            f" {command('status', run.path)}, and put failed ones back with: {command('retry', run.path)}"
        )
    # The first MPI rank hands out tasks and does none.
    master = backend == "mpi" and members > 1
    workers = min(members - master, len(tasks))
    shape = (
        "mpi" if backend == "mpi" else "array" if workers >= dialect.smallest_array else "single"
    )
    values = _values(run, workers, workers + master, asked or needs(run, tasks, workers))
    directory = _directory(run, max(_numbers(run), default=0) + 1)
    lines = [
        "#!/bin/bash -l",
        *dialect.header(shape, values, options),
        "# One process per core does the work; libraries need no threads of their own.",
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
    """Write the script and the list of tasks of a job, and submit it.

    Parameters
    ----------
    job : Job
        The job.

    Returns
    -------
    str
        Id of the job.

    Raises
    ------
    CryotileError
        The scheduler is not installed or rejects the job, or another process submitted at the same moment.
    """
    make_directory(job.directory.parent)
    try:
        with writing(job.directory):
            # The process that makes the directory owns the number.
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
        # The scheduler rejected it, so the number is free again.  After any other error the job may exist, and its
        # members look for their tasks here.
        shutil.rmtree(job.directory, ignore_errors=True)
        raise


def submitted_tasks(run: TaskList, number: int) -> list[Task]:
    """Return the tasks that a submission froze.

    Parameters
    ----------
    run : TaskList
        The run.
    number : int
        Number of the submission, counted from 1.

    Returns
    -------
    list of Task
        Costliest first.

    Raises
    ------
    InvalidValue
        There is no such submission, or the run has been planned again.
    DamagedFile
        The list was altered.
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
        raise InvalidValue(f"{members} members are too few; ask for 1 or more")
    dialect = SCHEDULERS[scheduler]
    fixed = [option for option in options if option.startswith(dialect.fixed)]
    if fixed:
        raise InvalidValue(
            f"option {fixed[0]} sets the size of the array, which its members must know, too; use members"
        )
    return dialect


def _values(run: TaskList, workers: int, members: int, asked: Needs) -> dict[str, object]:
    """Return the values that replace names in the texts of schedulers.

    Parameters
    ----------
    run : TaskList
        The run, which names the job.
    workers : int
        Members that do tasks.
    members : int
        All members: of an MPI job, one more hands out the tasks.
    asked : Needs
        Time and memory of each.
    """
    return {
        "members": members,
        "last": workers - 1,
        "clock": asked.clock,
        "megabytes": asked.megabytes,
        # PBS accepts 15 characters, Grid Engine no leading digit.
        "name": re.sub(r"[^A-Za-z0-9_-]", "-", f"ice-{run.path.resolve().name}")[:15],
    }


def _program(run: TaskList, backend: str, shape: str, directory: Path) -> str:
    """Return the command line of one member."""
    words = [sys.executable, "-m", "cryotile", "run", str(run.path.resolve())]
    if backend == "array":
        spec = "array" if shape == "array" else "index:0/1"
        words += ["--backend", spec, "--submission", str(int(directory.name))]
    else:
        words += ["--backend", backend]
    if backend == "http":
        words.append("--serve")
    return shlex.join(words)


def _setup(run: TaskList) -> list[str]:
    """Return the lines of ``[submit] setup`` in ``run.toml``: modules to load, an environment to activate."""
    path = run.path / run.file_name
    table = tomllib.loads(path.read_text(encoding="utf-8")).get("submit", {})
    lines = table.get("setup", []) if isinstance(table, dict) else str(table)
    if not (isinstance(lines, list) and all(isinstance(line, str) for line in lines)):
        raise DamagedFile(
            f'[submit] setup in {path} is {lines!r}, not a list of lines; write e.g. setup = ["module load python"]'
        )
    return lines


def _directory(run: TaskList, number: int) -> Path:
    return run.path.resolve() / "jobs" / f"{number:04d}"


def _numbers(run: TaskList) -> list[int]:
    # A user may keep other files there, such as a copy of a submission.
    names = (entry.name for entry in (run.path / "jobs").glob("[0-9]*"))
    return [int(name) for name in names if name.isdecimal()]


def _hand_over(job: Job) -> str:
    """Submit the script and return the id that the scheduler prints."""
    program = job.command[0]
    try:
        # From its directory, where the scheduler then puts the output of members, whatever the path looks like.
        answer = subprocess.run(
            [*job.command, "job.sh"],
            cwd=job.directory,
            capture_output=True,
            text=True,
            # A message of the site's in another encoding must not cost the id of the job.
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise CryotileError(
            f"{program} is not on the PATH; submit on a host of the cluster, or only look at the script (dry run)"
        ) from None
    # An id begins with a digit.  With an option to wait for the job, the scheduler also prints how it ended.
    said = [line for line in answer.stdout.splitlines() if line[:1].isdecimal()]
    if not said:
        complaint = (answer.stderr or answer.stdout).strip().replace(
            "\n", "; "
        ) or "without a message"
        raise CryotileError(
            f"{program} rejected the job ({complaint}); correct the options behind --, or [submit] setup"
        )
    return said[0]
