"""Pull backends: workers on any hosts that take leases from a ledger, and come and go as they like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cryotile.backends import crew
from cryotile.backends.base import STALL, checked_stall
from cryotile.backends.supply import LedgerSupply
from cryotile.errors import InvalidValue
from cryotile.ledgers import LEASE, Ledger
from cryotile.ledgers.dir import DirLedger
from cryotile.task import Outcome, Task, Work

__all__ = ["DirBackend", "PullBackend"]


class PullBackend:
    """Works with child processes on what a ledger leases.

    Parameters
    ----------
    ledger : Ledger
        The tasks of the run.
    children : int
        Number of child processes.
    stall : float
        Seconds without a progress call after which a child is ended, which costs its task an attempt.

    Raises
    ------
    InvalidValue
        The stall limit is not positive.
    """

    def __init__(self, ledger: Ledger, *, children: int, stall: float = STALL) -> None:
        self.ledger = ledger
        self.children = children
        self.stall = checked_stall(stall)

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Work until the run is over; see :meth:`cryotile.backends.Backend.run`.

        What other workers settle is not among the outcomes, and what these leave may be.

        Raises
        ------
        CryotileError
            One task after the other fails here and is well done on another host.
        """
        # First of all: what others settle while this process finds out what is missing is not enrolled again.
        self.ledger.enroll(tasks)
        if not tasks:
            return
        supply = LedgerSupply(self.ledger, children=self.children)
        try:
            yield from crew.work(supply, work, children=self.children, stall=self.stall)
        finally:
            # However this ends: nobody has to wait until leases expire, and no attempt is charged.
            supply.release()
        supply.check_out()


class DirBackend(PullBackend):
    """The backend ``dir:N``: N children that share a run with all that see its directory.

    Parameters
    ----------
    argument : str
        Number of children; empty for one per usable core.
    home : Path
        A directory that all members of the farm see.
    key : str
        Name of the task list.
    stall : float
        Seconds without a progress call after which a child is ended, which costs its task an attempt.
    lease : float
        Seconds after which others take over the tasks of a worker that has died.

    Raises
    ------
    InvalidValue
        The number of children is not a positive integer, the stall limit is not positive, or there is no directory.
    """

    def __init__(
        self,
        argument: str,
        home: Path | None,
        key: str,
        *,
        stall: float = STALL,
        lease: float = LEASE,
    ) -> None:
        if home is None:
            raise InvalidValue(
                "backend 'dir' needs a directory that all its workers see, and got none; use local, or give it a home"
            )
        children = crew.crew_size("dir", argument)
        super().__init__(DirLedger(home, key, lease=lease), children=children, stall=stall)
