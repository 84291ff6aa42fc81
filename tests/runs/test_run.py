"""A run knows whether each tile is present, whatever happened to its file."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cryotile.backends import open_backend
from cryotile.errors import CryotileError, InvalidValue
from cryotile.farm.journal import Journaled
from cryotile.farm.task import Outcome, Progress, Task
from cryotile.pointdb import PointDB
from cryotile.runs.run import Run, open_db, plan_run
from cryotile.runs.work import FitTile, fit_wanted, read_window
from tests.support.made_up import granule, points, with_points
from tests.support.small_run import REQUEST, fit, make_run, tile_file


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


def reload(run: Run) -> Run:
    """Return the run as another process sees it."""
    return Run.load(run.path)


def fail(run: Run, *indices: int) -> None:
    """Record failures of tiles."""
    list(run.record(Outcome(run.tasks[index], 0.1, 3, "host", "why\nbecause") for index in indices))


def test_tasks_are_listed_costliest_first_each_with_its_tile(run: Run) -> None:
    costs = [task.cost for task in run.tasks]
    assert costs == sorted(costs, reverse=True)
    assert [task.index for task in run.tasks] == list(range(len(run.tasks)))
    grid_tiles = run.settings.grid.tiles(run.settings.tile_size)
    assert {*run.tiles, *run.empty_tiles()} == set(grid_tiles)
    assert len(run.tiles) + len(run.empty_tiles()) == len(grid_tiles)


def test_all_tiles_are_missing_at_first_and_a_fitted_tile_is_present(run: Run) -> None:
    assert run.missing() == run.missing_quick() == run.tasks
    fit(run, 0, 3)
    left = [task for task in run.tasks if task.index not in (0, 3)]
    assert run.missing() == run.missing_quick() == left
    assert reload(run).missing() == left


def test_only_tiles_of_a_share_are_reported_as_missing_from_it(run: Run) -> None:
    fit(run, 0, 3)
    assert run.missing(run.tasks[2:5]) == [run.tasks[2], run.tasks[4]]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_the_quick_check_finds_a_truncated_tile(run: Run, share: float) -> None:
    fit(run, 0, 1)
    file = tile_file(run, run.tasks[1])
    os.truncate(file, int(share * file.stat().st_size))
    assert run.tasks[1] in run.missing_quick()
    assert run.missing_quick() == run.missing()


def altered(run: Run, index: int) -> None:
    """Alter a tile in a way that its trailer does not reveal."""
    file = tile_file(run, run.tasks[index])
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_full_check_finds_an_altered_tile(run: Run) -> None:
    fit(run, 0, 1)
    altered(run, 1)
    assert run.tasks[1] in run.missing()
    assert run.tasks[0] not in run.missing()
    fit(run, 1)
    assert run.tasks[1] not in run.missing()


def test_a_replaced_tile_is_checked_again(run: Run) -> None:
    fit(run, 0)
    file = tile_file(run, run.tasks[0])
    whole = file.read_bytes()
    os.truncate(file, 100)
    assert run.tasks[0] in run.missing_quick()
    other = file.with_name("new")
    other.write_bytes(whole)
    other.replace(file)
    assert run.tasks[0] not in run.missing_quick()


def test_tiles_of_other_settings_are_missing(run: Run) -> None:
    fit(run, 0)
    wider = dataclasses.replace(run.settings.fit, radius=2500.0)
    other = dataclasses.replace(run, settings=dataclasses.replace(run.settings, fit=wider))
    assert other.fingerprint(0) != run.fingerprint(0)
    assert other.missing() == other.missing_quick() == other.tasks


def test_each_tile_has_a_stable_fingerprint_of_its_own(run: Run) -> None:
    fingerprints = [run.fingerprint(task.index) for task in run.tasks]
    assert len(set(fingerprints)) == len(fingerprints)
    assert [reload(run).fingerprint(task.index) for task in run.tasks] == fingerprints


def test_a_failed_task_is_not_pending_until_it_is_retried(run: Run) -> None:
    fit(run, 0)
    fail(run, 1, 4)
    assert reload(run).failed() == {1: "why\nbecause", 4: "why\nbecause"}
    assert [task.index for task in run.pending()] == [
        task.index for task in run.tasks if task.index not in (0, 1, 4)
    ]
    assert reload(run).retry() == 2
    assert list(run.pending()) == run.tasks[1:]
    assert run.retry() == 0


def test_pending_of_a_frozen_part_stays_in_that_part(run: Run) -> None:
    fit(run, 0)
    assert list(run.pending(run.tasks[:3])) == run.tasks[1:3]


def test_the_key_names_the_task_list(run: Run, tmp_path: Path) -> None:
    assert reload(run).key == run.key
    (tmp_path / "other").mkdir()
    assert make_run(tmp_path / "other").key != run.key
    second = dataclasses.replace(run.made, number=2)
    assert dataclasses.replace(run, made=second).key != run.key


def change_version(run: Run) -> None:
    """Let a run be another version's."""
    toml = run.path / "run.toml"
    text = toml.read_text("utf-8")
    toml.write_text(text.replace('cryotile_version = "', 'cryotile_version = "9.'), "utf-8")


