"""The values that a farm exchanges with its workers: tasks, fractions and outcomes, never arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

__all__ = ["ATTEMPTS", "LEASE", "THUMBNAIL", "Outcome", "Pending", "Progress", "Task", "Work"]

ATTEMPTS = 3
"""Attempts that a task gets before it counts as failed."""

LEASE = 300.0
"""Seconds for which a lease is valid after it was claimed or renewed."""


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of a run, known to a farm by its index alone.

    Attributes
    ----------
    index : int
        Position in the frozen plan.
    cost : float
        Expected work in any unit (for tiles: expected points visited); orders the work, costliest first.
    """

    index: int
    cost: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a task.

    Attributes
    ----------
    task : Task
        The task.
    seconds : float
        Duration of the last attempt, seconds.
    attempts : int
        Attempts made, at least 1.
    host : str
        Name of the host of the last attempt.
    error : str or None
        Traceback or reason of the last failed attempt; None if the result is saved.
    thumbnail : bytes or None
        What the work returned, for a ledger that shows it.
    """

    task: Task
    seconds: float
    attempts: int
    host: str
    error: str | None = None
    thumbnail: bytes | None = field(default=None, repr=False, compare=False)


Progress = Callable[[float], None]
"""Callback of work for the fraction done, 0 to 1; also keeps a lease alive."""

THUMBNAIL = 1024
"""Bytes of the longest thumbnail."""

Work = Callable[[Task, Progress], bytes | None]
"""Does one task and returns when its result is saved.  Picklable: children are spawned, never forked.

It may return a thumbnail, a picture of the result of at most :data:`THUMBNAIL` bytes, for the page of a farm;
other values are ignored.
"""


class Pending(Sequence[Task]):
    """The tasks of a list that still have to be done: a lazy sequence, filled when it is first read.

    Parameters
    ----------
    tasks : sequence of Task
        The list, costliest first.
    choose : callable
        Returns the tasks that have to be done, in their order; called once, with the whole list.
    """

    def __init__(
        self, tasks: Sequence[Task], choose: Callable[[Sequence[Task]], list[Task]]
    ) -> None:
        self._tasks = tasks
        self._choose = choose

    def __len__(self) -> int:
        """Return the number of tasks that have to be done."""
        return len(self._found)

    def __iter__(self) -> Iterator[Task]:
        """Iterate over the tasks that have to be done, in the order of the list."""
        return iter(self._found)

    @overload
    def __getitem__(self, position: int) -> Task: ...
    @overload
    def __getitem__(self, position: slice) -> list[Task]: ...
    def __getitem__(self, position: int | slice) -> Task | list[Task]:
        """Return one or some of the tasks that have to be done."""
        return self._found[position]

    @cached_property
    def _found(self) -> list[Task]:
        return self._choose(self._tasks)
