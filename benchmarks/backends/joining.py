"""Measure how soon a new worker of the backend ``dir`` holds tasks in a long run that is nearly over.

Run it by itself as ``python benchmarks/backends/joining.py [DIRECTORY]``, on the file system to measure.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from cryotile.farm.task import Task
from cryotile.ledgers import Ending
from cryotile.ledgers.directory.ledger import DirLedger

__all__ = ["seconds_to_join"]

TASKS = 400_000


def seconds_to_join(home: Path) -> float:
    """Return the seconds until a new worker holds a task, if 95 % of the tasks are settled and some workers died."""
    tasks = [Task(index, float(TASKS - index)) for index in range(TASKS)]
    ledger = DirLedger(home, "run/1")
    ledger.enroll(tasks)
    settled = 0
    while settled < TASKS * 95 // 100:
        leases = ledger.claim(256)
        ledger.settle({lease.id: Ending(0.0) for lease in leases})
        settled += len(leases)
    ledger.claim(256)
    for _ in range(50):
        ledger.claim(1)
    start = time.perf_counter()
    joining = DirLedger(home, "run/1")
    joining.enroll(tasks[settled:])
    if not joining.claim(8):
        raise RuntimeError("the new worker got no task")
    return time.perf_counter() - start


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        print(f"{seconds_to_join(Path(directory)):.2f} s")
