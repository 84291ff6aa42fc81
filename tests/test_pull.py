"""Workers that pull: what they do with leases, with each other, and with a host on which everything fails."""

from __future__ import annotations

import pytest

from cryotile.backends.base import STALL
from cryotile.backends.pull import DirBackend
from cryotile.testing.backends import MakeBackend, SupervisedContract


class TestDir(SupervisedContract):
    @pytest.fixture
    def make_backend(self, tmp_path) -> MakeBackend:
        return lambda workers=2, stall=STALL: DirBackend(
            str(workers), tmp_path, "contract/1", stall=stall
        )
