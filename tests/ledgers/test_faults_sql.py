"""Workers, connections and the database are killed; every task is still done, and none is settled twice.

Where something is killed, PostgreSQL runs with fsync on, SQLite with synchronous=FULL.  The short form kills some
twenty times and has 150 workers, the long form (``CRYOTILE_LONG=1``, ``make test-faults``) kills at least 200 times and
has 500 workers.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psycopg
import pytest

from cryotile.farm.task import Task
from cryotile.ledgers.sql.ledger import SqlLedger
from cryotile.ledgers.sql.runs import count, find_run
from cryotile.ledgers.sql.schema import TaskState
from cryotile.ledgers.sql.schema import tasks as task_rows
from cryotile.testing.leases import at, ended
from tests.support import forked
from tests.support.databases import open_database, url
from tests.support.disks import small_disk
from tests.support.mortal import TASKS_OF_A_LIFE, Death, check_deaths, draw_lives
from tests.support.mortal_sql import claim_all, work
from tests.support.services.pgbouncer import PgBouncer
from tests.support.services.postgres import Postgres
from tests.support.waiting import wait_until

__all__ = ["url"]

LONG = bool(os.environ.get("CRYOTILE_LONG"))
LIVES = 120 if LONG else 6
TASKS = TASKS_OF_A_LIFE * LIVES
OUTAGES = 40 if LONG else 6
WORKERS = 500 if LONG else 150


def start(url: str, directory: Path, deaths: tuple[Death, ...] = ()) -> ForkServerProcess:
    """Start a worker."""
    return forked.start(work, url, directory, TASKS, deaths, output=directory / "log")


@pytest.fixture
def scene(tmp_path) -> Path:
    """Return the directory in which workers record what they did."""
    for name in ("results", "deaths"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1])
def test_every_task_is_done_whenever_workers_die(url, scene, seed):
    lives, draw = draw_lives(seed, LIVES), random.Random(seed)

    def live(deaths: tuple[Death, ...], moment: float | None = None) -> int | None:
        return forked.exit_code(start(url, scene, deaths), moment)

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(live, lives)) == {-signal.SIGKILL}
        check_deaths(scene / "deaths", lives)
        # Some other workers are killed from outside, at any moment.
        sudden = [draw.uniform(0.2, 3.0) for _ in range(LIVES // 3)]
        codes = list(pool.map(lambda moment: live((), moment), sudden))
    assert live(()) == 0

    kills = 3 * LIVES + codes.count(-signal.SIGKILL)
    assert kills >= (200 if LONG else 12)
    check_results(url, scene, kills)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1])
def test_a_database_may_be_killed_and_started_again(scene, seed):
    """Killed, stopped without a checkpoint, stopped in good order, or only disconnected."""
    draw = random.Random(seed)
    with Postgres() as postgres:

        def cut() -> None:
            with psycopg.connect(postgres.url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )

        stops = [
            partial(postgres.stop, mode) for mode in (signal.SIGKILL, signal.SIGQUIT, signal.SIGINT)
        ]
        outages = [*stops, cut]
        workers = [start(postgres.url, scene) for _ in range(2)]
        for number in range(OUTAGES):
            wait_for_results(scene, draw.randint(1, TASKS // (2 * OUTAGES)), workers)
            outages[number % len(outages)]()
            # Some outages last until the workers have no tasks left.
            if number % 3 == 0:
                threading.Event().wait(draw.uniform(0.1, 0.5))
            postgres.start()
        assert [forked.exit_code(worker) for worker in workers] == [0, 0]
        check_results(postgres.url, scene, 0)


def wait_for_results(directory: Path, more: int, workers: list[ForkServerProcess]) -> None:
    """Wait until there are ``more`` new results, or no worker is left."""
    wanted = min(count_results(directory) + more, TASKS)
    wait_until(
        lambda: (
            count_results(directory) >= wanted or not any(worker.is_alive() for worker in workers)
        ),
        lambda: "no new results",
    )


def count_results(directory: Path) -> int:
    """Return the number of tasks that are done."""
    return sum(path.name.isdecimal() for path in (directory / "results").iterdir())


def check_results(url: str, directory: Path, kills: int) -> None:
    """Check that all tasks are settled once, acknowledged outcomes are kept, and the counts are right."""
    results = [path for path in (directory / "results").iterdir() if path.name.isdecimal()]
    assert all(path.read_text() == f"{path.name} " * 8 for path in results)
    lines = [line.split() for line in (directory / "outcomes").read_text().splitlines()]
    done = [index for index, good in lines if good == "1"]
    assert len(set(done)) == len(done)
    # A worker that joins later retries tasks that failed for good, so the last outcome counts.
    outcomes = {int(index): good == "1" for index, good in lines}
    # A task at which processes died three times has failed; all others are done.
    database = open_database(url)
    rows = database.read(lambda connection: connection.execute(task_rows.select()).all())
    states = {row.idx: TaskState(row.state) for row in rows}
    failed = {index for index, state in states.items() if state is TaskState.FAILED}
    assert 3 * len(failed) <= kills
    assert set(states.values()) <= {TaskState.DONE, TaskState.FAILED}
    assert {int(path.name) for path in results} | failed == set(states) == set(range(TASKS))
    assert all(
        states[index] is (TaskState.DONE if good else TaskState.FAILED)
        for index, good in outcomes.items()
    )
    run = find_run(database, "run/1")
    assert run is not None
    counts = count(database, run)
    assert (counts.done, counts.failed) == (TASKS - len(failed), len(failed))
    assert (counts.waiting, counts.leased, counts.returned) == (0, 0, 0)


@pytest.mark.timeout(600)
def test_eight_processes_that_claim_a_hundred_thousand_tasks_get_each_once(url, tmp_path):
    ledger = SqlLedger(url, "run/1")
    ledger.enroll([Task(index, float(index % 1000)) for index in range(100_000)])
    together, files = forked.barrier(8), [tmp_path / f"claimed-{number}" for number in range(8)]
    processes = [forked.start(claim_all, url, together, file) for file in files]
    assert [forked.exit_code(process) for process in processes] == [0] * 8
    claimed = Counter(int(index) for file in files for index in file.read_text().split())
    assert len(claimed) == 100_000
    assert set(claimed.values()) == {1}


def work_together(url: str) -> None:
    """Let many workers, each with its own ledger, claim and settle a run together."""
    tasks = [Task(index, 1.0) for index in range(2 * WORKERS)]
    SqlLedger(url, "many/1").enroll(tasks)
    start = threading.Barrier(WORKERS)

    def work(number: int) -> list[int]:
        ledger = SqlLedger(url, "many/1", host=f"host {number}")
        start.wait(500)
        done = []
        while leases := ledger.claim():
            assert ledger.settle(ended(*leases)) == set()
            done += [lease.task.index for lease in leases]
        return done

    with ThreadPoolExecutor(WORKERS) as pool:
        done = [index for part in pool.map(work, range(WORKERS)) for index in part]
    assert sorted(done) == [task.index for task in tasks]


@pytest.mark.timeout(600)
def test_many_workers_share_twenty_connections():
    with Postgres(connections=20, fsync=False) as postgres:
        work_together(postgres.url)


@pytest.mark.timeout(600)
def test_many_workers_share_three_connections_behind_pgbouncer():
    with (
        Postgres(connections=20, fsync=False) as postgres,
        PgBouncer(postgres, connections=3) as pgbouncer,
    ):
        work_together(pgbouncer.url)


def fill(path: Path) -> None:
    """Let a file take all free space."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_under_sqlite_loses_nothing_and_the_run_continues_when_there_is_space(tmp_path):
    with small_disk(tmp_path / "disk", "size=12m") as disk:
        ledger = SqlLedger(f"sqlite:///{disk}/farm.db", "run/1")
        ledger.enroll([Task(index, 1.0) for index in range(3000)])
        done = []
        for lease in ledger.claim(100):
            ledger.settle(ended(lease))
            done.append(lease)
        filler = disk / "filler"
        fill(filler)
        refused = threading.Event()
        find_reason = ledger._database._refused

        def note(*told):
            refused.set()
            return find_reason(*told)

        ledger._database._refused = note
        settled = set()

        def go_on() -> None:
            while leases := ledger.claim(500):
                assert not ledger.settle(ended(*leases))
                settled.update(lease.task.index for lease in leases)

        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(go_on)
            assert refused.wait(240)
            filler.unlink()
            rest.result(240)
        assert len(settled) == 2900
        assert not settled & {lease.task.index for lease in done}
        assert ledger.unsettled() == 0


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_a_worker_does_not_matter(url, monkeypatch, hours):
    right, wrong = SqlLedger(url, "run/1", lease=60.0), SqlLedger(url, "run/1", lease=60.0)
    right.enroll([Task(1, 1.0), Task(2, 1.0)])
    (mine,) = right.claim()
    import time

    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600 * hours)
    (other,) = wrong.claim()
    assert wrong.claim() == []
    assert wrong.renew(at(0.5, other)) == set()
    monkeypatch.undo()
    assert right.claim() == []
    assert right.settle(ended(mine)) == set()
    assert wrong.settle(ended(other)) == set()
    assert right.unsettled() == 0
