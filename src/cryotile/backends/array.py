"""The backends ``index:K/N`` and ``array``: the farm of array jobs, whose members cannot talk to each other.

Every member divides the same frozen list by cost into as many shares as there are members, takes its own share, and
works on it with supervised children.  A crash affects only its member, and the next submission does the missing tasks.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cryotile.backends import pool
from cryotile.backends.base import DEFAULTS, Context, TaskQueue
from cryotile.backends.cores import usable_cores
from cryotile.errors import InvalidValue
from cryotile.farm.task import Outcome, Task, Work

__all__ = [
    "ArrayBackend",
    "ArrayMember",
    "IndexBackend",
    "array_member",
    "array_scheduler",
    "partition",
]

BY_HAND = 'name this member\'s share, counted from 0, with backend="index:K/N"'


class ArrayMember(NamedTuple):
    """One member of an array job: its number, counted from 0, and the number of members."""

    number: int
    members: int


class IndexBackend:
    """Do one share of the list, in children of this process.

    Every member divides the frozen list by :meth:`share` and then runs the pending tasks of its own share.

    Parameters
    ----------
    argument : str
        ``K/N``: share K (counted from 0) of N.
    context : Context
        The stall limit is used: a child that makes no progress for so long is killed, which costs its task an attempt.
    children : int, optional
        Number of children; one per usable core if not given.

    Raises
    ------
    InvalidValue
        The argument names no share.
    """

    def __init__(
        self, argument: str, context: Context = DEFAULTS, *, children: int | None = None
    ) -> None:
        found = re.fullmatch(r"(\d+)/(\d+)", argument, re.ASCII)
        if found is None or int(found[1]) >= int(found[2]):
            raise InvalidValue(
                f"backend 'index:{argument}' names no share; write index:K/N with K from 0 to N-1, e.g. index:3/100"
            )
        self.member = ArrayMember(int(found[1]), int(found[2]))
        self.children = children or usable_cores()
        self.stall = context.stall

    def share(self, tasks: Sequence[Task]) -> list[Task]:
        """Return this member's share of a frozen list; see :class:`cryotile.backends.Backend`."""
        return partition(tasks, self.member.members)[self.member.number]

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
        There is an argument, or the environment does not tell the number of this member and of all members.
    """

    def __init__(self, argument: str = "", context: Context = DEFAULTS) -> None:
        if argument:
            raise InvalidValue(
                f"backend 'array:{argument}': array takes no argument; write array, or index:K/N for a share by number"
            )
        member = array_member(os.environ)
        super().__init__(f"{member.number}/{member.members}", context)


def partition(tasks: Sequence[Task], members: int) -> list[list[Task]]:
    """Divide tasks among members that cannot talk to each other, so that all take about equally long.

    Longest processing time first [1]_: the costliest task first, each to the member with the least cost so far.  No
    member gets more than 4/3 of what the best partition would give it; if tasks are many and none costs more than a
    fair share, all members get the same within the cost of a cheap task.  Equal lists give equal shares, which are
    disjoint and together make up the list.

    Parameters
    ----------
    tasks : sequence of Task
        In any order.
    members : int
        Number of shares, at least 1.

    Returns
    -------
    list of list of Task
        One share for each member, each in the order of ``tasks``; some are empty if there are fewer tasks than members.

    References
    ----------
    .. [1] Graham, R. L. (1969), Bounds on multiprocessing timing anomalies, SIAM J. Appl. Math. 17(2), 416–429.
    """
    owner: dict[int, int] = {}
    # Cost and number of the tasks of each member; the number spreads tasks without a cost, too.
    loads = [(0.0, 0, member) for member in range(members)]
    for task in sorted(tasks, key=lambda task: (-task.cost, task.index)):
        cost, count, member = loads[0]
        owner[task.index] = member
        heapq.heapreplace(loads, (cost + task.cost, count + 1, member))
    shares: list[list[Task]] = [[] for _ in range(members)]
    for task in tasks:
        shares[owner[task.index]].append(task)
    return shares


@dataclass(frozen=True)
class _Dialect:
    """The environment variables by which a scheduler tells a member of an array its index.

    ``index`` has the value ``outside`` in a job that is not an array; the others are empty if there is no such
    variable.
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


