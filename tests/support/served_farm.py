"""A task-farm server in processes of its own, on each database, and requests to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.support.farm_server import basic
from tests.support.services.farm import PASSWORD, USER, FarmServer


class Served(FarmServer):
    """A running server."""

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = "",
        connection: HTTPConnection | None = None,
    ) -> tuple[int, Any]:
        """Send a request; return status and decoded body of the answer."""
        client = connection or HTTPConnection("127.0.0.1", self.port, timeout=240)
        headers = {"Content-Type": "application/json"} | (basic(token) if token else {})
        try:
            client.request(method, path, None if body is None else json.dumps(body), headers)
            answer = client.getresponse()
            text = answer.read()
        finally:
            if connection is None:
                client.close()
        return answer.status, json.loads(text) if text else None

    def log_in(self) -> str:
        """Return a token of the user."""
        client = HTTPConnection("127.0.0.1", self.port, timeout=240)
        client.request("GET", "/api/token", headers=basic(USER, PASSWORD))
        token = json.loads(client.getresponse().read())["token"]
        client.close()
        return str(token)


@pytest.fixture(params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Served]:
    """Start a server on each of the two databases."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres").url
    with Served(tmp_path, url) as server:
        yield server
