"""Is it the tasks, or this host?  A worker whose tasks all fail at once finds out before it fails them all."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping

from cryotile.backends.quarantine import AT_ONCE, SUSPICIOUS
from cryotile.farm.task import Outcome
from cryotile.ledgers import Lease, Ledger

__all__ = ["Suspicion"]

# Seconds between questions to the ledger: it may have to read a lot for the answer.
_PATIENCE = 2.0

logger = logging.getLogger(__name__)


class Suspicion:
    """What a worker of a ledger thinks of its own host.

    Failures that come at once are held back until something is done here, which shows that the host is well, or
    nothing else waits.  When there are three of different tasks, and other hosts work on the run, the tasks are
    released, uncharged, and the worker waits: are they done elsewhere, it is broken; do they fail there, too, or does
    nobody take them, it goes on.

    Parameters
    ----------
    ledger : Ledger
        Knows what others have made of a task.

    Attributes
    ----------
    broken : str or None
        What to tell the user when this host is broken.
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
        """Take note of the end of an attempt.

        Returns
        -------
        dict of Lease to Outcome
            What is to be settled now: nothing if this is held back.
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
        """Return what was held back, to be settled as it is."""
        held, self._held = self._held, {}
        return held

    def doubt(self) -> list[Lease]:
        """Return the leases to be released, uncharged, if this host is now suspect; from then on it :meth:`waits`."""
        if not self._held or (not self._asked and len(self._held) < SUSPICIOUS):
            return []
        held = self.settle()
        self._asked |= {lease.task.index for lease in held}
        self._until = time.monotonic() + max(lease.expiry for lease in held)
        self._next_question = time.monotonic() + _PATIENCE
        logger.warning(
            "tasks %s failed here at once; they are left to other hosts, and this one waits for how they fare",
            sorted(self._asked),
        )
        return list(held)

    def waits(self) -> bool:
        """Tell whether this worker must take no task, for now or for good."""
        if self.broken is not None:
            return True
        if self._asked and time.monotonic() >= self._next_question:
            self._next_question = time.monotonic() + _PATIENCE
            self._judge(self._ledger.outcomes_elsewhere(self._asked))
        return bool(self._asked)

    def _others(self) -> bool:
        """Tell whether other hosts work on the run."""
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
                f"{index} was done on {host}; nothing was charged, mend this host or leave it out"
            )
            logger.error("%s", self.broken)
        elif failed or time.monotonic() >= self._until:
            self._asked = frozenset()
            self._trusted = True
