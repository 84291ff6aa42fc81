"""A server whose database is unreachable for a while, full, or of another version; and the plans of its queries."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import text

from cryotile.errors import CryotileError
from cryotile.farm.task import Task
from cryotile.ledgers.base import Ending
from cryotile.ledgers.sql.ledger import SqlLedger
from cryotile.ledgers.sql.schema import TaskState
from cryotile.ledgers.sql.statements import (
    BACKLOG_OR_EXPIRED_LEFT,
    CLAIM,
    COUNT,
    FIND_SETTLED,
    REAP,
    RELEASE,
    RENEW,
    SETTLE,
)
from cryotile.taskfarm.server import create_app
from cryotile.taskfarm.server.legacy_api import FINISH, PERCENTS, SET_PERCENT
from cryotile.taskfarm.server.listing import LIST_RUNS, LIST_TASKS, SEE_RUN
from cryotile.taskfarm.server.watching import MINUTES, SAMPLES, SPANS
from tests.support.databases import new_database
from tests.support.farm_server import Farm, basic, sqlite_farm
from tests.support.services.pgbouncer import PgBouncer
from tests.support.services.postgres import Postgres

__all__ = ["sqlite_farm"]


def test_a_restart_of_postgresql_loses_no_acknowledged_change():
    with Postgres() as postgres:
        farm = Farm(postgres.url)
        run, _ = farm.run(20), farm.worker()
        assert [farm.claim(run) for _ in range(5)] == list(range(5))
        assert farm.put(run, 0, status="done") == 204
        postgres.stop(signal.SIGQUIT)
        with ThreadPoolExecutor(1) as pool:
            # Sent while PostgreSQL is down and answered when it is back, or with 503 if that takes long.
            headers = basic(farm.token())
            claimed = pool.submit(
                farm.client.post,
                f"/api/runs/{run}/task",
                json={"worker_uuid": "w"},
                headers=headers,
            )
            postgres.start()
            assert claimed.result().status_code in (201, 503)
        # A query that is not repeated may hit a dead connection.
        assert farm.ask("GET", "/api/token").status_code in (200, 503)
        assert farm.ask("GET", "/api/token").status_code == 200
        waiting, computing, done = farm.counts(run)
        assert (waiting, done) == (0, 1)
        assert computing in (4, 5)
        farm.database.engine.dispose()


def test_a_full_disk_under_sqlite_is_answered_with_503_until_it_has_room(sqlite_farm):
    run, _ = sqlite_farm.run(100_000), sqlite_farm.worker()
    token = sqlite_farm.token()
    sqlite_farm.database._patience = 0.0
    # SQLite gives the same error for a full disk and for its own limit.
    pages = sqlite_farm.sql("PRAGMA page_count")[0][0]
    with sqlite_farm.database.engine.connect() as connection:
        connection.execute(text(f"PRAGMA max_page_count = {pages}"))
    full = sqlite_farm.client.post(
        f"/api/runs/{run}/task", json={"worker_uuid": "w"}, headers=basic(token)
    )
    assert full.status_code == 503
    assert sqlite_farm.client.get("/healthz").status_code == 200
    with sqlite_farm.database.engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count = 1000000"))
    assert sqlite_farm.claim(run) == 0


def test_a_database_of_a_newer_version_is_refused(sqlite_farm):
    sqlite_farm.sql("UPDATE schema_versions SET version = 99 WHERE part = 'server'")
    with pytest.raises(CryotileError, match="version 99"):
        create_app(sqlite_farm.settings)


def test_a_transaction_pooler_in_front_of_postgresql_changes_nothing(
    postgres,
):
    with PgBouncer(postgres, connections=3) as pgbouncer:
        farm = Farm(pgbouncer.url)
        run, workers = farm.run(60), [farm.worker(f"w{number}") for number in range(6)]

        def work(worker: str) -> list[int]:
            done = []
            while (task := farm.claim(run, worker)) is not None:
                assert farm.put(run, task, percentCompleted=50) == 204
                assert farm.put(run, task, status="done", percentCompleted=100) == 204
                done.append(task)
            return done

        farm.token()
        with ThreadPoolExecutor(len(workers)) as pool:
            done = [task for part in pool.map(work, workers) for task in part]
        assert sorted(done) == list(range(60))
        assert farm.counts(run) == (0, 0, 60)
        # A prepared statement of one client would be executed by another one.
        assert farm.sql("SELECT name FROM pg_prepared_statements") == []
        farm.database.engine.dispose()


def test_a_claim_does_not_wait_for_another_claim_of_its_run(postgres):
    farm = Farm(postgres.url)
    run = farm.run(4)
    first = farm.claim(run, farm.worker("first"))
    with farm.database.engine.connect() as other:
        # Another transaction has claimed task 1 and not committed yet.
        other.execute(text("SELECT idx FROM tasks WHERE state = 0 AND idx = 1 FOR UPDATE"))
        assert farm.claim(run, "first") == 2
    assert first == 0
    farm.database.engine.dispose()


def test_the_plans_of_claims_counts_and_histories_read_tasks_by_an_index(sqlite_farm):
    for statement in (CLAIM, SETTLE, RENEW, RELEASE, REAP, FINISH):
        assert_searches(sqlite_farm, statement._sqlite)
    for question in (
        COUNT,
        FIND_SETTLED,
        BACKLOG_OR_EXPIRED_LEFT,
        PERCENTS,
        SET_PERCENT,
        SEE_RUN,
        LIST_RUNS,
        LIST_TASKS[TaskState.FAILED],
        SAMPLES,
        SPANS,
    ):
        assert_searches(sqlite_farm, question._texts["sqlite"])
    (minutes,) = assert_searches(sqlite_farm, MINUTES._texts["sqlite"])
    assert "COVERING INDEX tasks_settled" in minutes


def assert_searches(farm: Farm, statement: str) -> list[str]:
    """Check that a statement finds tasks by an index: by number, or among tasks of one state; return the steps."""
    given = dict.fromkeys(re.findall(r":(\w+)", statement), 0) | {"given": "[]"}
    with farm.database.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
        steps = [row.detail for row in plan if re.search(r"\btasks\b", row.detail)]
    whole = [step for step in steps if step.startswith("SCAN") or step.endswith("(run_id=?)")]
    # These indices hold the tasks of one state alone.
    assert all(re.search("INDEX tasks_(waiting|begun|failed)", step) for step in whole), steps
    return steps


def test_postgresql_reads_only_the_named_tasks_of_a_run_that_it_has_no_statistics_of(
    postgres,
):
    # A database of its own: its statistics are of these tasks alone.
    farm = Farm(new_database(postgres))
    farm.sql("""
        INSERT INTO tasks (run_id, idx, cost, state, lease_count, lease, settled, seconds, worker_id)
        SELECT -1 - i % 2, i, 0, 2, 1, 7, i, 1, 1 FROM generate_series(1, 60000) AS i
    """)
    with farm.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
        other.execute(text("VACUUM ANALYZE tasks"))
    name = farm.run(4096)
    run = farm.sql("SELECT id FROM runs WHERE uuid = :name", name=name)[0][0]
    tasks = [farm.claim(name, farm.worker()) for _ in range(3)]
    lease = farm.sql("SELECT lease FROM tasks WHERE run_id = :run AND idx = 1", run=run)[0][0]
    named = {"given": json.dumps([[task, lease, 0.0, 0] for task in tasks]), "idx": 1}
    values = named | {"run": run, "worker": 1, "n": 3, "lease": 1, "seconds": 9.0, "attempts": 3}
    values |= {"percent": 1.0, "user": 1, "since": 0.0, "limit": 100}
    changes = [each._postgresql for each in (CLAIM, SETTLE, RENEW, RELEASE, REAP, FINISH)]
    questions = (FIND_SETTLED, SET_PERCENT, COUNT, PERCENTS, SEE_RUN)
    for statement in (*changes, *(each._texts["postgresql"] for each in questions)):
        assert max(map(_rows_of_node, _plan(farm, statement, values))) <= 100
    # Of a run with statistics, the history reads the index of settled tasks, and the minutes nothing else.
    for question, kind in (
        (MINUTES, "Index Only Scan"),
        (SAMPLES, "Index Scan"),
        (SPANS, "Index Scan"),
    ):
        nodes = _plan(farm, question._texts["postgresql"], values | {"run": -1})
        scans = [node for node in nodes if node.get("Relation Name") == "tasks"]
        found = [(node["Node Type"], node["Index Name"]) for node in scans]
        assert found == [(kind, "tasks_settled")]
    # What the page of runs asks reads no tasks, however many the runs have.
    farm.sql("UPDATE tasks SET run_id = :run WHERE run_id = -1 AND idx > 4096", run=run)
    for _ in range(50):
        farm.run(400_000)
    values |= {"all": 1, "name": "", "user": 0}
    for question in (LIST_RUNS, SEE_RUN):
        plan = _plan(farm, question._texts["postgresql"], values)
        assert max(map(_rows_of_node, plan)) <= 100
    farm.database.engine.dispose()


def test_a_plan_that_postgresql_keeps_from_a_small_table_looks_tasks_up_in_a_large_one(postgres):
    farm = Farm(new_database(postgres))
    name, _ = farm.run(40), farm.worker()
    ledger = SqlLedger(farm.database, "native")
    ledger.enroll([Task(index, 0.0) for index in range(60)])
    farm.claim(name)
    with farm.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
        other.execute(text("VACUUM ANALYZE tasks"))
    # PostgreSQL makes five plans anew, after psycopg has executed a statement five times; then it keeps one.
    for _ in range(12):
        task = farm.claim(name)
        assert farm.put(name, task, percentCompleted=50) == farm.put(name, task, status="done")
        (lease,) = ledger.claim()
        assert ledger.renew({lease.id: 0.5}) == set()
        assert ledger.settle({lease.id: Ending(1.0)}) == set()
        assert ledger.settle({lease.id: Ending(1.0)}) == set()
        ledger.release([each.id for each in ledger.claim()])
    farm.sql("""
        INSERT INTO tasks (run_id, idx, cost, state) SELECT -1, i, 0, 0 FROM generate_series(1, 9999) AS i
    """)
    kept = farm.sql("""
        SELECT name, statement, parameter_types::text AS kinds FROM pg_prepared_statements WHERE generic_plans > 0
    """)
    looked = {re.search(r"^-- (\w+)", each.statement, re.MULTILINE)[1] for each in kept}
    assert looked >= {
        "claim",
        "renew",
        "settle",
        "release",
        "find_settled",
        "set_percent",
        "finish",
    }
    for each in kept:
        given = ", ".join(
            "'[]'" if kind == "json" else f"CAST(1 AS {kind})"
            for kind in each.kinds.strip("{}").replace('"', "").split(",")
        )
        plan = farm.sql(f"EXPLAIN (FORMAT JSON) EXECUTE {each.name}({given})")[0][0][0]["Plan"]
        for node in _nodes(plan):
            if node.get("Relation Name") == "tasks" and "Scan" in node["Node Type"]:
                found = node["Index Name"], node["Index Cond"]
                assert found[0] == "tasks_waiting" or "idx = " in found[1], (each.statement, plan)
    farm.database.engine.dispose()


def _plan(farm: Farm, statement: str, values: dict[str, object]) -> list[dict[str, object]]:
    """Return the nodes of the plan of a statement that was executed, and is rolled back."""
    with farm.database.engine.connect() as connection:
        explained = connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values
        )
        plan = explained.scalar_one()[0]["Plan"]
        connection.rollback()
    return _nodes(plan)


def _nodes(plan: dict[str, object]) -> list[dict[str, object]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in _nodes(child))]


def _rows_of_node(node: dict[str, object]) -> int:
    dropped = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
    return (node["Actual Rows"] + dropped) * node["Actual Loops"]


def test_the_variable_of_the_first_server_that_names_a_database_is_ignored(tmp_path, monkeypatch):
    """The tests of the first server drop the tables of ``$DATABASE_URL``."""
    precious = tmp_path / "precious.db"
    with closing(sqlite3.connect(precious)) as database:
        database.execute("CREATE TABLE runs (id)")
        database.commit()
    before = precious.read_bytes()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{precious}")
    farm = Farm(f"sqlite:///{tmp_path}/farm.db")
    assert farm.claim(farm.run(1), farm.worker()) == 0
    farm.database.engine.dispose()
    assert precious.read_bytes() == before