def array_member(environment: Mapping[str, str]) -> ArrayMember:
    """Return which member of its array job this process is: the rank of its index within the array's first..last.

    ``CRYOTILE_ARRAY=FIRST-LAST`` or ``FIRST-LAST:STEP`` takes precedence over what the scheduler tells of the array:
    PBS tells nothing, and members that are submitted again by themselves keep their rank in the whole array.

    Parameters
    ----------
    environment : mapping of str to str
        Environment variables.

    Returns
    -------
    ArrayMember

    Raises
    ------
    InvalidValue
        This is not an array job, or its variables do not give a rank.
    """
    dialect = _dialect(environment)
    if dialect is None:
        raise InvalidValue(
            "backend 'array' needs an array job of Slurm, PBS, Grid Engine or LSF, and this process is not in one; "
            f"submit one with 'cryotile submit', or {BY_HAND}"
        )
    index = _number(dialect.index, environment[dialect.index])
    whole = environment.get("CRYOTILE_ARRAY")
    indices = _told(dialect, index, environment) if whole is None else _parsed(whole)
    if index not in indices:
        raise InvalidValue(
            f"{dialect.index} is {index}, which is not in the array {_named(indices)}; correct CRYOTILE_ARRAY, "
            f"or {BY_HAND}"
        )
    return ArrayMember(indices.index(index), len(indices))


def array_scheduler(environment: Mapping[str, str]) -> str | None:
    """Return the name of the scheduler whose array job an environment belongs to; None outside array jobs."""
    dialect = _dialect(environment)
    return None if dialect is None else dialect.scheduler


def _dialect(environment: Mapping[str, str]) -> _Dialect | None:
    """Return the dialect of the array job that this environment belongs to."""
    for dialect in _DIALECTS:
        if environment.get(dialect.index, dialect.outside) != dialect.outside:
            return dialect
    return None


def _parsed(whole: str) -> range:
    """Return the indices of the array that ``CRYOTILE_ARRAY`` names."""
    found = re.fullmatch(r"(\d+)-(\d+)(?::([1-9]\d*))?", whole, re.ASCII)
    if found is None:
        raise InvalidValue(
            f"CRYOTILE_ARRAY is {whole!r}, not FIRST-LAST or FIRST-LAST:STEP; set e.g. CRYOTILE_ARRAY=0-99"
        )
    return range(int(found[1]), int(found[2]) + 1, int(found[3] or 1))


def _told(dialect: _Dialect, index: int, environment: Mapping[str, str]) -> range:
    """Return the indices of the array as the scheduler tells them to its members."""
    if dialect.last not in environment:
        raise InvalidValue(
            f"{dialect.scheduler} tells that this is member {index} of an array, but not of how many; set "
            f"CRYOTILE_ARRAY=FIRST-LAST in the job script, as 'cryotile submit' does, or {BY_HAND}"
        )
    last = _number(dialect.last, environment[dialect.last])
    # An array of one member has the step 0 or 'undefined' in some versions.
    step = max(1, int(text)) if (text := environment.get(dialect.step, "")).isdecimal() else 1
    # LSF does not tell the first index; its arrays start within the first step, at 1 unless the user chose otherwise.
    first = (
        _number(dialect.first, environment[dialect.first])
        if dialect.first in environment
        else (last - 1) % step + 1
    )
    indices = range(first, last + 1, step)
    if environment.get(dialect.count, str(len(indices))) != str(len(indices)):
        raise InvalidValue(
            f"{dialect.scheduler}'s array {_named(indices)} has gaps, so this member's rank is unknown; set "
            f"CRYOTILE_ARRAY=FIRST-LAST to name the whole array, or {BY_HAND}"
        )
    return indices


def _named(indices: range) -> str:
    return f"{indices.start}-{indices.stop - 1}:{indices.step}"


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise InvalidValue(
            f"{name} is {text!r}, not a number, so this member's share is unknown; {BY_HAND}"
        )
    return int(text)
