"""The task_source of a pool that works for a ledger: leases in hand, renewed in time, and settled as attempts end."""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

from cryotile.backends.base import Attempt
from cryotile.backends.host_health import Suspicion
from cryotile.errors import CryotileError
from cryotile.farm.task import ATTEMPTS, Outcome, Task
from cryotile.ledgers import Ending, Fits, Lease, Ledger
from cryotile.processes import backoff

__all__ = ["LedgerSource"]

# Leases for about so many seconds of work are claimed at a time: fewer claims for tiny tasks, and at the end of the run
# no worker sits on what others could do.
_HOARD = 0.25
_MOST = 1024

# Attempts that end within so many seconds are settled together, with the next claim where possible.  If the ledger
# counts leases, the start of a shorter task is not reported.  A worker that dies costs such a task no attempt; but the
# next one that gets it knows that it came back, runs it alone, and reports it first.
_SHORT = 0.1

# Behind a task that takes longer (seconds) none is queued: another worker might do it sooner.
_LONG = 1.0

# A lease is renewed so many times before it would expire, so that a busy file system may delay a few of them.
_RENEWALS = 5

# Seconds between looks when nothing waits: from the first to the most patient.
_PAUSE = 0.25, 5.0

logger = logging.getLogger(__name__)


class LedgerSource:
    """Leases of a ledger as the task_source of a pool; see :class:`cryotile.backends.pool.TaskSource`.

    Parameters
    ----------
    ledger : Ledger
        The tasks of the run; enrolled.
    children : int
        How many children the pool has.
    """

    def __init__(self, ledger: Ledger, *, children: int) -> None:
        self._ledger = ledger
        self._children = children
        self._leases: dict[int, Lease] = {}
        self._hand: deque[Lease] = deque()
        self._at_work: set[int] = set()
        self._started: set[Lease] = set()
        self._seen: dict[Lease, float] = {}
        self._ended: dict[Lease, Outcome] = {}
        self._outcomes: list[Outcome] = []
        self._suspicion = Suspicion(ledger)
        self._pace = _LONG
        self._over = self._unfit = False
        self._fits: Fits | None = None
        self._pauses = backoff(*_PAUSE)
        self._next_look = self._next_renewal = self._next_settling = time.monotonic()

    @property
    def ahead(self) -> int:
        """How many tasks a child may have queued behind one: none behind a long one."""
        return int(self._pace < _LONG)

    def over(self) -> bool:
        """Tell whether the run is over, or none of what waits fits, or this worker is broken."""
        if self._hand or self._outcomes or self._ended:
            return False
        return self._over or self._unfit or self._suspicion.broken is not None

    def stock(self) -> int:
        """Return how many leases are in hand, after a claim if they run low."""
        wanted = self._wanted()
        low = 4 * len(self._hand) <= wanted
        if low and time.monotonic() >= self._next_look and not self._closed():
            self._look(wanted)
        return len(self._hand)

    def take(self, count: int, fits: Callable[[Task], bool]) -> list[Task]:
        """Hand out the next tasks that fit; those that do not are released, for workers with more time."""
        taken: list[Task] = []
        unfit: list[Lease] = []
        while self._hand and len(taken) < count:
            lease = self._hand.popleft()
            if not fits(lease.task):
                unfit.append(lease)
            elif not _may_kill(lease):
                taken.append(lease.task)
            else:
                # It goes alone, and behind no other: were a worker to die at it again, nothing else is blamed.
                if taken or len(self._at_work) >= self._children:
                    self._hand.appendleft(lease)
                elif self._announce(lease):
                    taken.append(lease.task)
                break
        self._at_work.update(task.index for task in taken)
        if unfit:
            self._give_back(unfit)
            # From now on only what fits is claimed.
            self._fits = fits
        return taken

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Keep the leases of tasks that were not started, at the head."""
        self._at_work.difference_update(task.index for task in tasks)
        leases = [self._leases[task.index] for task in tasks if task.index in self._leases]
        self._hand.extendleft(reversed(leases))

    def report(self, running: Mapping[Task, float]) -> list[Outcome]:
        """Tell the ledger what was started, and from time to time that all leases are still wanted."""
        fractions: dict[Lease, float | None] = {
            lease: fraction
            for task, fraction in running.items()
            if (lease := self._leases.get(task.index)) is not None
        }
        now = time.monotonic()
        if now >= self._next_renewal:
            fractions = dict.fromkeys(self._leases.values()) | fractions
            expiry = min((lease.expiry for lease in fractions), default=0.0)
            self._next_renewal = now + max(expiry / _RENEWALS, _PAUSE[0])
        else:
            fractions = {lease: fractions[lease] for lease in self._fresh(fractions, now)}
        if fractions:
            self._renew(fractions)
        if not running or now >= self._next_settling or self._started & self._ended.keys():
            # At once if it was told to run: were this worker to die now, it would be charged.
            self._turn_in()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def settle(self, attempts: Sequence[Attempt]) -> list[Outcome]:
        """Settle attempts, now or with the next claim; the outcomes of tasks that are done or have failed for good."""
        for task, seconds, error, host in attempts:
            self._pace = (self._pace + seconds) / 2
            self._at_work.discard(task.index)
            lease = self._leases.get(task.index)
            if lease is not None:
                outcome = Outcome(task, seconds, lease.attempt, host, error)
                self._ended |= self._suspicion.consider(lease, outcome)
        if doubted := self._suspicion.doubt():
            self._give_back([*doubted, *self._hand])
        # They are settled with the next claim, at once if the hand is empty, or else by the next reports.
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def left(self) -> int:
        """Return how many tasks have no outcome yet."""
        return self._ledger.unsettled()

    def release(self) -> None:
        """Hand back all leases; what is not settled yet is tried again, uncharged: who leaves does not wait."""
        self._ended.clear()
        self._give_back(list(self._leases.values()))

    def check_out(self) -> None:
        """Say why this worker leaves, if it is broken.

        Raises
        ------
        CryotileError
            Tasks fail here that are done on another host.
        """
        if self._suspicion.broken is not None:
            raise CryotileError(self._suspicion.broken)

    def _closed(self) -> bool:
        """Tell whether no more may be claimed."""
        return self._over or self._unfit or self._suspicion.waits()

    def _wanted(self) -> int:
        """Number of leases that should be in hand."""
        at_work = len(self._leases) - len(self._ended) - len(self._hand)
        idle = self._children * (1 + self.ahead) - at_work
        return max(1, idle, min(_MOST, int(_HOARD * self._children / max(self._pace, 1e-9))))

    def _look(self, wanted: int) -> None:
        """Claim leases or, when there are none, find out whether the run is over."""
        leases = self._claim(wanted - len(self._hand))
        # Nothing that fits waits, and as time goes by less will.
        self._unfit |= self._fits is not None and not leases
        fatal = {lease: _died_at(lease) for lease in leases if lease.attempt > ATTEMPTS}
        self._leases.update((lease.task.index, lease) for lease in leases)
        self._hand.extend(lease for lease in leases if lease not in fatal)
        if leases:
            self._pauses = backoff(*_PAUSE)
        elif held_back := self._suspicion.settle():
            # There is nothing else to try, so these are tried again, here if need be.
            fatal = held_back
        else:
            self._over = self._ledger.unsettled() == 0
            self._next_look = time.monotonic() + next(self._pauses)
        self._ended |= fatal
        if fatal:
            self._turn_in()

    def _claim(self, n: int) -> list[Lease]:
        """Claim leases, in exchange for those that have ended if that is one question."""
        if self._fits is not None:
            self._turn_in()
            return self._ledger.claim_fitting(n, self._fits)
        if not self._ended:
            return self._ledger.claim(n)
        lost, leases = self._ledger.exchange(self._endings(), n)
        self._conclude(lost)
        return leases

    def _turn_in(self) -> None:
        """Settle what has ended."""
        if self._ended:
            self._conclude(self._ledger.settle(self._endings()))

    def _endings(self) -> dict[str, Ending]:
        """Return what the ledger must know of the attempts that have ended."""
        return {lease.id: Ending(o.seconds, o.error) for lease, o in self._ended.items()}

    def _conclude(self, lost: Collection[str]) -> None:
        """Note what became for good of tasks that were settled."""
        ended, self._ended = self._ended, {}
        self._next_settling = time.monotonic() + _SHORT
        self._forget(ended)
        for lease, outcome in ended.items():
            if lease.id in lost:
                logger.warning(
                    "task %d: its lease was lost, another worker has it", lease.task.index
                )
            elif outcome.error is not None and lease.attempt < ATTEMPTS:
                reason = outcome.error.rstrip().rpartition("\n")[2]
                logger.warning(
                    "task %d: attempt %d of %d failed: %s",
                    *(lease.task.index, lease.attempt, ATTEMPTS, reason),
                )
                self._next_look = time.monotonic()
            else:
                self._outcomes.append(outcome)
        if not self._leases:
            self._next_look = time.monotonic()

    def _fresh(self, running: Mapping[Lease, float | None], now: float) -> list[Lease]:
        """Return the leases whose start is to be told."""
        fresh = [lease for lease in running if lease not in self._started]
        self._seen = {lease: self._seen.get(lease, now) for lease in fresh}
        if self._pace >= _SHORT:
            return fresh
        return [
            lease
            for lease in fresh
            if lease.lease_count is None or now - self._seen[lease] >= _SHORT
        ]

    def _announce(self, lease: Lease) -> bool:
        """Tell that a task is to run, and that those before it have ended; False when its lease is lost."""
        self._turn_in()
        return not self._renew({lease: 0.0})

    def _renew(self, fractions: Mapping[Lease, float | None]) -> list[Lease]:
        """Renew leases, and forget those that are lost."""
        self._started.update(lease for lease, f in fractions.items() if f is not None)
        ids = self._ledger.renew({lease.id: f for lease, f in fractions.items()})
        lost = [lease for lease in fractions if lease.id in ids]
        self._forget(lost)
        self._hand = deque(lease for lease in self._hand if lease.id not in ids)
        return lost

    def _give_back(self, leases: Sequence[Lease]) -> None:
        """Release leases, in hand or not."""
        self._ledger.release([lease.id for lease in leases])
        self._forget(leases)
        returned = set(leases)
        self._hand = deque(lease for lease in self._hand if lease not in returned)

    def _forget(self, leases: Collection[Lease]) -> None:
        """Drop leases that have ended or are lost."""
        for lease in leases:
            # Another one of the same task may be in hand already.
            if self._leases.get(lease.task.index) == lease:
                del self._leases[lease.task.index]
            self._started.discard(lease)


def _may_kill(lease: Lease) -> bool:
    """Tell whether a worker may have died at the task of a lease."""
    return lease.attempt > 1 or lease.suspect


def _died_at(lease: Lease) -> Outcome:
    """Make the outcome of a task at which workers have died at every attempt."""
    error = f"{ATTEMPTS} workers died while they were at this task, and left no message"
    return Outcome(lease.task, 0.0, ATTEMPTS, socket.gethostname(), error)
