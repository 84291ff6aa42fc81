"""The backend ``mpi``: rank 0 hands out tasks, every other rank supervises a child that does the work.

.. code-block:: console

    $ mpirun -n 64 cryotile run RUN --backend mpi

N ranks are N - 1 workers.  Child processes do the work, so that a crash is an ordinary failed attempt and invisible to
MPI.  Under Open MPI's ``--with-ft ulfm`` the farm survives the loss of whole ranks, too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence

from cryotile.backends.base import DEFAULTS, Context, TaskQueue
from cryotile.backends.cores import usable_cores
from cryotile.backends.deadline import Deadline
from cryotile.backends.local import LocalBackend
from cryotile.backends.mpi.coordinator import Coordinator
from cryotile.backends.mpi.launch import mpi_rank
from cryotile.backends.mpi.transport import Transport
from cryotile.backends.mpi.worker import serve
from cryotile.backends.pool import TaskSource
from cryotile.backends.pull import DirBackend, LedgerSource
from cryotile.errors import InvalidValue
from cryotile.farm.task import Outcome, Task, Work
from cryotile.ledgers import Ledger
from cryotile.ledgers.directory.ledger import DirLedger

__all__ = ["MPIBackend"]

logger = logging.getLogger(__name__)


class MPIBackend:
    """The ranks of an MPI program as a farm.

    All ranks make the same calls of :meth:`run`.  Rank 0 hands out its tasks and yields their outcomes; on the other
    ranks ``run`` ignores its tasks, works for rank 0 and yields nothing.

    Outside ``mpirun``, or without mpi4py, children of this process do the work, and a warning says so; a single rank
    has one child.

    Parameters
    ----------
    argument : str
        Must be empty.
    context : Context
        The run.  If it has a home, rank 0 leases tasks from the ledger there, so that any number of MPI programs, and
        workers of the backend ``dir``, share a run.

    Raises
    ------
    InvalidValue
        There is an argument.
    """

    has_leases = True

    def __init__(self, argument: str = "", context: Context = DEFAULTS) -> None:
        if argument:
            raise InvalidValue(
                f"backend 'mpi:{argument}': mpi takes no argument, mpirun sets the number of ranks; write mpirun -n "
                f"{argument} …"
            )
        self.context = context
        self._rank = mpi_rank(os.environ)

    def share(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Return the tasks this rank answers for: all on rank 0, none on the others."""
        return () if self._rank is not None and self._rank.rank else tasks

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Hand out the tasks, or work for rank 0; see :meth:`cryotile.backends.Backend.run`.

        Raises
        ------
        InvalidValue
            mpirun and mpi4py belong to different MPI libraries.
        CryotileError
            All workers are lost.
        """
        # Not a generator: ranks meet when this is called.
        transport = self._open_transport()
        if transport is None:
            rank = 0 if self._rank is None else self._rank.rank
            return iter(()) if rank else self._run_here(tasks, work)
        if transport.rank:
            return _serve(transport, work, self.context.stall)
        return self._farm(transport, tasks)

    def _open_transport(self) -> Transport | None:
        """Meet the other ranks; return None if there are none."""
        if self._rank is None or self._rank.size == 1:
            return None
        try:
            transport = Transport()
        except (ImportError, RuntimeError) as error:
            # Not MissingDependency: children of this process can do the work on one host.
            if not self._rank.rank:
                logger.warning(
                    "mpirun started this, but MPI cannot be used (%s); install it with pip install 'cryotile[mpi]'",
                    error,
                )
            return None
        if transport.size == 1:
            raise InvalidValue(
                f"this was started as one rank of several, but mpi4py uses {transport.library}, which finds no other; "
                "use the mpirun of that library, or set MPI4PY_LIBMPI to the library of this mpirun"
            )
        return transport

    def _run_here(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Do the tasks in children of this process."""
        children = 1 if self._rank is not None and self._rank.size == 1 else usable_cores()
        logger.warning(
            "backend mpi: there is no other rank, so %d child processes of this one do the work; "
            "start it as mpirun -n N …",
            children,
        )
        here = LocalBackend if self.context.home is None else DirBackend
        return here(str(children), self.context).run(tasks, work)

    def _farm(self, transport: Transport, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Run rank 0."""
        try:
            if self.context.home is None:
                yield from _hand_out(transport, TaskQueue(tasks))
            else:
                ledger = DirLedger(self.context.home, self.context.key, lease=self.context.lease)
                yield from _share(transport, ledger, tasks)
        finally:
            transport.end()


def _share(transport: Transport, ledger: Ledger, tasks: Sequence[Task]) -> Iterator[Outcome]:
    """Hand out the tasks that a ledger leases."""
    # Before `tasks` is evaluated, as in PullBackend.
    ledger.enroll(tasks)
    if not tasks:
        yield from _hand_out(transport, TaskQueue([]))
        return
    task_source = LedgerSource(ledger, children=transport.size - 1)
    try:
        yield from _hand_out(transport, task_source)
    finally:
        task_source.release()
    task_source.check_out()


def _hand_out(transport: Transport, task_source: TaskSource) -> Iterator[Outcome]:
    with Deadline() as deadline:
        yield from Coordinator(
            transport, range(1, transport.size), task_source, deadline
        ).outcomes()
        deadline.check_out(task_source.left())


def _serve(transport: Transport, work: Work, stall: float) -> Iterator[Outcome]:
    """Run another rank; yield nothing."""
    serve(transport, work, stall)
    yield from ()
