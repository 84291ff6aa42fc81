"""The worker on every rank but rank 0: it supervises one child process that does the tasks of rank 0."""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from cryotile.backends import drain
from cryotile.backends.child import Child, ChildFactory
from cryotile.backends.mpi import messages
from cryotile.backends.mpi.launch import own_environment
from cryotile.errors import CryotileError
from cryotile.farm.task import Task, Work

__all__ = ["Line", "serve"]

BEAT = 15.0
"""Seconds between signs of life."""

SILENCE = 300.0
"""Seconds without a message from rank 0, after the first one, after which rank 0 counts as lost."""

# Bounds of the pause (seconds) between polls for messages: short in a dialogue, long in the middle of a task.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.01

# Number of tasks with the child, fewer than fit into its pipe; the others wait here.
_FEED = 200

# Seconds for which reports wait for others to share a message, unless the child would run out of tasks.
_GATHER = 0.005

# Consecutive children that die before they start a task, after which the worker gives up on this host.
_FAILED_STARTS = 10

logger = logging.getLogger(__name__)


class Line(Protocol):
    """The methods of :class:`~cryotile.backends.mpi.transport.Transport` that workers and coordinator use."""

    def send(self, rank: int, message: bytes) -> None:
        """Send a message."""
        ...

    def receive(self) -> tuple[int, bytes] | None:
        """Return the next message and its source rank, or None."""
        ...

    def failed(self) -> set[int]:
        """Return the lost ranks."""
        ...

    def write_off(self, rank: int) -> None:
        """Do not wait for a rank at the end."""
        ...

    def flush(self) -> None:
        """Wait until messages are on their way."""
        ...


def serve(line: Line, work: Work, stall: float) -> None:
    """Follow the orders of rank 0 until it says stop; report to rank 0 however this ends.

    Parameters
    ----------
    line : Line
        Messages to and from rank 0.
    work : Work
        Does one task.
    stall : float
        Seconds without a progress call after which a child is killed.
    """
    reason = "left the farm"
    try:
        with (
            drain.listening(),
            ChildFactory(work, stall, environment=own_environment(os.environ)) as child_factory,
        ):
            _Worker(line, child_factory).serve()
    except CryotileError as error:
        # Not printed by each rank: rank 0 reports it, and goes on with the others.
        reason = str(error)
    except BaseException as error:
        reason = f"was ended by {type(error).__name__}"
        raise
    finally:
        line.send(0, messages.report(messages.LEFT, text=reason))
        line.flush()


