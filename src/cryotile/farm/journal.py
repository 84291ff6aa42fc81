"""What workers do, written down as it happens: how a run is watched, whichever backend it is on.

Every worker appends to a file of its own, ``<host>-<pid>-<random>.jsonl``, a line at a time:

====================================================================  =============================================
``{"time": 1732.5, "process": "…", "farm": "…"}``                     the first line: the worker and its parent, see
                                                                      :mod:`cryotile.processes`
``{"time": 1732.6, "start": 17}``                                     an attempt at task 17 begins
``{"time": 1742.7, "task": 17, "fraction": 0.3, "seconds": 10.1}``    it goes on; every 10 s at most
``{"time": 1760.1, "end": 17, "seconds": 27.5}``                      its result is saved
``{"time": 1760.1, "end": 17, "seconds": 27.5, "error": "…"}``        it failed
====================================================================  =============================================

Times are Unix times by the worker's clock: they tell users how things go, and decide nothing.  A worker that is killed
leaves a start without an end, and perhaps half a line.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cryotile.farm.heartbeat import FAINT, heartbeat_ages
from cryotile.farm.task import Progress, Task, Work
from cryotile.processes import is_alive, parent_process, this_process

__all__ = ["SILENCE", "Ended", "Journaled", "Journals", "Worker"]

PROGRESS_INTERVAL = 10.0
"""Seconds between two lines on the progress of a task."""

SILENCE = 1000.0
"""Seconds after which a worker on another machine that writes nothing is taken for lost, if nothing is known of the
process that runs its farm (:mod:`cryotile.farm.heartbeat`); a farm ends one that makes no progress for 900 s."""

# Of a long journal only the end is read: some hundred tasks say how a worker is doing.
_TAIL = 32_768

_SUFFIX = ".jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Journaled:
    """Work that is written down while it is done.

    A journal that cannot be written costs a warning and no task: what is saved is the truth, a journal tells of it.

    Attributes
    ----------
    work : Work
        The work itself.
    directory : Path
        Where the journals of this task list are; made when it is not there.
    """

    work: Work
    directory: Path

    def __call__(self, task: Task, progress: Progress) -> None:
        """Do the work, with a line before it, a line after it, and some on the way."""
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
            self.work(task, report)
        except BaseException as error:
            reason = json.dumps(f"{type(error).__name__}: {error}".partition("\n")[0])
            journal.write(f'{_end(task, begin)}, "error": {reason}')
            raise
        journal.write(_end(task, begin))


def _end(task: Task, begin: float) -> str:
    return f'"end": {task.index}, "seconds": {time.monotonic() - begin:.6f}'


class _Journal:
    """The file that one thread of one process appends to; made with the first line."""

    def __init__(self, directory: Path) -> None:
        self.pid = os.getpid()
        name = f"{socket.gethostname()}-{self.pid}-{secrets.token_hex(4)}{_SUFFIX}"
        self._path = directory / name
        self._file: int | None = None
        self._torn = self._warned = False

    def write(self, members: str) -> None:
        """Append a line; where that is impossible, say so once."""
        try:
            if self._file is None:
                self._file = self._open()
                own, farm = json.dumps(this_process()), json.dumps(parent_process())
                self._append(f'"process": {own}, "farm": {farm}')
            self._append(members)
        except OSError as error:
            if not self._warned:
                logger.warning(
                    "%s cannot be written (%s); the work goes on, but status will not show it",
                    self._path,
                    error.strerror,
                )
            self._warned = True

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def _append(self, members: str) -> None:
        assert self._file is not None
        # After half a line (a full disk) an end of line, so that no more than that one is lost.
        mended = "\n" if self._torn else ""
        line = f'{mended}{{"time": {time.time():.3f}, {members}}}\n'.encode()
        # In one call, so that whoever reads, and whoever dies, meets a whole line or none.
        self._torn = os.write(self._file, line) < len(line)


class _Journals(threading.local):
    """The journals of this thread: a farm of threads does several tasks at once, a file tells of one at a time."""

    def __init__(self) -> None:
        self.by_directory: dict[Path, _Journal] = {}


_own = _Journals()


def _journal_of_this_thread(directory: Path) -> _Journal:
    journal = _own.by_directory.get(directory)
    # A process that was forked off has its parent's memory, and needs a file of its own.
    if journal is None or journal.pid != os.getpid():
        journal = _own.by_directory[directory] = _Journal(directory)
    return journal


class Ended(NamedTuple):
    """A task that a worker has saved: its index, when (Unix time), and the seconds it took."""

    task: int
    time: float
    seconds: float


@dataclass(eq=False)
class Worker:
    """One worker, as far as its journal has been read.

    Attributes
    ----------
    host : str
        Where it works.
    pid : int
        Its process.
    process : str
        The same so that it can be told whether it has ended; see :mod:`cryotile.processes`.
    farm : str
        The process that started it, likewise.
    heartbeat : float
        Seconds since the one or the other, on another machine, has given a sign of life; 0 where that is not known.
    task : int or None
        Index of the task at hand.
    since : float
        When that was started, Unix time.
    fraction : float
        How far it is, as last written.
    heard : float
        When the last line was written, Unix time.
    ended : deque of Ended
        The tasks that it saved lately, oldest first.
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
        """Tell whether the worker has ended: for sure on this machine, by silence on others, its farm's or its own.

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
        """Take in a line of its journal."""
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
    """The journals of a task list, read as they grow.

    Parameters
    ----------
    directory : Path
        Where they are; may not be there yet.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._workers: dict[str, Worker] = {}
        self._read_to: dict[str, int] = {}

    def read(self) -> list[Worker]:
        """Read what is new, and return all workers that ever were."""
        try:
            names = [name for name in os.listdir(self._directory) if name.endswith(_SUFFIX)]  # noqa: PTH208
        except FileNotFoundError:
            names = []
        for name in names:
            self._read(name)
        workers = list(self._workers.values())
        self._take_heartbeats(
            [w for w in workers if w.task is not None and is_alive(w.process) is None]
        )
        return workers

    def _take_heartbeats(self, workers: Sequence[Worker]) -> None:
        """Note how long ago the farms of workers on other machines have given a sign of life."""
        processes = {name for worker in workers for name in (worker.process, worker.farm) if name}
        ages = heartbeat_ages(self._directory, processes)
        for worker in workers:
            worker.heartbeat = ages.get(worker.farm, ages.get(worker.process, 0.0))

    def _read(self, name: str) -> None:
        if name not in self._workers:
            host, pid, _ = name.rsplit("-", 2)
            self._workers[name] = Worker(host, int(pid))
        begin = self._read_to.get(name, 0)
        with (self._directory / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            lines = []
            if begin == 0 and size > _TAIL:
                lines = [file.readline()]
                # From the middle of a line: that one cannot be read, and is not missed.
                begin = size - _TAIL
            file.seek(begin)
            content = file.read()
        # What is being written at this moment is read next time.
        whole = content.rfind(b"\n") + 1
        self._read_to[name] = begin + whole
        for line in [*lines, *content[:whole].splitlines()]:
            if (parsed := _parse(line)) is not None:
                self._workers[name].hear(parsed)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Read a line; None for one that was cut."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) and "time" in parsed else None
