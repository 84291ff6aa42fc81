"""The time a pool has: until the job of this process is over, or until it is asked to stop."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from cryotile.backends import drain
from cryotile.backends.base import Attempt
from cryotile.backends.walltime import Walltime
from cryotile.errors import Drained, Unfinished
from cryotile.farm.task import Task

__all__ = ["Deadline"]


class Deadline:
    """How long a pool may go on; a context manager, within which :func:`cryotile.backends.drain.begin` is heard.

    Parameters
    ----------
    walltime : Walltime, optional
        What is left of the job; by default the scheduler's word.
    """

    def __init__(self, walltime: Walltime | None = None) -> None:
        self._walltime = walltime or Walltime.of_this_job()
        self._refused = False
        self._listening = drain.listening()

    def may_start(self, task: Task) -> bool:
        """Tell whether a task would end in time, if it started now."""
        fits = self._walltime.fits(task)
        self._refused |= not fits
        return fits

    def ended(self, attempt: Attempt) -> None:
        """Hear of an attempt, to learn how long tasks take."""
        self._walltime.learn(attempt)

    def draining(self) -> bool:
        """Tell whether the pool is to start nothing more, and to leave when what is running has ended."""
        return drain.begun()

    def over(self) -> bool:
        """Tell whether the pool is to leave at once: what is still running is ended and not charged."""
        return drain.overdue()

    def check_out(self, left: int) -> None:
        """Say why the pool leaves while tasks are left, if it does.

        Parameters
        ----------
        left : int
            Tasks without an outcome.

        Raises
        ------
        Drained
            It was asked to stop.
        Unfinished
            No task that is left fits in what is left of the job.
        """
        if self.draining() and left:
            raise Drained(
                f"stopped when asked to (SIGTERM) with {left} tasks left, none of them charged an attempt; "
                "the same command goes on"
            )
        if self._refused and left:
            raise Unfinished(
                f"{left} tasks are left that would not end within the time of this job; run or submit again to go on, "
                "with more time if it is always the same ones"
            )

    def __enter__(self) -> Self:
        self._listening.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.__exit__(kind, error, trace)
