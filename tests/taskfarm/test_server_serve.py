"""The server as users start it: processes of their own, killed and started again, and the commands around it."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

from tests.support.farm_server import PASSWORD
from tests.support.served_farm import Served, served
from tests.support.services.postgres import postgres

__all__ = ["postgres", "served"]


def test_processes_hand_out_each_task_once_over_connections_that_stay_open(served):
    with served.running():
        token = served.log_in()
        run = served.ask("POST", "/api/run", {"numTasks": 120}, token=token)[1]["uuid"]

        def work(name):
            connection = HTTPConnection("127.0.0.1", served.port, timeout=240)
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
