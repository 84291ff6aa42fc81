"""What the MPI farm costs: empty tasks a second beside mpi4py's own executor, and rank 0's time with 1000 workers.

Both need MPI and mpi4py; three ranks are enough::

    mpirun -n 3 python benchmarks/mpi.py empty
    mpirun -n 3 python benchmarks/mpi.py farmer

The first runs the whole farm, with children that do nothing.  In the second, ranks 1 and up play a thousand workers
whose tasks take ten seconds on average; every message of a real worker is sent, only the children are missing.
"""

from __future__ import annotations

import argparse
import heapq
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator

from mpi4py import MPI
from mpi4py.futures import MPICommExecutor

from cryotile.backends.base import Agenda
from cryotile.backends.mpi import MPIBackend, letters
from cryotile.backends.mpi.farmer import Farmer
from cryotile.backends.mpi.worker import BEAT
from cryotile.backends.shift import Shift
from cryotile.task import Progress, Task

WORLD = MPI.COMM_WORLD

# Message tags number the workers that a rank plays.
FIRST_TAG = 100
END_TAG = 99

MEAN_SECONDS = 10.0


def do_nothing(task: Task, progress: Progress) -> None:  # noqa: ARG001 - there is nothing to do with it
    progress(1.0)


def submitted(index: int) -> int:
    return index


def time_farm(count: int) -> float:
    """Seconds from the first to the last outcome; 0 on ranks other than 0."""
    outcomes = MPIBackend().run([Task(index, 1.0) for index in range(count)], do_nothing)
    if next(outcomes, None) is None:
        return 0.0
    start = time.perf_counter()
    done = 1 + sum(outcome.error is None for outcome in outcomes)
    if done != count:
        raise RuntimeError(f"{count - done} of {count} empty tasks failed")
    return time.perf_counter() - start


def time_executor(count: int) -> float:
    """Seconds from the first submission to the last result; 0 on ranks other than 0."""
    with MPICommExecutor(WORLD, root=0) as executor:
        if executor is None:
            return 0.0
        list(executor.map(submitted, range(10)))
        start = time.perf_counter()
        for future in [executor.submit(submitted, index) for index in range(count)]:
            future.result()
        return time.perf_counter() - start


def compare_empty(rounds: int) -> None:
    """Print tasks a second of both, the rounds alternating, so that a busy machine slows both alike."""
    rates: dict[str, list[float]] = {"cryotile": [], "MPICommExecutor": []}
    competitors: dict[str, tuple[Callable[[int], float], int]] = {
        "cryotile": (time_farm, 100_000),
        "MPICommExecutor": (time_executor, 5_000),
    }
    for _ in range(rounds):
        for name, (measure, count) in competitors.items():
            if seconds := measure(count):
                rates[name].append(count / seconds)
    if WORLD.rank == 0:
        medians = {name: statistics.median(found) for name, found in rates.items()}
        for name, rate in medians.items():
            print(f"{name:16} {rate:9.0f} empty tasks a second, {WORLD.size - 1} workers")
        print(f"{'ratio':16} {medians['cryotile'] / medians['MPICommExecutor']:9.1f}")


class PlayedLine:
    """Rank 0's line to workers of which each rank plays many: worker = slot · size + rank."""

    def __init__(self) -> None:
        self._status = MPI.Status()
        self._buffer = memoryview(bytearray(1 << 16))
        self.messages = 0

    def send(self, worker: int, message: bytes) -> None:
        slot, rank = divmod(worker, WORLD.size)
        self.messages += 1
        WORLD.Send((message, MPI.BYTE), rank, FIRST_TAG + slot)

    def receive(self) -> tuple[int, bytes] | None:
        if not WORLD.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, self._status):
            return None
        source, tag, size = self._status.source, self._status.tag, self._status.count
        WORLD.Recv((self._buffer, size, MPI.BYTE), source, tag)
        self.messages += 1
        return (tag - FIRST_TAG) * WORLD.size + source, bytes(self._buffer[:size])

    def failed(self) -> set[int]:
        return set()

    def write_off(self, rank: int) -> None: ...

    def flush(self) -> None: ...


def play_workers(slots: int) -> None:
    """Be many workers until rank 0 ends it."""
    rng = random.Random(WORLD.rank)
    status, buffer = MPI.Status(), memoryview(bytearray(1 << 16))
    events: list[tuple[float, int, bytes]] = []
    now = time.monotonic()
    free = [now] * slots
    for slot in range(slots):
        say(slot, letters.report(letters.HELLO, text=f"node{slot // 50}-{WORLD.rank}"))
        heapq.heappush(events, (now + rng.uniform(0, BEAT), slot, b""))
    while True:
        while WORLD.Iprobe(0, MPI.ANY_TAG, status):
            if status.tag == END_TAG:
                WORLD.Recv((buffer, 0, MPI.BYTE), 0, END_TAG)
                return
            WORLD.Recv((buffer, status.count, MPI.BYTE), 0, status.tag)
            order = bytes(buffer[: status.count])
            if order[:1] == letters.DO:
                slot = status.tag - FIRST_TAG
                for task in letters.tasks_in(order):
                    seconds = rng.expovariate(1.0 / MEAN_SECONDS)
                    free[slot] = max(free[slot], time.monotonic()) + seconds
                    done = letters.report(letters.DONE, task.index, seconds)
                    heapq.heappush(events, (free[slot], slot, done))
        now = time.monotonic()
        while events[0][0] <= now:
            _, slot, message = heapq.heappop(events)
            say(slot, message or letters.report(letters.PROGRESS, -1, 0.5))
            if not message:
                heapq.heappush(events, (now + BEAT, slot, b""))
        time.sleep(0.002)


def say(slot: int, message: bytes) -> None:
    WORLD.Send((message, MPI.BYTE), 0, FIRST_TAG + slot)


def watch_farmer(workers: int, tasks: int, seconds: float) -> None:
    """Print the share of a core that rank 0 takes."""
    slots = workers // (WORLD.size - 1)
    if WORLD.rank:
        play_workers(slots)
        return
    line = PlayedLine()
    seats = [slot * WORLD.size + rank for slot in range(slots) for rank in range(1, WORLD.size)]
    agenda = Agenda([Task(index, float(tasks - index)) for index in range(tasks)])
    with Shift() as shift:
        done = 0
        for elapsed, share, done in measured(
            Farmer(line, seats, agenda, shift).outcomes(), seconds
        ):
            print(
                f"{elapsed:5.1f} s: {len(seats)} workers, {done / elapsed:6.1f} tasks a second, rank 0 took "
                f"{100 * share:.1f} % of a core, {line.messages} messages",
                flush=True,
            )
    for rank in range(1, WORLD.size):
        WORLD.Send((b"", MPI.BYTE), rank, END_TAG)


def measured(outcomes: Iterator[object], seconds: float) -> Iterator[tuple[float, float, int]]:
    """Count outcomes for some time: seconds, share of a core and outcomes since the first tasks were handed out."""
    next(outcomes)
    start, cpu, said = time.monotonic(), spent(), 0.0
    for done, _ in enumerate(outcomes, 1):
        elapsed = time.monotonic() - start
        if elapsed >= said + seconds / 5:
            said = elapsed
            yield elapsed, (spent() - cpu) / elapsed, done
        if elapsed >= seconds:
            return


def spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["empty", "farmer"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    if arguments.what == "empty":
        compare_empty(arguments.rounds)
    else:
        watch_farmer(arguments.workers, arguments.tasks, arguments.seconds)


if __name__ == "__main__":
    main()
