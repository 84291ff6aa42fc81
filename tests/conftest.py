"""What every test may use: the real granules that stand beside the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# So that a broken contract is explained like any other failed assertion.
pytest.register_assert_rewrite("cryotile.testing")

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def granules() -> Path:
    """Directory of real granules: ``$CRYOTILE_GRANULES``, else ``../shared/granules`` beside the project."""
    directory = Path(os.environ.get("CRYOTILE_GRANULES", PROJECT.parent / "shared" / "granules"))
    if not directory.is_dir():
        message = f"no real granules at {directory}: set CRYOTILE_GRANULES to their directory"
        if os.environ.get("CRYOTILE_WITHOUT_GRANULES"):
            pytest.skip(message)
        pytest.fail(message)
    return directory
