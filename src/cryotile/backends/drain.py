"""Draining: a farm that is asked to stop starts nothing more and lets running tasks end within a grace period.

Schedulers announce the end of a job by SIGTERM and kill it some 30 s later.  The program's handler of that signal calls
:func:`begin`; farms that are :func:`listening` check :func:`begun` and :func:`overdue` from time to time.  A task
that is cut short by a drain is not charged an attempt.
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
"""Seconds that running tasks get to end; the environment variable ``CRYOTILE_GRACE`` sets another number."""


class _Drain:
    """The number of farms that listen in this process, and the time (monotonic clock) when running tasks are killed."""

    listeners = 0
    deadline: float | None = None
    grace = GRACE


def begin() -> bool:
    """Ask the farms of this process to drain; safe in a signal handler.

    Returns
    -------
    bool
        False if no farm listens, or if they were asked before: a second request means that the end is wanted at once.
    """
    if not _Drain.listeners or _Drain.deadline is not None:
        return False
    _Drain.deadline = time.monotonic() + _Drain.grace
    return True


def begun() -> bool:
    """Tell whether farms must start nothing more."""
    return _Drain.deadline is not None


def overdue() -> bool:
    """Tell whether the grace period is over, so that running tasks must be killed."""
    return _Drain.deadline is not None and time.monotonic() >= _Drain.deadline


@contextmanager
def listening() -> Iterator[None]:
    """Accept drain requests within a ``with`` block, which must check :func:`begun` at least once a second.

    Raises
    ------
    InvalidValue
        ``CRYOTILE_GRACE`` is not a number of seconds.
    """
    _Drain.grace = _grace()
    _Drain.listeners += 1
    try:
        yield
    finally:
        _Drain.listeners -= 1
        if not _Drain.listeners:
            _Drain.deadline = None


def _grace() -> float:
    """Read the grace period from the environment."""
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
