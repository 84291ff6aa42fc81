"""What a page draws of a run: the place of its tiles, an outline, and thumbnails."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid, Tile
from cryotile.geo.mask import Mask
from cryotile.runs.task_map import task_map, thumbnail, thumbnail_values
from tests.support.small_run import make_run


def fitted(rate, sigma, status) -> xr.Dataset:
    return xr.Dataset(
        {
            "dhdt": (("y", "x"), rate),
            "dhdt_sigma": (("y", "x"), sigma),
            "status": (("y", "x"), status),
        }
    )


def whole_tile(size: int) -> Tile:
    return Tile(2, -1, range(2 * size, 3 * size), range(-size, 0), 1000.0)


@pytest.mark.parametrize("size", [1, 7, 18, 19, 100, 131])
def test_a_thumbnail_shows_the_mean_rates_and_a_status_and_is_never_more_than_1_kb(size):
    random = np.random.default_rng(1)
    rate = random.uniform(-2, 2, (size, size))
    status = random.integers(0, 8, (size, size))
    found = fitted(rate, np.full((size, size), 0.25), status)
    values = thumbnail_values(whole_tile(size), size, found)
    assert len(thumbnail(whole_tile(size), size, found)) <= 1024
    side = values.shape[1]
    assert values.shape == (3, side, side)
    assert side == size if size <= 18 else 9 <= side <= 18
    edges = np.append(np.arange(side) * size // side, size)
    cell = rate[edges[0] : edges[1], edges[-2] : edges[-1]]
    assert (values[0, 0, -1] - 1) / 254 * 4 - 2 == pytest.approx(cell.mean(), abs=0.01)
    assert np.all(values[1] == 1 + round(254 * 0.25))
    assert values[2, 0, 0] == 1 + status[edges[1] // 2, edges[1] // 2]


def test_posts_without_a_fit_and_beyond_the_grid_have_no_data():
    rate = np.full((10, 10), np.nan)
    rate[:, 5:] = -5.0
    tile = Tile(0, 0, range(8, 18), range(10), 500.0)
    found = fitted(rate, np.abs(rate), np.full((10, 10), int(Status.NO_POINTS)))
    values = thumbnail_values(tile, 18, found)
    # Posts 13 to 17 of the columns have a rate, below the range.
    assert np.all(values[0, :10, 13:] == 1)
    assert np.count_nonzero(values[0]) == 50
    assert np.all(values[1, :10, 13:] == 255)
    assert np.all(values[2, :10, 8:] == 1 + Status.NO_POINTS)
    assert np.count_nonzero(values[2]) == 100
    assert not values[:, 10:].any()
    restored = np.frombuffer(zlib.decompress(thumbnail(tile, 18, found)), "u1")
    assert np.array_equal(restored, values.ravel())
    assert not thumbnail_values(tile, 18, found[["dhdt"]])[1:].any()


def test_the_map_of_a_run_has_a_place_for_each_task_around_its_posts(tmp_path):
    run = make_run(tmp_path)
    found = task_map(run)
    assert (found["crs"], found["tile_size"], found["thumbnail_shape"]) == (
        "EPSG:3031",
        10_000.0,
        [10, 10],
    )
    for index, (column, row) in enumerate(zip(found["columns"], found["rows"], strict=True)):
        tile, (x, y) = run.tile(index), found["origin"]
        low = x + column * found["tile_size"], y + row * found["tile_size"]
        assert low[0] < tile.x[0] <= tile.x[-1] < low[0] + found["tile_size"]
        assert low[1] < tile.y[0] <= tile.y[-1] < low[1] + found["tile_size"]


def test_the_outline_of_a_mask_goes_around_its_posts():
    grid = Grid("EPSG:3031", (0.0, 0.0, 9e3, 9e3), 1e3)
    inside = np.zeros((10, 10), bool)
    inside[2:8, 3:9] = True
    inside[4:6, 5:7] = False
    settings = SimpleNamespace(grid=grid, tile_size=5, mask=Mask("", grid, inside))
    run = SimpleNamespace(settings=settings, table=pd.DataFrame({"ix": [0, 1], "iy": [0, 1]}))
    outer, hole = sorted(task_map(run)["outline"], key=width, reverse=True)
    assert set(map(tuple, outer)) == {(2500, 1500), (8500, 1500), (8500, 7500), (2500, 7500)}
    assert outer[0] == outer[-1]
    assert set(map(tuple, hole)) == {(4500, 3500), (6500, 3500), (6500, 5500), (4500, 5500)}


def test_without_a_mask_the_outline_is_the_coast_nearby():
    grid = Grid("EPSG:3031", (-3e6, -3e6, 3e6, 3e6), 5e3)
    settings = SimpleNamespace(grid=grid, tile_size=100, mask=None)
    run = SimpleNamespace(settings=settings, table=pd.DataFrame({"ix": [-3, 3], "iy": [-3, 3]}))
    lines = task_map(run)["outline"]
    points = np.concatenate([np.array(line) for line in lines])
    # The coast of Antarctica lies 1000 to 3000 km from the pole.
    radius = np.hypot(*points.T)
    assert 100 < len(points) <= 21_000
    assert np.mean((radius > 5e5) & (radius < 3.2e6)) > 0.9


def width(ring):
    return np.ptp(np.array(ring)[:, 0])
