"""The claims and leases of this process in a directory ledger."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryotile.ledgers.base import Lease
from cryotile.ledgers.directory.layout import Node, see
from cryotile.ledgers.directory.observer import Survey

__all__ = ["Holding", "Holdings"]


@dataclass(eq=False, slots=True)
class Holding:
    """A claim of this process.

    Attributes
    ----------
    node : Node
        The node.
    epoch : int
        Number of the claim.
    path : str
        Its file.
    held : set of int
        Offsets of the tasks whose leases have not ended.
    started : set of int
        Offsets of the tasks that were reported to run.
    revocable : bool
        Whether the file says nothing that would be lost with it, so that the claim can be taken back altogether.
    """

    node: Node
    epoch: int
    path: str
    held: set[int]
    started: set[int]
    revocable: bool


class Holdings:
    """What this process holds, and what it has lost.

    Parameters
    ----------
    survey : Survey
        Reads what others have claimed.
    """

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._leases: dict[str, tuple[Holding, int]] = {}
        self._claims: dict[str, Holding] = {}
        self._lost: set[str] = set()

    def __contains__(self, path: str) -> bool:
        """Tell whether a claim is held by this process."""
        return path in self._claims

    def add(self, holding: Holding, charges: Mapping[int, int], expiry: float) -> list[Lease]:
        """Make the leases of a new claim."""
        self._claims[holding.path] = holding
        # The same claim may be taken back and made again.
        name = f"{holding.node.word}.{holding.epoch}@{secrets.token_hex(4)}"
        leases = []
        for offset in sorted(holding.held):
            task = holding.node.tasks.task(holding.node.start + offset)
            lease = Lease(task, f"{name}+{offset}", charges.get(offset, 0) + 1, expiry)
            self._leases[lease.id] = (holding, offset)
            leases.append(lease)
        return leases

    def find_lost(self, holding: Holding, leases: Mapping[int, str]) -> set[str]:
        """Find which leases of a claim others have taken over; they are forgotten."""
        # Nearly always there is no later claim.
        if not os.path.exists(f"{holding.node.path}.{holding.epoch + 1}"):
            return set()
        epochs = [epoch for epoch in see(holding.node).epochs if epoch > holding.epoch]
        later = self._survey.claims(holding.node, epochs)
        taken = {offset for claim in later if claim.lines for offset in claim.lines[0]["tasks"]}
        return self.lose(holding, {o: lease for o, lease in leases.items() if o in taken})

    def lose(self, holding: Holding, leases: Mapping[int, str]) -> set[str]:
        """Forget leases that are lost, but for that."""
        self._lost.update(leases.values())
        self.let_go(holding, leases)
        return set(leases.values())

    def by_claim(self, leases: Iterable[str]) -> dict[Holding, dict[int, str]]:
        """Sort the leases that this process still holds by their claims, each by offset."""
        sorted_leases: dict[Holding, dict[int, str]] = {}
        for lease in leases:
            if lease in self._leases:
                holding, offset = self._leases[lease]
                sorted_leases.setdefault(holding, {})[offset] = lease
        return sorted_leases

    def let_go(self, holding: Holding, leases: Mapping[int, str]) -> None:
        """Forget leases that have ended."""
        for offset, lease in leases.items():
            self._leases.pop(lease, None)
            holding.held.discard(offset)
        if not holding.held:
            self._claims.pop(holding.path, None)

    def lost(self, leases: Iterable[str]) -> set[str]:
        """Return those of some leases that were found to be lost."""
        return self._lost.intersection(leases)
