"""Tiles keep their values and fingerprints from one version of the code to the next.

``tests/golden/tiles.npz`` holds one tile of each recipe: of ``plane`` with the numbers of the code before the move into
packages, of ``passes`` as the kernel that was first compared with the slow reference fitted it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import PROJECT
from tests.support.flown_run import REQUEST, fly_over, plan_flown
from tests.support.small_run import fit

GOLDEN = np.load(PROJECT / "tests" / "golden" / "tiles.npz")

RELATIVE = {"dhdt_ci95": 2e-4}
"""Quantiles of Student's t were once computed by a series accurate to 1e-4."""


@pytest.mark.parametrize("recipe", ["passes", "plane"])
def test_a_tile_keeps_its_values_and_fingerprint_across_versions(
    recipe: str, tmp_path: Path
) -> None:
    run = plan_flown(tmp_path, fly_over(), REQUEST | {"recipe": recipe})
    index = run.names.index(str(GOLDEN[f"{recipe}.tile"]))
    assert run.fingerprint(index) == str(GOLDEN[f"{recipe}.fingerprint"])
    fit(run, index)
    tile = run.store.load(run.tile(index))
    golden = {name.partition(".")[2] for name in GOLDEN if name.startswith(f"{recipe}.")}
    assert {str(name) for name in tile.data_vars} == golden - {"tile", "fingerprint"}
    for name, variable in tile.data_vars.items():
        values, before = variable.to_numpy(), GOLDEN[f"{recipe}.{name}"]
        if values.dtype.kind == "f":
            # Levels of vector instructions differ in the last bits.
            tolerance = RELATIVE.get(str(name), 1e-9)
            np.testing.assert_allclose(values, before, rtol=tolerance, atol=1e-9, err_msg=str(name))
        else:
            np.testing.assert_array_equal(values.astype(before.dtype), before, err_msg=str(name))
