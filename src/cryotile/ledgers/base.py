"""What every ledger is: six verbs, a question, and the lease."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cryotile.farm.task import Outcome, Task

__all__ = ["LEASE", "Exchange", "Fits", "Lease", "Ledger", "Selective"]

LEASE = 300.0
"""Seconds for which a lease is good after it was claimed or renewed."""

Fits = Callable[[Task], bool]
"""Tells whether a task would end in time; where one does, so does every cheaper one."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to a task, until it is settled, released or not renewed in time.

    Attributes
    ----------
    task : Task
        The task.
    id : str
        Names this lease alone: the next one of the same task has another.
    attempt : int
        Number of the attempt that it allows, from 1.  A lease of a number above
        :data:`~cryotile.farm.task.ATTEMPTS` allows none: workers have died at the task each time, and its
        holder settles it as failed.
    expiry : float
        Seconds for which it is good unless it is renewed.
    turn : int
        How many leases of the task there were, with this one, where the ledger knows.
    """

    task: Task
    id: str
    attempt: int
    expiry: float
    turn: int = 1

    @property
    def suspect(self) -> bool:
        """Whether an earlier lease ended without an outcome: its worker may have died at the task unheard."""
        return self.turn > self.attempt


class Ledger(Protocol):
    """The tasks of one run, as one worker sees them; the state is elsewhere, and shared with all other workers.

    An attempt counts from when its task is reported to run (:meth:`renew`), or when it is settled.  So a worker that
    dies with a batch of leases in its hands costs an attempt of those it had started, and of no others.
    """

    def enroll(self, tasks: Sequence[Task]) -> None:
        """List what is to be done.

        Idempotent, at any time and from any number of workers at once.  A task that is settled although its
        caller lists it as still to be done has lost its result, or is to be tried again: it is open again, with no
        attempt made.  A task that is open keeps its state.

        Parameters
        ----------
        tasks : sequence of Task
            Each index once.  What is settled while they are found (:class:`~cryotile.farm.task.Pending`) stays
            settled, so a ledger notes what is settled before it looks at them.
        """
        ...

    def claim(self, n: int = 1) -> list[Lease]:
        """Lease the costliest waiting tasks.

        Parameters
        ----------
        n : int
            How many at most.

        Returns
        -------
        list of Lease
            Costliest first; empty when nothing waits, though other workers' tasks may yet come back.
        """
        ...

    def renew(self, fractions: Mapping[Lease, float | None]) -> set[Lease]:
        """Prolong leases.

        Parameters
        ----------
        fractions : mapping of Lease to float or None
            How far the task of each lease is, 0 to 1; None for one that is not started.

        Returns
        -------
        set of Lease
            The leases that are lost: they expired, and others have or had the tasks.
        """
        ...

    def settle(self, outcomes: Mapping[Lease, Outcome]) -> set[Lease]:
        """End leases by how the attempts ended; idempotent.

        A task whose attempt failed waits again, unless it was the last one.  A lost lease settles nothing.

        Parameters
        ----------
        outcomes : mapping of Lease to Outcome
            How each ended.

        Returns
        -------
        set of Lease
            The leases that are lost.
        """
        ...

    def release(self, leases: Collection[Lease]) -> None:
        """Hand tasks back: they wait again, and no attempt counts, whether they were started or not."""
        ...

    def unsettled(self) -> int:
        """Return how many tasks wait or are leased; 0 means that the run is over."""
        ...

    def outcomes_elsewhere(self, tasks: Collection[int]) -> Mapping[str, Mapping[int, bool]]:
        """Tell what other hosts made of tasks.

        Parameters
        ----------
        tasks : collection of int
            Indices.

        Returns
        -------
        mapping of str to mapping of int to bool
            For every host that has worked on this list: which of the tasks it has done (True) or failed at (False),
            as far as that is still known.
        """
        ...


@runtime_checkable
class Exchange(Protocol):
    """A ledger that ends leases and gives others in one question, so that a worker asks once a batch.

    A ledger need not be one.
    """

    def exchange(self, outcomes: Mapping[Lease, Outcome], n: int) -> tuple[set[Lease], list[Lease]]:
        """Settle, then claim.

        Parameters
        ----------
        outcomes : mapping of Lease to Outcome
            As of :meth:`Ledger.settle`.
        n : int
            As of :meth:`Ledger.claim`.

        Returns
        -------
        (set of Lease, list of Lease)
            The leases that are lost, and those that are claimed.
        """
        ...


@runtime_checkable
class Selective(Protocol):
    """A ledger that passes over the tasks for which the job of a worker has no time left.

    A ledger need not be one.
    """

    def claim_fitting(self, n: int, fits: Fits) -> list[Lease]:
        """Lease the costliest waiting tasks of those that fit.

        Parameters
        ----------
        n : int
            How many at most.
        fits : callable
            Tells whether a task does.

        Returns
        -------
        list of Lease
            As of :meth:`Ledger.claim`.
        """
        ...
