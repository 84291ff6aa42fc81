"""Clients of the legacy API, for programs written for the first task farm (PyPI's ``taskfarm-worker``).

Classes, methods and arguments have the names of that package, so that a program changes only its import line.  Unlike
there, calls have timeouts, are repeated if the server does not answer, and wait as long as its ``Retry-After`` says.
"""

from __future__ import annotations

import os
import socket
import uuid as uuids
from collections.abc import Iterator
from typing import Any

import requests
from requests.auth import HTTPBasicAuth

from cryotile.errors import InvalidValue
from cryotile.farm.http import Site

__all__ = ["LOCAL", "TaskFarm", "TaskFarmWorker", "log_in", "tfRuns"]

LOCAL = "http://localhost:5000/api/"
"""Default address of the API."""


class WrongUse(InvalidValue, RuntimeError):
    """An invalid call; programs written for the first client expect a RuntimeError."""


def log_in(
    username: str, password: str, url_base: str = LOCAL, *, verify: bool | str = True
) -> Site:
    """Exchange a password for a token, which the server checks faster.

    Parameters
    ----------
    username, password : str
        User name and password, or a token and an empty password.
    url_base : str
        Address of the API, e.g. ``http://localhost:5000/api/``.
    verify : bool or str
        Whether to check certificates, or the file of the authority to check them by.

    Returns
    -------
    Site
        The API, authenticated by the token.

    Raises
    ------
    Refused
        The password is wrong.
    Unanswered
        No server answers at the address.
    """
    site = Site(url_base, auth=(username, password), verify=verify)
    # A token has no password and needs no exchange.
    if password:
        site.auth = (site.ask("GET", "token", patience=0.0)["token"], "")
    return site


def tfRuns(  # noqa: N802 - the name that users' programs have
    username: str, password: str, url_base: str = LOCAL
) -> list[dict[str, Any]]:
    """Return the runs of a server.

    Parameters
    ----------
    username, password : str
        User name and password, or a token and an empty password.
    url_base : str
        Address of the API.

    Returns
    -------
    list of dict
        ``id``, ``uuid`` and ``numTasks`` of each run, in order of creation.
    """
    site = Site(url_base, auth=(username, password))
    runs: list[dict[str, Any]] = site.ask("GET", "runs", patience=0.0)["data"]
    return runs


class TaskFarm:
    """A run on a task-farm server, existing or new.

    Parameters
    ----------
    username, password : str
        User name and password, or a token and an empty password.
    uuid : str, optional
        Uuid of an existing run; by default a new run is created.
    numTasks : int, optional
        Number of tasks of a new run; required without ``uuid``.
    url_base : str
        Address of the API.

    Raises
    ------
    RuntimeError
        Neither ``uuid`` nor ``numTasks`` is given, or the server refuses.
    ConnectionError
        No server answers at the address.
    """

    def __init__(
        self,
        username: str,
        password: str,
        uuid: str | None = None,
        numTasks: int | None = None,
        url_base: str = LOCAL,
    ) -> None:
        if uuid is None and numTasks is None:
            raise WrongUse(
                "neither numTasks nor uuid is given; give numTasks=100 for a new run, or the uuid of an existing one"
            )
        self._site = log_in(username, password, url_base)
        if uuid is None:
            run = self._site.ask("POST", "run", body={"numTasks": numTasks}, repeatable=False)
        else:
            run = self._site.ask("GET", f"runs/{uuid}")
        self._uuid: str = run["uuid"]
        self._num_tasks: int = run["numTasks"]

    @property
    def session(self) -> requests.Session:
        """Connections to the server."""
        return self._site.session

    @property
    def token_auth(self) -> HTTPBasicAuth:
        """The token, as an argument of requests."""
        return HTTPBasicAuth(*(self._site.auth or ("", "")))

    @property
    def uuid(self) -> str:
        """Uuid of the run."""
        return self._uuid

    @property
    def numTasks(self) -> int:  # noqa: N802
        """Number of tasks."""
        return self._num_tasks

    @property
    def numWaiting(self) -> int:  # noqa: N802
        """Number of waiting tasks that a worker had before."""
        return int(self.info("numWaiting"))

    @property
    def numDone(self) -> int:  # noqa: N802
        """Number of tasks that are done."""
        return int(self.info("numDone"))

    @property
    def numComputing(self) -> int:  # noqa: N802
        """Number of tasks that workers hold."""
        return int(self.info("numComputing"))

    @property
    def percentDone(self) -> float:  # noqa: N802
        """Percentage of the run that is done, progress of unfinished tasks included."""
        return float(self.info("percentDone"))

    def url(self, url: str) -> str:
        """Return the address of a path of the API."""
        return self._site.base + url

    def info(self, info: str) -> Any:
        """Return one property of the run, or all of them.

        Parameters
        ----------
        info : str
            ``percentDone``, ``numWaiting``, ``numDone`` or ``numComputing``; empty for a dict of all properties.
        """
        return self._info(f"runs/{self._uuid}", info)

    def getTaskInfo(self, task: int, info: str) -> Any:  # noqa: N802
        """Return one property of a task, or all of them.

        Parameters
        ----------
        task : int
            Index of the task, from 0.
        info : str
            ``status`` or ``percentCompleted``; empty for a dict of all properties.
        """
        return self._info(self._task_path(task), info)

    def setTaskInfo(self, task: int, info: str, value: Any) -> None:  # noqa: N802
        """Set one property of a task.

        Parameters
        ----------
        task : int
            Index of the task, from 0.
        info : str
            ``status`` or ``percentCompleted``.
        value : str or float
            ``waiting``, ``computing`` or ``done``; or a percentage.
        """
        self._site.ask("PUT", self._task_path(task), body={info: value})

    def restart(self, everything: bool = False) -> None:
        """Put tasks that are not done back to waiting, or with ``everything`` all tasks."""
        self._site.ask("POST", f"runs/{self._uuid}/restart", query={"all": str(everything)})

    def delete(self) -> None:
        """Delete the run from the server."""
        # Repeated after a lost answer, the run would be unknown.
        self._site.ask("DELETE", f"runs/{self._uuid}", repeatable=False)

    def _info(self, path: str, info: str) -> Any:
        answer = self._site.ask("GET", path, query={"info": info})
        return answer[info] if info else answer

    def _task_path(self, task: int) -> str:
        if not 0 <= task < self._num_tasks:
            raise WrongUse(
                f"task {task} does not exist; this run has tasks 0 to {self._num_tasks - 1}"
            )
        return f"runs/{self._uuid}/tasks/{task}"


