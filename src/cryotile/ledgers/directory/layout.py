"""Names in a directory ledger: lists of tasks, and the units that each list is cut into.

::

    farm/<key>/
      0000/                 the first list; a later one holds tasks that were enrolled again or in addition
        tasks               index and cost of each task, costliest first, and their digest; never changes
        again/              hints: units with tasks that were handed back
        000000.done         a unit of 256 tasks, all settled
        000001.0            the first claim in a unit
        000001.1            the second claim, of tasks that follow those of the first
        000001.r0           a claim of tasks of that unit that were handed back, or whose holder is gone
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cryotile.farm.task import Task
from cryotile.files import fsync, write_durably

__all__ = ["DONE", "UNIT", "PublishedList", "Unit", "look", "names", "open_list", "publish_list"]

UNIT = 256
"""Tasks that become one file when they are settled."""

DONE = "done"

_FILE = re.compile(r"([0-9]{6,})\.(done|r?[0-9]+)")

_ROW = np.dtype([("index", "<i8"), ("cost", "<f8")])

_DIGEST_SIZE = 16

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unit:
    """Consecutive tasks of a list, whose claims form one chain.

    Attributes
    ----------
    tasks : PublishedList
        The list.
    number : int
        Number of the unit in the list.
    """

    tasks: PublishedList
    number: int

    @property
    def start(self) -> int:
        """Position of its first task in the list."""
        return self.number * UNIT

    @property
    def count(self) -> int:
        """Number of its tasks."""
        return min(UNIT, len(self.tasks) - self.start)

    def file(self, name: str) -> str:
        """Return the path of a claim by its name; ``done`` marks the unit as settled."""
        return f"{self.tasks.path}/{self.number:06d}.{name}"

    def task(self, offset: int) -> Task:
        """Return a task by its offset in the unit."""
        position = self.start + offset
        return Task(int(self.tasks.indices[position]), float(self.tasks.costs[position]))


class PublishedList:
    """One frozen list of tasks, costliest first.

    Parameters
    ----------
    path : str
        Its directory.

    Attributes
    ----------
    path : str
        Its directory.
    indices, costs : ndarray, shape (tasks,)
        Index and cost of each task, by position.
    next : int
        Number of the first unit that may hold a task which was never claimed.

    """

    def __init__(self, path: str) -> None:
        self.path = path
        # A list that cannot be read counts as empty: an enroller lists its tasks again, under the next number.  Workers
        # that have read it before go on with it, so its directory stays.
        rows = np.frombuffer(_content(Path(path) / "tasks"), _ROW)
        self.indices: npt.NDArray[np.int64] = rows["index"]
        self.costs: npt.NDArray[np.float64] = rows["cost"]
        # Settled units are skipped once, and need not be looked at again.
        found = look(path)
        self.next = 0
        while DONE in found.get(self.next, ()):
            self.next += 1

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def units(self) -> int:
        """Number of units."""
        return -(-len(self) // UNIT)

    @property
    def next_cost(self) -> float:
        """Cost of the first task of the next unit; less than any cost if there is none."""
        return float(self.costs[self.next * UNIT]) if self.next < self.units else float("-inf")

    def look(self) -> dict[int, set[str]]:
        """Return the names of the claims, and ``done``, of each unit that has any."""
        return {number: files for number, files in look(self.path).items() if number < self.units}

    def all_units(self) -> Iterator[Unit]:
        """Yield the units in their order."""
        return (Unit(self, number) for number in range(self.units))


def look(directory: str) -> dict[int, set[str]]:
    """Read the directory of a list, which may be gone: the names of the claims, and ``done``, by number of unit."""
    found: dict[int, set[str]] = {}
    for file in names(directory):
        # Other files are not ours: NFS keeps deleted files that are open as .nfs0123….
        if (parts := _FILE.fullmatch(file)) is not None:
            found.setdefault(int(parts[1]), set()).add(parts[2])
    return found


def names(directory: str) -> list[str]:
    """List a directory, which may be gone."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def open_list(home: str, number: int) -> PublishedList | None:
    """Open a list by its number; None if there is none."""
    path = f"{home}/{number:04d}"
    return PublishedList(path) if os.path.lexists(path) else None


def _content(path: Path) -> bytes:
    """Return the rows of a list; none, with a warning, if they are not what was published."""
    try:
        content, problem = path.read_bytes(), "is not what was written"
    except OSError as error:
        content, problem = b"", f"cannot be read ({error.strerror})"
    rows = content[:-_DIGEST_SIZE]
    if content and content[-_DIGEST_SIZE:] == _digest(rows):
        return rows
    _logger.warning("%s %s; its tasks are listed again, and results are kept", path, problem)
    return b""


def _digest(rows: bytes) -> bytes:
    return hashlib.blake2b(rows, digest_size=_DIGEST_SIZE).digest()


def publish_list(home: str, number: int, tasks: Sequence[Task]) -> bool:
    """Publish a list as a whole under its number.

    Parameters
    ----------
    home : str
        Directory of all lists.
    number : int
        Number of the list.
    tasks : sequence of Task
        In any order; at least one.

    Returns
    -------
    bool
        False if the number is taken.
    """
    rows = np.array([(task.index, task.cost) for task in tasks], _ROW)
    rows = rows[np.argsort(-rows["cost"], kind="stable")]
    temporary = Path(home) / f".{secrets.token_hex(6)}.tmp"
    (temporary / "again").mkdir(parents=True)
    try:
        content = rows.tobytes()
        write_durably(temporary / "tasks", content + _digest(content))
        # A rename never replaces a directory that is not empty, so of several enrollers one is first.
        temporary.rename(f"{home}/{number:04d}")
        fsync(Path(home))
    except OSError as error:
        # A file server that renamed and lost the answer finds nothing to rename when it is asked again.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
            raise
        return False
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True
