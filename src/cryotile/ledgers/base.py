"""The interface of every ledger: the verbs of a worker, a few questions, and the lease."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from cryotile.farm.task import LEASE, Task

__all__ = ["LEASE", "Ending", "Fits", "Lease", "Ledger"]

Fits = Callable[[Task], bool]
"""Returns whether a task would end in time.  If one task fits, every cheaper one fits."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to a task, until it is settled, released or not renewed in time.

    Attributes
    ----------
    task : Task
        The task.
    id : str
        Identifies this lease; the next lease of the same task has another id.
    attempt : int
        Number of the attempt that it allows, from 1.  A lease with a number above
        :data:`~cryotile.farm.task.ATTEMPTS` allows none: a worker died at the task at every attempt, and the holder
        must settle it as failed.
    expiry : float
        Seconds for which it is valid unless it is renewed.
    lease_count : int or None
        Number of leases of the task so far, this one included; None if the ledger does not count them.
    """

    task: Task
    id: str
    attempt: int
    expiry: float
    lease_count: int | None = None

    @property
    def suspect(self) -> bool:
        """Whether an earlier lease ended without an outcome: its worker may have died at the task unnoticed."""
        return self.lease_count is not None and self.lease_count > self.attempt


@dataclass(frozen=True, slots=True)
class Ending:
    """How the attempt that a lease allowed has ended.

    Attributes
    ----------
    seconds : float
        Duration of the attempt, seconds.
    error : str or None
        Traceback or reason if it failed; None when the result is saved.
    thumbnail : bytes or None
        A small picture of the result, for a ledger that shows it; other ledgers ignore it.
    """

    seconds: float
    error: str | None = None
    thumbnail: bytes | None = None


class Ledger(ABC):
    """The tasks of one run, as one worker sees them; the state is kept elsewhere and shared with all other workers.

    An attempt counts from when its task is reported as running (:meth:`renew`), or when it is settled.  A worker that
    dies with a batch of leases costs an attempt of the tasks that it had started, and of no others.
    """

    @abstractmethod
    def enroll(self, tasks: Sequence[Task]) -> None:
        """List the tasks to do.

        Idempotent, at any time and from any number of workers at once.  If a task is already settled, its result is
        lost or it must be retried: it is opened again, with no attempt made.  A task that is open keeps its state.

        Parameters
        ----------
        tasks : sequence of Task
            Each index once.  A sequence may be lazy (:class:`~cryotile.farm.task.Pending`): a task that is settled
            during its evaluation stays settled, so a ledger notes which tasks are settled before it looks at them.
        """

    @abstractmethod
    def claim(self, n: int = 1) -> list[Lease]:
        """Lease the costliest waiting tasks.

        Parameters
        ----------
        n : int
            Maximum number of leases.

        Returns
        -------
        list of Lease
            Costliest first; empty when nothing waits, though tasks of other workers may still come back.
        """

    @abstractmethod
    def renew(self, fractions: Mapping[str, float | None]) -> set[str]:
        """Prolong leases.

        Parameters
        ----------
        fractions : mapping of str to float or None
            Fraction done of the task of each lease, 0 to 1, by lease id; None for a task that is not started.

        Returns
        -------
        set of str
            Ids of the lost leases: they expired, and other workers have or had the tasks.
        """

    @abstractmethod
    def settle(self, endings: Mapping[str, Ending]) -> set[str]:
        """End leases; idempotent.

        A task whose attempt failed waits again, unless the attempt was the last one.  A lost lease settles nothing.

        Parameters
        ----------
        endings : mapping of str to Ending
            How each attempt ended, by lease id.

        Returns
        -------
        set of str
            Ids of the lost leases.
        """

    @abstractmethod
    def release(self, leases: Collection[str]) -> None:
        """Hand tasks back, by lease id: they wait again, and no attempt counts, whether they were started or not."""

    @abstractmethod
    def unsettled(self) -> int:
        """Return the number of tasks that wait or are leased; 0 means that the run is over."""

    @abstractmethod
    def outcomes_elsewhere(self, tasks: Collection[int]) -> Mapping[str, Mapping[int, bool]]:
        """Return the outcomes of tasks on other hosts.

        Parameters
        ----------
        tasks : collection of int
            Indices.

        Returns
        -------
        mapping of str to mapping of int to bool
            For every host that has worked on this list: which of the tasks it has done (True) or failed (False), as
            far as that is still known.
        """

    def exchange(self, endings: Mapping[str, Ending], n: int) -> tuple[set[str], list[Lease]]:
        """Settle, then claim; a ledger that can do both in one request overrides this.

        Parameters
        ----------
        endings : mapping of str to Ending
            As for :meth:`settle`.
        n : int
            As for :meth:`claim`.

        Returns
        -------
        (set of str, list of Lease)
            Ids of the lost leases, and the new leases.
        """
        lost = self.settle(endings) if endings else set()
        return lost, self.claim(n)

    def claim_fitting(self, n: int, fits: Fits) -> list[Lease]:
        """Lease those of the ``n`` costliest waiting tasks that fit.

        A ledger that can skip tasks overrides this and returns the costliest ``n`` of all that fit.

        Parameters
        ----------
        n : int
            Maximum number of leases.
        fits : callable
            Returns whether a task fits.

        Returns
        -------
        list of Lease
            As for :meth:`claim`.
        """
        leases = self.claim(n)
        if unfit := [lease.id for lease in leases if not fits(lease.task)]:
            self.release(unfit)
        return [lease for lease in leases if fits(lease.task)]
