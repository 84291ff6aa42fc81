"""The contract of backends as tests: the behaviour that users rely on, whichever backend they choose.

Subclass one of the two suites, override the fixture that builds your backend, and let pytest collect it:

.. code-block:: python

    class TestMine(SupervisedContract):
        @pytest.fixture
        def make_backend(self, tmp_path):
            def make(workers=2, stall=STALL):
                return MyBackend(str(workers), Context(tmp_path, "contract", stall))

            return make

Works write their evidence to a directory, so workers must see the file system of the tests.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Protocol

import pytest

from cryotile.backends import Backend
from cryotile.backends.base import ATTEMPTS, STALL
from cryotile.errors import CryotileError, Drained
from cryotile.farm.task import Outcome, Progress, Task
from cryotile.testing.works import (
    HoldingWork,
    RecordingWork,
    SignallingWork,
    StoppingWork,
    await_holder,
    draining_on_sigterm,
    holders,
    make_tasks,
    report_long,
)

__all__ = [
    "BackendContract",
    "HoldingWork",
    "MakeBackend",
    "RecordingWork",
    "SignallingWork",
    "SupervisedContract",
    "holders",
    "make_tasks",
]


class MakeBackend(Protocol):
    """Build the backend under test."""

    def __call__(self, workers: int = 2, stall: float = STALL) -> Backend:
        """Build a backend with a number of workers and a stall limit (seconds)."""
        ...


class BackendContract:
    """The behaviour of every backend; subclass and override the fixture ``make_backend``."""

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        """Return a function that builds the backend under test."""
        raise NotImplementedError(
            "override the fixture make_backend: it gives a function (workers, stall) → backend"
        )

    def test_every_task_has_one_outcome_without_an_error(
        self, make_backend: MakeBackend, tmp_path: Path
    ) -> None:
        """Nothing is lost, nothing is done twice, and an outcome tells duration, host and attempt."""
        tasks, work = make_tasks(20), RecordingWork(tmp_path)
        outcomes = list(make_backend().run(tasks, work))
        assert {outcome.task for outcome in outcomes} == set(tasks)
        assert len(outcomes) == len(tasks)
        assert sorted(work.started) == sorted(work.ended) == [task.index for task in tasks]
        assert all(outcome.error is None and outcome.attempts == 1 for outcome in outcomes)
        assert all(outcome.seconds >= 0.0 and outcome.host for outcome in outcomes)

    def test_one_worker_starts_the_tasks_in_the_order_given(
        self, make_backend: MakeBackend, tmp_path: Path
    ) -> None:
        """Costliest first is the caller's order; a single worker keeps it exactly."""
        tasks, work = make_tasks(50), RecordingWork(tmp_path)
        outcomes = list(make_backend(workers=1).run(tasks, work))
        assert work.started == [task.index for task in tasks]
        assert [outcome.task for outcome in outcomes] == tasks

    def test_an_empty_list_has_no_outcome(self, make_backend: MakeBackend, tmp_path: Path) -> None:
        """A run with nothing left to do ends at once."""
        assert list(make_backend().run([], RecordingWork(tmp_path))) == []

    def test_one_task_is_done(self, make_backend: MakeBackend, tmp_path: Path) -> None:
        """A list shorter than the farm leaves no worker waiting for more."""
        (outcome,) = make_backend(workers=3).run([Task(7, 0.0)], RecordingWork(tmp_path))
        assert (outcome.task, outcome.attempts, outcome.error) == (Task(7, 0.0), 1, None)

    def test_ten_thousand_tasks_are_done_once_each(
        self, make_backend: MakeBackend, tmp_path: Path
    ) -> None:
        """Many small tasks are neither lost nor block a pipe."""
        tasks, work = make_tasks(10_000), RecordingWork(tmp_path)
        outcomes = list(make_backend().run(tasks, work))
        assert Counter(outcome.task for outcome in outcomes) == Counter(tasks)
        assert sorted(work.ended) == [task.index for task in tasks]

    def test_a_task_that_raises_fails_after_three_attempts(
        self, make_backend: MakeBackend, tmp_path: Path
    ) -> None:
        """Its outcome carries the traceback, and the others are done."""
        outcome = self.outcome_of_a_faulty_task(make_backend(), tmp_path, "raise")
        assert outcome.error is not None
        assert outcome.error.startswith("Traceback")
        assert "ValueError: this task raises" in outcome.error

    def test_a_task_that_raises_once_is_done_at_the_second_attempt(
        self, make_backend: MakeBackend, tmp_path: Path
    ) -> None:
        """A temporary fault costs one attempt and no task."""
        self.check_a_second_attempt(make_backend(), tmp_path, "raise")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_the_farm_and_its_children(
        self, make_backend: MakeBackend, tmp_path: Path, number: signal.Signals
    ) -> None:
        """A stopped run leaves no process behind."""

        def leave(number: int, frame: FrameType | None) -> None:
            raise SystemExit(128 + number)

        before = signal.signal(number, leave)
        try:
            with holders(tmp_path / "pipe") as reader:
                work = SignallingWork(tmp_path / "pipe", os.getpid(), number)
                with pytest.raises(SystemExit):
                    list(make_backend().run([Task(0, 1.0)], work))
                assert os.read(reader, 1) == b""
        finally:
            signal.signal(number, before)

    def outcome_of_a_faulty_task(self, backend: Backend, directory: Path, fault: str) -> Outcome:
        """Run ten tasks of which one always fails, check the others and the attempts, and return its outcome."""
        tasks = make_tasks(10)
        bad = tasks[4]
        work = RecordingWork(directory, {bad.index: (fault, ATTEMPTS)})
        outcomes = {outcome.task: outcome for outcome in backend.run(tasks, work)}
        assert set(outcomes) == set(tasks)
        good = [outcome for task, outcome in outcomes.items() if task != bad]
        assert all(outcome.error is None and outcome.attempts == 1 for outcome in good)
        assert Counter(work.started) == Counter(task.index for task in tasks) + Counter(
            {bad.index: ATTEMPTS - 1}
        )
        assert outcomes[bad].attempts == ATTEMPTS
        return outcomes[bad]

    def check_a_second_attempt(self, backend: Backend, directory: Path, fault: str) -> None:
        """Run ten tasks of which one fails once, and check that all are done."""
        tasks = make_tasks(10)
        work = RecordingWork(directory, {tasks[4].index: (fault, 1)})
        outcomes = {outcome.task: outcome for outcome in backend.run(tasks, work)}
        assert all(outcome.error is None for outcome in outcomes.values())
        assert [outcomes[task].attempts for task in tasks] == [1, 1, 1, 1, 2, 1, 1, 1, 1, 1]


