"""The number of cores and the memory this process may use, which may be less than the machine has.

A batch job, a container or ``taskset`` gives a process fewer cores than the machine has.  A process that starts a child
for each core of the machine nevertheless slows down itself and its neighbours.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

__all__ = ["Cores", "count_cores", "memory_limits", "usable_cores"]


class Cores(NamedTuple):
    """The number of cores that may be used, and the limits whose minimum it is."""

    number: int
    limits: Mapping[str, float]

    def __str__(self) -> str:
        """Return both in words, e.g. ``2 usable cores: affinity 4, cgroup quota 2.5``."""
        cores = "1 usable core" if self.number == 1 else f"{self.number} usable cores"
        return f"{cores}: {', '.join(f'{name} {limit:g}' for name, limit in self.limits.items())}"


def usable_cores() -> int:
    """Return the number of cores this process may use, at least 1."""
    return count_cores().number


def count_cores(
    *,
    affinity: int | None = None,
    environment: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> Cores:
    """Return the number of cores this process may use: the minimum of all limits.

    The limits are its affinity mask, the CPU quota of its cgroup and of those above it (both versions), and the cores
    that Slurm, PBS, Grid Engine or LSF gave its job on this host: sites that do not bind processes expect them to use
    no more.

    Parameters
    ----------
    affinity : int, optional
        Cores on which the system may run the process; asked of the system if not given.
    environment : mapping of str to str, optional
        Environment variables; this process's if not given.
    root : Path
        Directory of ``proc`` and ``sys``.

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
    """Yield the CPU quota, in cores, of every cgroup that contains this process."""
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
    """Yield the directory of a cgroup and those above it, up to the mount point."""
    # In a container the path may be the host's, and only its end is mounted: a missing directory sets no quota.
    inside = PurePosixPath(path.lstrip("/"))
    for part in (inside, *inside.parents):
        if ".." not in part.parts:
            yield mount / part


def _read(file: Path) -> str:
    """Return the content of a small file; empty if it does not exist, as not every system has every file."""
    try:
        return file.read_text()
    except OSError:
        return ""


def _quota(text: str) -> Iterator[float]:
    """Yield the ratio of CPU time to its period (microseconds); nothing without a quota ("max" or -1)."""
    found = re.fullmatch(r"\s*(\d+)\s+([1-9]\d*)\s*", text)
    if found is not None:
        yield int(found[1]) / int(found[2])


def _job_limits(environment: Mapping[str, str]) -> dict[str, float]:
    """Return the cores that a scheduler gave this process, by the name of the variable."""
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
    """Return Slurm's limits: a job script has the cores of all tasks of its node, one of srun those of its task."""
    on_node = _leading_number(environment, "SLURM_CPUS_ON_NODE")
    per_task = _leading_number(environment, "SLURM_CPUS_PER_TASK")
    # Tasks on this node, of the job or the step: "4(x2),3" is 4 on each of the first two nodes and 3 on the last.
    tasks = _leading_number(environment, "SLURM_TASKS_PER_NODE") or 1
    if "SLURM_STEP_ID" in environment:
        on_node /= tasks
        tasks = 1
    limits = {"SLURM_CPUS_ON_NODE": on_node, "SLURM_CPUS_PER_TASK": per_task * tasks}
    return {name: number for name, number in limits.items() if number}


def _leading_number(environment: Mapping[str, str], name: str) -> float:
    """Return the number that a variable begins with; 0 if there is none."""
    found = re.match(r"\d+", environment.get(name, ""), re.ASCII)
    return float(found[0]) if found else 0.0


def memory_limits(
    *, environment: Mapping[str, str] | None = None, root: Path = Path("/")
) -> dict[str, float]:
    """Return the limits of the memory this process may use, by name: of the machine, of its cgroups, of its job.

    Parameters
    ----------
    environment : mapping of str to str, optional
        Environment variables; this process's if not given.
    root : Path
        Directory of ``proc`` and ``sys``.

    Returns
    -------
    dict of str to float
        Bytes; empty if the system does not say.
    """
    given = os.environ if environment is None else environment
    limits = dict[str, float]()
    if (machine := re.search(r"MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo"))) is not None:
        limits["machine"] = 1024.0 * int(machine[1])
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mount, file = root / "sys/fs/cgroup", "memory.max"
        if "memory" in controllers.split(","):
            mount, file = mount / "memory", "memory.limit_in_bytes"
        elif controllers:
            continue
        found = [_read(directory / file).strip() for directory in _upwards(mount, path)]
        least = min((float(text) for text in found if text.isdecimal()), default=math.inf)
        # Without a limit the first version has a number near 2⁶³.
        if least < limits.get("machine", 2.0**60):
            limits["cgroup"] = least
    # Slurm gives megabytes: of the job on this host, or of each of its cores here.
    cores = _leading_number(given, "SLURM_CPUS_ON_NODE")
    for name, factor in (("SLURM_MEM_PER_NODE", 1.0), ("SLURM_MEM_PER_CPU", cores)):
        if megabytes := factor * _leading_number(given, name):
            limits[name] = megabytes * 2**20
    return limits
