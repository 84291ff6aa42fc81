"""Empty tasks a second: what a backend costs when the work costs nothing.

Run ``python benchmarks/backends.py``.  The rounds of all competitors alternate, so that a busy machine slows
all alike; the medians and their ratios count, not the single figures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from cryotile.backends import open_backend
from cryotile.journal import Journaled
from cryotile.task import Progress, Task

WORKERS = 2


def do_nothing(task: Task, progress: Progress) -> None:  # noqa: ARG001 - there is nothing to do with it
    progress(1.0)


def submitted(index: int) -> int:
    return index


def time_backend(spec: str, count: int) -> float:
    """Seconds from the first to the last outcome, journal on, so that starting the children does not count."""
    tasks = [Task(index, 1.0) for index in range(count)]
    with tempfile.TemporaryDirectory() as journal:
        work = Journaled(do_nothing, Path(journal))
        outcomes = open_backend(spec, home=None, key="benchmark").run(tasks, work)
        next(outcomes)
        start = time.perf_counter()
        done = 1 + sum(outcome.error is None for outcome in outcomes)
        seconds = time.perf_counter() - start
    if done != count:
        raise RuntimeError(f"{spec}: {count - done} of {count} empty tasks failed")
    return seconds


def time_executor(count: int) -> float:
    """Seconds from the first submission to the last result, with the processes started before."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=context) as executor:
        list(executor.map(submitted, range(2 * WORKERS)))
        start = time.perf_counter()
        for future in as_completed([executor.submit(submitted, index) for index in range(count)]):
            future.result()
        return time.perf_counter() - start


COMPETITORS: dict[str, Callable[[int], float]] = {
    "serial": lambda count: time_backend("serial", count),
    f"local:{WORKERS}": lambda count: time_backend(f"local:{WORKERS}", count),
    f"ProcessPoolExecutor({WORKERS}).submit": time_executor,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in COMPETITORS}
    for _ in range(options.rounds):
        for name, measure in COMPETITORS.items():
            rates[name].append(options.tasks / measure(options.tasks))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    *_, reference = medians.values()
    print(f"{'backend':32}{'tasks/s':>12}{'ratio':>8}")
    for name, median in medians.items():
        print(f"{name:32}{median:12.0f}{median / reference:8.1f}")


if __name__ == "__main__":
    main()
