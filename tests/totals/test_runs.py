"""Totals of a run over a simulated ice cap, before and after it is assembled."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cryotile as ct
from tests.support import flown_run
from tests.support.mapped_world import eight_basins

CENTRE = flown_run.WORLD.centre


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("flown")
    basins = eight_basins(home / "basins.gpkg", centre=CENTRE, radius=9e3)
    request = {**flown_run.REQUEST, "basins": str(basins), "column": "NAME"}
    run = flown_run.plan_flown(home, flown_run.fly_over(), request)
    unfitted = home / "unfitted"
    shutil.copytree(home / "run", unfitted / "run")
    shutil.copytree(home / "ice.pdb", unfitted / "ice.pdb")
    flown_run.work(run)
    ct.assemble(run, home / "dhdt.nc")
    return home


def test_a_run_and_its_product_give_the_same_totals_near_the_truth(home: Path) -> None:
    basins = home / "basins.gpkg"
    of_run = ct.totals(home / "run", basins, "NAME", fill="neighbours", density=917)
    of_product = ct.totals(home / "dhdt.nc", basins, "NAME", fill="neighbours", density=917)
    pd.testing.assert_frame_equal(of_run, of_product)
    assert of_run.attrs["notes"] == of_product.attrs["notes"]
    with ct.open(home / "dhdt.nc") as product:
        x, y = np.meshgrid(product["x"], product["y"])
        inside = np.hypot(x - CENTRE[0], y - CENTRE[1]) < 9e3
        area = product["cell_area"].to_numpy()[inside]
    truth = (flown_run.WORLD.dhdt(x, y)[inside] * area).sum() / area.sum()
    # Planned with the basins: every total has the error of deleting a pass everywhere.
    assert (of_run["volume_sigma"] > 0).all()
    deltas = ct.open_run(home / "run")["region_delta"].to_numpy()[:8]
    deltas = np.vstack([deltas, deltas.sum(axis=0)])
    np.testing.assert_allclose(of_run["volume_sigma"], np.sqrt((deltas**2).sum(axis=1)) / 1e9)
    whole = of_run.iloc[-1]
    assert abs(whole["rate_m_yr"] - truth) < 4 * whole["rate_sigma"]
    assert whole["area_km2"] == pytest.approx(area.sum() / 1e6, rel=0.02)
    assert whole["rate_m_yr"] == pytest.approx(truth, abs=0.1)


def test_a_run_without_a_tile_has_areas_and_no_total(home: Path) -> None:
    whole = ct.totals(home / "run", home / "basins.gpkg", "NAME").iloc[-1]
    table = ct.totals(home / "unfitted" / "run", home / "basins.gpkg", "NAME")
    last = table.iloc[-1]
    assert last["fitted_km2"] == 0.0
    assert last["area_km2"] == pytest.approx(whole["area_km2"])
    assert np.isnan(last["volume_km3_yr"])
    assert "basin b0 has no post with a fit" in table.attrs["notes"]
