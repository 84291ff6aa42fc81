"""Work that does nothing, where a child process finds it."""

from __future__ import annotations

from cryotile.farm.task import Progress, Task

__all__ = ["do_nothing"]


def do_nothing(task: Task, progress: Progress) -> None:
    """Be an empty task."""
