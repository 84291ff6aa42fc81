"""The explanation of a post agrees with the product and with a plain reference of the recipe."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import shapely

from cryotile.errors import InvalidValue
from cryotile.fit.diagnosis import Reason
from cryotile.fit.terms import TermFlag
from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid
from cryotile.pointdb import PointDB
from cryotile.points import name_pass, pass_id
from cryotile.readers.icesat2 import orbit_number
from cryotile.runs.explain import Explanation, explain_at, nearest_post
from cryotile.runs.run import Run, plan_run
from tests.support.command_line import Call
from tests.support.flown_run import REQUEST, WORLD, as_granule, fly_over, plan_flown, work
from tests.support.maps import vector_file
from tests.support.passes_oracle import TAU, Post, fit_passes, points_around
from tests.support.reference import in_circle

X, Y = WORLD.centre
EPOCH = "2015-01-01"
PLACES = [(X, Y), (X + 3000, Y - 2000), (X - 4000, Y + 4000), (X - 6000, Y - 1000), (X, Y + 8000)]


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
    used = counts.get(Reason.KEPT, 0) + counts.get(Reason.FREE_PASS, 0)
    assert used == int(stored["data_count"])
    assert len(found.points) - used == int(stored["rejected_count"])


@pytest.mark.parametrize("place", PLACES)
def test_points_passes_and_likelihood_are_those_of_the_reference(
    place: tuple[float, float], run: Run
) -> None:
    found = explain_at(run, *place)
    around = points_around(found.points, found.x, found.y, 1500.0, EPOCH)
    expected = fit_passes(around)
    assert float(found.fit["dhdt"]) == pytest.approx(expected.dhdt, abs=1e-8)
    kept = found.points["reason"].isin([Reason.KEPT, Reason.FREE_PASS]).to_numpy()
    np.testing.assert_array_equal(kept, expected.kept)
    passes = found.passes.set_index("pass_id")
    assert set(passes.index[passes["free"]]) == expected.fit.free
    deltas = passes["delta"].dropna()
    assert set(deltas.index) == set(expected.deltas)
    for number, change in expected.deltas.items():
        assert deltas[number] == pytest.approx(change[TAU], abs=1e-8)
    assert passes["share"].sum() == pytest.approx(1.0)
    best = found.likelihood.set_index("loglik")["ratio"][0.0]
    assert best == pytest.approx(expected.fit.theta, rel=1e-9)
    post = Post(replace(around, z=around.z - expected.mean).take(expected.kept), expected.sigma)
    logliks = [post.fit(theta, expected.fit.free).loglik for theta in found.likelihood["ratio"]]
    relative = np.array(logliks) - expected.fit.loglik
    np.testing.assert_allclose(found.likelihood["loglik"], relative, rtol=0, atol=1e-6)


def test_some_passes_of_this_world_are_free_and_some_points_are_rejected(run: Run) -> None:
    reasons = pd.concat([explain_at(run, *place).points["reason"] for place in PLACES])
    assert {Reason.KEPT, Reason.FREE_PASS, Reason.POINT_REJECTED} == set(reasons)


def test_each_rejection_says_by_how_much(run: Run) -> None:
    for place in PLACES:
        near = explain_at(run, *place).points
        details = near[near["reason"] == Reason.POINT_REJECTED]["detail"]
        off = details.str.extract(r"([+-][\d.]+) m from its pass, more than ([\d.]+) m").astype(
            float
        )
        assert (off[0].abs() >= off[1] - 0.01).all()
        assert (near.loc[near["reason"] == Reason.KEPT, "detail"] == "").all()


def test_the_row_of_a_pass_that_is_five_metres_off_shows_the_offset(
    tmp_path: Path, points: pd.DataFrame, run: Run
) -> None:
    passes = explain_at(run, X, Y).passes
    bad = passes["pass_id"][~passes["free"]].iloc[7]
    wrong = points.assign(elevation=points["elevation"] + 5.0 * (points["pass_id"] == bad))
    found = explain_at(planned(tmp_path, wrong), X, Y)
    row = found.passes.set_index("pass_id").loc[bad]
    assert row["free"]
    assert row["offset"] == pytest.approx(5.0, abs=0.7)
    assert row["t"] > 3
    assert np.isnan(row["delta"])
    own = found.points["pass_id"] == bad
    assert Reason.FREE_PASS in set(found.points.loc[own, "reason"])


def test_a_pass_is_named_by_its_platform_and_orbit(run: Run) -> None:
    row = explain_at(run, X, Y).passes.iloc[0]
    assert row["name"] == f"cryosat2 orbit {(row['pass_id'] & 0xFFFFFFFF) >> 1}"


def test_a_pass_of_icesat2_is_named_by_its_cycle_and_track() -> None:
    for cycle, track in [(1, 1), (3, 277), (4, 1387), (27, 1)]:
        number = pass_id("icesat2", orbit_number(cycle, track), ascending=False)
        assert name_pass(number) == f"icesat2 cycle {cycle} track {track}"


def test_passes_of_other_platforms_and_inferred_ones_have_a_name() -> None:
    start = int(np.datetime64("2015-03-01T10:20", "s").astype(int)) // 600
    assert name_pass(pass_id("envisat", start, True)) == "envisat from 2015-03-01 10:20"
    assert name_pass(pass_id("saral", 17, True)) == "saral orbit 17"
    assert name_pass(7) == "7"


def test_each_pass_names_the_granules_that_hold_it(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    late = (points["time"] >= "2015-01-01").to_numpy()
    # Two granules of one year, and one that has none of the points near the post.
    far = late & (points["x"] > X + 9000).to_numpy()
    db = PointDB.create(tmp_path / "ice.pdb", WORLD.crs)
    for name, part in {"EARLY.nc": ~late, "LATE.nc": late & ~far, "FAR.nc": far}.items():
        granule = as_granule(points[part].reset_index(drop=True))
        db.append([replace(granule, id=name, name=name, checksum=name)])
    run = plan_run(tmp_path / "run", REQUEST, db=db)
    found = explain_at(run, X, Y)
    expected = np.where(found.points["time"] >= pd.Timestamp("2015-01-01"), "LATE.nc", "EARLY.nc")
    assert found.points["granule"].tolist() == expected.tolist()
    assert set(found.passes["granule"]) == {"EARLY.nc", "LATE.nc"}
    said = call("explain", run.path, "--at", X, Y)[1]
    early = int((found.passes["granule"] == "EARLY.nc").sum())
    assert f"\n  EARLY.nc: {early} passes\n" in said
    assert "FAR.nc" not in said


def test_the_passes_that_widen_the_interval_most_are_named(call: Call, run: Run) -> None:
    passes = explain_at(run, X, Y).passes.dropna(subset="delta")
    first = passes.loc[passes["delta"].abs().idxmax()]
    share = first["delta"] ** 2 / (passes["delta"] ** 2).sum()
    said = call("explain", run.path, "--at", X, Y)[1]
    assert f"largest parts of the interval: {first['name']} ({share:.0%})" in said


def test_an_explanation_needs_no_right_to_write(call: Call, points: pd.DataFrame, run: Run) -> None:
    # A directory of its own, since another user may not enter those of pytest.
    with TemporaryDirectory() as directory:
        place = Path(directory)
        other = planned(place, points)
        work(other)
        for path in [place, *place.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            with as_another_user():
                with pytest.raises(PermissionError):
                    (other.path / "probe").touch()
                code, said, complaints = call("explain", other.path, "--at", X, Y)
        finally:
            for path in [place, *(p for p in place.rglob("*") if p.is_dir())]:
                path.chmod(0o755)
        assert (code, complaints) == (0, "")
        assert said == call("explain", run.path, "--at", X, Y)[1]


@contextmanager
def as_another_user() -> Iterator[None]:
    """Give up the rights of root, to which no permission applies; any other user keeps their own."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_nothing_is_written_beside_the_run(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    run = planned(tmp_path, points)
    before = sorted(path for path in run.path.rglob("*"))
    assert call("explain", run.path, "--at", X, Y)[0] == 0
    assert sorted(path for path in run.path.rglob("*")) == before


