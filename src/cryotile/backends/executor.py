"""Any executor of :mod:`concurrent.futures` as a backend: process pools, loky, Dask, mpi4py.futures, Parsl, submitit.

It is for users who have an executor already, or need something that cryotile's own backends do not do.  The executor
supervises its workers: in most executors a task that ends its process ends them all, and a task that hangs is not
ended.
"""

from __future__ import annotations

import math
import queue
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import suppress
from pickle import PickleError

from cryotile.backends.base import ATTEMPTS, Attempt, TaskQueue, attempt
from cryotile.backends.deadline import Deadline
from cryotile.errors import CryotileError, InvalidValue
from cryotile.farm.task import Outcome, Task, Work

__all__ = ["BATCH_SECONDS", "WINDOW", "ExecutorBackend"]

WINDOW = 1000
"""Submissions that an executor holds at a time: more than most have workers, and few enough for every executor."""

BATCH_SECONDS = 0.1
"""Tasks shorter than this are submitted together, because a submission costs up to a millisecond."""

_MOST_IN_BATCH = 1000

# Seconds between checks of the deadline and of futures without callbacks.
_ROUND = 0.5

# Consecutive submissions without a result (or a whole window of them), after which the backend gives up.
_MOST_LOST = 100

# Host of an attempt that did not come back.
_UNKNOWN_HOST = "unknown"

# Pickle raises these for a work that cannot be pickled, or not be unpickled on the other side.
_NO_PICKLE = (PickleError, TypeError, AttributeError, ImportError)

# No other backend runs two tasks in one process at a time, so work need not expect it (HDF5 crashes): all threads of a
# worker but one wait.
_one_at_a_time = threading.Lock()

_Future = Future[list[Attempt]]


class ExecutorBackend:
    """Push tasks to an executor, which its owner starts, watches and shuts down.

    A task gets three attempts.  The loss of a worker costs each of its tasks one attempt; the last attempt of such a
    task is made alone, so that no task fails because of another's crash.  If the executor itself breaks, the run ends
    with an error; finished tasks stay done, and another executor can go on.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Anything whose ``submit(function, *arguments)`` gives a future.
    window : int
        Submissions that the executor holds at a time; it should be more than the executor has workers.
    batch_seconds : float
        Shorter tasks are submitted in batches of about this length, seconds; workers may run out of tasks up to this
        much before the others.  If every submission is a job of its own (submitit), use the length of a job.
    workers : int, optional
        Number of the executor's workers, if known: towards the end of the list batches get smaller, so that all
        workers are busy to the end.

    Raises
    ------
    InvalidValue
        The window is not positive, or the length of batches is negative.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        window: int = WINDOW,
        batch_seconds: float = BATCH_SECONDS,
        workers: int | None = None,
    ) -> None:
        if window < 1:
            raise InvalidValue(
                f"window {window} must be positive; use more submissions than the executor has workers"
            )
        if not batch_seconds >= 0:
            raise InvalidValue(
                f"batch_seconds {batch_seconds} must not be negative; use 0 to submit every task by itself"
            )
        self.executor = executor
        self.window = window
        self.batch_seconds = batch_seconds
        self.workers = workers

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Do the tasks in the executor's workers; see :meth:`cryotile.backends.Backend.run`."""
        if not tasks:
            return
        task_queue = TaskQueue(tasks)
        with Deadline() as deadline:
            farm = _Farm(self, work, task_queue, deadline)
            try:
                yield from farm.outcomes()
            finally:
                farm.recall()
            deadline.check_out(task_queue.left())


