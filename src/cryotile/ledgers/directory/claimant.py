"""Claiming in a directory ledger: in what order nodes are tried, and when one may be taken over."""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from cryotile.ledgers.base import Fits, Lease
from cryotile.ledgers.directory.claims import Chain, Claim, create, remove
from cryotile.ledgers.directory.compaction import seal
from cryotile.ledgers.directory.held_claims import Holding, Holdings
from cryotile.ledgers.directory.layout import (
    Node,
    TaskList,
    Trace,
    is_sealed,
    look,
    names,
    open_list,
    see,
)
from cryotile.ledgers.directory.observer import Survey
from cryotile.processes import this_process

__all__ = ["Claimant"]


class _Basket:
    """Leases gathered so far, and room for more: of tasks that fit, where some do not."""

    def __init__(self, size: int, fits: Fits | None) -> None:
        self.leases: list[Lease] = []
        self._size = size
        self._fits = fits

    @property
    def room(self) -> int:
        return self._size - len(self.leases)

    @property
    def selects(self) -> bool:
        """Whether some tasks may not fit."""
        return self._fits is not None

    def takes(self, node: Node, offset: int) -> bool:
        """Tell whether a task of a node fits."""
        return self._fits is None or self._fits(node.tasks.task(node.start + offset))

    def takes_some(self, node: Node) -> bool:
        """Tell whether any task of a node fits: the last is the cheapest."""
        return self.takes(node, node.count - 1)


