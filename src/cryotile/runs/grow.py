"""Keep as many jobs in the queue of a scheduler as the work that is left is worth.

Each job is a worker of the backend ``dir``, which takes tasks as long as its time allows: jobs come and go as they
like, and one that is pre-empted, requeued or at the end of its time loses no task.  Several processes may be asked to
grow one run; a file in the run says which of them does it, and another takes over when it is gone.
"""

from __future__ import annotations

import getpass
import logging
import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from cryotile.errors import CryotileError, InvalidValue, command
from cryotile.farm.place import Place
from cryotile.farm.task import Task
from cryotile.runs.submit import TIME_MARGIN, Needs, make_job, needs, submit, walltime
from cryotile.runs.tasklist import TaskList

__all__ = ["GROWER", "Grower", "grow"]

log = logging.getLogger(__name__)

GROWER = "grower.json"
"""File in the run that says which process grows it; it is touched at each look."""

LISTING = {
    "slurm": ("squeue", "--noheader", "--array", "--format=%F %t %r", "--user"),
    "sge": ("qstat", "-g", "d", "-u"),
    "pbs": ("qstat", "-t", "-u"),
}
"""Scheduler → command that lists the jobs of a user, one line for each member, the id of the job first."""

NO_MEMBER = re.compile(r"\d+\[\]|.*\s[XFC]\s")
"""Lines of PBS that tell of no worker: an array as a whole beside its members, and members that have ended."""

STUCK = {
    # Held, by its user, an administrator or Slurm itself, or waiting for a job that will not end well.
    "slurm": re.compile(r"\d+ PD .*([Hh]eld|JobHoldMaxRequeue|DependencyNeverSatisfied)"),
    # In the state of an error (Eqw), or held before it has begun (hqw).
    "sge": re.compile(r"\d+\s+\S+\s+\S+\s+\S+\s+(\S*E|h\S*w)"),
    "pbs": re.compile(r"\d.*\sH\s"),
}
"""Scheduler → lines of the listing that tell of a job which does not start unless somebody releases it."""

CANCELLING = {
    "slurm": ("scancel", "--state=PENDING"),
    "sge": ("qdel",),
    "pbs": ("qdel",),
}
"""Scheduler → command that cancels jobs.  A worker that has begun ends by itself, and is not cancelled by Slurm."""

LONGEST = 4 * 3600.0
"""Seconds; no job asks for more unless its costliest task needs it: short jobs start sooner."""

FRUITLESS = 3
"""Jobs that may end without a completed task before the next ones wait."""

PATIENCE = 60.0
"""Seconds for a command of the scheduler."""

SLOWEST = 16
"""Looks to wait at most, after failures."""


