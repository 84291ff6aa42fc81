"""Journals: the record of what workers do, from which the status of a run is read, whatever its backend.

Each worker appends to a file of its own, ``<host>-<pid>-<random>.jsonl``, one line at a time:

====================================================================  =============================================
``{"time": 1732.5, "process": "…", "farm": "…"}``                     the first line: the worker and its parent, see
                                                                      :mod:`cryotile.processes`
``{"time": 1732.6, "start": 17}``                                     an attempt of task 17 starts
``{"time": 1742.7, "task": 17, "fraction": 0.3, "seconds": 10.1}``    its progress; at most every 3 s
``{"time": 1760.1, "end": 17, "seconds": 27.5}``                      its result is saved
``{"time": 1760.1, "end": 17, "seconds": 27.5, "error": "…"}``        it failed
====================================================================  =============================================

Times are Unix times by the worker's clock; they inform users, and no decision depends on them.  A worker that is killed
leaves a start without an end, and perhaps half a line.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cryotile.farm.heartbeat import FAINT, heartbeat_ages
from cryotile.farm.task import Progress, Task, Work
from cryotile.processes import is_alive, parent_process, this_process

__all__ = ["SILENCE", "Ended", "Ending", "Journaled", "Journals", "Worker", "read_endings"]

PROGRESS_INTERVAL = 3.0
"""Seconds between two lines on the progress of a task."""

SILENCE = 1000.0
"""Seconds without a line after which a worker on another machine counts as lost, if its farm has no heartbeat
(:mod:`cryotile.farm.heartbeat`); a farm ends workers that make no progress for 900 s."""

# Bytes read from the end of a long journal: some hundred tasks show the pace of a worker.
_TAIL = 32_768

_SUFFIX = ".jsonl"
_NAME = re.compile(r"(.+)-(\d+)-[^-]+\.jsonl")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Journaled:
    """Work that writes a journal.

    If the journal cannot be written, there is a warning, and the work continues: results do not depend on a journal.

    Attributes
    ----------
    work : Work
        The work.
    directory : Path
        Directory of the journals of this task list; created if it does not exist.
    """

    work: Work
    directory: Path

    def __call__(self, task: Task, progress: Progress) -> bytes | None:
        """Do the work, write its start, progress and end to the journal, and return what the work returns."""
        journal = _journal_of_this_thread(self.directory)
        journal.write(f'"start": {task.index}')
        begin = time.monotonic()
        due = begin + PROGRESS_INTERVAL

        def report(fraction: float) -> None:
            nonlocal due
            progress(fraction)
            if (now := time.monotonic()) >= due:
                due = now + PROGRESS_INTERVAL
                journal.write(
                    f'"task": {task.index}, "fraction": {fraction:.3f}, "seconds": {now - begin:.3f}'
                )

        try:
            thumbnail = self.work(task, report)
        except BaseException as error:
            reason = json.dumps(f"{type(error).__name__}: {error}".partition("\n")[0])
            journal.write(f'{_end(task, begin)}, "error": {reason}')
            raise
        journal.write(_end(task, begin))
        return thumbnail


def _end(task: Task, begin: float) -> str:
    return f'"end": {task.index}, "seconds": {time.monotonic() - begin:.6f}'


class _Journal:
    """The file of one thread of one process; created with the first line."""

    def __init__(self, directory: Path) -> None:
        self.pid = os.getpid()
        name = f"{socket.gethostname()}-{self.pid}-{secrets.token_hex(4)}{_SUFFIX}"
        self._path = directory / name
        self._file: int | None = None
        self._torn = self._warned = False

    def write(self, members: str) -> None:
        """Append a line; if that fails, warn once."""
        try:
            if self._file is None:
                self._file = self._open()
                own, farm = json.dumps(this_process()), json.dumps(parent_process())
                self._append(f'"process": {own}, "farm": {farm}')
            self._append(members)
        except OSError as error:
            if not self._warned:
                logger.warning(
                    "%s cannot be written (%s); the work continues, but status will not show it",
                    self._path,
                    error.strerror,
                )
            self._warned = True

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def _append(self, members: str) -> None:
        assert self._file is not None
        # After half a line (a full disk) a newline comes first, so that only that line is lost.
        separator = "\n" if self._torn else ""
        line = f'{separator}{{"time": {time.time():.3f}, {members}}}\n'.encode()
        # In one call, so that readers see whole lines, also of a worker that dies.
        self._torn = os.write(self._file, line) < len(line)


class _Journals(threading.local):
    """The journals of this thread; a process may do several tasks at once, but a file holds one at a time."""

    def __init__(self) -> None:
        self.by_directory: dict[Path, _Journal] = {}


_own = _Journals()


def _journal_of_this_thread(directory: Path) -> _Journal:
    journal = _own.by_directory.get(directory)
    # A forked process has a copy of its parent's memory, but needs a file of its own.
    if journal is None or journal.pid != os.getpid():
        journal = _own.by_directory[directory] = _Journal(directory)
    return journal


class Ended(NamedTuple):
    """A task whose result a worker has saved: index, Unix time of its end, and duration (seconds)."""

    task: int
    time: float
    seconds: float


@dataclass(eq=False)
class Worker:
    """One worker, as far as its journal has been read.

    Attributes
    ----------
    host : str
        Name of its host.
    pid : int
        Number of its process.
    process : str
        Name of its process; see :mod:`cryotile.processes`.
    farm : str
        Name of the process that started it.
    heartbeat : float
        Seconds since the last heartbeat of either process on another machine; 0 if unknown.
    task : int or None
        Index of the running task.
    since : float
        Unix time of its start.
    fraction : float
        Fraction of it that is done, as last written.
    heard : float
        Unix time of the last line.
    ended : deque of Ended
        The last tasks that it saved, oldest first.
    """

    host: str
    pid: int
    process: str = ""
    farm: str = ""
    heartbeat: float = 0.0
    task: int | None = None
    since: float = 0.0
    fraction: float = 0.0
    heard: float = 0.0
    ended: deque[Ended] = field(default_factory=lambda: deque(maxlen=256))

    def is_lost(self, now: float) -> bool:
        """Return whether the worker has ended: surely on this machine; on others by missing heartbeats or lines.

        Parameters
        ----------
        now : float
            Unix time.
        """
        alive = is_alive(self.process)
        if alive is not None:
            return not alive
        return self.heartbeat > FAINT or now - self.heard > SILENCE

    def hear(self, line: dict[str, Any]) -> None:
        """Update the worker by a line of its journal."""
        self.heard = line["time"]
        if "end" in line:
            self.task = None
            if "error" not in line:
                self.ended.append(Ended(line["end"], line["time"], line["seconds"]))
        elif "process" in line:
            self.process, self.farm = line["process"], line.get("farm", "")
        else:
            self.task = line.get("start", line.get("task"))
            self.since = line["time"] - line.get("seconds", 0.0)
            self.fraction = line.get("fraction", 0.0)


class Journals:
    """The journals of a task list, read incrementally.

    Parameters
    ----------
    directory : Path
        Their directory; it need not exist yet.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._workers: dict[str, Worker] = {}
        self._read_to: dict[str, int] = {}

    def read(self) -> list[Worker]:
        """Read new lines, and return all workers so far."""
        try:
            names = [name for name in os.listdir(self._directory) if name.endswith(_SUFFIX)]  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            names = []
        for name in names:
            self._read(name)
        workers = list(self._workers.values())
        self._take_heartbeats(
            [w for w in workers if w.task is not None and is_alive(w.process) is None]
        )
        return workers

    def _take_heartbeats(self, workers: Sequence[Worker]) -> None:
        """Update the heartbeats of workers on other machines."""
        processes = {name for worker in workers for name in (worker.process, worker.farm) if name}
        ages = heartbeat_ages(self._directory, processes)
        for worker in workers:
            worker.heartbeat = ages.get(worker.farm, ages.get(worker.process, 0.0))

    def _read(self, name: str) -> None:
        if name not in self._workers:
            if (parts := _NAME.fullmatch(name)) is None:
                return
            self._workers[name] = Worker(parts[1], int(parts[2]))
        begin = self._read_to.get(name, 0)
        try:
            file = (self._directory / name).open("rb")
        except OSError:
            # It was removed, or it is a directory: what it says is unknown.
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            lines = []
            if begin == 0 and size > _TAIL:
                lines = [file.readline()]
                # The first of these lines may be cut, and is then skipped.
                begin = size - _TAIL
            file.seek(begin)
            content = file.read()
        # A line that is incomplete now is read next time.
        whole = content.rfind(b"\n") + 1
        self._read_to[name] = begin + whole
        for line in [*lines, *content[:whole].splitlines()]:
            if (parsed := _parse(line)) is not None:
                self._workers[name].hear(parsed)


