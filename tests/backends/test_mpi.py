"""The ranks of an MPI program as a farm, on Open MPI 5, MPICH and the distribution's Open MPI."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cryotile.backends.base import STALL, Context
from cryotile.backends.mpi import MPIBackend
from cryotile.backends.mpi.launch import Rank, mpi_rank, own_environment
from cryotile.errors import InvalidValue
from cryotile.farm.task import Outcome, Progress, Task
from cryotile.testing.backends import (
    MakeBackend,
    RecordingWork,
    SupervisedContract,
    holders,
    make_tasks,
)
from tests.support.mpi_farm import MPIFarm
from tests.support.services.hosts import TwoHosts, two_hosts
from tests.support.services.mpi import MPI

__all__ = ["two_hosts"]


# `make test-faults` runs the long form.
KILLS = 200 if os.environ.get("CRYOTILE_LONG") else 6

ULFM = ("--with-ft", "ulfm")


class TestOpenMPI(SupervisedContract):
    @pytest.fixture
    def make_backend(self, openmpi: MPI) -> MakeBackend:
        return lambda workers=2, stall=STALL: MPIFarm(openmpi, workers, stall)


@pytest.fixture(params=["mpich", "debian_openmpi"])
def other_mpi(request: pytest.FixtureRequest) -> MPI:
    return request.getfixturevalue(request.param)


def test_other_libraries_do_the_same(other_mpi: MPI, tmp_path: Path) -> None:
    tasks = make_tasks(300)
    faults = {
        tasks[4].index: ("kill", 1),
        tasks[90].index: ("exit", 3),
        tasks[91].index: ("raise", 1),
    }
    work = RecordingWork(tmp_path, faults | {tasks[200].index: ("hang", 1)})
    outcomes = list(MPIFarm(other_mpi, workers=3, stall=3.0).run(tasks, work))
    assert Counter(outcome.task for outcome in outcomes) == Counter(tasks)
    assert [o.task for o in outcomes if o.error is not None] == [tasks[90]]
    attempts = {o.task: o.attempts for o in outcomes if o.attempts > 1}
    assert attempts == {tasks[4]: 2, tasks[90]: 3, tasks[91]: 2, tasks[200]: 2}


def test_a_farm_of_another_library_ends_its_children_when_closed(
    other_mpi: MPI, tmp_path: Path
) -> None:
    with holders(tmp_path / "pipe") as reader:
        outcomes = MPIFarm(other_mpi).run(make_tasks(10), Hold(tmp_path / "pipe"))
        assert next(outcomes).task == make_tasks(10)[0]
        outcomes.close()
        while os.read(reader, 4096):
            pass


@dataclass(frozen=True)
class Hold:
    """Work that hangs with a named pipe open, except the first task."""

    pipe: Path

    def __call__(self, task: Task, progress: Progress) -> None:
        if task != make_tasks(10)[0]:
            with self.pipe.open("wb", buffering=0) as pipe:
                pipe.write(b"here\n")
                signal.pause()


@dataclass(frozen=True)
class GatedWork:
    """Work of some milliseconds; tasks behind a gate wait in their middle until the gate is moved.

    A waiting task leaves a note, ``task.rank.child``, where rank and child are process ids.
    """

    directory: Path

    def __call__(self, task: Task, progress: Progress) -> None:
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            progress(0.5)
        if task.index > self._gate():
            (self.directory / f"{task.index}.{os.getppid()}.{os.getpid()}").touch()
        while task.index > self._gate():
            progress(0.5)

    def move_gate(self, task: Task) -> None:
        """Let all tasks up to this one pass."""
        new = self.directory / "new"
        new.write_text(str(task.index))
        new.rename(self.directory / "gate")

    def await_waiting(self, gone: Collection[int] = ()) -> list[tuple[int, int]]:
        """Wait for tasks behind the gate; return the process ids of their ranks and children."""
        gate, waiting = self._gate(), set[tuple[int, int]]()
        while not waiting:
            for note in self.directory.glob("*.*.*"):
                task, *pids = map(int, note.name.split("."))
                if task > gate and not set(pids) & set(gone):
                    waiting.add((pids[0], pids[1]))
        return sorted(waiting)

    def _gate(self) -> int:
        return int((self.directory / "gate").read_text())


# Number of tasks between a moment and its gate: more than may be queued behind tasks that wait at the gate.
BEFORE_GATE = 40


def run_and_kill(
    farm: MPIFarm, work: GatedWork, *, seed: int, kills: int, what: int
) -> list[Outcome]:
    """Run 400 tasks and kill ranks (what = 0) or children (1) in the middle of tasks, at random moments of the run."""
    rng = random.Random(seed)
    tasks, killed, outcomes = make_tasks(400), list[int](), list[Outcome]()
    *moments, _ = ends = [*sorted(rng.sample(range(1, 340), kills)), len(tasks) - 1 - BEFORE_GATE]
    work.move_gate(tasks[ends[0] + BEFORE_GATE])
    for outcome in farm.run(tasks, work):
        outcomes.append(outcome)
        if len(outcomes) in moments:
            killed.append(rng.choice(work.await_waiting(gone=killed))[what])
            os.kill(killed[-1], signal.SIGKILL)
            work.move_gate(tasks[ends[len(killed)] + BEFORE_GATE])
    assert Counter(outcome.task for outcome in outcomes) == Counter(tasks)
    assert all(outcome.error is None for outcome in outcomes)
    assert len(killed) == sum(outcome.attempts - 1 for outcome in outcomes) == kills
    return outcomes


@pytest.mark.parametrize("seed", range(max(1, KILLS // 40)))
def test_children_killed_at_random_moments_cost_an_attempt_each(
    openmpi: MPI, tmp_path: Path, seed: int
) -> None:
    farm, kills = MPIFarm(openmpi, workers=4), min(KILLS, 40)
    run_and_kill(farm, GatedWork(tmp_path), seed=seed, kills=kills, what=1)


@pytest.mark.parametrize("seed", range(max(1, KILLS // 20)))
def test_the_farm_continues_without_ranks_killed_at_random_moments(
    openmpi: MPI, tmp_path: Path, seed: int
) -> None:
    farm = MPIFarm(openmpi, workers=5, options=ULFM)
    run_and_kill(farm, GatedWork(tmp_path), seed=seed, kills=3, what=0)
    assert "was lost; the farm goes on without it" in farm.messages


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGUSR1, "was ended by RuntimeError"),
        (signal.SIGUSR2, "was silent for"),
        (signal.SIGSTOP, "was silent for"),
    ],
)
def test_the_farm_continues_without_a_rank_that_raises_or_exits_or_hangs(
    openmpi: MPI, tmp_path: Path, number: signal.Signals, reason: str
) -> None:
    tasks, work = make_tasks(400), GatedWork(tmp_path)
    farm = MPIFarm(openmpi, workers=3, options=ULFM, silence=4.0)
    work.move_gate(tasks[100 + BEFORE_GATE])
    outcomes = []
    for outcome in farm.run(tasks, work):
        outcomes.append(outcome)
        if len(outcomes) == 100:
            rank, _ = work.await_waiting()[0]
            os.kill(rank, number)
            work.move_gate(tasks[-1])
    assert Counter(outcome.task for outcome in outcomes) == Counter(tasks)
    assert all(outcome.error is None for outcome in outcomes)
    assert reason in farm.messages


def test_work_that_ranks_cannot_pickle_is_refused_by_rank_0(openmpi: MPI, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from cryotile.backends.mpi import MPIBackend\n"
        "from cryotile.farm.task import Task\n"
        "list(MPIBackend().run([Task(0, 1.0)], lambda task, progress: None))\n"
    )
    program = openmpi.start(3, [script])
    _, complaint = program.communicate(timeout=240)
    assert b"CryotileError: all workers are gone" in complaint
    assert b"cannot be pickled" in complaint


def test_a_program_may_run_one_farm_after_another(openmpi: MPI, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import itertools\n"
        "from cryotile.backends.mpi import MPIBackend\n"
        "from cryotile.testing.backends import RecordingWork, make_tasks\n"
        "from pathlib import Path\n"
        "work = RecordingWork(Path(__file__).parent)\n"
        "farm = MPIBackend()\n"
        # The first farm is closed early, with tasks handed out.
        "first = list(itertools.islice(farm.run(make_tasks(300), work), 5))\n"
        "second = list(farm.run(make_tasks(300), work))\n"
        "if first or second:\n"
        "    print(len(first), len(second), len({outcome.task for outcome in second}))\n"
    )
    program = openmpi.start(3, [script])
    said, _ = program.communicate(timeout=240)
    assert (program.returncode, said) == (0, b"5 300 300\n")


@dataclass(frozen=True)
class TellEnvironment:
    file: Path

    def __call__(self, task: Task, progress: Progress) -> None:
        self.file.write_text("\n".join(os.environ))


@pytest.mark.parametrize("library", ["openmpi", "mpich"])
def test_children_are_not_ranks(
    library: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    farm = MPIFarm(request.getfixturevalue(library), workers=1)
    (outcome,) = farm.run([Task(0, 1.0)], TellEnvironment(tmp_path / "environment"))
    assert outcome.error is None
    names = (tmp_path / "environment").read_text().splitlines()
    assert mpi_rank(dict.fromkeys(names, "1")) is None
    assert "PATH" in names


def on_two_hosts(mpi: MPI, hosts: TwoHosts, workers: int) -> MPIFarm:
    launcher = [
        *(*hosts.enter, *mpi.mpirun),
        *("--prtemca", "plm_ssh_agent", str(hosts.agent)),
        *("--host", ",".join(f"{address}:{workers}" for address in hosts.addresses)),
        # Every other rank on the other host.
        *("--map-by", "node"),
    ]
    return MPIFarm(replace(mpi, mpirun=tuple(launcher)), workers)


@dataclass(frozen=True)
class MeetOn:
    """Work that begins once it has been called on two hosts."""

    notes: Path
    work: RecordingWork

    def __call__(self, task: Task, progress: Progress) -> None:
        (self.notes / socket.gethostname()).touch()
        while len(list(self.notes.iterdir())) < 2:
            progress(0.0)
        self.work(task, progress)


def test_a_farm_spans_hosts(openmpi: MPI, two_hosts: TwoHosts, tmp_path: Path) -> None:
    tasks, notes = make_tasks(200), tmp_path / "notes"
    notes.mkdir()
    work = MeetOn(notes, RecordingWork(tmp_path, {tasks[7].index: ("kill", 1)}))
    outcomes = list(on_two_hosts(openmpi, two_hosts, workers=3).run(tasks, work))
    assert Counter(outcome.task for outcome in outcomes) == Counter(tasks)
    assert {outcome.host for outcome in outcomes} == set(two_hosts.names)


@dataclass(frozen=True)
class FailOn:
    """Work that fails on one host, as without a library; the other host's first task waits for three failures."""

    host: str
    notes: Path

    def __call__(self, task: Task, progress: Progress) -> None:
        if socket.gethostname() == self.host:
            (self.notes / str(task.index)).touch()
            raise OSError("a library is missing here")
        while len(list(self.notes.iterdir())) < 3:
            progress(0.5)


