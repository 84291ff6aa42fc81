"""The command line as users see it: its messages, exit codes, and the files that it does not touch."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cryotile.pointdb import PointDB
from tests.support.command_line import Call, output_of, start
from tests.support.errors import only_line


@pytest.fixture(scope="session")
def greenland(granules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a point DB of laser and radar granules over Greenland."""
    path = tmp_path_factory.mktemp("greenland") / "greenland.pdb"
    patterns = [
        "ATL11_*.h5",
        "processed_ATL06_20190*.h5",  # a later granule lacks a variable that its product prescribes
        "CS_OFFL_SIR_TDP_LI_GREENL_*.nc",
        "CS_LTA__SIR_LRMI2__*.nc",
    ]
    files = [file for pattern in patterns for file in sorted(granules.glob(pattern))]
    output_of("ingest", path, *files, "--crs", "EPSG:3413")
    return path


# --- the whole path, on real granules ---------------------------------------------------------------------------


def test_the_crs_is_needed_only_by_the_first_ingest(
    call: Call, granules: Path, tmp_path: Path
) -> None:
    db = tmp_path / "antarctica.pdb"
    antarctic = sorted(granules.glob("CS_OFFL_SIR_TDP_LI_ANTARC_*.nc"))
    assert call("ingest", db, *antarctic, "--crs", "EPSG:3031")[0] == 0
    code, said, _ = call("ingest", db, *sorted(granules.glob("CS_OFFL_SIR_SINI2__*.nc")))
    assert code == 0
    assert "1,404 of 2,176 points kept" in said
    assert len(PointDB(db).read()) == 1112 + 1404


def test_a_mix_of_laser_and_radar_is_refused_with_the_remedies(
    call: Call, greenland: Path, tmp_path: Path
) -> None:
    code, _, complaint = call(
        "plan", tmp_path / "run", "--db", greenland, "--posting", 500, "--radius", 2000
    )
    assert code == 2
    line = only_line(complaint)
    assert "laser and radar" in line
    assert "--where" in line
    assert "platform_offset" in line
    assert not (tmp_path / "run").exists()


def test_real_granules_show_the_melt_of_summer_2019(
    call: Call, greenland: Path, tmp_path: Path
) -> None:
    run, product = tmp_path / "run", tmp_path / "dhdt.nc"
    laser = ("--where", "platform == 'icesat2'", "--recipe", "plane")
    assert call("plan", run, "--db", greenland, "--posting", 500, "--radius", 2000, *laser)[0] == 0
    assert call("run", run, "--backend", "local:2")[0] == 0
    assert "0 waiting, 0 failed" in call("status", run)[1]
    assert call("assemble", run, "-o", product)[0] == 0
    assert call("plot", product, "-o", tmp_path / "dhdt.png")[0] == 0
    with xr.open_dataset(product) as dataset:
        rate, status = dataset["dhdt"].to_numpy(), dataset["status"]
        names = status.attrs["flag_meanings"].split()
        statuses = {
            name: int((status == value).sum())
            for name, value in zip(names, status.attrs["flag_values"], strict=True)
        }
    fitted = rate[np.isfinite(rate)]
    # A single nearly straight pass cannot separate slope from change, and almost everywhere there is only one.
    assert statuses["singular"] > 3 * statuses["ok"] > 0
    assert -2.5 < np.median(fitted) < -1.0
    assert fitted.size == statuses["ok"]


def test_the_caption_of_three_summer_months_says_that_the_rate_is_not_annual(
    call: Call, greenland: Path, tmp_path: Path
) -> None:
    run, product, picture = tmp_path / "run", tmp_path / "dhdt.nc", tmp_path / "dhdt.svg"
    laser = ("--where", "platform == 'icesat2'", "--recipe", "plane")
    call("plan", run, "--db", greenland, "--posting", 1000, *laser)
    call("run", run, "--backend", "serial")
    call("assemble", run, "-o", product)
    assert call("plot", product, "-o", picture)[0] == 0
    lines = re.findall("<!-- (.*?) -->", picture.read_text(encoding="utf-8"), re.DOTALL)
    assert "not an annual rate" in " ".join(" ".join(lines).split())


# --- bad input: one line, an exit code, nothing lost ------------------------------------------------------------


