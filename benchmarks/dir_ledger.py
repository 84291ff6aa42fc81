"""What the directory ledger costs: empty tasks a second, and how soon a worker starts in a run that is nearly over.

Run ``python benchmarks/dir_ledger.py [--directory DIR]`` with a directory on the file system to be measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryotile.backends import open_backend
from cryotile.ledgers.dir import DirLedger
from cryotile.task import Outcome, Progress, Task

TASKS = 40_000
LONG_RUN = 400_000

WORKER = """
import sys
sys.path.insert(0, {here!r})
from dir_ledger import take_part
take_part({home!r}, {children})
"""


def do_nothing(task: Task, progress: Progress) -> None:  # noqa: ARG001 - there is nothing to do with it
    progress(1.0)


def make_tasks(count: int) -> list[Task]:
    return [Task(index, float(count - index)) for index in range(count)]


def take_part(home: str, children: int) -> None:
    """Work until the run is over, and print the first and the last moment at which a task ended, and how many did."""
    outcomes = open_backend(f"dir:{children}", home=Path(home), key="run/1").run(
        make_tasks(TASKS), do_nothing
    )
    ends = [time.monotonic() for outcome in outcomes if outcome.error is None]
    print(ends[0] if ends else 0.0, ends[-1] if ends else 0.0, len(ends))


def tasks_a_second(home: Path, processes: int, children: int) -> float:
    """Rate at which so many processes, with so many children each, do empty tasks together."""
    code = WORKER.format(here=str(Path(__file__).parent), home=str(home), children=children)
    workers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    told = [worker.communicate()[0].split() for worker in workers]
    counts = [int(count) for _, _, count in told]
    if sum(counts) != TASKS:
        raise RuntimeError(f"{sum(counts)} of {TASKS} tasks were done")
    first = min(float(first) for first, _, count in told if count != "0")
    last = max(float(last) for _, last, count in told if count != "0")
    return TASKS / (last - first)


def seconds_to_join(home: Path) -> float:
    """Seconds until a new worker holds a task, where 95 of 100 tasks are settled and some workers have died."""
    tasks = make_tasks(LONG_RUN)
    ledger = DirLedger(home, "run/1")
    ledger.enroll(tasks)
    settled = 0
    while settled < LONG_RUN * 95 // 100:
        leases = ledger.claim(256)
        ledger.settle({lease: Outcome(lease.task, 0.0, 1, "here") for lease in leases})
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--directory", type=Path, help="where to measure  [default: a temporary one]"
    )
    options = parser.parse_args()
    for processes, children in ((1, 8), (8, 1)):
        with tempfile.TemporaryDirectory(dir=options.directory) as home:
            rate = tasks_a_second(Path(home), processes, children)
            print(f"{processes} x dir:{children}: {rate:8.0f} empty tasks a second")
    with tempfile.TemporaryDirectory(dir=options.directory) as home:
        seconds = seconds_to_join(Path(home))
        print(f"a new worker, {LONG_RUN} tasks, 95 % settled: {seconds:.2f} s until it holds tasks")


if __name__ == "__main__":
    main()
