"""The native API: a ledger over HTTP, many leases per call."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.support.farm_server import Farm, farm, sqlite_farm

__all__ = ["farm", "sqlite_farm"]

WORKER = {"uuid": "w", "host": "here", "pid": 7}


class Run:
    """A run of the native API."""

    def __init__(self, farm: Farm, **settings):
        self.farm = farm
        answer = farm.ask("POST", "/api/v1/runs", settings)
        assert answer.status_code in (200, 201)
        self.created = answer.status_code == 201
        self.path = f"/api/v1/runs/{answer.json['run']}"
        self.state = answer.json

    def ask(self, method, part="", body=None, **more):
        return self.farm.ask(method, self.path + part, body, **more)

    def claim(self, n=1, **more):
        return self.ask("POST", "/leases", {"worker": WORKER, "n": n} | more).json["leases"]

    def settle(self, *leases, query="worker=w", error=None):
        outcomes = [{"lease": each["lease"], "seconds": 1.5, "error": error} for each in leases]
        return self.ask("POST", f"/outcomes?{query}", outcomes).json

    def counts(self):
        seen = self.ask("GET").json
        return tuple(seen[name] for name in ("waiting", "leased", "done", "failed"))


@pytest.fixture
def key(request):
    """Return a key of the test's own: one database may serve several tests."""
    return f"{request.node.name}/1"


def test_tasks_are_claimed_costliest_first_and_settled_many_at_once(farm, key):
    run = Run(farm, key=key, tasks=[[0, 1.5], [1, 9], [7, 3]])
    assert run.created
    leases = run.claim(5)
    assert [(each["task"], each["cost"], each["attempt"]) for each in leases] == [
        (1, 9, 1), (7, 3, 1), (0, 1.5, 1)
    ]  # fmt: skip
    assert all(each["expires"] == 300 for each in leases)
    assert run.counts() == (0, 3, 0, 0)
    assert run.settle(*leases) == {"lost": []}
    assert run.settle(*leases) == {"lost": []}
    assert run.counts() == (0, 0, 3, 0)


def test_one_request_settles_a_batch_and_claims_the_next(farm, key):
    run = Run(farm, key=key, count=4)
    first = run.claim(2)
    answer = run.settle(*first, query="worker=w&claim=5")
    assert answer["lost"] == []
    assert [each["task"] for each in answer["leases"]] == [2, 3]
    assert "unsettled" not in answer
    answer = run.settle(answer["leases"][0], query="worker=w&claim=5")
    assert (answer["leases"], answer["unsettled"]) == ([], 1)
    assert run.ask("POST", "/outcomes?claim=1", []).status_code == 400


def test_a_worker_may_give_its_uuid_alone_or_be_found_by_its_leases(farm, key):
    run = Run(farm, key=key, count=4)
    name = "this-is-all-it-says"
    first = run.claim(2, worker=name)
    answer = run.settle(*first, query="claim=5")
    assert answer["lost"] == []
    assert [each["task"] for each in answer["leases"]] == [2, 3]
    assert run.settle(*answer["leases"], query="") == {"lost": []}
    workers = run.ask("GET", "/workers").json["workers"]
    assert [(w["uuid"], w["attempts"], w["leased"]) for w in workers] == [(name, 4, 0)]
    # The legacy API knows the same worker.
    other = Run(farm, key=f"{key}/other", count=1)
    assert other.claim(1, worker=farm.worker()) != []
    assert other.ask("GET", "/workers").json["workers"][0]["host"] == "here"


def test_a_claim_whose_answer_was_lost_gets_the_same_leases(farm, key):
    run = Run(farm, key=key, count=9)
    first = run.claim(3, token="abc")
    assert run.claim(3, token="abc", again=True) == first
    answer = run.settle(*first, query="worker=w&claim=3&token=def")
    again = run.settle(*first, query="worker=w&claim=3&token=def&again=1")
    assert again == answer
    assert run.counts() == (3, 3, 3, 0)


