"""The interface of backends, the context they are built from, and the attempts and queue that several share."""

from __future__ import annotations

import logging
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cryotile.errors import InvalidValue, UnwritablePath, number_of
from cryotile.farm.task import ATTEMPTS, LEASE, THUMBNAIL, Outcome, Progress, Task, Work

__all__ = [
    "ATTEMPTS",
    "DEFAULTS",
    "STALL",
    "Attempt",
    "Backend",
    "Context",
    "TaskQueue",
    "attempt",
]

STALL = 900.0
"""Seconds without a progress call after which an attempt counts as hung."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What a backend needs to know of the run it works for, whichever backend it is.

    Attributes
    ----------
    home : Path or None
        A directory that all members of the farm see, if there is one.
    key : str
        Name of the task list; another list has another key.
    stall : float
        Seconds without a progress call after which an attempt counts as hung.
    lease : float
        Seconds without a sign of life after which others take over the tasks of a worker, where tasks are leased.
    task_map : callable or None
        Returns where the tasks lie, for a server that shows them: the body of its call ``PUT /map``.

    Raises
    ------
    InvalidValue
        The stall limit or the lease is not a positive number of seconds.
    """

    home: Path | None = None
    key: str = ""
    stall: float = STALL
    lease: float = LEASE
    task_map: Callable[[], Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        remedies = {
            "stall limit": f"more than the longest task goes without a progress call, e.g. {STALL:g}",
            "lease": "e.g. 60: after so long without a sign of life others take over a worker's tasks",
        }
        for seconds, (name, remedy) in zip((self.stall, self.lease), remedies.items(), strict=True):
            if not (isfinite(number_of(name, seconds)) and seconds > 0):
                raise InvalidValue(
                    f"{name} {seconds} s is not a positive number; give seconds, {remedy}"
                )


DEFAULTS = Context()
"""The context of a backend without a shared directory, with the default limits."""


class Backend(Protocol):
    """A way to hand tasks to workers.

    A class is built as ``Class(argument, context)``: ``argument`` is the part of the user's string after the scheme,
    ``context`` a :class:`Context`.  Two members are optional:

    - ``share(tasks)`` returns the tasks of a frozen list that this process answers for.  A backend whose members cannot
      talk to each other has it; its caller passes only tasks of the share to :meth:`run`.  Without it a process answers
      for the whole list.
    - ``has_leases``, a class attribute, is True if the backend uses ``context.lease``.
    """

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Work on ``tasks`` and yield one outcome, after its last attempt, for each that this process saw through.

        Parameters
        ----------
        tasks : sequence of Task
            In the order in which they start, costliest first; each index once.
        work : Work
            Does one task; picklable.

        Yields
        ------
        Outcome
            In the order in which the tasks end.
        """
        ...


class Attempt(NamedTuple):
    """One ended try of a task: its seconds, the traceback or reason if it failed, the host, and the thumbnail."""

    task: Task
    seconds: float
    error: str | None
    host: str = socket.gethostname()
    thumbnail: bytes | None = None


def attempt(work: Work, task: Task, progress: Progress) -> Attempt:
    """Try ``task`` once in this process; any exception that it raises becomes the attempt's error.

    Raises
    ------
    UnwritablePath
        The result cannot be saved (full disk, permissions): every other task would fail, too, so none is charged.
    """
    start = time.perf_counter()
    error = thumbnail = None
    try:
        thumbnail = work(task, progress)
    except UnwritablePath:
        raise
    except Exception:  # noqa: BLE001 - the border of one attempt: any failure of the work is an outcome
        error = traceback.format_exc()
    seconds = time.perf_counter() - start
    # Work may return anything: it need not know of thumbnails.
    if not isinstance(thumbnail, bytes) or not 0 < len(thumbnail) <= THUMBNAIL:
        thumbnail = None
    return Attempt(task, seconds, error, thumbnail=thumbnail)


class TaskQueue:
    """The waiting tasks of a list in memory, in their order, and the number of failed attempts of each.

    Parameters
    ----------
    tasks : sequence of Task
        All tasks, in the order in which they start.

    Attributes
    ----------
    ahead : int
        Number of tasks a child may have queued behind a long one: one, which an idle child can take over.
    """

    ahead = 1

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._left = len(tasks)
        self._waiting = deque(tasks)
        self._unfit = False
        self._failures: dict[int, int] = {}

    def over(self) -> bool:
        """Tell whether nothing more will be handed out: no task waits, or none of the waiting tasks fits."""
        return self._unfit or not self._waiting

    def stock(self) -> int:
        """Return the number of waiting tasks."""
        return len(self._waiting)

    def take(self, count: int, fits: Callable[[Task], bool] | None = None) -> list[Task]:
        """Hand out the next tasks that fit, at most ``count``."""
        taken: list[Task] = []
        passed: list[Task] = []
        while self._waiting and len(taken) < count:
            task = self._waiting.popleft()
            (taken if fits is None or fits(task) else passed).append(task)
        self._waiting.extendleft(reversed(passed))
        self._unfit = bool(passed) and not taken
        return taken

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Let tasks wait again, at the head of the queue, without charging an attempt: they never started."""
        self._waiting.extendleft(reversed(tasks))

    def report(self, running: Mapping[Task, float]) -> list[Outcome]:  # noqa: ARG002 - part of TaskSource
        """Return no outcomes: a list in memory needs no reports of running tasks."""
        return []

    def settle(self, attempts: Sequence[Attempt]) -> list[Outcome]:
        """Count attempts; return the outcomes of the tasks for which they were the last."""
        return [outcome for each in attempts if (outcome := self._settle(each)) is not None]

    def left(self) -> int:
        """Return the number of tasks without an outcome, waiting or handed out."""
        return self._left

    def _settle(self, attempt: Attempt) -> Outcome | None:
        task, seconds, error, host, _ = attempt
        attempts = self._failures.get(task.index, 0) + 1
        if error is not None and attempts < ATTEMPTS:
            reason = error.rstrip().rpartition("\n")[2]
            logger.warning(
                "task %d: attempt %d of %d failed: %s", task.index, attempts, ATTEMPTS, reason
            )
            self._failures[task.index] = attempts
            # At the head: a failed task is still the costliest of those that wait.
            self._waiting.appendleft(task)
            return None
        self._left -= 1
        return Outcome(task, seconds, attempts, host, error)
