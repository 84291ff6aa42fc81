"""The ledger in a directory keeps the contract."""

from __future__ import annotations

import pytest

from cryotile.ledgers import LEASE
from cryotile.ledgers.directory.ledger import DirLedger
from cryotile.testing.leases import OpenLedger
from cryotile.testing.ledgers import LedgerContract


class TestDir(LedgerContract):
    @pytest.fixture
    def open_ledger(self, tmp_path) -> OpenLedger:
        return lambda host="here", key="run/1", lease=LEASE: DirLedger(
            tmp_path, key, lease=lease, host=host
        )
