"""The messages between rank 0 and the workers: fixed records, many in a message.

To a worker: one byte for the order and, for tasks, the same records that a child process reads.
To rank 0: the records of a child's reports, and a few more kinds of records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryotile.backends.child_main import DONE, FAILED, PROGRESS, REPORT, TASK, UNFIT
from cryotile.farm.task import Task

__all__ = [
    "ABANDON",
    "DO",
    "DONE",
    "DRAIN",
    "FAILED",
    "HEARD",
    "HELLO",
    "LEAVING",
    "LEFT",
    "PROGRESS",
    "RECALL",
    "RETURNED",
    "SEARCHED",
    "STOP",
    "UNFIT",
    "Report",
    "orders",
    "report",
    "reports",
    "tasks_in",
]

DO, RECALL, HEARD, DRAIN, STOP, ABANDON = b"D", b"R", b"H", b"W", b"S", b"A"
"""Orders to a worker: do these tasks; return unstarted tasks; rank 0 is alive; drain; the farm is over; it is over,
and a rank is lost."""

HELLO, RETURNED, SEARCHED, LEAVING, LEFT = range(UNFIT + 1, UNFIT + 6)
"""Reports to rank 0, besides those of children: a worker on host … is ready; this task is returned unstarted; no more
are returned; send no more tasks; the worker has left."""


class Report(NamedTuple):
    """One record for rank 0: kind, index of a task or -1, seconds or fraction done, text."""

    kind: int
    task: int
    value: float
    text: str


def orders(tasks: Sequence[Task]) -> bytes:
    """Return the order to do tasks."""
    return DO + b"".join(TASK.pack(task.index, task.cost) for task in tasks)


def tasks_in(order: bytes) -> list[Task]:
    """Return the tasks of an order."""
    return [Task(index, cost) for index, cost in TASK.iter_unpack(memoryview(order)[len(DO) :])]


def report(kind: int, index: int = -1, value: float = 0.0, text: str = "") -> bytes:
    """Return one record."""
    # A traceback may contain surrogates (file names that are not UTF-8); they are sent as escapes.
    content = text.encode(errors="backslashreplace")
    return REPORT.pack(kind, index, value, len(content)) + content


def reports(message: bytes) -> Iterator[Report]:
    """Yield the records of a message."""
    position = 0
    while position < len(message):
        kind, index, value, length = REPORT.unpack_from(message, position)
        position += REPORT.size + length
        text = message[position - length : position].decode() if length else ""
        yield Report(kind, index, value, text)
