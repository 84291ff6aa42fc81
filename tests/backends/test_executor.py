"""Any executor works as a backend: process pools, loky, submitit, a real Dask cluster with killed processes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import dask
import loky
import pytest
import submitit

from cryotile.backends import Context, drain, open_backend
from cryotile.backends.base import ATTEMPTS, STALL
from cryotile.backends.dask import DaskBackend
from cryotile.backends.executor import ExecutorBackend
from cryotile.errors import CryotileError, Drained, InvalidValue
from cryotile.farm.task import Progress, Task
from cryotile.testing.backends import BackendContract, MakeBackend, RecordingWork, make_tasks
from tests.support.members import small_run
from tests.support.services.dask import DaskCluster
from tests.support.services.mpi import MPI

SPAWN = get_context("spawn")

MPI_SCRIPT = """
import sys
from pathlib import Path
from mpi4py.futures import MPIPoolExecutor
from cryotile.backends.executor import ExecutorBackend
from cryotile.testing.backends import RecordingWork, make_tasks

if __name__ == "__main__":
    work = RecordingWork(Path(sys.argv[1]), {13: ("raise", 1)})
    with MPIPoolExecutor() as pool:
        outcomes = list(ExecutorBackend(pool).run(make_tasks(50), work))
    print(sum(outcome.error is None for outcome in outcomes), sum(outcome.attempts for outcome in outcomes))
"""


@dataclass(frozen=True)
class SignalAndWait:
    """Work that sends a signal to a process and waits until a named pipe is closed."""

    pipe: Path
    process: int
    number: int

    def __call__(self, task: Task, progress: Progress) -> None:
        with self.pipe.open("rb") as pipe:
            os.kill(self.process, self.number)
            pipe.read()


@dataclass(frozen=True)
class KillOnce:
    """Work that kills its process at the first attempt of one task."""

    directory: Path
    index: int

    def __call__(self, task: Task, progress: Progress) -> None:
        if task.index == self.index:
            try:
                (self.directory / "killed").touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class NotePid:
    """Work that at one task writes its process id to a named pipe and waits to be killed."""

    pipe: Path
    index: int

    def __call__(self, task: Task, progress: Progress) -> None:
        if task.index == self.index and self.pipe.exists():
            with self.pipe.open("w") as pipe:
                pipe.write(str(os.getpid()))
            # The pipe is removed before the next attempt, which succeeds.
            threading.Event().wait()


def leave(task: Task, progress: Progress) -> None:
    """Work that exits its process."""
    sys.exit(4)


def do_nothing(task: Task, progress: Progress) -> None:
    """Do nothing."""


class Foreign:
    """Work that the workers cannot load."""

    def __call__(self, task: Task, progress: Progress) -> None: ...

    def __reduce__(self):
        return __import__, ("a_module_that_only_the_sender_has",)


class ExecutorContract(BackendContract):
    """The contract of backends, except that workers are not ended: they belong to the executor's owner."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_the_farm_and_its_children(
        self, make_backend: MakeBackend, tmp_path: Path, number: signal.Signals
    ) -> None:
        def stop(number, frame):
            raise SystemExit(128 + number)

        os.mkfifo(tmp_path / "pipe")
        before = signal.signal(number, stop)
        # Open for writing as long as the work must wait, and for reading, so that open does not wait.
        pipe = os.open(tmp_path / "pipe", os.O_RDWR)
        try:
            work = SignalAndWait(tmp_path / "pipe", os.getpid(), number)
            with pytest.raises(SystemExit):
                list(make_backend().run([Task(0, 1.0)], work))
        finally:
            os.close(pipe)
            signal.signal(number, before)

    def test_work_that_a_worker_cannot_load_ends_the_run_with_one_line(
        self, make_backend: MakeBackend
    ) -> None:
        # Pools of processes break, and print the reason only to standard error.
        with pytest.raises(CryotileError, match=r"not loaded there|executor broke") as caught:
            list(make_backend().run(make_tasks(20), Foreign()))
        assert "\n" not in str(caught.value)

    def test_work_that_cannot_be_pickled_is_refused(self, make_backend: MakeBackend) -> None:
        lock = threading.Lock()

        def work(task: Task, progress: Progress) -> None:
            lock.acquire()

        with pytest.raises(InvalidValue, match="cannot be pickled") as caught:
            list(make_backend().run(make_tasks(2), work))
        assert "\n" not in str(caught.value)

    def test_work_that_exits_its_process_fails_alone(self, make_backend: MakeBackend) -> None:
        (outcome,) = make_backend().run([Task(0, 1.0)], leave)
        assert outcome.attempts == ATTEMPTS
        assert outcome.error.endswith("SystemExit: 4\n")