class _Farm:
    """The submissions of one list of tasks to an executor."""

    def __init__(
        self, backend: ExecutorBackend, work: Work, task_queue: TaskQueue, deadline: Deadline
    ) -> None:
        self._backend = backend
        self._work = work
        self._task_queue = task_queue
        self._deadline = deadline
        self._submitted: dict[_Future, list[Task]] = {}
        self._ended: queue.SimpleQueue[_Future] = queue.SimpleQueue()
        self._silent: set[_Future] = set()
        self._pace = math.inf
        self._failures: Counter[int] = Counter()
        self._lost: set[int] = set()
        self._alone = False
        self._lost_in_a_row = 0

    def outcomes(self) -> Iterator[Outcome]:
        """Keep the executor busy until no task is left or the deadline is reached."""
        while True:
            if self._deadline.draining():
                self.recall()
            else:
                self._submit()
            if not self._submitted or self._deadline.over():
                return
            for future in self._ready():
                # Recalled futures call back, too.
                if future in self._submitted:
                    yield from self._settle(future)

    def recall(self) -> None:
        """Take back the tasks that no worker has begun."""
        for future in reversed(list(self._submitted)):
            # Parsl cannot cancel.  A future without callbacks is a job of its own, and cancelled even if it runs.
            with suppress(NotImplementedError):
                if future.cancel() or future in self._silent:
                    self._task_queue.put_back(self._forget(future))

    def _submit(self) -> None:
        """Fill the window."""
        while len(self._submitted) < self._backend.window and not self._alone:
            tasks = self._task_queue.take(self._batch_size(), self._may_go)
            if not tasks and not self._submitted:
                tasks = self._task_queue.take(1, self._deadline.may_start)
                self._alone = True
            if not tasks:
                return
            future = self._begin(tasks)
            self._submitted[future] = tasks
            if hasattr(future, "add_done_callback"):
                future.add_done_callback(self._ended.put)
            else:
                self._silent.add(future)

    def _batch_size(self) -> int:
        """Return the number of tasks to submit together; the next tasks cost no more than those that set the pace."""
        most = _MOST_IN_BATCH
        if self._backend.workers:
            # At most half of a fair share of the remaining tasks, so that all workers end together.
            most = min(most, self._task_queue.stock() // (2 * self._backend.workers))
        return max(1, min(int(self._backend.batch_seconds / max(self._pace, 1e-9)), most))

    def _may_go(self, task: Task) -> bool:
        """Tell whether a task may be submitted beside others; one that may have killed two workers is tried alone."""
        suspect = task.index in self._lost and self._failures[task.index] == ATTEMPTS - 1
        return not suspect and self._deadline.may_start(task)

    def _begin(self, tasks: list[Task]) -> _Future:
        """Submit tasks."""
        try:
            return self._backend.executor.submit(_attempt_all, self._work, tasks)
        except _NO_PICKLE as error:
            raise self._unfit(error) from error
        except RuntimeError as error:
            # A broken executor raises BrokenExecutor, a subclass; one that was shut down raises RuntimeError itself.
            raise self._broken(error) from error

    def _ready(self) -> Iterator[_Future]:
        """Wait a moment for futures that have ended."""
        yield from [future for future in self._silent if future.done()]
        with suppress(queue.Empty):
            yield self._ended.get(timeout=_ROUND)
            while True:
                yield self._ended.get_nowait()

    def _settle(self, future: _Future) -> list[Outcome]:
        """Process a submission that has ended."""
        tasks = self._forget(future)
        try:
            error = future.exception()
        except CancelledError as cancelled:
            error = cancelled
        attempts = self._done(future) if error is None else self._lose(tasks, error)
        self._failures.update(each.task.index for each in attempts if each.error is not None)
        return self._task_queue.settle(attempts)

    def _done(self, future: _Future) -> list[Attempt]:
        """Return the attempts of a submission that came back."""
        attempts = future.result()
        self._lost_in_a_row = 0
        self._pace = sum(each.seconds for each in attempts) / len(attempts)
        for each in attempts:
            self._deadline.ended(each)
        return attempts

    def _lose(self, tasks: list[Task], error: BaseException) -> list[Attempt]:
        """Charge the tasks of a submission that did not come back; raise if no other submission would come back."""
        # Errors of the work are in its attempts, so this is an error of the executor.
        if isinstance(error, (BrokenExecutor, CancelledError)):
            raise self._broken(error) from error
        if isinstance(error, CryotileError):
            raise error
        if isinstance(error, _NO_PICKLE) or isinstance(error.__cause__, _NO_PICKLE):
            raise self._unfit(error) from error
        reason = _one_line(error)
        self._lost_in_a_row += 1
        if self._lost_in_a_row == max(_MOST_LOST, self._backend.window):
            raise CryotileError(
                f"{self._lost_in_a_row} submissions in a row did not come back from the executor, the last: {reason}; "
                "see its workers' logs, then run again to go on"
            )
        self._lost.update(task.index for task in tasks)
        return [Attempt(task, 0.0, reason, _UNKNOWN_HOST) for task in tasks]

    def _forget(self, future: _Future) -> list[Task]:
        self._silent.discard(future)
        self._alone = False
        return self._submitted.pop(future)

    def _broken(self, error: BaseException) -> CryotileError:
        return CryotileError(
            f"the executor broke ({_one_line(error)}) with {self._task_queue.left()} tasks left; "
            "finished tasks are kept, and the same command goes on when the executor is there again"
        )

    def _unfit(self, error: BaseException) -> InvalidValue:
        return InvalidValue(
            f"the work cannot be pickled for the executor's workers, or not loaded there ({_one_line(error)}); "
            "define it at the top level of a module that they can import, and install the same packages there"
        )


def _attempt_all(work: Work, tasks: Sequence[Task]) -> list[Attempt]:
    """Try each task once, in a worker."""
    with _one_at_a_time:
        return [_attempt(work, task) for task in tasks]


def _attempt(work: Work, task: Task) -> Attempt:
    try:
        return attempt(work, task, _ignore)
    except SystemExit:
        # The process belongs to the executor: work that exits has failed, and must not end other tasks.
        return Attempt(task, 0.0, traceback.format_exc())


def _ignore(fraction: float) -> None:
    """Ignore a progress call: a worker of an executor can send nothing but its result."""


def _one_line(error: BaseException) -> str:
    return " ".join("".join(traceback.format_exception_only(error)).split())
