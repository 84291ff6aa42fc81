"""The backend ``serial``: all tasks one after the other in this process, for debugging and small runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cryotile.backends.base import STALL, TaskQueue, attempt, checked_stall
from cryotile.errors import InvalidValue
from cryotile.farm.task import Outcome, Task, Work

__all__ = ["SerialBackend"]


class SerialBackend:
    """Works in this process, so that a debugger sees the work and a crash of the work ends the run.

    Parameters
    ----------
    argument : str
        Empty.
    home : Path, optional
        Not used.
    key : str
        Not used.
    stall : float
        Checked, but without effect: a process cannot end a hung task of its own.

    Raises
    ------
    InvalidValue
        There is an argument, or the stall limit is not positive.
    """

    def __init__(
        self,
        argument: str = "",
        home: Path | None = None,  # noqa: ARG002 - all backends are built alike
        key: str = "",  # noqa: ARG002
        *,
        stall: float = STALL,
    ) -> None:
        if argument:
            raise InvalidValue(
                f"backend 'serial:{argument}': serial takes no argument; write serial, or local:{argument} for children"
            )
        checked_stall(stall)

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Do each task, up to three times; see :meth:`cryotile.backends.Backend.run`."""
        task_queue = TaskQueue(tasks)
        while task_queue.left():
            yield from task_queue.settle(
                [attempt(work, task, _ignore) for task in task_queue.take(1)]
            )


def _ignore(fraction: float) -> None:
    """Take a progress call that nobody waits for."""
