"""The backend ``serial``: all tasks one after another in this process, for debugging and small runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cryotile.backends.base import DEFAULTS, Context, TaskQueue, attempt
from cryotile.errors import InvalidValue
from cryotile.farm.task import Outcome, Task, Work

__all__ = ["SerialBackend"]


class SerialBackend:
    """Work in this process, so that a debugger sees the work; a crash of the work ends the run.

    Parameters
    ----------
    argument : str
        Must be empty.
    context : Context
        Not used: a process cannot end a hung task of its own.

    Raises
    ------
    InvalidValue
        There is an argument.
    """

    def __init__(self, argument: str = "", context: Context = DEFAULTS) -> None:  # noqa: ARG002 - built like all backends
        if argument:
            raise InvalidValue(
                f"backend 'serial:{argument}': serial takes no argument; write serial, or local:{argument} for children"
            )

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Do each task, up to three times; see :meth:`cryotile.backends.Backend.run`."""
        task_queue = TaskQueue(tasks)
        while task_queue.left():
            yield from task_queue.settle(
                [attempt(work, task, _ignore) for task in task_queue.take(1)]
            )


def _ignore(fraction: float) -> None:
    """Ignore a progress call: no other process waits for it."""
