"""The legacy API: what its clients expect, and faults of the first server that must not return."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.support.farm_server import farm, sqlite_farm

__all__ = ["farm", "sqlite_farm"]


def test_a_fresh_run_counts_nothing(farm):
    run = farm.run(5)
    assert farm.info(run) | {"id": 0} == {
        "id": 0, "uuid": run, "numTasks": 5, "numWaiting": 0, "numComputing": 0, "numDone": 0, "percentDone": 0.0
    }  # fmt: skip
    assert len(run) == 32


def test_each_fact_of_a_run_can_be_asked_for_alone(farm):
    run = farm.run(2)
    for name in ("percentDone", "numWaiting", "numDone", "numComputing"):
        assert farm.ask("GET", f"/api/runs/{run}?info={name}").json == {name: 0}
    assert len(farm.ask("GET", f"/api/runs/{run}?info=").json) == 7
    assert farm.ask("GET", f"/api/runs/{run}?info=uuid").status_code == 404


def test_runs_are_listed_in_the_order_of_their_creation(farm):
    runs = [farm.run(size) for size in (3, 1, 2)]
    data = farm.ask("GET", "/api/runs").json["data"]
    assert [run["uuid"] for run in data] == runs
    assert [run["numTasks"] for run in data] == [3, 1, 2]
    assert all(set(run) == {"id", "numTasks", "uuid"} for run in data)


def test_tasks_are_handed_out_in_order(farm):
    run, _ = farm.run(3), farm.worker()
    assert [farm.claim(run) for _ in range(4)] == [0, 1, 2, None]
    assert farm.counts(run) == (0, 3, 0)


def test_a_claimed_task_has_the_members_that_the_first_server_gave(farm):
    run, _ = farm.run(1), farm.worker()
    answer = farm.ask("POST", f"/api/runs/{run}/task", {"worker_uuid": "w"})
    assert answer.status_code == 201
    assert answer.json | {"id": 0} == {
        "id": 0, "percentCompleted": 0, "status": "computing", "task": 0
    }  # fmt: skip


def test_a_task_set_back_to_waiting_is_handed_out_next(farm):
    run, _ = farm.run(5), farm.worker()
    assert [farm.claim(run) for _ in range(3)] == [0, 1, 2]
    assert farm.put(run, 1, status="waiting") == 204
    assert farm.counts(run) == (1, 2, 0)
    assert [farm.claim(run) for _ in range(2)] == [1, 3]


def test_the_progress_of_tasks_counts_for_the_run(farm):
    run, _ = farm.run(4), farm.worker()
    farm.claim(run)
    farm.put(run, 0, percentCompleted=50)
    assert farm.info(run)["percentDone"] == 12.5
    farm.put(run, 0, status="done", percentCompleted=100)
    farm.put(run, 3, percentCompleted=40)
    assert farm.info(run)["percentDone"] == 35
    assert farm.ask("GET", f"/api/runs/{run}/tasks/3?info=percentCompleted").json == {
        "percentCompleted": 40
    }


def test_restart_keeps_done_tasks_and_restart_all_keeps_none(farm):
    run, _ = farm.run(3), farm.worker()
    for task in range(3):
        farm.claim(run)
        farm.put(run, task, status="done", percentCompleted=100)
    assert farm.ask("POST", f"/api/runs/{run}/restart").status_code == 204
    assert farm.counts(run) == (0, 0, 3)
    assert farm.ask("POST", f"/api/runs/{run}/restart?all=True").status_code == 204
    assert farm.counts(run) == (3, 0, 0)
    assert farm.info(run)["percentDone"] == 0
    assert [farm.claim(run) for _ in range(4)] == [0, 1, 2, None]
    assert farm.counts(run) == (0, 3, 0)
    assert farm.ask("POST", f"/api/runs/{run}/restart?all=yes").status_code == 404


def test_a_deleted_run_is_unknown(farm):
    run = farm.run(2)
    assert farm.ask("DELETE", f"/api/runs/{run}").status_code == 204
    assert farm.ask("GET", f"/api/runs/{run}").status_code == 404
    assert farm.ask("DELETE", f"/api/runs/{run}").status_code == 404
    assert farm.ask("GET", "/api/runs").json["data"] == []


# Faults of the first server.


def test_a_dead_workers_task_is_handed_out_again(farm):
    run, _ = farm.run(2), farm.worker()
    assert [farm.claim(run), farm.claim(run), farm.claim(run)] == [0, 1, None]
    farm.put(run, 1, status="done")
    farm.expire()
    assert [farm.claim(run), farm.claim(run)] == [0, None]


def test_an_update_prolongs_the_lease_of_its_task_alone(farm):
    run, _ = farm.run(2), farm.worker()
    farm.claim(run), farm.claim(run)
    farm.expire()
    farm.put(run, 1, percentCompleted=10)
    assert [farm.claim(run), farm.claim(run)] == [0, None]


def test_a_task_set_computing_without_a_claim_has_no_lease(farm):
    run, _ = farm.run(2), farm.worker()
    farm.put(run, 0, status="computing")
    farm.put(run, 0, percentCompleted=10)
    farm.expire()
    assert [farm.claim(run), farm.claim(run)] == [1, None]
    farm.ask("POST", f"/api/runs/{run}/restart")
    assert farm.claim(run) == 0


def test_restart_does_not_take_tasks_from_living_workers(farm):
    run, _ = farm.run(3), farm.worker()
    farm.claim(run)
    farm.expire()
    farm.claim(run), farm.claim(run)
    farm.sql("UPDATE tasks SET expires = 1 WHERE idx = 1")
    farm.ask("POST", f"/api/runs/{run}/restart")
    assert farm.counts(run) == (2, 1, 0)


def test_a_task_at_100_percent_whose_worker_died_is_restarted(farm):
    run, _ = farm.run(1), farm.worker()
    farm.claim(run)
    farm.put(run, 0, percentCompleted=100)
    farm.expire()
    farm.ask("POST", f"/api/runs/{run}/restart")
    assert farm.counts(run) == (1, 0, 0)
    assert farm.claim(run) == 0


def test_every_waiting_task_can_be_claimed_after_any_changes(farm):
    draw = random.Random(7)
    run, _ = farm.run(40), farm.worker()
    for _ in range(60):
        task = draw.randrange(40)
        farm.ask("GET", f"/api/runs/{run}/tasks/{task}")
        farm.put(run, task, status=draw.choice(["waiting", "computing", "done"]))
        farm.put(run, task, percentCompleted=draw.random() * 100)
    _, computing, done = farm.counts(run)
    stored = Counter(
        farm.ask("GET", f"/api/runs/{run}/tasks/{task}").json["status"] for task in range(40)
    )
    assert (stored["computing"], stored["done"]) == (computing, done)
    claimed = []
    while (task := farm.claim(run)) is not None:
        claimed.append(task)
    assert len(claimed) == len(set(claimed)) == stored["waiting"]
    assert farm.counts(run) == (0, 40 - done, done)


def test_no_two_workers_get_the_same_task(farm):
    run = farm.run(60)

    def work(name: str) -> list[int]:
        farm.worker(name)
        tasks = []
        while (task := farm.claim(run, name)) is not None:
            tasks.append(task)
        return tasks

    farm.token()
    with ThreadPoolExecutor(4) as pool:
        claimed = [task for tasks in pool.map(work, "abcd") for task in tasks]
    assert sorted(claimed) == list(range(60))


def test_reading_tasks_creates_no_rows(farm):
    run = farm.run(40)
    farm.token()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: farm.ask("GET", f"/api/runs/{run}/tasks/{i % 40}"), range(120)))
    rows = "SELECT count(*) FROM tasks JOIN runs ON runs.id = run_id WHERE uuid = :run"
    assert farm.sql(rows, run=run) == [(0,)]


def test_a_percentage_must_be_between_0_and_100(sqlite_farm):
    run = sqlite_farm.run(1)
    for percent in [150, -20, None, "50", True, [50], {}, 1e400, "NaN"]:
        assert sqlite_farm.put(run, 0, percentCompleted=percent) == 400
        found = sqlite_farm.ask("GET", f"/api/runs/{run}/tasks/0").json
        assert (found["status"], found["percentCompleted"]) == ("waiting", 0)


def test_a_status_is_one_of_three(sqlite_farm):
    run = sqlite_farm.run(1)
    for status in [None, "finished", 1, [], "DONE", True, {"a": 1}]:
        assert sqlite_farm.put(run, 0, status=status, percentCompleted=10) == 400
        assert sqlite_farm.ask("GET", f"/api/runs/{run}/tasks/0").json["percentCompleted"] == 0


def test_a_run_has_a_number_of_tasks(sqlite_farm):
    for size in [None, 0, -3, 1.5, "7", True, 2**31, 2**63, 10**400, [], {}]:
        assert sqlite_farm.ask("POST", "/api/run", {"numTasks": size}).status_code == 400
        assert sqlite_farm.ask("GET", "/api/runs").json == {"data": []}


def test_bodies_other_than_objects_of_known_members_are_refused(sqlite_farm):
    run, _ = sqlite_farm.run(1), sqlite_farm.worker()
    for body in [[], [1, 2], "text", 7, None, {}, {"numTasks": 1, "more": 2}]:
        for method, path in (
            ("POST", "/api/run"),
            ("POST", "/api/worker"),
            ("POST", f"/api/runs/{run}/task"),
            ("PUT", f"/api/runs/{run}/tasks/0"),
        ):
            assert (
                sqlite_farm.ask(
                    method, path, data=b"null" if body is None else None, body=body
                ).status_code
                == 400
            )


def test_a_worker_may_register_twice(farm):
    worker = {"uuid": "0a-b", "hostname": "here", "pid": 7}
    first, second = (farm.ask("POST", "/api/worker", worker) for _ in range(2))
    assert first.status_code == second.status_code == 201
    assert first.json == second.json
    assert first.json["uuid"] == "0a-b"


def test_a_worker_needs_a_valid_uuid_host_and_pid(farm):
    for change in [
        {"pid": 2**31},
        {"pid": -1},
        {"pid": None},
        {"uuid": ""},
        {"uuid": "a\0"},
        {"uuid": "a" * 65},
        {"hostname": 7},
        {"hostname": "\ud800"},
        {"hostname": "a\0b"},
        {"uuid": [1]},
    ]:
        worker = {"uuid": "w", "hostname": "here", "pid": 7} | change
        assert farm.ask("POST", "/api/worker", worker).status_code == 400


def test_an_unknown_worker_claims_nothing(sqlite_farm):
    run = sqlite_farm.run(1)
    for worker in ("nobody", 7, None, ["w"], "a\0"):
        answer = sqlite_farm.ask("POST", f"/api/runs/{run}/task", {"worker_uuid": worker})
        assert answer.status_code == 404


def test_a_task_outside_the_run_is_unknown(farm):
    run = farm.run(5)
    for task in ["5", "-1", "x", "9" * 30, "1.5", "%00", "²"]:
        assert farm.ask("GET", f"/api/runs/{run}/tasks/{task}").status_code == 404
        assert (
            farm.ask("PUT", f"/api/runs/{run}/tasks/{task}", {"status": "done"}).status_code == 404
        )


def test_an_unknown_run_is_unknown(farm):
    farm.worker()
    for run in ["x", "0" * 32, "%00" * 32, "é" * 32, "' OR 1=1 --"]:
        for method, path, body in (
            ("GET", f"/api/runs/{run}", None),
            ("DELETE", f"/api/runs/{run}", None),
            ("POST", f"/api/runs/{run}/restart", None),
            ("POST", f"/api/runs/{run}/task", {"worker_uuid": "w"}),
            ("GET", f"/api/runs/{run}/tasks/0", None),
            ("PUT", f"/api/runs/{run}/tasks/0", {"status": "done"}),
        ):
            assert farm.ask(method, path, body).status_code == 404


def test_the_largest_run_costs_no_more_than_the_smallest(farm):
    run, _ = farm.run(2**31 - 1), farm.worker()
    assert farm.claim(run) == 0
    assert farm.put(run, 2**31 - 2, status="done") == 204
    assert farm.put(run, 2**31 - 1, status="done") == 404
    assert farm.counts(run) == (0, 1, 1)
    assert farm.ask("POST", f"/api/runs/{run}/restart?all=True").status_code == 204


def test_a_native_lease_is_settled_after_a_put_of_done_and_lost_after_one_of_waiting(farm):
    run = farm.run(1)
    worker = {"uuid": "w", "host": "here", "pid": 7}
    lease = farm.ask("POST", f"/api/v1/runs/{run}/leases", {"worker": worker}).json["leases"][0]
    outcome = [{"lease": lease["lease"], "seconds": 1}]
    farm.put(run, 0, status="done")
    answer = farm.ask("POST", f"/api/v1/runs/{run}/outcomes?worker=w", outcome)
    assert answer.json == {"lost": []}
    farm.put(run, 0, status="waiting")
    answer = farm.ask("POST", f"/api/v1/runs/{run}/outcomes?worker=w", outcome)
    assert answer.json == {"lost": [lease["lease"]]}
