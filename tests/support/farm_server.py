"""A task-farm server without a network: the application, called as one of several users."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import text

from cryotile.taskfarm.server import ServerSettings, accounts, create_app

SECRET = "a key for tests alone"
PASSWORD = "correct horse battery staple"

_numbers = count()


def basic(name: str, password: str = "") -> dict[str, str]:
    """Return the header of HTTP Basic."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


class Farm:
    """A server with the user ``ann``, and others when a test first calls as them."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.url = url
        self.settings = ServerSettings(database_url=url, secret_key=SECRET, **settings)
        self.app = create_app(self.settings)
        self.client = self.app.test_client()
        self.database = self.app.extensions["cryotile"].database
        # One database may serve several farms, so that each has its own user names.
        self._suffix = next(_numbers)
        self._tokens: dict[str, str] = {}

    def name(self, user: str) -> str:
        return f"{user}{self._suffix}"

    def token(self, user: str = "ann", role: str = "user") -> str:
        if user not in self._tokens:
            with self.app.app_context():
                accounts.add_user(self.name(user), PASSWORD, role)
                known = accounts.find_user(self.name(user))
                self._tokens[user] = accounts.issue_token(known.id, known.name, 3600)
        return self._tokens[user]

    def ask(
        self, method: str, path: str, body: Any = None, *, user: str = "ann", **more: Any
    ) -> Any:
        """Send a request and return the response, which is never a 500."""
        headers = basic(self.token(user)) | more.pop("headers", {})
        if body is not None:
            more["json"] = body
        response = self.client.open(path, method=method, headers=headers, **more)
        assert response.status_code != 500
        return response

    def sql(self, statement: str, **parameters: Any) -> Any:
        """Execute a statement on the server's database."""
        return self.database.change(
            lambda connection: (
                list(r)
                if (r := connection.execute(text(statement), parameters)).returns_rows
                else None
            )
        )

    @contextmanager
    def without_database(self) -> Iterator[None]:
        """Let every use of the database fail, as on a broken disk."""
        failure = self.database.engine.dialect.loaded_dbapi.OperationalError("disk I/O error")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.database, "_patience", 0.0)
            patch.setattr(self.database, "_use", Mock(side_effect=failure))
            yield

    def expire(self) -> None:
        """Make every lease expire now."""
        self.sql("UPDATE tasks SET expires = 1 WHERE expires IS NOT NULL")

    # Calls of the legacy API.

    def run(self, tasks: int, user: str = "ann") -> str:
        return self.ask("POST", "/api/run", {"numTasks": tasks}, user=user).json["uuid"]

    def worker(self, name: str = "w") -> str:
        self.ask("POST", "/api/worker", {"uuid": name, "hostname": "here", "pid": 7})
        return name

    def claim(self, run: str, worker: str = "w") -> int | None:
        answer = self.ask("POST", f"/api/runs/{run}/task", {"worker_uuid": worker})
        assert answer.status_code in (201, 204)
        return answer.json["task"] if answer.status_code == 201 else None

    def put(self, run: str, task: int, **changes: Any) -> int:
        return int(self.ask("PUT", f"/api/runs/{run}/tasks/{task}", changes).status_code)

    def info(self, run: str) -> dict[str, Any]:
        return self.ask("GET", f"/api/runs/{run}").json

    def counts(self, run: str) -> tuple[int, int, int]:
        """Return the numbers of waiting, computing and done tasks."""
        info = self.info(run)
        return info["numWaiting"], info["numComputing"], info["numDone"]


@pytest.fixture(params=["sqlite", "postgresql"])
def farm(request: Any, tmp_path: Any) -> Iterator[Farm]:
    """Create a server on each of the two databases."""
    sqlite = f"sqlite:///{tmp_path}/farm.db"
    made = Farm(sqlite if request.param == "sqlite" else request.getfixturevalue("postgres").url)
    yield made
    made.database.engine.dispose()


@pytest.fixture
def sqlite_farm(tmp_path: Any) -> Iterator[Farm]:
    """Create a server on SQLite, for tests that do not depend on the database."""
    made = Farm(f"sqlite:///{tmp_path}/farm.db")
    yield made
    made.database.engine.dispose()
