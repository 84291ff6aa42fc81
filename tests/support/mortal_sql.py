"""A worker of a database ledger that dies at given moments, as in :mod:`mortal` for a directory."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import event

from cryotile.backends.pull import PullBackend
from cryotile.farm.task import Pending, Task
from cryotile.ledgers.sql.ledger import SqlLedger
from tests.support.mortal import Death, Fate, Piecewise, Saving

LEASE = 1.0


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
