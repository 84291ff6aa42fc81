"""Growing data sets: which tiles of a run become stale, and what the commands report."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from cryotile.pointdb import PointDB
from cryotile.runs.run import Run, open_db, plan_run
from cryotile.runs.staleness import changed_tiles
from cryotile.simulate import World, simulate
from tests.support.command_line import Call, Cryotile
from tests.support.made_up import granule, with_points
from tests.support.small_run import fit

RADIUS, SQUARE = 2000.0, 5000.0


def add(db: PointDB, seed: int, *, at: tuple[float, float], days: int = 0, count: int = 40) -> None:
    """Append a granule with points within a kilometre of a place, some days after the stored points."""
    made = granule(seed, count, extent=1000.0)
    points = made.points.assign(platform="icesat2")
    points = points.assign(x=points["x"] + at[0], y=points["y"] + at[1])
    points["time"] += pd.Timedelta(days=days)
    db.append([with_points(made, points)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a finished run of about 25 tiles and its point DB."""
    home = tmp_path_factory.mktemp("finished")
    db = PointDB.create(home / "ice.pdb", "EPSG:3031")
    db.append([granule(1, 2000, extent=20e3)])
    request = {
        "where": "platform == 'icesat2'",
        "bounds": (-20e3, -20e3, 20e3, 20e3),
        "tile_size": 10,
    }
    run = plan_run(home / "run", request, db=db)
    fit(run, *range(len(run.tasks)))
    return home


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run, with a point DB of its own."""
    home = shutil.copytree(finished, tmp_path / "copy")
    frozen = home / "run" / "run.toml"
    frozen.write_text(frozen.read_text().replace(str(finished), str(home)))
    return home / "run"


def written(run: Path) -> dict[str, tuple[int, int]]:
    """Return modification time and inode of each tile's file."""
    files = {path.name: path.stat() for path in (run / "tiles").rglob("*.arrow")}
    return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in files.items()}


def near(run: Path, place: tuple[float, float]) -> set[str]:
    """Return the tiles whose window meets a square with points within a kilometre of a place."""
    names = set()
    for tile in Run.load(run).tiles:
        x_min, y_min, x_max, y_max = tile.window(RADIUS)
        for x in (place[0] - 1000, place[0] + 1000):
            for y in (place[1] - 1000, place[1] + 1000):
                left, low = x // SQUARE * SQUARE, y // SQUARE * SQUARE
                if (
                    left + SQUARE > x_min
                    and left <= x_max
                    and low + SQUARE > y_min
                    and low <= y_max
                ):
                    names.add(tile.name)
    return names


def test_a_finished_run_that_grew_is_planned_again_and_only_stale_tiles_are_written(
    run: Path, cryotile: Cryotile
) -> None:
    db, before = open_db(Run.load(run)), written(run)
    add(db, 2, at=(12_500.0, 12_500.0))
    expected = near(run, (12_500.0, 12_500.0))
    assert set(changed_tiles(Run.load(run), open_db(Run.load(run)))) == expected
    said = cryotile("run", run, "--backend", "serial")
    assert f"planned again on commit 2: {len(expected)} tiles of" in said
    assert "tiles are there" in said
    after = written(run)
    rewritten = {name for name in after if after[name] != before.get(name)}
    assert {name.removesuffix(".arrow") for name in rewritten} == expected
    assert 0 < len(expected) < len(after)
    assert "planned again" not in cryotile("run", run, "--backend", "serial")


def test_plan_lists_the_stale_tiles_by_name(run: Path, cryotile: Cryotile) -> None:
    add(open_db(Run.load(run)), 2, at=(12_500.0, 12_500.0))
    expected = near(run, (12_500.0, 12_500.0))
    said = cryotile("plan", run)
    assert f"{len(expected)} to do, of them {len(expected)} stale" in said
    (listed,) = re.findall(r"^stale +(.*)$", said, re.MULTILINE)
    assert set(listed.split(", ")) == expected
    assert "as of commit 2" in said


def test_an_unfinished_run_ends_on_its_snapshot_and_says_what_is_stale(
    run: Path, cryotile: Cryotile
) -> None:
    tile = next((run / "tiles").rglob("*.arrow"))
    tile.unlink()
    add(open_db(Run.load(run)), 2, at=(12_500.0, 12_500.0))
    said = cryotile("run", run, "--backend", "serial")
    assert Run.load(run).snapshot == 1
    count = len(near(run, (12_500.0, 12_500.0)))
    assert f"grown since commit 1 (it is at 2), and {count} tiles are stale" in said
    assert f"cryotile plan {run}" in said


def test_members_of_a_farm_do_not_plan_again(run: Path, cryotile: Cryotile) -> None:
    add(open_db(Run.load(run)), 2, at=(12_500.0, 12_500.0))
    said = cryotile("run", run, "--backend", "dir")
    assert "tiles are stale" in said
    assert Run.load(run).generation == 1


