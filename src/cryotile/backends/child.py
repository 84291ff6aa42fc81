"""Supervised child processes: they may raise, crash, exit or hang, and the parent learns at which task.

Children are started as fresh interpreters.  They are not forked, because threads, MPI and HDF5 do not survive a fork,
and not spawned by :mod:`multiprocessing`, which imports the parent's ``__main__``, the whole command line, into every
child and keeps another process for resources that are not used here.  A child imports what unpickling its work needs;
if the work is defined in a script, it imports that script, as multiprocessing does.

A child inherits the environment (set ``OMP_NUM_THREADS=1`` if the work calls threaded libraries: there is one child per
core already), standard output and error, but no pipe of another child.  It leads its own process group, so that the
terminal's Ctrl-C reaches only the parent and a kill includes the child's own subprocesses.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from cryotile.backends.base import STALL, Attempt
from cryotile.backends.child_main import (
    DONE,
    FAILED,
    PROGRESS,
    REPORT,
    TASK,
    UNFIT,
    WorkSpec,
    loading_main,
)
from cryotile.errors import CryotileError, InvalidValue
from cryotile.farm.task import Task, Work

__all__ = ["Child", "ChildFactory"]

# Imports from a busy cluster file system take minutes, without progress calls.
_START_LIMIT = 300.0

# Seconds a child gets to leave by itself: to flush its output and run its atexit functions.
_GRACE = 5.0

_READ_SIZE = 1 << 16


class ChildFactory:
    """Start children for one work, and leave none behind.

    At the end of the ``with`` block idle children leave by themselves; busy ones, and all after an error, are killed.

    Parameters
    ----------
    work : Work
        The work of the children; pickled once.
    stall : float
        Seconds without a report after which a child counts as hung.
    environment : mapping of str to str, optional
        Environment of the children; this process's if not given.

    Raises
    ------
    InvalidValue
        The work cannot be pickled.
    CryotileError
        The call is made by a script while a child imports it.
    """

    def __init__(
        self, work: Work, stall: float = STALL, *, environment: Mapping[str, str] | None = None
    ) -> None:
        if loading_main():
            raise CryotileError(
                "the script starts a farm while a child process imports it; put the code that starts it under "
                "if __name__ == '__main__':"
            )
        self._stall = stall
        self._environment = environment
        self._children: set[Child] = set()
        content = pickle.dumps(_work_spec(work))
        # A nameless file may have any size, is read by each child in its own time, and vanishes with the last of them.
        self._work_spec = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by __exit__
        self._work_spec.write(content)

    def start(self) -> Child:
        """Start a child; it accepts tasks at once, and does them when it has loaded the work."""
        child = Child(self._work_spec.fileno(), self._stall, environment=self._environment)
        self._children = {other for other in self._children if other.alive} | {child}
        return child

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        alive = [child for child in self._children if child.alive]
        # Tell all before waiting for any, so that they leave at the same time.
        for child in alive:
            if kind is None and child.ready and not child.tasks:
                child.dismiss()
            else:
                child.kill()
        for child in alive:
            child.join()
        self._work_spec.close()


class Child:
    """One supervised child process, seen from its parent.

    Parameters
    ----------
    work_spec : int
        Descriptor of a file with the pickled :class:`~cryotile.backends.child_main.WorkSpec`.
    stall : float
        Seconds without a report after which the child counts as hung.
    environment : mapping of str to str, optional
        Its environment; this process's if not given.

    Attributes
    ----------
    tasks : deque of Task
        Tasks given to the child that neither ended nor were taken back; the first is running.
    ready : bool
        Whether it has loaded the work.
    fraction : float
        Fraction done of the running task, as last reported.
    pace : float
        Mean duration of the attempts last received, seconds.
    end : str or None
        Description of how the process ended; None while it is alive.
    """

    def __init__(
        self, work_spec: int, stall: float, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.tasks: deque[Task] = deque()
        self.ready = False
        self.fraction = 0.0
        self.pace = stall
        self.end: str | None = None
        self._stall = stall
        self._heard = self._began = time.monotonic()
        self._received = b""
        task_end, self._tasks = os.pipe()
        self._reports, report_end = os.pipe()
        lifeline_end, self._lifeline = os.pipe()
        self._unread = task_end
        os.set_blocking(task_end, False)
        os.set_blocking(self._reports, False)
        inherited = (work_spec, task_end, report_end, lifeline_end)
        try:
            self._process = _spawn(inherited, environment)
        except OSError:
            self._close()
            raise
        finally:
            os.close(report_end)
            os.close(lifeline_end)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self.end is None

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to receive."""
        return self._reports

    def give(self, tasks: Sequence[Task]) -> None:
        """Queue tasks for the child; it may have at most 256 at a time (the smallest size of a pipe)."""
        if not self.tasks:
            self._began = self._heard = time.monotonic()
        self.tasks.extend(tasks)
        os.write(self._tasks, b"".join(TASK.pack(task.index, task.cost) for task in tasks))

    def take_back(self) -> list[Task]:
        """Take back the tasks that the child has not started, in the order given."""
        with suppress(BlockingIOError):
            unread = len(os.read(self._unread, _READ_SIZE)) // TASK.size
            return [self.tasks.pop() for _ in range(unread)][::-1]
        return []

    def receive(self) -> list[Attempt]:
        """Receive the child's reports, or notice that it died or hangs; never wait.

        Returns
        -------
        list of Attempt
            The attempts that ended since the last call.  If the child died during a task, that attempt is the last,
            ``alive`` is False, and ``tasks`` holds the tasks that never started.

        Raises
        ------
        CryotileError
            The work cannot be loaded in a child.
        """
        content = self._read()
        attempts = self._parse(content or b"")
        if content == b"":
            attempts += self._end_process()
        elif self._is_overdue():
            attempts += self._end_process(
                f"made no progress for {self._patience():g} s and was ended"
            )
        if attempts:
            self.pace = sum(attempt.seconds for attempt in attempts) / len(attempts)
        return attempts

    def kill(self) -> None:
        """Kill the process and those that it started."""
        # The leader is not reaped yet, so no other process group can have its number.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """Close the pipe of tasks, at whose end the child leaves."""
        os.close(self._tasks)
        self._tasks = -1

    def join(self) -> None:
        """Wait until the process has ended, by force if it takes too long, and release its resources."""
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self.end = _describe_end(self._process)
        self._close()

    def _read(self) -> bytes | None:
        """Read reports; None if there are none now, empty if the pipe has ended."""
        try:
            return os.read(self._reports, _READ_SIZE)
        except BlockingIOError:
            return None

    def _parse(self, content: bytes) -> list[Attempt]:
        """Turn complete reports into attempts, and keep the rest for the next call."""
        received, position, attempts = self._received + content, 0, []
        while len(received) - position >= REPORT.size:
            kind, _, value, length = REPORT.unpack_from(received, position)
            begin = position + REPORT.size
            if len(received) < begin + length:
                break
            position = begin + length
            if kind == DONE:
                thumbnail = received[begin:position] or None
                attempts.append(Attempt(self.tasks.popleft(), value, None, thumbnail=thumbnail))
            elif kind == FAILED:
                attempts.append(
                    Attempt(self.tasks.popleft(), value, received[begin:position].decode())
                )
            elif kind == UNFIT:
                raise _unfit(received[begin:position].decode())
            self.fraction = value if kind == PROGRESS else 0.0
            self._began = self._began if kind == PROGRESS else time.monotonic()
        self._received = received[position:]
        if content:
            self._heard = time.monotonic()
            self.ready = True
        return attempts

    def _is_overdue(self) -> bool:
        """Tell whether the child should have reported by now; a child without a task may be silent."""
        return bool(self.tasks) and time.monotonic() - self._heard > self._patience()

    def _patience(self) -> float:
        """Return the seconds for which the child may be silent."""
        return self._stall if self.ready else max(self._stall, _START_LIMIT)

    def _end_process(self, reason: str = "") -> list[Attempt]:
        """End the process and return its last attempts; the running task failed, unstarted ones stay in ``tasks``."""
        self.kill()
        self._process.wait()
        attempts = []
        while content := self._read():
            attempts += self._parse(content)
        unread = self.take_back()
        self.end = (
            f"child process {self._process.pid} {reason}"
            if reason
            else _describe_end(self._process)
        )
        if self.tasks:
            attempts.append(Attempt(self.tasks.popleft(), time.monotonic() - self._began, self.end))
        self.tasks.extend(unread)
        self._close()
        return attempts

    def _close(self) -> None:
        """Close the parent's ends of the pipes."""
        for descriptor in (self._tasks, self._unread, self._reports, self._lifeline):
            if descriptor >= 0:
                os.close(descriptor)


