"""The backends ``index:K/N`` and ``array``: the farm of array jobs, whose members cannot talk to each other.

Every member deals the same frozen list by cost into as many shares as there are members, takes its own, and works on it
with supervised children.  A crash stays in its member, and the next submission does what is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cryotile.backends import pool
from cryotile.backends.base import DEFAULTS, Context, TaskQueue
from cryotile.backends.cores import usable_cores
from cryotile.backends.partition import deal
from cryotile.errors import InvalidValue
from cryotile.farm.task import Outcome, Task, Work

__all__ = ["ArrayBackend", "IndexBackend", "Place", "array_scheduler", "place_in_array"]

BY_HAND = "say which share this is, counted from 0, with --backend index:K/N"


class Place(NamedTuple):
    """Which member of how many, counted from 0."""

    member: int
    members: int


class IndexBackend:
    """Do one share of the list, in children of this process.

    Every member deals the frozen list by :meth:`share` and then runs what is pending of its own share.

    Parameters
    ----------
    argument : str
        ``K/N``: share K (counted from 0) of N.
    context : Context
        Its stall limit is used: a child that makes no progress for so long is killed, which costs its task an attempt.
    children : int, optional
        Number of children; one per usable core when not given.

    Raises
    ------
    InvalidValue
        The argument names no share.
    """

    def __init__(
        self,
        argument: str,
        context: Context = DEFAULTS,
        *,
        children: int | None = None,
    ) -> None:
        found = re.fullmatch(r"(\d+)/(\d+)", argument, re.ASCII)
        if found is None or int(found[1]) >= int(found[2]):
            raise InvalidValue(
                f"backend 'index:{argument}' names no share; write index:K/N with K from 0 to N-1, e.g. index:3/100"
            )
        self.place = Place(int(found[1]), int(found[2]))
        self.children = children or usable_cores()
        self.stall = context.stall

    def share(self, tasks: Sequence[Task]) -> list[Task]:
        """Return this member's share of a frozen list; see :class:`cryotile.backends.Backend`."""
        return deal(tasks, self.place.members)[self.place.member]

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Do tasks of this member's share; see :meth:`cryotile.backends.Backend.run`."""
        if tasks:
            yield from pool.work(TaskQueue(tasks), work, children=self.children, stall=self.stall)


class ArrayBackend(IndexBackend):
    """``index``, read from the environment of an array job of Slurm, PBS, Grid Engine or LSF.

    Parameters
    ----------
    argument : str
        Must be empty.
    context : Context
        As for :class:`IndexBackend`.

    Raises
    ------
    InvalidValue
        There is an argument, or the environment does not say which member of how many this process is.
    """

    def __init__(self, argument: str = "", context: Context = DEFAULTS) -> None:
        if argument:
            raise InvalidValue(
                f"backend 'array:{argument}': array takes no argument; write array, or index:K/N for a share by number"
            )
        place = place_in_array(os.environ)
        super().__init__(f"{place.member}/{place.members}", context)


@dataclass(frozen=True)
class _Dialect:
    """The environment variables in which a scheduler tells a member of an array where it is in it.

    ``index`` has the value ``outside`` in a job that is no array; the others are empty where there is no such variable.
    """

    scheduler: str
    index: str
    outside: str = ""
    first: str = ""
    last: str = ""
    step: str = ""
    count: str = ""


_DIALECTS = (
    _Dialect(
        "Slurm",
        "SLURM_ARRAY_TASK_ID",
        first="SLURM_ARRAY_TASK_MIN",
        last="SLURM_ARRAY_TASK_MAX",
        step="SLURM_ARRAY_TASK_STEP",
        count="SLURM_ARRAY_TASK_COUNT",
    ),
    _Dialect("PBS", "PBS_ARRAY_INDEX"),
    _Dialect("Torque", "PBS_ARRAYID"),
    _Dialect(
        "Grid Engine",
        "SGE_TASK_ID",
        outside="undefined",
        first="SGE_TASK_FIRST",
        last="SGE_TASK_LAST",
        step="SGE_TASK_STEPSIZE",
    ),
    _Dialect("LSF", "LSB_JOBINDEX", outside="0", last="LSB_JOBINDEX_END", step="LSB_JOBINDEX_STEP"),
)