def test_a_broken_host_fails_no_task(openmpi: MPI, two_hosts: TwoHosts, tmp_path: Path) -> None:
    tasks, notes = make_tasks(300), tmp_path / "notes"
    notes.mkdir()
    farm = on_two_hosts(openmpi, two_hosts, workers=3)
    outcomes = list(farm.run(tasks, FailOn(two_hosts.names[1], notes)))
    assert Counter(outcome.task for outcome in outcomes) == Counter(tasks)
    assert all(outcome.error is None for outcome in outcomes)
    assert {outcome.host for outcome in outcomes} == {two_hosts.names[0]}
    assert f"host {two_hosts.names[1]} is broken" in farm.messages
    # The suspect host got no more tasks; two of its workers may each have had one running.
    assert len(list(notes.iterdir())) <= 4


def test_outside_mpirun_children_of_this_process_work_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks, work = make_tasks(20), RecordingWork(tmp_path)
    assert len(list(MPIBackend().run(tasks, work))) == len(tasks)
    assert "start it as mpirun -n N" in caplog.text


def test_without_mpi4py_rank_0_works_and_the_others_answer_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    work = RecordingWork(tmp_path)
    tasks = make_tasks(20)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "2")
    assert list(MPIBackend().run(tasks, work)) == []
    assert list(MPIBackend().share(tasks)) == []
    assert not caplog.text
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert MPIBackend().share(tasks) == tasks
    assert len(list(MPIBackend().run(tasks, work))) == 20
    assert "pip install 'cryotile[mpi]'" in caplog.text