def test_windows_and_heights_of_a_run_are_listed(
    call: Call, tmp_path: Path, points: pd.DataFrame
) -> None:
    run = planned(tmp_path, points, heights="1y", windows=("5y", "1y"))
    found = explain_at(run, X, Y)
    said = call("explain", run.path, "--at", X, Y)[1]
    for height, passes in zip(
        found.fit["height"].to_numpy(), found.fit["height_pass_count"].to_numpy(), strict=True
    ):
        assert passes == 0 or f"{height:+9.3f} ±" in said
    for (start, end), rate in zip(
        found.fit["time_bnds"].to_numpy().astype("datetime64[D]"),
        found.fit["window_dhdt"].to_numpy(),
        strict=True,
    ):
        assert f"\n  {start} to {end}  {rate:+.3f} ±" in said
    told = json.loads(call("explain", run.path, "--at", X, Y, "--json")[1])
    assert len(told["fit"]["window_dhdt"]) == 4


# --- gates


def by_name(found: Explanation) -> dict[str, tuple[float, bool | None]]:
    return {gate.name: (gate.value, gate.passed) for gate in found.gates}


def test_a_fitted_post_passes_every_gate(run: Run) -> None:
    found = explain_at(run, X, Y)
    assert [gate.passed for gate in found.gates] == [True] * 4
    values = by_name(found)
    assert values["points"][0] == int(found.fit["data_count"])
    assert values["passes"][0] == int(found.fit["pass_count"])
    assert values["|dh/dt|"][0] == abs(float(found.fit["dhdt"]))
    assert values["95 % interval"][0] == float(found.fit["dhdt_ci95"])