class _Worker:
    """The supervisor of one child."""

    def __init__(self, line: Line, child_factory: ChildFactory) -> None:
        self._line = line
        self._child_factory = child_factory
        self._child: Child | None = None
        self._waiting: deque[Task] = deque()
        self._poll = select.poll()
        self._failed_starts = 0
        self._present = True
        self._leaving = False
        self._outbox = bytearray()
        self._last_sent = self._last_event = self._next_beat = time.monotonic()
        self._heard: float | None = None

    def serve(self) -> None:
        """Attend to rank 0 and the child in turn."""
        self._outbox += messages.report(messages.HELLO, text=socket.gethostname())
        while self._present:
            ready = self._listen() | self._attend()
            if drain.begun():
                self._drain()
            self._beat()
            self._send_if_due()
            self._rest(ready)

    def _listen(self) -> bool:
        """Follow the orders that have come; return whether there were any."""
        heard = False
        while self._present and (message := self._line.receive()) is not None:
            heard = True
            self._heard = time.monotonic()
            self._follow(message[1])
        return heard

    def _follow(self, order: bytes) -> None:
        kind = order[:1]
        if kind == messages.DO:
            self._waiting.extend(messages.tasks_in(order))
            self._feed()
        elif kind == messages.RECALL:
            self._give_back()
            self._outbox += messages.report(messages.SEARCHED)
        elif kind == messages.DRAIN:
            drain.begin()
        elif kind in (messages.STOP, messages.ABANDON):
            self._present = False

    def _feed(self) -> None:
        """Pass tasks to the child, and start it if there is none."""
        if self._child is None:
            if not self._waiting:
                return
            self._child = self._child_factory.start()
            self._poll = select.poll()
            self._poll.register(self._child.fileno(), select.POLLIN)
        room = _FEED - len(self._child.tasks)
        if self._waiting and 2 * room >= _FEED:
            count = min(room, len(self._waiting))
            self._child.give([self._waiting.popleft() for _ in range(count)])

    def _attend(self) -> bool:
        """Process the reports of the child; return whether there were any."""
        child = self._child
        if child is None:
            return False
        attempts = child.receive()
        for task, seconds, error, *_ in attempts:
            kind = messages.DONE if error is None else messages.FAILED
            self._outbox += messages.report(kind, task.index, seconds, error or "")
        if not child.alive:
            self._failed_starts = 0 if attempts else self._failed_starts + 1
            self._replace(child)
        elif attempts:
            self._failed_starts = 0
            self._feed()
        return bool(attempts)

    def _replace(self, child: Child) -> None:
        """Start another child for the tasks of one that died."""
        logger.warning("%s; it is replaced", child.end)
        if self._failed_starts == _FAILED_STARTS:
            raise CryotileError(
                f"{_FAILED_STARTS} child processes in a row died before they started a task, the last: {child.end}; "
                "see their messages above, then run again to go on"
            )
        self._child = None
        self._waiting.extendleft(reversed(child.tasks))
        self._feed()

    def _drain(self) -> None:
        """Return unstarted tasks and, when the grace period is over, running ones; then leave."""
        if not self._leaving:
            self._outbox += messages.report(messages.LEAVING)
            self._leaving = True
        self._give_back()
        if drain.overdue():
            # Tasks that ended a moment ago count; the rest is killed when the child factory closes, and not charged.
            self._attend()
            self._give_back()
            self._report_returned(self._child.tasks if self._child is not None else ())
            self._present = False
        elif self._child is None or not self._child.tasks:
            self._present = False

    def _give_back(self) -> None:
        """Return the unstarted tasks to rank 0."""
        if self._child is not None:
            self._report_returned(self._child.take_back())
        self._report_returned(self._waiting)
        self._waiting.clear()

    def _report_returned(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self._outbox += messages.report(messages.RETURNED, task.index)

    def _beat(self) -> None:
        """Report that this worker is alive and the progress of its task; check that rank 0 is alive."""
        now = time.monotonic()
        if now < self._next_beat:
            return
        self._next_beat = now + BEAT
        running = self._child is not None and self._child.tasks
        index = running[0].index if running else -1
        fraction = self._child.fraction if self._child is not None else 0.0
        self._outbox += messages.report(messages.PROGRESS, index, fraction)
        if 0 in self._line.failed() or (self._heard is not None and now - self._heard > SILENCE):
            logger.error("rank 0 is lost; run again to go on")
            self._present = False

    def _send_if_due(self) -> None:
        """Send the reports, unless more will follow soon."""
        if not self._outbox:
            return
        now = time.monotonic()
        ahead = len(self._waiting) + (len(self._child.tasks) if self._child is not None else 0)
        if (
            not self._present
            or 2 * len(self._outbox) >= ahead * _RECORD
            or now >= self._last_sent + _GATHER
        ):
            self._line.send(0, bytes(self._outbox))
            self._outbox.clear()
            self._last_sent = now

    def _rest(self, ready: bool) -> None:
        """Sleep until the child reports, or until the next poll for messages: later the longer none came."""
        now = time.monotonic()
        if ready:
            self._last_event = now
        pause = min(max(_SHORTEST_PAUSE, (now - self._last_event) / 3.0), _LONGEST_PAUSE)
        self._poll.poll(1000.0 * pause)


_RECORD = len(messages.report(messages.DONE))
