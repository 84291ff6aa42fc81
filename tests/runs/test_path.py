"""The path from granules to a map on a simulated mission: the same result whatever happens on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cryotile as ct
from cryotile.pointdb import PointDB
from cryotile.runs.run import Run, plan_run
from cryotile.simulate import World, simulate
from tests.support import disks
from tests.support.command_line import start
from tests.support.members import make_hold
from tests.support.point_dbs import same_points
from tests.support.reference import fit_plane

WORLD = World(bounds=(-30e3, -1380e3, 30e3, -1320e3))
REQUEST = {"posting": 1000.0, "radius": 2000.0, "recipe": "plane", "tile_size": 15}


@pytest.fixture(scope="session")
def mission(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return three years of granules over a small ice cap."""
    return simulate(tmp_path_factory.mktemp("mission"), years=3.0, seed=1, world=WORLD)


@pytest.fixture(scope="session")
def ice(mission: list[Path], tmp_path_factory: pytest.TempPathFactory) -> PointDB:
    """Return the point DB of the mission."""
    return ct.ingest(tmp_path_factory.mktemp("ice") / "ice.pdb", mission, crs=WORLD.crs)


@pytest.fixture(scope="session")
def some(mission: list[Path]) -> list[Path]:
    """Return every fourth granule of the mission."""
    return mission[::4]


@pytest.fixture(scope="session")
def some_ice(some: list[Path], tmp_path_factory: pytest.TempPathFactory) -> PointDB:
    """Return the point DB of some granules."""
    return ct.ingest(tmp_path_factory.mktemp("some") / "ice.pdb", some, crs=WORLD.crs)


def make_product(
    directory: Path, db: PointDB, backend: str, request: dict[str, object] = REQUEST
) -> Path:
    """Plan, run and assemble in a new directory."""
    ct.run(plan_run(directory / "run", request, db=db), backend=backend)
    return assembled(directory)


def assembled(directory: Path) -> Path:
    """Assemble the run of a directory."""
    ct.assemble(directory / "run", directory / "dhdt.nc").close()
    return directory / "dhdt.nc"


