"""What a farm hands out and gets back: integers, fractions and outcomes, never arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

__all__ = ["ATTEMPTS", "Outcome", "Pending", "Progress", "Task", "Work"]

ATTEMPTS = 3
"""Attempts that a task gets before it counts as failed."""


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
    """How a task ended.

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
        Traceback or reason of the last failed attempt; None when the work is saved.
    """

    task: Task
    seconds: float
    attempts: int
    host: str
    error: str | None = None


Progress = Callable[[float], None]
"""Called by work with the fraction done, 0 to 1; also keeps a lease alive."""

Work = Callable[[Task, Progress], None]
"""Does one task and returns when its result is saved.  Picklable: children are spawned, never forked."""


class Pending(Sequence[Task]):
    """What is to do of a frozen list: a sequence of tasks like any other, found out when it is looked at.

    Most farms work on the sequence and need to know no more.  The members of a static farm cannot talk to each
    other: did each deal what it finds pending when it starts, shares would overlap or leave holes.  So a member deals
    the ``frozen`` list, the same for all, and then takes its share of what is pending; nobody looks at another's tasks.

    Parameters
    ----------
    frozen : sequence of Task
        The list that all members of a farm share, costliest first.
    choose : callable
        Returns, of some tasks, those that are to be done, in their order; called once with all that somebody looks at.

    Attributes
    ----------
    frozen : sequence of Task
        The list.
    share : sequence of Task
        Of the list, the tasks that this process answers for: all, unless it took a share.
    """

    def __init__(
        self, frozen: Sequence[Task], choose: Callable[[Sequence[Task]], list[Task]]
    ) -> None:
        self.frozen = self.share = frozen
        self._choose = choose
        self._tasks: list[Task] | None = None

    def take_share(self, share: Sequence[Task]) -> None:
        """Answer for these tasks of the frozen list only."""
        self.share = share
        self._tasks = None

    def __len__(self) -> int:
        """Return how many tasks of the share are to be done."""
        return len(self._found)

    def __iter__(self) -> Iterator[Task]:
        """Go through the tasks of the share that are to be done, in the order of the list."""
        return iter(self._found)

    @overload
    def __getitem__(self, position: int) -> Task: ...
    @overload
    def __getitem__(self, position: slice) -> list[Task]: ...
    def __getitem__(self, position: int | slice) -> Task | list[Task]:
        """Return one task, or some, of those to be done."""
        return self._found[position]

    @property
    def _found(self) -> list[Task]:
        if self._tasks is None:
            self._tasks = self._choose(self.share)
        return self._tasks
