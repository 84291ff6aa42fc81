"""The server as users start it: killed and started again, and the commands that manage it."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest

from tests.support.served_farm import served
from tests.support.services.farm import PASSWORD, USER

__all__ = ["served"]


def test_processes_hand_out_each_task_once_over_persistent_connections(served):
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


def test_acknowledged_changes_survive_the_death_of_the_server(served):
    token = served.log_in()
    run = served.ask("POST", "/api/v1/runs", {"count": 50}, token=token)[1]["run"]
    path = f"/api/v1/runs/{run}"
    worker = {"uuid": "w", "host": "here", "pid": 7}
    claim = {"worker": worker, "n": 30, "token": "abc"}
    leases = served.ask("POST", f"{path}/leases", claim, token=token)[1]["leases"]
    outcomes = [{"lease": lease["lease"], "seconds": 1} for lease in leases]
    assert served.ask("POST", f"{path}/outcomes?worker=w", outcomes[:20], token=token)[0] == 200
    served.kill()
    served.start()
    # A client whose answer was lost sends its request again, to a server that has just started.
    status, answer = served.ask("POST", f"{path}/outcomes?worker=w", outcomes, token=token)
    assert (status, answer) == (200, {"lost": []})
    again = served.ask("POST", f"{path}/leases", claim | {"n": 5, "again": True}, token=token)[1]
    assert len(again["leases"]) == 5
    seen = served.ask("GET", path, token=token)[1]
    assert [seen[name] for name in ("waiting", "leased", "done")] == [15, 5, 30]


@pytest.mark.parametrize("served", ["sqlite"], indirect=True)
def test_commands_manage_runs(served, cryotile):
    def farm(*words: str, status: int = 0) -> str:
        who = ("--url", served.address, "-u", USER, "-p", PASSWORD)
        return cryotile("farm", *who, *words, status=status)

    run = farm("create", "3").strip()
    assert farm("list").splitlines()[-1] == f"{run}\t3"
    assert "0 of 3 tasks done" in farm("info", run)
    token = served.log_in()
    served.ask("PUT", f"/api/runs/{run}/tasks/1", {"status": "done"}, token=token)
    served.ask("PUT", f"/api/runs/{run}/tasks/2", {"status": "computing"}, token=token)
    farm("reset", run)
    assert "1 of 3 tasks done, 0 computing, 1 waiting" in farm("info", run)
    farm("reset-all", run)
    assert "0 of 3 tasks done" in farm("info", run)
    farm("delete", run)
    assert "404" in farm("info", run, status=1)


def test_users_are_added_listed_and_removed(tmp_path, monkeypatch, call):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    def user(*words: str) -> tuple[int, str, str]:
        return call("user", *words, "--database-url", f"sqlite:///{tmp_path}/farm.db")

    code, said, warning = user("add", "ann", "--password", "weak", "--role", "admin")
    assert (code, said) == (0, "admin ann added\n")
    assert "easy to guess" in warning
    again = user("add", "ann", "--password", PASSWORD)
    assert again == (0, "admin ann has a new password\n", "")
    assert user("list")[1].startswith("ann\tadmin\t")
    assert user("add", "a b", "--password", PASSWORD)[0] == 2
    assert user("remove", "ann")[0] == 0
    assert user("remove", "ann")[0] == 1
    assert user("list") == (0, "", "")


@pytest.mark.parametrize("host", ["", "nosuch.invalid", "192.0.2.1", "a..b"])
def test_a_place_where_no_server_can_listen_is_refused_in_one_line(tmp_path, call, host):
    words = ("--host", host, "--database-url", f"sqlite:///{tmp_path}/farm.db")
    code, said, complaint = call("serve", *words)
    assert (code != 0, said) == (True, "")
    assert complaint.startswith("cryotile: host ")
    assert "give --host an address of this machine" in complaint
    assert complaint.count("\n") == 1


def test_a_port_that_is_in_use_is_refused_in_one_line(tmp_path, call, monkeypatch):
    monkeypatch.setattr("cryotile.cli.server._PATIENCE", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = ("--port", port, "--database-url", f"sqlite:///{tmp_path}/farm.db")
        code, said, complaint = call("serve", *words)
    assert (code, said) == (1, "")
    assert "Address already in use); give" in complaint
    assert complaint.count("\n") == 1


def test_an_unknown_database_is_named_in_one_line(call):
    code, _, complaint = call("serve", "--database-url", "mysql://nowhere")
    assert code == 2
    assert complaint.startswith("cryotile: ")
    assert complaint.count("\n") == 1