@dataclass
class Grower:
    """A run and the jobs that were submitted for it.

    Attributes
    ----------
    run : TaskList
        A run or an ingest.
    scheduler : str
        ``slurm``, ``sge`` or ``pbs``.
    least, most : int
        Workers to keep in the queue, waiting or running, while there is work.
    options : sequence of str
        Options of the command that submits.
    tell : callable
        Receives lines about what was done.
    jobs : dict of str to int
        Id of each job of this and earlier growers → its members.
    """

    run: TaskList
    scheduler: str
    least: int
    most: int
    options: Sequence[str] = ()
    tell: Callable[[str], object] = log.info
    jobs: dict[str, int] = field(default_factory=dict)
    # Members of the largest job that the scheduler accepts, as far as refusals tell; None: nothing was refused.
    _limit: int | None = None
    # Members that do not start by themselves, at the last look.
    _stuck: int = 0
    # Members of jobs that have ended since a task was last completed.
    _ended: int = 0
    # Tasks that were left at the last look that found fewer than before.
    _left: int | None = None
    # Looks without a submission from now on, and after the next failure.
    _wait: int = 0
    _pause: int = 1

    def __post_init__(self) -> None:
        if self.scheduler not in LISTING:
            raise InvalidValue(
                f"scheduler {self.scheduler!r} is unknown; choose one of {', '.join(LISTING)}"
            )
        if not 0 <= self.least <= self.most or self.most < 1:
            raise InvalidValue(
                f"--workers {self.least}..{self.most} must be a range from 0 or more up to 1 or more; give e.g. 2..200"
            )

    def look(self) -> bool:
        """Compare the queue with the work that is left, and submit what is missing.

        Returns
        -------
        bool
            Whether anything is left to do.
        """
        tasks = list(self.run.pending())
        if not tasks:
            self._cancel()
            return False
        try:
            alive = self._alive()
        except CryotileError as error:
            # Without an answer there may be any number of jobs: submitting more would flood the queue.
            self._slow_down(str(error))
            return True
        self._judge(len(tasks), alive)
        if self._wait:
            self._wait -= 1
            return True
        asked = self._needs(tasks)
        # Stuck jobs do no work, and yet the queue must not hold more jobs than the limit.
        wanted = min(self._worth(tasks, asked), self.most - self._stuck)
        if wanted > alive:
            self._submit(wanted - alive, alive, asked)
        return True

    def _needs(self, tasks: Sequence[Task]) -> Needs:
        """Return time and memory of a job: a share of the work, but short, and long enough for the costliest task.

        A time among the options takes precedence, as the scheduler sees it.
        """
        share, one = needs(self.run, tasks, self.most), needs(self.run, tasks[:1], 1)
        given = walltime(self.scheduler, self.options)
        if given is not None:
            return Needs(given, share.megabytes)
        return Needs(max(min(share.seconds, int(LONGEST)), one.seconds), share.megabytes)

    def _worth(self, tasks: Sequence[Task], asked: Needs) -> int:
        """Return the number of workers that the tasks are worth: the backlog over the time of a job."""
        backlog = TIME_MARGIN * 3600 * self.run.estimate(tasks).core_hours
        workers = max(self.least, math.ceil(backlog / asked.seconds))
        return min(workers, self.most, len(tasks))

    def _alive(self) -> int:
        """Return the number of members of our jobs that wait or run, and forget jobs that have ended.

        Members that do not start by themselves are counted apart.
        """
        said = _answer((*LISTING[self.scheduler], getpass.getuser()))
        lines = [line.strip() for line in said.splitlines()]
        if self.scheduler == "pbs":
            lines = [line for line in lines if not NO_MEMBER.match(line)]
        ours = {_digits(job): job for job in self.jobs}
        lines = [line for line in lines if _digits(line) in ours]
        there = {ours[_digits(line)] for line in lines}
        for job in set(self.jobs) - there:
            self._ended += self.jobs.pop(job)
        stuck = [ours[_digits(line)] for line in lines if STUCK[self.scheduler].match(line)]
        if len(stuck) != self._stuck and stuck:
            self.tell(
                f"{len(stuck)} workers in the queue are held or in error, and are not counted: release or cancel"
                f" {self.scheduler} job {', '.join(sorted(set(stuck)))}"
            )
        self._stuck = len(stuck)
        return len(lines) - len(stuck)

    def _judge(self, left: int, alive: int) -> None:
        """Wait longer while jobs end and no task is done: something is wrong with them."""
        if self._left is None or left < self._left:
            self._left, self._ended, self._pause, self._wait = left, 0, 1, 0
        elif self._ended + self._stuck >= FRUITLESS and not alive and not self._wait:
            outputs = self.run.path / "jobs"
            self._slow_down(
                f"{self._ended + self._stuck} jobs ended or are stuck without a completed {self.run.noun}; what they"
                f" printed is in {outputs}"
            )
            self._ended = 0

    def _slow_down(self, reason: str) -> None:
        self._wait, self._pause = self._pause, min(2 * self._pause, SLOWEST)
        self.tell(f"{reason}; next try in {self._wait} looks")

    def _submit(self, count: int, alive: int, asked: Needs) -> None:
        """Submit jobs of as many members as the scheduler accepts: halve an array that is refused.

        The next one may be twice as large as the last: a refusal may have another reason than the size.

        Parameters
        ----------
        count : int
            Members to add.
        alive : int
            Members that wait or run.
        asked : Needs
            Time and memory of each member.
        """
        members = count if self._limit is None else min(count, 2 * self._limit)
        done = 0
        while done < count:
            members = min(members, count - done)
            try:
                job = make_job(
                    self.run,
                    self.scheduler,
                    backend="dir",
                    members=members,
                    options=self.options,
                    asked=asked,
                )
                name = submit(job)
            except CryotileError as error:
                if members == 1:
                    if done == 0 and alive == 0:
                        self._slow_down(str(error))
                    elif done == 0:
                        # The limit of jobs per user, most likely; those that are there go on.
                        self._wait = 1
                    break
                members = self._limit = members // 2
                continue
            # PBS cancels an array by its number with brackets; what follows names servers, clusters or members.
            found = re.match(r"\d+(\[\])?", name)
            self.jobs[found[0] if found else name] = members
            done += members
            if self._limit is not None:
                self._limit = max(self._limit, members)
        if done:
            left = f"{self._left:,} {self.run.nouns} left"
            self.tell(f"{alive} workers in the queue, {done} added, each for {asked.clock}; {left}")

    def _cancel(self) -> None:
        """Cancel jobs that still wait: they would find nothing to do."""
        with suppress(CryotileError):
            if self.jobs and self._alive() + self._stuck:
                _answer((*CANCELLING[self.scheduler], *sorted(self.jobs)))