class TestProcessPool(ExecutorContract):
    @pytest.fixture
    def make_backend(self) -> Iterator[MakeBackend]:
        with ExitStack() as pools:

            def make(workers=2, stall=STALL):
                pool = ProcessPoolExecutor(workers, mp_context=SPAWN)
                return ExecutorBackend(pools.enter_context(pool))

            yield make


class TestLoky(ExecutorContract):
    @pytest.fixture
    def make_backend(self) -> Iterator[MakeBackend]:
        with ExitStack() as pools:

            def make(workers=2, stall=STALL):
                return ExecutorBackend(pools.enter_context(loky.ProcessPoolExecutor(workers)))

            yield make


@pytest.fixture(scope="module")
def cluster_of(tmp_path_factory):
    """Return a function that returns the address of a Dask cluster with a number of workers."""
    with ExitStack() as clusters:
        addresses: dict[int, str] = {}

        def address(workers: int) -> str:
            if workers not in addresses:
                directory = tmp_path_factory.mktemp("dask")
                cluster = clusters.enter_context(DaskCluster(directory, workers=workers))
                addresses[workers] = cluster.address
            return addresses[workers]

        yield address


class TestDask(ExecutorContract):
    @pytest.fixture
    def make_backend(self, cluster_of) -> MakeBackend:
        return lambda workers=2, stall=STALL: DaskBackend(cluster_of(workers), Context(stall=stall))

    def test_one_worker_starts_the_tasks_in_the_order_given(
        self, make_backend: MakeBackend, tmp_path: Path
    ) -> None:
        """Outcomes come in any order, because results are fetched concurrently."""
        tasks, work = make_tasks(50), RecordingWork(tmp_path)
        outcomes = list(make_backend(workers=1).run(tasks, work))
        assert work.started == [task.index for task in tasks] == indices(outcomes)


# Executors that break


def indices(outcomes) -> list[int]:
    return sorted(outcome.task.index for outcome in outcomes)


@pytest.mark.parametrize(
    "make_pool",
    [lambda: ProcessPoolExecutor(2, mp_context=SPAWN), lambda: loky.ProcessPoolExecutor(2)],
)
def test_a_pool_broken_by_a_crash_ends_the_run_with_one_line_and_a_new_pool_goes_on(
    tmp_path, make_pool
):
    tasks, done = make_tasks(40), []
    work = KillOnce(tmp_path, tasks[20].index)
    with (
        make_pool() as pool,
        pytest.raises(CryotileError, match=r"tasks left; .* goes on") as caught,
    ):
        done.extend(ExecutorBackend(pool).run(tasks, work))
    assert "\n" not in str(caught.value)
    left = [task for task in tasks if task.index not in indices(done)]
    with make_pool() as pool:
        done += ExecutorBackend(pool).run(left, work)
    assert indices(done) == [task.index for task in tasks]
    assert all(outcome.error is None for outcome in done)


def test_an_executor_that_was_shut_down_is_reported_as_broken():
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(CryotileError, match=r"the executor broke .*shutdown.* with 3 tasks left"):
        list(ExecutorBackend(pool).run(make_tasks(3), do_nothing))


def test_an_executor_whose_owner_cancels_everything_is_reported_as_broken():
    tasks = make_tasks(5)
    pool = ThreadPoolExecutor(1)

    def cancel_the_others(task: Task, progress: Progress) -> None:
        if task == tasks[1]:
            pool.shutdown(wait=False, cancel_futures=True)

    outcomes = ExecutorBackend(pool).run(tasks, cancel_the_others)
    with pytest.raises(CryotileError, match="CancelledError"):
        list(outcomes)


# What is submitted


class CountingPool(ThreadPoolExecutor):
    """A pool of one thread that counts the submissions it holds at a time, and all submissions."""

    def __init__(self) -> None:
        super().__init__(1)
        self.held: list[Future] = []
        self.submissions = self.most = 0

    def submit(self, function, /, *arguments, **options):
        future = super().submit(function, *arguments, **options)
        self.held = [*(each for each in self.held if not each.done()), future]
        self.submissions += 1
        self.most = max(self.most, len(self.held))
        return future


