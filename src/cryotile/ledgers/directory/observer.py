"""Reading a directory ledger: claims, settled units and lost holders; compaction of settled units."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np
import numpy.typing as npt

from cryotile.ledgers.directory.claims import (
    GONE,
    Chain,
    Claim,
    create,
    read_claim,
    read_lines,
    remove,
)
from cryotile.ledgers.directory.layout import DONE, PublishedList, Unit
from cryotile.processes import is_alive

__all__ = ["Free", "LedgerObserver"]

Settled = tuple[str, str | None]
"""Host that settled a task, empty if unknown, and the error if it failed for good."""

# Claims kept as read, to be read again only when they change.
_MOST_KNOWN = 10_000


class LedgerObserver:
    """One worker's view of a ledger.

    Parameters
    ----------
    lease : float
        Seconds without a change after which a claim without a first line counts as given up.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._known: dict[str, Claim] = {}
        self._counts: dict[tuple[str, int], int] = {}
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def is_compacted(self, unit: Unit) -> bool:
        """Return whether a unit is settled and compacted."""
        return os.path.exists(unit.file(DONE))

    def chain(self, unit: Unit) -> Chain | None:
        """Read all claims of a unit; return None if it is settled and compacted."""
        if self.is_compacted(unit):
            return None
        return Chain(unit, [*self.claims(unit), *self.claims(unit, "r")])

    def claims(self, unit: Unit, kind: str = "", first: int = 0) -> Iterator[Claim]:
        """Yield the claims of one sequence of a unit, from a number on."""
        number = first
        while True:
            claim = self.read(unit, f"{kind}{number}")
            if claim is None:
                if kind or number >= self.count(unit):
                    return
                # It was made between the two looks, or it is lost and there is a later one.
                claim = self.read(unit, f"{number}")
            if claim is not None:
                yield claim
            number += 1

    def read(self, unit: Unit, name: str) -> Claim | None:
        """Read a claim by its name; return None if there is none."""
        # Reading a few files again costs less than the memory for all claims of a large run.
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        path = unit.file(name)
        claim = read_claim(path, name, self._known.get(path))
        if claim is not None:
            self._known[path] = claim
        return claim

    def count(self, unit: Unit) -> int:
        """Count the claims of tasks that were never claimed before, with few looks at the file system."""
        here = (unit.tasks.path, unit.number)
        low, step = self._counts.get(here, 0), 1
        while os.path.exists(unit.file(str(low + step - 1))):
            low, step = low + step, 2 * step
        # Between ``low`` claims and ``low + step`` there is the number.
        while step > 1:
            step //= 2
            if os.path.exists(unit.file(str(low + step - 1))):
                low += step
        if len(self._counts) > _MOST_KNOWN:
            self._counts.clear()
        self._counts[here] = low
        return low

    def is_given_up(self, claim: Claim) -> bool:
        """Return whether the holder of a claim is gone, or has not changed it for the length of its lease.

        Changes are timed by this worker's own monotonic clock: no two clocks are compared.  So the first look at a
        claim starts its time, and each change that is seen starts it again.
        """
        # The system knows the processes of this machine, so no worker waits for their leases.
        if is_alive(claim.process) is False:
            return True
        now = time.monotonic()
        signature, since = self._seen.get(claim.path, (None, now))
        if signature != claim.signature:
            self._seen[claim.path] = (claim.signature, now)
            return False
        return now - since >= (claim.lease if claim.lines else self._lease)

    def open_tasks(self, tasks: PublishedList) -> npt.NDArray[np.bool_]:
        """Return for each task of a list, by position, whether it is not settled."""
        is_open = np.ones(len(tasks), np.bool_)
        for number, names in tasks.look().items():
            unit = Unit(tasks, number)
            chain = None if DONE in names else self.chain(unit)
            if chain is None:
                is_open[unit.start : unit.start + unit.count] = False
            else:
                is_open[[unit.start + offset for offset in chain.settled]] = False
        return is_open

    def outcomes(
        self, tasks: PublishedList, indices: Collection[int]
    ) -> dict[str, dict[int, bool]]:
        """Return for every host that worked on a list how the given tasks ended there."""
        asked = {
            int(position): int(tasks.indices[position])
            for position in np.flatnonzero(np.isin(tasks.indices, list(indices)))
        }
        found: dict[str, dict[int, bool]] = {}
        for number, names in tasks.look().items():
            unit = Unit(tasks, number)
            chain = None if DONE in names else self.chain(unit)
            for claim in chain.claims if chain is not None else ():
                found.setdefault(claim.host, {})
            for offset, host in chain.failures.items() if chain is not None else ():
                if (index := asked.get(unit.start + offset)) is not None:
                    found.setdefault(host, {})[index] = False
            settled = _read_record(unit) if chain is None else chain.settled
            for offset, (host, error) in settled.items():
                ended = found.setdefault(host, {})
                if (index := asked.get(unit.start + offset)) is not None:
                    ended[index] = error is None
        # A record that was cut short does not name the hosts that settled its tasks.
        found.pop("", None)
        return found

    def compact(self, unit: Unit, claims: Iterable[str] = ()) -> None:
        """Replace the claims of a settled unit by one file.

        Parameters
        ----------
        unit : Unit
            The unit; nothing is done if one of its tasks is open.
        claims : iterable of str
            Claims to remove if the unit was compacted before, by a worker that died meanwhile.
        """
        newest = self.read(unit, str(self.count(unit) - 1))
        if newest is not None and newest.lines:
            # It was made last, so most likely it holds a task, unless others have taken over.
            first = newest.lines[0]
            if first["next"] < unit.count or first["skipped"]:
                return
            if _is_unfinished(newest) and self.read(unit, "r0") is None:
                return
        chain = self.chain(unit)
        if chain is not None:
            if len(chain.settled) < unit.count:
                return
            create(unit.file(DONE), _record(chain))
            claims = chain.names
        for name in claims:
            remove(unit.file(name))

    def free(self, unit: Unit, *, again: bool) -> Free | None:
        """Find the tasks of a unit that were never claimed; return None if the newest claim says nothing yet.

        Parameters
        ----------
        unit : Unit
            The unit.
        again : bool
            Whether a claim that says nothing is ignored when it was given up.
        """
        number = self.count(unit)
        gone: list[str] = []
        for earlier in reversed(range(number)):
            claim = self.read(unit, str(earlier))
            if claim is None:
                # The unit was compacted meanwhile, or a full disk prevented the claim.
                self._counts.clear()
                return None
            if claim.lines:
                return _free(unit, str(number), claim.lines[0], gone)
            if not again or not self.is_given_up(claim):
                return None
            gone.append(claim.name)
        return _free(unit, str(number), {"next": 0, "skipped": ()}, gone)


