"""The backend ``dask:ADDRESS``: the workers of a running Dask cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryotile.backends.base import DEFAULTS, Context
from cryotile.backends.executor import WINDOW, ExecutorBackend
from cryotile.errors import CryotileError, InvalidValue, MissingDependency
from cryotile.farm.task import Outcome, Task, Work

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["DaskBackend"]

# Between two submissions a Dask worker idles for some milliseconds, so tasks shorter than this are sent together.
_BATCH_SECONDS = 0.5

logger = logging.getLogger(__name__)


class DaskBackend:
    """Push tasks to the workers of a Dask cluster.

    Dask itself moves the tasks of a worker that died to another worker, and gives up a task whose fourth worker died
    (its setting ``distributed.scheduler.allowed-failures``): that is one failed attempt.  Workers may come and go.

    Parameters
    ----------
    argument : str
        Address of the scheduler, e.g. ``tcp://node1:8786``, or its scheduler file, which all members must see.
    context : Context
        Not used: Dask ends no hung task.

    Raises
    ------
    InvalidValue
        The argument is neither an address nor an existing file.
    """

    def __init__(self, argument: str, context: Context = DEFAULTS) -> None:  # noqa: ARG002 - built like all backends
        if "://" not in argument and not Path(argument).is_file():
            raise InvalidValue(
                f"backend 'dask:{argument}': {argument or 'nothing'} is neither an address nor a scheduler file; write "
                "dask:tcp://HOST:8786 with the address that 'dask scheduler' prints, or dask:scheduler.json"
            )
        self.argument = argument

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Do the tasks in the cluster's workers; see :meth:`cryotile.backends.Backend.run`."""
        if not tasks:
            return
        with self._connect() as client:
            threads = client.nthreads()
            _advise(self.argument, threads)
            # Not pure: otherwise Dask would answer the second attempt at a task with the result of the first.
            farm = ExecutorBackend(
                client.get_executor(pure=False),
                window=max(WINDOW, 2 * sum(threads.values())),
                batch_seconds=_BATCH_SECONDS,
                # Each process does one task at a time.
                workers=len(threads),
            )
            yield from farm.run(tasks, work)

    def _connect(self) -> Client:
        try:
            from distributed import Client
        except ModuleNotFoundError as error:
            raise MissingDependency(
                "the Dask backend needs dask.distributed: pip install 'cryotile[dask]'"
            ) from error
        try:
            if "://" in self.argument:
                return Client(self.argument, set_as_default=False)
            return Client(scheduler_file=self.argument, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise CryotileError(
                f"no Dask scheduler answers at {self.argument} ({reason}); start one with 'dask scheduler', workers "
                "with 'dask worker ADDRESS', and give the address that the scheduler prints"
            ) from error


def _advise(address: str, threads: dict[str, int]) -> None:
    """Warn about a cluster that would do nothing, or less than its user expects."""
    if not threads:
        logger.warning(
            "the Dask cluster at %s has no worker yet; waiting for 'dask worker %s'",
            address,
            address,
        )
    idle = sum(threads.values()) - len(threads)
    if idle:
        logger.warning(
            "%d threads of the Dask workers will be idle, because a process does one task at a time; start workers "
            "with --nthreads 1 and one of --nworkers per core",
            idle,
        )
