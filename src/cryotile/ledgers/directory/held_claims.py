"""The claims and leases that this process holds in a directory ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cryotile.ledgers.base import Lease
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
    name : str
        Its name in the unit.
    next_returned : int
        Number of the first claim of returned tasks that is not known yet and may take tasks of this one.
    taken : set of int
        Offsets of the tasks that later claims have taken.
    confirmed : bool
        Whether the next claim of the same sequence is known, and does not take this one as given up.
    """

    unit: Unit
    path: str
    held: set[int]
    started: set[int]
    name: str
    next_returned: int
    taken: set[int] = field(default_factory=set)
    confirmed: bool = False


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
        name: str,
        tasks: Sequence[int],
        charges: Mapping[int, int],
        expiry: float,
    ) -> list[Lease]:
        """Add a new claim; return its leases."""
        returned = name.startswith("r")
        claim = HeldClaim(
            unit, unit.claim(name), set(tasks), set(), name,
            next_returned=int(name[1:]) + 1 if returned else 0,
            confirmed=returned,
        )  # fmt: skip
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
        for later in self._observer.claims(claim.unit, "r", claim.next_returned):
            # A claim without its first line may still cover tasks, so it is looked at again.
            known &= bool(later.lines)
            if later.lines:
                first = later.lines[0]
                claim.taken.update(claim.held if claim.name in first["gone"] else first["tasks"])
            if known:
                claim.next_returned += 1
        if not claim.confirmed:
            self._confirm(claim)
        return self.lose(claim, {o: lease for o, lease in leases.items() if o in claim.taken})

    def _confirm(self, claim: HeldClaim) -> None:
        """Look whether the next claim of the same sequence takes a claim as given up before it had said anything."""
        for later in self._observer.claims(claim.unit, "", int(claim.name) + 1):
            if later.lines:
                claim.confirmed = True
                if claim.name in later.lines[0]["gone"]:
                    claim.taken.update(claim.held)
                return

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