def test_an_executor_holds_no_more_submissions_than_the_window():
    with CountingPool() as pool:
        outcomes = list(
            ExecutorBackend(pool, window=7, batch_seconds=0).run(make_tasks(500), do_nothing)
        )
    assert len(outcomes) == pool.submissions == 500
    assert pool.most <= 7


def test_tasks_that_take_no_time_are_submitted_together():
    with CountingPool() as pool:
        outcomes = list(ExecutorBackend(pool, window=10).run(make_tasks(5000), do_nothing))
    assert len(outcomes) == 5000
    assert pool.submissions < 500


def test_towards_the_end_of_the_list_batches_get_smaller():
    batches = []

    class Pool(CountingPool):
        def submit(self, function, work, tasks):
            batches.append([task.index for task in tasks])
            return super().submit(function, work, tasks)

    with Pool() as pool:
        backend = ExecutorBackend(pool, window=2, batch_seconds=60.0, workers=2)
        assert len(list(backend.run(make_tasks(1000), do_nothing))) == 1000
    # At most half of a fair share of the remaining tasks: even of short tasks, the last ones go one by one.
    left = 1000
    for batch in batches:
        assert len(batch) <= max(1, left // 4)
        left -= len(batch)
    assert max(map(len, batches)) > 100
    assert left == 0


def test_two_threads_of_a_process_never_work_at_the_same_time():
    working = threading.Lock()

    def alone(task: Task, progress: Progress) -> None:
        assert working.acquire(blocking=False)
        threading.Event().wait(0.001)
        working.release()

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(ExecutorBackend(pool, batch_seconds=0).run(make_tasks(200), alone))
    assert [outcome.error for outcome in outcomes] == [None] * 200


def test_closing_the_iterator_takes_back_tasks_that_have_not_begun(tmp_path):
    tasks, go_on = make_tasks(50), threading.Event()
    begun = []

    def hold(task: Task, progress: Progress) -> None:
        begun.append(task)
        if task != tasks[0]:
            go_on.wait()

    with ThreadPoolExecutor(1) as pool:
        outcomes = ExecutorBackend(pool).run(tasks, hold)
        assert next(outcomes).task == tasks[0]
        outcomes.close()
        go_on.set()
    assert len(begun) <= 2


def test_a_drain_lets_running_tasks_end_and_takes_back_the_others():
    tasks = make_tasks(50)

    def stop_at_the_third(task: Task, progress: Progress) -> None:
        if task == tasks[2]:
            drain.begin()

    outcomes = []
    with ThreadPoolExecutor(1) as pool, pytest.raises(Drained, match="none of them charged"):
        outcomes.extend(
            ExecutorBackend(pool, window=2, batch_seconds=0).run(tasks, stop_at_the_third)
        )
    assert all(outcome.error is None for outcome in outcomes)
    assert 3 <= len(outcomes) <= 5


@pytest.mark.parametrize(
    "options", [{"window": 0}, {"batch_seconds": -1.0}, {"batch_seconds": float("nan")}]
)
def test_invalid_settings_are_refused(options):
    with ThreadPoolExecutor(1) as pool, pytest.raises(InvalidValue, match="; "):
        ExecutorBackend(pool, **options)


# Executors that are not quite like those of the standard library


def test_jobs_of_submitit_are_submissions_of_several_tasks(tmp_path):
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(timeout_min=5)
    tasks, work = make_tasks(12), RecordingWork(tmp_path, {4: ("raise", 1)})
    outcomes = list(ExecutorBackend(executor, window=2, batch_seconds=60).run(tasks, work))
    assert indices(outcomes) == [task.index for task in tasks]
    assert all(outcome.error is None for outcome in outcomes)
    assert len(list((tmp_path / "jobs").glob("*_submitted.pkl"))) < len(tasks)


class LosingExecutor(Executor):
    """An executor whose workers die at every task."""

    def submit(self, function, /, *arguments, **options):
        future: Future = Future()
        future.set_exception(ConnectionError("the worker\nis gone"))
        return future


def test_an_executor_that_loses_everything_ends_the_run_with_one_line():
    with pytest.raises(CryotileError, match="100 submissions in a row did not come back") as caught:
        list(ExecutorBackend(LosingExecutor(), window=2).run(make_tasks(1000), do_nothing))
    assert "\n" not in str(caught.value)


# A Dask cluster that loses processes


def test_tasks_of_a_dask_worker_that_is_killed_are_done_by_another(tmp_path):
    tasks = make_tasks(40)
    os.mkfifo(tmp_path / "pipe")
    work = NotePid(tmp_path / "pipe", tasks[3].index)
    with DaskCluster(tmp_path, workers=2) as cluster:
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(kill_who_writes, tmp_path / "pipe")
            outcomes = list(DaskBackend(cluster.address).run(tasks, work))
        # One of the two workers is not replaced.
        (killed,) = (worker for worker in cluster.workers if worker.pid == killing.result())
        assert killed.wait(60) == -signal.SIGKILL
    assert indices(outcomes) == [task.index for task in tasks]
    assert all(outcome.error is None for outcome in outcomes)


def kill_who_writes(pipe: Path) -> int:
    """Wait for a process id in a pipe; remove the pipe, kill the process, and return its id."""
    number = int(pipe.read_text())
    pipe.unlink()
    os.kill(number, signal.SIGKILL)
    return number


def test_a_task_that_kills_its_dask_workers_fails_alone(tmp_path):
    tasks = make_tasks(6)
    work = RecordingWork(tmp_path, {tasks[0].index: ("kill", 100)})
    # One worker: the other tasks wait behind the one that kills it, and are suspected, too.
    with DaskCluster(tmp_path, workers=1, allowed_failures=0, nanny=True) as cluster:
        outcomes = {o.task: o for o in DaskBackend(cluster.address).run(tasks, work)}
    assert set(outcomes) == set(tasks)
    bad = outcomes.pop(tasks[0])
    assert "KilledWorker" in bad.error
    assert bad.attempts == ATTEMPTS
    assert all(outcome.error is None for outcome in outcomes.values())


def test_a_killed_dask_scheduler_ends_the_run_with_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    work = NotePid(tmp_path / "pipe", 1)
    limit = {"distributed.comm.timeouts.connect": "1s"}
    with DaskCluster(tmp_path, workers=1) as cluster, dask.config.set(limit):

        def kill_scheduler() -> None:
            (tmp_path / "pipe").read_text()
            cluster.scheduler.kill()

        killer = threading.Thread(target=kill_scheduler)
        killer.start()
        with pytest.raises(CryotileError, match=r"the executor broke .* tasks left") as caught:
            list(DaskBackend(cluster.address).run(make_tasks(20), work))
        killer.join()
        cluster.workers[0].kill()
    assert "\n" not in str(caught.value)


def test_a_cluster_is_found_by_its_scheduler_file(tmp_path):
    with DaskCluster(tmp_path, workers=1) as cluster:
        backend = open_backend(f"dask:{cluster.file}", home=None, key="k")
        outcomes = list(backend.run(make_tasks(3), do_nothing))
    assert indices(outcomes) == [1, 4, 7]


def test_if_no_scheduler_answers_one_line_tells_how_to_start_one():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = "tcp://{}:{}".format(*unused.getsockname())
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "500ms"}),
            pytest.raises(
                CryotileError, match=f"{address}.*start one with 'dask scheduler'"
            ) as caught,
        ):
            list(open_backend(f"dask:{address}", home=None, key="k").run(make_tasks(1), do_nothing))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["dask", "dask:", "dask:no-such-file.json"])
def test_a_cluster_that_is_not_named_is_refused(spec):
    with pytest.raises(InvalidValue, match="write dask:tcp://HOST:8786"):
        open_backend(spec, home=None, key="k")


# MPI


def test_the_executor_of_mpi4py_hands_tasks_to_the_ranks(openmpi: MPI, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(MPI_SCRIPT)
    process = openmpi.start(3, ["-m", "mpi4py.futures", script, tmp_path])
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    # 50 tasks, one of which needed a second attempt.
    assert said.split() == [b"50", b"51"]
    assert sorted(RecordingWork(tmp_path).ended) == [task.index for task in make_tasks(50)]


# The command line


def test_a_run_on_dask_writes_the_same_tiles_as_other_backends(cluster_of, tmp_path):
    small = small_run(tmp_path, "false")
    words = ("run", "--backend", f"dask:{cluster_of(2)}")
    done = small.cryotile(*words)
    said, complaint = done.communicate(timeout=240)
    assert done.returncode == 0, complaint
    assert f"all {len(small.run.tasks)} tiles are there" in said
    assert small.tiles() == small.expected
