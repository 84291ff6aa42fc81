"""A pool: supervised children of this process at work on a task_source of tasks."""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from cryotile.backends.base import STALL, Attempt
from cryotile.backends.child import Child, ChildFactory
from cryotile.backends.cores import usable_cores
from cryotile.backends.deadline import Deadline
from cryotile.errors import CryotileError, InvalidValue
from cryotile.farm.task import Outcome, Task, Work

__all__ = ["TaskSource", "pool_size", "work"]

# A child gets as many tasks ahead as take about this long (seconds): at least one, so that it never waits for the
# parent, and few enough for one write.
_AHEAD = 0.01
_MOST_AHEAD = 64

# Seconds between looks at silent children, at the task_source and at the deadline.
_ROUND = 0.5

# So many children in a row that die before they start a task mean that none ever will.
_FUTILE_STARTS = 10

logger = logging.getLogger(__name__)


class TaskSource(Protocol):
    """Where a pool's tasks come from and where their attempts go.

    A list in memory (:class:`~cryotile.backends.base.TaskQueue`) is one, the leases of a ledger are another.

    Attributes
    ----------
    ahead : int
        How many tasks a child may have queued behind a long one; behind short ones it gets more.
    """

    @property
    def ahead(self) -> int:
        """See above."""
        ...

    def over(self) -> bool:
        """Tell whether nothing more will come once what is handed out has ended."""
        ...

    def stock(self) -> int:
        """Return how many tasks can be handed out now; a look for more is due when there are none."""
        ...

    def take(self, count: int, fits: Callable[[Task], bool]) -> list[Task]:
        """Hand out the next tasks that fit, ``count`` of them at most."""
        ...

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Take tasks back, at the head and uncharged: they were handed out, but no attempt at them counts."""
        ...

    def report(self, running: Mapping[Task, float]) -> list[Outcome]:
        """Hear which tasks are running, and the fraction done of each; outcomes that came about without an attempt."""
        ...

    def settle(self, attempts: Sequence[Attempt]) -> list[Outcome]:
        """Count attempts; the outcomes of the tasks for which they were the last."""
        ...

    def left(self) -> int:
        """Return how many tasks have no outcome yet, as far as is known."""
        ...


def work(
    task_source: TaskSource,
    work: Work,
    *,
    children: int,
    stall: float = STALL,
    deadline: Deadline | None = None,
) -> Iterator[Outcome]:
    """Let child processes work until the task_source is over, or their deadline.

    Parameters
    ----------
    task_source : TaskSource
        The tasks.
    work : Work
        Does one task; picklable.
    children : int
        Number of child processes; as many are started as there are tasks for.
    stall : float
        Seconds without a progress call after which a child is ended, which costs its task an attempt.
    deadline : Deadline, optional
        How long the pool may go on; by default as long as the job of this process, and until it is asked to stop.

    Yields
    ------
    Outcome
        As the task_source settles them.

    Raises
    ------
    InvalidValue
        The work cannot be pickled.
    CryotileError
        The work cannot be loaded in a child, or one child after the other dies before it starts a task.
    Unfinished
        Tasks are left: the pool was asked to stop, or they would not end within the time of this job.
    """
    with deadline or Deadline() as deadline:
        with ChildFactory(work, stall) as child_factory, selectors.DefaultSelector() as selector:
            yield from _Pool(child_factory, selector, task_source, deadline).outcomes(children)
        deadline.check_out(task_source.left())


def pool_size(scheme: str, argument: str) -> int:
    """Read how many children a user wants: a number, or nothing for one per usable core.

    Raises
    ------
    InvalidValue
        It is not a positive integer.
    """
    if argument and not (argument.isdecimal() and int(argument) > 0):
        raise InvalidValue(
            f"backend '{scheme}:{argument}': the number of children must be a positive integer; write {scheme}:4, or "
            f"{scheme} for one per usable core ({usable_cores()} here)"
        )
    return int(argument) if argument else usable_cores()


class _Pool:
    """The children at work, and those that idle."""

    def __init__(
        self,
        child_factory: ChildFactory,
        selector: selectors.BaseSelector,
        task_source: TaskSource,
        deadline: Deadline,
    ) -> None:
        self._child_factory = child_factory
        self._selector = selector
        self._task_source = task_source
        self._deadline = deadline
        self._size = 0
        self._children: set[Child] = set()
        self._idle: set[Child] = set()
        self._futile = 0
        self._next_round = time.monotonic() + _ROUND

    def outcomes(self, size: int) -> Iterator[Outcome]:
        """Work with ``size`` children, or as many as there are tasks for."""
        self._size = size
        while True:
            if self._deadline.draining():
                yield from self._drain()
            else:
                self._employ()
            running = {c.tasks[0]: c.fraction for c in self._children if c.tasks}
            # First of all: what has ended may not be settled yet.
            yield from self._task_source.report(running)
            if not running and (self._deadline.draining() or self._task_source.over()):
                return
            for child in self._stirring():
                yield from self._hear(child)

    def _hear(self, child: Child) -> list[Outcome]:
        """Take in what a child reports, and keep it busy."""
        attempts = child.receive()
        for attempt in attempts:
            self._deadline.ended(attempt)
        outcomes = self._task_source.settle(attempts) if attempts else []
        self._futile = 0 if attempts else self._futile + (not child.alive)
        if not child.alive:
            self._remove(child)
        elif not self._deadline.draining():
            self._top_up(child)
        return outcomes

    def _stirring(self) -> list[Child]:
        """Wait for children that have something to tell; once a round, these are all."""
        events = self._selector.select(max(0.0, self._next_round - time.monotonic()))
        if time.monotonic() < self._next_round:
            return [key.data for key, _ in events]
        self._next_round = time.monotonic() + _ROUND
        return list(self._children)

    def _employ(self) -> None:
        """Give the idle, and whom there is room to hire, what waits or else what another child has not started."""
        while self._idle or len(self._children) < self._size:
            if not (self._task_source.stock() or self._reclaim()):
                return
            tasks = self._take(1 + self._task_source.ahead)
            if not tasks:
                return
            child = self._idle.pop() if self._idle else self._hire()
            child.give(tasks)

    def _hire(self) -> Child:
        """Start a child."""
        child = self._child_factory.start()
        self._children.add(child)
        self._selector.register(child.fileno(), selectors.EVENT_READ, child)
        return child

    def _remove(self, child: Child) -> None:
        """Forget a child that died; another is hired in its place when there is a task for it."""
        logger.warning("%s; it is replaced", child.end)
        if self._futile == _FUTILE_STARTS:
            raise CryotileError(
                f"{_FUTILE_STARTS} child processes in a row died before they started a task, the last: {child.end}; "
                "see their messages above, then run again to go on"
            )
        self._selector.unregister(child.fileno())
        self._children.discard(child)
        self._idle.discard(child)
        self._task_source.put_back(child.tasks)

    def _top_up(self, child: Child) -> None:
        """Give a child more when it runs low."""
        wanted = max(
            1 + self._task_source.ahead, min(_MOST_AHEAD, int(_AHEAD / max(child.pace, 1e-9)))
        )
        if 2 * len(child.tasks) <= wanted and (tasks := self._take(wanted - len(child.tasks))):
            child.give(tasks)
        if not child.tasks:
            self._idle.add(child)

    def _take(self, count: int) -> list[Task]:
        """Take tasks for one child."""
        # No more than half of a fair share of what is left, so that all children end together.
        share = max(1, self._task_source.stock() // (2 * self._size))
        return self._task_source.take(min(count, share), self._deadline.may_start)

    def _reclaim(self) -> bool:
        """Take back the tasks ahead of the child that has most of them."""
        richest = max(self._children, key=lambda child: len(child.tasks), default=None)
        if richest is not None and len(richest.tasks) > 1:
            self._task_source.put_back(richest.take_back())
        return self._task_source.stock() > 0

    def _drain(self) -> Iterator[Outcome]:
        """Take back what is not started and, when the deadline is over, what is."""
        for child in self._children:
            self._task_source.put_back(child.take_back())
            if self._deadline.over() and child.tasks:
                # What it ended a moment ago counts; the rest is killed when the child_factory closes.
                yield from self._task_source.settle(child.receive())
                self._task_source.put_back(child.tasks)
                child.tasks.clear()
                child.kill()
