"""The backend ``local:N``: N supervised children of this process, on this machine."""

from __future__ import annotations

import logging
import os
import selectors
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryotile.backends.base import STALL, Agenda, checked_stall
from cryotile.backends.child import Child, Nursery
from cryotile.errors import CryotileError, InvalidValue
from cryotile.task import Outcome, Task, Work

__all__ = ["LocalBackend", "usable_cores"]

# A child gets as many tasks ahead as take about this long (seconds): at least one, so that it never waits for the
# parent, and few enough for one write.
_AHEAD = 0.01
_MOST_AHEAD = 64

# Seconds between looks at silent children.
_ROUND = 0.5

# So many children in a row that die before they start a task mean that none ever will.
_FUTILE_STARTS = 10

logger = logging.getLogger(__name__)


class LocalBackend:
    """Pushes tasks to child processes; one that dies costs its task an attempt and is replaced.

    Parameters
    ----------
    argument : str
        Number of children; empty for one per usable core.
    home : Path, optional
        Not used.
    key : str
        Not used.
    stall : float
        Seconds without a progress call after which a child is ended, which costs its task an attempt.

    Raises
    ------
    InvalidValue
        The number of children is not a positive integer, or the stall limit is not positive.
    """

    def __init__(
        self,
        argument: str = "",
        home: Path | None = None,  # noqa: ARG002 - all backends are built alike
        key: str = "",  # noqa: ARG002
        *,
        stall: float = STALL,
    ) -> None:
        if argument and not (argument.isdecimal() and int(argument) > 0):
            raise InvalidValue(
                f"backend 'local:{argument}': the number of children must be a positive integer; write local:4, or "
                f"local for one per usable core ({usable_cores()} here)"
            )
        self.children = int(argument) if argument else usable_cores()
        self.stall = checked_stall(stall)

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Do the tasks in children; see :meth:`cryotile.backends.Backend.run`."""
        if tasks:
            with Nursery(work, self.stall) as nursery, selectors.DefaultSelector() as selector:
                yield from _Crew(nursery, selector, Agenda(tasks)).outcomes(self.children)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Crew:
    """The children at work on an agenda."""

    def __init__(self, nursery: Nursery, selector: selectors.BaseSelector, agenda: Agenda) -> None:
        self._nursery = nursery
        self._selector = selector
        self._agenda = agenda
        self._children: set[Child] = set()
        self._idle: set[Child] = set()
        self._futile = 0
        self._next_round = time.monotonic() + _ROUND

    def outcomes(self, size: int) -> Iterator[Outcome]:
        """Work through the agenda with ``size`` children, or as many as there are tasks."""
        for _ in range(min(size, len(self._agenda))):
            self._hire()
        while self._agenda.unsettled:
            for child in self._stirring():
                attempts = child.receive()
                settled = [self._agenda.settle(attempt) for attempt in attempts]
                self._futile = 0 if attempts else self._futile + (not child.alive)
                if child.alive:
                    self._feed(child)
                else:
                    self._replace(child)
                yield from (outcome for outcome in settled if outcome is not None)
            self._employ_the_idle()

    def _stirring(self) -> list[Child]:
        """Wait for children that have something to tell; once a round, these are all."""
        events = self._selector.select(max(0.0, self._next_round - time.monotonic()))
        if time.monotonic() < self._next_round:
            return [key.data for key, _ in events]
        self._next_round = time.monotonic() + _ROUND
        return list(self._children)

    def _hire(self) -> None:
        """Start a child and give it its first tasks."""
        child = self._nursery.start()
        self._children.add(child)
        self._selector.register(child.fileno(), selectors.EVENT_READ, child)
        self._feed(child)

    def _replace(self, child: Child) -> None:
        """Let another child go on in place of one that died."""
        logger.warning("%s; it is replaced", child.end)
        if self._futile == _FUTILE_STARTS:
            raise CryotileError(
                f"{_FUTILE_STARTS} child processes in a row died before they started a task, the last: {child.end}; "
                "see their messages above, then run again to go on"
            )
        self._selector.unregister(child.fileno())
        self._children.discard(child)
        self._idle.discard(child)
        self._agenda.put_back(child.tasks)
        if self._agenda:
            self._hire()

    def _feed(self, child: Child) -> None:
        """Top up the tasks that are with a child when it runs low."""
        wanted = max(2, min(_MOST_AHEAD, int(_AHEAD / max(child.pace, 1e-9))))
        if 2 * len(child.tasks) <= wanted:
            # No more than half of a fair share of what is left, so that all children end together.
            share = max(1, len(self._agenda) // (2 * len(self._children)))
            child.give(self._agenda.take(min(wanted - len(child.tasks), share)))
        if not child.tasks:
            self._idle.add(child)

    def _employ_the_idle(self) -> None:
        """Give the idle what waits or, when nothing does, what another child has but has not started."""
        while self._idle and (self._agenda or self._reclaim()):
            self._feed(self._idle.pop())

    def _reclaim(self) -> bool:
        """Take back the tasks ahead of the child that has most of them."""
        richest = max(self._children, key=lambda child: len(child.tasks))
        if len(richest.tasks) > 1:
            self._agenda.put_back(richest.take_back())
        return len(self._agenda) > 0