def bad_granules(directory: Path, granules: Path) -> dict[str, Path]:
    """Write one file of each kind of unreadable granule."""
    good = next(granules.glob("CS_OFFL_SIR_TDP_LI_ANTARC_*.nc"))
    files = {
        name: directory / f"{name}.nc"
        for name in ("empty", "truncated", "text", "unknown", "lacking", "absent")
    }
    files["empty"].touch()
    files["truncated"].write_bytes(good.read_bytes()[:20_000])
    files["text"].write_text("not a granule\n", encoding="utf-8")
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(files["unknown"])
    with xr.open_dataset(good, decode_cf=False) as dataset:
        dataset.drop_vars("elevation").to_netcdf(files["lacking"])
    return files


def test_unreadable_granules_are_named_and_the_others_are_ingested(
    call: Call, granules: Path, tmp_path: Path
) -> None:
    bad = bad_granules(tmp_path, granules)
    good = next(granules.glob("CS_OFFL_SIR_TDP_LI_ANTARC_*.nc"))
    code, _, complaint = call(
        "ingest", tmp_path / "a.pdb", *bad.values(), good, "--crs", "EPSG:3031"
    )
    assert code == 1
    lines = complaint.strip().splitlines()
    assert len(lines) == len(bad) + 1, complaint
    for path in bad.values():
        assert sum(str(path) in line or path.name in line for line in lines) == 1, path
    assert "6 of 7 granules" in lines[-1]
    assert len(PointDB(tmp_path / "a.pdb").read()) == 1112