class TaskFarmWorker(TaskFarm):
    """A worker on the tasks of a run.

    Parameters
    ----------
    username, password : str
        User name and password, or a token and an empty password.
    uuid : str
        Uuid of the run.
    url_base : str
        Address of the API.

    Examples
    --------
    >>> farm = TaskFarmWorker("user", "secret", "da8eb1c1…")  # doctest: +SKIP
    >>> for task in farm.tasks:  # doctest: +SKIP
    ...     compute(task)
    ...     farm.update(100)
    ...     farm.done()
    """

    def __init__(self, username: str, password: str, uuid: str, url_base: str = LOCAL) -> None:
        super().__init__(username, password, uuid=uuid, url_base=url_base)
        self._worker_uuid = uuids.uuid1().hex
        worker = {"uuid": self._worker_uuid, "hostname": socket.gethostname(), "pid": os.getpid()}
        # The first server refuses a worker that is registered twice.
        self._site.ask("POST", "worker", body=worker, repeatable=False)
        self._task: int | None = None
        self._percentage = 0.0

    @property
    def worker_uuid(self) -> str:
        """Uuid of the worker."""
        return self._worker_uuid

    @property
    def task(self) -> int | None:
        """Index of the current task, claimed if there is none; None if no task is left to claim."""
        if self._task is None:
            path, body = f"runs/{self._uuid}/task", {"worker_uuid": self._worker_uuid}
            if (claimed := self._site.ask("POST", path, body=body)) is not None:
                self._task = int(claimed["task"])
                self._percentage = claimed["percentCompleted"]
        return self._task

    @property
    def tasks(self) -> Iterator[int]:
        """Indices of tasks, one after the other, until none is left to claim."""
        while (task := self.task) is not None:
            yield task

    def update(self, percentage: float) -> None:
        """Report the progress of the current task.

        Parameters
        ----------
        percentage : float
            Percentage of the task that is done, 0 to 100.

        Raises
        ------
        ValueError
            ``percentage`` is out of range.
        """
        if self._task is None:
            return
        if not 0 <= percentage <= 100:
            raise InvalidValue(
                f"percentage {percentage} is invalid: it must be between 0 and 100; give the part that is done"
            )
        self.setTaskInfo(self._task, "percentCompleted", percentage)
        self._percentage = percentage

    def done(self) -> None:
        """Leave the current task, as done if it was updated to 100 %, else as it is."""
        if self._task is None:
            return
        if self._percentage == 100:
            self.setTaskInfo(self._task, "status", "done")
        self._task = None
