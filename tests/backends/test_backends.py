"""Every backend fulfils the contract, and is found by its name."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from cryotile.backends import Context, installed_backends, open_backend
from cryotile.backends.base import STALL
from cryotile.backends.cores import usable_cores
from cryotile.backends.local import LocalBackend
from cryotile.backends.serial import SerialBackend
from cryotile.errors import CryotileError, InvalidValue, MissingDependency
from cryotile.farm.task import Progress, Task
from cryotile.testing.backends import (
    BackendContract,
    MakeBackend,
    RecordingWork,
    SupervisedContract,
    make_tasks,
)


class TestSerial(BackendContract):
    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        return lambda workers=2, stall=STALL: SerialBackend("", Context(stall=stall))


class TestLocal(SupervisedContract):
    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        return lambda workers=2, stall=STALL: LocalBackend(str(workers), Context(stall=stall))


@dataclass(frozen=True)
class NotePid:
    """Work that notes in which process each task was done."""

    directory: Path

    def __call__(self, task: Task, progress: Progress) -> None:
        (self.directory / f"{task.index}.{os.getpid()}").touch()

    @property
    def pids(self) -> set[int]:
        return {int(note.suffix[1:]) for note in self.directory.iterdir()}


@dataclass(frozen=True)
class AwaitKill:
    """Work that at the first attempt of some tasks writes its process id to a named pipe and waits to be killed."""

    pipe: Path
    fatal: frozenset[int]

    def __call__(self, task: Task, progress: Progress) -> None:
        if task.index in self.fatal:
            try:
                self.pipe.with_name(f"{task.index}").touch(exist_ok=False)
            except FileExistsError:
                return
            self.pipe.write_bytes(b"%d\n" % os.getpid())
            while True:
                signal.pause()


def kill_who_write(pipe: int, count: int) -> None:
    """Kill ``count`` processes whose ids come through a pipe."""
    while count > 0:
        for number in os.read(pipe, 4096).split():
            os.kill(int(number), signal.SIGKILL)
            count -= 1


class BrokenWork:
    """Work whose process dies while loading it, as with a broken library."""

    def __call__(self, task: Task, progress: Progress) -> None: ...

    def __reduce__(self):
        return os._exit, (5,)


def test_local_starts_no_more_children_than_there_are_tasks(tmp_path):
    work = NotePid(tmp_path)
    list(LocalBackend("50").run(make_tasks(2), work))
    assert 1 <= len(work.pids) <= 2
    assert os.getpid() not in work.pids


def test_tasks_survive_children_that_are_killed_from_outside(tmp_path):
    tasks = make_tasks(3000)
    fatal = {task.index for task in tasks[::500]}
    os.mkfifo(tmp_path / "pipe")
    # Open for writing, too, so that it does not end when one of its writers does.
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    killer = threading.Thread(target=kill_who_write, args=(pipe, len(fatal)), daemon=True)
    killer.start()
    work = AwaitKill(tmp_path / "pipe", frozenset(fatal))
    outcomes = list(LocalBackend("2").run(tasks, work))
    killer.join()
    os.close(pipe)
    assert sorted(outcome.task.index for outcome in outcomes) == [task.index for task in tasks]
    assert all(outcome.error is None for outcome in outcomes)
    # Of the tasks of a killed child, only the running one was charged.
    attempts = {outcome.task.index: outcome.attempts for outcome in outcomes}
    assert attempts == {task.index: 1 + (task.index in fatal) for task in tasks}


def test_an_idle_child_takes_over_tasks_that_another_has_not_started(tmp_path):
    tasks = make_tasks(4)
    work = RecordingWork(tmp_path, {tasks[0].index: ("hang", 1)})
    outcomes = [outcome.task for outcome in LocalBackend("2", Context(stall=3.0)).run(tasks, work)]
    # The first child hangs at the costliest task; the tasks queued behind it do not wait for the stall limit.
    assert outcomes[-1] == tasks[0]


def test_children_that_die_before_they_start_a_task_end_the_run_with_one_line():
    with pytest.raises(CryotileError, match=r"before they started a task.*exit code 5") as caught:
        list(LocalBackend("2").run(make_tasks(100), BrokenWork()))
    assert "\n" not in str(caught.value)


def test_a_spec_names_a_backend_and_its_argument():
    assert isinstance(open_backend("serial", home=None, key="k"), SerialBackend)
    local = open_backend("local:3", home=None, key="k", stall=5.0)
    assert isinstance(local, LocalBackend)
    assert (local.children, local.stall) == (3, 5.0)


def test_local_without_a_number_has_one_child_per_usable_core():
    assert LocalBackend().children == usable_cores() >= 1


@pytest.mark.parametrize(
    "spec", ["local:0", "local:x", "local:-1", "local:1.5", "serial:3", "slurm", "", ":2"]
)
def test_a_wrong_spec_is_refused_in_one_line_with_a_remedy(spec):
    with pytest.raises(InvalidValue, match=r"; write |installed are ") as caught:
        open_backend(spec, home=None, key="k")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stall", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("spec", ["serial", "local:2"])
def test_a_stall_limit_that_is_not_positive_is_refused(spec, stall):
    with pytest.raises(InvalidValue, match="stall limit"):
        open_backend(spec, home=None, key="k", stall=stall)


def test_leases_last_as_long_as_the_user_says(tmp_path):
    for spec in ("dir:1", f"sqlite:///{tmp_path / 'farm.sqlite'}?children=1"):
        backend = open_backend(spec, home=tmp_path, key="k", lease=7.0)
        backend.ledger.enroll([Task(0, 1.0)])
        (lease,) = backend.ledger.claim()
        assert lease.expiry == 7.0
    assert open_backend("mpi", home=tmp_path, key="k", lease=7.0).context.lease == 7.0


@pytest.mark.parametrize("lease", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("spec", ["dir:2", "mpi", "sqlite:///farm.sqlite", "http://token@farm"])
def test_a_lease_that_is_not_positive_is_refused(spec, lease, tmp_path):
    with pytest.raises(InvalidValue, match="others take over a worker's tasks"):
        open_backend(spec, home=tmp_path, key="k", lease=lease)


@pytest.mark.parametrize("spec", ["serial", "local:2", "index:0/2", "taskfarm+http://a:b@farm"])
def test_a_backend_without_leases_says_so(spec, tmp_path):
    with pytest.raises(InvalidValue, match=r"has no leases .* leave the lease out") as caught:
        open_backend(spec, home=tmp_path, key="k", lease=60.0)
    # The message does not contain the password of an address.
    assert "\n" not in str(caught.value)
    assert "a:b" not in str(caught.value)


class ThirdParty:
    def __init__(self, argument, context):
        self.built_with = (argument, context)


@pytest.mark.parametrize("place", ["a_module_that_is_gone:Farm", f"{__name__}:NoSuchFarm"])
def test_a_third_party_backend_that_cannot_be_loaded_is_named_in_one_line(monkeypatch, place):
    entries = EntryPoints([EntryPoint("cloud", place, "cryotile.backends")])
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: entries.select(group=group)
    )
    with pytest.raises(MissingDependency, match=f"'cloud' cannot be loaded from {place}") as caught:
        open_backend("cloud:8", home=None, key="k")
    assert "\n" not in str(caught.value)


def test_third_parties_add_backends_by_entry_point(monkeypatch, tmp_path):
    entries = EntryPoints(
        [
            EntryPoint("cloud", f"{__name__}:ThirdParty", "cryotile.backends"),
            EntryPoint("serial", f"{__name__}:ThirdParty", "cryotile.backends"),
        ]
    )
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: entries.select(group=group)
    )
    assert open_backend("cloud:a:b", home=tmp_path, key="k").built_with == (
        "a:b",
        Context(tmp_path, "k"),
    )
    # The argument of an address is the whole address, including its scheme.
    address = "cloud://user@host/x"
    assert open_backend(address, home=tmp_path, key="k").built_with == (
        address,
        Context(tmp_path, "k"),
    )
    # Built-in names cannot be replaced.
    assert isinstance(open_backend("serial", home=None, key="k"), SerialBackend)
    assert next(iter(installed_backends())) == "cloud"
