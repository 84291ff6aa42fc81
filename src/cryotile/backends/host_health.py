"""Detect broken hosts: hosts where one task after another fails that succeeds on others.

Without this, a host with a missing library, a full disk or a lost mount would fail tasks faster than other hosts do
them.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from cryotile.backends.base import Attempt
from cryotile.farm.task import Outcome
from cryotile.ledgers import Lease, Ledger

__all__ = ["HostQuarantine", "OwnHostHealth"]

SUSPICIOUS = 3
"""Number of different tasks that must fail at once, in a row, to make a host suspect."""

AT_ONCE = 10.0
"""Seconds within which an attempt on a broken host fails: a missing library, a full disk, a lost mount."""

# Seconds between questions to the ledger, whose answers may need much reading.
_PATIENCE = 2.0

logger = logging.getLogger(__name__)


class OwnHostHealth:
    """The judgement of a ledger's worker on its own host.

    Failures within seconds are held back until a task succeeds here, which shows that the host is healthy, or until no
    other task waits.  When three different tasks have failed and other hosts work on the run, the tasks are released,
    uncharged, and the worker waits.  If another host completes them, this host is broken; if they fail there, too, or
    no host takes them, the worker goes on.

    Parameters
    ----------
    ledger : Ledger
        Tells the outcomes of tasks on other hosts.

    Attributes
    ----------
    broken : str or None
        Message for the user if this host is broken.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.broken: str | None = None
        self._ledger = ledger
        self._held: dict[Lease, Outcome] = {}
        self._asked: frozenset[int] = frozenset()
        self._until = 0.0
        self._next_question = time.monotonic()
        self._trusted = False

    def consider(self, lease: Lease, outcome: Outcome) -> dict[Lease, Outcome]:
        """Note how an attempt ended.

        Returns
        -------
        dict of Lease to Outcome
            Attempts to settle now; empty if this one is held back.
        """
        if outcome.error is None:
            self._asked = frozenset()
            self._trusted = False
            return {**self.settle(), lease: outcome}
        if self._trusted or outcome.seconds >= AT_ONCE:
            return {lease: outcome}
        self._held[lease] = outcome
        if self._asked or len(self._held) < SUSPICIOUS or self._others():
            return {}
        return self.settle()

    def settle(self) -> dict[Lease, Outcome]:
        """Return the attempts that were held back, to be settled as they are."""
        held, self._held = self._held, {}
        return held

    def doubt(self) -> list[Lease]:
        """Return the leases to release, uncharged, if this host is now suspect; from then on it :meth:`waits`."""
        if not self._held or (not self._asked and len(self._held) < SUSPICIOUS):
            return []
        held = self.settle()
        self._asked |= {lease.task.index for lease in held}
        self._until = time.monotonic() + max(lease.expiry for lease in held)
        self._next_question = time.monotonic() + _PATIENCE
        logger.warning(
            "tasks %s failed here at once; they are left to other hosts, and this host waits for their outcomes",
            sorted(self._asked),
        )
        return list(held)

    def waits(self) -> bool:
        """Tell whether this worker must not take tasks, for now or for good."""
        if self.broken is not None:
            return True
        if self._asked and time.monotonic() >= self._next_question:
            self._next_question = time.monotonic() + _PATIENCE
            self._judge(self._ledger.outcomes_elsewhere(self._asked))
        return bool(self._asked)

    def _others(self) -> bool:
        """Tell whether other hosts work on the run, asking the ledger from time to time."""
        if time.monotonic() < self._next_question:
            return False
        self._next_question = time.monotonic() + _PATIENCE
        return bool(self._ledger.outcomes_elsewhere(()))

    def _judge(self, outcomes_elsewhere: Mapping[str, Mapping[int, bool]]) -> None:
        done = {
            index: host
            for host, ended in outcomes_elsewhere.items()
            for index in ended
            if ended[index]
        }
        failed = [
            index for ended in outcomes_elsewhere.values() for index in ended if not ended[index]
        ]
        if done:
            index, host = min(done.items())
            self.broken = (
                f"host {socket.gethostname()} is broken: tasks {sorted(self._asked)} failed on it at once, and task "
                f"{index} was done on {host}; nothing was charged, repair this host or run without it"
            )
            logger.error("%s", self.broken)
        elif failed or time.monotonic() >= self._until:
            self._asked = frozenset()
            self._trusted = True


class HostQuarantine:
    """The judgement of a coordinator on all hosts: where a task may be tried, and which hosts are broken.

    A suspect host gets no tasks until another host has tried those that failed on it.  If they succeed there, the host
    is broken; if they fail there, too, the tasks are at fault.  A single host always gets tasks.
    """

    def __init__(self) -> None:
        self._workers: Counter[str] = Counter()
        self._failed_on: dict[int, set[str]] = {}
        self._streaks: dict[str, set[int]] = {}
        self._broken: set[str] = set()

    def join(self, host: str) -> None:
        """Add a worker."""
        self._workers[host] += 1

    def leave(self, host: str) -> None:
        """Remove a worker."""
        self._workers[host] -= 1

    def learn(self, attempts: Iterable[Attempt]) -> set[str]:
        """Note attempts; return the hosts that these have shown to be broken."""
        found: set[str] = set()
        for attempt in attempts:
            index, host = attempt.task.index, attempt.host
            # Usually there is nothing to note.
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
        """Tell whether a host may get tasks."""
        return not self._is_suspect(host) or not any(
            count and not self._is_suspect(name) for name, count in self._workers.items()
        )

    def suits(self, host: str, index: int) -> bool:
        """Tell whether a host may get this task, which other hosts should try first if it failed here."""
        tried = self._failed_on.get(index, ())
        return host not in tried or not any(
            count and name not in tried and self.admits(name)
            for name, count in self._workers.items()
        )

    def _is_suspect(self, host: str) -> bool:
        return host in self._broken or len(self._streaks.get(host, ())) >= SUSPICIOUS
