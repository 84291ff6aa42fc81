"""Posts are multiples of the posting, and tiles cover them without gap or overlap."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryotile.errors import InvalidValue
from cryotile.geo.grid import Grid, Tile

CRS = "EPSG:3031"

edges = st.integers(-10_000, 10_000)
grids = st.builds(
    lambda x, y, width, height, posting: Grid(
        CRS, (x, y, x + width + posting, y + height + posting), posting
    ),
    edges,
    edges,
    st.integers(0, 3_000),
    st.integers(0, 3_000),
    st.sampled_from([100.0, 250.0, 333.3, 1000.0, 5000.0]),
)
tile_sizes = st.integers(1, 50)


@given(grids, tile_sizes)
def test_each_post_of_a_grid_is_in_exactly_one_tile(grid: Grid, tile_size: int) -> None:
    posts = [(x, y) for tile in grid.tiles(tile_size) for x in tile.x for y in tile.y]
    assert len(posts) == math.prod(grid.shape)
    assert set(posts) == {(x, y) for x in grid.x for y in grid.y}


@given(grids, tile_sizes)
def test_no_tile_is_empty_or_larger_than_the_tile_size(grid: Grid, tile_size: int) -> None:
    assert all(1 <= side <= tile_size for tile in grid.tiles(tile_size) for side in tile.shape)


@given(grids, tile_sizes)
def test_tiles_have_distinct_names(grid: Grid, tile_size: int) -> None:
    tiles = grid.tiles(tile_size)
    assert len({tile.name for tile in tiles}) == len(tiles)


@given(grids)
def test_all_multiples_of_the_posting_within_the_bounds_are_posts(grid: Grid) -> None:
    x_min, _, x_max, _ = grid.bounds
    numbers = np.arange(-20_000, 20_001)
    inside = (numbers * grid.posting >= x_min) & (numbers * grid.posting <= x_max)
    np.testing.assert_array_equal(grid.x, numbers[inside] * grid.posting)


@given(st.integers(-300, 300), st.integers(1, 40), st.sampled_from([0.1, 0.3, 333.3, 1e-3]))
def test_bounds_that_are_multiples_of_the_posting_include_their_end_posts(
    first: int, count: int, posting: float
) -> None:
    bounds = (first * posting, 0.0, (first + count) * posting, 0.0)
    assert Grid(CRS, bounds, posting).shape == (1, count + 1)


@given(st.lists(edges, min_size=4, max_size=4), st.sampled_from([100.0, 333.3, 1000.0]))
def test_a_covering_grid_extends_past_each_edge_by_less_than_one_posting(
    numbers: list[int], posting: float
) -> None:
    x_min, x_max = sorted(numbers[:2])
    y_min, y_max = sorted(numbers[2:])
    grid = Grid.covering((x_min, y_min, x_max, y_max), posting, CRS)
    for posts, low, high in ((grid.x, x_min, x_max), (grid.y, y_min, y_max)):
        assert low - posting < posts[0] <= low + 1e-6
        assert high - 1e-6 <= posts[-1] < high + posting


@given(grids, tile_sizes)
def test_overlapping_grids_have_the_same_tiles_in_common(grid: Grid, tile_size: int) -> None:
    x_min, y_min, x_max, y_max = grid.bounds
    margin = 10 * grid.posting
    wider = Grid(
        CRS, (x_min - margin, y_min - margin, x_max + margin, y_max + margin), grid.posting
    )
    by_name = {tile.name: tile for tile in wider.tiles(tile_size)}
    for tile in grid.tiles(tile_size):
        outer = by_name[tile.name]
        assert set(tile.columns) <= set(outer.columns)
        assert set(tile.rows) <= set(outer.rows)


def test_the_window_of_a_tile_is_its_posts_and_a_margin_of_the_radius() -> None:
    (tile,) = Grid(CRS, (-500.0, 1000.0, 2500.0, 4000.0), 1000.0).tiles(100)
    assert tile.bounds == (0.0, 1000.0, 2000.0, 4000.0)
    assert tile.window(1500.0) == (-1500.0, -500.0, 3500.0, 5500.0)


def test_a_name_counts_tiles_from_the_origin_of_the_crs() -> None:
    grid = Grid(CRS, (-200_000.0, 1_250_000.0, -100_001.0, 1_299_000.0), 1000.0)
    assert [tile.name for tile in grid.tiles(100)] == ["x-0002_y+0012"]


def test_tiles_survive_pickling_unchanged() -> None:
    tile = Grid(CRS, (0.0, 0.0, 9e3, 9e3), 1000.0).tiles(4)[4]
    assert pickle.loads(pickle.dumps(tile)) == tile
    assert isinstance(hash(tile), int)
    assert tile == Tile(1, 1, range(4, 8), range(4, 8), 1000.0)


@pytest.mark.parametrize(
    ("bounds", "posting", "words"),
    [
        ((5.0, 0.0, 3.0, 9.0), 1.0, "x_min 5 exceeds x_max 3"),
        ((0.0, 9.0, 3.0, 1.0), 1.0, "y_min 9 exceeds y_max 1"),
        ((0.0, math.nan, 3.0, 1.0), 1.0, "not four finite numbers"),
        ((0.0, 0.0, math.inf, 1.0), 1.0, "not four finite numbers"),
        ((0.0, 0.0, 9.0, 9.0), -1.0, "posting -1.0 m is not a positive number"),
        ((0.0, 0.0, 9.0, 9.0), math.nan, "posting nan m is not a positive number"),
        ((0.0, 0.0, 9.0, 9.0), 0.0, "posting 0.0 m is not a positive number"),
        ((-3e6, -3e6, 3e6, 3e6), 1.0, r"makes 3.6e\+13 posts within the bounds, more than 1e\+09"),
        ((0.0, 0.0, 9e6, 9e6), 5e-324, "inf posts within the bounds"),
        ((1000.0, 0.0, 1900.0, 5000.0), 5000.0, "no multiple between x_min 1000 and x_max 1900"),
    ],
)
def test_an_invalid_grid_is_refused(
    bounds: tuple[float, float, float, float], posting: float, words: str
) -> None:
    with pytest.raises(InvalidValue, match=words):
        Grid(CRS, bounds, posting)


@pytest.mark.parametrize("tile_size", [0, -5])
def test_a_tile_without_posts_is_refused(tile_size: int) -> None:
    with pytest.raises(
        InvalidValue, match=f"tile size {tile_size} is not a positive number of posts"
    ):
        Grid(CRS, (0.0, 0.0, 9.0, 9.0), 1.0).tiles(tile_size)


def test_a_tile_size_that_makes_millions_of_files_is_refused() -> None:
    with pytest.raises(InvalidValue, match="9006001 tiles, more than 1000000"):
        Grid(CRS, (0.0, 0.0, 3000.0, 3000.0), 1.0).tiles(1)