class SupervisedContract(BackendContract):
    """The further behaviour of a backend with supervised children: it survives the end of a process."""

    @pytest.mark.parametrize(
        ("fault", "end"),
        [
            ("kill", "SIGKILL"),
            ("segfault", "SIGSEGV"),
            ("exit", "exit code 3"),
            ("sys.exit", "exit code 4"),
        ],
    )
    def test_a_task_that_ends_its_process_fails_after_three_attempts(
        self, make_backend: MakeBackend, tmp_path: Path, fault: str, end: str
    ) -> None:
        """Its outcome tells how the process ended, and the others are done at their first attempt."""
        outcome = self.outcome_of_a_faulty_task(make_backend(), tmp_path, fault)
        assert outcome.error is not None
        assert end in outcome.error

    @pytest.mark.parametrize("fault", ["kill", "exit"])
    def test_a_task_that_ends_its_process_once_is_done_at_the_second_attempt(
        self, make_backend: MakeBackend, tmp_path: Path, fault: str
    ) -> None:
        """The process is replaced, even if it was the only one."""
        self.check_a_second_attempt(make_backend(workers=1), tmp_path, fault)

    def test_a_task_that_hangs_fails_after_three_attempts(
        self, make_backend: MakeBackend, tmp_path: Path
    ) -> None:
        """Its process is killed after the stall limit, and the others are done."""
        outcome = self.outcome_of_a_faulty_task(make_backend(stall=1.0), tmp_path, "hang")
        assert outcome.error is not None
        assert "no progress for 1 s" in outcome.error

    def test_a_task_that_reports_progress_outlives_the_stall_limit(
        self, make_backend: MakeBackend
    ) -> None:
        """A long task is not a hung task."""
        (outcome,) = make_backend(stall=1.0).run([Task(0, 1.0)], report_long)
        assert outcome.error is None

    def test_a_farm_that_is_closed_early_leaves_no_process(
        self, make_backend: MakeBackend, tmp_path: Path
    ) -> None:
        """Closing the iterator stops the work."""
        tasks = make_tasks(10)
        with holders(tmp_path / "pipe") as reader:
            outcomes = make_backend().run(tasks, HoldingWork(tmp_path / "pipe", tasks[0].index))
            assert next(outcomes).task == tasks[0]
            await_holder(reader)
            outcomes.close()  # type: ignore[attr-defined]
            while os.read(reader, 4096):
                pass

    def test_a_farm_that_is_asked_to_stop_lets_what_runs_end(
        self, make_backend: MakeBackend, tmp_path: Path
    ) -> None:
        """It starts nothing more, says so, and its finished tasks count."""
        tasks, recording = make_tasks(10), RecordingWork(tmp_path)
        work = StoppingWork(recording, os.getpid(), tasks[0].index)
        outcomes: list[Outcome] = []
        with draining_on_sigterm(), pytest.raises(Drained, match="9 tasks left"):
            # Unlike list(), this keeps what comes before the error.
            outcomes.extend(make_backend(workers=1).run(tasks, work))
        assert [(outcome.task, outcome.error) for outcome in outcomes] == [(tasks[0], None)]
        assert recording.started == recording.ended == [tasks[0].index]

    def test_what_outlasts_the_grace_is_ended_and_not_charged(
        self, make_backend: MakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next run does those tasks at their first attempt."""
        monkeypatch.setenv("CRYOTILE_GRACE", "0.2")
        tasks = make_tasks(3)
        with holders(tmp_path / "pipe") as reader:
            work = SignallingWork(tmp_path / "pipe", os.getpid(), signal.SIGTERM)
            with draining_on_sigterm(), pytest.raises(Drained, match="3 tasks left"):
                list(make_backend(workers=1).run(tasks, work))
            assert os.read(reader, 1) == b""
        outcomes = list(make_backend(workers=1).run(tasks, RecordingWork(tmp_path)))
        assert [outcome.attempts for outcome in outcomes] == [1, 1, 1]

    def test_work_that_cannot_be_pickled_is_refused(self, make_backend: MakeBackend) -> None:
        """The error says so, and what to use instead."""
        lock = threading.Lock()

        def work(task: Task, progress: Progress) -> None:
            lock.acquire()

        with pytest.raises(CryotileError, match="cannot be pickled"):
            list(make_backend().run(make_tasks(2), work))