def test_a_released_task_costs_no_attempt(farm, key):
    run = Run(farm, key=key, count=1)
    for _ in range(5):
        (lease,) = run.claim()
        assert lease["attempt"] == 1
        run.ask("PATCH", "/leases", [{"lease": lease["lease"], "fraction": 0.5}])
        assert run.ask("DELETE", "/leases", [lease["lease"]]).status_code == 204
    assert run.counts() == (1, 0, 0, 0)


def test_only_the_started_task_of_a_dead_workers_batch_costs_an_attempt(farm, key):
    run = Run(farm, key=key, count=2)
    leases = run.claim(2)
    run.ask("PATCH", "/leases?worker=w", [{"lease": leases[1]["lease"], "fraction": 0}])
    farm.expire()
    assert [(each["task"], each["attempt"]) for each in run.claim(2)] == [(0, 1), (1, 2)]
    assert run.settle(*leases)["lost"] == sorted(each["lease"] for each in leases)
    lost = run.ask("PATCH", "/leases", [{"lease": each["lease"]} for each in leases]).json["lost"]
    assert len(lost) == 2


def test_failed_tasks_are_listed_with_their_error(farm, key):
    run = Run(farm, key=key, tasks=[[3, 1], [4, 2]], attempts=2)
    for attempt in (1, 2):
        run.settle(run.claim()[0], error=f"attempt {attempt}: \0 boom")
    assert run.counts() == (1, 0, 0, 1)
    (failed,) = run.ask("GET", "/tasks?state=failed").json["tasks"]
    assert (failed["task"], failed["attempts"], failed["host"]) == (4, 2, "here")
    assert failed["error"] == "attempt 2: \ufffd boom"
    assert run.ask("GET", "/tasks?state=done").json == {"tasks": [], "next": None}
    assert run.ask("GET", "/outcomes_elsewhere?tasks=3,4").json == {"hosts": {"here": {"4": False}}}
    assert run.ask("GET", "/tasks?state=waiting").status_code == 400


def test_tasks_come_in_pages(farm, key):
    run = Run(farm, key=key, count=7)
    run.settle(*run.claim(7))
    seen, after = [], -1
    while after is not None:
        page = run.ask("GET", f"/tasks?state=done&limit=3&after={after}").json
        seen += [task["task"] for task in page["tasks"]]
        after = page["next"]
    assert seen == list(range(7))


def test_tasks_are_enrolled_in_pieces_by_several_workers(farm, key):
    settings = {"key": key, "name": "ice", "lease": 60, "attempts": 5}
    run = Run(farm, **settings)
    piece = {"tasks": [[index, 1] for index in range(2000)]} | settings
    packed = gzip.compress(json.dumps(piece).encode())
    for _ in range(2):
        answer = run.farm.ask(
            "POST",
            "/api/v1/runs",
            data=packed,
            headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
        )
        assert (answer.status_code, answer.json["tasks"]) == (200, 2000)
    again = Run(farm, key=key, tasks=[[index, 1] for index in range(1500, 2500)])
    assert not again.created
    assert again.state["tasks"] == 2500
    assert (again.state["lease"], again.state["attempts"], again.state["name"]) == (60, 5, "ice")


def test_a_task_that_is_settled_during_the_scan_stays_settled(farm, key):
    seen = Run(farm, key=key, tasks=[[0, 2], [1, 1]]).state["clock"]
    run = Run(farm, key=key)
    # SQLite's clock has milliseconds, and a task settled in the millisecond of the scan counts as settled before it.
    while run.ask("GET").json["clock"] == seen:
        pass
    run.settle(*run.claim(1))
    Run(farm, key=key, tasks=[[0, 2], [1, 1]], seen=seen)
    assert run.counts() == (1, 0, 1, 0)
    seen = run.ask("GET").json["clock"]
    Run(farm, key=key, tasks=[[0, 2]], seen=seen)
    assert run.counts() == (2, 0, 0, 0)


