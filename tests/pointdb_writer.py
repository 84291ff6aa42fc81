"""A process that appends made-up granules and can kill itself at its n-th touch of the file system.

Run as ``python pointdb_writer.py DB FIRST COUNT KILL_AT``; says ``begin <id>`` and ``end <id>`` around each append,
and ``touched <n>`` at the end.  KILL_AT 0 lets it live.
"""

from __future__ import annotations

import os
import signal
import sys

from cryotile.pointdb import PointDB
from made_up import granule

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def main(path: str, first: int, count: int, kill_at: int) -> None:
    touched = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal touched
        if event in EVENTS and path in str(arguments[0]):
            touched += 1
            if touched == kill_at:
                # SIGKILL: nothing is cleaned up, nothing flushed.
                os.kill(os.getpid(), signal.SIGKILL)

    db = PointDB(path)
    sys.addaudithook(watch)
    for seed in range(first, first + count):
        say("begin", granule(seed).id)
        db.append([granule(seed, 60)])
        say("end", granule(seed).id)
    say("touched", str(touched))


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
