"""What is listed and not laid out: tasks of a run that take their rows in the table only when their turn comes near.

To list a million tasks, as to let a million wait again, is then hundreds of rows; and a run of two thousand million
tasks that somebody asks for by mistake is one row.
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

__all__ = ["Listed", "add_range", "add_tasks", "listed", "materialize"]

# Tasks in a row of stock, and laid out at a time.
_PORTION = 4096


class Listed:
    """The indices of what is in stock."""

    def __init__(self) -> None:
        self.indices: set[int] = set()
        self.ranges: list[range] = []

    def __contains__(self, index: int) -> bool:
        return index in self.indices or any(index in each for each in self.ranges)


def listed(connection: Connection, run_id: int) -> Listed:
    """Return the indices of what is not laid out."""
    found = Listed()
    for row in sql.STOCK(connection, run=run_id):
        if row.indices is None:
            found.ranges.append(range(row.taken, row.size))
        else:
            found.indices.update(np.frombuffer(row.indices, "<i8")[row.taken :].tolist())
    return found


def add_tasks(connection: Connection, run_id: int, tasks: Sequence[Task]) -> None:
    """Put tasks in stock, under the lock of their run."""
    if not tasks:
        return
    indices = np.array([task.index for task in tasks], "<i8")
    costs = np.array([task.cost for task in tasks], "<f8")
    order = np.argsort(-costs, kind="stable")
    number = count(1 + sql.LAST_STOCK(connection, run=run_id).scalar_one())
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
    sql.ADD_STOCK.many(connection, rows)
    sql.ADD_TASKS(connection, run=run_id, count=len(tasks))


def add_range(connection: Connection, run_id: int, size: int) -> None:
    """Put tasks 0 … size - 1 in stock of a run that has none, all at no cost."""
    sql.ADD_STOCK.many(connection, [_row(run_id, 0, size)])
    sql.ADD_TASKS(connection, run=run_id, count=size)


def materialize(connection: Connection, run_id: int) -> bool:
    """Give the costliest of what is in stock their rows, under the lock of their run; False when nothing is left."""
    row = sql.NEXT_STOCK(connection, run=run_id).one_or_none()
    if row is None:
        return False
    stop = min(row.size, row.taken + _PORTION)
    if row.indices is None:
        indices, costs = list(range(row.taken, stop)), [0.0] * (stop - row.taken)
    else:
        indices = np.frombuffer(row.indices, "<i8")[row.taken : stop].tolist()
        costs = np.frombuffer(row.costs, "<f8")[row.taken : stop].tolist()
    rows = list(zip(indices, costs, strict=True))
    sql.MATERIALIZE(connection, run=run_id, given=json.dumps(rows))
    sql.TAKE_STOCK(connection, run=run_id, number=row.number, taken=stop)
    return True


def _row(run_id: int, number: int, size: int) -> dict[str, Any]:
    return {
        "run": run_id,
        "number": number,
        "top": 0.0,
        "size": size,
        "indices": None,
        "costs": None,
    }
