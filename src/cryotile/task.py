"""What a farm hands out and gets back: integers, fractions and outcomes, never arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Outcome", "Progress", "Task", "Work"]


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of a run, known to a farm by its index alone.

    Attributes
    ----------
    index : int
        Position in the frozen plan.
    cost : float
        Expected work in any unit (for tiles: expected points visited); orders the work, dearest first.
    """

    index: int
    cost: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended.

    Attributes
    ----------
    task : Task
        The task.
    seconds : float
        Duration of the last attempt, seconds.
    attempts : int
        Attempts made, at least 1.
    host : str
        Name of the host of the last attempt.
    error : str or None
        Traceback or reason of the last failed attempt; None when the work is saved.
    """

    task: Task
    seconds: float
    attempts: int
    host: str
    error: str | None = None


Progress = Callable[[float], None]
"""Called by work with the fraction done, 0 to 1; also keeps a lease alive."""

Work = Callable[[Task, Progress], None]
"""Does one task and returns when its result is saved.  Picklable: children are spawned, never forked."""