@pytest.mark.parametrize("backend", ["local:1", "local:2"])
def test_workers_of_another_version_end_the_run_in_one_line(run: Run, backend: str) -> None:
    work = FitTile(run.path, run.generation)
    change_version(run)
    outcomes = open_backend(backend, home=run.path, key=run.key).run(run.tasks, work)
    with pytest.raises(CryotileError, match=r"was planned by cryotile 9\.") as refusal:
        list(outcomes)
    assert "\n" not in str(refusal.value)
    assert "child process" not in str(refusal.value)


def test_a_point_db_that_workers_cannot_reach_ends_the_run(run: Run) -> None:
    work = FitTile(run.path, run.generation)
    run.db_path.rename(run.db_path.with_name("moved"))
    with pytest.raises(CryotileError, match="is gone; move it back"):
        list(open_backend("local:2", home=run.path, key=run.key).run(run.tasks, work))


def test_planning_again_without_new_points_changes_nothing(run: Run) -> None:
    assert plan_run(run.path, {}) == run
    assert plan_run(run.path, REQUEST, db=PointDB(run.db_path)) == run
    with pytest.raises(InvalidValue, match="frozen with other settings: radius"):
        plan_run(run.path, {"radius": 1500.0})


def test_the_point_db_of_a_run_opens_at_the_runs_commit(run: Run) -> None:
    assert open_db(run).snapshot == run.snapshot == 1


def test_a_process_that_joins_a_running_farm_checks_trailers_only(run: Run) -> None:
    fit(run, 0, 1)
    altered(run, 0)
    os.truncate(tile_file(run, run.tasks[1]), 1000)
    assert list(run.pending()) == run.tasks

    def join(task: Task, progress: Progress) -> None:
        assert list(run.pending()) == run.tasks[1:]
        assert list(run.pending(run.tasks[:3])) == run.tasks[1:3]

    Journaled(join, run.journal)(run.tasks[2], lambda fraction: None)
    assert list(run.pending()) == run.tasks


def test_a_run_continues_after_a_compaction_that_ended_its_snapshot(run: Run) -> None:
    fit(run, 0)
    db = open_db(run)
    for seed in range(5, 9):
        away = points(seed, 30, extent=1e3)
        away["x"] += 2e6
        db.append([with_points(granule(seed, 30), away)])
    db.compact()
    assert not db.has_snapshot(run.snapshot)
    again = plan_run(run.path, {})
    assert again.generation == run.generation + 1
    assert open_db(again).has_snapshot(again.snapshot)
    assert again.missing() == [task for task in again.tasks if task.index != 0]
    fit(again, 1)


