"""The ledger in a database does what every ledger does, on SQLite and PostgreSQL; and what only a database does."""

from __future__ import annotations

from itertools import count

import pytest

from cryotile.backends import open_backend
from cryotile.backends.base import STALL
from cryotile.ledgers import LEASE
from cryotile.ledgers.sql import SQLLedger
from cryotile.testing.backends import MakeBackend, SupervisedContract
from cryotile.testing.ledgers import LedgerContract, OpenLedger
from services.postgres import postgres

__all__ = ["postgres"]

_numbers = count()


class TestSQLite(LedgerContract):
    @pytest.fixture
    def open_ledger(self, tmp_path) -> OpenLedger:
        return lambda host="here", key="run/1", lease=LEASE: SQLLedger(
            f"sqlite:///{tmp_path}/farm.db", key, lease=lease, host=host
        )


class TestPostgreSQL(LedgerContract):
    @pytest.fixture
    def open_ledger(self, postgres) -> OpenLedger:
        number = next(_numbers)
        return lambda host="here", key="run/1", lease=LEASE: SQLLedger(
            postgres.url, f"{number}/{key}", lease=lease, host=host
        )


class TestSQLiteBackend(SupervisedContract):
    @pytest.fixture
    def make_backend(self, tmp_path) -> MakeBackend:
        return lambda workers=2, stall=STALL: open_backend(
            f"sqlite:///{tmp_path}/farm.db?children={workers}", home=None, key="run/1", stall=stall
        )


class TestPostgreSQLBackend(SupervisedContract):
    @pytest.fixture
    def make_backend(self, postgres) -> MakeBackend:
        key = f"backend {next(_numbers)}/1"
        return lambda workers=2, stall=STALL: open_backend(
            f"{postgres.url}?children={workers}", home=None, key=key, stall=stall
        )
