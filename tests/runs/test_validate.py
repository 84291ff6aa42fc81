"""Halves of a data set share no pass, and their rates differ as much as their sigmas predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from scipy import stats

from cryotile import fit_posts
from cryotile.fit.agreement import SPLITS, agreement, compare, halves, variables
from cryotile.fit.variables import Status
from cryotile.maps.product import read_product
from cryotile.pointdb import PointDB
from cryotile.runs.run import Run
from tests.support.command_line import Call
from tests.support.flown_run import REQUEST, WORLD, fly_over, plan_flown
from tests.support.maps import vector_file


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    return fly_over()


@pytest.fixture
def run(tmp_path: Path, points: pd.DataFrame) -> Run:
    return plan_flown(tmp_path, points)


# --- halves


@pytest.mark.parametrize("split", SPLITS)
def test_every_pass_is_in_exactly_one_half(split: str, points: pd.DataFrame) -> None:
    one, other = halves(points, split)
    assert not set(points["pass_id"][one]) & set(points["pass_id"][other])
    assert (one ^ other).all()


def test_the_half_of_a_pass_does_not_depend_on_other_passes(points: pd.DataFrame) -> None:
    some = points.iloc[::7].iloc[::-1]
    odd = points["pass_id"][halves(points, "odd-even")[0]]
    assert set(some["pass_id"][halves(some, "odd-even")[0]]) <= set(odd)


def test_odd_passes_are_as_often_ascending_as_even_ones(points: pd.DataFrame) -> None:
    passes = points.drop_duplicates("pass_id")
    odd, even = halves(passes, "odd-even")
    up = passes["ascending"].to_numpy(bool)
    assert abs(up[odd].mean() - up[even].mean()) < 0.05
    assert abs(odd.mean() - 0.5) < 0.05


def test_a_point_of_unknown_direction_is_in_neither_half(points: pd.DataFrame) -> None:
    ascending = points["ascending"].copy()
    ascending.iloc[3] = pd.NA
    one, other = halves(points.assign(ascending=ascending), "ascending-descending")
    assert not one[3]
    assert not other[3]
    assert (one ^ other).sum() == len(points) - 1


# --- differences


def made_up_fits(size: int, dof: int, stretch: float = 1.0) -> tuple[xr.Dataset, xr.Dataset]:
    """Return two fits of one truth, with errors as large as their sigmas of ``dof`` degrees of freedom estimate."""
    random = np.random.default_rng(dof)
    fits = []
    for scale in (0.1, 0.25):
        sigma = scale * np.sqrt(random.chisquare(dof, (1, size)) / dof)
        fits.append(
            xr.Dataset(
                {
                    "dhdt": (("y", "x"), 0.5 + stretch * random.normal(0, scale, (1, size))),
                    "dhdt_sigma": (("y", "x"), sigma),
                    "dhdt_dof": (("y", "x"), np.full((1, size), dof)),
                    "pass_count": (("y", "x"), np.full((1, size), dof + 1)),
                    "status": (("y", "x"), np.zeros((1, size), np.int8)),
                    "time_start": (
                        ("y", "x"),
                        np.full((1, size), np.datetime64("2011-01-01", "ms")),
                    ),
                    "time_end": (("y", "x"), np.full((1, size), np.datetime64("2018-01-01", "ms"))),
                },
                coords={"y": [0.0], "x": np.arange(float(size))},
            )
        )
    return fits[0], fits[1]


@pytest.mark.parametrize("dof", [5, 8, 30])
def test_correct_sigmas_give_ratios_distributed_as_students_t(dof: int) -> None:
    names = SPLITS["odd-even"]
    everything, *strata = agreement(compare(*made_up_fits(40_000, dof), names), names)
    assert everything.posts == 40_000
    assert everything.plain == pytest.approx(everything.plain_expected, rel=0.02)
    assert everything.robust == pytest.approx(everything.robust_expected, rel=0.02)
    assert everything.within_ci95 == pytest.approx(0.95, abs=0.005)
    assert everything.plain_expected > everything.robust_expected > 1
    assert len(strata) == 1


def test_sigmas_of_half_the_true_size_double_the_spread() -> None:
    names = SPLITS["odd-even"]
    everything = agreement(compare(*made_up_fits(40_000, 20, stretch=2.0), names), names)[0]
    assert everything.plain == pytest.approx(2 * everything.plain_expected, rel=0.02)
    assert everything.robust == pytest.approx(2 * everything.robust_expected, rel=0.02)
    assert everything.within_ci95 < 0.75


def test_few_degrees_of_freedom_have_wide_intervals() -> None:
    names = SPLITS["odd-even"]
    found = compare(*made_up_fits(40_000, 2), names)
    quantile = found["dhdt_difference_ci95"] / found["dhdt_difference_sigma"]
    dof = found["dhdt_difference_dof"].to_numpy()
    np.testing.assert_allclose(quantile, stats.t.ppf(0.975, dof), rtol=1e-9)
    everything = agreement(found, names)[0]
    assert everything.within_ci95 > 0.95
    assert everything.plain_expected < np.inf
    assert agreement(compare(*made_up_fits(9, 1), names), names)[0].plain_expected == np.inf


def test_posts_without_a_sigma_in_either_half_have_no_difference() -> None:
    one, other = made_up_fits(4, 9)
    one["dhdt_sigma"][0, 1], other["dhdt"][0, 2] = np.nan, np.nan
    other["dhdt_sigma"][0, 2], other["status"][0, 2] = np.nan, Status.TOO_FEW_PASSES
    found = compare(one, other, SPLITS["odd-even"])
    assert np.isnan(found["dhdt_difference_ratio"][0]).to_numpy().tolist() == [
        False,
        True,
        True,
        False,
    ]
    assert found["status"].to_numpy().tolist() == [[0, 0, Status.TOO_FEW_PASSES, 0]]
    assert list(found) == [variable.name for variable in variables(SPLITS["odd-even"])]


def test_halves_with_nothing_to_compare_have_no_agreement() -> None:
    one, other = made_up_fits(3, 9)
    names = SPLITS["odd-even"]
    assert (
        agreement(compare(one, other.assign(dhdt_sigma=np.nan * other["dhdt"]), names), names) == []
    )


# --- the command


def test_both_splits_of_a_run_are_compared_and_mapped(call: Call, run: Run) -> None:
    code, said, complaints = call("validate", run.path, "--backend", "serial")
    assert (code, complaints) == (0, "")
    record = json.loads((run.path / "validation" / "validation.json").read_text())
    for split, (one, other) in SPLITS.items():
        assert f"{one} less {other} passes" in said
        assert (run.path / "validation" / f"{split}.png").read_bytes().startswith(b"\x89PNG")
        product = read_product(run.path / "validation" / f"{split}.nc")
        compared = int(np.isfinite(product["dhdt_difference_ratio"]).sum())
        assert product.attrs["title"] == f"Elevation change rate of {one} less {other} passes"
        assert "dhdt_difference median" in call("info", run.path / "validation" / f"{split}.nc")[1]
        assert record[split][0]["posts"] == compared > 100
        assert 0.5 < record[split][0]["robust"] < 1.5
        assert record[split][0]["within_ci95"] > 0.85


def test_an_error_that_a_year_shares_shows_in_its_campaign_and_others_do_not(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    _, codes = np.unique(points["pass_id"], return_inverse=True)
    errors = np.random.default_rng(0).normal(0, 0.2, codes.max() + 1)[codes]
    for shared in (0.0, 0.8):
        directory = tmp_path / f"{shared}"
        directory.mkdir()
        late = shared * (points["time"].dt.year == 2017)
        run = plan_flown(directory, points.assign(elevation=points["elevation"] + errors + late))
        words = ("--split", "season", "--split", "campaign", "--backend", "serial")
        code, said, complaints = call("validate", run.path, *words)
        assert (code, complaints) == (0, "")
        record = json.loads((run.path / "validation" / "validation.json").read_text())
        assert [row["part"] for row in record["season"]] == ["all", "DJF", "MAM", "JJA", "SON"]
        shown = [row["part"] for row in record["campaign"] if row["shows"] and row["part"] != "all"]
        assert shown == (["cryosat2 2017"] if shared else [])
        (line,) = (line for line in said.splitlines() if line.startswith("  cryosat2 2017"))
        assert line.endswith("SHOWS" if shared else "none shows")
        product = read_product(run.path / "validation" / "campaign.nc")
        largest = float(product["ratio_cryosat2_2017"].median())
        assert (largest > 2) == bool(shared)
        for name in ("season", "campaign"):
            picture = run.path / "validation" / f"{name}.png"
            assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_an_earlier_call_wrote_stays(call: Call, run: Run) -> None:
    words = ("validate", run.path, "--backend", "serial", "--max-tiles")
    assert call(*words, 3, "--split", "odd-even")[0] == 0
    product, record = (run.path / "validation" / n for n in ("odd-even.nc", "validation.json"))
    before, numbers = product.read_bytes(), json.loads(record.read_text())
    code, said, _ = call(*words, 1, "--split", "season")
    assert code == 0
    assert "rate without a season: 1 of" in said
    assert product.read_bytes() == before
    told = json.loads(record.read_text())
    assert told["odd-even"] == numbers["odd-even"]
    assert set(told) == {"odd-even", "season"}
    # The same comparison of fewer tiles keeps the tiles of before, in the map and in the numbers.
    assert "odd less even passes: 3 of" in call(*words, 1, "--split", "odd-even")[1]
    assert product.read_bytes() == before
    assert json.loads(record.read_text()) == told


def test_damaged_numbers_of_an_earlier_call_are_named_and_written_anew(
    call: Call, run: Run
) -> None:
    words = ("validate", run.path, "--backend", "serial", "--max-tiles", 2, "--split", "odd-even")
    assert call(*words)[0] == 0
    record = run.path / "validation" / "validation.json"
    before = record.read_text()
    record.write_text(before[:40])
    code, _, said = call(*words)
    assert code == 0
    assert f"{record} is damaged and is written anew" in said
    assert record.read_text() == before


def test_the_recipe_plane_has_halves_and_no_groups(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    run = plan_flown(tmp_path, points, {**REQUEST, "recipe": "plane"})
    code, _, complaints = call("validate", run.path, "--split", "season", "--backend", "serial")
    assert code == 2
    assert len(complaints.splitlines()) == 1
    assert "season needs a run of the recipe 'passes'" in complaints
    code, said, _ = call("validate", run.path, "--max-tiles", 1, "--backend", "serial")
    assert code == 0
    assert "odd less even passes" in said
    assert "season" not in said
    record = json.loads((run.path / "validation" / "validation.json").read_text())
    assert record["odd-even"][0]["posts"] > 0


def test_a_half_is_fitted_as_a_data_set_of_its_own(call: Call, run: Run) -> None:
    assert call("validate", run.path, "--split", "odd-even", "--backend", "serial")[0] == 0
    product = read_product(run.path / "validation" / "odd-even.nc")
    stored = PointDB(run.db_path).read(time=run.settings.fit.period)
    odd = stored[halves(stored, "odd-even")[0]]
    alone = fit_posts(odd, product["x"], product["y"], run.settings.fit)
    with_tile = (product["status_odd"] != Status.NOT_COMPUTED).to_numpy()
    assert (
        alone["dhdt"].to_numpy()[with_tile].astype("float32").tobytes()
        == product["dhdt_odd"].to_numpy()[with_tile].tobytes()
    )
    assert not (run.path / "validation" / "ascending-descending.nc").exists()


def test_a_map_of_differences_is_cropped_to_the_mask(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    x, y = WORLD.centre
    east = [(x - 500, y - 9e3), (x + 9e3, y - 9e3), (x + 9e3, y + 9e3), (x - 500, y + 9e3)]
    ice = vector_file(tmp_path / "east.gpkg", shapely.Polygon(east), crs=WORLD.crs)
    run = plan_flown(tmp_path, points, {**REQUEST, "mask": str(ice)})
    words = ("--split", "odd-even", "--backend", "serial")
    assert call("validate", run.path, *words)[0] == 0
    product = read_product(run.path / "validation" / "odd-even.nc")
    assert float(product["x"][0]) >= x - 500
    compared = np.isfinite(product["dhdt_difference"].to_numpy())
    assert compared.sum() > 50


def test_a_trend_of_odd_passes_alone_is_found(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    years = (points["time"] - pd.Timestamp("2015-01-01")) / pd.Timedelta(days=365.25)
    drift = 0.5 * years * halves(points, "odd-even")[0]
    run = plan_flown(tmp_path, points.assign(elevation=points["elevation"] + drift))
    assert call("validate", run.path, "--backend", "serial")[0] == 0
    record = json.loads((run.path / "validation" / "validation.json").read_text())
    assert record["odd-even"][0]["robust"] > 3
    assert record["odd-even"][0]["within_ci95"] < 0.5
    assert record["ascending-descending"][0]["robust"] < 1.5


def test_validating_a_few_tiles_can_be_continued_to_all(call: Call, run: Run) -> None:
    few = ("validate", run.path, "--split", "odd-even", "--backend", "serial", "--max-tiles", 3)
    code, said, _ = call(*few)
    assert code == 0
    assert f"3 of {len(run.tasks)} tiles" in said
    tiles = run.path / "validation" / "tiles" / "odd-even"
    before = {tile: tile.stat().st_mtime_ns for tile in tiles.glob("*.arrow")}
    assert len(before) == 3
    partial = read_product(run.path / "validation" / "odd-even.nc")
    assert (partial["status"] == Status.NOT_COMPUTED).any()
    assert call(*few[:-2])[0] == 0
    assert len(list(tiles.glob("*.arrow"))) == len(run.tasks)
    assert all(tile.stat().st_mtime_ns == time for tile, time in before.items())


def test_child_processes_give_the_same_bytes_as_one_process(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    products = []
    for number, backend in enumerate(("serial", "local:2")):
        directory = tmp_path / str(number)
        directory.mkdir()
        run = plan_flown(directory, points)
        words = ("--split", "odd-even", "--max-tiles", 2, "--backend", backend)
        assert call("validate", run.path, *words)[0] == 0
        products.append((run.path / "validation" / "odd-even.nc").read_bytes())
    assert products[0] == products[1]


def test_members_do_their_share_and_the_last_one_reports(call: Call, run: Run) -> None:
    words = ("validate", run.path, "--split", "odd-even", "--max-tiles", 3, "--backend")
    for member in range(2):
        code, said, _ = call(*words, f"index:{member}/2")
        assert code == 0
        assert "this member's" in said
    tiles = run.path / "validation" / "tiles" / "odd-even"
    before = {tile: tile.stat().st_mtime_ns for tile in tiles.glob("*.arrow")}
    assert len(before) == 3
    assert "odd less even passes" in call(*words, "serial")[1]
    assert all(tile.stat().st_mtime_ns == time for tile, time in before.items())


def test_halves_without_a_fit_are_reported_in_one_line(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    run = plan_flown(tmp_path, points.assign(ascending=pd.array([True] * len(points), "boolean")))
    code, said, complaints = call(
        "validate", run.path, "--split", "ascending-descending", "--backend", "serial"
    )
    assert code == 1
    assert "nothing to compare" in said
    assert len(complaints.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--max-tiles", "0"), "max-tiles"),
        (("--split", "north-south"), "north-south"),
        (("--backend", "serail"), "backend 'serail' is unknown"),
    ],
)
def test_wrong_usage_is_refused(
    words: tuple[str, ...], complaint: str, call: Call, run: Run
) -> None:
    code, _, complaints = call("validate", run.path, *words)
    assert code == 2
    assert complaint in complaints.splitlines()[-1]
