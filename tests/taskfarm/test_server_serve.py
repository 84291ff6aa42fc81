"""The server as users start it: killed and started again, and the commands that manage it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

from tests.support.served_farm import Served, served
from tests.support.services.farm import PASSWORD

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


def test_commands_manage_runs(served):
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
    served = Served(tmp_path)
    added = served.cryotile(
        "user", "add", "ann", "--password", "weak", "--role", "admin", *served.database
    )
    assert added.stdout == "admin ann added\n"
    assert "easy to guess" in added.stderr
    again = served.cryotile("user", "add", "ann", "--password", PASSWORD, *served.database)
    assert (again.stdout, again.stderr) == ("admin ann has a new password\n", "")
    assert served.cryotile("user", "list", *served.database).stdout.startswith("ann\tadmin\t")
    wrong = served.cryotile("user", "add", "a b", "--password", PASSWORD, *served.database)
    assert wrong.returncode == 2
    assert served.cryotile("user", "remove", "ann", *served.database).returncode == 0
    assert served.cryotile("user", "remove", "ann", *served.database).returncode == 1
    assert served.cryotile("user", "list", *served.database).stdout == ""


def test_an_unknown_database_is_named_in_one_line(tmp_path):
    answer = Served(tmp_path, "mysql://nowhere").cryotile(
        "serve", "--database-url", "mysql://nowhere"
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith("cryotile: ")
    assert answer.stderr.count("\n") == 1
