"""One request a batch: the requests of a worker of short tasks, and a task that kills its host at once."""

from __future__ import annotations

import signal
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest

from cryotile.backends import pull
from cryotile.backends.base import Attempt
from cryotile.backends.pull import LedgerSource, PullBackend
from cryotile.farm.task import ATTEMPTS, Progress, Task
from cryotile.ledgers.http import HttpLedger
from cryotile.ledgers.sql.ledger import SqlLedger
from cryotile.testing.leases import OpenLedger, await_claim, ended, ids
from tests.support import forked
from tests.support.farm_server import farm
from tests.support.mortal_sql import FATAL, work_on_a_fatal_task
from tests.support.services.farm import FarmServer

__all__ = ["farm"]

QUESTIONS = ("claim", "renew", "settle", "exchange", "release", "unsettled")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[FarmServer]:
    """A task-farm server."""
    with FarmServer(tmp_path_factory.mktemp("farm")) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "http"])
def open_ledger(request, tmp_path) -> OpenLedger:
    """Return a function that opens a ledger that settles and claims in one request."""
    own = uuid.uuid4().hex
    if request.param == "http":
        address = request.getfixturevalue("server").url
        return lambda host="here", key="run/1", lease=1.0: HttpLedger(
            address, f"{own}/{key}", lease=lease, host=host
        )
    sqlite = f"sqlite:///{tmp_path}/farm.db"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres").url
    return lambda host="here", key="run/1", lease=1.0: SqlLedger(
        url, f"{own}/{key}", lease=lease, host=host
    )


def alike(count: int) -> list[Task]:
    return [Task(index, 1.0) for index in range(count)]


def test_an_exchange_settles_ended_tasks_and_claims_waiting_ones(open_ledger):
    ledger = open_ledger(lease=60.0)
    ledger.enroll(alike(5))
    done, failed, back = ledger.claim(3)
    ledger.release(ids(back))
    lost, leases = ledger.exchange(ended(done, back) | ended(failed, error="no"), 10)
    assert lost == ids(back)
    assert sorted((lease.task.index, lease.attempt) for lease in leases) == [
        (1, 2), (2, 1), (3, 1), (4, 1)
    ]  # fmt: skip
    assert ledger.exchange(ended(*leases), 10) == (set(), [])
    assert ledger.unsettled() == 0


def test_many_long_errors_are_settled_in_one_exchange(open_ledger):
    ledger = open_ledger(lease=60.0)
    ledger.enroll(alike(200))
    errors = "".join(map(chr, range(0x4E00, 0x9800)))
    outcomes = ended(*ledger.claim(200), error=errors)
    lost, leases = ledger.exchange(outcomes, 200)
    assert lost == set()
    assert {lease.attempt for lease in leases} == {2}
    assert len(leases) == 200


def test_an_exchange_whose_answer_was_lost_happens_once(farm):
    run = farm.ask("POST", "/api/v1/runs", {"count": 5, "key": uuid.uuid4().hex + "/1"}).json["run"]
    worker = {"uuid": uuid.uuid4().hex, "host": "here", "pid": 1}
    path = f"/api/v1/runs/{run}"
    (lease,) = farm.ask("POST", f"{path}/leases", {"worker": worker}).json["leases"]
    outcomes = [{"lease": lease["lease"], "seconds": 1.0}]
    query = f"worker={worker['uuid']}&claim=2&token=abc"
    first = farm.ask("POST", f"{path}/outcomes?{query}", outcomes).json
    again = farm.ask("POST", f"{path}/outcomes?{query}&again=1", outcomes).json
    assert first == again
    assert (first["lost"], len(first["leases"])) == ([], 2)
    counts = farm.ask("GET", path).json
    assert (counts["done"], counts["leased"], counts["waiting"]) == (1, 2, 2)


def do_nothing(task: Task, progress: Progress) -> None:
    pass


def count_questions(ledger: object) -> Counter[str]:
    """Count the requests to a ledger from now on."""
    asked: Counter[str] = Counter()

    def count(name: str) -> None:
        original = getattr(ledger, name)

        def ask(*given):
            asked[name] += 1
            return original(*given)

        setattr(ledger, name, ask)

    for name in QUESTIONS:
        count(name)
    return asked


def test_a_worker_of_short_tasks_sends_one_request_a_batch(open_ledger, monkeypatch):
    # So that the tasks count as short on a slow machine.
    monkeypatch.setattr(pull, "_SHORT", 60.0)
    ledger = open_ledger(lease=300.0)
    asked = count_questions(ledger)
    done = list(PullBackend(ledger, children=1).run(alike(6000), do_nothing))
    assert len({outcome.task.index for outcome in done if outcome.error is None}) == 6000
    # A batch is a quarter of a second of work; no start is reported, and one renewal is due at the beginning.
    assert asked["exchange"] >= 1
    assert asked["renew"] <= 2
    assert sum(asked.values()) < 6000 / 20


def short_tasks(ledger: SqlLedger) -> LedgerSource:
    """Return the task source of a worker that has lately done short tasks."""
    task_source = LedgerSource(ledger, children=1)
    task_source.report({})
    for _ in range(10):
        task_source.stock()
        (task,) = task_source.take(1, lambda task: True)
        task_source.settle([Attempt(task, 1e-4, None)])
    task_source.stock()
    return task_source


def test_the_start_of_a_task_is_reported_only_if_the_task_is_not_short(tmp_path, monkeypatch):
    ledger = SqlLedger(f"sqlite:///{tmp_path}/farm.db", "run/1")
    ledger.enroll(alike(100))
    task_source = short_tasks(ledger)
    told = []
    ledger.renew = lambda fractions: told.extend(fractions.values()) or set()
    (task,) = task_source.take(1, lambda task: True)
    task_source.report({task: 0.0})
    assert told == []
    monkeypatch.setattr(pull, "_SHORT", 0.0)
    task_source.report({task: 0.5})
    assert told == [0.5]


def test_a_task_that_came_back_runs_alone_and_its_start_is_reported_first(open_ledger):
    dead, ledger = open_ledger(), open_ledger()
    dead.enroll(alike(3))
    assert len(dead.claim(3)) == 3
    returned = await_claim(ledger)
    assert [(lease.attempt, lease.lease_count, lease.suspect) for lease in returned] == [
        (1, 2, True)
    ] * 3
    ledger.release(ids(*returned))
    task_source = LedgerSource(ledger, children=4)
    task_source.stock()
    told = []
    ledger.renew = lambda fractions: told.append(list(fractions)) or set()
    taken = [task_source.take(4, lambda task: True) for _ in range(3)]
    assert [[task.index for task in tasks] for tasks in taken] == [[0], [1], [2]]
    assert [[int(id.partition("-")[0]) for id in leases] for leases in told] == [[0], [1], [2]]


def test_a_short_task_that_kills_its_host_fails_after_the_last_attempt(tmp_path):
    url, log = f"sqlite:///{tmp_path}/farm.db", tmp_path / "log"
    ends = []
    while not ends or ends[-1]:
        ends.append(forked.exit_code(forked.start(work_on_a_fatal_task, url, output=log)))
        assert len(ends) <= ATTEMPTS + 2
    assert ends[-1] == 0
    assert set(ends[:-1]) == {-signal.SIGKILL}
    assert len(ends) > ATTEMPTS
    errors = [line for line in log.read_text().splitlines() if line[0].isdecimal()]
    assert errors == [f"{FATAL} 3 workers died at this task and left no message"]
    assert SqlLedger(url, "run/1").unsettled() == 0
