"""Claiming in a directory ledger: the order in which units are tried, and when tasks may be taken over."""

from __future__ import annotations

import os
import random
from collections.abc import Collection

from cryotile.ledgers.base import Fits, Lease
from cryotile.ledgers.directory.claims import Chain, create, remove
from cryotile.ledgers.directory.held_claims import HeldClaims
from cryotile.ledgers.directory.layout import Entry, TaskList, Unit, look, names, open_list
from cryotile.ledgers.directory.observer import Observer
from cryotile.processes import this_process

__all__ = ["Claimant"]

# Where many workers reach for the same unit, each goes on at one of so many that follow.
_SPREAD = 16


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
    observer : Observer
        Reads what others have claimed.
    held : HeldClaims
        Keeps what this process claims.
    lease : float
        Seconds for which a lease is valid.
    host : str
        Name of this host.

    Attributes
    ----------
    lists : list of TaskList
        The lists, as far as they are known.
    """

    def __init__(
        self, root: str, observer: Observer, held: HeldClaims, *, lease: float, host: str
    ) -> None:
        self.lists: list[TaskList] = []
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
        claimed = [number for number, entry in look(tasks.path).items() if not entry.done]
        if not claimed:
            return
        unit = Unit(tasks, random.choice(claimed))
        chain = self._observer.chain(unit)
        if chain is not None and self._expire(chain):
            self._given_up.append(unit)

    def _claim_new(self, tasks: TaskList, basket: _Basket) -> None:
        """Claim tasks of a list that were never claimed, in its order."""
        number, skipped = tasks.next, False
        while number < tasks.units and basket.room:
            self._contested = False
            exhausted = self._claim_from(Unit(tasks, number), basket)
            if not exhausted and basket.leases:
                # The rest of this unit costs more than all units that follow.
                return
            skipped |= not exhausted
            if not skipped:
                tasks.next = number + 1
            number += random.randint(1, _SPREAD) if self._contested else 1

    def _claim_returned(self, basket: _Basket) -> None:
        """Claim tasks that others have handed back, or were found to have given up."""
        self._given_up = [u for u in self._given_up if not self._claim_from(u, basket, again=True)]
        for tasks in self.lists:
            for name in sorted(names(f"{tasks.path}/again")):
                if not name.isdecimal() or int(name) >= tasks.units:
                    continue
                if self._claim_from(Unit(tasks, int(name)), basket, again=True):
                    remove(f"{tasks.path}/again/{name}")

    def _sweep(self, basket: _Basket) -> None:
        """Look at every unit: for tasks given up, for missing hints, and for settled units that are not compacted."""
        self._swept = True
        self.load_lists()
        for tasks in self.lists:
            entries = look(tasks.path)
            for unit in tasks.all_units():
                entry = entries.get(unit.number, Entry())
                if entry.done and not entry.epochs:
                    continue
                claimed = len(basket.leases)
                if not self._claim_from(unit, basket, again=True) and basket.leases:
                    return
                if entry.epochs and len(basket.leases) == claimed:
                    self._observer.compact(unit, entry.epochs)

    def _claim_from(self, unit: Unit, basket: _Basket, *, again: bool = False) -> bool:
        """Claim waiting tasks of a unit; with ``again`` also those that others have given up.

        Returns
        -------
        bool
            Whether no task of the unit waits any more.
        """
        # The last task is the cheapest.
        if not basket.room or not basket.accepts(unit, unit.count - 1):
            return False
        chain = self._observer.chain(unit)
        if chain is None:
            return True
        gone = self._expire(chain) if again else []
        self._contested |= chain.blocked
        waiting = [] if chain.blocked else chain.waiting()
        tasks = [offset for offset in waiting if basket.accepts(unit, offset)]
        if not tasks:
            return not waiting and not chain.blocked
        if len(tasks) > basket.room:
            # Few claims of whole units are better than a full basket.
            if basket.leases and not again:
                return False
            tasks = tasks[: basket.room]
        if not self._take(chain, tasks, gone, basket):
            self._contested = True
            return False
        if again and len(tasks) < len(waiting):
            self.hint(unit)
        return len(tasks) == len(waiting)

    def _expire(self, chain: Chain) -> list[int]:
        """Expire the claims whose holders are gone; return their epochs."""
        others = [claim for claim in chain.holders() if claim.path not in self._held]
        # All are looked at, because the first look starts the time of each.
        gone = [claim for claim in others if self._observer.is_given_up(claim)]
        for claim in gone:
            chain.expire(claim)
        return [claim.epoch for claim in gone]

    def _take(self, chain: Chain, tasks: list[int], gone: Collection[int], basket: _Basket) -> bool:
        """Create a claim; return False if another worker was first, or the unit is settled."""
        unit, epoch = chain.unit, chain.next_epoch
        charges = {offset: n for offset in tasks if (n := chain.charges.get(offset, 0))}
        covered = None if len(tasks) == unit.count else tasks
        line = {**self._holder, "tasks": covered, "charges": charges, "gone": gone}
        if not create(unit.claim(epoch), line):
            return False
        if os.path.exists(unit.done):
            remove(unit.claim(epoch))
            return False
        basket.leases += self._held.add(unit, epoch, tasks, charges, self._lease)
        return True
