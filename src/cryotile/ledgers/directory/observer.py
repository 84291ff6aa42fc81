"""Reading a directory ledger: what was claimed, what is settled, and whose holders are gone."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from cryotile.ledgers.directory.claims import GONE, Chain, Claim, read_claim
from cryotile.ledgers.directory.layout import DONE, Node, TaskList, Trace, look
from cryotile.processes import is_alive

__all__ = ["Survey"]

Settled = tuple[str, str | None]
"""Host that settled a task, empty when unknown, and the error if it failed for good."""

# Claims kept as read, to be read again only when they change.
_MOST_KNOWN = 10_000


class Survey:
    """One observer's view of a ledger.

    Parameters
    ----------
    lease : float
        Seconds without a change after which a claim that does not say its own is taken as given up.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._known: dict[str, Claim] = {}
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def chain(self, node: Node, epochs: Sequence[int]) -> Chain:
        """Read all claims of a node, and what state they leave it in."""
        return Chain(node, self.claims(node, epochs))

    def claims(self, node: Node, epochs: Sequence[int]) -> list[Claim]:
        """Read claims of a node by their numbers; those that are gone are left out."""
        # To forget costs another look at some files, to remember all of a large run costs memory.
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        claims = []
        for epoch in epochs:
            path = f"{node.path}.{epoch}" if epoch else node.path
            claim = read_claim(path, epoch, self._known.get(path))
            if claim is not None:
                self._known[path] = claim
                claims.append(claim)
        return claims

    def is_given_up(self, claim: Claim) -> bool:
        """Tell whether the holder of a claim is gone, or has not touched it for the length of its lease.

        Only changes are looked for, by this observer's own monotonic clock: no two clocks are compared.  So the
        first look at a claim starts its time, and a claim that changes starts it again.
        """
        # Of this machine's processes the system knows, and nobody need wait for a lease.
        if is_alive(claim.process) is False:
            return True
        now = time.monotonic()
        signature, since = self._seen.get(claim.path, (None, now))
        if signature != claim.signature:
            self._seen[claim.path] = (claim.signature, now)
            return False
        return now - since >= (claim.lease if claim.lines else self._lease)

    def leaves(self, node: Node, trace: Trace) -> Iterator[tuple[Node, Trace]]:
        """Give the nodes that a node consists of and that are claimed or settled, in their order."""
        if trace.done or trace.epochs:
            yield node, trace
        elif trace.split:
            traces = look(node.path)
            for child in node.children():
                if child.name in traces:
                    yield from self.leaves(child, traces[child.name])

    def all_leaves(self, tasks: TaskList) -> Iterator[tuple[Node, Trace]]:
        """Give the nodes of a list that are claimed or settled, in their order."""
        traces = look(tasks.path)
        for bucket in tasks.all_buckets():
            if bucket.name in traces:
                yield from self.leaves(bucket, traces[bucket.name])

    def settled(self, node: Node, trace: Trace) -> dict[int, Settled]:
        """Return the settled tasks of a node that is claimed or settled, by position."""
        if not trace.done:
            chain = self.chain(node, trace.epochs)
            return {node.start + offset: how for offset, how in chain.settled.items()}
        record = _read_record(node)
        hosts = {o: host for host, offsets in record["by"].items() for o in offsets}
        return {
            node.start + offset: (hosts.get(offset, ""), record["failed"].get(str(offset)))
            for offset in range(node.count)
        }

    def open_tasks(self, tasks: TaskList) -> npt.NDArray[np.bool_]:
        """Tell which tasks of a list are not settled, by position."""
        is_open = np.ones(len(tasks), np.bool_)
        for node, trace in self.all_leaves(tasks):
            if trace.done:
                is_open[node.start : node.start + node.count] = False
            else:
                is_open[list(self.settled(node, trace))] = False
        return is_open

    def outcomes_elsewhere(
        self, tasks: TaskList, indices: Collection[int]
    ) -> dict[str, dict[int, bool]]:
        """Tell, for every host that worked on a list, how the given tasks ended there."""
        asked = {
            int(position): int(tasks.indices[position])
            for position in np.flatnonzero(np.isin(tasks.indices, list(indices)))
        }
        found: dict[str, dict[int, bool]] = {}
        for node, trace in self.all_leaves(tasks):
            if not trace.done:
                chain = self.chain(node, trace.epochs)
                for claim in chain.claims:
                    found.setdefault(claim.host, {})
                for offset, host in chain.failures.items():
                    if (index := asked.get(node.start + offset)) is not None:
                        found.setdefault(host, {})[index] = False
            for position, (host, error) in self.settled(node, trace).items():
                ended = found.setdefault(host, {})
                if position in asked:
                    ended[asked[position]] = error is None
        # Records that were cut short do not say whose work it was.
        found.pop("", None)
        return found


class _Record(TypedDict):
    """What a settled node leaves behind: the offsets that each host settled, and the errors of those that failed."""

    by: dict[str, list[int]]
    failed: dict[str, str]


def _read_record(node: Node) -> _Record:
    """Read the record of a settled node; of one that was cut short only is known that it is settled."""
    empty: _Record = {"by": {}, "failed": {}}
    try:
        with open(node.path + DONE, "rb") as file:
            record: _Record = json.loads(file.read())
            return record
    except ValueError:
        return empty
    except OSError as error:
        if error.errno in GONE:
            return empty
        raise