def test_a_range_is_enrolled_once(farm, key):
    for _ in range(2):
        run = Run(farm, key=key, count=5)
    assert run.state["tasks"] == 5
    assert farm.ask("POST", "/api/v1/runs", {"key": key, "count": 6}).status_code == 400


def test_workers_are_listed_with_the_age_of_their_last_call(farm, key):
    run = Run(farm, key=key, count=3)
    run.settle(*run.claim(2))
    run.claim(1)
    (worker,) = run.ask("GET", "/workers").json["workers"]
    assert worker.pop("age") < 60
    assert worker.pop("number") > 0
    assert worker == WORKER | {
        "leased": 1, "done": 2, "failed": 0, "attempts": 2, "memory": None, "stuck": False
    }  # fmt: skip


def test_events_give_the_counts_and_end_with_the_run(farm, key):
    run = Run(farm, key=key, count=1)
    run.settle(*run.claim())
    answer = run.ask("GET", "/events")
    assert answer.mimetype == "text/event-stream"
    (event,) = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    assert json.loads(event.removeprefix("data: "))["done"] == 1


def test_metrics_are_numbers_by_run_and_state(farm, key):
    run = Run(farm, key=key, count=4)
    run.settle(*run.claim(3)[:1])
    uuid = run.state["run"]
    text = farm.ask("GET", "/metrics").text
    for state, value in (("waiting", 1), ("leased", 2), ("done", 1), ("failed", 0)):
        assert f'cryotile_tasks{{run="{uuid}",state="{state}"}} {value}\n' in text


def test_sql_sees_progress_in_a_view(farm, key):
    run = Run(farm, key=key, count=4)
    run.settle(*run.claim(3)[:1])
    ((*row,),) = farm.sql(
        "SELECT waiting, leased, done, failed, percent_done FROM run_progress WHERE key = :key", key=key
    )  # fmt: skip
    assert row == [1, 2, 1, 0, 25]


WRONG = [
    ("POST", "", {"tasks": [[0, 1], [0, 2]]}),
    ("POST", "", {"tasks": [[-1, 1]]}),
    ("POST", "", {"tasks": [[0.5, 1]]}),
    ("POST", "", {"tasks": [[0]]}),
    ("POST", "", {"tasks": [[0, None]]}),
    ("POST", "", {"tasks": [[2**63, 1]]}),
    ("POST", "", {"tasks": [[0, 10**400]]}),
    ("POST", "", {"tasks": {"0": 1}}),
    ("POST", "", {"count": 0}),
    ("POST", "", {"count": 3, "tasks": [[0, 1]]}),
    ("POST", "", {"key": ""}),
    ("POST", "", {"key": "a\0"}),
    ("POST", "", {"key": "\ud800"}),
    ("POST", "", {"key": "0" * 32}),
    ("POST", "", {"lease": 0}),
    ("POST", "", {"attempts": 0}),
    ("POST", "", {"seen": "now", "tasks": [[0, 1]]}),
    ("POST", "", {"more": 1}),
    ("POST", "/R/leases", {}),
    ("POST", "/R/leases", {"worker": WORKER, "n": 0}),
    ("POST", "/R/leases", {"worker": WORKER, "n": 10_001}),
    ("POST", "/R/leases", {"worker": WORKER, "token": "xyz"}),
    ("POST", "/R/leases", {"worker": WORKER, "again": 1}),
    ("POST", "/R/leases", {"worker": WORKER | {"pid": 2**31}}),
    ("POST", "/R/leases", {"worker": "a worker"}),
    ("POST", "/R/leases", {"worker": 7}),
    ("PATCH", "/R/leases", {"lease": "0-1"}),
    ("PATCH", "/R/leases", [{"fraction": 1}]),
    ("PATCH", "/R/leases", [{"lease": "0-1", "fraction": 1.1}]),
    ("PATCH", "/R/leases", [{"lease": 1}]),
    ("DELETE", "/R/leases", [1]),
    ("DELETE", "/R/leases", "0-1"),
    ("POST", "/R/outcomes", [{"lease": "0-1"}]),
    ("POST", "/R/outcomes", [{"lease": "0-1", "seconds": -1}]),
    ("POST", "/R/outcomes", [{"lease": "0-1", "seconds": 1, "error": 1}]),
    ("POST", "/R/outcomes?claim=x&worker=w", []),
    ("POST", "/R/outcomes?claim=1", [{"lease": "0-1", "seconds": 1}]),
    ("POST", "/R/outcomes?claim=1&worker=w&again=2", []),
    ("GET", "/R/tasks?state=leased&limit=0", None),
    ("GET", "/R/tasks?state=leased&after=99999999999999999999", None),
    ("GET", "/R/outcomes_elsewhere", None),
    ("GET", "/R/outcomes_elsewhere?tasks=1,,2", None),
]


