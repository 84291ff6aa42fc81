"""The server as users start it: processes of their own, killed and started again, and the commands around it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

from farm_server import PASSWORD, basic
from services.postgres import postgres

__all__ = ["postgres"]


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
            env=self.environment, capture_output=True, text=True, check=False, timeout=120,
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
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and server.poll() is None:
            try:
                if self.ask("GET", "/healthz")[0] == 200:
                    return
            except OSError:
                # Nothing tells that a port is open but asking.
                time.sleep(0.05)
        pytest.fail("the server did not start")

    def ask(self, method, path, body=None, *, token="", connection=None):
        client = connection or HTTPConnection("127.0.0.1", self.port, timeout=60)
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
        client = HTTPConnection("127.0.0.1", self.port, timeout=60)
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


def test_processes_hand_out_each_task_once_over_connections_that_stay_open(served):
    with served.running():
        token = served.log_in()
        run = served.ask("POST", "/api/run", {"numTasks": 120}, token=token)[1]["uuid"]

        def work(name):
            connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
            connection.connect()
            place = connection.sock.getsockname()
            known = {"uuid": name, "hostname": "h", "pid": 1}
            served.ask("POST", "/api/worker", known, token=token, connection=connection)
            tasks = []
            while True:
                status, task = served.ask(
                    "POST", f"/api/runs/{run}/task", {"worker_uuid": name}, token=token, connection=connection
                )  # fmt: skip
                if status == 204:
                    assert connection.sock.getsockname() == place
                    connection.close()
                    return tasks
                assert status == 201
                tasks.append(task["task"])

        with ThreadPoolExecutor(4) as pool:
            claimed = [task for tasks in pool.map(work, "abcd") for task in tasks]
        assert sorted(claimed) == list(range(120))


def test_what_was_acknowledged_survives_the_death_of_the_server(served):
    with served.running() as server:
        token = served.log_in()
        run = served.ask("POST", "/api/v1/runs", {"count": 50}, token=token)[1]["run"]
        path = f"/api/v1/runs/{run}"
        worker = {"uuid": "w", "host": "here", "pid": 7}
        claim = {"worker": worker, "n": 30, "token": "abc"}
        leases = served.ask("POST", f"{path}/leases", claim, token=token)[1]["leases"]
        outcomes = [{"lease": lease["lease"], "seconds": 1} for lease in leases]
        assert served.ask("POST", f"{path}/outcomes?worker=w", outcomes[:20], token=token)[0] == 200
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    with served.running():
        # Its answer might have been lost: it is said once more, to a server that has just begun.
        status, answer = served.ask("POST", f"{path}/outcomes?worker=w", outcomes, token=token)
        assert (status, answer) == (200, {"lost": []})
        again = served.ask("POST", f"{path}/leases", claim | {"n": 5, "again": True}, token=token)[
            1
        ]
        assert len(again["leases"]) == 5
        seen = served.ask("GET", path, token=token)[1]
        assert [seen[name] for name in ("waiting", "leased", "done")] == [15, 5, 30]


def test_the_commands_look_after_runs(served):
    with served.running():
        run = served.farm("create", "3").stdout.strip()
        assert served.farm("list").stdout.splitlines()[-1] == f"{run}\t3"
        assert "0 of 3 tasks done" in served.farm("info", run).stdout
        token = served.log_in()
        served.ask("PUT", f"/api/runs/{run}/tasks/1", {"status": "done"}, token=token)
        served.ask("PUT", f"/api/runs/{run}/tasks/2", {"status": "computing"}, token=token)
        assert served.farm("reset", run).returncode == 0
        assert "1 of 3 tasks done, 0 computing, 1 waiting" in served.farm("info", run).stdout
        assert served.farm("reset-all", run).returncode == 0
        assert "0 of 3 tasks done" in served.farm("info", run).stdout
        assert served.farm("delete", run).returncode == 0
        gone = served.farm("info", run)
        assert gone.returncode == 1
        assert "404" in gone.stderr


def test_users_are_added_listed_and_removed(tmp_path):
    served = Served(f"sqlite:///{tmp_path}/farm.db", tmp_path)
    at = ("--database-url", served.url)
    added = served.cryotile("user", "add", "ann", "--password", "weak", "--role", "admin", *at)
    assert added.stdout == "admin ann added\n"
    assert "soon found by trying" in added.stderr
    again = served.cryotile("user", "add", "ann", "--password", PASSWORD, *at)
    assert (again.stdout, again.stderr) == ("admin ann has a new password\n", "")
    assert served.cryotile("user", "list", *at).stdout.startswith("ann\tadmin\t")
    assert served.cryotile("user", "add", "a b", "--password", PASSWORD, *at).returncode == 2
    assert served.cryotile("user", "remove", "ann", *at).returncode == 0
    assert served.cryotile("user", "remove", "ann", *at).returncode == 1
    assert served.cryotile("user", "list", *at).stdout == ""


def test_a_server_without_a_database_says_so_in_a_line(tmp_path):
    served = Served("mysql://nowhere", tmp_path)
    answer = served.cryotile("serve", "--database-url", served.url)
    assert answer.returncode == 2
    assert answer.stderr.startswith("cryotile: ")
    assert answer.stderr.count("\n") == 1
