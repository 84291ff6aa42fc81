"""The explanation of a post agrees with the product and with a plain reference of the recipe."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

from cryotile import fit_posts
from cryotile.errors import InvalidValue
from cryotile.fit.diagnosis import Reason, explain_post
from cryotile.fit.terms import TermFlag
from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid
from cryotile.runs.explain import Explanation, explain_at, nearest_post
from cryotile.runs.run import Run
from tests.support.flown_run import REQUEST, WORLD, fly_over, plan_flown, work
from tests.support.maps import vector_file
from tests.support.reference import YEAR, in_circle
from tests.support.reference_robust import (
    fit_robust,
    keep_time_like,
    mean_tolerances,
    offset_codes,
    term_columns,
    tolerance,
)

X, Y = WORLD.centre
EPOCH = "2015-01-01"
PLACES = [(X, Y), (X + 3000, Y - 2000), (X - 4000, Y + 4000), (X - 6000, Y - 1000), (X, Y + 8000)]

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    return fly_over()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, points: pd.DataFrame) -> Run:
    """Return a complete run."""
    run = plan_flown(tmp_path_factory.mktemp("flown"), points)
    work(run)
    return run


def planned(directory: Path, points: pd.DataFrame, **options: object) -> Run:
    return plan_flown(directory, points, {**REQUEST, **options})


def without(points: pd.DataFrame, reason: Reason) -> set[int]:
    return set(points.loc[points["reason"] == reason, "pass_id"])


# --- agreement with the product and the reference


@pytest.mark.parametrize("place", PLACES)
def test_the_explained_fit_is_that_of_the_tile(place: tuple[float, float], run: Run) -> None:
    found = explain_at(run, *place)
    tile = next(t for t in run.tiles if t.name == found.stored.tile)
    stored = run.store.load(tile).sel(x=found.x, y=found.y)
    assert found.stored.agrees(found.fit)
    for name in stored.data_vars:
        assert stored[name].to_numpy().tobytes() == found.fit[name].to_numpy().tobytes(), name
    counts = found.points["reason"].value_counts()
    assert counts.get(Reason.KEPT, 0) == int(stored["data_count"])
    assert len(found.points) - counts.get(Reason.KEPT, 0) == int(stored["rejected_count"])


@pytest.mark.parametrize("place", PLACES)
def test_the_same_points_are_rejected_as_by_the_reference(
    place: tuple[float, float], run: Run
) -> None:
    found = explain_at(run, *place)
    near = found.points
    expected = fit_robust(near, found.x, found.y, 1500.0, EPOCH, terms=found.config.terms)
    assert float(found.fit["dhdt"]) == pytest.approx(expected.dhdt, abs=1e-9)
    assert without(near, Reason.PASS_REJECTED) == expected.rejected_passes
    kept = near[near["reason"] == Reason.KEPT]
    assert len(kept.merge(expected.kept, on=["x", "y", "time"])) == len(kept) == len(expected.kept)
    assert float(np.sqrt(np.mean(kept["residual"] ** 2))) == pytest.approx(
        expected.misfit_rms, rel=1e-9
    )
    fitted = {term.name for term in found.terms if term.fitted}
    assert fitted == set(expected.coefficients)


def test_some_passes_and_points_of_this_world_are_rejected(run: Run) -> None:
    reasons = pd.concat([explain_at(run, *place).points["reason"] for place in PLACES])
    assert {Reason.KEPT, Reason.PASS_REJECTED, Reason.POINT_REJECTED} == set(reasons)


def test_each_rejection_says_by_how_much(run: Run) -> None:
    for place in PLACES:
        near = explain_at(run, *place).points
        details = near[near["reason"] != Reason.KEPT]["detail"]
        off = details.str.extract(r"([+-][\d.]+) m off, more than ([\d.]+) m").astype(float)
        assert (off[0].abs() >= off[1] - 0.01).all()
        assert (near.loc[near["reason"] == Reason.KEPT, "detail"] == "").all()


def test_the_row_of_a_pass_that_is_five_metres_off_shows_the_offset(
    tmp_path: Path, points: pd.DataFrame, run: Run
) -> None:
    passes = explain_at(run, X, Y).passes
    bad = passes["pass_id"][passes["rejected"] == 0].iloc[7]
    wrong = points.assign(elevation=points["elevation"] + 5.0 * (points["pass_id"] == bad))
    row = explain_at(planned(tmp_path, wrong), X, Y).passes.set_index("pass_id").loc[bad]
    assert row["rejected"] == row["points"]
    assert row["median_residual"] == pytest.approx(5.0, abs=0.7)
    assert row["verdict"].startswith("pass_rejected: screened +")


# --- gates


def by_name(found: Explanation) -> dict[str, tuple[float, bool | None]]:
    return {gate.name: (gate.value, gate.passed) for gate in found.gates}


def test_a_fitted_post_passes_every_gate(run: Run) -> None:
    found = explain_at(run, X, Y)
    assert [gate.passed for gate in found.gates] == [True] * 5
    values = by_name(found)
    assert values["points"][0] == int(found.fit["data_count"])
    assert values["passes"][0] == int(found.fit["pass_count"])
    assert values["|dh/dt|"][0] == abs(float(found.fit["dhdt"]))
    assert 1e-4 < values["tolerance of u, v and time"][0] <= 1


@pytest.mark.parametrize(
    ("status", "gate"),
    [
        (Status.TOO_FEW_POINTS, "points"),
        (Status.TOO_SHORT_SPAN, "time span"),
        (Status.TOO_FEW_PASSES, "passes"),
        (Status.SINGULAR, "tolerance of u, v and time"),
        (Status.RATE_OUT_OF_BOUNDS, "|dh/dt|"),
    ],
)
def test_the_gate_that_fails_is_named_with_its_value(
    status: Status, gate: str, tmp_path: Path, points: pd.DataFrame
) -> None:
    points = in_circle(points, X, Y, 1500.0)
    years = (points["time"] - pd.Timestamp("2015-01-01")) / pd.Timedelta(days=365.25)
    few = points["pass_id"].isin(points["pass_id"].unique()[[0, 20, -1]])
    changed = {
        Status.TOO_FEW_POINTS: points.iloc[:9],
        Status.TOO_SHORT_SPAN: points[years < 0],
        Status.TOO_FEW_PASSES: pd.concat([points[few]] * 5, ignore_index=True),
        Status.SINGULAR: points.assign(y=Y + (points["x"] - X) / 2),
        Status.RATE_OUT_OF_BOUNDS: points.assign(elevation=points["elevation"] + 40 * years),
    }[status]
    bounds = (X - 2000, Y - 2000, X + 2000, Y + 2000)
    found = explain_at(planned(tmp_path, changed, bounds=bounds), X, Y)
    assert int(found.fit["status"]) == status
    order = [g.name for g in found.gates]
    passed = [g.passed for g in found.gates]
    at = order.index(gate)
    assert passed == [True] * at + [False] + [None] * (4 - at)
    failed = found.gates[at]
    beyond = (
        failed.value > failed.threshold if gate == "|dh/dt|" else failed.value < failed.threshold
    )
    assert beyond or np.isnan(failed.value)


def test_a_post_without_points_says_so(run: Run) -> None:
    corner = explain_at(run, *WORLD.bounds[:2])
    assert int(corner.fit["status"]) == Status.NO_POINTS
    assert len(corner.points) == len(corner.passes) == 0
    assert corner.stored.agrees(corner.fit)


def test_the_radius_is_the_one_that_gave_a_fit(tmp_path: Path, points: pd.DataFrame) -> None:
    away = points[np.hypot(points["x"] - X, points["y"] - Y) > 1000]
    run = planned(tmp_path, away, radius=1010.0, fallback_radii=(1020.0, 2500.0))
    work(run)
    found = explain_at(run, X, Y)
    assert found.config.radius == float(found.fit["radius"]) == 2500.0
    assert found.stored.agrees(found.fit)


def test_the_plane_recipe_rejects_nothing(tmp_path: Path, points: pd.DataFrame) -> None:
    run = planned(tmp_path, points, recipe="plane")
    work(run)
    found = explain_at(run, X, Y)
    assert found.stored.agrees(found.fit)
    assert set(found.points["reason"]) == {Reason.KEPT}
    assert found.terms == []
    assert found.points["residual"].abs().max() > 0


def test_points_of_a_dropped_mode_have_a_reason_of_their_own(
    tmp_path: Path, points: pd.DataFrame
) -> None:
    swath = points["pass_id"] % 10 == 0
    modes = pd.Categorical(
        np.where(swath, "sarin_swath", "sarin_poca"), ["sarin_poca", "sarin_swath"]
    )
    run = planned(tmp_path, points.assign(mode=modes))
    work(run)
    found = explain_at(run, X, Y)
    assert found.stored.agrees(found.fit)
    assert int(found.fit["terms"]) & TermFlag.MAJORITY_MODE
    others = found.points[found.points["reason"] == Reason.OTHER_KIND]
    assert set(others["mode"]) == {"sarin_swath"}
    assert others["residual"].isna().all()


# --- terms


def test_terms_are_kept_and_dropped_as_by_the_reference_with_its_tolerances(run: Run) -> None:
    dropped = set()
    config = dataclasses.replace(
        run.settings.fit, terms=("quadratic", "direction", "annual", "acceleration")
    )
    whole = explain_at(run, X, Y).points
    whole = whole[whole["reason"] == Reason.KEPT]
    for seed in range(24):
        ids = np.random.default_rng(seed).permutation(whole["pass_id"].unique())
        near = whole[whole["pass_id"].isin(ids[: 6 + seed // 2])]
        fit = fit_posts(near, [X], [Y], config).isel(x=0, y=0)
        if int(fit["status"]) != Status.OK or int(fit["rejected_pass_count"]):
            continue
        verdicts = {v.name: v for v in explain_post(near, X, Y, config).terms}
        columns = term_columns(near, X, Y, 1500.0, EPOCH, ("annual", "acceleration", "direction"))
        years = (near["time"].to_numpy() - np.datetime64(EPOCH, "ms")) / YEAR
        passes, every = near["pass_id"].to_numpy(), np.ones(len(near), bool)
        kept = keep_time_like(columns, years, passes, every)
        _, tolerances = mean_tolerances(kept, years, passes, every)
        for name, verdict in verdicts.items():
            assert verdict.fitted == bool(int(fit["terms"]) & TermFlag[name.upper()]), verdict
            if name in tolerances:
                assert verdict.reason.startswith(f"its tolerance is {tolerances[name]:.2g}")
            assert verdict.fitted == (name in (*kept, "quadratic")), verdict
            dropped |= set() if verdict.fitted else {name}
    assert {"annual", "acceleration"} <= dropped


def test_unknown_directions_are_given_as_the_reason(run: Run, points: pd.DataFrame) -> None:
    near = in_circle(points, X, Y, 1500.0).reset_index(drop=True)
    near.loc[:4, "ascending"] = pd.NA
    verdicts = {v.name: v for v in explain_post(near, X, Y, run.settings.fit).terms}
    assert verdicts["direction"].fitted is False
    assert verdicts["direction"].reason == f"unknown for 5 of {len(near)} points"


def test_tolerances_are_those_of_the_reference(run: Run, points: pd.DataFrame) -> None:
    near = in_circle(points, X, Y, 1500.0).reset_index(drop=True)
    config = dataclasses.replace(run.settings.fit, terms=("mode_offset",))
    swath = np.where(near["pass_id"] // 2 % 3 == 0, "sarin_swath", "sarin_poca")
    near = near.assign(mode=pd.Categorical(swath))
    diagnosis = explain_post(near, X, Y, config)
    near = near[(diagnosis.points["reason"] != Reason.PASS_REJECTED).to_numpy()]
    years = (near["time"] - pd.Timestamp(EPOCH)) / pd.Timedelta(seconds=31_557_600)
    matrix = np.column_stack(
        [(near["x"] - X) / 1500, (near["y"] - Y) / 1500, years, offset_codes(near["mode"])]
    )
    assert diagnosis.terms[0].fitted
    assert diagnosis.tolerances == pytest.approx([tolerance(matrix, k) for k in range(3)], rel=1e-9)


# --- the command


def test_a_post_is_explained_in_a_table_a_picture_and_a_file(
    call: Call, run: Run, tmp_path: Path
) -> None:
    table = tmp_path / "points.csv"
    code, said, complaints = call("explain", run.path, "--at", X + 210, Y - 120, "--output", table)
    assert (code, complaints) == (0, "")
    found = explain_at(run, X, Y)
    assert f"post         x {X:.12g} m, y {Y:.12g} m in EPSG:3413" in said
    assert "242 m from the given place" in said
    assert "its dhdt and status agree, to 1e-9 m/yr" in said
    assert f"dh/dt        {float(found.fit['dhdt']):+.3f}" in said
    for number in found.passes["pass_id"]:
        assert f"\n  {number:>12} " in said
    picture = run.path / "explained" / f"x{X:.0f}_y{Y:.0f}.png"
    assert f"plot         {picture}" in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    written = pd.read_csv(table)
    assert written["reason"].tolist() == found.points["reason"].tolist()
    assert written["residual"].to_numpy() == pytest.approx(found.points["residual"].to_numpy())


def test_the_location_may_be_given_in_degrees(call: Call, run: Run, tmp_path: Path) -> None:
    longitude, latitude = WORLD.to_degrees(X, Y)
    picture = tmp_path / "post.svg"
    code, said, _ = call(
        "explain", run.path, "--lonlat", "--at", longitude, latitude, "--json", "--plot", picture
    )
    assert code == 0
    told = json.loads(said)
    assert (told["x"], told["y"], told["status"]) == (X, Y, "ok")
    assert told["stored"]["agrees"] is True
    assert told["latitude"] == pytest.approx(float(latitude), abs=1e-9)
    assert told["points"]["kept"] == told["fit"]["data_count"]
    assert sum(row["points"] for row in told["passes"]) == sum(told["points"].values())
    assert picture.read_text().startswith("<?xml")


def test_points_can_be_written_as_parquet(call: Call, run: Run, tmp_path: Path) -> None:
    table = tmp_path / "points.parquet"
    assert call("explain", run.path, "--at", X, Y, "-o", table)[0] == 0
    assert pd.read_parquet(table).equals(explain_at(run, X, Y).points)


def test_a_run_without_tiles_can_be_explained(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    code, said, _ = call("explain", planned(tmp_path, points).path, "--at", X, Y)
    assert code == 0
    assert "not fitted yet" in said


def test_a_rate_that_one_pass_carries_alone_has_no_interval(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    near = in_circle(points, X, Y, 1500.0)
    long = near[near.groupby("pass_id")["x"].transform("size") > 8]
    up = long["ascending"].astype(bool)
    ends = near["pass_id"].isin([long[up]["pass_id"].iloc[0], long[~up]["pass_id"].iloc[-1]])
    bounds = (X - 2000, Y - 2000, X + 2000, Y + 2000)
    run = planned(tmp_path, near[ends], recipe="plane", bounds=bounds)
    code, said, _ = call("explain", run.path, "--at", X, Y)
    assert code == 0
    assert "without an interval" in said
    assert "degrees of freedom" not in said
    assert "no limit" in said
    assert "nan" not in said


def test_a_crossing_of_seconds_has_a_span_of_less_than_a_hundredth_of_a_day(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    near = in_circle(points, X, Y, 1500.0)
    once = near[near["pass_id"] == near["pass_id"].value_counts().idxmax()]
    bounds = (X - 2000, Y - 2000, X + 2000, Y + 2000)
    run = planned(tmp_path, once, recipe="plane", bounds=bounds)
    code, said, _ = call("explain", run.path, "--at", X, Y)
    assert code == 0
    (line,) = (line for line in said.splitlines() if "time span" in line)
    assert "< 0.01 days" in line
    assert line.endswith("FAILED")


def test_the_explanation_of_a_post_outside_the_mask_says_so(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    east = [(X - 500, Y - 9e3), (X + 9e3, Y - 9e3), (X + 9e3, Y + 9e3), (X - 500, Y + 9e3)]
    ice = vector_file(tmp_path / "east.gpkg", shapely.Polygon(east), crs=WORLD.crs)
    run = planned(tmp_path, points, mask=str(ice))
    work(run)
    assert "agree, to 1e-9 m/yr" in call("explain", run.path, "--at", X, Y)[1]
    code, said, _ = call("explain", run.path, "--at", X - 1000, Y)
    assert code == 0
    assert "outside the mask of the run" in said


def test_a_tile_that_disagrees_with_the_fit_is_an_error(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    run = planned(tmp_path, points)
    found = explain_at(run, X, Y)
    index = run.names.index(found.stored.tile)
    work(run)
    tile = run.store.load(run.tiles[index])
    tile["dhdt"] = tile["dhdt"] + 1e-6
    run.store.save(run.tiles[index], tile, run.fingerprint(index))
    code, said, complaints = call("explain", run.path, "--at", X, Y)
    assert code == 1
    assert "DIFFERS" in said
    assert len(complaints.splitlines()) == 1
    assert found.stored.tile in complaints


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--at", "0", "0"), "outside the grid"),
        (("--at", "0", "0"), "for degrees use --lonlat"),
        (("--at", "nan", "0"), "outside the grid"),
        (("--at", "inf", "0"), "outside the grid"),
        (("--lonlat", "--at", "-45000", "77"), "are not in degrees"),
        (("--lonlat", "--at", "135", "-80"), "outside the grid"),
        (("--at", str(X), str(Y), "--output", "points.txt"), "ends in neither .csv nor .parquet"),
        (("--at", str(X), str(Y), "--plot", "post.txt"), "no suffix of a picture"),
    ],
)
def test_bad_input_gets_one_line(
    words: tuple[str, ...], complaint: str, call: Call, run: Run
) -> None:
    code, said, complaints = call("explain", run.path, *words)
    assert code == 2
    assert said == ""
    assert len(complaints.splitlines()) == 1
    assert complaint in complaints


def test_the_nearest_post_is_explained() -> None:
    grid = Grid("EPSG:3413", (-5000.0, 0.0, 5000.0, 4000.0), 1000.0)
    assert nearest_post(grid, -1499.0, 2501.0) == (-1, 3)
    assert nearest_post(grid, 5499.0, -499.0) == (5, 0)
    with pytest.raises(InvalidValue, match="x 5501 m is outside the grid"):
        nearest_post(grid, 5501.0, 0.0)
