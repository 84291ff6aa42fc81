"""Workers that claim and settle tasks of a server without doing anything, as fast as it answers."""

from __future__ import annotations

import threading

from cryotile.ledgers.http import HttpLedger
from cryotile.testing.leases import ended

WORKERS, BATCH = 3, 4


class Pool:
    """Workers in threads that lease tasks over HTTP, and the current moment of each.

    Parameters
    ----------
    address : str
        Address of the server with credentials.
    key : str
        Key of the task list.
    pause : float
        Seconds that a worker rests between two claims, until :attr:`last` is set.

    Attributes
    ----------
    steps : int
        Moments so far, of all workers; ``step`` is notified of each.
    doing : dict of int to str
        Worker → ``claiming``, ``settling`` or ``between``.
    done : list of int
        Tasks that were settled, in this order.
    lost : list of str
        Leases that were lost.
    """

    def __init__(self, address: str, key: str, *, pause: float = 0.0) -> None:
        self._address, self._key, self._pause = address, key, pause
        self.step = threading.Condition()
        self.steps = 0
        # Set when no more tasks will be enrolled; until then workers that find none try again.
        self.last = threading.Event()
        self.doing: dict[int, str] = {}
        self.done: list[int] = []
        self.lost: list[str] = []
        # Daemons, since those of a failed test would wait for a server that is gone.
        self._threads = [
            threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(WORKERS)
        ]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until nothing is left."""
        for thread in self._threads:
            thread.join()

    @property
    def over(self) -> bool:
        """Whether all workers have ended."""
        return not any(thread.is_alive() for thread in self._threads)

    def _note(self, worker: int, what: str) -> None:
        with self.step:
            self.doing[worker] = what
            self.steps += 1
            self.step.notify_all()

    def _work(self, worker: int) -> None:
        ledger = HttpLedger(self._address, self._key)
        while not self.last.is_set() or ledger.unsettled():
            self._note(worker, "claiming")
            leases = ledger.claim(BATCH)
            endings = ended(*leases)
            self._note(worker, "settling")
            self.lost += ledger.settle(endings)
            self.done += [lease.task.index for lease in leases]
            self._note(worker, "between")
            self.last.wait(self._pause)

    def go_on(self, steps: int) -> None:
        """Wait until the workers have made some more steps."""
        with self.step:
            target = self.steps + steps
            assert self.step.wait_for(lambda: self.steps >= target or self.over, 60)
            assert not self.over
