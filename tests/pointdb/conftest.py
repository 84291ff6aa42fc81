"""Fixtures of the tests of point DBs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cryotile.pointdb import PointDB
from cryotile.pointdb.log import Log
from cryotile.pointdb.snapshot import Commit, Snapshot
from cryotile.points import Granule


@pytest.fixture
def rival(monkeypatch: pytest.MonkeyPatch) -> Callable[[PointDB, Granule], None]:
    """Let another writer commit a granule just before the next commit."""

    def arrange(db: PointDB, other: Granule) -> None:
        commit = Log.commit

        def outrun(self: Log, before: Snapshot, own: Commit) -> Snapshot:
            monkeypatch.setattr(Log, "commit", commit)
            PointDB(db.path).append([other])
            return commit(self, before, own)

        monkeypatch.setattr(Log, "commit", outrun)

    return arrange
