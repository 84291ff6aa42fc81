"""Sums over basins with the deltas of passes: what they say is what a fit without each pass says."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import xarray as xr

import cryotile
from cryotile.errors import DamagedFile, InvalidValue
from cryotile.fit.region_sums import RegionSums
from cryotile.points import name_pass
from cryotile.runs.run import Run
from tests.support.command_line import output_of
from tests.support.maps import vector_file
from tests.support.two_missions import PERIOD, SETTINGS, WEST

AWAY = shapely.Polygon([(1e6, 1e6), (1.1e6, 1e6), (1.1e6, 1.1e6)])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("sums")


def planned(home, db, basins, name: str, **more) -> Run:
    run = cryotile.plan(home / name, db, basins=basins, column="name", **SETTINGS, **more)
    cryotile.run(run, backend="serial")
    return run


@pytest.fixture(scope="module")
def tiled(home, db, basins) -> Run:
    """Make a run of a dozen tiles, which each pass crosses."""
    return planned(home, db, basins, "tiled", tile_size=3)


def product_of(run: Run) -> xr.Dataset:
    return cryotile.assemble(run, run.path.with_suffix(".nc")).load()


def test_a_delta_is_the_change_of_the_sum_without_the_pass(home, db, basins, tiled) -> None:
    product = product_of(tiled)
    assert list(product["region"].values) == ["west", "east"]
    whole = float((product["dhdt"] * product["cell_area"]).sum())
    assert float(product["region_rate"].sum()) == pytest.approx(whole, rel=1e-7)
    # A fit without a pass estimates the spread of offsets anew, which the deltas hold: they are near, not equal.
    deltas = product["region_delta"].sum("region").to_numpy()
    points = db.read(columns=["x", "y", "time", "elevation", "pass_id", "ascending", "mode"],
                     where=SETTINGS["where"], time=PERIOD)  # fmt: skip
    chosen = product["pass_id"].values[np.argsort(-np.abs(deltas))[:5]]
    config = tiled.settings.fit
    for number in chosen:
        fit = cryotile.fit_posts(
            points[points["pass_id"] != number], product["x"], product["y"], config
        )
        there = np.isfinite(fit["dhdt"]) & np.isfinite(product["dhdt"])
        change = ((fit["dhdt"] - product["dhdt"]).where(there) * product["cell_area"]).sum()
        expected = deltas[product["pass_id"].values == number][0]
        assert float(change) == pytest.approx(expected, rel=0.35)


def test_tiles_add_up_to_what_one_tile_says(home, db, basins, tiled) -> None:
    one = product_of(planned(home, db, basins, "one", tile_size=100))
    many = product_of(tiled)
    assert len(tiled.tasks) > 8
    np.testing.assert_array_equal(one["pass"], many["pass"])
    words = [name_pass(number) for number in one["pass_id"].values.tolist()]
    assert one["pass"].values.tolist() == words
    assert one.sizes["pass"] > 25
    for name in ("region_rate", "region_area", "region_fitted_area", "region_delta"):
        np.testing.assert_allclose(one[name], many[name], rtol=1e-9, atol=1e-6)
    # A run that is open says the same as its product.
    xr.testing.assert_equal(
        cryotile.open_run(tiled)["region_delta"].drop_vars("period").load(),
        many["region_delta"].drop_vars("period"),
    )


def test_a_sigma_of_posts_that_share_passes_is_larger_than_of_independent_posts(tiled) -> None:
    product = product_of(tiled)
    sigma = np.sqrt((product["region_delta"] ** 2).sum("pass"))
    area, own = product["cell_area"], product["dhdt_sigma"]
    independent = np.sqrt(((area * own) ** 2).sum())
    assert float(np.sqrt((product["region_delta"].sum("region") ** 2).sum())) > 1.2 * independent
    assert (sigma > 0).all()


def test_fallback_radii_count_each_post_once(home, db, basins) -> None:
    run = planned(home, db, basins, "wider", fallback_radii=(6000.0,), radius=2000.0)
    product = product_of(run)
    assert len(np.unique(product["radius"].values[np.isfinite(product["radius"])])) == 2
    whole = float((product["dhdt"] * product["cell_area"]).sum())
    assert float(product["region_rate"].sum()) == pytest.approx(whole, rel=1e-7)


def test_a_run_keeps_its_basins_and_refuses_others(home, basins, tiled) -> None:
    cryotile.plan(tiled.path, basins=basins, column="name")
    other = vector_file(home / "other.gpkg", WEST, name=["all of it"])
    with pytest.raises(InvalidValue, match="frozen with other settings"):
        cryotile.plan(tiled.path, basins=other, column="name")
    file = tiled.path / "regions.npz"
    content = file.read_bytes()
    file.write_bytes(content[:-30])
    with pytest.raises(DamagedFile, match="is not the basins"):
        Run.load(tiled.path)
    file.write_bytes(content)


def test_basins_without_posts_and_half_a_request_are_said(home, db, basins) -> None:
    both = vector_file(home / "away.gpkg", WEST, AWAY, name=["west", "away"])
    words = [w for n in ("posting", "where") for w in (f"--{n}", SETTINGS[n])]
    shown = output_of(
        "plan", home / "away", "--db", db.path, *words, "--basins", both, "--column", "name"
    )
    assert "basins       2: west, away" in shown
    assert "basin away of " in shown
    with pytest.raises(InvalidValue, match="one of two settings"):
        cryotile.plan(home / "half", db, basins=basins, **SETTINGS)
    with pytest.raises(InvalidValue, match="recipe is plane"):
        cryotile.plan(home / "plane", db, basins=basins, column="name", recipe="plane", **SETTINGS)


def test_sums_of_a_tile_survive_their_file(tiled) -> None:
    lists = tiled.store.sums(tiled.tiles[0])
    sums = RegionSums.unpacked(lists)
    assert sums.packed() == lists
    assert sums.passes.size > 3
    assert (sums.first <= sums.last).all()
    # A pass that two tiles saw in parts is one pass.
    twice = RegionSums.added([sums, sums], 2)
    assert twice.passes.size == sums.passes.size
    np.testing.assert_allclose(twice.deltas[sums.regions], 2 * sums.deltas)


def test_a_damaged_tile_adds_nothing_to_an_open_run(home, db, basins) -> None:
    run = planned(home, db, basins, "damaged", tile_size=3)
    whole = cryotile.open_run(run)["region_fitted_area"].sum()
    file = run.store.file(run.tiles[0])
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    opened = cryotile.open_run(run)
    fitted = opened["cell_area"].where(opened["status"] == 0).sum()
    assert float(opened["region_fitted_area"].sum()) == pytest.approx(float(fitted), rel=1e-12)
    assert fitted < whole