class Free(NamedTuple):
    """The tasks of a unit that were never claimed.

    Attributes
    ----------
    name : str
        Name of the next claim of such tasks.
    offsets : list of int
        Their offsets.
    next : int
        Offset after which no task was claimed.
    gone : list of str
        Earlier claims that were given up before they said anything.
    """

    name: str
    offsets: list[int]
    next: int
    gone: list[str]


def _free(unit: Unit, name: str, newest: Mapping[str, Any], gone: list[str]) -> Free:
    next = newest["next"]
    return Free(name, [*newest["skipped"], *range(next, unit.count)], next, gone)


def _is_unfinished(claim: Claim) -> bool:
    """Return whether a claim with lines holds a task, as far as it says itself."""
    ended: set[int] = set()
    for line in claim.lines[1:]:
        ended.update(
            line.get("done", ()), map(int, line.get("failed", ())), line.get("released", ())
        )
    return len(ended) < len(claim.lines[0]["tasks"])


class _Record(TypedDict):
    """The content of a compacted unit: the offsets that each host settled, and the errors of those that failed."""

    by: dict[str, list[int]]
    failed: dict[str, str]


def _record(chain: Chain) -> dict[str, object]:
    by: dict[str, list[int]] = {}
    for offset, (host, _) in chain.settled.items():
        by.setdefault(host, []).append(offset)
    failed = {o: error for o, (_, error) in chain.settled.items() if error is not None}
    return {"by": by, "failed": failed}


def _read_record(unit: Unit) -> dict[int, Settled]:
    """Return the settled tasks of a compacted unit; of a record that was cut short nothing is known."""
    try:
        with open(unit.file(DONE), "rb") as file:
            lines = read_lines(unit.file(DONE), file.read())
    except OSError as error:
        if error.errno in GONE:
            return {}
        raise
    if not lines:
        return {}
    record = cast(_Record, lines[0])
    return {
        offset: (host, record["failed"].get(str(offset)))
        for host, offsets in record["by"].items()
        for offset in offsets
    }
