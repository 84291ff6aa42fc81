"""The backlog: tasks of a run that are listed, but have no row in the table ``tasks`` yet.

Tasks get rows a few thousand at a time, shortly before they are claimed.  So listing or restarting a million tasks
touches hundreds of rows, and a run of two thousand million tasks that a user creates by mistake is one row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
from sqlalchemy import Connection

from cryotile.farm.task import Task
from cryotile.ledgers.sql import statements as sql
from cryotile.ledgers.sql.schema import total_cost

__all__ = [
    "BacklogIndices",
    "add_range",
    "add_tasks",
    "is_scarce",
    "materialize",
    "read_backlog",
    "stock",
]

# Tasks in a row of the backlog.
_PORTION = 4096

# Tasks that get rows at a time.
_STEP = 2048

# Fewer waiting tasks with rows are scarce: more get rows before workers find none, and wait for each other.
_SCARCE = 1024


class BacklogIndices:
    """The indices of the tasks in a backlog; supports ``in``.

    Attributes
    ----------
    indices : set of int
        Single indices.
    ranges : list of range
        Ranges of indices.
    """

    def __init__(self) -> None:
        self.indices: set[int] = set()
        self.ranges: list[range] = []

    def __contains__(self, index: int) -> bool:
        return index in self.indices or any(index in each for each in self.ranges)


def read_backlog(connection: Connection, run_id: int) -> BacklogIndices:
    """Return the indices of the tasks that have no rows yet."""
    found = BacklogIndices()
    for row in sql.BACKLOG(connection, run=run_id):
        if row.indices is None:
            found.ranges.append(range(row.taken, row.size))
        else:
            found.indices.update(np.frombuffer(row.indices, "<i8")[row.taken :].tolist())
    return found


def add_tasks(connection: Connection, run_id: int, tasks: Sequence[Task]) -> None:
    """Add tasks to the backlog; the caller holds the lock of the run."""
    if not tasks:
        return
    indices = np.array([task.index for task in tasks], "<i8")
    costs = np.array([task.cost for task in tasks], "<f8")
    order = np.argsort(-costs, kind="stable")
    number = count(1 + sql.LAST_BACKLOG(connection, run=run_id).scalar_one())
    rows = []
    for first in range(0, len(tasks), _PORTION):
        portion = order[first : first + _PORTION]
        rows.append(
            _row(run_id, next(number), len(portion))
            | {
                "top": float(costs[portion[0]]),
                "indices": indices[portion].tobytes(),
                "costs": costs[portion].tobytes(),
            }
        )
    sql.ADD_BACKLOG.many(connection, rows)
    sql.ADD_TASKS(connection, run=run_id, count=len(tasks), cost=total_cost(costs.tobytes()))


def add_range(connection: Connection, run_id: int, size: int) -> None:
    """Add tasks 0 … size - 1, all of cost 0, to the backlog of a run that has no tasks."""
    sql.ADD_BACKLOG.many(connection, [_row(run_id, 0, size)])
    sql.ADD_TASKS(connection, run=run_id, count=size, cost=0.0)


def materialize(connection: Connection, run_id: int) -> bool:
    """Create rows for the costliest tasks of the backlog; return False if it is empty.

    The caller holds the lock of the run.
    """
    row = sql.NEXT_BACKLOG(connection, run=run_id).one_or_none()
    if row is None:
        return False
    stop = min(row.size, row.taken + _STEP)
    if row.indices is None:
        indices, costs = list(range(row.taken, stop)), [0.0] * (stop - row.taken)
    else:
        indices = np.frombuffer(row.indices, "<i8")[row.taken : stop].tolist()
        costs = np.frombuffer(row.costs, "<f8")[row.taken : stop].tolist()
    rows = list(zip(indices, costs, strict=True))
    sql.MATERIALIZE(connection, run=run_id, given=json.dumps(rows))
    sql.TAKE_BACKLOG(connection, run=run_id, number=row.number, taken=stop)
    return True


def is_scarce(connection: Connection, run_id: int) -> bool:
    """Return whether more tasks should get rows."""
    return sql.SCARCE(connection, run=run_id, few=_SCARCE).one_or_none() is not None


def stock(connection: Connection, run_id: int) -> None:
    """Create rows for more tasks, unless another worker has just done so."""
    sql.LOCK_RUN(connection, run=run_id)
    if is_scarce(connection, run_id):
        materialize(connection, run_id)


def _row(run_id: int, number: int, size: int) -> dict[str, Any]:
    return {
        "run": run_id,
        "number": number,
        "top": 0.0,
        "size": size,
        "indices": None,
        "costs": None,
    }
