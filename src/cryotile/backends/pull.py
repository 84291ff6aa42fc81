"""Pull backends: workers on any hosts that lease tasks from a ledger, and come and go at any time."""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from cryotile.backends import pool
from cryotile.backends.base import DEFAULTS, STALL, Attempt, Context
from cryotile.backends.cores import usable_cores
from cryotile.backends.host_health import OwnHostHealth
from cryotile.errors import CryotileError, InvalidValue
from cryotile.farm.task import ATTEMPTS, Outcome, Task, Work
from cryotile.ledgers import Ending, Fits, Lease, Ledger
from cryotile.ledgers.directory.ledger import DirLedger
from cryotile.processes import backoff

__all__ = [
    "DirBackend",
    "HTTPBackend",
    "LedgerSource",
    "PullBackend",
    "SQLBackend",
    "without_children",
]

# Seconds of work to claim at a time: few claims for tiny tasks, and at the end of the run no worker holds tasks that
# others could do.
_HOARD = 0.25
_MOST = 1024

# Attempts shorter than this (seconds) are settled together, with the next claim if possible.  If the ledger counts
# leases, the start of a shorter task is not reported.  A worker that dies costs such a task no attempt, but the next
# worker that gets it knows that it came back, reports its start first, and runs it alone.
_SHORT = 0.1

# No task is queued behind one that takes longer (seconds), because another worker might do it sooner.
_LONG = 1.0

# Renewals of a lease before it would expire: several, so that a busy file system may delay some of them.
_RENEWALS = 5

# Seconds between claims when nothing waits: the first and the longest pause.
_PAUSES = 0.25, 5.0

logger = logging.getLogger(__name__)


