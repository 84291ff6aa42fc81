"""Client processes of the benchmark of task-farm servers."""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.services.farm import PASSWORD, USER

from cryotile.backends import open_backend
from cryotile.farm.http import Site
from cryotile.farm.task import Task
from cryotile.ledgers.sql.ledger import SqlLedger
from cryotile.taskfarm import TaskFarmWorker
from nothing import do_nothing

__all__ = ["UPDATES", "WHO", "claim_all", "clients", "cpu_seconds", "empty_tasks", "put", "stress"]

WHO = (USER, PASSWORD)
UPDATES = 10

# Seconds after which clients are killed.
_LIMIT = 240.0

_SPAWN = mp.get_context("spawn")
_TICKS = os.sysconf("SC_CLK_TCK")


def clients(count: int, work: Callable[..., Any], *given: Any) -> tuple[list[Any], float]:
    """Run work in ``count`` processes at once; return their results and the seconds until the last one ended."""
    barrier, results = _SPAWN.Barrier(count + 1), _SPAWN.Queue()
    processes = [
        _SPAWN.Process(target=_client, args=(barrier, results, work, given)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    try:
        barrier.wait(_LIMIT)
        start = time.perf_counter()
        found = [results.get(timeout=_LIMIT) for _ in processes]
        seconds = time.perf_counter() - start
    except queue.Empty:
        raise TimeoutError(f"a client did not end within {_LIMIT:g} s") from None
    finally:
        for process in processes:
            process.join(5.0)
            process.kill()
    if any(isinstance(each, str) for each in found):
        raise RuntimeError(next(each for each in found if isinstance(each, str)))
    return found, seconds


def _client(barrier: Any, results: Any, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    try:
        prepared = work(*given)
        barrier.wait(_LIMIT)
        results.put(prepared())
    except Exception as error:
        # Release the processes that wait for this one.
        barrier.abort()
        results.put(f"{type(error).__name__}: {error}")
        raise


def stress(url: str, run: str, tasks: int) -> Callable[[], list[float]]:
    """Prepare the published stress test: claim, ten updates, done; it returns the seconds of each update."""
    farm = TaskFarmWorker(*WHO, run, url_base=url)

    def go() -> list[float]:
        times = []
        for _ in range(tasks):
            if farm.task is None:
                raise RuntimeError("the server has no task left, but there should be one")
            for update in range(1, UPDATES + 1):
                start = time.perf_counter()
                farm.update(100 * update / UPDATES)
                times.append(time.perf_counter() - start)
            farm.done()
        return times

    return go


def put(url: str, count: int) -> Callable[[], int]:
    """Prepare requests to the bare server."""
    site = Site(url, auth=("token", ""))
    site.ask("PUT", "api/task", body={"percentCompleted": 1})

    def go() -> int:
        for _ in range(count):
            site.ask("PUT", "api/task", body={"percentCompleted": 50})
        return count

    return go


def empty_tasks(url: str, key: str, count: int) -> Callable[[], int]:
    """Prepare work on empty tasks with one child; it returns the number of tasks done."""
    tasks = [Task(index, 0.0) for index in range(count)]
    farm = open_backend(f"{url}?children=1", home=None, key=key)

    def go() -> int:
        return sum(outcome.error is None for outcome in farm.run(tasks, do_nothing))

    return go


def claim_all(url: str, key: str, batch: int) -> Callable[[], list[int]]:
    """Prepare claims from a database, ``batch`` tasks at a time; they return the indices of all tasks."""
    ledger = SqlLedger(url, key)
    ledger.unsettled()

    def go() -> list[int]:
        indices: list[int] = []
        while leases := ledger.claim(batch):
            indices += [lease.task.index for lease in leases]
        return indices

    return go


def cpu_seconds(leader: int) -> float:
    """Return the processor time of a server's first process and its children, seconds."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == leader or int(fields[1]) == leader:
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS
