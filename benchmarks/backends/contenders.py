"""The contenders of the comparison: cryotile's backends and alternatives."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from works import ignore

from cryotile.backends import Backend, Context, share_of
from cryotile.farm.journal import Journaled
from cryotile.farm.task import Pending, Task, Work

__all__ = ["CONTENDERS", "Contender", "Job", "ledger", "present"]


@dataclass(frozen=True)
class Job:
    """The job of one process of a contender: its tasks, work and number of workers.

    ``home`` and ``key`` are as for a backend, ``choose`` as for :class:`~cryotile.farm.task.Pending`; ``member`` of
    ``members`` tells which of a contender's processes this is.
    """

    tasks: Sequence[Task]
    work: Work
    workers: int
    home: Path
    journal: Path
    key: str = "benchmark/1"
    choose: Callable[[Sequence[Task]], list[Task]] = list
    member: int = 0
    members: int = 1


@dataclass(frozen=True)
class Contender:
    """One way to farm out tasks.

    Attributes
    ----------
    name : str
        As in table and plot.
    run : callable
        Does a job and returns the times (`time.monotonic`) at which the end of each task was known.
    ours : bool
        Whether it is cryotile's.
    form : str
        ``one``: a process that starts its workers; ``ranks``: an MPI program; ``members``: processes that share the
        tasks among themselves; ``pull``: processes that share a ledger.
    empty : int
        Number of empty tasks that take it a second or two.
    needs : str
        A module without which it is left out.
    url : str
        Of its ledger, if that has one.
    """

    name: str
    run: Callable[[Job], list[float]]
    ours: bool
    form: str
    empty: int
    needs: str = ""
    url: str = ""

    def members(self, workers: int) -> int:
        """Return the number of processes that share so many workers."""
        return {"members": workers, "pull": max(2, workers // 4)}.get(self.form, 1)


def present(contender: Contender) -> bool:
    """Tell whether the package that a contender needs is installed."""
    return not contender.needs or importlib.util.find_spec(contender.needs) is not None


def _farm(backend: Backend, job: Job) -> list[float]:
    ends = []
    tasks = Pending(share_of(backend, job.tasks), job.choose)
    for outcome in backend.run(tasks, Journaled(job.work, job.journal)):
        if outcome.error is not None:
            raise RuntimeError(outcome.error)
        ends.append(time.monotonic())
    return ends


def _submit(submit: Callable[..., Future[Any]], job: Job) -> list[float]:
    """Submit each task by itself, as is usual with an executor, to running workers; the submissions are timed, too."""
    for warm in [submit(ignore, 0.0) for _ in range(4 * job.workers)]:
        warm.result()
    ends: list[float] = []
    futures: list[Future[Any]] = []
    for task in job.tasks:
        future = submit(job.work, task, ignore)
        future.add_done_callback(lambda _: ends.append(time.monotonic()))
        futures.append(future)
    for future in futures:
        future.result()
    # A result may be known a moment before its callback is called.
    known = ends[: len(futures)]
    return known + [time.monotonic()] * (len(futures) - len(known))


def _serial(job: Job) -> list[float]:
    from cryotile.backends.serial import SerialBackend

    return _farm(SerialBackend(), job)


def _local(job: Job) -> list[float]:
    from cryotile.backends.local import LocalBackend

    return _farm(LocalBackend(str(job.workers)), job)


def _index(job: Job) -> list[float]:
    from cryotile.backends.array import IndexBackend

    return _farm(IndexBackend(f"{job.member}/{job.members}", children=job.workers), job)


def _dir(job: Job) -> list[float]:
    from cryotile.backends.pull import DirBackend

    return _farm(DirBackend(str(job.workers), Context(job.home, job.key)), job)


def _mpi(job: Job) -> list[float]:
    from cryotile.backends.mpi import MPIBackend

    return _farm(MPIBackend(), job)


def _loky_backend(job: Job) -> list[float]:
    from loky import get_reusable_executor

    from cryotile.backends.executor import ExecutorBackend

    with get_reusable_executor(job.workers) as executor:
        return _farm(ExecutorBackend(executor), job)


def _dask_backend(job: Job) -> list[float]:
    from cryotile.backends.dask import DaskBackend

    with _dask_cluster(job) as cluster:
        return _farm(DaskBackend(cluster.scheduler_address), job)


def _process_pool(job: Job) -> list[float]:
    with ProcessPoolExecutor(job.workers, mp_context=get_context("spawn")) as executor:
        return _submit(executor.submit, job)


def _joblib(job: Job) -> list[float]:
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=job.workers, return_as="generator_unordered")
    calls = (delayed(job.work)(task, ignore) for task in job.tasks)
    return [time.monotonic() for _ in parallel(calls)]


def _mpi_executor(job: Job) -> list[float]:
    from mpi4py.futures import MPICommExecutor

    with MPICommExecutor() as executor:
        return [] if executor is None else _submit(executor.submit, job)


def _distributed(job: Job) -> list[float]:
    from distributed import Client

    with _dask_cluster(job) as cluster, Client(cluster) as client:
        return _submit(client.get_executor(pure=False).submit, job)


@contextmanager
def _dask_cluster(job: Job) -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=job.workers,
        threads_per_worker=1,
        dashboard_address=None,
        local_directory=str(job.home),
    ) as cluster:
        yield cluster


def ledger(url: str) -> Contender:
    """Return a contender for a ledger's address, in which ``{home}`` is the directory of the run."""

    def run(job: Job) -> list[float]:
        from cryotile.backends.pull import PullBackend
        from cryotile.ledgers.http import HttpLedger
        from cryotile.ledgers.sql.ledger import SqlLedger

        # A service outlives the directory of a run, and identifies runs by their keys.
        kind = HttpLedger if scheme == "http" else SqlLedger
        tasks = kind(url.format(home=job.home), f"{job.home}/{job.key}")
        return _farm(PullBackend(tasks, children=job.workers), job)

    scheme = url.partition(":")[0].partition("+")[0]
    return Contender(scheme, run, ours=True, form="pull", empty=20_000, needs="sqlalchemy", url=url)


CONTENDERS = (
    Contender("serial", _serial, ours=True, form="one", empty=20_000),
    Contender("local", _local, ours=True, form="one", empty=40_000),
    Contender("mpi", _mpi, ours=True, form="ranks", empty=80_000, needs="mpi4py"),
    Contender("array", _index, ours=True, form="members", empty=40_000),
    Contender("dir", _dir, ours=True, form="pull", empty=40_000),
    ledger("sqlite:///{home}/ledger.sqlite"),
    Contender("executor(loky)", _loky_backend, ours=True, form="one", empty=40_000, needs="loky"),
    Contender("dask", _dask_backend, ours=True, form="one", empty=40_000, needs="distributed"),
    Contender("ProcessPoolExecutor", _process_pool, ours=False, form="one", empty=10_000),
    Contender("joblib", _joblib, ours=False, form="one", empty=20_000, needs="joblib"),
    Contender(
        "MPICommExecutor", _mpi_executor, ours=False, form="ranks", empty=6_000, needs="mpi4py"
    ),
    Contender(
        "dask.distributed", _distributed, ours=False, form="one", empty=2_000, needs="distributed"
    ),
)
