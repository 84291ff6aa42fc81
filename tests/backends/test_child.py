"""A supervised child may end in any way: its parent learns how it ended and at which task."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

import cryotile
from cryotile.backends.base import Attempt
from cryotile.backends.child import Child, ChildFactory
from cryotile.errors import CryotileError, InvalidValue
from cryotile.farm.task import Progress, Task
from cryotile.testing.backends import RecordingWork, await_holder, holders, make_tasks
from tests.support import PROJECT


@dataclass(frozen=True)
class Hold:
    """Work that may start a process, reports progress, writes its pid to a named pipe, and hangs."""

    pipe: Path
    before: str = ""

    def __call__(self, task: Task, progress: Progress) -> None:
        if self.before == "fork" and os.fork() == 0:
            signal.pause()
        with self.pipe.open("wb", buffering=0) as pipe:
            if self.before == "subprocess":
                # Its standard output is the pipe.
                subprocess.Popen(
                    [sys.executable, "-c", "import signal; signal.pause()"], stdout=pipe
                )
            progress(0.25)
            pipe.write(b"%d\n" % os.getpid())
            signal.pause()


def speak(task: Task, progress: Progress) -> None:
    sys.stdout.write(f"task {task.index}")


class Unloadable:
    """Work that only this process can load."""

    def __call__(self, task: Task, progress: Progress) -> None: ...

    def __reduce__(self):
        return __import__, ("no_such_module",)


def receive(child: Child, count: int = 1) -> list[Attempt]:
    """Wait for ``count`` attempts, or the child's end."""
    attempts: list[Attempt] = []
    while len(attempts) < count and child.alive:
        select.select([child], [], [])
        attempts += child.receive()
    return attempts


def receive_until_overdue(child: Child) -> list[Attempt]:
    """Receive repeatedly, as a farm does, until the child is ended because it is silent."""
    while child.alive:
        select.select([child], [], [], 0.05)
        attempts = child.receive()
    return attempts


def wait_until_read(child: Child, pipe: int) -> None:
    """Wait until the child is in the middle of its task and has reported it."""
    await_holder(pipe)
    select.select([child], [], [])
    assert child.receive() == []


def test_a_child_does_its_tasks_in_the_order_given(tmp_path):
    tasks = make_tasks(5)
    with ChildFactory(RecordingWork(tmp_path)) as child_factory:
        child = child_factory.start()
        child.give(tasks[:2])
        child.give(tasks[2:])
        attempts = receive(child, 5)
    assert [attempt.task for attempt in attempts] == tasks
    assert all(attempt.error is None for attempt in attempts)


def test_tasks_that_a_child_has_not_started_are_returned_without_an_attempt(tmp_path):
    tasks = make_tasks(6)
    with holders(tmp_path / "pipe") as pipe, ChildFactory(Hold(tmp_path / "pipe")) as child_factory:
        child = child_factory.start()
        child.give(tasks)
        await_holder(pipe)
        assert child.take_back() == tasks[1:]
        assert list(child.tasks) == tasks[:1]
        assert child.take_back() == []


def test_only_the_running_task_of_a_killed_child_is_charged(tmp_path):
    tasks = make_tasks(6)
    with holders(tmp_path / "pipe") as pipe, ChildFactory(Hold(tmp_path / "pipe")) as child_factory:
        child = child_factory.start()
        child.give(tasks)
        await_holder(pipe)
        os.kill(int(os.read(pipe, 100)), signal.SIGKILL)
        (attempt,) = receive(child)
        assert attempt.task == tasks[0]
        assert "SIGKILL (signal 9)" in attempt.error
        assert attempt.seconds > 0
        assert not child.alive
        assert list(child.tasks) == tasks[1:]


def test_an_idle_child_that_is_killed_costs_no_attempt(tmp_path):
    with ChildFactory(RecordingWork(tmp_path)) as child_factory:
        child = child_factory.start()
        child.give([Task(0, 1.0)])
        receive(child)
        child.kill()
        assert receive(child) == []
        assert "SIGKILL" in child.end


def test_progress_is_known_and_a_silent_child_is_ended(tmp_path):
    with (
        holders(tmp_path / "pipe") as pipe,
        ChildFactory(Hold(tmp_path / "pipe"), stall=0.5) as child_factory,
    ):
        child = child_factory.start()
        child.give([Task(0, 1.0)])
        wait_until_read(child, pipe)
        while child.fraction == 0.0:
            select.select([child], [], [])
            child.receive()
        assert child.fraction == 0.25
        (attempt,) = receive_until_overdue(child)
        assert "made no progress for 0.5 s" in attempt.error
        assert "\n" not in attempt.error


def test_a_stopped_child_is_ended_like_a_hung_one(tmp_path):
    with (
        holders(tmp_path / "pipe") as pipe,
        ChildFactory(Hold(tmp_path / "pipe"), stall=0.5) as child_factory,
    ):
        child = child_factory.start()
        child.give([Task(0, 1.0)])
        await_holder(pipe)
        os.kill(int(os.read(pipe, 100)), signal.SIGSTOP)
        (attempt,) = receive_until_overdue(child)
        assert "made no progress" in attempt.error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_signals_of_terminals_and_schedulers_do_not_end_a_child(tmp_path, number):
    with ChildFactory(RecordingWork(tmp_path)) as child_factory:
        child = child_factory.start()
        child.give([Task(0, 1.0)])
        receive(child)
        os.kill(child._process.pid, number)
        child.give([Task(1, 1.0)])
        (attempt,) = receive(child)
    assert attempt.error is None


