"""Frozen, ordered list of tasks in a directory that all workers see: the base of a run and of an ingest.

::

    <directory>/
      failed/         one small file per task that failed, until it is retried
      journal/0001/   what each worker did with a task list, appended as it happens
      jobs/           submissions to a scheduler
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cryotile.farm.journal import Journals
from cryotile.farm.task import Outcome, Pending, Task
from cryotile.files import make_way, set_aside, write_text, writing

__all__ = ["Estimate", "TaskList", "last_line"]


def last_line(error: str) -> str:
    """Return the last line of an error: of a traceback, what was raised."""
    return error.strip().rpartition("\n")[2]


def _error_in(record: Path) -> str | None:
    """Return the error in the record of a failed task; set a damaged record aside and return None."""
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["error"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        set_aside(record)
        return None


@dataclass(frozen=True)
class Estimate:
    """Time and memory that tasks need.

    Attributes
    ----------
    core_hours : float
        Time on one core, hours.
    peak_bytes : float
        Memory of a worker on the largest task, bytes.
    """

    core_hours: float
    peak_bytes: float


class TaskList(ABC):
    """A frozen list of tasks, and the state of each.

    Attributes
    ----------
    path : Path
        The directory.
    uuid : str
        Identifies the list, also after it is moved.
    things : str
        Name of what :attr:`sizes` count.
    noun, nouns : str
        Name of a task's subject, singular and plural.
    verb : str
        What working on the list does.
    file_name : str
        Name of the file in the directory that holds the frozen settings.
    results : str
        Name of the directory in it that holds a file for each task that is done.
    """

    path: Path
    uuid: str
    things: ClassVar[str]
    noun: ClassVar[str]
    nouns: ClassVar[str]
    verb: ClassVar[str]
    file_name: ClassVar[str]
    results: ClassVar[str]

    @property
    @abstractmethod
    def generation(self) -> int:
        """Number of the task list, counted from 1."""

    @property
    @abstractmethod
    def tasks(self) -> list[Task]:
        """All tasks, costliest first."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Name of the subject of each task."""

    @abstractmethod
    def missing(self, tasks: Sequence[Task] | None = None) -> list[Task]:
        """Return the tasks, of some or all, without a result; every byte of the results is checked."""

    @abstractmethod
    def missing_quick(self, tasks: Sequence[Task] | None = None) -> list[Task]:
        """Return the tasks without a result as far as a quick look tells."""

    def check(self) -> None:
        """Check that the point DB is there, and make directories again that are lost or are something else."""
        with writing(self.path):
            for name in ("failed", "farm", "jobs", "journal", self.results):
                make_way(self.path / name, directory=True)
            for name in ("failed", self.results):
                (self.path / name).mkdir(exist_ok=True)

    @abstractmethod
    def saved(self) -> str:
        """Say in one line what is saved, and which command goes on."""

    @abstractmethod
    def estimate(self, tasks: Sequence[Task]) -> Estimate:
        """Estimate time and memory of tasks, to a factor of two."""

    @property
    def sizes(self) -> list[int]:
        """Number of things that each task is about."""
        return [1] * len(self.tasks)

    @property
    def key(self) -> str:
        """Key of the task list: no other list, of this directory or another, has the same."""
        return f"{self.uuid}/{self.generation}"

    @property
    def costs(self) -> npt.NDArray[np.float64]:
        """Cost of each task, shape (tasks,)."""
        return np.array([task.cost for task in self.tasks])

    @property
    def journal(self) -> Path:
        """Directory where workers log what they do with this task list."""
        return self.path / "journal" / f"{self.generation:04d}"

    def pending(self, frozen: Sequence[Task] | None = None) -> Pending:
        """Return the tasks of the list, or of a frozen part of it, that are missing and have not failed.

        The first process checks every byte of the results.  Processes that join others at work take a quick look;
        otherwise each of a hundred jobs that start one after the other would read all results.
        """
        failed = self.failed()

        def choose(tasks: Sequence[Task]) -> list[Task]:
            tasks = [task for task in tasks if task.index not in failed]
            return self.missing_quick(tasks) if self._is_at_work() else self.missing(tasks)

        return Pending(self.tasks if frozen is None else frozen, choose)

    def failed(self) -> dict[int, str]:
        """Return task index → error of each task that failed and has not been put back.

        Without a readable record, a task has not failed: it is tried again.
        """
        records = {record.stem: record for record in (self.path / "failed").glob("*.json")}
        errors = {
            index: _error_in(records[name])
            for index, name in enumerate(self.names if records else [])
            if name in records
        }
        return {index: error for index, error in errors.items() if error is not None}

    def record(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Yield outcomes; write each failure to ``failed/`` first."""
        for outcome in outcomes:
            if outcome.error is not None:
                entry = asdict(outcome) | {"time": round(time.time(), 3)}
                # A failed task has no thumbnail.
                del entry["thumbnail"]
                name = self.names[outcome.task.index]
                write_text(self.path / "failed" / f"{name}.json", json.dumps(entry))
            yield outcome

    def retry(self) -> int:
        """Put failed tasks back and return their number."""
        records = list((self.path / "failed").glob("*.json"))
        for record in records:
            make_way(record)
            # Another process may put it back at the same time.
            record.unlink(missing_ok=True)
        return len(records)

    def _is_at_work(self) -> bool:
        now = time.time()
        workers = Journals(self.journal).read()
        return any(worker.task is not None and not worker.is_lost(now) for worker in workers)
