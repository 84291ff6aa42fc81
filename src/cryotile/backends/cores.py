"""How many cores this process may use: not how many the machine has.

A batch job, a container or ``taskset`` gives a process fewer cores than there are, and one that starts a child for each
core of the machine all the same slows down itself and its neighbours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

__all__ = ["Cores", "count_cores", "usable_cores"]


class Cores(NamedTuple):
    """How many cores may be used, and the limits of which it is the least."""

    number: int
    limits: Mapping[str, float]

    def __str__(self) -> str:
        """Say both, e.g. ``2 usable cores: affinity 4, cgroup quota 2.5``."""
        cores = "1 usable core" if self.number == 1 else f"{self.number} usable cores"
        return f"{cores}: {', '.join(f'{name} {limit:g}' for name, limit in self.limits.items())}"


def usable_cores() -> int:
    """Return how many cores this process may use, at least 1."""
    return count_cores().number


def count_cores(
    *,
    affinity: int | None = None,
    environment: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> Cores:
    """Find the least of all limits on the cores that this process may use.

    These are its affinity mask, the CPU quota of its cgroup and of those above it (both versions), and what Slurm, PBS,
    Grid Engine or LSF gave its job on this host: sites that bind no process still expect it to keep to that.

    Parameters
    ----------
    affinity : int, optional
        Cores that the system may run the process on; asked of the system when not given.
    environment : mapping of str to str, optional
        Environment variables; this process's when not given.
    root : Path
        Where ``proc`` and ``sys`` are.

    Returns
    -------
    Cores
    """
    limits: dict[str, float] = {"affinity": _affinity() if affinity is None else affinity}
    quota = min(_quotas(root), default=None)
    if quota is not None:
        limits["cgroup quota"] = quota
    limits |= _job_limits(os.environ if environment is None else environment)
    return Cores(max(1, int(min(limits.values()))), limits)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Give the CPU quota, in cores, of every cgroup that holds this process."""
    memberships = (line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines())
    for _, controllers, path in memberships:
        if not controllers:
            for directory in _upwards(root / "sys/fs/cgroup", path):
                yield from _quota(_read(directory / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for directory in _upwards(root / "sys/fs/cgroup" / controllers, path):
                yield from _quota(
                    f"{_read(directory / 'cpu.cfs_quota_us')} {_read(directory / 'cpu.cfs_period_us')}"
                )


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Give the directory of a cgroup and those above it, up to where they are mounted."""
    # In a container the path may be the host's, and only its end is mounted: what is not there sets no quota.
    inside = PurePosixPath(path.lstrip("/"))
    for part in (inside, *inside.parents):
        if ".." not in part.parts:
            yield mount / part


def _read(file: Path) -> str:
    """Return the content of a small file, nothing when there is none: not every system has every file."""
    try:
        return file.read_text()
    except OSError:
        return ""


def _quota(text: str) -> Iterator[float]:
    """Read microseconds of CPU time and of the period they are for; without a quota the first is no number, or -1."""
    found = re.fullmatch(r"\s*(\d+)\s+([1-9]\d*)\s*", text)
    if found is not None:
        yield int(found[1]) / int(found[2])


def _job_limits(environment: Mapping[str, str]) -> dict[str, float]:
    """Read what a scheduler gave this process, by the variable that says so."""
    if "SLURM_JOB_ID" in environment:
        return _slurm_limits(environment)
    variables = {
        "PBS_JOBID": ("NCPUS", "PBS_NUM_PPN"),
        "SGE_TASK_ID": ("NSLOTS",),
        "LSB_JOBID": ("LSB_DJOB_NUMPROC",),
    }
    names = [name for job, names in variables.items() if job in environment for name in names]
    found = {name: _leading_number(environment, name) for name in names}
    return {name: number for name, number in found.items() if number}


def _slurm_limits(environment: Mapping[str, str]) -> dict[str, float]:
    """Read Slurm's variables: a job script has what all tasks of its node have, what srun started has its own."""
    on_node = _leading_number(environment, "SLURM_CPUS_ON_NODE")
    per_task = _leading_number(environment, "SLURM_CPUS_PER_TASK")
    # Tasks on this node, of the job or of the step: "4(x2),3" is 4 on each of the first two nodes and 3 on the last.
    tasks = _leading_number(environment, "SLURM_TASKS_PER_NODE") or 1
    if "SLURM_STEP_ID" in environment:
        on_node /= tasks
        tasks = 1
    limits = {"SLURM_CPUS_ON_NODE": on_node, "SLURM_CPUS_PER_TASK": per_task * tasks}
    return {name: number for name, number in limits.items() if number}


def _leading_number(environment: Mapping[str, str], name: str) -> float:
    """Read the digits that a variable begins with; 0 when there are none."""
    found = re.match(r"\d+", environment.get(name, ""), re.ASCII)
    return float(found[0]) if found else 0.0
