"""The calls from Python do what the commands do, return values and print nothing."""

from __future__ import annotations

import inspect
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click import Context

import cryotile as ct
from cryotile.cli import cli
from cryotile.errors import CryotileWarning, FailedTasks, IncompleteIngest, InvalidValue, Unfinished
from cryotile.farm.task import Outcome
from cryotile.fit.variables import Status
from cryotile.runs.ingest_batch import memory_of
from cryotile.runs.plan import SETTINGS as ALL_SETTINGS
from cryotile.simulate import World, simulate
from tests.support.command_line import Call
from tests.support.made_up import granule, points, with_points
from tests.support.small_run import fit, make_run, tile_file

WORLD = World(bounds=(-30e3, -1380e3, 30e3, -1320e3))
SETTINGS = {"posting": 1000, "radius": 2000, "recipe": "plane", "tile_size": 15}


@pytest.fixture(scope="session")
def mission(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four months of granules over a small ice cap."""
    return simulate(tmp_path_factory.mktemp("mission"), years=0.35, seed=1, world=WORLD)


@pytest.fixture(scope="session")
def planned(mission: list[Path], tmp_path_factory: pytest.TempPathFactory) -> ct.Run:
    """A run over them, not worked on; tests that work on it copy its directory."""
    home = tmp_path_factory.mktemp("planned")
    db = ct.ingest(home / "ice.pdb", mission, crs=WORLD.crs, backend="serial")
    return ct.plan(home / "run", db, **SETTINGS)


@pytest.fixture(scope="session")
def done(planned: ct.Run, tmp_path_factory: pytest.TempPathFactory) -> ct.Run:
    """The same run with all of its tiles."""
    home = tmp_path_factory.mktemp("done")
    shutil.copytree(planned.path.parent, home, dirs_exist_ok=True)
    return ct.run(home / "run", backend="serial")


# --- calls and commands -----------------------------------------------------------------------------------------


def test_calls_and_commands_make_the_same_bytes_and_calls_print_nothing(
    mission: list[Path], call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "calls", tmp_path / "commands"
    db = ct.ingest(ours / "ice.pdb", mission, crs=WORLD.crs, backend="serial")
    run = ct.run(ct.plan(ours / "run", db, **SETTINGS), backend="serial")
    ct.assemble(run, ours / "dhdt.nc")
    assert capsys.readouterr() == ("", "")
    words = ("--posting", 1000, "--radius", 2000, "--recipe", "plane", "--tile-size", 15)
    call("ingest", theirs / "ice.pdb", *mission, "--crs", WORLD.crs, "--backend", "serial")
    call("plan", theirs / "run", "--db", theirs / "ice.pdb", *words)
    call("run", theirs / "run", "--backend", "serial")
    assert call("assemble", theirs / "run", "-o", theirs / "dhdt.nc")[0] == 0
    assert (ours / "dhdt.nc").read_bytes() == (theirs / "dhdt.nc").read_bytes()


def test_a_setting_of_the_fit_is_a_keyword_and_an_option_of_plan() -> None:
    settings = {field.name for field in fields(ct.FitConfig)}
    asked = set(ALL_SETTINGS)
    assert settings <= asked
    keywords = set(inspect.signature(ct.plan).parameters)
    assert keywords - {"run", "db"} == asked
    command = cli.get_command(Context(cli), "plan")
    assert command is not None
    options = {parameter.name for parameter in command.params if parameter.expose_value}
    # Length and step of windows are two options.
    assert options - {"run_directory", "db"} == asked - {"windows"} | {"window", "step"}


def test_gates_given_as_options_are_frozen(call: Call, planned: ct.Run, tmp_path: Path) -> None:
    gates = ("--min-passes", 3, "--min-points", 7, "--min-span", 12.5, "--max-rate", 4)
    db = planned.db_path
    code, _, complaint = call("plan", tmp_path / "run", "--db", db, "--recipe", "plane", *gates)
    assert (code, complaint) == (0, "")
    config = ct.Run.load(tmp_path / "run").settings.fit
    assert (config.min_passes, config.min_points) == (3, 7)
    assert (config.min_span_days, config.max_rate) == (12.5, 4.0)


def test_whole_numbers_are_the_same_settings_as_floats(planned: ct.Run) -> None:
    assert ct.plan(planned, posting=1000.0, radius=2000.0).uuid == planned.uuid
    assert type(planned.settings.grid.posting) is type(planned.settings.fit.radius) is float
    with pytest.raises(InvalidValue, match="posting 'one' is not a number"):
        ct.plan(planned, posting="one")


@pytest.mark.parametrize("setting", [{"min_points": 5.5}, {"tile_size": 2.5}, {"radius": "2000"}])
def test_a_setting_is_refused_rather_than_cut_or_read_from_text(
    planned: ct.Run, tmp_path: Path, setting: dict[str, object]
) -> None:
    with pytest.raises(InvalidValue, match="is not a"):
        ct.plan(tmp_path / "run", planned.path.parent / "ice.pdb", **{**SETTINGS, **setting})


class Odd:
    """A value that no argument takes."""


CALLS: list[tuple[str, Callable[..., object]]] = [
    *((name, ct.plan) for name in inspect.signature(ct.plan).parameters),
    *((n, ct.ingest) for n in inspect.signature(ct.ingest).parameters if n != "progress"),
    *((name, ct.run) for name in ("run", "backend", "stall", "lease")),
    *((name, ct.PointDB.read) for name in ("bounds", "columns", "where", "time")),
    ("run", ct.open_run),
    ("path", ct.open),
    ("data", ct.plot),
    ("output", ct.assemble),
    ("granules", ct.PointDB.append),
    ("path", ct.PointDB),
    ("path", ct.Run.load),
    ("path", ct.read_granule),
]


@pytest.mark.parametrize(("name", "function"), CALLS)
def test_an_argument_of_a_wrong_type_is_refused_in_one_line(
    name: str, function: Callable[..., object], done: ct.Run, mission: list[Path], tmp_path: Path
) -> None:
    others = {
        ct.plan: {"run": tmp_path / "run", "db": done.db_path, "recipe": "plane"},
        ct.ingest: {"db": tmp_path / "ice.pdb", "granules": mission[:1], "crs": WORLD.crs},
        ct.run: {"run": done, "backend": "local:1"},
        ct.assemble: {"run": done},
        ct.PointDB.read: {"self": ct.PointDB(done.db_path)},
        ct.PointDB.append: {"self": ct.PointDB(done.db_path)},
    }.get(function, {})
    for value in (Odd(), [Odd(), Odd()]):
        with pytest.raises(InvalidValue) as refused:
            function(**{**others, name: value})
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_bounds_of_three_numbers_and_a_granule_in_place_of_its_path_are_refused(
    planned: ct.Run, mission: list[Path], tmp_path: Path
) -> None:
    db = ct.PointDB(planned.db_path)
    three = (-20e3, -1370e3, 20e3)
    with pytest.raises(InvalidValue, match=r"bounds .* not four .*x_min y_min x_max y_max"):
        ct.plan(tmp_path / "run", db, bounds=three)
    with pytest.raises(InvalidValue, match=r"bounds .* not four"):
        db.read(three)
    with pytest.raises(InvalidValue, match=r"granules must be a path.*PointDB\.append"):
        ct.ingest(tmp_path / "ice.pdb", [ct.read_granule(mission[0])], crs=WORLD.crs)
    with pytest.raises(InvalidValue, match="is a point DB; plan a run"):
        ct.run(db)


def test_one_granule_and_one_radius_are_as_good_as_a_list(planned: ct.Run, tmp_path: Path) -> None:
    db = ct.PointDB.create(tmp_path / "ice.pdb", "EPSG:3031")
    db.append(granule(1))
    db.append([granule(2)])
    assert len(db.granules) == 2
    run = ct.plan(tmp_path / "run", planned.db_path, recipe="plane", fallback_radii=6000)
    assert run.settings.fit.fallback_radii == (6000.0,)


@pytest.mark.parametrize(
    "day",
    [
        date(2011, 1, 1),
        datetime(2011, 1, 1, tzinfo=UTC),
        pd.Timestamp("2011-01-01"),
        pd.Timestamp("2010-12-31 23:00", tz="Etc/GMT+1"),
        np.datetime64("2011-01-01"),
    ],
)
def test_a_day_is_the_same_setting_in_any_type(planned: ct.Run, tmp_path: Path, day: Any) -> None:
    asked = {"recipe": "plane", "reference_epoch": day}
    run = ct.plan(tmp_path / "run", planned.db_path, period=(day, "2012-01-01"), **asked)
    assert run.settings.fit.period == ("2011-01-01", "2012-01-01")
    assert run.settings.fit.reference_epoch == "2011-01-01"
    db = ct.PointDB(planned.db_path)
    assert (
        len(db.read(time=(day, "2012-01-01")))
        == len(db.read(time=("2011-01-01", "2012-01-01")))
        > 0
    )


def test_a_remedy_names_a_keyword_in_python_and_an_option_on_the_command_line(
    planned: ct.Run, mission: list[Path], tmp_path: Path, call: Call
) -> None:
    with pytest.raises(InvalidValue, match=r'e\.g\. crs="EPSG:3031"'):
        ct.ingest(tmp_path / "ice.pdb", mission[0])
    assert 'e.g. --crs "EPSG:3031"' in call("ingest", tmp_path / "ice.pdb", mission[0])[2]
    with pytest.raises(InvalidValue, match=r'e\.g\. db="ice\.pdb"'):
        ct.plan(tmp_path / "run")
    assert 'e.g. --db "ice.pdb"' in call("plan", tmp_path / "run")[2]
    with pytest.raises(Unfinished, match="with partial=True"):
        ct.assemble(planned, tmp_path / "dhdt.nc")
    assert "with --partial," in call("assemble", planned.path, "-o", tmp_path / "dhdt.nc")[2]


def test_memory_is_bytes_or_the_text_of_the_option(mission: list[Path], tmp_path: Path) -> None:
    asked = {"crs": WORLD.crs, "backend": "serial"}
    db = ct.ingest(tmp_path / "ice.pdb", mission[0], memory="0.5 GB", **asked)
    assert len(db.granules) == 1
    with pytest.raises(InvalidValue, match="memory 'much' is not a size"):
        ct.ingest(tmp_path / "other.pdb", mission[0], memory="much", **asked)
    assert (memory_of(2e9), memory_of("2GB"), memory_of("800 MB")) == (2e9, 2e9, 8e8)


def test_one_path_is_as_good_as_a_list(mission: list[Path], tmp_path: Path) -> None:
    db = ct.ingest(str(tmp_path / "ice.pdb"), str(mission[0]), crs=WORLD.crs, backend="serial")
    again = ct.ingest(db, iter([mission[0], mission[1]]), backend="serial")
    assert again is db
    assert len(db.granules) == 2
    assert db.last_ingest is not None
    assert (len(db.last_ingest.added), db.last_ingest.present) == (1, 1)


def test_a_granule_that_cannot_be_read_is_named_and_the_others_go_in(
    mission: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.nc"
    bad.write_text("not a granule\n", encoding="utf-8")
    db = ct.ingest(tmp_path / "ice.pdb", mission[0], crs=WORLD.crs, backend="serial")
    with pytest.raises(
        IncompleteIngest, match=r"1 of 2 granules did not go in.*bad\.nc"
    ) as failure:
        ct.ingest(db, [bad, mission[1]], backend="serial")
    assert len(failure.value.problems) == 1
    assert len(db.granules) == 2
    assert db.last_ingest is not None
    assert "1 added" in repr(db.last_ingest)
    assert "bad.nc" in db.last_ingest._repr_html_()


def test_no_granule_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="no granule was named"):
        ct.ingest(tmp_path / "ice.pdb", [], crs=WORLD.crs)
    with pytest.raises(InvalidValue, match="does not exist"):
        ct.open(tmp_path / "dhdt.nc")


def test_failed_tiles_raise_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    list(run.record([Outcome(run.tasks[0], 0.1, 3, "host", "why\nbecause")]))
    with pytest.raises(FailedTasks, match=r"1 of 25 tiles failed .*because.*cryotile retry"):
        ct.run(run, backend="serial")
    assert [task.index for task in run.missing()] == [0]
    run.retry()
    assert ct.run(run.path, backend="serial").missing() == []


def test_an_unfinished_run_is_not_assembled_by_accident(planned: ct.Run, tmp_path: Path) -> None:
    with pytest.raises(Unfinished, match="are missing"):
        ct.assemble(planned, tmp_path / "dhdt.nc")
    assert not (tmp_path / "dhdt.nc").exists()


def test_a_run_says_in_a_few_lines_what_it_is(planned: ct.Run, done: ct.Run) -> None:
    count = len(done.tasks)
    assert f"{count}: {count} missing, 0 failed" in repr(planned)
    assert f"{count}: 0 missing, 0 failed" in repr(done)
    assert "plane, radius 2000 m" in done._repr_html_()
    assert len(repr(done).splitlines()) < 12


def test_a_map_is_drawn_from_a_lazy_variable_a_run_and_a_product(
    done: ct.Run, tmp_path: Path
) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    from matplotlib.axes import Axes

    product = tmp_path / "dhdt.nc"
    ct.assemble(done, product)
    for data in (ct.open_run(done).dhdt, done, product):
        axes = ct.plot(data, limits=(-2.0, 2.0), title="Rates")
        assert isinstance(axes, Axes)
        assert axes.get_title(loc="left") == "Rates"
        axes.plot(0.0, 0.0, "k^")  # axes are there to go on from
        axes.figure.savefig(tmp_path / "dhdt.png")
        plt.close(axes.figure)
        assert (tmp_path / "dhdt.png").stat().st_size > 10_000


def round_to_ms(instants: np.ndarray) -> np.ndarray:
    """The nearest milliseconds."""
    return (instants + np.timedelta64(500_000, "ns")).astype("datetime64[ms]")


# --- lazy datasets ----------------------------------------------------------------------------------------------


def test_a_lazy_run_holds_what_its_product_holds(done: ct.Run, tmp_path: Path) -> None:
    ct.assemble(done, tmp_path / "dhdt.nc")
    with ct.open(tmp_path / "dhdt.nc") as product, ct.open_run(done) as lazy:
        assert list(lazy.data_vars) == list(product.data_vars)
        # The range of elevations is known when all are written.
        range_of = {f"geospatial_vertical_{end}" for end in ("min", "max")}
        said = {name: value for name, value in product.attrs.items() if name not in range_of}
        assert lazy.attrs == pytest.approx(said)
        for name in lazy.data_vars:
            ours, theirs = lazy[name].to_numpy(), product[name].to_numpy()
            # xarray decodes the days of a file to nanoseconds, of which the last digits are those of a float.
            if ours.dtype.kind == "M":
                theirs = round_to_ms(theirs)
            np.testing.assert_array_equal(ours.astype(theirs.dtype), theirs)
            product[name].attrs.pop("units_metadata", None)
            np.testing.assert_equal(lazy[name].attrs, product[name].attrs)


def test_a_chunk_of_a_lazy_run_is_a_tile(done: ct.Run) -> None:
    pytest.importorskip("dask")
    lazy = ct.open_run(done)
    columns, rows = done.settings.grid.cuts(done.settings.tile_size)
    assert lazy.dhdt.chunks == (
        tuple(len(posts) for posts in rows.values()),
        tuple(len(posts) for posts in columns.values()),
    )


def test_any_rectangle_and_any_post_of_a_lazy_run_is_that_of_the_whole(done: ct.Run) -> None:
    lazy = xr.open_dataset(done.path, engine="cryotile")
    assert lazy.dhdt.chunks is None
    whole = lazy.load().dhdt
    for key in [
        np.s_[3, 5],
        np.s_[7:40, 11],
        np.s_[::-3, 14:17],
        np.s_[[4, 40, 20], :],
        np.s_[5:5, :],
        np.s_[-1, -1],
    ]:
        part = xr.open_dataset(done.path, engine="cryotile").dhdt[key]
        xr.testing.assert_identical(part.load(), whole[key])


def test_tiles_that_are_missing_are_not_computed_and_seen_once_they_are_there(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path)
    fit(run, 0, 1)
    lazy = xr.open_dataset(run.path, engine="cryotile")
    tiles = [{"x": run.tile(n).x, "y": run.tile(n).y} for n in range(3)]
    assert (lazy.status.sel(tiles[0]) != Status.NOT_COMPUTED).all()
    assert (lazy.status.sel(tiles[2]) == Status.NOT_COMPUTED).all()
    assert np.isnan(lazy.dhdt.sel(tiles[2])).all()
    fit(run, 2)
    tile_file(run, run.tasks[1]).write_bytes(b"damaged")
    lazy = xr.open_dataset(run.path, engine="cryotile")
    assert (lazy.status.sel(tiles[2]) != Status.NOT_COMPUTED).all()
    empty = {(tile.ix, tile.iy) for tile in run.empty_tiles()}
    for tile in run.empty_tiles():
        assert (lazy.status.sel(x=tile.x, y=tile.y) == Status.NO_POINTS).all()
    assert (run.tile(0).ix, run.tile(0).iy) not in empty


def test_xarray_recognizes_a_run_by_itself(done: ct.Run) -> None:
    with xr.open_dataset(done.path) as lazy:
        assert lazy.attrs["recipe"] == "plane"
        # A variable that is taken out keeps its CRS.
        assert lazy.dhdt.attrs["grid_mapping"] in lazy.dhdt.coords
    with xr.open_dataset(done.path, engine="cryotile", drop_variables=["dhdt"]) as lazy:
        assert "dhdt" not in lazy


@pytest.mark.parametrize("name", ["absent.nc", "text.nc", "map.tif"])
def test_a_file_that_is_no_product_is_refused_by_name(
    done: ct.Run, tmp_path: Path, name: str
) -> None:
    (tmp_path / "text.nc").write_text("no map")
    ct.assemble(done, tmp_path / "map.tif")
    with pytest.raises(InvalidValue, match=name):
        ct.open(tmp_path / name)
    with pytest.raises(InvalidValue, match=name):
        xr.open_dataset(tmp_path / name, engine="cryotile")


# --- what a plan says before a run ------------------------------------------------------------------------------


def test_a_plan_says_that_no_post_can_pass_and_why(
    planned: ct.Run, tmp_path: Path, call: Call
) -> None:
    with pytest.warns(CryotileWarning, match=r"span at most \d+ days, and a fit needs 3000 days"):
        ct.plan(tmp_path / "run", planned.db_path, recipe="plane", min_span_days=3000)
    said = call("plan", tmp_path / "run")[1]
    assert re.search("warning      .*the points around a post span at most", said)
    with pytest.warns(
        CryotileWarning, match=r"fit needs 500 .min_passes.*: none of .* posts that were tried"
    ):
        ct.plan(tmp_path / "run2", planned.db_path, recipe="plane", min_passes=500)
    with pytest.warns(CryotileWarning, match=r"fit needs 10,000,000 .min_points.*: none of"):
        ct.plan(tmp_path / "run3", planned.db_path, recipe="plane", min_points=10_000_000)


def test_a_plan_counts_passes_and_time_where_its_posts_are_and_of_its_selection(
    tmp_path: Path,
) -> None:
    # Ten passes over the west in ten months, and one of them over the east.
    frame = points(1, 3000, extent=4e3)
    number = np.arange(3000) % 10
    frame["time"] = pd.Timestamp("2015-01-01") + pd.to_timedelta(number * 30, unit="D")
    west = frame.assign(pass_id=number, platform="icesat2", mode="laser", x=frame["x"] - 3e4)
    east = west[west["pass_id"] == 0].assign(x=frame["x"] + 3e4)
    db = ct.PointDB.create(tmp_path / "ice.pdb", "EPSG:3031")
    db.append([with_points(granule(1, 3300), pd.concat([west, east]))])
    asked: dict[str, Any] = {"recipe": "plane", "min_span_days": 100.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ct.plan(tmp_path / "west", db, bounds=(-4e4, -5e3, -2e4, 5e3), **asked)
    with pytest.warns(CryotileWarning, match=r"at most 1 passes .* needs 2 \(min_passes\)"):
        ct.plan(tmp_path / "east", db, bounds=(2e4, -5e3, 4e4, 5e3), **asked)
    with pytest.warns(CryotileWarning, match=r"at most 2 passes .* needs 5 \(min_passes\)"):
        ct.plan(tmp_path / "few", db, where="time < '2015-02-15'", min_passes=5, recipe="plane")
    with pytest.warns(CryotileWarning, match=r"span at most 90 days.* needs 100 days"):
        ct.plan(tmp_path / "short", db, period=("2015-01-01", "2015-04-05"), **asked)


def test_a_plan_whose_posts_may_pass_says_nothing(planned: ct.Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ct.plan(planned)


def test_simulated_points_among_real_ones_are_warned_about_at_ingest_and_plan(
    mission: list[Path], tmp_path: Path, call: Call
) -> None:
    real = [shutil.copy(path, tmp_path) for path in mission[:20]]
    for path in real:
        with h5py.File(path, "r+") as file:
            del file.attrs["simulated"]
    db, name = tmp_path / "ice.pdb", mission[20].name
    assert "simulated and" not in "".join(call("ingest", db, *real, "--crs", WORLD.crs)[1:])
    assert " simulated" not in call("info", db)[1]
    _, _, said = call("ingest", db, *mission[20:30])
    assert re.search(rf"note: {name} and \d others: .* both simulated and real points", said)
    assert re.search(r"points +[\d,]+, of them \d+ % simulated", call("info", db)[1])
    assert "kept, all simulated" in call("info", mission[20])[1]
    with pytest.warns(CryotileWarning, match="both simulated and real points"):
        ct.plan(tmp_path / "run", db, recipe="plane", min_span_days=1.0)


def test_a_weight_without_data_is_refused_by_the_plan(tmp_path: Path) -> None:
    frame = points(1, 2000, extent=20e3)
    db = ct.PointDB.create(tmp_path / "ice.pdb", "EPSG:3031")
    db.append([with_points(granule(1, 2000), frame)])
    asked = {"weights": ("uncertainty",), "terms": ("platform_offset",)}
    with pytest.raises(InvalidValue, match=r"\d+ of \d+ selected points .*no uncertainty"):
        ct.plan(tmp_path / "run", db, **asked)
    assert not (tmp_path / "run").exists()
    # The made-up heights are noise of hundreds of metres.
    with pytest.warns(CryotileWarning, match="has a fit .*rate_out_of_bounds"):
        ct.plan(tmp_path / "run", db, where="uncertainty >= 0", **asked)
    complete = replace(granule(2, 2000), points=frame.assign(uncertainty=0.5))
    other = ct.PointDB.create(tmp_path / "other.pdb", "EPSG:3031")
    other.append([complete])
    with pytest.warns(CryotileWarning, match="has a fit .*rate_out_of_bounds"):
        run = ct.plan(tmp_path / "run2", other, **asked)
    assert run.settings.fit.weights == ("uncertainty",)


def test_a_weight_that_one_chunk_of_many_lacks_is_refused(tmp_path: Path) -> None:
    frame = points(1, 3000, extent=1.2e6).assign(uncertainty=0.5, platform="icesat2", mode="laser")
    last = frame["x"] == frame["x"].max()
    frame.loc[last, "uncertainty"] = np.nan
    db = ct.PointDB.create(tmp_path / "ice.pdb", "EPSG:3031")
    db.append([with_points(granule(1, 3000), frame)])
    assert len([*db.iter_chunks()]) > 100
    asked = {"weights": "uncertainty"}
    with pytest.raises(InvalidValue, match=r"1 of .* no uncertainty"):
        ct.plan(tmp_path / "run", db, **asked)


def test_platforms_of_any_word_mix_only_with_an_offset(tmp_path: Path) -> None:
    frame = points(1, 2000, extent=4e3)
    years = (frame["time"] - frame["time"].min()) / np.timedelta64(10**9, "ms") * 4
    frame["time"] = frame["time"].min() + (years * 3.156e10).round().astype("timedelta64[ms]")
    frame["elevation"] = 1000 - years + np.sin(np.arange(2000.0))
    words = np.resize(["saral", "airborne", "ers1"], len(frame))
    db = ct.PointDB.create(tmp_path / "ice.pdb", "EPSG:3031")
    db.append([with_points(granule(1, 2000), frame.assign(platform=words, mode="lrm"))])
    with pytest.raises(InvalidValue, match=r"mixes platforms \(airborne: 667.*saral: 667"):
        ct.plan(tmp_path / "run", db, recipe="plane")
    asked = {"terms": ("platform_offset",), "posting": 2000.0}
    run = ct.plan(tmp_path / "run", db, **asked)
    assert run.settings.fit.other_platforms == ("airborne", "saral")
    assert ct.plan(run, **asked).settings == run.settings
    ct.assemble(ct.run(run, backend="serial"), tmp_path / "dhdt.nc")
    with xr.open_dataset(tmp_path / "dhdt.nc") as opened:
        assert "elevation of saral" in opened["platform_offset_saral"].long_name
        assert opened.attrs["other_platforms"] == "airborne saral"
        assert np.isfinite(opened["platform_offset_saral"]).any()
        assert np.isfinite(opened["platform_offset_airborne"]).any()


# --- a project that moves ---------------------------------------------------------------------------------------


def test_a_run_moves_with_its_project(planned: ct.Run, tmp_path: Path) -> None:
    project = tmp_path / "here" / "project"
    shutil.copytree(planned.path.parent, project)
    run = ct.Run.load(project / "run")
    assert run.db_path == project / "ice.pdb"
    fit(run, 0)
    moved = project.rename(tmp_path / "elsewhere")
    run = ct.run(moved / "run", backend="serial")
    assert run.db_path == moved / "ice.pdb"
    assert run.missing() == []


def test_a_point_db_elsewhere_is_found_from_a_run_that_moves(
    planned: ct.Run, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    run = ct.plan(tmp_path / "runs" / "run", planned.db_path, **SETTINGS)
    moved = run.path.rename(tmp_path / "run")
    assert ct.Run.load(moved).db_path == planned.db_path


def test_a_plan_corrects_the_path_of_a_point_db_that_was_moved(
    planned: ct.Run, tmp_path: Path
) -> None:
    shutil.copytree(planned.path, tmp_path / "run")
    shutil.copytree(planned.db_path, tmp_path / "there" / "ice.pdb")
    with pytest.raises(InvalidValue, match=r"is gone; .*cryotile plan"):
        ct.plan(tmp_path / "run")
    stranger = ct.PointDB.create(tmp_path / "stranger.pdb", WORLD.crs)
    stranger.append([granule(1)])
    with pytest.raises(InvalidValue, match="is not the point DB that"):
        ct.plan(tmp_path / "run", stranger)
    run = ct.plan(tmp_path / "run", tmp_path / "there" / "ice.pdb")
    assert run.db_path == tmp_path / "there" / "ice.pdb"
    assert run.uuid == planned.uuid
    assert run.generation == planned.generation
    fit(run, 0)


def test_a_plan_on_many_small_fragments_advises_to_compact(tmp_path: Path) -> None:
    db = ct.PointDB.create(tmp_path / "ice.pdb", "EPSG:3413")
    for seed in range(11):
        db.append([granule(seed, extent=20e3)])
    assert db.scattered_chunks().to_list() == [11] * 4
    where = "platform == 'icesat2'"
    with pytest.warns(CryotileWarning) as said:
        ct.plan(tmp_path / "run", db, posting=5000, radius=5000, where=where)
    assert any("4 chunks of" in str(line.message) for line in said)
    db.compact()
    assert db.scattered_chunks().empty