def grow(grower: Grower, *, every: float = 60.0, once: bool = False) -> bool:
    """Grow a run until nothing is left to do.

    Parameters
    ----------
    grower : Grower
        The run and its limits.
    every : float
        Seconds between two looks.
    once : bool
        Look once, as from cron.

    Returns
    -------
    bool
        Whether this process grew the run; False: another one does, which ``tell`` was told.

    Raises
    ------
    InvalidValue
        A limit breaks its rule.
    CryotileError
        The scheduler is not on this host.
    """
    if not 0 < every <= LONGEST:
        raise InvalidValue(
            f"--every {every} must be above 0 and at most {LONGEST:.0f} s; 60 suits most clusters"
        )
    listing = LISTING[grower.scheduler][0]
    if shutil.which(listing) is None:
        raise CryotileError(
            f"{listing} is not on the PATH; run {command('farm', 'grow')} on a host of the cluster"
        )
    place = Place(grower.run.path / GROWER, every)
    with _held(place, grower, wait=not once) as mine:
        while mine and grower.look():
            mine = place.keep({"jobs": grower.jobs})
            if once:
                break
            if mine:
                time.sleep(every)
            else:
                grower.tell(
                    f"another process has taken over {grower.run.path}, as this one was silent for long"
                )
    return mine


@contextmanager
def _held(place: Place, grower: Grower, *, wait: bool) -> Iterator[bool]:
    """Be the process that grows the run, at once or when the present one is gone; take over the jobs."""
    said, mine = False, False
    while not mine:
        holder = place.holder()
        if place.is_free(holder):
            grower.jobs |= holder.said["jobs"] if holder is not None else {}
            mine = place.take({"jobs": grower.jobs})
            continue
        assert holder is not None
        if not said:
            grower.tell(f"process {holder.pid} on {holder.host} grows {grower.run.path}")
            said = True
        if not wait or not grower.run.pending():
            break
        time.sleep(min(place.every, 1.0))
    try:
        yield mine
    finally:
        if mine:
            place.leave({"jobs": grower.jobs})


def _digits(words: str) -> str:
    """Return the number at the start, which tells jobs of one scheduler apart."""
    found = re.match(r"\d+", words)
    return found[0] if found else words


def _answer(words: Sequence[str]) -> str:
    """Return the output of a command of the scheduler."""
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            # A message of the site's in another encoding.
            errors="replace",
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as error:
        raise CryotileError(
            f"{words[0]} cannot be started: {error.strerror}; is it on the path?"
        ) from None
    except subprocess.TimeoutExpired:
        raise CryotileError(f"{words[0]} does not answer; try it by hand") from None
    if done.returncode:
        complaint = " ".join((done.stderr or done.stdout).split()) or "without a message"
        raise CryotileError(f"{words[0]} failed ({complaint}); try it by hand")
    return done.stdout
