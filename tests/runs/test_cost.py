"""The cost and the points of each tile follow from the squares of the point DB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio import Affine
from rasterio import open as raster

from cryotile.pointdb import SQUARE_SIZE
from cryotile.runs.cost import tile_table
from cryotile.runs.run import open_db, plan_run
from tests.support.made_up import granule
from tests.support.point_dbs import filled

BOUNDS = (-15e3, -15e3, 15e3, 15e3)
ICESAT2 = "platform == 'icesat2'"


@pytest.mark.parametrize("radius", [600.0, 7300.0])
def test_a_tile_counts_the_squares_that_its_window_touches(tmp_path: Path, radius: float) -> None:
    db = filled(tmp_path / "ice.pdb", [granule(1, 3000), granule(2, 3000)])
    asked = {
        "posting": 1000.0,
        "radius": radius,
        "tile_size": 7,
        "bounds": BOUNDS,
        "where": ICESAT2,
    }
    run = plan_run(tmp_path / "run", {**asked, "recipe": "plane"}, db=db)
    squares = db.squares(where=ICESAT2)
    x, y, points = (squares[name].to_numpy() for name in ("x_min", "y_min", "count"))
    assert len(run.tiles) > 9
    for tile, row in zip(run.tiles, run.table.to_dict("records"), strict=True):
        x_min, y_min, x_max, y_max = tile.window(radius)
        touched = (x_min < x + SQUARE_SIZE) & (x <= x_max)
        touched &= (y_min < y + SQUARE_SIZE) & (y <= y_max)
        assert row["points"] == points[touched].sum()
        assert row["digest"] == sum(map(int, squares["digest"][touched])) % 2**64
        visits = 0
        for post_x in tile.x:
            for post_y in tile.y:
                near = (post_x >= x - radius) & (post_x <= x + SQUARE_SIZE + radius)
                near &= (post_y >= y - radius) & (post_y <= y + SQUARE_SIZE + radius)
                visits += points[near].sum()
        # Of a square widened by the radius, a post sees a circle; a plane takes a tenth of pass effects.
        share = 0.1 * np.pi * radius**2 / (SQUARE_SIZE + 2 * radius) ** 2
        assert row["cost"] == pytest.approx(share * visits + 10 / 3 * row["points"] + 1e6)


def test_tiles_without_points_or_without_a_wanted_post_are_not_listed(tmp_path: Path) -> None:
    db = filled(tmp_path / "ice.pdb", [granule(1, 3000)])
    with raster(
        tmp_path / "mask.tif",
        "w",
        driver="GTiff",
        count=1,
        width=40,
        height=40,
        dtype="uint8",
        crs="EPSG:3031",
        transform=Affine(1000, 0, -20_000, 0, -1000, 20_000),
    ) as file:
        file.write(np.pad(np.ones((1, 40, 20), np.uint8), ((0, 0), (0, 0), (0, 20))))
    asked = {"recipe": "plane", "tile_size": 5, "bounds": BOUNDS, "where": ICESAT2}
    run = plan_run(tmp_path / "run", {**asked, "mask": str(tmp_path / "mask.tif")}, db=db)
    whole = plan_run(tmp_path / "whole", asked, db=db)
    assert 0 < len(run.tiles) < len(whole.tiles)
    settings, table = run.settings, tile_table(run.settings, open_db(run))
    assert settings.mask is not None
    assert all(settings.mask.of(tile).any() for tile in run.tiles)
    assert table["cost"].is_monotonic_decreasing
