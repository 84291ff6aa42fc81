"""What rank 0 and the workers write to each other: fixed records, many to a message.

To a worker: one byte that says what it is to do and, for tasks, the records that a child process reads, too.
To rank 0: the records of a child's reports, and a few more kinds of them.
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
"""To a worker: do these tasks; give back what is not started; rank 0 is there; wind down; the farm is over; it is over,
and a rank is lost."""

HELLO, RETURNED, SEARCHED, LEAVING, LEFT = range(UNFIT + 1, UNFIT + 6)
"""To rank 0, besides what children report: here I am, on host …; this task is not started, take it back; these were
all; give me no more; I am gone."""


class Report(NamedTuple):
    """One record on its way to rank 0: kind, index of a task or -1, seconds or fraction done, text."""

    kind: int
    task: int
    value: float
    text: str


def orders(tasks: Sequence[Task]) -> bytes:
    """Write the order to do tasks."""
    return DO + b"".join(TASK.pack(task.index, task.cost) for task in tasks)


def tasks_in(order: bytes) -> list[Task]:
    """Read the tasks of an order."""
    return [Task(index, cost) for index, cost in TASK.iter_unpack(memoryview(order)[len(DO) :])]


def report(kind: int, index: int = -1, value: float = 0.0, text: str = "") -> bytes:
    """Write one record."""
    # A traceback may hold surrogates (file names that are no UTF-8); they come through as escapes.
    content = text.encode(errors="backslashreplace")
    return REPORT.pack(kind, index, value, len(content)) + content


def reports(message: bytes) -> Iterator[Report]:
    """Read the records of a message."""
    position = 0
    while position < len(message):
        kind, index, value, length = REPORT.unpack_from(message, position)
        position += REPORT.size + length
        text = message[position - length : position].decode() if length else ""
        yield Report(kind, index, value, text)
