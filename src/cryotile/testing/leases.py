"""Helpers of the contract of ledgers: task lists, endings of leases, and claims that wait for tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Protocol

from cryotile.farm.task import Task
from cryotile.ledgers import LEASE, Ending, Lease, Ledger

__all__ = [
    "DEADLINE",
    "SHORT",
    "TICK",
    "OpenLedger",
    "at",
    "await_claim",
    "await_tasks",
    "claim_all",
    "ended",
    "ids",
    "indices",
    "tasks_of",
]

SHORT = 0.5
"""Length in seconds of a lease that a test lets expire."""

DEADLINE = 60.0
"""Seconds for which a test waits before it fails."""

TICK = 0.02
"""Seconds after which the clock of every ledger has advanced; that of SQLite counts milliseconds."""


class OpenLedger(Protocol):
    """Opens the ledger under test as another worker."""

    def __call__(self, host: str = "here", key: str = "run/1", lease: float = LEASE) -> Ledger:
        """Open it on a host, for a task list, with a lease length (seconds)."""
        ...


def tasks_of(count: int) -> list[Task]:
    """Return tasks that are not ordered by cost, with indices that differ from their positions."""
    return [Task(2 * number + 5, float((number * 7919) % count)) for number in range(count)]


def ended(*leases: Lease, error: str | None = None) -> dict[str, Ending]:
    """Return the ending of an attempt for each of some leases, by lease id."""
    return {lease.id: Ending(0.1, error) for lease in leases}


def ids(*leases: Lease) -> set[str]:
    """Return the ids of leases."""
    return {lease.id for lease in leases}


def at(fraction: float | None, *leases: Lease) -> dict[str, float | None]:
    """Return the same fraction done for each of some leases, by lease id."""
    return dict.fromkeys((lease.id for lease in leases), fraction)


def claim_all(ledger: Ledger, n: int = 1) -> list[Lease]:
    """Claim ``n`` tasks at a time until nothing waits."""
    leases: list[Lease] = []
    while found := ledger.claim(n):
        leases += found
    return leases


def await_claim(ledger: Ledger) -> list[Lease]:
    """Claim repeatedly until a task waits."""
    end, pause = time.monotonic() + DEADLINE, threading.Event()
    while time.monotonic() < end:
        if leases := ledger.claim(100):
            return leases
        pause.wait(SHORT / 10)
    raise AssertionError(f"nothing to claim for {DEADLINE:g} s")


def await_tasks(ledger: Ledger, count: int) -> list[Lease]:
    """Claim until there are leases of ``count`` tasks; if one expires meanwhile, the new lease counts."""
    leases: dict[Task, Lease] = {}
    while len(leases) < count:
        leases |= {lease.task: lease for lease in await_claim(ledger)}
    return list(leases.values())


def indices(leases: Collection[Lease]) -> list[int]:
    """Return the task indices of leases."""
    return [lease.task.index for lease in leases]
