"""A ledger on a task-farm server: for workers on any hosts that reach its address."""

from __future__ import annotations

import base64
import logging
import os
import secrets
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from http.client import NOT_FOUND
from pathlib import Path
from typing import Any, TypeVar

from cryotile.errors import InvalidValue
from cryotile.farm.http import PATIENCE, Refused, Site, answers, credentials
from cryotile.farm.place import HOSTED, Place
from cryotile.farm.task import ATTEMPTS, Task
from cryotile.ledgers.base import LEASE, Ending, Lease, Ledger
from cryotile.processes import family_memory

__all__ = ["HttpLedger", "hosted_server", "open_api"]

# Limits of the server for one request.
_TASKS = 50_000
_LEASES = 10_000
_INDICES = 100

# Characters of an error that are sent, from its end, which says what was wrong.
_LONGEST_ERROR = 20_000

# Errors of this length, and thumbnails, that one request can carry.
_ERRORS, _PICTURES = 64, 2000

# Characters of the name of a run.
_LONGEST_NAME = 200

# Seconds between two reports of the memory in use.
_MEMORY_INTERVAL = 30.0

# Seconds for which a worker that ends tries to hand tasks back; otherwise they come back when their leases expire.
_PARTING = 5.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


def open_api(url: str, *, patience: float = PATIENCE) -> Site:
    """Return the native API of a task-farm server.

    Parameters
    ----------
    url : str
        Address of the server: ``http://host:5000``, ``https://token@host`` or ``https://user:password@host``; without
        credentials ``$CRYOTILE_TOKEN`` is used.  ``$CRYOTILE_CA_BUNDLE`` is the file of a certificate authority that
        the system does not know.
    patience : float
        Seconds for which a request without an answer is repeated.

    Returns
    -------
    Site
        Its paths are relative to ``/api/v1/``.

    Raises
    ------
    InvalidValue
        It is not the address of an HTTP server.
    """
    place, auth = credentials(url)
    verify = os.environ.get("CRYOTILE_CA_BUNDLE") or True
    base = place.geturl().rstrip("/") + "/api/v1/"
    return Site(base, auth=auth, patience=patience, verify=verify)


def hosted_server(home: Path) -> tuple[str, tuple[str, str]]:
    """Return the base address of the server that a worker of a run hosts, and the token.

    Parameters
    ----------
    home : Path
        The directory of the run.

    Raises
    ------
    InvalidValue
        No worker has hosted a server yet.
    """
    holder = Place(home / HOSTED, 1.0).holder()
    if holder is None or not holder.said.get("addresses"):
        raise InvalidValue(
            f"no worker of {home} hosts a server; give its address (http://HOST:5000), or serve=True"
        )
    addresses = holder.said["addresses"]
    # Of the names of a host, not all work on all others.
    found = next((each for each in addresses if answers(each)), addresses[0])
    return f"{found}/api/v1/", (holder.said["token"], "")


