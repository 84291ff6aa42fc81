"""Write to a point DB, as a process that can kill itself at a chosen moment.

``main("append", db, kill, first, count)`` appends made-up granules and prints ``begin <id>`` and ``end <id>`` around
each; ``main("cuts", db, kill, first, last)`` appends overlapping cuts of one granule, backwards if ``first`` is greater
than ``last``; ``main("compact", db, kill, rounds)`` compacts.  ``kill`` is ``<stage> <n>``, the n-th time that it
reaches a stage, or ``never 0``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryotile.pointdb import PointDB
from cryotile.points import Granule
from tests.support.made_up import granule

STAGES = (
    "before a fragment",
    "before the fsync of a fragment",
    "after the fsync of a fragment",
    "before a file of an entry",
    "before the fsync of an entry",
    "after the fsync of an entry",
    "before the rename of an entry",
    "after the rename of an entry",
    "before a file is deleted",
)


class Killer:
    """Send SIGKILL, which no handler can catch, at the chosen stage."""

    def __init__(self, root: str, stage: str, count: int) -> None:
        self.root, self.stage, self.left = root, stage, count

    def __call__(self, stage: str) -> None:
        if stage == self.stage:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Report every file that is opened for writing, fsynced, renamed or deleted."""

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT:
                kind = self.kind(arguments[0])
                self(f"before {'a file of ' if kind == 'an entry' else ''}{kind}")
            elif event == "os.remove":
                self("before a file is deleted")

        sys.addaudithook(audit)
        os.fsync = self.around(
            os.fsync, "the fsync", lambda f: Path(f"/proc/self/fd/{f}").readlink()
        )
        os.rename = self.around(os.rename, "the rename", lambda path: path)

    def kind(self, path: object) -> str:
        if str(path).startswith(f"{self.root}/chunks"):
            return "a fragment"
        return "an entry" if str(path).startswith(f"{self.root}/log/.") else "something else"

    def around(
        self, function: Callable[..., Any], what: str, path_of: Callable[[Any], object]
    ) -> Callable[..., Any]:
        def watched(*arguments: Any, **keywords: Any) -> Any:
            kind = self.kind(path_of(arguments[0]))
            self(f"before {what} of {kind}")
            result = function(*arguments, **keywords)
            self(f"after {what} of {kind}")
            return result

        return watched


def append(db: PointDB, first: int, count: int) -> None:
    for seed in range(first, first + count):
        say("begin", granule(seed).id)
        db.append([granule(seed, 60)])
        say("end", granule(seed).id)


def cut(number: int) -> Granule:
    """Return one of ten cuts of a granule, each with half of the points of the next one."""
    whole = granule(77, 200)
    points = whole.points.sort_values("x", ignore_index=True)[20 * number : 20 * number + 40]
    name = f"cut-{number}.nc"
    return replace(
        whole,
        name=name,
        checksum=f"{number + 1:064x}",
        points=points.reset_index(drop=True),
        record_count=len(points),
        dropped={},
    )


def cuts(db: PointDB, first: int, last: int) -> None:
    step = 1 if last > first else -1
    for number in range(first, last + step, step):
        say("begin", str(number))
        db.append([cut(number)])
        say("end", str(number))


def compact(db: PointDB, rounds: int) -> None:
    for _ in range(rounds):
        db.compact()
        say("end", str(db.snapshot))


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def main(what: str, path: str, kill: str, *numbers: int) -> None:
    db = PointDB(Path(path))
    stage, _, count = kill.rpartition(" ")
    Killer(path, stage, int(count)).watch()
    {"append": append, "cuts": cuts, "compact": compact}[what](db, *numbers)
