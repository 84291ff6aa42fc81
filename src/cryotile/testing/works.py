"""Works and tasks for the contract of backends: they write evidence to files, hang, crash, and send signals."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from cryotile.backends import drain
from cryotile.farm.task import Progress, Task

__all__ = [
    "HoldingWork",
    "RecordingWork",
    "SignallingWork",
    "StoppingWork",
    "await_holder",
    "draining_on_sigterm",
    "holders",
    "make_tasks",
    "report_long",
]


def make_tasks(count: int) -> list[Task]:
    """Return tasks in falling order of cost, with indices that are not their positions."""
    return [Task(index=3 * position + 1, cost=float(count - position)) for position in range(count)]


def _raise() -> None:
    raise ValueError("this task raises")


def _segfault() -> None:
    # A core dump of every test would fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def _hang() -> None:
    while True:
        signal.pause()


_FAULTS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": _segfault,
    "exit": lambda: os._exit(3),
    "sys.exit": lambda: sys.exit(4),
    "hang": _hang,
}


@dataclass(frozen=True)
class RecordingWork:
    """Work that records which tasks it starts and ends, and fails where required.

    Attributes
    ----------
    directory : Path
        Directory of the records.
    faults : mapping of int to (str, int)
        By task index: how the task fails, and at how many of its first attempts.
    """

    directory: Path
    faults: Mapping[int, tuple[str, int]] = field(default_factory=dict)

    def __call__(self, task: Task, progress: Progress) -> None:
        """Record the start, fail if due, and record the end."""
        fault, times = self.faults.get(task.index, ("", 0))
        due = times and self.started.count(task.index) < times
        self._note("started", task)
        progress(0.5)
        if due:
            _FAULTS[fault]()
        self._note("ended", task)

    @property
    def started(self) -> list[int]:
        """Return task indices in the order in which attempts began."""
        return self._noted("started")

    @property
    def ended(self) -> list[int]:
        """Return task indices in the order in which attempts succeeded."""
        return self._noted("ended")

    def _note(self, what: str, task: Task) -> None:
        # One short append is atomic.
        with (self.directory / what).open("ab", buffering=0) as notes:
            notes.write(b"%d\n" % task.index)

    def _noted(self, what: str) -> list[int]:
        notes = self.directory / what
        return [int(line) for line in notes.read_text().splitlines()] if notes.exists() else []


@dataclass(frozen=True)
class HoldingWork:
    """Work that holds a named pipe open and hangs, except the first task; the pipe ends when its process does."""

    pipe: Path
    first: int

    def __call__(self, task: Task, progress: Progress) -> None:
        """Hang, unless this is the first task."""
        if task.index != self.first:
            with self.pipe.open("wb", buffering=0) as pipe:
                pipe.write(b"%d\n" % os.getpid())
                _hang()


@dataclass(frozen=True)
class SignallingWork:
    """Work that sends a signal to the process that runs the backend, and hangs with a named pipe open."""

    pipe: Path
    process: int
    number: int

    def __call__(self, task: Task, progress: Progress) -> None:
        """Signal and hang."""
        with self.pipe.open("wb", buffering=0):
            os.kill(self.process, self.number)
            _hang()


@dataclass(frozen=True)
class StoppingWork:
    """Work whose first task asks the process that runs the backend to stop, and goes on for another four seconds.

    By then the process has received the signal, even on a busy machine, and has taken back unstarted tasks.

    Attributes
    ----------
    recording : RecordingWork
        Records starts and ends.
    process : int
        Process that gets SIGTERM.
    first : int
        Index of the task that sends it.
    """

    recording: RecordingWork
    process: int
    first: int

    def __call__(self, task: Task, progress: Progress) -> None:
        """Signal if due, take time, and record."""
        if task.index == self.first:
            os.kill(self.process, signal.SIGTERM)
            _report_for(4.0, progress)
        self.recording(task, progress)


def report_long(task: Task, progress: Progress) -> None:
    """Do a task that takes two seconds and reports progress all the time."""
    _report_for(2.0, progress)


def _report_for(seconds: float, progress: Progress) -> None:
    # It pauses, as it would keep a core from the farm that is tested.
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        progress(0.5)
        time.sleep(0.02)


@contextmanager
def holders(pipe: Path) -> Iterator[int]:
    """Make a named pipe and open it for reading; it ends when the last process that holds it has ended.

    Parameters
    ----------
    pipe : Path
        Path of the new pipe.

    Yields
    ------
    int
        Descriptor of the reading end.
    """
    os.mkfifo(pipe)
    # Without O_NONBLOCK, open would wait for a writer.
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    try:
        yield reader
    finally:
        os.close(reader)


def await_holder(reader: int) -> None:
    """Wait until a process holds the named pipe and has written to it; before that, the pipe reads as ended."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.poll()


@contextmanager
def draining_on_sigterm() -> Iterator[None]:
    """Let SIGTERM ask farms to drain, as the command line does, within a ``with`` block."""

    def stop(number: int, frame: FrameType | None) -> None:
        assert drain.begin()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
