"""How long the job of this process still has, and whether a task fits in what is left.

Every scheduler ends a job at its limit, and a task that is cut short there is lost work.  So a worker starts
no task that is not expected to end in time; what a task takes is learned from those that have ended.
"""

from __future__ import annotations

import logging
import math
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence

from cryotile.backends.base import Attempt
from cryotile.errors import InvalidValue
from cryotile.farm.task import Task

__all__ = ["Walltime", "seconds_left"]

SAFETY = 1.5
"""Tasks of equal cost differ: so many times what a task is expected to take must be left when it starts."""

MARGIN = 15.0
"""Seconds kept for saving, reporting and leaving."""

# A scheduler that is busy answers late; work must not wait for it for long.
_ASK_LIMIT = 20.0

_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")

logger = logging.getLogger(__name__)


class Walltime:
    """What is left of a job, and what tasks are expected to take of it.

    Parameters
    ----------
    left : float
        Seconds until the job is ended; infinite without a limit.
    """

    def __init__(self, left: float = math.inf) -> None:
        self._end = time.monotonic() + left
        self._seconds = self._cost = 0.0
        self._shortest = 0.0

    @classmethod
    def of_this_job(cls) -> Walltime:
        """Ask the environment, and if need be the scheduler, once."""
        left = seconds_left(os.environ)
        if math.isfinite(left):
            logger.info("this job still has %.0f s", left)
        return cls(left)

    def learn(self, attempt: Attempt) -> None:
        """Take note of what an attempt took; one that failed says nothing about the next."""
        if attempt.error is None:
            first = not self._seconds
            self._shortest = attempt.seconds if first else min(self._shortest, attempt.seconds)
            self._seconds += attempt.seconds
            self._cost += attempt.task.cost

    def expected(self, task: Task) -> float:
        """Return the seconds a task is expected to take; 0 as long as none has ended."""
        rate = self._seconds / self._cost if self._cost else 0.0
        # However small its cost, a task is opened, read and saved like the shortest so far.
        return max(rate * task.cost, self._shortest)

    def fits(self, task: Task) -> bool:
        """Tell whether a task that starts now is expected to end before the job does."""
        return SAFETY * self.expected(task) + MARGIN <= self._end - time.monotonic()


def seconds_left(environment: Mapping[str, str]) -> float:
    """Return how long the job that an environment belongs to still has.

    ``CRYOTILE_JOB_END`` (Unix time, seconds) comes first, then what Slurm, PBS, Grid Engine and LSF say themselves.

    Parameters
    ----------
    environment : mapping of str to str
        Environment variables.

    Returns
    -------
    float
        Seconds; infinite outside a job, and where the scheduler knows of no limit or does not answer.

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
        # Grid Engine tells the limit alone.  This process is about the first of its job, so all of it is left.
        return _clock(_field(r"\bh_rt=(\d+)", _ask("qstat", "-j", environment["JOB_ID"])))
    if "LSB_JOBID" in environment:
        return 60.0 * _lsf_minutes(
            _ask("bjobs", "-noheader", "-o", "time_left", _lsf_job(environment))
        )
    return math.inf


def _until(name: str, text: str) -> float:
    """Seconds from now until a Unix time."""
    try:
        # The only comparison of clocks: the scheduler's with this host's, where no monotonic clock is shared.
        return float(text) - time.time()
    except ValueError:
        raise InvalidValue(
            f"{name} is {text!r}, not a Unix time in seconds; set e.g. {name}=$(($(date +%s) + 3600)), or unset it"
        ) from None


def _slurm_job(environment: Mapping[str, str]) -> str:
    """Name one job: the plain number of the last member of an array stands for the whole array."""
    if "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


def _lsf_job(environment: Mapping[str, str]) -> str:
    index = environment.get("LSB_JOBINDEX", "0")
    job = environment["LSB_JOBID"]
    return job if index == "0" else f"{job}[{index}]"


def _ask(*command: str) -> str:
    """Return what a scheduler's command says; nothing when it fails or takes too long."""
    try:
        answer = _run(command)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("what is left of this job is unknown: %s", error)
        return ""
    return answer.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=_ASK_LIMIT,
        stdin=subprocess.DEVNULL,
    )


def _field(pattern: str, answer: str) -> str:
    found = re.search(pattern, answer)
    return found[1] if found else ""


def _clock(text: str) -> float:
    """Read ``[days-]hours:minutes:seconds`` or fewer fields, the last being seconds; infinite when it is none."""
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        return math.inf
    seconds = 0.0
    for part in found["fields"].split(":"):
        seconds = 60.0 * seconds + float(part)
    return 86400.0 * float(found["days"] or 0) + seconds


def _lsf_minutes(text: str) -> float:
    """Read what LSF writes, ``hours:minutes L``; infinite for a dash."""
    return _clock(text.split()[0]) if text.split() else math.inf
