"""The backend ``local:N``: N supervised children of this process, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cryotile.backends import pool
from cryotile.backends.base import STALL, TaskQueue, checked_stall
from cryotile.farm.task import Outcome, Task, Work

__all__ = ["LocalBackend"]


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
        self.children = pool.pool_size("local", argument)
        self.stall = checked_stall(stall)

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Do the tasks in children; see :meth:`cryotile.backends.Backend.run`."""
        if tasks:
            yield from pool.work(TaskQueue(tasks), work, children=self.children, stall=self.stall)