def test_a_dead_child_is_noticed_though_its_forked_process_lives(tmp_path):
    with (
        holders(tmp_path / "pipe") as pipe,
        ChildFactory(Hold(tmp_path / "pipe", before="fork")) as child_factory,
    ):
        child = child_factory.start()
        child.give([Task(0, 1.0)])
        await_holder(pipe)
        os.kill(int(os.read(pipe, 100)), signal.SIGKILL)
        (attempt,) = receive(child)
        assert "SIGKILL" in attempt.error


def test_a_killed_child_takes_its_subprocesses_along(tmp_path):
    with holders(tmp_path / "pipe") as pipe:
        with ChildFactory(Hold(tmp_path / "pipe", before="subprocess")) as child_factory:
            child = child_factory.start()
            child.give([Task(0, 1.0)])
            await_holder(pipe)
        assert not child.alive
        while os.read(pipe, 100):
            pass


def test_children_that_leave_by_themselves_flush_their_output(capfd):
    with ChildFactory(speak) as child_factory:
        child = child_factory.start()
        child.give([Task(7, 1.0)])
        receive(child)
    assert capfd.readouterr().out == "task 7"
    assert "exit code 0" in child.end


def test_a_traceback_longer_than_a_pipe_comes_through():
    with ChildFactory(raise_at_length) as child_factory:
        child = child_factory.start()
        child.give([Task(0, 1.0), Task(1, 1.0)])
        first, second = receive(child, 2)
    assert len(first.error) > 1_000_000
    assert r"\udcff" in first.error
    assert len(second.error) > 1_000_000


def raise_at_length(task: Task, progress: Progress) -> None:
    raise ValueError("\udcff" + "x" * 1_000_000)


def test_work_that_a_child_cannot_load_is_refused_in_one_line():
    with (
        ChildFactory(Unloadable()) as child_factory,
        pytest.raises(CryotileError, match="No module named") as caught,
    ):
        receive(child_factory.start())
    assert "\n" not in str(caught.value)


def test_work_that_cannot_be_pickled_is_named():
    with pytest.raises(InvalidValue, match=r"is_named\.<locals>\.<lambda> cannot be pickled"):
        ChildFactory(lambda task, progress: None)


def test_a_child_factory_leaves_no_descriptor_behind(tmp_path):
    before = descriptors()
    with ChildFactory(RecordingWork(tmp_path, {1: ("kill", 1)})) as child_factory:
        children = [child_factory.start() for _ in range(2)]
        children[0].give([Task(1, 1.0)])
        receive(children[0])
    assert descriptors() == before


def descriptors() -> set[str]:
    """List the open descriptors of this process."""
    return {entry.name for entry in Path("/dev/fd").iterdir()}


def run_script(path: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a user's script with only cryotile on its path."""
    path.write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(cryotile.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_script_may_define_its_own_work(tmp_path):
    done = run_script(
        tmp_path / "script.py",
        """
        from dataclasses import dataclass
        from cryotile.backends.local import LocalBackend
        from cryotile.farm.task import Task

        @dataclass
        class Work:
            word: str
            def __call__(self, task, progress):
                print(self.word, task.index, flush=True)

        if __name__ == "__main__":
            (outcome,) = LocalBackend("1").run([Task(3, 1.0)], Work("hello"))
            print(outcome.error)
        """,
    )
    assert (done.stdout, done.stderr) == ("hello 3\nNone\n", "")


def test_a_script_without_a_guard_ends_with_the_remedy(tmp_path):
    done = run_script(
        tmp_path / "script.py",
        """
        from cryotile.backends.local import LocalBackend
        from cryotile.farm.task import Task

        def work(task, progress): ...

        list(LocalBackend("1").run([Task(3, 1.0)], work))
        """,
    )
    assert done.returncode == 1
    assert "if __name__ == '__main__'" in done.stderr


def test_children_do_not_outlive_a_killed_parent(tmp_path):
    with holders(tmp_path / "pipe") as pipe:
        script = f"""
            import sys
            sys.path.insert(0, {str(PROJECT)!r})
            from pathlib import Path
            from cryotile.backends.local import LocalBackend
            from cryotile.farm.task import Task
            from tests.backends.test_child import Hold
            list(LocalBackend("2").run([Task(0, 1.0), Task(1, 1.0)], Hold(Path({str(tmp_path / "pipe")!r}))))
            """
        parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
        lines = b""
        while lines.count(b"\n") < 2:
            await_holder(pipe)
            lines += os.read(pipe, 100)
        parent.kill()
        parent.wait()
        # Both children are in the middle of a task; the pipe ends when they do.
        assert os.read(pipe, 1) == b""
