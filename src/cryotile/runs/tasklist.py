"""A frozen, ordered list of tasks in a directory that all workers see: what a run and an ingest have in common.

::

    <directory>/
      failed/         one small file per task that failed, until it is retried
      journal/0001/   what each worker did of a task list, appended as it happened
      jobs/           what was submitted to a scheduler
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
from cryotile.files import write_text

__all__ = ["Estimate", "TaskList", "last_line"]


def last_line(error: str) -> str:
    """Return the last line of an error: of a traceback, what was raised."""
    return error.strip().rpartition("\n")[2]


@dataclass(frozen=True)
class Estimate:
    """What tasks will need.

    Attributes
    ----------
    core_hours : float
        Time on one core, hours.
    peak_bytes : float
        Memory of a worker on the task that takes most, bytes.
    """

    core_hours: float
    peak_bytes: float


class TaskList(ABC):
    """A frozen list of tasks, and what has become of each.

    Attributes
    ----------
    path : Path
        The directory.
    uuid : str
        Names it, wherever it is moved to.
    generation : int
        Number of the task list, counted from 1.
    noun, nouns : str
        Name of a task's subject, singular and plural.
    verb : str
        What working on the list does.
    file_name : str
        Of the file in the directory that says what was frozen.
    """

    path: Path
    uuid: str
    generation: int
    noun: ClassVar[str]
    nouns: ClassVar[str]
    verb: ClassVar[str]
    file_name: ClassVar[str]

    @property
    @abstractmethod
    def tasks(self) -> list[Task]:
        """All tasks, costliest first."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """What each task is about, by name."""

    @abstractmethod
    def missing(self, tasks: Sequence[Task] | None = None) -> list[Task]:
        """Return the tasks, of some or all, whose result is not there, after a thorough look."""

    @abstractmethod
    def missing_quick(self, tasks: Sequence[Task] | None = None) -> list[Task]:
        """Return what :meth:`missing` does, as far as a quick look tells."""

    @abstractmethod
    def check(self) -> None:
        """Make sure that what all tasks need is there, and sweep up what killed workers left."""

    @abstractmethod
    def estimate(self, tasks: Sequence[Task]) -> Estimate:
        """Estimate what tasks will need, good to a factor of two."""

    @property
    def sizes(self) -> list[int]:
        """Number of things that each task is about."""
        return [1] * len(self.tasks)

    @property
    def key(self) -> str:
        """Names the task list: another list, of this directory or another, has another key."""
        return f"{self.uuid}/{self.generation}"

    @property
    def costs(self) -> npt.NDArray[np.float64]:
        """Cost of each task, shape (tasks,)."""
        return np.array([task.cost for task in self.tasks])

    @property
    def journal(self) -> Path:
        """Where workers write down what they do of this task list."""
        return self.path / "journal" / f"{self.generation:04d}"

    def pending(self, frozen: Sequence[Task] | None = None) -> Pending:
        """Return what a farm is to do of the task list, or of a frozen part of it: what is missing and did not fail.

        Whoever is first takes a thorough look; whoever joins others at work a quick one, or a hundred jobs that start
        one after the other would each read all results.
        """
        failed = self.failed()

        def choose(tasks: Sequence[Task]) -> list[Task]:
            tasks = [task for task in tasks if task.index not in failed]
            return self.missing_quick(tasks) if self._is_at_work() else self.missing(tasks)

        return Pending(self.tasks if frozen is None else frozen, choose)

    def failed(self) -> dict[int, str]:
        """Return task index → error of each task that failed and was not retried since."""
        records = {record.stem: record for record in (self.path / "failed").glob("*.json")}
        return {
            index: json.loads(records[name].read_text(encoding="utf-8"))["error"]
            for index, name in enumerate(self.names if records else [])
            if name in records
        }

    def record(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Pass outcomes on, a failure not before it is written to ``failed/``."""
        for outcome in outcomes:
            if outcome.error is not None:
                entry = asdict(outcome) | {"time": round(time.time(), 3)}
                name = self.names[outcome.task.index]
                write_text(self.path / "failed" / f"{name}.json", json.dumps(entry))
            yield outcome

    def retry(self) -> int:
        """Put failed tasks back and return how many there were."""
        records = list((self.path / "failed").glob("*.json"))
        for record in records:
            # Somebody else may be putting it back, too.
            record.unlink(missing_ok=True)
        return len(records)

    def _is_at_work(self) -> bool:
        now = time.time()
        workers = Journals(self.journal).read()
        return any(worker.task is not None and not worker.is_lost(now) for worker in workers)