@pytest.fixture(scope="session")
def product(ice: PointDB, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the product of the mission, made in one process."""
    return make_product(tmp_path_factory.mktemp("serial"), ice, "serial")


# --- the numbers ------------------------------------------------------------------------------------------------


def test_the_fitted_rate_is_the_true_rate(product: Path) -> None:
    with xr.open_dataset(product) as dataset:
        x, y = np.meshgrid(dataset["x"], dataset["y"])
        error = dataset["dhdt"].to_numpy() - WORLD.dhdt(x, y)
        sigma = dataset["dhdt_sigma"].to_numpy()
    inside = np.hypot(x - WORLD.centre[0], y - WORLD.centre[1]) < 0.7 * WORLD.radius
    assert np.isfinite(error[inside]).mean() > 0.99
    assert abs(np.nanmedian(error[inside])) < 0.05
    # The stated uncertainty is as large as the true error.
    assert 0.5 < np.nanmedian(np.abs(error[inside])) / (0.6745 * np.nanmedian(sigma[inside])) < 2


def test_random_posts_agree_with_the_reference_on_the_stored_points(
    product: Path, ice: PointDB
) -> None:
    points = ice.read()
    epoch = Run.load(product.parent / "run").settings.fit.reference_epoch
    assert epoch is not None
    with xr.open_dataset(product) as dataset:
        fitted = np.argwhere(np.isfinite(dataset["dhdt"].to_numpy()))
        chosen = np.random.default_rng(0).choice(fitted, 40, replace=False)
        for row, column in chosen:
            post = dataset.isel(x=column, y=row)
            expected = fit_plane(points, float(post["x"]), float(post["y"]), 2000.0, epoch)
            np.testing.assert_allclose(
                [float(post["dhdt"]), float(post["elevation"])],
                [expected.dhdt, expected.elevation],
                rtol=2e-7,
            )


# --- the same bytes on every backend ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["local:1", "local:2"])
def test_the_product_is_the_same_bytes_on_every_backend(
    product: Path, ice: PointDB, tmp_path: Path, backend: str
) -> None:
    assert make_product(tmp_path, ice, backend).read_bytes() == product.read_bytes()


@pytest.mark.parametrize("tile_size", [7, 40])
def test_no_value_depends_on_the_size_of_the_tiles(
    product: Path, ice: PointDB, tmp_path: Path, tile_size: int
) -> None:
    other = {**REQUEST, "tile_size": tile_size}
    with (
        xr.open_dataset(product) as one,
        xr.open_dataset(make_product(tmp_path, ice, "serial", other)) as two,
    ):
        xr.testing.assert_identical(one, two)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_continues_to_the_same_bytes(
    product: Path, ice: PointDB, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    plan_run(run, REQUEST, db=ice)
    hold = make_hold(tmp_path)
    variables = {"CRYOTILE_GRACE": "0.5", **hold.variables}
    process = start("run", run, "--backend", "local:2", **variables)
    # Each of the two workers stores one tile and never finishes the next.
    assert hold.held(process) == process.pid
    process.send_signal(number)
    _, complaint = process.communicate(timeout=240)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), complaint
    assert "Traceback" not in complaint
    before = {tile: tile.stat().st_mtime_ns for tile in (run / "tiles").glob("*.arrow")}
    assert 1 <= len(before) <= 2 < len(Run.load(run).tasks)
    ct.run(run, backend="serial")
    assert {tile: tile.stat().st_mtime_ns for tile in before} == before, (
        "an up-to-date tile is never rewritten"
    )
    assert assembled(tmp_path).read_bytes() == product.read_bytes()


# --- the same points in any order --------------------------------------------------------------------------------


def test_the_order_and_number_of_ingests_do_not_matter(
    some: list[Path], some_ice: PointDB, tmp_path: Path
) -> None:
    path = tmp_path / "ice.pdb"
    shuffled = list(np.random.default_rng(3).permutation(np.array(some, dtype=object)))
    ct.ingest(path, shuffled[:25], crs=WORLD.crs)
    ct.ingest(path, shuffled[12:])
    assert ct.ingest(path, some).last_ingest.added == ()
    same_points(PointDB(path), some_ice)


KILLED = """
import os, signal, sys
from cryotile.api import ingest
from cryotile.runs import ingest as batches
batches.BATCH_GRANULES, last, done = 4, int(os.environ["LAST_STEP"]), 0
db, crs, *granules = sys.argv[1:]
def count(event, values):
    global done
    if event in ("open", "os.rename", "os.mkdir", "os.link") and str(values[0]).startswith(db):
        done += 1
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
ingest(db, granules, crs=crs, backend="serial")
print(done)
"""
"""An ingest that is killed when it opens, renames or makes a file or directory of the point DB for the n-th time."""


def test_an_ingest_killed_at_random_moments_continues_to_the_same_points(
    some: list[Path], some_ice: PointDB, tmp_path: Path
) -> None:
    path = tmp_path / "ice.pdb"

    def ingest(db: Path, last: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", KILLED, db, WORLD.crs, *some],
            env={**os.environ, "LAST_STEP": str(last)},
            capture_output=True,
            text=True,
            check=False,
        )

    steps = int(ingest(tmp_path / "whole.pdb", 0).stdout)
    there = []
    # Three times a quarter of the steps do not reach the end.
    for moment in np.random.default_rng(5).integers(steps // 8, steps // 4, 3):
        killed = ingest(path, moment)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if (path / "cryotile.json").exists():
            names = set(PointDB(path).granules["name"])
            assert names <= {file.name for file in some}
            there.append(len(names))
    assert 0 < there[0] < len(some), "the first was killed between two commits"
    ct.ingest(path, some, crs=WORLD.crs)
    same_points(PointDB(path), some_ice)


def test_a_run_reads_the_points_it_was_planned_on(some: list[Path], tmp_path: Path) -> None:
    path, run = tmp_path / "ice.pdb", tmp_path / "run"
    ct.ingest(path, some[:40], crs=WORLD.crs)
    ct.run(plan_run(run, REQUEST, db=PointDB(path)), backend="serial")
    tiles = {tile: tile.read_bytes() for tile in (run / "tiles").glob("*.arrow")}
    ct.ingest(path, some[40:])
    assert Run.load(run).missing() == []
    again = plan_run(run, {})
    assert again.generation == 2
    assert len(again.missing()) > 0
    assert {tile: tile.read_bytes() for tile in tiles} == tiles


def test_planning_again_lists_only_tiles_whose_points_changed(
    some: list[Path], tmp_path: Path
) -> None:
    path, run = tmp_path / "ice.pdb", tmp_path / "run"
    ct.ingest(path, some[:-1], crs=WORLD.crs)
    ct.run(plan_run(run, REQUEST, db=PointDB(path)), backend="serial")
    before = PointDB(path).snapshot
    db = ct.ingest(path, some[-1])
    new = pd.concat([db.read(), db.read(snapshot=before)]).drop_duplicates(
        subset=["x", "y", "time"], keep=False
    )
    assert len(new) > 0
    again = plan_run(run, {})
    stale = {again.tiles[task.index].name for task in again.missing()}
    assert 0 < len(stale) < len(again.tasks)
    for tile in again.tiles:
        # Windows are compared in squares of 5 km.
        x_min, y_min, x_max, y_max = tile.window(2000.0)
        squares = [np.floor(new[axis] / 5000) * 5000 for axis in "xy"]
        touched = (
            (squares[0] + 5000 > x_min)
            & (squares[0] <= x_max)
            & (squares[1] + 5000 > y_min)
            & (squares[1] <= y_max)
        ).any()
        assert (tile.name in stale) == touched, tile.name


@pytest.mark.parametrize("backend", ["serial", "local:2"])
def test_a_full_disk_loses_no_stored_tile(ice: PointDB, small_disk: Path, backend: str) -> None:
    run = small_disk / "run"
    plan_run(run, REQUEST, db=ice)
    filler = small_disk / "filler"
    free = os.statvfs(small_disk)
    filler.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 150_000))
    process = start("run", run, "--backend", backend)
    _, complaint = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "No space left" in complaint
    assert len(complaint.splitlines()) == 1
    filler.unlink()
    kept = {tile: tile.read_bytes() for tile in (run / "tiles").glob("*.arrow")}
    assert list((run / "failed").iterdir()) == [], "no tile is to blame"
    ct.run(run, backend="serial")
    assert {tile: tile.read_bytes() for tile in kept} == kept
    assert Run.load(run).missing() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 3 MB."""
    with disks.small_disk(tmp_path / "small", "size=3m") as disk:
        yield disk