class PullBackend:
    """Work with child processes on the tasks that a ledger leases.

    Parameters
    ----------
    ledger : Ledger
        The tasks of the run.
    children : int
        Number of child processes.
    stall : float
        Seconds without a progress call after which a child is killed, which costs its task an attempt.
    """

    has_leases = True

    def __init__(self, ledger: Ledger, *, children: int, stall: float = STALL) -> None:
        self.ledger = ledger
        self.children = children
        self.stall = stall

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Work until the run is over; see :meth:`cryotile.backends.Backend.run`.

        Outcomes include tasks that other workers left, but not tasks that other workers settled.

        Raises
        ------
        CryotileError
            One task after another fails here and succeeds on another host.
        """
        # Enroll before evaluating `tasks` (lazy), so that results settled meanwhile are not reopened.
        self.ledger.enroll(tasks)
        if not tasks:
            return
        task_source = LedgerSource(self.ledger, children=self.children)
        try:
            yield from pool.work(task_source, work, children=self.children, stall=self.stall)
        finally:
            # Even after an error, so that other workers need not wait until leases expire, and no attempt is charged.
            task_source.release()
        task_source.check_out()


class LedgerSource:
    """Leases of a ledger as a :class:`~cryotile.backends.pool.TaskSource`: renewed in time, settled as attempts end.

    Parameters
    ----------
    ledger : Ledger
        The tasks of the run, already enrolled.
    children : int
        Number of children of the pool.
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
        self._health = OwnHostHealth(ledger)
        self._pace = _LONG
        self._over = self._unfit = False
        self._fits: Fits | None = None
        self._pauses = backoff(*_PAUSES)
        self._next_look = self._next_renewal = self._next_settling = time.monotonic()

    @property
    def ahead(self) -> int:
        """Number of tasks a child may have queued behind another: none behind a long one."""
        return int(self._pace < _LONG)

    def over(self) -> bool:
        """Tell whether the run is over, or none of the waiting tasks fits, or this host is broken."""
        if self._hand or self._outcomes or self._ended:
            return False
        return self._over or self._unfit or self._health.broken is not None

    def stock(self) -> int:
        """Return the number of leases in hand, after a claim if they run low."""
        wanted = self._wanted()
        low = 4 * len(self._hand) <= wanted
        if low and time.monotonic() >= self._next_look and not self._closed():
            self._look(wanted)
        return len(self._hand)

    def take(self, count: int, fits: Callable[[Task], bool]) -> list[Task]:
        """Hand out the next tasks that fit; release the others, for workers with more time."""
        taken: list[Task] = []
        unfit: list[Lease] = []
        while self._hand and len(taken) < count:
            lease = self._hand.popleft()
            if not fits(lease.task):
                unfit.append(lease)
            elif not _may_kill(lease):
                taken.append(lease.task)
            else:
                # It runs alone, so that no other task is blamed if a worker dies at it again.
                if taken or len(self._at_work) >= self._children:
                    self._hand.appendleft(lease)
                elif self._announce(lease):
                    taken.append(lease.task)
                break
        self._at_work.update(task.index for task in taken)
        if unfit:
            self._give_back(unfit)
            # From now on only tasks that fit are claimed.
            self._fits = fits
        return taken

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Keep the leases of tasks that were not started, at the head of the queue."""
        self._at_work.difference_update(task.index for task in tasks)
        leases = [self._leases[task.index] for task in tasks if task.index in self._leases]
        self._hand.extendleft(reversed(leases))

    def report(self, running: Mapping[Task, float]) -> list[Outcome]:
        """Report started tasks to the ledger, and renew all leases from time to time."""
        fractions: dict[Lease, float | None] = {
            lease: fraction
            for task, fraction in running.items()
            if (lease := self._leases.get(task.index)) is not None
        }
        now = time.monotonic()
        if now >= self._next_renewal:
            fractions = dict.fromkeys(self._leases.values()) | fractions
            expiry = min((lease.expiry for lease in fractions), default=0.0)
            self._next_renewal = now + max(expiry / _RENEWALS, _PAUSES[0])
        else:
            fractions = {lease: fractions[lease] for lease in self._fresh(fractions, now)}
        if fractions:
            self._renew(fractions)
        if not running or now >= self._next_settling or self._started & self._ended.keys():
            # At once if its start was reported: it would be charged if this worker died now.
            self._turn_in()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def settle(self, attempts: Sequence[Attempt]) -> list[Outcome]:
        """Settle attempts, now or with the next claim; return the outcomes of tasks that ended for good."""
        for task, seconds, error, host, thumbnail in attempts:
            self._pace = (self._pace + seconds) / 2
            self._at_work.discard(task.index)
            lease = self._leases.get(task.index)
            if lease is not None:
                outcome = Outcome(task, seconds, lease.attempt, host, error, thumbnail)
                self._ended |= self._health.consider(lease, outcome)
        if doubted := self._health.doubt():
            self._give_back([*doubted, *self._hand])
        # They are settled with the next claim, at once if the hand is empty, or else by the next reports.
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def left(self) -> int:
        """Return the number of tasks without an outcome."""
        return self._ledger.unsettled()

    def release(self) -> None:
        """Hand back all leases without waiting; tasks that are not settled yet are tried again, uncharged."""
        self._ended.clear()
        self._give_back(list(self._leases.values()))

    def check_out(self) -> None:
        """Raise the reason for leaving, if this host is broken.

        Raises
        ------
        CryotileError
            Tasks fail here that succeed on another host.
        """
        if self._health.broken is not None:
            raise CryotileError(self._health.broken)

    def _closed(self) -> bool:
        """Tell whether no more tasks may be claimed."""
        return self._over or self._unfit or self._health.waits()

    def _wanted(self) -> int:
        """Return the number of leases that should be in hand."""
        at_work = len(self._leases) - len(self._ended) - len(self._hand)
        idle = self._children * (1 + self.ahead) - at_work
        return max(1, idle, min(_MOST, int(_HOARD * self._children / max(self._pace, 1e-9))))

    def _look(self, wanted: int) -> None:
        """Claim leases or, if there are none, find out whether the run is over."""
        leases = self._claim(wanted - len(self._hand))
        # No waiting task fits, and the remaining time only gets shorter.
        self._unfit |= self._fits is not None and not leases
        fatal = {lease: _died_at(lease) for lease in leases if lease.attempt > ATTEMPTS}
        self._leases.update((lease.task.index, lease) for lease in leases)
        self._hand.extend(lease for lease in leases if lease not in fatal)
        if leases:
            self._pauses = backoff(*_PAUSES)
        elif held_back := self._health.settle():
            # No other task waits, so these are tried again, on this host if necessary.
            fatal = held_back
        else:
            self._over = self._ledger.unsettled() == 0
            self._next_look = time.monotonic() + next(self._pauses)
        self._ended |= fatal
        if fatal:
            self._turn_in()

    def _claim(self, n: int) -> list[Lease]:
        """Claim leases, together with settling those that have ended."""
        if self._fits is not None:
            self._turn_in()
            return self._ledger.claim_fitting(n, self._fits)
        if not self._ended:
            return self._ledger.claim(n)
        lost, leases = self._ledger.exchange(self._endings(), n)
        self._conclude(lost)
        return leases

    def _turn_in(self) -> None:
        """Settle the attempts that have ended."""
        if self._ended:
            self._conclude(self._ledger.settle(self._endings()))

    def _endings(self) -> dict[str, Ending]:
        """Return the ended attempts as the ledger takes them."""
        return {
            lease.id: Ending(o.seconds, o.error, o.thumbnail) for lease, o in self._ended.items()
        }

    def _conclude(self, lost: Collection[str]) -> None:
        """Note the outcomes of tasks that were settled."""
        ended, self._ended = self._ended, {}
        self._next_settling = time.monotonic() + _SHORT
        self._forget(ended)
        for lease, outcome in ended.items():
            if lease.id in lost:
                logger.warning(
                    "task %d: the lease was lost, another worker has the task", lease.task.index
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
        """Return the leases whose start must be reported."""
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
        """Report the start of a task, after settling those before it; return False if its lease is lost."""
        self._turn_in()
        return not self._renew({lease: 0.0})

    def _renew(self, fractions: Mapping[Lease, float | None]) -> list[Lease]:
        """Renew leases, and forget and return the lost ones."""
        self._started.update(lease for lease, f in fractions.items() if f is not None)
        ids = self._ledger.renew({lease.id: f for lease, f in fractions.items()})
        lost = [lease for lease in fractions if lease.id in ids]
        self._forget(lost)
        self._hand = deque(lease for lease in self._hand if lease.id not in ids)
        return lost

    def _give_back(self, leases: Sequence[Lease]) -> None:
        """Release leases, whether in hand or given to a child."""
        self._ledger.release([lease.id for lease in leases])
        self._forget(leases)
        returned = set(leases)
        self._hand = deque(lease for lease in self._hand if lease not in returned)

    def _forget(self, leases: Collection[Lease]) -> None:
        """Drop leases that have ended or are lost."""
        for lease in leases:
            # A newer lease of the same task may be in hand already.
            if self._leases.get(lease.task.index) == lease:
                del self._leases[lease.task.index]
            self._started.discard(lease)


class DirBackend(PullBackend):
    """The backend ``dir:N``: N children that share a run with all workers that see its directory.

    Parameters
    ----------
    argument : str
        Number of children; empty for one per usable core.
    context : Context
        The run; its home is needed.

    Raises
    ------
    InvalidValue
        The number of children is not a positive integer, or there is no directory.
    """

    def __init__(self, argument: str, context: Context = DEFAULTS) -> None:
        if context.home is None:
            raise InvalidValue(
                "backend 'dir' needs a directory that all its workers see, and got none; pass home=…, or use local"
            )
        children = pool.pool_size("dir", argument)
        super().__init__(
            DirLedger(context.home, context.key, lease=context.lease),
            children=children,
            stall=context.stall,
        )


class SQLBackend(PullBackend):
    """The backends ``sqlite:///path`` and ``postgresql://user@host/name``: children that share a run through them.

    Parameters
    ----------
    argument : str
        Address of the database.  ``?children=8`` sets the number of children; by default one per usable core.
    context : Context
        The run.

    Raises
    ------
    InvalidValue
        The address or the number of children is invalid, or SQLite's file is on a network file system.
    MissingDependency
        The libraries for databases are not installed.
    """

    def __init__(self, argument: str, context: Context = DEFAULTS) -> None:
        # Imported here: the other pull backends need no database.
        from cryotile.ledgers.sql.ledger import SqlLedger

        address, children = without_children(argument)
        super().__init__(
            SqlLedger(address, context.key, lease=context.lease),
            children=children,
            stall=context.stall,
        )


class HTTPBackend(PullBackend):
    """The backends ``http://host:5000`` and ``https://host``: children that share a run through a task-farm server.

    Parameters
    ----------
    argument : str
        Address of the server with credentials: ``http://token@host:5000`` or ``http://user:password@host:5000``, or the
        token in ``$CRYOTILE_TOKEN``.  ``?children=8`` sets the number of children; by default one per usable core.
        Without an address, the number of children: the server is the one that a worker of the run hosts.
    context : Context
        The run; the lease of the first worker counts.

    Raises
    ------
    InvalidValue
        The address or the number of children is invalid.
    MissingDependency
        requests is not installed.
    """

    def __init__(self, argument: str, context: Context = DEFAULTS) -> None:
        # Imported here: the other pull backends need no requests.
        from cryotile.ledgers.http import HttpLedger

        place: str | Path
        if "//" in argument:
            place, children = without_children(argument)
        else:
            if context.home is None:
                raise InvalidValue("backend 'http' needs an address here; write http://HOST:5000")
            place, children = context.home, pool.pool_size("http", argument)
        super().__init__(
            HttpLedger(
                place,
                context.key,
                lease=context.lease,
                name=context.home.name if context.home else "",
                task_map=context.task_map,
            ),
            children=children,
            stall=context.stall,
        )


def without_children(address: str) -> tuple[str, int]:
    """Split the number of children from an address.

    Parameters
    ----------
    address : str
        ``scheme://…``, perhaps with ``?children=8``.

    Returns
    -------
    (str, int)
        The address without the number, and the number; one per usable core if none is given.

    Raises
    ------
    InvalidValue
        The number is not a positive integer.
    """
    place, _, query = address.partition("?")
    options = [option for option in query.split("&") if option]
    ours = [option for option in options if option.startswith("children=")]
    rest = "&".join(option for option in options if option not in ours)
    number = ours[-1].removeprefix("children=") if ours else str(usable_cores())
    if not (number.isdecimal() and int(number) > 0):
        raise InvalidValue(
            f"children={number} must be a positive integer; write e.g. ?children=4 at the end of the address, or leave"
            f" it out for one per usable core ({usable_cores()} here)"
        )
    return f"{place}?{rest}" if rest else place, int(number)


def _may_kill(lease: Lease) -> bool:
    """Tell whether an earlier worker may have died at the task of a lease."""
    return lease.attempt > 1 or lease.suspect


def _died_at(lease: Lease) -> Outcome:
    """Return the outcome of a task at which a worker died at every attempt."""
    error = f"{ATTEMPTS} workers died at this task and left no message"
    return Outcome(lease.task, 0.0, ATTEMPTS, socket.gethostname(), error)
