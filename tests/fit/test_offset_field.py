"""Offsets of two missions, smooth in space: their records join without a step."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

import cryotile
from cryotile import FitConfig, fit_posts
from cryotile.errors import InvalidValue, Unfinished
from cryotile.fit.offset_field import OffsetField
from cryotile.fit.offset_smoothing import smooth_offsets
from cryotile.runs.run import Run
from tests.support.command_line import output_of, run
from tests.support.two_missions import EPOCH, HEIGHT, PERIOD, RATE, WIDTH, step_at, two_missions

SETTINGS = {
    "posting": 2000.0,
    "bounds": (2e3, 2e3, WIDTH - 2e3, HEIGHT - 2e3),
    "period": PERIOD,
    "reference_epoch": EPOCH,
    "terms": ("platform_offset",),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Run, Run]:
    """A run whose offsets are free at each post, and one that takes the smooth offsets of the first."""
    here = tmp_path_factory.mktemp("offsets")
    db = two_missions(here / "both.pdb", 2, passes=60)
    first = cryotile.plan(here / "first", db, **SETTINGS)
    with pytest.raises(Unfinished, match="not finished"):
        cryotile.plan(here / "early", db, offsets=first, **SETTINGS)
    cryotile.run(first, backend="serial")
    second = cryotile.plan(here / "second", db, offsets=first, **SETTINGS)
    cryotile.run(second, backend="serial")
    return first, second


def errors_of(maps: xr.Dataset) -> np.ndarray:
    assert bool((maps["status"] == 0).mean() > 0.99)
    return (maps["dhdt"] - RATE).to_numpy()


def local_bias(errors: np.ndarray) -> float:
    """Return the largest mean error over a strip of 12 km."""
    return float(np.abs([np.nanmean(strip) for strip in np.array_split(errors, 9, axis=1)]).max())


def test_a_step_that_varies_in_space_does_not_bias_the_rate_and_its_interval_holds(runs):
    first, second = (cryotile.open_run(each).load() for each in runs)
    free, smooth = errors_of(first), errors_of(second)
    # What the step does to a fit that does not know of two missions.
    points = cryotile.PointDB(runs[0].db_path).read()
    points = points.assign(platform="cryosat2", mode="sarin_poca")
    config = FitConfig(period=PERIOD, reference_epoch=EPOCH)
    mixed = fit_posts(points, first["x"], first["y"], config)
    assert local_bias((mixed["dhdt"] - RATE).to_numpy()) > 0.06
    assert local_bias(smooth) < 0.012
    assert abs(np.nanmean(smooth)) < 0.005
    assert np.nanstd(smooth) < 0.85 * np.nanstd(free)
    inside = np.abs(smooth) <= second["dhdt_ci95"].to_numpy()
    assert 0.92 < inside[np.isfinite(smooth)].mean() <= 0.99


def test_the_field_is_the_step_of_the_missions(runs):
    field = runs[1].settings.offsets
    assert field is not None
    ((key, values),) = field.values.items()
    # Of both missions one is the reference.
    sign = {("platform", "icesat2"): -1, ("platform", "cryosat2"): 1}[key]
    inside = (field.x > 5e3) & (field.x < WIDTH - 5e3)
    rows = (field.y > 2e3) & (field.y < HEIGHT - 2e3)
    left = values[np.ix_(rows, inside)] - sign * step_at(field.x[inside])
    assert np.abs(left).max() < 0.15
    assert 0.01 < field.sizes["platform_offset"] < 0.15


def test_a_run_keeps_its_offsets_when_the_first_is_gone(runs):
    first, second = runs
    hidden = first.path.rename(first.path.with_name("hidden"))
    try:
        again = cryotile.plan(second.path)
        assert again.settings.offsets.digest == second.settings.offsets.digest
        assert not again.missing()
    finally:
        hidden.rename(first.path)
    shown = cryotile.open_run(second).attrs
    assert shown["offsets"].startswith("smooth, from the run first, SHA-256 ")
    assert "--offsets first" in shown["history"]
    # The size of the prior belongs to the offsets, so that a user need not repeat it.
    cryotile.plan(second.path, offsets=first, **SETTINGS)


def test_the_command_line_plans_with_the_offsets_of_a_run(runs, tmp_path):
    first, _ = runs
    words = ["--posting", 2000, "--term", "platform_offset", "--offsets", first.path]
    shown = output_of("plan", tmp_path / "third", "--db", first.db_path, *words)
    assert "tiles" in shown
    refused = run("plan", tmp_path / "fourth", "--db", first.db_path, "--offsets", first.path)
    assert refused.returncode == 2
    assert "come from the term platform_offset, which this plan does not name" in refused.stderr


def test_a_damaged_field_is_not_used(runs, tmp_path):
    field = runs[1].settings.offsets
    content = field.packed()
    assert OffsetField.load(content, "x").digest == field.digest
    file = runs[1].path / "offsets.npz"
    file.write_bytes(content[:-40] + b"x" * 40)
    try:
        with pytest.raises(cryotile.CryotileError, match="is not the offsets that the run was"):
            Run.load(runs[1].path)
    finally:
        file.write_bytes(content)


def test_maps_of_one_mission_have_no_offsets(runs):
    maps = cryotile.open_run(runs[0]).load()
    maps["platform_offset_icesat2"][:] = np.nan
    with pytest.raises(InvalidValue, match="tells an offset"):
        smooth_offsets(maps, runs[0].settings.fit, "run/")


def made_up_maps(config: FitConfig, groups: list[tuple[slice, tuple[str, ...]]]) -> xr.Dataset:
    """Return maps of posts in columns that see some platforms each; each platform is 1 m above the one before it."""
    random, shape = np.random.default_rng(1), (20, 60)
    names = {word: f"platform_offset_{word.replace('-', '_')}" for word in config.platforms}
    maps = {name + end: np.full(shape, np.nan) for name in names.values() for end in ("", "_sigma")}
    levels = {word: float(k) for k, word in enumerate(PLATFORMS)}
    for columns, words in groups:
        mean = np.mean([levels[word] for word in words])
        for word in words:
            offset = levels[word] - mean + random.normal(0, 0.05, shape)
            maps[names[word]][:, columns] = offset[:, columns]
            maps[f"{names[word]}_sigma"][:, columns] = 0.035
    fields = {name: (("y", "x"), values) for name, values in maps.items()}
    places = {"x": np.arange(60) * 2000.0, "y": np.arange(20) * 2000.0}
    return xr.Dataset({"status": (("y", "x"), np.zeros(shape, "u1")), **fields}, places)


PLATFORMS = ("cryosat2", "icesat2", "envisat", "my-plane")


def test_a_platform_that_never_meets_the_most_frequent_one_joins_by_others() -> None:
    config = FitConfig(terms=("platform_offset",), other_platforms=("my-plane",))
    parts = (slice(0, 40), slice(40, 50), slice(50, 60))
    groups = list(zip(parts, pairwise(PLATFORMS), strict=True))
    field = smooth_offsets(made_up_maps(config, groups), config, "run/")
    # icesat2 has the most posts, and my-plane shares none with it.
    assert {word: round(float(v.mean()), 1) for (_, word), v in field.values.items()} == {
        "cryosat2": -1.0,
        "envisat": 1.0,
        "my-plane": 2.0,
    }
    assert OffsetField.load(field.packed(), "run/").digest == field.digest


def test_platforms_that_meet_no_other_have_no_offset() -> None:
    config = FitConfig(terms=("platform_offset",), other_platforms=("my-plane",))
    groups = [(slice(0, 30), PLATFORMS[:2]), (slice(30, 60), PLATFORMS[2:])]
    field = smooth_offsets(made_up_maps(config, groups), config, "run/")
    # Of each pair one is the reference of the other.
    assert len(field.values) == 2
    assert {abs(round(float(v.mean()), 1)) for v in field.values.values()} == {1.0}


def test_one_variable_of_the_maps_is_in_memory_at_a_time() -> None:
    array = pytest.importorskip("dask.array")
    config, shape = FitConfig(terms=("platform_offset",)), (500, 500)
    words = [f"platform_offset_{word.replace('-', '_')}" for word in config.platforms]
    there = {"platform_offset_cryosat2": 0.1, "platform_offset_icesat2": -0.1}
    values = {word: there.get(word, np.nan) for word in words}
    values |= {f"{word}_sigma": 0.1 if word in there else np.nan for word in words}
    fields = {name: (("y", "x"), array.full(shape, value)) for name, value in values.items()}
    status = {"status": (("y", "x"), np.ones(shape, "u1"))}
    # Few posts are fitted, as on a map whose grid is larger than the ice; the field is coarser than the map.
    status["status"][1][:50] = 0
    axis = np.arange(500) * 200.0
    maps = xr.Dataset({**status, **fields}, {"x": axis, "y": axis})
    smooth_offsets(maps, config, "run/")
    tracemalloc.start()
    smooth_offsets(maps, config, "run/")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * len(values) * 8 * shape[0] * shape[1]


def test_offsets_of_what_offsets_leave_or_of_another_place_are_refused(runs, tmp_path) -> None:
    first, second = runs
    with pytest.raises(InvalidValue, match=r"are what the offsets of .* leave"):
        cryotile.plan(tmp_path / "chain", first.db_path, offsets=second, **SETTINGS)
    area = {**SETTINGS, "bounds": (2e3, 2e3, 10e3, 10e3)}
    part = cryotile.plan(tmp_path / "part", first.db_path, **area)
    cryotile.run(part, backend="serial")
    area["bounds"] = (80e3, 2e3, 90e3, 10e3)
    with pytest.raises(InvalidValue, match="where the grid has no post"):
        cryotile.plan(tmp_path / "far", first.db_path, offsets=part, **area)
    shown = output_of("info", second.path)
    assert "offsets      smooth, from the run first" in shown


def test_offsets_of_another_projection_are_refused(runs, tmp_path) -> None:
    db = cryotile.PointDB.create(tmp_path / "north.pdb", crs="EPSG:3413")
    with pytest.raises(InvalidValue, match=r"are in EPSG:3031, the points of .* in EPSG:3413"):
        cryotile.plan(tmp_path / "run", db, offsets=runs[0], **SETTINGS)


def test_penetration_is_summarized(tmp_path):
    db = two_missions(tmp_path / "both.pdb", 3, passes=60, change=-0.1)
    planned = cryotile.plan(
        tmp_path / "run", db, **{**SETTINGS, "terms": ("platform_offset", "penetration")}
    )
    cryotile.run(planned, backend="serial")
    shown = output_of("penetration", tmp_path / "run", "--json")
    found = json.loads(shown)
    assert found["percentiles"][1] == pytest.approx(-0.1, abs=0.01)
    assert found["beyond"] > 0.3
    refused = run("penetration", tmp_path / "both.pdb")
    assert refused.returncode == 2
