"""A worker that dies at given moments: before, during and after claiming, settling and saving.

Three rules make sure that every moment comes on every machine, however fast.  A worker claims and settles few tasks at
a time, so that few tasks make many moments.  Its own death waits for those of its children.  And there are more tasks
than all lives together can settle before their deaths (:data:`TASKS_OF_A_LIFE`).
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from cryotile.backends.pull import PullBackend
from cryotile.farm.task import Pending, Progress, Task
from cryotile.ledgers import Ledger
from cryotile.ledgers.directory.ledger import DirLedger

CHANGES = ("open", "write", "mkdir", "rename", "unlink", "rmdir", "utime")

MOMENTS = tuple(product(("claim", "settle", "save"), ("before", "in", "after")))

# Number of tasks claimed or settled at a time.
PIECE = 3

# The latest occurrence at which a death happens; within an act, at most every sixth change is a moment.
LATEST, CHANGES_BETWEEN = 6, 6

TASKS_OF_A_LIFE = 2 * LATEST + PIECE * LATEST * CHANGES_BETWEEN
"""More tasks than a worker settles before it dies, including those that its two children save."""


@dataclass(frozen=True)
class Death:
    """The moment of a death.

    Attributes
    ----------
    name : str
        Each death happens once: a file of this name is created at that moment.
    act : str
        claim, settle or save; the first two wait until all pending saves of the process have killed a child.
    when : str
        before, in or after.
    turn : int
        The number of such moments in the life of a process until the death.
    """

    name: str
    act: str
    when: str
    turn: int


class Fate:
    """The pending deaths of a process, and the act that it is at."""

    def __init__(self, directory: Path, deaths: tuple[Death, ...]) -> None:
        self._directory = directory
        self._deaths = [death for death in deaths if not (directory / death.name).exists()]
        self._turns: Counter[tuple[str, str]] = Counter()
        self._changes: Counter[str] = Counter()
        self._draw = random.Random(repr(deaths))
        self.step: Callable[[], None] = lambda: None

    def meet(self, act: str, when: str) -> None:
        """Die if this is the moment."""
        self._turns[act, when] += 1
        for death in self._deaths:
            due = self._turns[act, when] >= death.turn
            if due and (death.act, death.when) == (act, when) and self._may_die(act):
                (self._directory / death.name).write_text(f"{act} {when}")
                os.kill(os.getpid(), signal.SIGKILL)

    def _may_die(self, act: str) -> bool:
        """Tell whether this process need not wait for the deaths of its children."""
        saves = [death.name for death in self._deaths if death.act == "save"]
        return act == "save" or all((self._directory / name).exists() for name in saves)

    @contextmanager
    def act(self, act: str) -> Iterator[None]:
        """Do something during which this process may die."""
        self.meet(act, "before")

        def step() -> None:
            # Not always at the first change; the remaining ones count in the next act of the same kind.
            self._changes[act] -= 1
            if self._changes[act] < 0:
                self._changes[act] = self._draw.randrange(CHANGES_BETWEEN)
                self.meet(act, "in")

        self.step = step
        yield
        self.step = lambda: None
        self.meet(act, "after")


def draw_lives(seed: int, count: int) -> list[tuple[Death, ...]]:
    """Draw the deaths of each worker: two of its children die, then it dies itself."""
    draw = random.Random(seed)
    saves = [moment for moment in MOMENTS if moment[0] == "save"] * count
    own = [moment for moment in MOMENTS if moment[0] != "save"] * count
    # All kinds in turn, each at one of its moments at random.
    return [
        tuple(
            Death(f"{number}-{part}", act, when, draw.randint(1, LATEST))
            for part, (act, when) in enumerate([*saves[2 * number : 2 * number + 2], own[number]])
        )
        for number in range(count)
    ]


def check_deaths(directory: Path, lives: Sequence[tuple[Death, ...]]) -> None:
    """Check that every drawn death has happened, and therefore every kind of moment."""
    happened = {path.name: path.read_text() for path in directory.iterdir()}
    assert happened == {death.name: f"{death.act} {death.when}" for life in lives for death in life}
    assert set(happened.values()) == {f"{act} {when}" for act, when in MOMENTS}


class Piecewise:
    """A mixin for ledgers: each piece of a claim or settlement is an act at which the worker may die."""

    _fate: Fate

    def claim(self, n=1):
        with self._fate.act("claim"):
            return super().claim(min(n, PIECE))

    def settle(self, endings):
        lost, rows = set(), list(endings.items())
        for first in range(0, len(rows), PIECE):
            with self._fate.act("settle"):
                lost |= super().settle(dict(rows[first : first + PIECE]))
        return lost

    exchange = Ledger.exchange


class MortalLedger(Piecewise, DirLedger):
    """A ledger whose worker may die at any change of a file."""

    def __init__(self, home: Path, key: str, fate: Fate) -> None:
        super().__init__(home, key, lease=1.0)
        self._fate = fate
        for name in CHANGES:
            self._count(name)

    def _count(self, name: str) -> None:
        original = getattr(os, name)

        def call(*args, **options):
            self._fate.step()
            return original(*args, **options)

        setattr(os, name, call)


@dataclass(frozen=True)
class Saving:
    """Work that saves a file atomically, in a process that may die while saving."""

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
    """Return the tasks whose results are missing, except those that failed for good."""
    outcomes = directory / "outcomes"
    lines = outcomes.read_text().splitlines() if outcomes.exists() else []
    ended = {line.split()[0] for line in lines if line.endswith(" 0")}
    ended.update(path.name for path in (directory / "results").iterdir())
    return [task for task in tasks if str(task.index) not in ended]


def work(directory: Path, count: int, deaths: tuple[Death, ...]) -> None:
    """Take part in the run until the next death."""
    ledger = MortalLedger(directory, "run/1", Fate(directory / "deaths", deaths))
    tasks = [Task(index, float(count - index)) for index in range(count)]
    pending = Pending(tasks, lambda frozen: find_missing(directory, frozen))
    backend = PullBackend(ledger, children=1)
    for outcome in backend.run(pending, Saving(directory, deaths)):
        with (directory / "outcomes").open("ab", buffering=0) as notes:
            notes.write(b"%d %d\n" % (outcome.task.index, outcome.error is None))
