"""Work for the first task-farm server, PyPI's ``taskfarm``, unmodified, using only its own requests.

It has no leases, attempts or costs.  Therefore the tasks of a worker that dies are not handed out again; they become
part of a new run on the server when no other task waits and the command is given again.  A task that fails is tried
three times by each worker that gets it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryotile.backends.base import DEFAULTS, Context
from cryotile.backends.pull import PullBackend, without_children
from cryotile.errors import InvalidValue
from cryotile.farm.task import ATTEMPTS, Task
from cryotile.files import make_directory, write_durably, writing
from cryotile.ledgers import LEASE, Ending, Lease, Ledger

__all__ = ["LegacyBackend", "LegacyLedger"]

# Each claim is a request of its own, and the tasks of a worker that dies are stranded.
_MOST = 4

# Seconds for which tasks are offered back to a server that does not answer.
_PARTING = 5.0

_WAITING = {"status": "waiting", "percentCompleted": 0.0}
_DONE = {"status": "done", "percentCompleted": 100.0}

logger = logging.getLogger(__name__)


class LegacyLedger(Ledger):
    """Tasks on the first server, for workers that see a directory; a :class:`cryotile.ledgers.Ledger` without leases.

    A file in the directory names the run on the server that has the tasks of a list, and the number of each task there.
    If a run has nothing left to hand out, though results are missing, the next worker begins a new run.

    Parameters
    ----------
    url : str
        Address of the server with a user: ``http://user:password@host:5000/api/``.
    home : Path
        A directory that all workers see.
    key : str
        Name of the task list.

    Raises
    ------
    InvalidValue
        The address is invalid or names no user.
    """

    def __init__(self, url: str, home: Path, key: str) -> None:
        # Imported here: listing the backends must not need requests.
        from cryotile.farm.http import credentials

        place, auth = credentials(url)
        if auth is None:
            raise InvalidValue(
                f"{url} names no user; write taskfarm+{place.scheme}://user:password@{place.netloc}"
            )
        path = place.path.rstrip("/") or "/api"
        self._url, self._auth = place._replace(path=path).geturl(), auth
        self._runs = home / f"taskfarm-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        self._worker = uuid.uuid4().hex
        self._tasks: list[Task] = []
        self._failures: Counter[int] = Counter()
        # The leases of this worker, and the fraction done as last reported to the server.
        self._held: dict[str, float] = {}

    def enroll(self, tasks: Sequence[Task]) -> None:
        """Join the newest run of the list, or begin a new one if that has nothing left to hand out."""
        from cryotile.taskfarm.client import log_in

        self._site = log_in(*self._auth, self._url)
        if not tasks:
            return
        logger.warning(
            "%s: such a server has no leases; if a worker dies, give 'cryotile run' again after all other tasks are "
            "done to do its tasks",
            self._url,
        )
        runs = sorted(self._runs.glob("*.json"))
        if not runs or not self._join(runs[-1]) or self.unsettled() == 0:
            self._begin(tasks, len(runs) + 1)
        worker = {"uuid": self._worker, "hostname": socket.gethostname(), "pid": os.getpid()}
        self._site.ask("POST", "worker", body=worker, repeatable=False)

    def claim(self, n: int = 1) -> list[Lease]:
        """Claim tasks, one by one; their leases never expire."""
        leases: list[Lease] = []
        while self._tasks and len(leases) < min(n, _MOST):
            claimed = self._site.ask(
                "POST", f"{self._run}/task", body={"worker_uuid": self._worker}
            )
            if claimed is None:
                break
            number = int(claimed["task"])
            attempt = self._failures[number] + 1
            leases.append(Lease(self._tasks[number], str(number), attempt, LEASE))
            self._held[str(number)] = 0.0
        return leases

    def renew(self, fractions: Mapping[str, float | None]) -> set[str]:
        """Report the progress of tasks; no lease is ever lost."""
        for lease, fraction in fractions.items():
            if fraction is not None and fraction > self._held.get(lease, 1.0):
                self._put(lease, {"percentCompleted": 100.0 * min(fraction, 1.0)})
                self._held[lease] = fraction
        return set()

    def settle(self, endings: Mapping[str, Ending]) -> set[str]:
        """End tasks; the server counts a task as done after its last failed attempt."""
        for lease, ending in endings.items():
            self._held.pop(lease, None)
            if ending.error is not None and self._failures[int(lease)] + 1 < ATTEMPTS:
                self._failures[int(lease)] += 1
                self._put(lease, _WAITING)
            else:
                self._put(lease, _DONE)
        return set()

    def release(self, leases: Collection[str]) -> None:
        """Let tasks wait again."""
        for lease in leases:
            self._held.pop(lease, None)
            # A worker that leaves does not wait long.
            self._put(lease, _WAITING, _PARTING)

    def unsettled(self) -> int:
        """Return the number of tasks that wait or are held here; those of other workers may be stranded."""
        if not self._tasks:
            return 0
        run = self._site.ask("GET", self._run)
        return int(run["numTasks"] - run["numDone"] - run["numComputing"]) + len(self._held)

    def outcomes_elsewhere(self, tasks: Collection[int]) -> dict[str, dict[int, bool]]:  # noqa: ARG002 - unknown here
        """Return nothing: the server does not tell which host did a task."""
        return {}

    def _put(self, lease: str, values: Mapping[str, Any], patience: float | None = None) -> None:
        self._site.ask("PUT", f"{self._run}/tasks/{lease}", body=values, patience=patience)

    def _join(self, file: Path) -> bool:
        """Join a run; return False if the server no longer has it."""
        from cryotile.farm.http import Refused

        begun = json.loads(file.read_text(encoding="ascii"))
        self._run = f"runs/{begun['run']}"
        self._tasks = [Task(index, cost) for index, cost in begun["tasks"]]
        try:
            self._site.ask("GET", self._run)
        except Refused as error:
            if error.status == 404:
                return False
            raise
        return True

    def _begin(self, tasks: Sequence[Task], number: int) -> None:
        """Begin a run, or join the run that another worker begins at the same moment."""
        ordered = sorted(tasks, key=lambda task: -task.cost)
        run = self._site.ask("POST", "run", body={"numTasks": len(ordered)}, repeatable=False)
        rows = [[task.index, task.cost] for task in ordered]
        file = self._runs / f"{number:04d}.json"
        temporary = self._runs / f".{self._worker}.tmp"
        with writing(file):
            make_directory(self._runs)
            write_durably(temporary, json.dumps({"run": run["uuid"], "tasks": rows}).encode())
            try:
                # Unlike a rename, a link never replaces the file of another worker.
                file.hardlink_to(temporary)
            except FileExistsError:
                self._site.ask("DELETE", f"runs/{run['uuid']}", repeatable=False)
            finally:
                temporary.unlink()
        self._join(file)


class LegacyBackend(PullBackend):
    """The backends ``taskfarm+http://…`` and ``taskfarm+https://…``: children that do the tasks of a first server.

    Parameters
    ----------
    argument : str
        Address of the server: ``taskfarm+http://user:password@host:5000``.  ``?children=8`` sets the number of
        children; by default one per usable core.
    context : Context
        The run; its home is needed.

    Raises
    ------
    InvalidValue
        The address or the number of children is invalid, or there is no directory.
    MissingDependency
        requests is not installed.
    """

    has_leases = False

    def __init__(self, argument: str, context: Context = DEFAULTS) -> None:
        if context.home is None:
            raise InvalidValue(
                f"backend {argument!r} needs a directory that all its workers see, and got none; give it a home"
            )
        address, children = without_children(argument)
        ledger = LegacyLedger(address.removeprefix("taskfarm+"), context.home, context.key)
        super().__init__(ledger, children=children, stall=context.stall)