def test_invalid_values_are_refused(farm):
    run = Run(farm, count=1)
    run.claim()
    for method, path, body in WRONG:
        address = "/api/v1/runs" + path.replace("R", run.state["run"], 1)
        answer = farm.ask(method, address, body)
        assert answer.status_code == 400, (method, path, body)
        assert answer.json["error"]


EXPLAINED = [
    ("POST", "/R/leases", {"worker": WORKER, "n": 0}, "n = 0 is invalid: expected `int` >= 1; see"),
    ("PATCH", "/R/leases", [{"lease": "a", "fraction": 2}], "[0].fraction = 2 is invalid: expected `float` <= 1.0"),
    ("POST", "", {"tasks": [[0, "x"]]}, "tasks[0][1] = 'x' is invalid: expected `float`, got `str`"),
    ("POST", "", {"more": 1}, "the body = {'more': 1} is invalid: object contains unknown field `more`"),
    ("POST", "", {"key": "a\n"}, "key = 'a\\n' is invalid: expected `str` matching regex"),
    ("POST", "", {"tasks": [[0, 1], [0, 2]]}, "tasks contains an index twice; list each index once"),
    ("GET", "/R/tasks", None, "the query = {} is invalid: object missing required field `state`"),
    ("GET", "/R/tasks?state=waiting", None, "state = 'waiting' is invalid: choose done or failed or leased"),
]  # fmt: skip


def test_errors_name_value_rule_and_remedy(sqlite_farm):
    run = sqlite_farm.run(1)
    for method, path, body, expected in EXPLAINED:
        address = "/api/v1/runs" + path.replace("R", run, 1)
        error = sqlite_farm.ask(method, address, body).json["error"]
        assert error.startswith(expected)
        assert "\n" not in error
        assert len(error) < 300
    error = sqlite_farm.ask("PUT", f"/api/runs/{run}/tasks/0", {"status": "x" * 999}).json["error"]
    assert error.endswith("is invalid: choose computing or done or waiting; correct it")


def test_integral_floats_are_integers_to_json(sqlite_farm):
    run = Run(sqlite_farm, count=3.0)
    assert run.state["tasks"] == 3
    assert len(run.claim(2.0)) == 2


def test_unknown_lease_ids_are_lost_leases(farm):
    run = Run(farm, count=2)
    run.claim(2)
    odd = [
        "",
        "x",
        "0",
        "0-",
        "-0-1",
        "0-zz",
        "0-" + "f" * 40,
        "9" * 40 + "-1",
        "0-1",
        "é-1",
        "0\0-1",
        "\ud800",
    ]
    lost = run.ask("PATCH", "/leases", [{"lease": each} for each in odd]).json["lost"]
    assert sorted(lost) == sorted(odd)
    lost = run.settle(*[{"lease": each} for each in odd])["lost"]
    assert sorted(lost) == sorted(odd)
    assert run.ask("DELETE", "/leases", odd).status_code == 204
    assert run.counts() == (0, 2, 0, 0)


def test_an_unreachable_database_is_answered_with_retry_after(sqlite_farm):
    with sqlite_farm.without_database():
        answer = sqlite_farm.client.get("/healthz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
