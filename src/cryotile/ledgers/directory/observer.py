"""Reading a directory ledger: what is claimed, what is settled, whose holders are gone; compacting settled units."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Iterator
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from cryotile.ledgers.directory.claims import GONE, Chain, Claim, create, read_claim, remove
from cryotile.ledgers.directory.layout import TaskList, Unit, look
from cryotile.processes import is_alive

__all__ = ["Observer"]

Settled = tuple[str, str | None]
"""Host that settled a task, empty if unknown, and the error if it failed for good."""

# Claims kept as read, to be read again only when they change.
_MOST_KNOWN = 10_000


class Observer:
    """One worker's view of a ledger.

    Parameters
    ----------
    lease : float
        Seconds without a change after which a claim without a first line counts as given up.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._known: dict[str, Claim] = {}
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def chain(self, unit: Unit) -> Chain | None:
        """Read all claims of a unit; return None if it is settled and compacted."""
        if os.path.exists(unit.done):
            return None
        return Chain(unit, list(self.claims(unit)))

    def claims(self, unit: Unit, first: int = 0) -> Iterator[Claim]:
        """Yield the claims of a unit from an epoch on."""
        # To forget costs another look at some files, to remember all of a large run costs memory.
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        epoch = first
        while (
            claim := read_claim(path := unit.claim(epoch), epoch, self._known.get(path))
        ) is not None:
            self._known[path] = claim
            yield claim
            epoch += 1

    def is_given_up(self, claim: Claim) -> bool:
        """Return whether the holder of a claim is gone, or has not changed it for the length of its lease.

        Changes are timed by this worker's own monotonic clock: no two clocks are compared.  So the first look at a
        claim starts its time, and each change that is seen starts it again.
        """
        # For processes of this machine the system knows, and nobody has to wait for a lease.
        if is_alive(claim.process) is False:
            return True
        now = time.monotonic()
        signature, since = self._seen.get(claim.path, (None, now))
        if signature != claim.signature:
            self._seen[claim.path] = (claim.signature, now)
            return False
        return now - since >= (claim.lease if claim.lines else self._lease)

    def open_tasks(self, tasks: TaskList) -> npt.NDArray[np.bool_]:
        """Return for each task of a list, by position, whether it is not settled."""
        is_open = np.ones(len(tasks), np.bool_)
        for number, entry in look(tasks.path).items():
            unit = Unit(tasks, number)
            chain = None if entry.done else self.chain(unit)
            if chain is None:
                is_open[unit.start : unit.start + unit.count] = False
            else:
                is_open[[unit.start + offset for offset in chain.settled]] = False
        return is_open

    def outcomes(self, tasks: TaskList, indices: Collection[int]) -> dict[str, dict[int, bool]]:
        """Return for every host that worked on a list how the given tasks ended there."""
        asked = {
            int(position): int(tasks.indices[position])
            for position in np.flatnonzero(np.isin(tasks.indices, list(indices)))
        }
        found: dict[str, dict[int, bool]] = {}
        for number, entry in look(tasks.path).items():
            unit = Unit(tasks, number)
            chain = None if entry.done else self.chain(unit)
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
        # The record of a unit that was cut short does not say who settled it.
        found.pop("", None)
        return found

    def compact(self, unit: Unit, epochs: Iterable[int] = ()) -> None:
        """Replace the claims of a settled unit by one file.

        Parameters
        ----------
        unit : Unit
            The unit; nothing is done if one of its tasks is open.
        epochs : iterable of int
            Claims to remove if the unit was compacted before, by a worker that died meanwhile.
        """
        chain = self.chain(unit)
        if chain is not None:
            if not chain.is_settled():
                return
            create(unit.done, _record(chain))
            epochs = range(chain.next_epoch)
        for epoch in epochs:
            remove(unit.claim(epoch))


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
        with open(unit.done, "rb") as file:
            record: _Record = json.loads(file.read())
    except ValueError:
        return {}
    except OSError as error:
        if error.errno in GONE:
            return {}
        raise
    return {
        offset: (host, record["failed"].get(str(offset)))
        for host, offsets in record["by"].items()
        for offset in offsets
    }
