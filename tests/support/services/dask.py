"""A Dask cluster on loopback: a scheduler and workers, each a process that a test may kill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

import distributed

from tests.support.waiting import LIMIT


class DaskCluster:
    """A scheduler and its workers; a context manager.

    Parameters
    ----------
    directory : Path
        Directory for their files.
    workers : int
        Number of workers at the start, each with one thread.
    allowed_failures : int
        Number of worker deaths after which the scheduler gives up a task.
    nanny : bool
        Whether dead workers are replaced.
    """

    def __init__(
        self, directory: Path, *, workers: int, allowed_failures: int = 3, nanny: bool = False
    ) -> None:
        self.file = directory / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self._directory = directory
        self._count = workers
        self._nanny = nanny
        self._failures = allowed_failures

    def __enter__(self) -> Self:
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(self.file)
        )
        guard = "--nanny" if self._nanny else "--no-nanny"
        for number in range(self._count):
            words = ("--scheduler-file", str(self.file), "--nthreads", "1", guard)
            place = ("--local-directory", str(self._directory / f"worker{number}"))
            self.workers.append(self._start("worker", *words, *place))
        with self.client() as client:
            self.address = client.scheduler.address
            client.wait_for_workers(self._count, timeout=LIMIT)
        return self

    def client(self) -> distributed.Client:
        """Connect to the scheduler."""
        return distributed.Client(
            scheduler_file=str(self.file), timeout=LIMIT, set_as_default=False
        )

    def __exit__(self, *error: object) -> None:
        for process in (*self.workers, self.scheduler):
            # A nanny ends its worker if it ends in an orderly way.
            process.terminate() if self._nanny else process.kill()
        for process in (*self.workers, self.scheduler):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(self._failures),
        }
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard"]
        with (self._directory / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [*command, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