def test_ranks_do_not_wait_without_end_for_mpi_to_start(tmp_path: Path) -> None:
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("class rc: finalize = None\n")
    # As with --with-ft ulfm if a rank is lost during the start.
    (package / "MPI.py").write_text("import threading\nthreading.Event().wait()\n")
    program = "from cryotile.backends.mpi import transport; transport.START_LIMIT = 0.1; transport.Transport()"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ['PYTHONPATH']}"},
        stderr=subprocess.PIPE,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 1
    assert b"Timeout" in ended.stderr


def test_a_single_rank_has_one_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "1")
    tasks, work = make_tasks(20), RecordingWork(tmp_path, {4: ("kill", 1)})
    outcomes = list(MPIBackend("", Context(tmp_path / "run", "key/1")).run(tasks, work))
    assert Counter(outcome.task for outcome in outcomes) == Counter(tasks)
    assert "1 child processes" in caplog.text


def test_mpi_takes_no_argument() -> None:
    with pytest.raises(InvalidValue, match=r"write mpirun -n 8"):
        MPIBackend("8")


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "64"}, Rank(3, 64)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, Rank(0, 2)),
        ({"PMIX_RANK": "5"}, Rank(5, 0)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}, Rank(1, 4)),
        # A batch script, and an interactive shell that srun started.
        ({"SLURM_PROCID": "0"}, None),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        (
            {
                "SLURM_PROCID": "0",
                "SLURM_STEP_NUM_TASKS": "1",
                "PMI_RANK": "7",
                "PMI_SIZE": "9",
            },
            Rank(7, 9),
        ),
    ],
)
def test_a_rank_is_read_from_the_variables_of_its_launcher(
    environment: dict[str, str], place: Rank | None
) -> None:
    assert mpi_rank(environment) == place
    assert mpi_rank(own_environment(environment)) is None


def test_a_rank_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(InvalidValue, match="PMI_RANK is 'x', not a number"):
        mpi_rank({"PMI_RANK": "x", "PMI_SIZE": "2"})
