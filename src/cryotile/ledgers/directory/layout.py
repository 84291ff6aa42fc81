"""Names in a directory ledger: lists of tasks, and the tree of buckets, blocks and single tasks that each is cut in.

::

    farm/<key>/
      0000/                 the first list; a later one holds tasks that were enrolled again or in addition
        tasks               index and cost of each task, costliest first; never changes
        again/              hints: nodes with tasks that were handed back
        000000.done         a bucket of 256 tasks, all settled
        000001/             a bucket that is split into blocks
          0.done            a block of 16 tasks, all settled
          1/                a block that is split into tasks
            0               the claim of a task
            0.1             the claim of the same task by another worker, after the first one lost it
          2                 the claim of a whole block
        000002              the claim of a whole bucket

A node is either claimed, by a file of its name, or split, by a directory of its name.  The two exclude one another on
any file system, so claims of different sizes never overlap, and nobody needs to see what others have just made.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cryotile.errors import DamagedFile
from cryotile.farm.task import Task
from cryotile.files import fsync_directory, write_durably

__all__ = [
    "BUCKET",
    "DONE",
    "Node",
    "TaskList",
    "Trace",
    "is_sealed",
    "look",
    "names",
    "open_list",
    "publish_list",
    "see",
]

BUCKET = 256
"""Tasks that become one file when they are settled."""

BRANCH = 16
"""Parts that a node is split into."""

DONE = ".done"

_ROW = np.dtype([("index", "<i8"), ("cost", "<f8")])


@dataclass(frozen=True, slots=True)
class Node:
    """Tasks that are claimed together, or split.

    Attributes
    ----------
    tasks : TaskList
        The list.
    path : str
        Its file or directory.
    start : int
        Position of its first task in the list.
    count : int
        Number of its tasks.
    size : int
        The same for a full node: 256, 16 or 1.
    """

    tasks: TaskList
    path: str
    start: int
    count: int
    size: int

    @property
    def parent(self) -> str:
        """The directory it is in."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The name in that directory."""
        return self.path.rpartition("/")[2]

    @property
    def word(self) -> str:
        """A name among all nodes of the list, of one word; see :meth:`TaskList.node`."""
        return self.path[len(self.tasks.path) + 1 :].replace("/", "-")

    @property
    def above(self) -> Node | None:
        """The node that it is a part of; None for a bucket."""
        return self.tasks.node(self.word.rpartition("-")[0])

    def children(self) -> Iterator[Node]:
        """Give the nodes that it is split into."""
        size = self.size // BRANCH
        for number in range(-(-self.count // size)):
            offset = number * size
            count = min(size, self.count - offset)
            yield Node(self.tasks, f"{self.path}/{number:x}", self.start + offset, count, size)


class TaskList:
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
        Of each task, by position.

    Raises
    ------
    DamagedFile
        The list is truncated.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        content = (Path(path) / "tasks").read_bytes()
        if not content or len(content) % _ROW.itemsize:
            raise DamagedFile(
                f"{path}/tasks is truncated; remove {Path(path).parent}, then run again: results are kept"
            )
        rows = np.frombuffer(content, _ROW)
        self.indices: npt.NDArray[np.int64] = rows["index"]
        self.costs: npt.NDArray[np.float64] = rows["cost"]
        # What is settled is passed over once, and need not be looked at again.
        traces = look(path)
        settled = (
            name in traces and traces[name].done for name in (b.name for b in self.all_buckets())
        )
        self._cursor = next((n for n, done in enumerate(settled) if not done), self.buckets)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def buckets(self) -> int:
        """Number of buckets."""
        return -(-len(self) // BUCKET)

    def bucket(self, number: int) -> Node:
        """Give a bucket by its number."""
        start = number * BUCKET
        count = min(BUCKET, len(self) - start)
        return Node(self, f"{self.path}/{number:06d}", start, count, BUCKET)

    def all_buckets(self) -> Iterator[Node]:
        """Give the buckets in their order."""
        return map(self.bucket, range(self.buckets))

    def next_bucket(self) -> Node | None:
        """Give the first bucket that may hold a task which was never claimed; None when all were passed over."""
        return self.bucket(self._cursor) if self._cursor < self.buckets else None

    def next_buckets(self) -> Iterator[Node]:
        """Give the buckets from :meth:`next_bucket` on."""
        return map(self.bucket, range(self._cursor, self.buckets))

    def pass_over(self, bucket: Node) -> None:
        """Note that the next bucket holds no task which was never claimed."""
        self._cursor = bucket.start // BUCKET + 1

    @property
    def next_cost(self) -> float:
        """Cost of the first task of the next bucket; less than any when there is none."""
        bucket = self.next_bucket()
        return float("-inf") if bucket is None else float(self.costs[bucket.start])

    def task(self, position: int) -> Task:
        """Give a task by its position."""
        return Task(int(self.indices[position]), float(self.costs[position]))

    def node(self, word: str) -> Node | None:
        """Find the node that :attr:`Node.word` has named; None for a word that names none."""
        number, *rest = word.split("-")
        if not number.isdecimal() or int(number) >= self.buckets:
            return None
        found: Node | None = self.bucket(int(number))
        for name in rest:
            parts = found.children() if found is not None else ()
            found = next((part for part in parts if part.name == name), None)
        return found


@dataclass(slots=True)
class Trace:
    """What a directory's entries say of one node.

    Attributes
    ----------
    epochs : list of int
        Numbers of its claims.
    split : bool
        Whether it is a directory.
    done : bool
        Whether all its tasks are settled.
    """

    epochs: list[int]
    split: bool = False
    done: bool = False


def look(directory: str) -> dict[str, Trace]:
    """Read a directory: what there is of each node, by name; nothing when the directory is gone."""
    traces: dict[str, Trace] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                name, _, suffix = entry.name.partition(".")
                if suffix == "done":
                    traces.setdefault(name, Trace([])).done = True
                elif entry.is_dir(follow_symlinks=False):
                    traces.setdefault(name, Trace([])).split = True
                elif name and (not suffix or suffix.isdecimal()):
                    # Anything else is the file system's: NFS keeps deleted files that are open as .nfs0123….
                    traces.setdefault(name, Trace([])).epochs.append(int(suffix or 0))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for trace in traces.values():
        trace.epochs.sort()
    return traces


def see(node: Node) -> Trace:
    """See what there is of one node."""
    if node.size < BUCKET:
        return look(node.parent).get(node.name, Trace([]))
    # A list has thousands of buckets; reading all their names for one of them would take too long.
    trace = Trace([], done=os.path.exists(node.path + DONE), split=os.path.isdir(node.path))
    if not trace.split and os.path.exists(node.path):
        trace.epochs.append(0)
        while os.path.exists(f"{node.path}.{len(trace.epochs)}"):
            trace.epochs.append(len(trace.epochs))
    return trace


def is_sealed(node: Node) -> bool:
    """Tell whether all of a node, or of what it is part of, is settled."""
    path = node.path
    while path != node.tasks.path:
        if os.path.exists(path + DONE):
            return True
        path = path.rpartition("/")[0]
    return False


def names(directory: str) -> list[str]:
    """List a directory that may be gone, in order."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def open_list(home: str, number: int) -> TaskList | None:
    """Open a list by its number; None when there is none."""
    try:
        return TaskList(f"{home}/{number:04d}")
    except (FileNotFoundError, NotADirectoryError):
        return None


def publish_list(home: str, number: int, tasks: Sequence[Task]) -> bool:
    """Make a list appear, whole and under its number.

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
        False when the number is taken.
    """
    rows = np.array([(task.index, task.cost) for task in tasks], _ROW)
    rows = rows[np.argsort(-rows["cost"], kind="stable")]
    temporary = Path(home) / f".{secrets.token_hex(6)}.tmp"
    (temporary / "again").mkdir(parents=True)
    try:
        write_durably(temporary / "tasks", rows.tobytes())
        # A directory that is not empty is never replaced, so of several enrollers one is first.
        temporary.rename(f"{home}/{number:04d}")
        fsync_directory(Path(home))
    except OSError as error:
        # A file server that renamed, but lost the answer, finds nothing to rename when it is asked again.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
            raise
        return False
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True
