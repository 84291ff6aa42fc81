"""A worker that dies at the moments it is given: before, in and after claiming, settling and saving."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryotile.backends.pull import PullBackend
from cryotile.ledgers.dir import DirLedger
from cryotile.task import Pending, Progress, Task

CHANGES = ("open", "write", "mkdir", "rename", "unlink", "rmdir", "utime")


@dataclass(frozen=True)
class Death:
    """The moment of a death.

    Attributes
    ----------
    name : str
        Each death happens once, for a file of its name is made at the moment.
    act : str
        claim, settle or save.
    when : str
        before, in or after.
    turn : int
        At the how manieth such moment in the life of a process.
    """

    name: str
    act: str
    when: str
    turn: int


class Fate:
    """The deaths that lie ahead of a process, and what it is about."""

    def __init__(self, directory: Path, deaths: tuple[Death, ...]) -> None:
        self._directory = directory
        self._deaths = [death for death in deaths if not (directory / death.name).exists()]
        self._turns: Counter[tuple[str, str]] = Counter()
        self._draw = random.Random(repr(deaths))
        self.step: Callable[[], None] = lambda: None

    def meet(self, act: str, when: str) -> None:
        """Die, if this is the moment."""
        self._turns[act, when] += 1
        for death in self._deaths:
            if (death.act, death.when) == (act, when) and self._turns[act, when] >= death.turn:
                (self._directory / death.name).write_text(f"{act} {when}")
                os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def act(self, act: str) -> Iterator[None]:
        """Do something during which this process may die."""
        self.meet(act, "before")
        # Not always at the first change.
        changes = self._draw.randrange(6)

        def step() -> None:
            nonlocal changes
            changes -= 1
            if changes < 0:
                self.step = lambda: None
                self.meet(act, "in")

        self.step = step
        yield
        self.step = lambda: None
        self.meet(act, "after")


class MortalLedger(DirLedger):
    """A ledger whose worker may die at any change of a file."""

    def __init__(self, home: Path, key: str, fate: Fate) -> None:
        super().__init__(home, key, lease=1.0)
        self._fate = fate
        for name in CHANGES:
            self._count(name)

    def claim(self, n=1):
        with self._fate.act("claim"):
            return super().claim(n)

    def settle(self, outcomes):
        with self._fate.act("settle"):
            return super().settle(outcomes)

    def _count(self, name: str) -> None:
        original = getattr(os, name)

        def call(*args, **options):
            self._fate.step()
            return original(*args, **options)

        setattr(os, name, call)


@dataclass(frozen=True)
class Saving:
    """Work that saves a file, whole or not at all, in a process that may die at it."""

    directory: Path
    deaths: tuple[Death, ...]

    def __call__(self, task: Task, progress: Progress) -> None:
        fate = _fate_of_this_process(self)
        partial = self.directory / "results" / f".{task.index}.{os.getpid()}"
        with fate.act("save"):
            with partial.open("wb") as file:
                for _ in range(8):
                    file.write(b"%d " % task.index)
                    file.flush()
                    fate.step()
            partial.rename(self.directory / "results" / str(task.index))
        with (self.directory / "saved").open("ab", buffering=0) as notes:
            notes.write(b"%d\n" % task.index)


_fates: dict[Saving, Fate] = {}


def _fate_of_this_process(work: Saving) -> Fate:
    if work not in _fates:
        _fates[work] = Fate(work.directory / "deaths", work.deaths)
    return _fates[work]


def find_missing(directory: Path, tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks whose results are not there, but for those that have failed for good."""
    outcomes = directory / "outcomes"
    lines = outcomes.read_text().splitlines() if outcomes.exists() else []
    ended = {line.split()[0] for line in lines if line.endswith(" 0")}
    ended.update(path.name for path in (directory / "results").iterdir())
    return [task for task in tasks if str(task.index) not in ended]


def work(directory: Path, count: int, deaths: tuple[Death, ...]) -> None:
    """Take part in the run, as far as fate allows."""
    ledger = MortalLedger(directory, "run/1", Fate(directory / "deaths", deaths))
    tasks = [Task(index, float(count - index)) for index in range(count)]
    pending = Pending(tasks, lambda frozen: find_missing(directory, frozen))
    backend = PullBackend(ledger, children=1)
    for outcome in backend.run(pending, Saving(directory, deaths)):
        with (directory / "outcomes").open("ab", buffering=0) as notes:
            notes.write(b"%d %d\n" % (outcome.task.index, outcome.error is None))