def test_submitting_a_finished_run_that_grew_refers_to_plan(run: Path, cryotile: Cryotile) -> None:
    words = ["submit", run, "--scheduler", "slurm", "--members", 2, "--dry-run"]
    assert "grown" not in cryotile(*words, status=1)
    add(open_db(Run.load(run)), 2, at=(12_500.0, 12_500.0))
    said = cryotile(*words, status=1)
    assert "grown since commit 1 (it is at 2)" in said
    assert f"cryotile plan {run}\n" in said
    assert "no tile to do" in said
    cryotile("plan", run)
    said = cryotile(*words)
    assert "--array=" in said
    assert "grown" not in said


def test_submitting_an_unfinished_run_that_grew_prints_a_note_with_the_script(
    run: Path, call: Call
) -> None:
    next((run / "tiles").rglob("*.arrow")).unlink()
    add(open_db(Run.load(run)), 2, at=(12_500.0, 12_500.0))
    words = ("submit", run, "--scheduler", "slurm", "--members", 2, "--dry-run")
    code, script, note = call(*words)
    assert code == 0
    assert script.startswith("#!/bin/bash")
    assert "grown" not in script
    assert "grown since commit 1" in note


def test_a_tile_without_points_is_listed_once_it_has_some(
    tmp_path: Path, cryotile: Cryotile
) -> None:
    db = PointDB.create(tmp_path / "ice.pdb", "EPSG:3031")
    add(db, 1, at=(-15_000.0, 0.0), count=300)
    run = tmp_path / "run"
    bounds = ["--bounds", -20000, -20000, 20000, 20000]
    cryotile("plan", run, "--db", db.path, *bounds, "--tile-size", 10)
    cryotile("run", run, "--backend", "serial")
    before, files = set(Run.load(run).names), written(run)
    add(db, 2, at=(12_500.0, 12_500.0))
    new = set(changed_tiles(Run.load(run), open_db(Run.load(run))))
    assert new
    assert not new & before
    cryotile("run", run, "--backend", "serial")
    assert {name: written(run)[name] for name in files} == files
    assert set(Run.load(run).names) == before | new


def test_new_points_outside_the_frozen_bounds_are_counted_and_located(
    run: Path, cryotile: Cryotile
) -> None:
    assert "\nbeyond" not in cryotile("plan", run)
    add(open_db(Run.load(run)), 2, at=(72_500.0, -32_500.0))
    for command in ("plan", "plan"):
        said = cryotile(command, run)
        assert "40 new points lie beyond the bounds of the run" in said
        assert "within 70000 -35000 75000 -30000 (" in said
        assert "0 to do, of them 0 stale" in said


def test_new_points_outside_the_frozen_period_are_reported(run: Path, cryotile: Cryotile) -> None:
    add(open_db(Run.load(run)), 2, at=(0.0, 0.0), days=800)
    said = cryotile("plan", run)
    assert "beyond the period of the run: there are some from 2015-01-01 to 2017-03" in said


def test_a_compaction_makes_nothing_stale(run: Path, cryotile: Cryotile) -> None:
    db, before = open_db(Run.load(run)), written(run)
    add(db, 2, at=(172_500.0, 0.0))
    cryotile("plan", run)
    cryotile("compact", db.path)
    said = cryotile("plan", run)
    assert "0 to do, of them 0 stale" in said
    assert "stale " not in cryotile("run", run, "--backend", "serial")
    assert written(run) == before


def test_info_shows_the_history_and_the_snapshot_of_a_run(run: Path, cryotile: Cryotile) -> None:
    db = open_db(Run.load(run))
    add(db, 2, at=(12_500.0, 12_500.0))
    assert re.search(r"^ +2 \d{4}-.* 1 granules? in, 0 out", cryotile("info", db.path), re.M)
    said = cryotile("info", run)
    assert "as of commit 1" in said
    assert "at commit 2 now" in said


SMALL = World(bounds=(-20e3, -1370e3, 20e3, -1330e3), lrm_radius=9e3)


@pytest.mark.parametrize(
    ("one", "other", "days"), [("l2i", "cryotempo", 30), ("atl06", "atl11", 25)]
)
def test_the_same_pass_in_two_products_causes_a_warning(
    tmp_path: Path, cryotile: Cryotile, one: str, other: str, days: int
) -> None:
    made = {
        product: simulate(
            tmp_path / product,
            product=product,
            start="2019-03-01",
            years=days / 365.25,
            seed=3,
            world=SMALL,
        )
        for product in (one, other)
    }
    db = tmp_path / "ice.pdb"
    first = cryotile("ingest", db, *made[one], "--crs", "EPSG:3413")
    assert "same passes" not in first
    second = cryotile("ingest", db, *made[other])
    assert "the same passes are in" in second
    assert "cryotile remove" in second