class HttpLedger(Ledger):
    """Tasks on a task-farm server; see :class:`cryotile.ledgers.Ledger`.

    Requests without an answer are repeated: the server recognizes a repeated claim or settlement.

    Parameters
    ----------
    place : str or Path
        Address of the server, see :func:`open_api`; or the directory of a run whose workers host the server, which may
        then move.
    key : str
        Name of the task list; another list has another key.
    lease : float
        Seconds for which leases are valid, at least 1; the first worker that opens the list determines them.
    host : str
        Name of this host.
    patience : float
        Seconds for which a request without an answer is repeated.
    name : str
        Name of the run for people.
    task_map : callable or None
        Returns where the tasks lie: the body of the call ``PUT /map``.  It is sent if the server has none.

    Raises
    ------
    InvalidValue
        The address is invalid.
    MissingDependency
        requests is not installed.
    """

    def __init__(
        self,
        place: str | Path,
        key: str,
        *,
        lease: float = LEASE,
        host: str = "",
        patience: float = PATIENCE,
        name: str = "",
        task_map: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._moves = isinstance(place, Path)
        self._site = (
            _hosted_api(place, patience)
            if isinstance(place, Path)
            else open_api(place, patience=patience)
        )
        self._list = {"key": key, "lease": lease, "attempts": ATTEMPTS}
        if 0 < len(name) <= _LONGEST_NAME and name.isprintable():
            self._list["name"] = name
        self._task_map = task_map
        self._shows = self._paused = False
        self._next_memory = time.monotonic()
        self._host = host or socket.gethostname()
        self._worker = {"uuid": uuid.uuid4().hex, "host": self._host, "pid": os.getpid()}
        self._path = ""
        self._tasks: Sequence[Task] = ()

    def enroll(self, tasks: Sequence[Task]) -> None:
        """List the tasks to do; see :meth:`cryotile.ledgers.Ledger.enroll`."""
        # The time is read before the tasks, which may be lazy: tasks settled after it stay settled.
        run = self._open()
        seen = run["clock"]
        if self._task_map is not None and run.get("map") is False:
            self._show(self._task_map())
        self._tasks = list(tasks)
        for piece in _pieces(self._tasks, _TASKS):
            rows = [[task.index, task.cost] for task in piece]
            self._site.ask("POST", "runs", body=self._list | {"tasks": rows, "seen": seen})

    def claim(self, n: int = 1) -> list[Lease]:
        """Lease waiting tasks; see :meth:`cryotile.ledgers.Ledger.claim`."""
        # By its token the server recognizes a repeated claim whose answer was lost.
        body = {"worker": self._worker, "n": min(n, _LEASES), "token": secrets.token_hex(7)}
        answer = self._ask("POST", "leases", body=body, again={"again": True})
        return self._claimed(answer)

    def renew(self, fractions: Mapping[str, float | None]) -> set[str]:
        """Prolong leases; see :meth:`cryotile.ledgers.Ledger.renew`."""
        rows = [{"lease": id, "fraction": _clip(f)} for id, f in fractions.items()]
        lost: set[str] = set()
        query: dict[str, Any] = {"worker": self._worker["uuid"]}
        if (now := time.monotonic()) >= self._next_memory:
            self._next_memory = now + _MEMORY_INTERVAL
            if (memory := family_memory()) is not None:
                query["memory"] = memory
        for piece in _pieces(rows, _LEASES):
            answer = self._ask("PATCH", "leases", body=piece, query=query)
            lost.update(answer["lost"])
        return lost

    def settle(self, endings: Mapping[str, Ending]) -> set[str]:
        """End leases; see :meth:`cryotile.ledgers.Ledger.settle`."""
        lost: set[str] = set()
        for rows in self._bodies(endings):
            lost.update(self._settle(rows)["lost"])
        return lost

    def exchange(self, endings: Mapping[str, Ending], n: int) -> tuple[set[str], list[Lease]]:
        """Settle and claim in one request; see :meth:`cryotile.ledgers.Ledger.exchange`."""
        *first, last = list(self._bodies(endings)) or [[]]
        lost = {id for rows in first for id in self._settle(rows)["lost"]}
        answer = self._settle(
            last, {"claim": min(n, _LEASES), "token": secrets.token_hex(7)}, again={"again": 1}
        )
        return lost.union(answer["lost"]), self._claimed(answer)

    def release(self, leases: Collection[str]) -> None:
        """Hand tasks back; see :meth:`cryotile.ledgers.Ledger.release`."""
        for piece in _pieces(list(leases), _LEASES):
            self._ask("DELETE", "leases", body=piece, patience=_PARTING)

    def unsettled(self) -> int:
        """Return how many tasks wait or are leased; see :meth:`cryotile.ledgers.Ledger.unsettled`."""
        run = self._ask("GET", "")
        return int(run["waiting"] + run["leased"])

    def outcomes_elsewhere(self, tasks: Collection[int]) -> dict[str, dict[int, bool]]:
        """Return the outcomes of tasks on other hosts; see :meth:`cryotile.ledgers.Ledger.outcomes_elsewhere`."""
        found: dict[str, dict[int, bool]] = {}
        for piece in _pieces(list(tasks), _INDICES):
            query = {"tasks": ",".join(map(str, piece))}
            hosts = self._ask("GET", "outcomes_elsewhere", query=query)["hosts"]
            for host, seen in hosts.items():
                found.setdefault(host, {}).update((int(task), good) for task, good in seen.items())
        found.pop(self._host, None)
        return found

    def _settle(
        self,
        rows: list[dict[str, Any]],
        query: Mapping[str, Any] | None = None,
        again: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send endings in one request; return the answer."""
        query = {"worker": self._worker["uuid"], **(query or {})}
        answer: dict[str, Any] = self._ask("POST", "outcomes", body=rows, query=query, again=again)
        return answer

    def _ask(self, method: str, part: str, **request: Any) -> Any:
        """Ask about the run, or a part of it; a server that has moved may not know of it yet."""
        for last in (not self._moves, True):
            if not self._path:
                self._open()
            path = f"{self._path}/{part}" if part else self._path
            try:
                return self._site.ask(method, path, **request)
            except Refused as error:
                if last or error.status != NOT_FOUND:
                    raise
                self._path = ""
                self.enroll(self._tasks)
        raise AssertionError("the second try returns or raises")

    def _open(self) -> dict[str, Any]:
        """Find the run of the key, or create it."""
        run: dict[str, Any] = self._site.ask("POST", "runs", body=self._list)
        self._path = f"runs/{run['run']}"
        # Work of others may return bytes that are no thumbnail; a server of an earlier version knows none.
        self._shows = self._task_map is not None and "map" in run
        return run

    def _show(self, task_map: Mapping[str, Any]) -> None:
        """Send the map; without it the page shows less, and nothing else changes."""
        try:
            self._site.ask("PUT", f"{self._path}/map", body=task_map)
        except Refused as error:
            logger.warning("the server takes no map of this run (%s); its page shows none", error)

    def _claimed(self, answer: Mapping[str, Any]) -> list[Lease]:
        """Return the leases of an answer; say once that the run is paused, and once that it goes on."""
        paused = answer.get("paused", False)
        if paused != self._paused and (paused or answer["leases"]):
            self._paused = paused
            if paused:
                logger.warning(
                    "the run is paused on the server; this worker waits until it is resumed"
                )
            else:
                logger.warning("the run is resumed")
        return _leases(answer)

    def _bodies(self, endings: Mapping[str, Ending]) -> Iterator[list[dict[str, Any]]]:
        """Split endings into bodies that the server accepts."""
        rows: list[dict[str, Any]] = []
        errors = pictures = 0
        for id, ending in endings.items():
            shown = self._shows and ending.thumbnail is not None
            if len(rows) == _LEASES or errors == _ERRORS or pictures == _PICTURES:
                yield rows
                rows, errors, pictures = [], 0, 0
            errors += ending.error is not None
            pictures += shown
            rows.append(_row(id, ending, shown=shown))
        if rows:
            yield rows


def _hosted_api(home: Path, patience: float) -> Site:
    found = hosted_server(home)

    def find() -> tuple[str, tuple[str, str]]:
        nonlocal found
        # While another worker takes over there is none.
        with suppress(InvalidValue):
            found = hosted_server(home)
        return found

    return Site(found[0], auth=found[1], patience=patience, find=find)


def _pieces(whole: list[T], size: int) -> Iterator[list[T]]:
    return (whole[first : first + size] for first in range(0, len(whole), size))


def _clip(fraction: float | None) -> float | None:
    """Return a fraction between 0 and 1; work may report a little more."""
    return None if fraction is None else min(max(fraction, 0.0), 1.0)


def _row(id: str, ending: Ending, *, shown: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"lease": id, "seconds": ending.seconds, "error": None}
    if ending.error is not None:
        row["error"] = ending.error[-_LONGEST_ERROR:]
    if shown and ending.thumbnail is not None:
        row["thumbnail"] = base64.b64encode(ending.thumbnail).decode()
    return row


def _leases(answer: Mapping[str, Any]) -> list[Lease]:
    return [
        Lease(
            Task(each["task"], each["cost"]),
            each["lease"], each["attempt"], each["expires"], each["lease_count"],
        )
        for each in answer["leases"]
    ]  # fmt: skip
