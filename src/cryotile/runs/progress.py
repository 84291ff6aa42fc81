"""Progress of calls that take minutes: bars in a terminal and in a notebook, otherwise a line a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cryotile.farm.journal import Journals
from cryotile.farm.task import Outcome, Task
from cryotile.runs.tasklist import TaskList

__all__ = ["Advance", "Followed", "Tell", "bar", "follow"]

Tell = Callable[[str], object]
"""Takes a line for the user."""

DELAY = 0.5
"""Seconds before a bar appears: a call that is over by then needs none."""

GLANCE = 1.0
"""Seconds between two looks at what the workers do, for a bar."""

LEAST_SHARE = 20
"""A bar waits this many times as long as a look took: the journals of a large farm take long to read."""

LINE_INTERVAL = 60.0
"""Seconds between two lines, where there is no terminal."""


class Advance(Protocol):
    """Move a bar on by ``count``."""

    def __call__(self, count: float = 1, /) -> object:
        """Move on."""


@contextmanager
def bar(title: str, total: float, *, shown: bool) -> Iterator[Advance]:
    """Show a bar on standard error, or in the notebook, while the context lasts.

    Parameters
    ----------
    title : str
        Text before the bar.
    total : float
        Sum of all counts at the end.
    shown : bool
        False: show nothing.

    Yields
    ------
    Advance
        Moves the bar on.
    """
    if not shown:
        yield _nothing
        return
    from tqdm.auto import tqdm

    with tqdm(desc=title, total=total, dynamic_ncols=True, delay=DELAY) as progress:
        yield progress.update


def _nothing(count: float = 1, /) -> None:
    """Show nothing."""


@contextmanager
def follow(
    tasks: TaskList,
    pending: Sequence[Task],
    *,
    verb: str,
    journal: Path,
    shown: bool,
    tell: Tell,
) -> Iterator[Callable[[Outcome], object]]:
    """Show how far the work on a task list is, while the context lasts.

    A bar moves by cost, also within tasks that workers on any host are doing.

    Parameters
    ----------
    tasks : TaskList
        The list.
    pending : sequence of Task
        Those to be done.
    verb : str
        What is done with them.
    journal : Path
        Directory of the journals of the workers.
    shown : bool
        True: show a bar on standard error, or in the notebook.  False: give ``tell`` a line a minute.
    tell : callable
        Receives the lines.

    Yields
    ------
    callable
        Takes each outcome.
    """
    seen = Followed(tasks, pending, verb, journal)
    if not shown:
        with _repeatedly(LINE_INTERVAL, lambda: tell(seen.line())):
            yield seen.settle
        return
    from tqdm.auto import tqdm

    first, form = f"{seen.words(0.0)} ", "{desc}|{bar}| {elapsed}<{remaining}"
    with tqdm(desc=first, total=seen.total, bar_format=form, dynamic_ncols=True) as progress:

        def draw() -> None:
            progress.n = seen.position()
            progress.set_description_str(f"{seen.words(progress.n)} ")

        with _repeatedly(GLANCE, draw):
            yield seen.settle
        draw()


@contextmanager
def _repeatedly(interval: float, show: Callable[[], object]) -> Iterator[None]:
    """Call a function from a thread of its own while the context lasts."""
    over = threading.Event()

    def repeat() -> None:
        pause = interval
        while not over.wait(pause):
            begin = time.monotonic()
            show()
            pause = max(interval, LEAST_SHARE * (time.monotonic() - begin))

    thread = threading.Thread(target=repeat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Followed:
    """What is done of a task list: by outcomes, and by the journals of workers.

    Parameters
    ----------
    tasks : TaskList
        The list.
    pending : sequence of Task
        Those to be done.
    verb : str
        What is done with them.
    journal : Path
        Directory of the journals of the workers.

    Attributes
    ----------
    total : float
        Cost of those tasks, more than 0.
    """

    def __init__(self, tasks: TaskList, pending: Sequence[Task], verb: str, journal: Path) -> None:
        self._tasks, self._verb, self._journals = tasks, verb, Journals(journal)
        self._left = {task.index: task.cost for task in pending}
        self._sizes = tasks.sizes
        self._things = sum(self._sizes[index] for index in self._left)
        self._begin = time.monotonic()
        self._ended = self._failed = 0
        self._cost = 0.0
        self.total = sum(self._left.values()) or 1.0

    def settle(self, outcome: Outcome) -> None:
        """Count an outcome."""
        index = outcome.task.index
        self._cost += self._left.pop(index, 0.0)
        self._ended += self._sizes[index]
        self._failed += outcome.error is not None

    def position(self) -> float:
        """Return the cost that is done, with the parts of the tasks that workers are doing."""
        now = time.time()
        fractions = {
            worker.task: worker.fraction
            for worker in self._journals.read()
            if worker.task in self._left and not worker.is_lost(now)
        }
        running = sum(self._left.get(task or 0, 0.0) * part for task, part in fractions.items())
        return min(self._cost + running, self.total)

    def words(self, position: float) -> str:
        """Return e.g. ``fit 12 of 400 tiles, 2 failed, 7 %``."""
        failed = f", {self._failed:,} {self._tasks.nouns} failed" if self._failed else ""
        # Rounded down: 100 % means that nothing is left.
        percent = int(100 * position / self.total)
        return f"{self._verb} {self._ended:,} of {self._things:,} {self._tasks.things}{failed}, {percent} %"

    def line(self) -> str:
        """Return a line for a file."""
        minutes = (time.monotonic() - self._begin) / 60
        return f"{self.words(self._cost)} after {minutes:.0f} min"
