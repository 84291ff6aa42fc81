"""Winding down: asked to stop, a farm starts nothing more and lets what runs end, within a grace.

Schedulers announce the end of a job by SIGTERM and kill it some 30 s later.  The program's handler of that signal calls
:func:`begin`; farms that are :func:`listening` look at :func:`begun` and :func:`overdue` from time to time.  A task
that is cut short by it is no failed attempt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite

from cryotile.errors import InvalidValue

__all__ = ["GRACE", "begin", "begun", "listening", "overdue"]

GRACE = 20.0
"""Seconds that running tasks get to end in; ``CRYOTILE_GRACE`` in the environment sets another number."""


class _State:
    """How many farms listen in this process, and when (monotonic clock) what they run must have ended."""

    listeners = 0
    deadline: float | None = None
    grace = GRACE


def begin() -> bool:
    """Ask the farms at work in this process to wind down; safe in a signal handler.

    Returns
    -------
    bool
        False when no farm listens, or when they were asked before: whoever asks twice wants the end at once.
    """
    if not _State.listeners or _State.deadline is not None:
        return False
    _State.deadline = time.monotonic() + _State.grace
    return True


def begun() -> bool:
    """Tell whether farms are to start nothing more."""
    return _State.deadline is not None


def overdue() -> bool:
    """Tell whether the grace is over, so that what still runs is to be killed."""
    return _State.deadline is not None and time.monotonic() >= _State.deadline


@contextmanager
def listening() -> Iterator[None]:
    """Promise, for the time of a ``with`` block, to look at :func:`begun` at least once a second.

    Raises
    ------
    InvalidValue
        ``CRYOTILE_GRACE`` is not a number of seconds.
    """
    _State.grace = _grace()
    _State.listeners += 1
    try:
        yield
    finally:
        _State.listeners -= 1
        if not _State.listeners:
            _State.deadline = None


def _grace() -> float:
    """Read the grace from the environment."""
    text = os.environ.get("CRYOTILE_GRACE", str(GRACE))
    try:
        grace = float(text)
    except ValueError:
        grace = float("nan")
    if not (isfinite(grace) and grace >= 0):
        raise InvalidValue(
            f"CRYOTILE_GRACE is {text!r}, not a number of seconds; set e.g. CRYOTILE_GRACE={GRACE:g}, or unset it"
        )
    return grace