class Claimant:
    """Finds tasks to claim, and claims them.

    Parameters
    ----------
    root : str
        Directory of all lists.
    survey : Survey
        Reads what others have claimed.
    holdings : Holdings
        Keeps what this process claims.
    lease : float
        Seconds for which a lease is good.
    host : str
        Name of this host.

    Attributes
    ----------
    lists : list of TaskList
        The lists, as far as they are known.
    """

    def __init__(
        self, root: str, survey: Survey, holdings: Holdings, *, lease: float, host: str
    ) -> None:
        self.lists: list[TaskList] = []
        self._root = root
        self._survey = survey
        self._holdings = holdings
        self._lease = lease
        self._holder = {"host": host, "process": this_process(), "lease": lease}
        self._ripe: list[Node] = []
        self._swept = False
        self._crowded = False

    def load_lists(self) -> None:
        """Open the lists that were published since."""
        while (tasks := open_list(self._root, len(self.lists))) is not None:
            self.lists.append(tasks)

    def claim(self, wanted: int, fits: Fits | None = None) -> list[Lease]:
        """Claim tasks, the costliest that wait first; only those that fit, where it is said which do."""
        basket = _Basket(wanted, fits)
        self._crowded = False
        # The first time, what workers of this machine that are gone have left comes before all else.
        if not self._swept:
            self._sweep(basket)
        self._claim_returned(basket)
        # Of several lists, first the one whose next task is costliest.
        for tasks in sorted(self.lists, key=lambda tasks: tasks.next_cost, reverse=True):
            self._claim_new(tasks, basket)
        if not basket.leases:
            self._sweep(basket)
        return basket.leases

    def hint(self, node: Node) -> None:
        """Point others to a node of which something waits again."""
        create(f"{node.tasks.path}/again/{node.word}", {})

    def watch(self) -> None:
        """Look at the claims of one bucket, so that what is given up is found while other tasks still wait."""
        if not self.lists:
            return
        tasks = random.choice(self.lists)
        traces = look(tasks.path)
        unsettled = [name for name, trace in traces.items() if not trace.done]
        if not unsettled or (bucket := tasks.node(name := random.choice(unsettled))) is None:
            return
        for node, trace in self._survey.leaves(bucket, traces[name]):
            if not trace.done and self._find_given_up(self._survey.chain(node, trace.epochs)):
                self._ripe.append(node)

    def _claim_new(self, tasks: TaskList, basket: _Basket) -> None:
        """Claim tasks of a list that were never claimed, in its order."""
        skipped = False
        for bucket in tasks.next_buckets():
            if not basket.room:
                return
            if not basket.takes_some(bucket):
                skipped = True
            elif not self._gather(bucket, see(bucket), basket):
                if basket.leases or not basket.selects:
                    return
                skipped = True
            elif not skipped:
                tasks.pass_over(bucket)

    def _claim_returned(self, basket: _Basket) -> None:
        """Claim tasks that others have handed back, or were found to have given up."""
        self._ripe = [n for n in self._ripe if not self._gather(n, see(n), basket, again=True)]
        for tasks in self.lists:
            for name in names(f"{tasks.path}/again"):
                node = tasks.node(name)
                if node is not None and self._gather(node, see(node), basket, again=True):
                    remove(f"{tasks.path}/again/{name}")

    def _sweep(self, basket: _Basket) -> None:
        """Look everywhere: for tasks given up, for hints that were not left, for what was settled but not sealed."""
        self._swept = True
        self.load_lists()
        for tasks in self.lists:
            traces = look(tasks.path)
            for bucket in tasks.all_buckets():
                trace = traces.get(bucket.name, Trace([]))
                if trace.done and not (trace.split or trace.epochs):
                    continue
                room = basket.room
                if not self._gather(bucket, trace, basket, again=True):
                    if basket.selects and basket.room:
                        continue
                    return
                if basket.room == room:
                    seal(self._survey, bucket, trace)

    def _gather(self, node: Node, trace: Trace, basket: _Basket, *, again: bool = False) -> bool:
        """Claim within a node what was never claimed and, with ``again``, what others no longer hold.

        Returns
        -------
        bool
            Whether nothing more is to be had there.
        """
        if trace.done:
            return True
        if not basket.room or not basket.takes_some(node):
            return False
        if trace.epochs:
            return self._inherit(node, trace.epochs, basket) if again else True
        if not trace.split:
            if node.size == 1 or (node.count <= basket.room and basket.takes(node, 0)):
                if self._take(node, 0, basket):
                    return True
            elif basket.leases:
                # Few files matter more than a full basket: no node is split for the rest.
                return False
            elif self._split(node):
                return self._gather_parts(node, basket, again=again)
            if not os.path.isdir(node.path):
                return True
        return self._gather_parts(node, basket, again=again)

    def _gather_parts(self, node: Node, basket: _Basket, *, again: bool) -> bool:
        """Claim within the parts of a split node."""
        traces, parts = look(node.path), list(node.children())
        exhausted = True
        while parts and basket.room:
            # In order; but where many reach for the same task at once, each goes on at another.
            part = parts.pop(random.randrange(len(parts)) if self._crowded else 0)
            done = self._gather(part, traces.get(part.name, Trace([])), basket, again=again)
            if not done and basket.leases:
                # What is left of it is dearer than all that follows.
                return False
            exhausted &= done
        return exhausted and not parts

    def _split(self, node: Node) -> bool:
        """Make a node a directory; False when it is claimed, split or settled."""
        with suppress(FileExistsError, FileNotFoundError, NotADirectoryError):
            os.mkdir(node.path)
            if not is_sealed(node):
                return True
            # It was settled and removed since this process last looked.
            with suppress(OSError):
                os.rmdir(node.path)
        return False

    def _inherit(self, node: Node, epochs: Sequence[int], basket: _Basket) -> bool:
        """Claim what others have handed back or given up of a node."""
        chain = self._survey.chain(node, epochs)
        gone = self._find_given_up(chain)
        for claim in gone:
            chain.expire(claim)
        waiting = chain.waiting()
        covered = [offset for offset in waiting if basket.takes(node, offset)][: basket.room]
        if not covered:
            return not waiting
        taken = self._take(
            node,
            epochs[-1] + 1,
            basket,
            covered=covered,
            charges={offset: n for offset in covered if (n := chain.charges.get(offset, 0))},
            gone=[claim.epoch for claim in gone],
        )
        if len(covered) == len(waiting):
            return True
        if taken:
            self.hint(node)
        return False

    def _find_given_up(self, chain: Chain) -> list[Claim]:
        """Return the claims whose holders are gone; all are looked at, for the first look starts the time of each."""
        others = [claim for claim in chain.holders() if claim.path not in self._holdings]
        return [claim for claim in others if self._survey.is_given_up(claim)]

    def _take(
        self,
        node: Node,
        epoch: int,
        basket: _Basket,
        *,
        covered: Collection[int] | None = None,
        charges: Mapping[int, int] | None = None,
        gone: Collection[int] = (),
    ) -> bool:
        """Create a claim; False when somebody else was first."""
        path = f"{node.path}.{epoch}" if epoch else node.path
        charges = charges or {}
        line = {**self._holder, "tasks": covered, "charges": charges, "gone": gone}
        if not create(path, line):
            self._crowded = True
            return False
        if is_sealed(node):
            remove(path)
            return False
        held = set(range(node.count) if covered is None else covered)
        holding = Holding(node, epoch, path, held, set(), revocable=not gone)
        basket.leases += self._holdings.add(holding, charges, self._lease)
        return True
