"""The backend ``local:N``: N supervised children of this process, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cryotile.backends import pool
from cryotile.backends.base import DEFAULTS, Context, TaskQueue
from cryotile.farm.task import Outcome, Task, Work

__all__ = ["LocalBackend"]


class LocalBackend:
    """Push tasks to child processes; a child that dies costs its task one attempt and is replaced.

    Parameters
    ----------
    argument : str
        Number of children; empty for one per usable core.
    context : Context
        Its stall limit is used: a child that makes no progress for so long is killed, which costs its task an attempt.

    Raises
    ------
    InvalidValue
        The number of children is not a positive integer.
    """

    def __init__(self, argument: str = "", context: Context = DEFAULTS) -> None:
        self.children = pool.pool_size("local", argument)
        self.stall = context.stall

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Do the tasks in children; see :meth:`cryotile.backends.Backend.run`."""
        if tasks:
            yield from pool.work(TaskQueue(tasks), work, children=self.children, stall=self.stall)
