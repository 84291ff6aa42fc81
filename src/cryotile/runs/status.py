"""Status of a run: its tiles tell what is done, the journals of its workers what is running."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cryotile.farm.estimate import Durations, time_left
from cryotile.farm.journal import Journals, Worker
from cryotile.runs.tasklist import TaskList

__all__ = ["Observer", "RunStatus", "RunningTask", "State"]

# For this many seconds after its last line, a worker between two tasks counts as at work.
_BETWEEN = 5.0


class State(IntEnum):
    """The state of a task, with the numbers of the database ledger."""

    WAITING = 0
    RUNNING = 1
    DONE = 2
    FAILED = 3


@dataclass(frozen=True)
class RunningTask:
    """A task that a worker is doing.

    Attributes
    ----------
    tile : str
        Name of the tile.
    host : str
        Host of the worker.
    pid : int
        The worker's process.
    seconds : float
        Time since the task started.
    fraction : float
        Fraction done, 0 to 1, as last written.
    silent : float
        Seconds since the worker wrote its last line.
    """

    tile: str
    host: str
    pid: int
    seconds: float
    fraction: float
    silent: float


@dataclass(frozen=True)
class RunStatus:
    """Status of a run.  Every tile is done, running, waiting or failed.

    Attributes
    ----------
    tiles : int
        Number of tiles of the run.
    done : int
        Tiles that are stored, with the points and settings of the run.
    waiting : int
        Tiles that no worker is doing.
    running : tuple of RunningTask
        Longest first.
    lost : tuple of RunningTask
        Tasks of workers that ended in the middle, or that are on other machines and have written nothing for long;
        these tiles count as waiting.
    failed : mapping of str to str
        Tile → traceback or reason of its last attempt.
    hosts : mapping of str to int
        Host → workers at work there.
    tiles_per_minute : float
        Recent rate of these workers.
    seconds_left : (float, float) or None
        Least and most time until these workers have done the waiting and running tiles; None if no worker is at work,
        or no tile has been done.
    """

    tiles: int
    done: int
    waiting: int
    running: tuple[RunningTask, ...]
    lost: tuple[RunningTask, ...]
    failed: Mapping[str, str]
    hosts: Mapping[str, int]
    tiles_per_minute: float
    seconds_left: tuple[float, float] | None

    @property
    def over(self) -> bool:
        """Whether nothing is waiting or running."""
        return not (self.waiting or self.running)


class Observer:
    """Observes a run; each look reads only what is new.

    Parameters
    ----------
    run : TaskList
        The run, or an ingest.

    Attributes
    ----------
    states : ndarray of uint8, shape (tasks,)
        :class:`State` of each task at the last look.
    """

    def __init__(self, run: TaskList) -> None:
        self.states = np.zeros(len(run.tasks), "u1")
        self._run = run
        self._journals = Journals(run.journal)
        self._costs = run.costs

    def look(self) -> RunStatus:
        """Return how far the run is now; tiles count by :meth:`cryotile.runs.run.Run.missing_quick`."""
        # Journals first: a tile that is saved meanwhile is done, whatever the journals say.
        workers, now = self._journals.read(), time.time()
        for worker in workers:
            # A damaged line may name a task that does not exist.
            for ended in [e for e in worker.ended if e.task >= len(self._costs)]:
                worker.ended.remove(ended)
        left = {task.index for task in self._run.missing_quick()}
        failed = {index: error for index, error in self._run.failed().items() if index in left}
        to_do = left - failed.keys()
        alive = [worker for worker in workers if not worker.is_lost(now)]
        running = _newest(alive, to_do)
        lost = {i: worker for i, worker in _newest(workers, to_do).items() if i not in running}
        self.states = np.full(len(self._costs), State.DONE, "u1")
        for state, indices in (
            (State.WAITING, left), (State.RUNNING, running), (State.FAILED, failed)
        ):  # fmt: skip
            self.states[list(indices)] = state
        pool = [*running.values(), *_between_tasks(alive, to_do, now)]
        names = self._run.names
        return RunStatus(
            tiles=len(self._costs),
            done=len(self._costs) - len(left),
            waiting=len(to_do) - len(running),
            running=_attempts(running, names, now),
            lost=_attempts(lost, names, now),
            failed={names[index]: error for index, error in failed.items()},
            hosts=dict(sorted(Counter(worker.host for worker in pool).items())),
            tiles_per_minute=60 * _rate(pool, now),
            seconds_left=self._seconds_left(to_do, running, len(pool), workers, now),
        )

    def _seconds_left(
        self,
        to_do: Collection[int],
        running: Mapping[int, Worker],
        pool: int,
        workers: Iterable[Worker],
        now: float,
    ) -> tuple[float, float] | None:
        ended = [task for worker in workers for task in worker.ended]
        costs = self._costs[[task.task for task in ended]]
        law = Durations.of(costs, np.array([task.seconds for task in ended])).law()
        if not pool or law is None:
            return None
        seconds: dict[int, float] = dict(
            zip(to_do, law.seconds(self._costs[list(to_do)]).tolist(), strict=True)
        )
        for index, worker in running.items():
            seconds[index] = max(0.0, seconds[index] - (now - worker.since))
        longest = max(seconds.values(), default=0.0)
        cost, work = float(self._costs[list(seconds)].sum()), sum(seconds.values())
        return time_left(
            law, tasks=len(seconds), cost=cost, work=work, longest=longest, workers=pool
        )


def _newest(workers: Iterable[Worker], tasks: Collection[int]) -> dict[int, Worker]:
    """Return the worker that started each task last: an earlier one has lost it, or died."""
    at_hand: dict[int, Worker] = {}
    for worker in sorted(workers, key=lambda worker: worker.since):
        if worker.task is not None and worker.task in tasks:
            at_hand[worker.task] = worker
    return at_hand


def _between_tasks(workers: Iterable[Worker], to_do: Collection[int], now: float) -> list[Worker]:
    return [
        worker
        for worker in workers
        if (worker.task is None or worker.task not in to_do) and now - worker.heard < _BETWEEN
    ]


def _attempts(
    at_hand: Mapping[int, Worker], names: Sequence[str], now: float
) -> tuple[RunningTask, ...]:
    attempts = [
        RunningTask(
            tile=names[index],
            host=worker.host,
            pid=worker.pid,
            # The clock of another machine may be ahead.
            seconds=max(0.0, now - worker.since),
            fraction=worker.fraction,
            silent=max(0.0, now - worker.heard),
        )
        for index, worker in at_hand.items()
    ]
    return tuple(sorted(attempts, key=lambda attempt: -attempt.seconds))


def _rate(pool: Iterable[Worker], now: float) -> float:
    """Return how many tasks a pool does in a second."""
    rate = 0.0
    for worker in pool:
        if worker.ended:
            begin = worker.ended[0].time - worker.ended[0].seconds
            # At least a second: otherwise a worker that has just begun would seem arbitrarily fast.
            rate += len(worker.ended) / max(1.0, max(now, worker.heard) - begin)
    return rate
