"""A pool: supervised child processes that work on the tasks of a task source."""

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

# A child gets tasks ahead for about this long (seconds): at least one, so that it never waits for the parent, and few
# enough for one write.
_AHEAD = 0.01
_MOST_AHEAD = 64

# Seconds between checks of silent children, the task source and the deadline.
_ROUND = 0.5

# Consecutive children that die before they start a task, after which the pool gives up.
_FAILED_STARTS = 10

logger = logging.getLogger(__name__)


class TaskSource(Protocol):
    """The source of a pool's tasks, to which their attempts are reported.

    :class:`~cryotile.backends.base.TaskQueue` is a list in memory, :class:`LedgerSource` the leases of a ledger.
    """

    @property
    def ahead(self) -> int:
        """Number of tasks a child may have queued behind a long one; behind short ones it gets more."""
        ...

    def over(self) -> bool:
        """Tell whether no more tasks will come once those that are handed out have ended."""
        ...

    def stock(self) -> int:
        """Return the number of tasks that can be handed out now, after looking for more if there are few."""
        ...

    def take(self, count: int, fits: Callable[[Task], bool]) -> list[Task]:
        """Hand out the next tasks that fit, at most ``count``."""
        ...

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Take tasks back, at the head of the queue and without charging an attempt."""
        ...

    def report(self, running: Mapping[Task, float]) -> list[Outcome]:
        """Note the running tasks and the fraction done of each; return outcomes that are known only now."""
        ...

    def settle(self, attempts: Sequence[Attempt]) -> list[Outcome]:
        """Count attempts; return the outcomes of the tasks for which they were the last."""
        ...

    def left(self) -> int:
        """Return the number of tasks without an outcome, as far as is known."""
        ...


def work(
    task_source: TaskSource,
    work: Work,
    *,
    children: int,
    stall: float = STALL,
    deadline: Deadline | None = None,
) -> Iterator[Outcome]:
    """Let child processes work until the task source is over or the deadline is reached.

    Parameters
    ----------
    task_source : TaskSource
        The tasks.
    work : Work
        Does one task; picklable.
    children : int
        Number of child processes; no more are started than there are tasks.
    stall : float
        Seconds without a progress call after which a child is killed, which costs its task an attempt.
    deadline : Deadline, optional
        Time that the pool has; by default until the job of this process ends, or until it is asked to stop.

    Yields
    ------
    Outcome
        As the task source settles them.

    Raises
    ------
    InvalidValue
        The work cannot be pickled.
    CryotileError
        The work cannot be loaded in a child, or ten children in a row die before they start a task.
    Unfinished
        Tasks are left because the pool was asked to stop, or because they would not end within the time of this job.
    """
    with deadline or Deadline() as deadline:
        with ChildFactory(work, stall) as child_factory, selectors.DefaultSelector() as selector:
            yield from _Pool(child_factory, selector, task_source, deadline).outcomes(children)
        deadline.check_out(task_source.left())


def pool_size(scheme: str, argument: str) -> int:
    """Return the number of children that a user asks for; one per usable core if ``argument`` is empty.

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
    """The busy and idle children of one pool."""

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
        self._failed_starts = 0
        self._next_round = time.monotonic() + _ROUND

    def outcomes(self, size: int) -> Iterator[Outcome]:
        """Work with at most ``size`` children and yield outcomes."""
        self._size = size
        while True:
            if self._deadline.draining():
                yield from self._drain()
            else:
                self._assign()
            running = {c.tasks[0]: c.fraction for c in self._children if c.tasks}
            # Report before testing for the end: ended tasks may not be settled yet.
            yield from self._task_source.report(running)
            if not running and (self._deadline.draining() or self._task_source.over()):
                return
            for child in self._ready():
                yield from self._hear(child)

    def _hear(self, child: Child) -> list[Outcome]:
        """Process the reports of a child, and keep it busy."""
        attempts = child.receive()
        for attempt in attempts:
            self._deadline.ended(attempt)
        outcomes = self._task_source.settle(attempts) if attempts else []
        self._failed_starts = 0 if attempts else self._failed_starts + (not child.alive)
        if not child.alive:
            self._remove(child)
        elif not self._deadline.draining():
            self._top_up(child)
        return outcomes

    def _ready(self) -> list[Child]:
        """Wait for children that have reported; once a round, return all children."""
        events = self._selector.select(max(0.0, self._next_round - time.monotonic()))
        if time.monotonic() < self._next_round:
            return [key.data for key, _ in events]
        self._next_round = time.monotonic() + _ROUND
        return list(self._children)

    def _assign(self) -> None:
        """Assign waiting tasks to idle or new children; otherwise take over unstarted tasks of another child."""
        while self._idle or len(self._children) < self._size:
            if not (self._task_source.stock() or self._reclaim()):
                return
            tasks = self._take(1 + self._task_source.ahead)
            if not tasks:
                return
            child = self._idle.pop() if self._idle else self._start()
            child.give(tasks)

    def _start(self) -> Child:
        """Start a child."""
        child = self._child_factory.start()
        self._children.add(child)
        self._selector.register(child.fileno(), selectors.EVENT_READ, child)
        return child

    def _remove(self, child: Child) -> None:
        """Forget a child that died; another is started in its place when there is a task for it."""
        logger.warning("%s; it is replaced", child.end)
        if self._failed_starts == _FAILED_STARTS:
            raise CryotileError(
                f"{_FAILED_STARTS} child processes in a row died before they started a task, the last: {child.end}; "
                "see their messages above, then run again to go on"
            )
        self._selector.unregister(child.fileno())
        self._children.discard(child)
        self._idle.discard(child)
        self._task_source.put_back(child.tasks)

    def _top_up(self, child: Child) -> None:
        """Give a child more tasks when it runs low."""
        wanted = max(
            1 + self._task_source.ahead, min(_MOST_AHEAD, int(_AHEAD / max(child.pace, 1e-9)))
        )
        if 2 * len(child.tasks) <= wanted and (tasks := self._take(wanted - len(child.tasks))):
            child.give(tasks)
        if not child.tasks:
            self._idle.add(child)

    def _take(self, count: int) -> list[Task]:
        """Take tasks for one child."""
        # At most half of a fair share of the remaining tasks, so that all children end together.
        share = max(1, self._task_source.stock() // (2 * self._size))
        return self._task_source.take(min(count, share), self._deadline.may_start)

    def _reclaim(self) -> bool:
        """Take back the unstarted tasks of the child that has most."""
        richest = max(self._children, key=lambda child: len(child.tasks), default=None)
        if richest is not None and len(richest.tasks) > 1:
            self._task_source.put_back(richest.take_back())
        return self._task_source.stock() > 0

    def _drain(self) -> Iterator[Outcome]:
        """Take back unstarted tasks and, when the deadline is over, running ones."""
        for child in self._children:
            self._task_source.put_back(child.take_back())
            if self._deadline.over() and child.tasks:
                # Tasks that ended a moment ago count; the rest is killed when the child factory closes.
                yield from self._task_source.settle(child.receive())
                self._task_source.put_back(child.tasks)
                child.tasks.clear()
                child.kill()