GATES = {
    "passes": ("points", "passes", "|dh/dt|", "95 % interval"),
    "plane": ("points", "time span", "passes", "tolerance of u, v and time", "|dh/dt|"),
}


@pytest.mark.parametrize(
    ("recipe", "status", "gate"),
    [
        ("passes", Status.TOO_FEW_POINTS, "points"),
        ("passes", Status.TOO_FEW_PASSES, "passes"),
        ("passes", Status.RATE_OUT_OF_BOUNDS, "|dh/dt|"),
        ("passes", Status.TOO_UNCERTAIN, "95 % interval"),
        ("plane", Status.TOO_FEW_POINTS, "points"),
        ("plane", Status.TOO_SHORT_SPAN, "time span"),
        ("plane", Status.TOO_FEW_PASSES, "passes"),
        ("plane", Status.SINGULAR, "tolerance of u, v and time"),
    ],
)
def test_the_gate_that_fails_is_named_with_its_value(
    recipe: str, status: Status, gate: str, tmp_path: Path, points: pd.DataFrame
) -> None:
    points = in_circle(points, X, Y, 1500.0)
    years = (points["time"] - pd.Timestamp("2015-01-01")) / pd.Timedelta(days=365.25)
    ids = points["pass_id"].unique()
    longest = points[points["pass_id"] == points["pass_id"].mode()[0]]
    wild = np.random.default_rng(0).normal(0, 20, ids.size)[np.searchsorted(ids, points["pass_id"])]
    changed = {
        Status.TOO_FEW_POINTS: points.iloc[:4],
        Status.TOO_SHORT_SPAN: longest,
        Status.TOO_FEW_PASSES: longest
        if recipe == "plane"
        else points[points["pass_id"].isin(ids[[0, 20, -1]])],
        Status.SINGULAR: points.assign(y=Y + (points["x"] - X) / 2),
        Status.RATE_OUT_OF_BOUNDS: points.assign(elevation=points["elevation"] + 40 * years),
        Status.TOO_UNCERTAIN: points.assign(elevation=points["elevation"] + wild),
    }[status]
    bounds = (X - 2000, Y - 2000, X + 2000, Y + 2000)
    options = (
        {"min_span_days": 0.0} if status == Status.TOO_FEW_PASSES and recipe == "plane" else {}
    )
    found = explain_at(planned(tmp_path, changed, bounds=bounds, recipe=recipe, **options), X, Y)
    assert int(found.fit["status"]) == status
    order, passed = [g.name for g in found.gates], [g.passed for g in found.gates]
    assert tuple(order) == GATES[recipe]
    at = order.index(gate)
    assert passed == [True] * at + [False] + [None] * (len(order) - at - 1)
    failed = found.gates[at]
    beyond = failed.value > failed.threshold if failed.is_upper else failed.value < failed.threshold
    assert beyond or (status == Status.SINGULAR and np.isnan(failed.value))


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


# --- the command


def test_a_post_is_explained_in_a_table_a_picture_and_a_file(
    call: Call, run: Run, tmp_path: Path
) -> None:
    table, picture = tmp_path / "points.csv", tmp_path / "post.png"
    place = ("--at", X + 210, Y - 120)
    code, said, complaints = call("explain", run.path, *place, "--plot", picture, "--output", table)
    assert (code, complaints) == (0, "")
    found = explain_at(run, X, Y)
    assert f"post         x {X:.12g} m, y {Y:.12g} m in EPSG:3413" in said
    assert "242 m from the given place" in said
    assert "its dhdt and status agree, to 1e-9 m/yr" in said
    assert f"dh/dt        {float(found.fit['dhdt']):+.3f}" in said
    for name in found.passes["name"]:
        assert f"\n  {name:20} " in said
    assert f"plot         {picture}" in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    limit = re.search(r"rejects a point that is more than ([\d.]+) m from its pass", said)
    assert limit is not None
    assert float(limit[1]) == pytest.approx(found.point_limit, abs=5e-4)
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
    used = told["points"]["kept"] + told["points"]["free_pass"]
    assert used == told["fit"]["data_count"]
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
        (("--lonlat", "--at", "135", "-80"), "have no place in EPSG:3413; give a place of the map"),
        (("--lonlat", "--at", "135", "80"), "outside the grid"),
        (("--at", str(X), str(Y), "--output", "points.txt"), "ends in none of .csv, .parquet"),
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