@pytest.mark.parametrize(
    "asked",
    [
        {"recipe": "plane"},
        {"terms": ("acceleration", "mode_offset"), "weights": ("uncertainty",)},
        {"terms": ("platform_offset", "power"), "where": None},
    ],
    ids=["plane", "weighted", "named column"],
)
def test_columns_that_a_fit_does_not_read_make_no_difference(
    tmp_path: Path, asked: dict[str, object]
) -> None:
    frame = points(1, 6000, extent=6e3)
    rates = (frame["time"] - frame["time"].min()) / np.timedelta64(10**9, "ms")
    frame["time"] = frame["time"].min() + (rates * 140e9).round().astype("timedelta64[ms]")
    frame["elevation"] = 1000 + frame["x"] / 100 - rates * 4 + np.sin(np.arange(6000.0))
    frame["uncertainty"] = 0.1 + 0.2 * (frame.index % 7)
    frame["power"] = np.cos(np.arange(6000.0))
    db = PointDB.create(tmp_path / "ice.pdb", "EPSG:3031", columns=["power"])
    db.append([with_points(granule(1), frame)])
    run = plan_run(tmp_path / "run", {**REQUEST, **asked}, db=db)
    tile, config = run.tile(0), run.settings.fit
    window = tile.window(config.reach)
    few = read_window(run, db, window, columns=config.point_columns)
    everything = read_window(run, db, window)
    assert set(few) < set(everything)
    expected = fit_wanted(run, everything, tile)
    assert (expected["status"] == 0).any()
    xr.testing.assert_identical(fit_wanted(run, few, tile), expected)
    fit(run, 0)
    xr.testing.assert_identical(run.store.load(tile), expected)


# --- the frozen settings


def edit(run: Run, old: str, new: str) -> None:
    toml = run.path / "run.toml"
    text = toml.read_text("utf-8")
    assert old in text
    toml.write_text(text.replace(old, new), "utf-8")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("radius = 2000.0", "radius = -1.0", "search radius -1.0 m must be between"),
        ("tile_size = 10", "tile_size = 0", "tile size 0 is not between"),
        ("posting = 1000.0", "posting = nan", "posting nan m is not a positive number"),
        ("min_points = 6", "min_points = 1", "min_points 1 must be 4"),
        ("radius = 2000.0", "radius = 2000.5", "its checksum differs"),
        ("'icesat2'", "'icesat1'", "its checksum differs"),
        ("EPSG:3031", "EPSG:3032", "its checksum differs"),
        ("radius = 2000.0", "radius = '2000'", "is not valid"),
        ("[grid]", "[grad]", "is not valid"),
    ],
)
def test_settings_that_were_changed_are_refused(run: Run, old: str, new: str, said: str) -> None:
    edit(run, old, new)
    with pytest.raises(CryotileError, match=re.escape(said)) as refusal:
        Run.load(run.path)
    message = str(refusal.value)
    assert message.startswith(f"{run.path / 'run.toml'}")
    assert "make another run with 'cryotile plan'" in message
    assert "\n" not in message


def test_what_no_number_depends_on_may_be_edited(run: Run) -> None:
    moved = run.db_path.rename(run.db_path.with_name("moved.pdb"))
    edit(run, 'point_db = "../ice.pdb"', "# moved\npoint_db = '../moved.pdb'")
    edit(run, "radius = 2000.0", "radius   =  2_000.0")
    with (run.path / "run.toml").open("a") as toml:
        toml.write('\n[submit]\nsetup = ["module load python"]\n')
    assert reload(run).db_path == moved
    assert reload(run).settings == run.settings


def test_another_point_db_in_the_place_of_the_first_is_noticed(run: Run, tmp_path: Path) -> None:
    fit(run, *range(len(run.tasks)))
    shutil.rmtree(run.db_path)
    db = PointDB.create(run.db_path, "EPSG:3031")
    db.append([granule(2, 2000, extent=20e3)])
    with pytest.raises(InvalidValue, match=r"commit 1 of .* is not the one .* cryotile plan"):
        open_db(run)
    again = plan_run(run.path, {})
    assert open_db(again).snapshot == again.snapshot
    assert len(again.missing()) == len(again.tasks)


def test_a_task_list_that_is_lost_is_made_again(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    (run.path / "generations" / "0001" / "tasks.parquet").unlink()
    assert reload(run).table.equals(run.table)
    (run.path / "generations" / "0001" / "generation.json").write_bytes(b"{}")
    again = reload(run)
    assert again.generation == 2, "ledgers know the number of the damaged list"
    assert again.table.equals(run.table)
    assert "0001 is damaged; it is set aside as 0001.damaged-1" in caplog.text
    assert reload(run) == again
