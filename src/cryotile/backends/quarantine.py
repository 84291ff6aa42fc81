"""Which hosts spoil tasks: where one task after the other fails that is well done elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cryotile.backends.base import Attempt

__all__ = ["Quarantine"]

SUSPICIOUS = 3
"""So many different tasks that fail in a row, and at once, make a host suspect."""

AT_ONCE = 10.0
"""Seconds within which an attempt on a broken host fails: a missing library, a full disk, a lost mount."""


class Quarantine:
    """Keeps tasks from the hosts where they failed, and from hosts where all fail.

    A suspect host gets no tasks until those that failed on it were tried on another: are they done there, the
    host is broken; do they fail there, too, it is the tasks that are.  Where there is one host only, it always works.
    """

    def __init__(self) -> None:
        self._workers: Counter[str] = Counter()
        self._failed_on: dict[int, set[str]] = {}
        self._streaks: dict[str, set[int]] = {}
        self._broken: set[str] = set()

    def join(self, host: str) -> None:
        """Count a worker in."""
        self._workers[host] += 1

    def leave(self, host: str) -> None:
        """Count a worker out."""
        self._workers[host] -= 1

    def learn(self, attempts: Iterable[Attempt]) -> set[str]:
        """Take note of attempts; the hosts that are broken, as these have shown."""
        found: set[str] = set()
        for attempt in attempts:
            index, host = attempt.task.index, attempt.host
            # Nearly always there is nothing to note.
            if attempt.error is None and not (self._failed_on or self._streaks):
                continue
            others = [
                name for name, streak in self._streaks.items() if name != host and index in streak
            ]
            if attempt.error is None:
                found.update(name for name in others if self._is_suspect(name))
                self._streaks.pop(host, None)
                self._failed_on.pop(index, None)
            else:
                for name in others:
                    self._streaks[name].discard(index)
                if attempt.seconds < AT_ONCE and not others:
                    self._streaks.setdefault(host, set()).add(index)
                self._failed_on.setdefault(index, set()).add(host)
        found -= self._broken
        self._broken |= found
        return found

    def admits(self, host: str) -> bool:
        """Tell whether a host is to get tasks."""
        return not self._is_suspect(host) or not any(
            count and not self._is_suspect(name) for name, count in self._workers.items()
        )

    def suits(self, host: str, index: int) -> bool:
        """Tell whether a host is to get this task."""
        tried = self._failed_on.get(index, ())
        return host not in tried or not any(
            count and name not in tried and self.admits(name)
            for name, count in self._workers.items()
        )

    def _is_suspect(self, host: str) -> bool:
        return host in self._broken or len(self._streaks.get(host, ())) >= SUSPICIOUS
