"""The main function of a supervised child process: one work, one task after another.

It is separate from :mod:`cryotile.backends.child`, its counterpart in the parent, so that a child imports little before
it imports the work.

Tasks come in by one pipe and reports go out by another, as fixed records.  The parent holds a second read end of the
pipe of tasks, by which it takes back tasks that the child has not read.  Therefore a child reads exactly one task at a
time, and a task that it has read has started.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import pickle
import runpy
import select
import signal
import struct
import sys
import time
import traceback
import types
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from cryotile.backends.base import attempt
from cryotile.errors import CryotileError, UnwritablePath
from cryotile.farm.task import Task, Work

__all__ = [
    "DONE",
    "FAILED",
    "PROGRESS",
    "READY",
    "REPORT",
    "TASK",
    "UNFIT",
    "WorkSpec",
    "loading_main",
    "main",
]

TASK = struct.Struct("=qd")
"""Record of an incoming task: index, cost."""

REPORT = struct.Struct("=Bqdq")
"""Record of an outgoing report: kind, index, seconds (or fraction done), bytes of text or thumbnail that follow."""

READY, PROGRESS, DONE, FAILED, UNFIT = range(5)

# Work may call progress for every post; the parent needs a few reports a second.
_PROGRESS_INTERVAL = 0.2

_loading_main = False


@dataclass(frozen=True)
class WorkSpec:
    """The work as a child loads it.

    Attributes
    ----------
    work : bytes
        The pickled work.
    main_name, main_path : str or None
        Module name or else file of the parent's ``__main__``, if the work is defined there.
    """

    work: bytes
    main_name: str | None = None
    main_path: str | None = None


def main(work_spec: int, tasks: int, reports: int, lifeline: int) -> None:
    """Run as a child: load the work, do every incoming task, leave at the end of the pipe.

    Parameters
    ----------
    work_spec, tasks, reports, lifeline : int
        Inherited file descriptors: a file with the pickled :class:`WorkSpec`, the two pipes, and a pipe that carries
        nothing but its end.
    """
    # The parent decides when children end; a scheduler's SIGTERM to every process of a job must not cost an attempt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_parent(lifeline)
    _keep(work_spec, tasks, reports, lifeline)
    faulthandler.enable()
    # If the parent has gone, there is no process to report to.
    with suppress(BrokenPipeError):
        try:
            work = _load_work(work_spec)
        except CryotileError as error:
            _send(reports, UNFIT, -1, 0.0, str(error))
        except Exception:  # noqa: BLE001 - importing a user's module may raise anything, and the parent must know
            _send(reports, UNFIT, -1, 0.0, traceback.format_exc())
        else:
            _send(reports, READY, -1, 0.0)
            _serve(work, tasks, reports)


def loading_main() -> bool:
    """Tell whether this process is a child that is importing the parent's script."""
    return _loading_main


def _keep(*descriptors: int) -> None:
    """Hide descriptors from processes that the work starts: only then the pipes end when this process does."""

    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    os.register_at_fork(after_in_child=close)


def _serve(work: Work, tasks: int, reports: int) -> None:
    """Do tasks until the pipe ends."""
    poll = select.poll()
    poll.register(tasks, select.POLLIN)
    next_report = 0.0

    def progress(fraction: float) -> None:
        nonlocal next_report
        now = time.monotonic()
        if now >= next_report:
            next_report = now + _PROGRESS_INTERVAL
            _send(reports, PROGRESS, task.index, fraction)

    while True:
        try:
            record = os.read(tasks, TASK.size)
        except BlockingIOError:
            # Not a blocking read: the parent may take the task back between poll and read.
            poll.poll()
            continue
        if not record:
            return
        task = Task(*TASK.unpack(record))
        try:
            _, seconds, error, _, thumbnail = attempt(work, task, progress)
        except UnwritablePath as refusal:
            _send(reports, UNFIT, task.index, 0.0, str(refusal))
            return
        if error is None:
            _send(reports, DONE, task.index, seconds, thumbnail or b"")
        else:
            _send(reports, FAILED, task.index, seconds, error)


def _send(reports: int, kind: int, index: int, value: float, content: str | bytes = b"") -> None:
    """Write one complete report."""
    if isinstance(content, str):
        # A traceback may contain surrogates (file names that are not UTF-8); they are sent as escapes.
        content = content.encode(errors="backslashreplace")
    record = REPORT.pack(kind, index, value, len(content)) + content
    while record:
        record = record[os.write(reports, record) :]


def _die_with_parent(lifeline: int) -> None:
    """Let the kernel kill this process group when the parent is gone, even in the middle of a task.

    Only the parent holds the write end, so the pipe ends when the parent ends for any reason, and the kernel signals
    the end to the pipe's owner.  Unlike PR_SET_PDEATHSIG, this does not fire when only the thread ends that started
    the child.  Without F_SETSIG (outside Linux) the child leaves after its task, when the pipe of tasks ends.
    """
    if sys.platform == "linux":
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _load_work(descriptor: int) -> Work:
    """Unpickle the work, after importing the parent's script if the work is defined there."""
    # pread, because all children share the file's position and none may move it.
    work_spec: WorkSpec = pickle.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    if work_spec.main_name is not None or work_spec.main_path is not None:
        _import_main(work_spec)
    return cast("Work", pickle.loads(work_spec.work))


def _import_main(work_spec: WorkSpec) -> None:
    """Import the parent's script under the name that multiprocessing uses, so that its guarded part does not run."""
    global _loading_main
    _loading_main = True
    if work_spec.main_name is not None:
        names = runpy.run_module(work_spec.main_name, run_name="__mp_main__", alter_sys=True)
    else:
        names = runpy.run_path(cast("str", work_spec.main_path), run_name="__mp_main__")
    module = types.ModuleType("__mp_main__")
    module.__dict__.update(names)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    _loading_main = False
