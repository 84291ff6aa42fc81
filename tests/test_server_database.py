"""A server whose database is away for a while, full, or of another version."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from cryotile.errors import CryotileError
from cryotile.taskfarm.server import create_app
from farm_server import Farm, basic, sqlite_farm
from services.postgres import Postgres

__all__ = ["sqlite_farm"]


def test_a_restart_of_postgresql_loses_nothing_that_was_acknowledged():
    with Postgres() as postgres:
        farm = Farm(postgres.url)
        run, _ = farm.run(20), farm.worker()
        assert [farm.claim(run) for _ in range(5)] == list(range(5))
        assert farm.put(run, 0, status="done") == 204
        postgres.stop(signal.SIGQUIT)
        with ThreadPoolExecutor(1) as pool:
            # Asked while it is away, answered when it is back; or told to ask again, if that takes long.
            headers = basic(farm.token())
            claimed = pool.submit(
                farm.client.post,
                f"/api/runs/{run}/task",
                json={"worker_uuid": "w"},
                headers=headers,
            )
            postgres.start()
            assert claimed.result().status_code in (201, 503)
        # What speaks to the database without asking again may hit a connection that is dead.
        assert farm.ask("GET", "/api/token").status_code in (200, 503)
        assert farm.ask("GET", "/api/token").status_code == 200
        waiting, computing, done = farm.counts(run)
        assert (waiting, done) == (0, 1)
        assert computing in (4, 5)
        farm.database.engine.dispose()


def test_a_full_disk_under_sqlite_is_said_to_be_and_mended(sqlite_farm):
    run, _ = sqlite_farm.run(100_000), sqlite_farm.worker()
    token = sqlite_farm.token()
    sqlite_farm.database._patience = 0.0
    # SQLite answers alike whether the disk or its own limit is full.
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
