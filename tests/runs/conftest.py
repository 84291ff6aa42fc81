"""A point DB of two missions and the basins of its ice, for tests of sums over basins."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryotile.pointdb import PointDB
from tests.support.maps import vector_file
from tests.support.two_missions import EAST, WEST, two_missions


@pytest.fixture(scope="session")
def db(tmp_path_factory: pytest.TempPathFactory) -> PointDB:
    """Create a point DB that no test may change."""
    return two_missions(tmp_path_factory.mktemp("missions") / "both.pdb", 4, passes=50)


@pytest.fixture(scope="session")
def basins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the basins west and east."""
    path = tmp_path_factory.mktemp("basins") / "basins.gpkg"
    return vector_file(path, WEST, EAST, name=["west", "east"])
