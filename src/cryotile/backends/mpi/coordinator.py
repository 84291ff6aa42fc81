"""The coordinator on rank 0: it hands tasks of a task source to workers known by number, and receives their reports.

It does not depend on MPI, so that a test can play the workers and lose them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cryotile.backends.base import Attempt
from cryotile.backends.deadline import Deadline
from cryotile.backends.host_health import HostQuarantine
from cryotile.backends.mpi import messages
from cryotile.backends.mpi.worker import BEAT, Line
from cryotile.backends.pool import TaskSource
from cryotile.errors import CryotileError
from cryotile.farm.task import Outcome, Task

__all__ = ["Coordinator"]

SILENCE = 8 * BEAT
"""Seconds without a sign of life after which a worker counts as lost: it left unnoticed, or its host hangs."""

COMING = 600.0
"""Seconds that a worker may take to start: imports from a busy file system take minutes."""

# A worker gets tasks ahead for about this long (seconds), to bridge the pauses at both ends.
_AHEAD = 0.05

# Tasks that take longer (seconds) are handed out one by one: a pause does not matter, and none waits behind a long one.
_LONG = 0.5

_MOST_AHEAD = 2000

# Tasks in a message, few enough that MPI sends it at once, whether or not the receiver waits for it.
_BATCH = 200

# Messages that are received before their attempts are settled together.
_MOST_MESSAGES = 256

# Seconds between checks of silent workers, the task source and the deadline.
_ROUND = 0.5

# Bounds of the pause (seconds) between polls for messages: a busy coordinator hardly sleeps, an idle one uses no core.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.00005, 0.005

# Seconds that workers have after the deadline to report their tasks.
_LAST_REPORTS = 3.0

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Peer:
    """One worker, seen from rank 0."""

    rank: int
    heard: float
    host: str = ""
    is_open: bool = False
    # In the order given: the first one is running.
    tasks: dict[int, Task] = field(default_factory=dict)
    began: float = 0.0
    fraction: float = 0.0
    pace: float = _LONG
    is_searching: bool = False


class Coordinator:
    """Hand out tasks until the task source is over or the deadline is reached.

    Parameters
    ----------
    line : Line
        Messages to and from the workers.
    ranks : sequence of int
        The workers.
    task_source : TaskSource
        The tasks.
    deadline : Deadline
        The time that the farm has.
    """

    def __init__(
        self, line: Line, ranks: Sequence[int], task_source: TaskSource, deadline: Deadline
    ) -> None:
        now = time.monotonic()
        self._line = line
        self._task_source = task_source
        self._deadline = deadline
        self._peers = {rank: _Peer(rank, now) for rank in ranks}
        self._idle: set[_Peer] = set()
        self._quarantine = HostQuarantine()
        self._handed_out = 0
        self._attempts: list[Attempt] = []
        self._last_reports: float | None = None
        self._next_round = now
        self._last_heard = now
        # Silence is measured up to the last poll, so that a coordinator that was busy elsewhere blames no worker.
        self._listened = now
        self._last_loss = ""

    def outcomes(self) -> Iterator[Outcome]:
        """Yield outcomes as the task source settles them.

        Raises
        ------
        CryotileError
            All workers are gone and tasks are left.
        """
        while not self._is_over():
            heard = self._listen()
            yield from self._settle()
            due = time.monotonic() >= self._next_round
            if due:
                yield from self._check_peers()
            if due or heard:
                self._assign(heard)
            self._rest(bool(heard))

    def _is_over(self) -> bool:
        if self._handed_out:
            return False
        if self._draining or self._task_source.over():
            return True
        if not self._peers:
            raise CryotileError(
                f"all workers are gone, the last one: {self._last_loss}; run again to go on"
            )
        return False

    @property
    def _draining(self) -> bool:
        return self._deadline.draining()

    def _rest(self, heard: bool) -> None:
        """Sleep, longer the longer no message came."""
        now = time.monotonic()
        if heard:
            self._last_heard = now
        time.sleep(min(max(_SHORTEST_PAUSE, (now - self._last_heard) / 3.0), _LONGEST_PAUSE))

    def _listen(self) -> list[_Peer]:
        """Process the messages that have come; return their senders."""
        heard: dict[int, _Peer] = {}
        self._listened = time.monotonic()
        for _ in range(_MOST_MESSAGES):
            if (message := self._line.receive()) is None:
                break
            rank, content = message
            if (peer := self._peers.get(rank)) is not None:
                heard[rank] = peer
                self._hear(peer, content)
            else:
                # It was written off, and other workers have its tasks.
                self._line.send(rank, messages.STOP)
        return list(heard.values())

    def _hear(self, peer: _Peer, message: bytes) -> None:
        """Process the reports of one worker."""
        peer.heard = time.monotonic()
        before = len(self._attempts)
        returned: list[Task] = []
        for kind, index, value, text in messages.reports(message):
            if kind == messages.DONE or kind == messages.FAILED:
                if task := self._take_from(peer, index):
                    error = text if kind == messages.FAILED else None
                    self._attempts.append(Attempt(task, value, error, peer.host))
            elif kind == messages.RETURNED:
                if task := self._take_from(peer, index):
                    returned.append(task)
            else:
                self._note(peer, kind, value, text)
        if returned:
            self._task_source.put_back(returned)
        # Failures tell nothing about the next task, and a worker that fails at once must not get many.
        done = [attempt.seconds for attempt in self._attempts[before:] if attempt.error is None]
        if done:
            # One short task does not mean that all are short.
            peer.pace = max(sum(done) / len(done), peer.pace / 2.0)

    def _note(self, peer: _Peer, kind: int, value: float, text: str) -> None:
        """Process a report that is not about a task that ended or was returned."""
        if kind == messages.HELLO:
            peer.host, peer.is_open = text, True
            self._quarantine.join(text)
        elif kind == messages.PROGRESS:
            peer.fraction = value
            self._line.send(peer.rank, messages.HEARD)
        elif kind == messages.SEARCHED:
            peer.is_searching = False
        elif kind == messages.LEAVING:
            self._close(peer)
        elif kind == messages.LEFT:
            self._forget(peer, text)

    def _take_from(self, peer: _Peer, index: int) -> Task | None:
        """Remove a task from a worker's list; return None if it is not on the list."""
        task = peer.tasks.pop(index, None)
        if task is not None:
            peer.began, peer.fraction = time.monotonic(), 0.0
            self._handed_out -= 1
        return task

    def _settle(self) -> list[Outcome]:
        """Settle the attempts that have ended, and learn from them."""
        attempts, self._attempts = self._attempts, []
        if not attempts:
            return []
        for attempt in attempts:
            self._deadline.ended(attempt)
        for host in self._quarantine.learn(attempts):
            logger.warning(
                "host %s is broken and gets no more tasks: tasks that fail there at once succeed elsewhere",
                host,
            )
        return self._task_source.settle(attempts)

    def _top_up(self, peer: _Peer) -> None:
        """Give a worker more tasks when it runs low."""
        if peer.is_open:
            if not self._quarantine.admits(peer.host):
                self._recall(peer)
            elif peer.pace >= _LONG:
                self._give(peer, 1 - len(peer.tasks))
            else:
                wanted = max(2, min(_MOST_AHEAD, int(_AHEAD / max(peer.pace, 1e-9))))
                if 2 * len(peer.tasks) <= wanted:
                    self._give(peer, wanted - len(peer.tasks))
            if not peer.tasks:
                self._idle.add(peer)

    def _give(self, peer: _Peer, count: int) -> None:
        """Hand out tasks to one worker, if there are any for it."""
        # At most half of a fair share of the remaining tasks, so that all workers end together.
        count = min(count, max(1, self._task_source.stock() // (2 * len(self._peers))))
        tasks = self._choose(peer.host, count)
        if tasks:
            if not peer.tasks:
                peer.began = time.monotonic()
            peer.tasks.update((task.index, task) for task in tasks)
            self._handed_out += len(tasks)
            self._idle.discard(peer)
            for first in range(0, len(tasks), _BATCH):
                self._line.send(peer.rank, messages.orders(tasks[first : first + _BATCH]))

    def _choose(self, host: str, count: int) -> list[Task]:
        """Take tasks from the task source, except those that another host should try first."""
        chosen: list[Task] = []
        passed: list[Task] = []
        while not chosen and self._task_source.stock():
            tasks = self._task_source.take(count, self._deadline.may_start)
            if not tasks:
                break
            for task in tasks:
                (chosen if self._quarantine.suits(host, task.index) else passed).append(task)
        if passed:
            self._task_source.put_back(passed)
        return chosen

    def _assign(self, heard: Iterable[_Peer]) -> None:
        """Assign waiting tasks to idle workers and to those that reported; otherwise recall unstarted ones."""
        if self._draining:
            return
        for peer in list(self._idle):
            if not self._task_source.stock():
                break
            if self._quarantine.admits(peer.host):
                self._give(peer, 1)
        for peer in heard:
            self._top_up(peer)
        if self._idle and not self._task_source.stock():
            self._recall(max(self._peers.values(), key=lambda peer: len(peer.tasks)))

    def _recall(self, peer: _Peer) -> None:
        """Ask a worker to return the tasks that it has not started."""
        if len(peer.tasks) > 1 and not peer.is_searching:
            peer.is_searching = True
            self._line.send(peer.rank, messages.RECALL)

    def _check_peers(self) -> Iterator[Outcome]:
        """Check for lost workers, check the deadline, and report running tasks to the task source."""
        now = time.monotonic()
        self._next_round = now + _ROUND
        self._check_deadline(now)
        failed = self._line.failed()
        for peer in list(self._peers.values()):
            if peer.rank in failed:
                self._lose(peer, "was lost")
            elif (silence := self._listened - peer.heard) > (SILENCE if peer.is_open else COMING):
                self._line.write_off(peer.rank)
                self._lose(peer, f"was silent for {silence:.0f} s")
        yield from self._settle()
        running = {
            next(iter(peer.tasks.values())): peer.fraction
            for peer in self._peers.values()
            if peer.tasks
        }
        yield from self._task_source.report(running)

    def _check_deadline(self, now: float) -> None:
        """Drain when asked to."""
        if not self._draining:
            return
        if self._last_reports is None:
            self._last_reports = float("inf")
            for rank in self._peers:
                self._line.send(rank, messages.DRAIN)
        if self._deadline.over():
            self._last_reports = min(self._last_reports, now + _LAST_REPORTS)
            if now >= self._last_reports:
                for peer in list(self._peers.values()):
                    self._forget(peer, "did not report its tasks in time")

    def _lose(self, peer: _Peer, reason: str) -> None:
        """Remove a worker that died; its running task, which may be the reason, is charged an attempt."""
        if peer.tasks:
            seconds = time.monotonic() - peer.began
            task = self._take_from(peer, next(iter(peer.tasks)))
            assert task is not None
            error = f"the worker of rank {peer.rank} on host {peer.host} {reason}"
            self._attempts.append(Attempt(task, seconds, error, peer.host))
        self._forget(peer, reason)

    def _forget(self, peer: _Peer, reason: str) -> None:
        """Remove a worker; its tasks wait again, none of them charged."""
        self._close(peer)
        del self._peers[peer.rank]
        self._handed_out -= len(peer.tasks)
        self._task_source.put_back(list(peer.tasks.values()))
        self._last_loss = f"rank {peer.rank} on host {peer.host or '(never heard of)'}: {reason}"
        if not self._draining:
            logger.warning("%s; the farm goes on without it", self._last_loss)

    def _close(self, peer: _Peer) -> None:
        """Give a worker no more tasks."""
        if peer.is_open:
            peer.is_open = False
            self._quarantine.leave(peer.host)
        self._idle.discard(peer)
