"""Databases for tests that need one of their own, on the PostgreSQL that all tests of a process share."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest

from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.schema import upgrade
from tests.support.services.postgres import Postgres


def new_database(postgres: Postgres) -> str:
    """Create an empty database, and return its address."""
    name = uuid.uuid4().hex
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{postgres.url.rpartition('/')[0]}/{name}"


def open_database(url: str) -> Database:
    """Open a database whose tables are there and of the newest version, as a ledger leaves them."""
    database = Database(url)
    database.change(upgrade)
    return database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a new database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/farm.db"
    return new_database(request.getfixturevalue("postgres"))
