"""How long a pool may go on: until the job of this process ends, or until it is asked to stop.

Every scheduler ends a job at its limit, and a task that is cut short there is lost work.  Therefore a worker starts no
task that is not expected to end in time; it learns how long tasks take from those that have ended.
"""

from __future__ import annotations

import logging
import math
import os
import re
import subprocess
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from cryotile.backends import drain
from cryotile.backends.base import Attempt
from cryotile.errors import Drained, InvalidValue, Unfinished
from cryotile.farm.task import Task

__all__ = ["Deadline", "seconds_left"]

SAFETY = 1.5
"""A task starts only if this many times its expected duration is left, because tasks of equal cost differ."""

MARGIN = 15.0
"""Seconds kept for saving, reporting and leaving."""

# A busy scheduler answers late; work must not wait long for it.
_ASK_LIMIT = 20.0

_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")

logger = logging.getLogger(__name__)


class Deadline:
    """The time that a pool has; a context manager, within which :func:`cryotile.backends.drain.begin` takes effect.

    Parameters
    ----------
    left : float, optional
        Seconds until the job ends, infinite if it has no limit; by default, asked of the environment and the scheduler.
    """

    def __init__(self, left: float | None = None) -> None:
        if left is None:
            left = seconds_left(os.environ)
            if math.isfinite(left):
                logger.info("%.0f s are left of this job", left)
        self._end = time.monotonic() + left
        self._seconds = self._cost = self._shortest = 0.0
        self._refused = False
        self._listening = drain.listening()

    def ended(self, attempt: Attempt) -> None:
        """Learn from an attempt how long tasks take; a failed one tells nothing."""
        if attempt.error is None:
            first = not self._seconds
            self._shortest = attempt.seconds if first else min(self._shortest, attempt.seconds)
            self._seconds += attempt.seconds
            self._cost += attempt.task.cost

    def expected(self, task: Task) -> float:
        """Return the seconds a task is expected to take; 0 until a first task has ended."""
        rate = self._seconds / self._cost if self._cost else 0.0
        # A task of any cost is opened, read and saved, which takes as long as the shortest task so far.
        return max(rate * task.cost, self._shortest)

    def may_start(self, task: Task) -> bool:
        """Tell whether a task that starts now is expected to end before the job does."""
        fits = SAFETY * self.expected(task) + MARGIN <= self._end - time.monotonic()
        self._refused |= not fits
        return fits

    def draining(self) -> bool:
        """Tell whether the pool must start nothing more, and leave when its running tasks have ended."""
        return drain.begun()

    def over(self) -> bool:
        """Tell whether the pool must leave at once: running tasks are killed and not charged."""
        return drain.overdue()

    def check_out(self, left: int) -> None:
        """Raise the reason for leaving, if the pool leaves before all tasks have ended.

        Parameters
        ----------
        left : int
            Number of tasks without an outcome.

        Raises
        ------
        Drained
            The pool was asked to stop.
        Unfinished
            None of the remaining tasks fits into the time that is left of the job.
        """
        if self.draining() and left:
            raise Drained(
                f"stopped by SIGTERM with {left} tasks left, none of them charged an attempt; give the same command "
                "again to go on"
            )
        if self._refused and left:
            raise Unfinished(
                f"{left} tasks are left that would not end within the time of this job; run or submit again to go on, "
                "and give the job more time if the same tasks are left again"
            )

    def __enter__(self) -> Self:
        self._listening.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.__exit__(kind, error, trace)


def seconds_left(environment: Mapping[str, str]) -> float:
    """Return the time that is left of the job that an environment belongs to.

    ``CRYOTILE_JOB_END`` (Unix time, seconds) takes precedence over the answers of Slurm, PBS, Grid Engine and LSF.

    Parameters
    ----------
    environment : mapping of str to str
        Environment variables.

    Returns
    -------
    float
        Seconds; infinite outside a job, and if the scheduler sets no limit or does not answer.

    Raises
    ------
    InvalidValue
        ``CRYOTILE_JOB_END`` is not a number.
    """
    for name in ("CRYOTILE_JOB_END", "SLURM_JOB_END_TIME"):
        if name in environment:
            return _until(name, environment[name])
    if "SLURM_JOB_ID" in environment:
        return _clock(_ask("squeue", "-h", "-j", _slurm_job(environment), "-o", "%L"))
    if "PBS_WALLTIME" in environment:
        return _clock(environment["PBS_WALLTIME"])
    if "PBS_JOBID" in environment:
        answer = _ask("qstat", "-f", environment["PBS_JOBID"])
        used = _clock(_field(r"resources_used\.walltime = (\S+)", answer))
        limit = _clock(_field(r"Resource_List\.walltime = (\S+)", answer))
        return limit - (used if math.isfinite(used) else 0.0)
    if "SGE_TASK_ID" in environment and "JOB_ID" in environment:
        # Grid Engine tells only the limit.  This process is nearly the first of its job, so nearly all of it is left.
        return _clock(_field(r"\bh_rt=(\d+)", _ask("qstat", "-j", environment["JOB_ID"])))
    if "LSB_JOBID" in environment:
        answer = _ask("bjobs", "-noheader", "-o", "time_left", _lsf_job(environment))
        # LSF writes "hours:minutes L", or a dash if there is no limit.
        return 60.0 * _clock(answer.split()[0] if answer.split() else "")
    return math.inf


def _until(name: str, text: str) -> float:
    """Return the seconds from now until a Unix time."""
    try:
        # The only comparison of two clocks, the scheduler's and this host's: they share no monotonic clock.
        return float(text) - time.time()
    except ValueError:
        raise InvalidValue(
            f"{name} is {text!r}, not a Unix time in seconds; set e.g. {name}=$(($(date +%s) + 3600)), or unset it"
        ) from None


def _slurm_job(environment: Mapping[str, str]) -> str:
    """Return the name of one job: the plain number of an array's last member stands for the whole array."""
    if "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


def _lsf_job(environment: Mapping[str, str]) -> str:
    index = environment.get("LSB_JOBINDEX", "0")
    job = environment["LSB_JOBID"]
    return job if index == "0" else f"{job}[{index}]"


def _ask(*command: str) -> str:
    """Return the output of a scheduler's command; empty if it fails or takes too long."""
    try:
        answer = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=_ASK_LIMIT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("the time that is left of this job is unknown: %s", error)
        return ""
    return answer.stdout


def _field(pattern: str, answer: str) -> str:
    found = re.search(pattern, answer)
    return found[1] if found else ""


def _clock(text: str) -> float:
    """Read ``[days-]hours:minutes:seconds``, or fewer fields of which the last is seconds; infinite for other text."""
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        return math.inf
    seconds = 0.0
    for part in found["fields"].split(":"):
        seconds = 60.0 * seconds + float(part)
    return 86400.0 * float(found["days"] or 0) + seconds
