"""Claiming in a directory ledger: the order of units, the takeover of tasks, and the claims held."""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryotile.ledgers.base import Fits, Lease
from cryotile.ledgers.directory.claims import Chain, create, remove
from cryotile.ledgers.directory.layout import DONE, PublishedList, Unit, names, open_list
from cryotile.ledgers.directory.observer import LedgerObserver
from cryotile.processes import this_process

__all__ = ["Claimant", "HeldClaim", "HeldClaims"]

# If several workers try to claim from the same unit, each continues at a random one of this many units that follow.
_SPREAD = 16


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
    observer : LedgerObserver
        Reads what others have claimed.
    """

    def __init__(self, observer: LedgerObserver) -> None:
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
            unit, unit.file(name), set(tasks), set(), name,
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


class _Basket:
    """Leases gathered so far, and room for more."""

    def __init__(self, size: int, fits: Fits | None) -> None:
        self.leases: list[Lease] = []
        self._size = size
        self._fits = fits

    @property
    def room(self) -> int:
        return self._size - len(self.leases)

    def accepts(self, unit: Unit, offset: int) -> bool:
        """Return whether a task of a unit fits."""
        return self._fits is None or self._fits(unit.task(offset))


class Claimant:
    """Finds tasks to claim, and claims them.

    Parameters
    ----------
    root : str
        Directory of all lists.
    observer : LedgerObserver
        Reads what others have claimed.
    held : HeldClaims
        Keeps what this process claims.
    lease : float
        Seconds for which a lease is valid.
    host : str
        Name of this host.

    Attributes
    ----------
    lists : list of PublishedList
        The lists, as far as they are known.
    """

    def __init__(
        self, root: str, observer: LedgerObserver, held: HeldClaims, *, lease: float, host: str
    ) -> None:
        self.lists: list[PublishedList] = []
        self._root = root
        self._observer = observer
        self._held = held
        self._lease = lease
        self._holder = {"host": host, "process": this_process(), "lease": lease}
        self._given_up: list[Unit] = []
        self._swept = False
        self._contested = False

    def load_lists(self) -> None:
        """Open the lists that were published since the last call."""
        while (tasks := open_list(self._root, len(self.lists))) is not None:
            self.lists.append(tasks)

    def claim(self, wanted: int, fits: Fits | None = None) -> list[Lease]:
        """Claim tasks, the costliest that wait first; with ``fits`` only those that fit."""
        basket = _Basket(wanted, fits)
        # The first time, tasks that dead workers of this machine have left come before all others.
        if not self._swept:
            self._sweep(basket)
        self._claim_returned(basket)
        # Of several lists, the one whose next task is costliest comes first.
        for tasks in sorted(self.lists, key=lambda tasks: tasks.next_cost, reverse=True):
            self._claim_new(tasks, basket)
        if not basket.leases:
            self._sweep(basket)
        return basket.leases

    def hint(self, unit: Unit) -> None:
        """Point other workers to a unit in which a task waits again."""
        create(f"{unit.tasks.path}/again/{unit.number}", {})

    def watch(self) -> None:
        """Look at the claims of one unit, so that tasks that were given up are found while others still wait."""
        if not self.lists:
            return
        tasks = random.choice(self.lists)
        claimed = [number for number, files in tasks.look().items() if DONE not in files]
        if not claimed:
            return
        unit = Unit(tasks, random.choice(claimed))
        chain = self._observer.chain(unit)
        if chain is not None and self._expire(chain):
            self._given_up.append(unit)

    def _claim_new(self, tasks: PublishedList, basket: _Basket) -> None:
        """Claim tasks of a list that were never claimed, in its order."""
        number, skipped = tasks.next, False
        while number < tasks.units and basket.room:
            self._contested = False
            exhausted = self._claim_free(Unit(tasks, number), basket)
            if not exhausted and basket.leases:
                # The rest of this unit costs more than all units that follow.
                return
            skipped |= not exhausted
            if not skipped:
                tasks.next = number + 1
            number += random.randint(1, _SPREAD) if self._contested else 1

    def _claim_returned(self, basket: _Basket) -> None:
        """Claim tasks that others have handed back, or were found to have given up."""
        self._given_up = [unit for unit in self._given_up if not self._claim_all(unit, basket)]
        for tasks in self.lists:
            for name in sorted(names(f"{tasks.path}/again")):
                if not name.isdecimal() or int(name) >= tasks.units:
                    continue
                if self._claim_returned_of(Unit(tasks, int(name)), basket):
                    remove(f"{tasks.path}/again/{name}")

    def _sweep(self, basket: _Basket) -> None:
        """Look at every unit: for tasks given up, for missing hints, and for settled units that are not compacted."""
        self._swept = True
        self.load_lists()
        for tasks in self.lists:
            found = tasks.look()
            for unit in tasks.all_units():
                files = found.get(unit.number, set())
                if files == {DONE}:
                    continue
                claimed = len(basket.leases)
                if not self._claim_all(unit, basket) and basket.leases:
                    return
                if files and len(basket.leases) == claimed:
                    self._observer.compact(unit, files - {DONE})

    def _claim_all(self, unit: Unit, basket: _Basket) -> bool:
        """Claim tasks of a unit in every state in which they wait; return whether none is left."""
        exhausted = self._claim_returned_of(unit, basket)
        return self._claim_free(unit, basket, again=True) and exhausted

    def _claim_free(self, unit: Unit, basket: _Basket, *, again: bool = False) -> bool:
        """Claim tasks of a unit that were never claimed; return whether none is left."""
        # The last task is the cheapest.
        if not basket.room or not basket.accepts(unit, unit.count - 1):
            return False
        if self._observer.is_compacted(unit):
            return True
        found = self._observer.free(unit, again=again)
        if found is None:
            self._contested = True
            return False
        tasks = [offset for offset in found.offsets if basket.accepts(unit, offset)]
        if len(tasks) > basket.room:
            # Few claims of whole units are better than a full basket.
            if basket.leases:
                return False
            tasks = tasks[: basket.room]
        if not tasks:
            return not found.offsets
        last, taken = tasks[-1], set(tasks)
        left = {
            "next": max(found.next, last + 1),
            "skipped": [o for o in found.offsets if o < max(found.next, last) and o not in taken],
        }
        if not self._take(unit, found.name, tasks, {}, found.gone, left, basket):
            self._contested = True
            return False
        return len(tasks) == len(found.offsets)

    def _claim_returned_of(self, unit: Unit, basket: _Basket) -> bool:
        """Claim tasks of a unit that others have handed back or given up; return whether none is left."""
        if not basket.room:
            return False
        chain = self._observer.chain(unit)
        if chain is None:
            return True
        gone = self._expire(chain)
        if chain.blocked:
            return False
        returned = chain.returned()
        tasks = [offset for offset in returned if basket.accepts(unit, offset)][: basket.room]
        if not tasks:
            return not returned
        charges = {offset: n for offset in tasks if (n := chain.charges.get(offset, 0))}
        taken = self._take(unit, chain.next, tasks, charges, gone, {}, basket)
        if taken and len(tasks) < len(returned):
            self.hint(unit)
        return taken and len(tasks) == len(returned)

    def _expire(self, chain: Chain) -> list[str]:
        """Expire the claims whose holders are gone; return their names."""
        others = [claim for claim in chain.holders() if claim.path not in self._held]
        # All are looked at, because the first look starts the time of each.
        gone = [claim for claim in others if self._observer.is_given_up(claim)]
        for claim in gone:
            chain.expire(claim)
        return [claim.name for claim in gone]

    def _take(
        self,
        unit: Unit,
        name: str,
        tasks: list[int],
        charges: Mapping[int, int],
        gone: Collection[str],
        left: Mapping[str, Any],
        basket: _Basket,
    ) -> bool:
        """Create a claim; return False if another worker was first, or the unit is settled."""
        line = {**self._holder, "tasks": tasks, "charges": charges, "gone": gone, **left}
        if not create(unit.file(name), line):
            return False
        # Looked at again, because another worker may have compacted it meanwhile.
        if os.path.exists(unit.file(DONE)):
            remove(unit.file(name))
            return False
        basket.leases += self._held.add(unit, name, tasks, charges, self._lease)
        return True