@pytest.mark.parametrize(
    ("crs", "reason"),
    [
        ("EPSG:4326", "geographic"),
        ("EPSG:2263", "metre"),
        ("EPSG:999999", "999999"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_crs_that_is_not_projected_in_metres_is_refused(
    call: Call, granules: Path, tmp_path: Path, crs: str, reason: str
) -> None:
    good = next(granules.glob("CS_OFFL_SIR_TDP_LI_ANTARC_*.nc"))
    code, _, complaint = call("ingest", tmp_path / "a.pdb", good, "--crs", crs)
    assert code == 2
    assert reason in only_line(complaint)
    assert not (tmp_path / "a.pdb").exists()


def test_a_crs_other_than_that_of_the_point_db_is_refused(
    call: Call, granules: Path, greenland: Path
) -> None:
    good = next(granules.glob("CS_OFFL_SIR_TDP_LI_ANTARC_*.nc"))
    before = PointDB(greenland).snapshot
    code, _, complaint = call("ingest", greenland, good, "--crs", "EPSG:3031")
    assert code == 2
    assert "EPSG:3413" in only_line(complaint)
    assert PointDB(greenland).snapshot == before


BAD_PLANS = {
    "negative radius": (["--radius", -5], "-5"),
    "NaN radius": (["--radius", "nan"], "nan"),
    "absurd radius": (["--radius", 2e6], "extent"),
    "radius under half the posting": (["--radius", 250, "--posting", 1000], "500 m or more"),
    "negative posting": (["--posting", -1], "-1"),
    "NaN posting": (["--posting", "nan"], "nan"),
    "absurd posting": (["--posting", 1e9], "extent"),
    "microscopic posting": (["--posting", 1e-3], "posts"),
    "reversed bounds": (["--bounds", 5, 0, -5, 10], "reversed"),
    "NaN bounds": (["--bounds", "nan", 0, 5, 10], "nan"),
    "bounds elsewhere": (["--bounds", 9e6, 9e6, 9.1e6, 9.1e6], "no point"),
    "unknown column": (["--where", "colour == 'red'"], "colour"),
    "code": (["--where", "__import__('os').system('true')"], "__import__"),
    "code in an attribute": (["--where", "elevation.real > 0"], "elevation.real"),
    "reversed period": (["--period", "2020-01-01", "2019-01-01"], "reversed"),
    "no date": (["--reference-epoch", "yesterday"], "yesterday"),
    "no tile": (["--tile-size", 0], "tile size 0"),
}


@pytest.mark.parametrize(("options", "named"), BAD_PLANS.values(), ids=BAD_PLANS.keys())
def test_an_invalid_plan_is_refused_in_one_line(
    call: Call, greenland: Path, tmp_path: Path, options: list[object], named: str
) -> None:
    laser = [] if "--where" in options else ["--where", "platform == 'icesat2'"]
    code, _, complaint = call("plan", tmp_path / "run", "--db", greenland, *laser, *options)
    assert code == 2
    assert named in only_line(complaint)
    assert list(tmp_path.iterdir()) == []


def plan_laser(call: Call, greenland: Path, run: Path, *options: object) -> tuple[int, str, str]:
    laser = ("--posting", 2000, "--where", "platform == 'icesat2'")
    return call("plan", run, "--db", greenland, *laser, *options)


def test_planning_again_needs_no_option_and_refuses_others(
    call: Call, greenland: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert plan_laser(call, greenland, run)[0] == 0
    frozen = (run / "run.toml").read_bytes()
    assert call("plan", run)[0] == 0
    assert plan_laser(call, greenland, run)[0] == 0
    code, _, complaint = call("plan", run, "--posting", 1000)
    assert code == 2
    assert "posting 1000.0 (frozen: 2000.0)" in only_line(complaint)
    assert (run / "run.toml").read_bytes() == frozen


def test_two_concurrent_plans_make_one_run(greenland: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("plan", run, "--db", greenland, "--where", "platform == 'icesat2'")
    planners = [start(*words, "--posting", posting) for posting in (1000, 2000)]
    complaints = [planner.communicate()[1] for planner in planners]
    assert sorted(planner.returncode for planner in planners) == [0, 2], complaints
    assert "frozen" in only_line("".join(complaints))
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_run_of_another_version_is_refused(call: Call, greenland: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    plan_laser(call, greenland, run)
    toml = run / "run.toml"
    toml.write_text(
        toml.read_text("utf-8").replace('cryotile_version = "', 'cryotile_version = "9.'), "utf-8"
    )
    for command in ("plan", "run", "status", "retry"):
        code, _, complaint = call(command, run)
        assert code == 2
        assert "9.0.1.0" in only_line(complaint)


def test_the_error_of_a_moved_point_db_names_it(
    call: Call, greenland: Path, tmp_path: Path
) -> None:
    db, run = tmp_path / "moved.pdb", tmp_path / "run"
    shutil.copytree(greenland, db)
    plan_laser(call, db, run)
    db.rename(tmp_path / "elsewhere.pdb")
    code, _, complaint = call("run", run, "--backend", "serial")
    assert code != 0
    assert str(db) in only_line(complaint)
    assert list((run / "failed").iterdir()) == []


def test_a_point_db_of_a_newer_format_is_refused(
    call: Call, greenland: Path, tmp_path: Path
) -> None:
    db = tmp_path / "newer.pdb"
    shutil.copytree(greenland, db)
    # The description and its copy; a newer format may have another checksum.
    for description in (db / "cryotile.json", db / "log" / "cryotile.json"):
        text = description.read_text("utf-8")
        assert '"format_version": 1' in text
        description.write_text(text.replace('"format_version": 1', '"format_version": 2'), "utf-8")
    code, _, complaint = call("info", db)
    assert code != 0
    assert "version 2" in only_line(complaint)


@pytest.mark.parametrize("command", ["run", "status", "retry", "info", "validate"])
def test_a_foreign_directory_is_not_changed(call: Call, tmp_path: Path, command: str) -> None:
    (tmp_path / "thesis.tex").write_text("precious", "utf-8")
    code, _, complaint = call(command, tmp_path)
    assert code in (1, 2)
    assert str(tmp_path) in only_line(complaint)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_neither_ingest_nor_plan_writes_into_a_foreign_directory(
    call: Call, granules: Path, greenland: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("precious", "utf-8")
    good = next(granules.glob("CS_OFFL_SIR_TDP_LI_ANTARC_*.nc"))
    assert call("ingest", tmp_path, good, "--crs", "EPSG:3031")[0] != 0
    assert plan_laser(call, greenland, tmp_path)[0] == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_tile_is_missing_and_fitted_again(
    call: Call, greenland: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    plan_laser(call, greenland, run)
    call("run", run, "--backend", "serial")
    tile = sorted((run / "tiles").glob("*.arrow"))[0]
    whole = tile.read_bytes()
    tile.write_bytes(whole[: len(whole) // 2])
    assert ", 1 waiting" in call("status", run)[1]
    code, _, complaint = call("assemble", run, "-o", tmp_path / "dhdt.nc")
    assert code == 1
    assert "cryotile run" in only_line(complaint)
    assert not (tmp_path / "dhdt.nc").exists()
    assert call("run", run, "--backend", "serial")[0] == 0
    assert tile.read_bytes() == whole


def test_an_unfinished_run_is_assembled_only_with_partial(
    call: Call, greenland: Path, tmp_path: Path
) -> None:
    run, product = tmp_path / "run", tmp_path / "dhdt.nc"
    plan_laser(call, greenland, run)
    assert call("assemble", run, "-o", product)[0] == 1
    assert call("assemble", run, "-o", product, "--partial")[0] == 0
    with xr.open_dataset(product) as dataset:
        names = dataset["status"].attrs["flag_meanings"].split()
        values = list(dataset["status"].attrs["flag_values"])
        not_computed = values[names.index("not_computed")]
        assert int((dataset["status"] == not_computed).sum()) > 0


def test_a_period_without_points_is_refused(call: Call, greenland: Path, tmp_path: Path) -> None:
    code, _, complaint = plan_laser(
        call, greenland, tmp_path / "run", "--period", "2030-01-01", "2031-01-01"
    )
    assert code == 2
    assert "2019-04-16" in only_line(complaint)


def test_the_same_instant_may_be_written_in_another_way(
    call: Call, greenland: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert plan_laser(call, greenland, run, "--period", "2019-01-01", "2020-01-01")[0] == 0
    assert call("plan", run, "--period", "2019-01-01T00:00:00", "2020-01-01T00:00Z")[0] == 0


@pytest.mark.parametrize(
    "options",
    [["--where", "foo > 1"], ["--columns", "foo"], ["--crs", "EPSG:4326"]],
    ids=["where", "columns", "crs"],
)
def test_an_invalid_option_creates_no_point_db(
    call: Call, granules: Path, tmp_path: Path, options: list[str]
) -> None:
    good = next(granules.glob("CS_OFFL_SIR_TDP_LI_GREENL_*.nc"))
    code, _, complaint = call("ingest", tmp_path / "a.pdb", good, "--crs", "EPSG:3413", *options)
    assert code == 2
    only_line(complaint)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_granules_alone_create_no_point_db(call: Call, tmp_path: Path) -> None:
    code, _, complaint = call(
        "ingest", tmp_path / "a.pdb", tmp_path / "no.nc", "--crs", "EPSG:3413"
    )
    assert code == 1
    assert "no.nc" in complaint
    assert list(tmp_path.iterdir()) == []


def test_a_granule_given_twice_is_counted_once(call: Call, granules: Path, tmp_path: Path) -> None:
    good = next(granules.glob("CS_OFFL_SIR_TDP_LI_GREENL_*.nc"))
    code, said, _ = call("ingest", tmp_path / "a.pdb", good, good, "--crs", "EPSG:3413")
    assert code == 0
    assert "1 granule added, 1 there already; 968 of 3,050 points kept" in said


def test_points_of_the_other_hemisphere_are_counted_under_a_reason_of_their_own(
    call: Call, granules: Path, tmp_path: Path
) -> None:
    south = next(granules.glob("CS_OFFL_SIR_TDP_LI_ANTARC_*.nc"))
    north = next(granules.glob("CS_OFFL_SIR_TDP_LI_GREENL_*.nc"))
    code, said, _ = call("ingest", tmp_path / "a.pdb", south, north, "--crs", "EPSG:3413")
    assert code == 0
    assert "1,112  outside_projection: has no place in the CRS" in said


def test_a_product_is_netcdf_or_geotiff(call: Call, greenland: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    plan_laser(call, greenland, run)
    call("run", run, "--backend", "serial")
    assert call("assemble", run, "-o", tmp_path / "dhdt.tif")[0] == 0
    code, _, complaint = call("assemble", run, "-o", tmp_path / "dhdt.xyz")
    assert code == 2
    assert ".nc" in only_line(complaint)
    assert not (tmp_path / "dhdt.xyz").exists()


def test_old_files_of_a_killed_writer_are_removed_and_recent_ones_kept(
    call: Call, greenland: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    plan_laser(call, greenland, run)
    old, young = run / "tiles" / ".x+0001.arrow.0a.tmp", run / "tiles" / ".x+0002.arrow.0b.tmp"
    for path in (old, young):
        path.write_bytes(b"half a tile")
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    assert call("run", run, "--backend", "serial")[0] == 0
    assert not old.exists()
    assert young.exists()


def test_a_closed_output_pipe_ends_the_command_quietly(greenland: Path) -> None:
    words = [sys.executable, "-m", "cryotile", "info", greenland]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as told:
        assert told.stdout is not None
        assert told.stderr is not None
        told.stdout.close()
        assert told.stderr.read() == b""
    assert told.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_a_command_that_a_signal_ends_says_that_results_stay(
    call: Call, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, word: str
) -> None:
    monkeypatch.setattr("cryotile.runs.doctor.examine", lambda _: signal.raise_signal(number))
    code, _, errors = call("doctor", ".")
    assert code == 128 + number
    assert errors.strip() == f"cryotile: {word}; saved results stay, and the same command goes on"
