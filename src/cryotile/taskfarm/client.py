"""Clients that speak the verbs of the task farm's first server, with the names that its users' programs have.

The names of classes, methods and arguments are those of the PyPI package ``taskfarm-worker``, so that a program needs
to change its import line only.  What is new: calls have timeouts and are made again when the server does not answer.
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
"""Where a server is when nothing else is said."""


class WrongUse(InvalidValue, RuntimeError):
    """A call that cannot mean anything; programs written for the first client expect a RuntimeError."""


def log_in(
    username: str, password: str, url_base: str = LOCAL, *, verify: bool | str = True
) -> Site:
    """Exchange a password for a token, which is quicker to check.

    Parameters
    ----------
    username, password : str
        Who asks; or a token and nothing.
    url_base : str
        Address of the API, e.g. ``http://localhost:5000/api/``.
    verify : bool or str
        Whether certificates are checked, or the file of the authority to check them by.

    Returns
    -------
    Site
        The API, to be asked with the token.

    Raises
    ------
    Refused
        The password is wrong.
    Unanswered
        No server is there.
    """
    site = Site(url_base, auth=(username, password), verify=verify)
    # A token has no password, and is none's to be had for a token: it serves as it is.
    if password:
        site.auth = (site.ask("GET", "token", patience=0.0)["token"], "")
    return site


def tfRuns(  # noqa: N802 - the name that users' programs have
    username: str, password: str, url_base: str = LOCAL
) -> list[dict[str, Any]]:
    """List the runs of a server.

    Parameters
    ----------
    username, password : str
        Who asks.
    url_base : str
        Address of the API.

    Returns
    -------
    list of dict
        Of each run ``id``, ``uuid`` and ``numTasks``, in the order of their creation.
    """
    site = Site(url_base, auth=(username, password))
    runs: list[dict[str, Any]] = site.ask("GET", "runs", patience=0.0)["data"]
    return runs


class TaskFarm:
    """A run on a task-farm server: one that is there, or a new one.

    Parameters
    ----------
    username, password : str
        Who asks; or a token and nothing.
    uuid : str, optional
        Names a run that is there.
    numTasks : int, optional
        How many tasks a new run has; needed when no uuid is given.
    url_base : str
        Address of the API.

    Raises
    ------
    RuntimeError
        Neither ``uuid`` nor ``numTasks`` is given, or the server refuses.
    ConnectionError
        No server is there.
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
                "a new run needs a number of tasks; give numTasks=100, or the uuid of a run"
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
        """The connections to the server."""
        return self._site.session

    @property
    def token_auth(self) -> HTTPBasicAuth:
        """The token, as requests takes it."""
        return HTTPBasicAuth(*(self._site.auth or ("", "")))

    @property
    def uuid(self) -> str:
        """Names the run."""
        return self._uuid

    @property
    def numTasks(self) -> int:  # noqa: N802
        """Number of tasks."""
        return self._num_tasks

    @property
    def numWaiting(self) -> int:  # noqa: N802
        """Number of tasks that wait again after a worker had them."""
        return int(self.info("numWaiting"))

    @property
    def numDone(self) -> int:  # noqa: N802
        """Number of tasks that are done."""
        return int(self.info("numDone"))

    @property
    def numComputing(self) -> int:  # noqa: N802
        """Number of tasks that workers have."""
        return int(self.info("numComputing"))

    @property
    def percentDone(self) -> float:  # noqa: N802
        """Percentage of the run that is done, with the parts of tasks."""
        return float(self.info("percentDone"))

    def url(self, url: str) -> str:
        """Return the address of something below the API."""
        return self._site.base + url

    def info(self, info: str) -> Any:
        """Ask about the run.

        Parameters
        ----------
        info : str
            ``percentDone``, ``numWaiting``, ``numDone`` or ``numComputing``; empty for all there is, as a dict.
        """
        return self._info(f"runs/{self._uuid}", info)

    def getTaskInfo(self, task: int, info: str) -> Any:  # noqa: N802
        """Ask about a task.

        Parameters
        ----------
        task : int
            Which, counted from 0.
        info : str
            ``status`` or ``percentCompleted``; empty for all there is, as a dict.
        """
        return self._info(self._task_path(task), info)

    def setTaskInfo(self, task: int, info: str, value: Any) -> None:  # noqa: N802
        """Change a task.

        Parameters
        ----------
        task : int
            Which, counted from 0.
        info : str
            ``status`` or ``percentCompleted``.
        value : str or float
            ``waiting``, ``computing`` or ``done``; or a percentage.
        """
        self._site.ask("PUT", self._task_path(task), body={info: value})

    def restart(self, everything: bool = False) -> None:
        """Let tasks that are not done wait again; with ``everything`` all tasks."""
        self._site.ask("POST", f"runs/{self._uuid}/restart", query={"all": str(everything)})

    def delete(self) -> None:
        """Remove the run from the server."""
        # Asked again after a lost answer it would be unknown.
        self._site.ask("DELETE", f"runs/{self._uuid}", repeatable=False)

    def _info(self, path: str, info: str) -> Any:
        answer = self._site.ask("GET", path, query={"info": info})
        return answer[info] if info else answer

    def _task_path(self, task: int) -> str:
        if not 0 <= task < self._num_tasks:
            raise WrongUse(
                f"task {task} is none of this run's; it has tasks 0 to {self._num_tasks - 1}"
            )
        return f"runs/{self._uuid}/tasks/{task}"


class TaskFarmWorker(TaskFarm):
    """A worker at the tasks of a run.

    Parameters
    ----------
    username, password : str
        Who asks; or a token and nothing.
    uuid : str
        Names the run.
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
        # The first server knows no worker twice.
        self._site.ask("POST", "worker", body=worker, repeatable=False)
        self._task: int | None = None
        self._percentage = 0.0

    @property
    def worker_uuid(self) -> str:
        """Names the worker."""
        return self._worker_uuid

    @property
    def task(self) -> int | None:
        """The task in hand, claimed if there is none; None when nothing is left to claim."""
        if self._task is None:
            path, body = f"runs/{self._uuid}/task", {"worker_uuid": self._worker_uuid}
            if (claimed := self._site.ask("POST", path, body=body)) is not None:
                self._task = int(claimed["task"])
                self._percentage = claimed["percentCompleted"]
        return self._task

    @property
    def tasks(self) -> Iterator[int]:
        """Tasks, one after the other, until nothing is left to claim."""
        while (task := self.task) is not None:
            yield task

    def update(self, percentage: float) -> None:
        """Say how far the task in hand is.

        Parameters
        ----------
        percentage : float
            0 to 100.

        Raises
        ------
        ValueError
            It is less or more.
        """
        if self._task is None:
            return
        if not 0 <= percentage <= 100:
            raise InvalidValue(
                f"percentage {percentage} of a task is not from 0 to 100; give how much is done"
            )
        self.setTaskInfo(self._task, "percentCompleted", percentage)
        self._percentage = percentage

    def done(self) -> None:
        """Part from the task in hand; it counts as done if it was updated to 100 %, else it is left as it is."""
        if self._task is None:
            return
        if self._percentage == 100:
            self.setTaskInfo(self._task, "status", "done")
        self._task = None
