"""Eight basins, a map over them, and grids to correct it with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.mapped_world import World, eight_basins, world


@pytest.fixture(scope="session")
def basins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eight_basins(tmp_path_factory.mktemp("basins") / "basins.gpkg")


@pytest.fixture(scope="session")
def drawn(basins: Path) -> World:
    """A world that no test may change."""
    drawn = world(basins, 3)
    for variable in drawn.product.variables.values():
        if isinstance(variable.values, np.ndarray):
            variable.values.flags.writeable = False
    return drawn
