"""The work of the benchmark: nothing, or naps of known length."""

from __future__ import annotations

import functools
import math
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cryotile.farm.task import Progress, Task

# Correlation of the logarithms of neighbours' costs: neighbouring tiles have similar numbers of points.
LIKENESS = 0.9

# Costs are known within this fraction.
UNCERTAINTY = 0.2

# Longest time that a worker waits for the others, s.
PATIENCE = 60.0


def do_nothing(task: Task, progress: Progress) -> None:  # noqa: ARG001 - part of Work
    progress(1.0)


def ignore(fraction: float) -> None:
    """Ignore a progress call."""


def equal_tasks(count: int) -> list[Task]:
    return [Task(index, 1.0) for index in range(count)]


class Naps(NamedTuple):
    """The number of naps, their mean length (s), and the standard deviation σ of the logarithm of their lengths."""

    count: int
    mean: float
    sigma: float

    def seconds(self) -> list[float]:
        """Return the length of each nap, the same in every process."""
        return _lengths(self)

    def ideal(self, workers: int) -> float:
        """Return the shortest possible time for so many workers, s."""
        return max(sum(self.seconds()) / workers, max(self.seconds()))

    def tasks(self) -> list[Task]:
        """Return tasks whose costs are known roughly, costliest first."""
        rng = random.Random(2)
        known = [
            seconds * rng.uniform(1 - UNCERTAINTY, 1 + UNCERTAINTY) for seconds in self.seconds()
        ]
        tasks = [Task(index, cost) for index, cost in enumerate(known)]
        return sorted(tasks, key=lambda task: -task.cost)


@functools.cache
def _lengths(naps: Naps) -> list[float]:
    rng = random.Random(1)
    state, lengths = rng.gauss(), []
    for _ in range(naps.count):
        lengths.append(math.exp(naps.sigma * state))
        state = LIKENESS * state + math.sqrt(1 - LIKENESS**2) * rng.gauss()
    scale = naps.mean * naps.count / sum(lengths)
    return [scale * length for length in lengths]


class Slept(NamedTuple):
    """The time when all workers had started, and the number of naps they took."""

    began: float
    count: int


@dataclass(frozen=True)
class Nap:
    """Sleep as long as a task takes, once all workers have started: their start is measured separately.

    Each process keeps its own record in ``directory``.  The first process that gets the task ``victim`` dies in the
    middle of it.
    """

    naps: Naps
    directory: str
    workers: int
    victim: int = -1

    def __call__(self, task: Task, progress: Progress) -> None:
        record = _record(self.directory, self.workers)
        seconds = self.naps.seconds()[task.index]
        if task.index == self.victim:
            self._die_once(seconds / 2)
        time.sleep(seconds)
        record.add()
        progress(1.0)

    def slept(self) -> Slept:
        """Return the sum of the records."""
        records = [path.read_text().split() for path in Path(self.directory).glob("*.record")]
        full = [record for record in records if record]
        return Slept(
            began=min(float(began) for began, _ in full),
            count=sum(int(count) for _, count in full),
        )

    def _die_once(self, after: float) -> None:
        with suppress(FileExistsError):
            Path(self.directory, "died").touch(exist_ok=False)
            time.sleep(after)
            os.kill(os.getpid(), signal.SIGKILL)


class _Record:
    """The record of this process; created when all workers, or the replacement of a dead one, have started."""

    def __init__(self, directory: Path, workers: int) -> None:
        self._file = (directory / f"{os.getpid()}.record").open("xb", buffering=0)
        self._count = 0
        limit = time.monotonic() + PATIENCE
        while len(list(directory.glob("*.record"))) < workers:
            if time.monotonic() > limit:
                raise RuntimeError(f"{workers} workers had not started after {PATIENCE:g} s")
            time.sleep(0.02)
        self._began = time.monotonic()

    def add(self) -> None:
        self._count += 1
        line = f"{self._began:.6f} {self._count:9d}"
        os.pwrite(self._file.fileno(), line.encode(), 0)


@functools.cache
def _record(directory: str, workers: int) -> _Record:
    return _Record(Path(directory), workers)
