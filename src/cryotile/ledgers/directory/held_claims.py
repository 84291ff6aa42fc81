"""The claims and leases that this process holds in a directory ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cryotile.ledgers.base import Lease
from cryotile.ledgers.directory.claims import covered
from cryotile.ledgers.directory.layout import Unit
from cryotile.ledgers.directory.observer import Observer

__all__ = ["HeldClaim", "HeldClaims"]


@dataclass(eq=False, slots=True)
class HeldClaim:
    """A claim of this process.

    Attributes
    ----------
    unit : Unit
        Its unit.
    path : str
        Its file.
    held : set of int
        Offsets of the tasks whose leases have not ended.
    started : set of int
        Offsets of the tasks that were reported as running.
    next_epoch : int
        Number of the first later claim whose tasks are not known yet.
    taken : set of int
        Offsets of the tasks that later claims cover.
    """

    unit: Unit
    path: str
    held: set[int]
    started: set[int]
    next_epoch: int
    taken: set[int] = field(default_factory=set)


class HeldClaims:
    """The claims that this process holds, and the leases that it has lost.

    Parameters
    ----------
    observer : Observer
        Reads what others have claimed.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._leases: dict[str, tuple[HeldClaim, int]] = {}
        self._claims: dict[str, HeldClaim] = {}
        self._lost: set[str] = set()

    def __contains__(self, path: str) -> bool:
        """Return whether this process holds a claim."""
        return path in self._claims

    def add(
        self,
        unit: Unit,
        epoch: int,
        tasks: Collection[int],
        charges: Mapping[int, int],
        expiry: float,
    ) -> list[Lease]:
        """Add a new claim; return its leases."""
        claim = HeldClaim(unit, unit.claim(epoch), set(tasks), set(), epoch + 1)
        self._claims[claim.path] = claim
        leases = []
        for offset in tasks:
            # Another list has units of the same numbers.
            id = f"{claim.path[len(unit.tasks.path) - 4 :]}+{offset}"
            leases.append(Lease(unit.task(offset), id, charges.get(offset, 0) + 1, expiry))
            self._leases[id] = (claim, offset)
        return leases

    def find_lost(self, claim: HeldClaim, leases: Mapping[int, str]) -> set[str]:
        """Find which leases of a claim others have taken over, and forget them."""
        known = True
        for later in self._observer.claims(claim.unit, claim.next_epoch):
            # A claim without its first line may still cover tasks, so it is looked at again.
            known &= bool(later.lines)
            if later.lines:
                claim.taken.update(covered(later, claim.unit))
            if known:
                claim.next_epoch = later.epoch + 1
        return self.lose(claim, {o: lease for o, lease in leases.items() if o in claim.taken})

    def lose(self, claim: HeldClaim, leases: Mapping[int, str]) -> set[str]:
        """Remember leases as lost, and forget them otherwise."""
        self._lost.update(leases.values())
        self.let_go(claim, leases)
        return set(leases.values())

    def by_claim(self, leases: Iterable[str]) -> dict[HeldClaim, dict[int, str]]:
        """Group the leases that this process still holds by claim, each by offset."""
        groups: dict[HeldClaim, dict[int, str]] = {}
        for lease in leases:
            if lease in self._leases:
                claim, offset = self._leases[lease]
                groups.setdefault(claim, {})[offset] = lease
        return groups

    def let_go(self, claim: HeldClaim, leases: Mapping[int, str]) -> None:
        """Forget leases that have ended."""
        for offset, lease in leases.items():
            self._leases.pop(lease, None)
            claim.held.discard(offset)
        if not claim.held:
            self._claims.pop(claim.path, None)

    def lost(self, leases: Iterable[str]) -> set[str]:
        """Return those of some leases that were found to be lost."""
        return self._lost.intersection(leases)