def _work_spec(work: Work) -> WorkSpec:
    """Pickle the work and, if it is defined in the parent's script, note which script that is."""
    try:
        pickled = pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidValue(
            f"work {_name(work)} cannot be pickled ({error}), but child processes need it; use a function or "
            "a dataclass at the top level of a module"
        ) from error
    if b"__main__" not in pickled:
        return WorkSpec(pickled)
    script = sys.modules["__main__"]
    if script.__spec__ is not None:
        return WorkSpec(pickled, main_name=script.__spec__.name)
    if script.__file__ is None:
        raise InvalidValue(
            f"work {_name(work)} is defined in an interactive session, which child processes cannot import; "
            "put it in a module"
        )
    return WorkSpec(pickled, main_path=str(Path(script.__file__).resolve()))


def _name(work: Work) -> str:
    """Return the name of a function or of a callable's class, which is always one line."""
    return getattr(work, "__qualname__", type(work).__qualname__)


def _spawn(
    descriptors: tuple[int, ...], environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    """Start an interpreter with this one's module path that runs as a child on the given descriptors."""
    path = [str(entry) for entry in sys.path]
    code = f"import sys; sys.path[:] = {path}; from cryotile.backends.child_main import main; main{descriptors}"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        env=environment,
        process_group=0,
    )


def _describe_end(process: subprocess.Popen[bytes]) -> str:
    """Describe how a process ended."""
    code = process.returncode
    if code >= 0:
        return f"child process {process.pid} ended with exit code {code}"
    hint = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
    name = {member.value: member.name for member in signal.Signals}.get(-code, "a signal")
    return f"child process {process.pid} was killed by {name} (signal {-code}){hint}"


def _unfit(trace: str) -> CryotileError:
    """Return the error of a work that no child can load, or that itself gives the reason for refusing, in one line."""
    if not trace.startswith("Traceback"):
        return CryotileError(trace)
    reason = trace.rstrip().rpartition("\n")[2]
    return CryotileError(
        f"the work cannot be loaded in a child process ({reason}); define it in a module that a fresh "
        "interpreter can import"
    )
