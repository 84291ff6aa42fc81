"""Pull backends: workers on any hosts that take leases from a ledger, and come and go as they like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cryotile.backends import pool
from cryotile.backends.base import DEFAULTS, STALL, Context
from cryotile.backends.task_source import LedgerSource
from cryotile.errors import InvalidValue
from cryotile.farm.task import Outcome, Task, Work
from cryotile.ledgers import Ledger
from cryotile.ledgers.directory.ledger import DirLedger

__all__ = ["DirBackend", "HTTPBackend", "PullBackend", "SQLBackend", "without_children"]


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
    """

    has_leases = True

    def __init__(self, ledger: Ledger, *, children: int, stall: float = STALL) -> None:
        self.ledger = ledger
        self.children = children
        self.stall = stall

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
        task_source = LedgerSource(self.ledger, children=self.children)
        try:
            yield from pool.work(task_source, work, children=self.children, stall=self.stall)
        finally:
            # However this ends: nobody has to wait until leases expire, and no attempt is charged.
            task_source.release()
        task_source.check_out()


class DirBackend(PullBackend):
    """The backend ``dir:N``: N children that share a run with all that see its directory.

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
                "backend 'dir' needs a directory that all its workers see, and got none; use local, or give it a home"
            )
        children = pool.pool_size("dir", argument)
        super().__init__(
            DirLedger(context.home, context.key, lease=context.lease),
            children=children,
            stall=context.stall,
        )


class SQLBackend(PullBackend):
    """The backends ``sqlite:///path`` and ``postgresql://user@host/name``: children that share a run through it.

    Parameters
    ----------
    argument : str
        Address of the database.  With ``?children=8`` there are so many children, else one per usable core.
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
    """The backends ``http://host:5000`` and ``https://host``: children that share a run with all that reach the server.

    Parameters
    ----------
    argument : str
        Address of a task-farm server, with who asks: ``http://token@host:5000``, ``http://user:password@host:5000``, or
        ``$CRYOTILE_TOKEN``.  With ``?children=8`` there are so many children, else one per usable core.
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

        address, children = without_children(argument)
        super().__init__(
            HttpLedger(address, context.key, lease=context.lease),
            children=children,
            stall=context.stall,
        )


def without_children(address: str) -> tuple[str, int]:
    """Split what is cryotile's off an address: how many children work.

    Parameters
    ----------
    address : str
        ``scheme://…``, perhaps with ``?children=8``.

    Returns
    -------
    (str, int)
        The address without it, and the number; one per usable core when none is given.

    Raises
    ------
    InvalidValue
        It is not a positive integer.
    """
    place, _, query = address.partition("?")
    options = [option for option in query.split("&") if option]
    ours = [option for option in options if option.startswith("children=")]
    rest = "&".join(option for option in options if option not in ours)
    scheme = place.partition(":")[0]
    size = pool.pool_size(scheme, ours[-1].removeprefix("children=") if ours else "")
    return f"{place}?{rest}" if rest else place, size