class Ending(NamedTuple):
    """The end of an attempt.

    Host, pid, task, Unix time of the end, duration (seconds), and the error if it failed.
    """

    host: str
    pid: int
    task: int
    time: float
    seconds: float
    error: str | None


def read_endings(directory: Path) -> Iterator[Ending]:
    """Read all journals of a task list, from the first line to the last.

    Parameters
    ----------
    directory : Path
        Their directory; it need not exist.

    Yields
    ------
    Ending
        By journal; in each as they were written.
    """
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        parts = _NAME.fullmatch(path.name)
        if parts is None or not path.is_file():
            continue
        with path.open("rb") as file:
            for line in map(_parse, file):
                if line is not None and "end" in line:
                    yield Ending(
                        parts[1], int(parts[2]),
                        line["end"], line["time"], line["seconds"], line.get("error"),
                    )  # fmt: skip


def _is_within(most: float) -> Callable[[object], bool]:
    return lambda value: type(value) in (int, float) and 0 <= value <= most  # type: ignore[operator]


def _is_index(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: object) -> bool:
    return isinstance(value, str)


# No time and no duration is longer, in seconds: about the year 5000.
_LATEST = 1e11

_VALID: dict[str, Callable[[object], bool]] = {
    "time": _is_within(_LATEST),
    "seconds": _is_within(_LATEST),
    "fraction": _is_within(1.0),
    **dict.fromkeys(("start", "end", "task"), _is_index),
    **dict.fromkeys(("process", "farm", "error"), _is_text),
}
"""Member of a line → whether a value can be one."""


def _parse(line: bytes) -> dict[str, Any] | None:
    """Parse a line; return None if it is cut or damaged, as far as names and values tell."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    if not isinstance(parsed, dict) or not {"process", "start", "end", "task"} & parsed.keys():
        return None
    needed = {"time", "seconds"} if {"end", "task"} & parsed.keys() else {"time"}
    known = needed <= parsed.keys() <= _VALID.keys()
    return parsed if known and all(_VALID[n](value) for n, value in parsed.items()) else None