def place_in_array(environment: Mapping[str, str]) -> Place:
    """Find this process's place in its array job: its rank within the array's first..last.

    ``CRYOTILE_ARRAY=FIRST-LAST`` or ``FIRST-LAST:STEP`` goes before what the scheduler says of the array: PBS says
    nothing, and who submits single members of an array again means their places in the whole.

    Parameters
    ----------
    environment : mapping of str to str
        Environment variables.

    Returns
    -------
    Place

    Raises
    ------
    InvalidValue
        There is no array job, or what is known of it does not give a place.
    """
    dialect = _dialect(environment)
    if dialect is None:
        raise InvalidValue(
            "backend 'array' is for members of an array job of Slurm, PBS, Grid Engine or LSF, and this process is "
            f"none; submit one with 'cryotile submit', or {BY_HAND}"
        )
    index = _number(dialect.index, environment[dialect.index])
    whole = environment.get("CRYOTILE_ARRAY")
    indices = _told(dialect, index, environment) if whole is None else _parsed(whole)
    if index not in indices:
        raise InvalidValue(
            f"{dialect.index} is {index}, which is not in the array {_named(indices)}; correct CRYOTILE_ARRAY, "
            f"or {BY_HAND}"
        )
    return Place(indices.index(index), len(indices))


def array_scheduler(environment: Mapping[str, str]) -> str | None:
    """Return the name of the scheduler of whose array job an environment is; None outside array jobs."""
    dialect = _dialect(environment)
    return None if dialect is None else dialect.scheduler


def _dialect(environment: Mapping[str, str]) -> _Dialect | None:
    """Find the dialect of the array job that this environment is of."""
    for dialect in _DIALECTS:
        if environment.get(dialect.index, dialect.outside) != dialect.outside:
            return dialect
    return None


def _parsed(whole: str) -> range:
    """Indices of the array that ``CRYOTILE_ARRAY`` names."""
    found = re.fullmatch(r"(\d+)-(\d+)(?::([1-9]\d*))?", whole, re.ASCII)
    if found is None:
        raise InvalidValue(
            f"CRYOTILE_ARRAY is {whole!r}, not FIRST-LAST or FIRST-LAST:STEP; set e.g. CRYOTILE_ARRAY=0-99"
        )
    return range(int(found[1]), int(found[2]) + 1, int(found[3] or 1))


def _told(dialect: _Dialect, index: int, environment: Mapping[str, str]) -> range:
    """Indices of the array as the scheduler tells its members."""
    if dialect.last not in environment:
        raise InvalidValue(
            f"{dialect.scheduler} says that this is member {index} of an array, but not of how many; set "
            f"CRYOTILE_ARRAY=FIRST-LAST in the job script, as 'cryotile submit' does, or {BY_HAND}"
        )
    last = _number(dialect.last, environment[dialect.last])
    # An array of one has the step 0 or 'undefined' in some versions.
    step = max(1, int(text)) if (text := environment.get(dialect.step, "")).isdecimal() else 1
    # LSF does not tell the first; its arrays start in the first step, at 1 unless somebody wanted it otherwise.
    first = (
        _number(dialect.first, environment[dialect.first])
        if dialect.first in environment
        else (last - 1) % step + 1
    )
    indices = range(first, last + 1, step)
    if environment.get(dialect.count, str(len(indices))) != str(len(indices)):
        raise InvalidValue(
            f"{dialect.scheduler}'s array {_named(indices)} has gaps, so that this member's rank is not known; set "
            f"CRYOTILE_ARRAY=FIRST-LAST to name the whole array, or {BY_HAND}"
        )
    return indices


def _named(indices: range) -> str:
    return f"{indices.start}-{indices.stop - 1}:{indices.step}"


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise InvalidValue(
            f"{name} is {text!r}, not a number, so that this member's share is not known; {BY_HAND}"
        )
    return int(text)
