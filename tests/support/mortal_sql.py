"""Workers of a database ledger that die at given moments, as in :mod:`mortal` for a directory, and some that do not."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path

from sqlalchemy import event

from cryotile.backends.pull import PullBackend
from cryotile.farm.task import Pending, Progress, Task
from cryotile.ledgers.sql.ledger import SqlLedger
from tests.support.mortal import Death, Fate, Piecewise, Saving

LEASE = 1.0

# The task at which workers of short tasks die.
FATAL = 30


class MortalSqlLedger(Piecewise, SqlLedger):
    """A ledger whose worker may die before and after any statement, and before and after a commit."""

    def __init__(self, url: str, key: str, fate: Fate) -> None:
        super().__init__(url, key, lease=LEASE)
        self._fate = fate
        for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
            # The one that all others come from, whether they ask one statement or several.
            event.listen(self._database._single, moment, self._step)

    def _step(self, *told) -> None:
        self._fate.step()


def work(url: str, directory: Path, count: int, deaths: tuple[Death, ...]) -> None:
    """Work on the run until a given death."""
    ledger = MortalSqlLedger(url, "run/1", Fate(directory / "deaths", deaths))
    tasks = [Task(index, float(count - index)) for index in range(count)]
    pending = Pending(
        tasks,
        lambda tasks: [t for t in tasks if not (directory / "results" / str(t.index)).exists()],
    )
    backend = PullBackend(ledger, children=1)
    for outcome in backend.run(pending, Saving(directory, deaths)):
        with (directory / "outcomes").open("ab", buffering=0) as notes:
            notes.write(b"%d %d\n" % (outcome.task.index, outcome.error is None))


def claim_all(url: str, together: Barrier, claimed: Path) -> None:
    """Begin when others do, claim until no task is left, and write the tasks to a file."""
    ledger = SqlLedger(url, "run/1", host=str(os.getpid()))
    ledger.unsettled()
    together.wait()
    with claimed.open("w") as file:
        while leases := ledger.claim(100):
            file.writelines(f"{lease.task.index}\n" for lease in leases)


def work_on_a_fatal_task(url: str) -> None:
    """Work on forty short tasks, one of which kills the worker; print the errors."""
    tasks = [Task(index, 1.0) for index in range(40)]
    ledger = SqlLedger(url, "run/1", lease=LEASE)
    for outcome in PullBackend(ledger, children=1).run(tasks, kill_worker):
        if outcome.error is not None:
            sys.stdout.write(f"{outcome.task.index} {outcome.error}\n")


def kill_worker(task: Task, progress: Progress) -> None:
    """Work that kills the worker at one task."""
    if task.index == FATAL:
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
