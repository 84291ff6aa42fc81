"""Databases of a PostgreSQL that other tests use, too."""

from __future__ import annotations

import psycopg

from tests.support.services.postgres import Postgres


def new_database(postgres: Postgres, name: str) -> str:
    """Create an empty database, and return its address."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}"')
    return postgres.url.rpartition("/")[0] + f"/{name}"
