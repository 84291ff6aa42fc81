"""A ledger in a directory: the farm that needs no server and no database, only a file system that all workers see.

It relies on three properties that local disks, NFS and Lustre share: if several processes create a file exclusively,
one succeeds; a rename does not replace a directory that is not empty; and what a process has appended to a file is
visible to a process that opens it later.  It needs no locks, no hard links, no rename of files, no synchronised clocks,
and no immediate view of what others have done: a worker that acts on an old view creates a file that exists already, or
that has no effect.  If all its files are lost, no result is: :meth:`DirLedger.enroll` lists the missing tasks again.

:mod:`cryotile.ledgers.directory.layout` defines the names of files, :mod:`cryotile.ledgers.directory.claims` what
they say.  A process may die between any two of these steps; this is what the others then find:

========  ==============================================  ==================================================
to        steps                                           after the last step done
========  ==============================================  ==================================================
enroll    1 write a list in a hidden directory            nothing; the hidden directory stays
          2 rename it to its number                       the list
claim     1 create the claim                              a claim of unknown tasks, which blocks its unit until
                                                          it is given up: it does not change for a lease
          2 write its first line                          the claim
          3 look whether the unit was compacted           a claim of a settled unit, which has no effect
start     1 append                                        a claim that costs an attempt when it is given up
settle    1 append                                        settled
          2 leave a hint, if it failed                    without it the task is found when nothing else waits
release   1 append                                        waiting
          2 leave a hint                                  as above
compact   1 create the .done                              a settled unit
          2 remove its claims                             claims without effect, until another worker removes them
========  ==============================================  ==================================================
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cryotile.farm.task import Task
from cryotile.files import make_way, writing
from cryotile.ledgers.base import LEASE, Ending, Fits, Lease, Ledger
from cryotile.ledgers.directory.claimant import Claimant, HeldClaim, HeldClaims
from cryotile.ledgers.directory.claims import append, touch
from cryotile.ledgers.directory.layout import publish_list
from cryotile.ledgers.directory.observer import LedgerObserver

__all__ = ["DirLedger"]

# Seconds to wait until the list of another enroller, which was first, is visible.
_LATE = 0.1


class DirLedger(Ledger):
    """Tasks in files under ``home/farm``; see :class:`cryotile.ledgers.Ledger`.

    Parameters
    ----------
    home : Path
        A directory that all workers see.
    key : str
        Name of the task list; another list has another key.
    lease : float
        Seconds for which a lease is valid; others take a task over if its claim does not change for this time.
    host : str
        Name of this host.
    """

    def __init__(self, home: Path, key: str, *, lease: float = LEASE, host: str = "") -> None:
        self._root = str(Path(home) / "farm" / key.replace("/", "_"))
        self._lease = lease
        self._host = host or socket.gethostname()
        self._observer = LedgerObserver(lease)
        self._held = HeldClaims(self._observer)
        self._claimant = Claimant(
            self._root, self._observer, self._held, lease=lease, host=self._host
        )
        self._next_watch = time.monotonic()

    def enroll(self, tasks: Sequence[Task]) -> None:
        """List the tasks to do; see :meth:`cryotile.ledgers.Ledger.enroll`."""
        # Read before the tasks, which may be lazy, so that tasks settled during their evaluation are not reopened.
        open_before, lists = self._open_indices(), self._claimant.lists
        before, listed = len(lists), list(tasks)
        while True:
            self._claimant.load_lists()
            known = open_before.union(*(tasks.indices.tolist() for tasks in lists[before:]))
            new = [task for task in listed if task.index not in known]
            if not new:
                return
            with writing(Path(self._root)):
                make_way(Path(self._root), directory=True)
                Path(self._root).mkdir(parents=True, exist_ok=True)
                if not publish_list(self._root, len(lists), new):
                    # Another enroller was first, and its list will soon be visible.
                    time.sleep(_LATE)

    def claim(self, n: int = 1) -> list[Lease]:
        """Lease waiting tasks; see :meth:`cryotile.ledgers.Ledger.claim`."""
        with writing(Path(self._root)):
            return self._claimant.claim(n)

    def claim_fitting(self, n: int, fits: Fits) -> list[Lease]:
        """Lease waiting tasks that fit; see :meth:`cryotile.ledgers.Ledger.claim_fitting`."""
        with writing(Path(self._root)):
            return self._claimant.claim(n, fits)

    def renew(self, fractions: Mapping[str, float | None]) -> set[str]:
        """Prolong leases; see :meth:`cryotile.ledgers.Ledger.renew`."""
        lost = self._held.lost(fractions)
        with writing(Path(self._root)):
            for claim, leases in self._held.by_claim(fractions).items():
                started = {o for o, lease in leases.items() if fractions[lease] is not None}
                new = sorted(started - claim.started)
                claim.started |= started
                if append(claim.path, {"started": new}) if new else touch(claim.path):
                    lost |= self._held.find_lost(claim, leases)
                else:
                    lost |= self._held.lose(claim, leases)
            if time.monotonic() >= self._next_watch:
                self._next_watch = time.monotonic() + self._lease / 5
                self._claimant.watch()
        return lost

    def settle(self, endings: Mapping[str, Ending]) -> set[str]:
        """End leases; see :meth:`cryotile.ledgers.Ledger.settle`."""
        lost = self._held.lost(endings)
        with writing(Path(self._root)):
            for claim, leases in self._held.by_claim(endings).items():
                errors = {offset: endings[lease].error for offset, lease in leases.items()}
                lost |= self._settle(claim, leases, errors)
        return lost

    def release(self, leases: Collection[str]) -> None:
        """Hand tasks back; see :meth:`cryotile.ledgers.Ledger.release`."""
        with writing(Path(self._root)):
            for claim, returned in self._held.by_claim(leases).items():
                self._held.let_go(claim, returned)
                append(claim.path, {"released": sorted(returned)})
                self._claimant.hint(claim.unit)

    def unsettled(self) -> int:
        """Return how many tasks wait or are leased; see :meth:`cryotile.ledgers.Ledger.unsettled`."""
        return len(self._open_indices())

    def outcomes_elsewhere(self, tasks: Collection[int]) -> dict[str, dict[int, bool]]:
        """Return the outcomes of tasks on other hosts; see :meth:`cryotile.ledgers.Ledger.outcomes_elsewhere`."""
        self._claimant.load_lists()
        found: dict[str, dict[int, bool]] = {}
        for each in self._claimant.lists:
            for host, ended in self._observer.outcomes(each, tasks).items():
                found.setdefault(host, {}).update(ended)
        found.pop(self._host, None)
        return found

    def _settle(
        self, claim: HeldClaim, leases: Mapping[int, str], errors: Mapping[int, str | None]
    ) -> set[str]:
        """Settle tasks of one claim."""
        done = [offset for offset, error in errors.items() if error is None]
        failed = {offset: error for offset, error in errors.items() if error is not None}
        if not append(claim.path, {"done": done, "failed": failed}):
            return self._held.lose(claim, leases)
        # Checked afterwards: a claim that has taken a task over since does not know this line, and prevails.
        lost = self._held.find_lost(claim, leases)
        self._held.let_go(claim, leases)
        if failed:
            self._claimant.hint(claim.unit)
        if not claim.held:
            self._observer.compact(claim.unit)
        return lost

    def _open_indices(self) -> set[int]:
        """Return the indices of all tasks that wait or are leased."""
        self._claimant.load_lists()
        found: set[int] = set()
        for tasks in self._claimant.lists:
            found.update(tasks.indices[self._observer.open_tasks(tasks)].tolist())
        return found
