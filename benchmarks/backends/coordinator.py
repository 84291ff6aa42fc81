"""Measure the load of rank 0 of an MPI farm with a thousand simulated workers, whose tasks take ten seconds on average.

Run it by itself as ``mpirun -n 3 python benchmarks/backends/coordinator.py``.  Ranks 1 and up simulate the workers;
they send every message of a real worker and only lack the children.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import resource
import time
from collections.abc import Iterator

from mpi4py import MPI

from cryotile.backends.base import TaskQueue
from cryotile.backends.deadline import Deadline
from cryotile.backends.mpi import messages
from cryotile.backends.mpi.coordinator import Coordinator
from cryotile.backends.mpi.worker import BEAT
from cryotile.farm.task import Task

WORLD = MPI.COMM_WORLD

# Message tags number the workers that a rank simulates.
FIRST_TAG = 100
END_TAG = 99

MEAN_SECONDS = 10.0


class PlayedLine:
    """Rank 0's line to workers, of which each rank simulates many: worker = slot · size + rank."""

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

    def close(self) -> None:
        """Stop the other ranks and receive all their messages: MPI must not be finalised while any is on its way."""
        for rank in range(1, WORLD.size):
            WORLD.Send((b"", MPI.BYTE), rank, END_TAG)
        playing = WORLD.size - 1
        while playing:
            WORLD.Recv(self._buffer, MPI.ANY_SOURCE, MPI.ANY_TAG, self._status)
            playing -= self._status.tag == END_TAG


def play_workers(slots: int) -> None:
    """Simulate many workers until rank 0 stops it."""
    rng = random.Random(WORLD.rank)
    status, buffer = MPI.Status(), memoryview(bytearray(1 << 16))
    events: list[tuple[float, int, bytes]] = []
    now = time.monotonic()
    free = [now] * slots
    for slot in range(slots):
        say(slot, messages.report(messages.HELLO, text=f"node{slot // 50}-{WORLD.rank}"))
        heapq.heappush(events, (now + rng.uniform(0, BEAT), slot, b""))
    while True:
        while WORLD.Iprobe(0, MPI.ANY_TAG, status):
            if status.tag == END_TAG:
                WORLD.Recv((buffer, 0, MPI.BYTE), 0, END_TAG)
                WORLD.Send((b"", MPI.BYTE), 0, END_TAG)
                return
            WORLD.Recv((buffer, status.count, MPI.BYTE), 0, status.tag)
            order = bytes(buffer[: status.count])
            if order[:1] == messages.DO:
                slot = status.tag - FIRST_TAG
                for task in messages.tasks_in(order):
                    seconds = rng.expovariate(1.0 / MEAN_SECONDS)
                    free[slot] = max(free[slot], time.monotonic()) + seconds
                    done = messages.report(messages.DONE, task.index, seconds)
                    heapq.heappush(events, (free[slot], slot, done))
        now = time.monotonic()
        while events[0][0] <= now:
            _, slot, message = heapq.heappop(events)
            say(slot, message or messages.report(messages.PROGRESS, -1, 0.5))
            if not message:
                heapq.heappush(events, (now + BEAT, slot, b""))
        time.sleep(0.002)


def say(slot: int, message: bytes) -> None:
    WORLD.Send((message, MPI.BYTE), 0, FIRST_TAG + slot)


def watch_coordinator(workers: int, tasks: int, seconds: float) -> None:
    """Print, as JSON, the share of a core that rank 0 uses when all workers are busy."""
    slots = workers // (WORLD.size - 1)
    if WORLD.rank:
        play_workers(slots)
        return
    line = PlayedLine()
    seats = [slot * WORLD.size + rank for slot in range(slots) for rank in range(1, WORLD.size)]
    task_queue = TaskQueue([Task(index, float(tasks - index)) for index in range(tasks)])
    with Deadline() as deadline:
        share, rate = watched(Coordinator(line, seats, task_queue, deadline).outcomes(), seconds)
    print(
        json.dumps(
            {"workers": len(seats), "share": share, "rate": rate, "messages": line.messages}
        ),
        flush=True,
    )
    line.close()


def watched(outcomes: Iterator[object], seconds: float) -> tuple[float, float]:
    """Return the share of a core and the outcomes per second from the first outcome on."""
    next(outcomes)
    start, cpu = time.monotonic(), spent()
    for done, _ in enumerate(outcomes, 1):
        elapsed = time.monotonic() - start
        if elapsed >= seconds:
            return (spent() - cpu) / elapsed, done / elapsed
    raise RuntimeError("the tasks ended too early; use more of them (--tasks)")


def spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    watch_coordinator(options.workers, options.tasks, options.seconds)


if __name__ == "__main__":
    main()
