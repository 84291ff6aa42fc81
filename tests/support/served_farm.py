"""A task-farm server in processes of its own, as users start it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

from tests.support.farm_server import PASSWORD, basic


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Served:
    """``cryotile serve`` with a database, and questions to it."""

    def __init__(self, url, home):
        self.port = _free_port()
        self.environment = os.environ | {"XDG_DATA_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        self.environment.pop("CRYOTILE_SECRET_KEY", None)
        self.url = url

    def cryotile(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "cryotile", *arguments],
            env=self.environment, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip

    def farm(self, *arguments):
        address = f"http://127.0.0.1:{self.port}"
        return self.cryotile("farm", "--url", address, "-u", "ann", "-p", PASSWORD, *arguments)

    @contextmanager
    def running(self):
        command = [
            sys.executable,
            "-m",
            "cryotile",
            "serve",
            "--port",
            str(self.port),
            "--database-url",
            self.url,
        ]
        server = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            self._wait(server)
            yield server
        finally:
            # The session is the server's alone; what was killed before is no more.
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            server.stdout.close()

    def _wait(self, server):
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and server.poll() is None:
            try:
                if self.ask("GET", "/healthz")[0] == 200:
                    return
            except OSError:
                # Nothing tells that a port is open but asking.
                time.sleep(0.05)
        pytest.fail("the server did not start")

    def ask(self, method, path, body=None, *, token="", connection=None):
        client = connection or HTTPConnection("127.0.0.1", self.port, timeout=240)
        try:
            client.request(
                method,
                path,
                None if body is None else json.dumps(body),
                basic(token) if token else {},
            )
            answer = client.getresponse()
            text = answer.read()
        finally:
            if connection is None:
                client.close()
        return answer.status, json.loads(text) if text else None

    def log_in(self):
        client = HTTPConnection("127.0.0.1", self.port, timeout=240)
        client.request("GET", "/api/token", headers=basic("ann", PASSWORD))
        token = json.loads(client.getresponse().read())["token"]
        client.close()
        return token


@pytest.fixture(params=["sqlite", "postgresql"])
def served(request, tmp_path):
    sqlite = f"sqlite:///{tmp_path}/farm.db"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres").url
    made = Served(url, tmp_path)
    assert (
        made.cryotile(
            "user", "add", "ann", "--password", PASSWORD, "--database-url", url
        ).returncode
        == 0
    )
    return made
