"""The worlds that files are damaged in, and their product; made once for each file of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import worlds
from tests.damage.cases import STATES, Case


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the worlds."""
    root = tmp_path_factory.mktemp("damage")
    with worlds.small_steps():
        worlds.build(root)
    return root


@pytest.fixture(scope="module")
def product(root: Path) -> bytes:
    """The product of the undamaged worlds, which is the same in all of them."""
    with worlds.small_steps():
        products = {Case(root, name).product() for name in STATES}
    assert len(products) == 1
    return products.pop()
