"""Regions are the posts inside named polygons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely

from cryotile.errors import InvalidValue
from cryotile.geo.grid import Grid
from cryotile.geo.regions import Regions
from tests.support.maps import vector_file

GRID = Grid("EPSG:3031", (-20e3, -30e3, 20e3, 30e3), 1000.0)
X, Y = np.meshgrid(GRID.x, GRID.y)
WEST, EAST = shapely.box(-20_500, -30_500, 0, 30_500), shapely.box(0, -30_500, 20_500, 30_500)


def basins(
    path: Path, *shapes: shapely.Geometry, names: list[object], crs: str | None = "EPSG:3031"
) -> Path:
    return vector_file(path, *shapes, crs=crs, NAME=names)


def refused(path: Path, column: str = "NAME", grid: Grid = GRID) -> str:
    with pytest.raises(InvalidValue) as caught:
        Regions.read(path, column, grid)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_post_belongs_to_the_region_around_it_and_a_post_on_a_border_to_one(tmp_path):
    path = basins(tmp_path / "b.gpkg", EAST, WEST, names=["east", "west"])
    regions = Regions.read(path, "NAME", GRID)
    assert regions.names == ("east", "west")
    assert (regions.number[X > 0] == 0).all()
    assert (regions.number[X < 0] == 1).all()
    assert (regions.number >= 0).all()
    assert (regions.beyond == 0).all()


def test_a_post_on_a_common_edge_or_corner_is_in_one_region_in_either_direction(tmp_path):
    edges = [(-20_000, 0), (0, 20_000)], [(-30_000, 7_000), (7_000, 30_000)]
    boxes = [shapely.box(w, s, e, n) for w, e in edges[0] for s, n in edges[1]]
    for step in (1, -1):
        path = basins(tmp_path / f"b{step}.gpkg", *boxes[::step], names=["a", "b", "c", "d"])
        number = Regions.read(path, "NAME", GRID).number
        # The outermost posts lie on the edge of all boxes.
        assert (number[1:-1, 1:-1] >= 0).all()


def test_features_of_one_name_are_one_region_also_where_they_overlap(tmp_path):
    lower = shapely.box(-20_500, -30_500, 20_500, 5_000)
    upper = shapely.box(-20_500, -5_000, 20_500, 30_500)
    path = basins(tmp_path / "b.gpkg", lower, upper, names=["ice", "ice"])
    regions = Regions.read(path, "NAME", GRID)
    assert regions.names == ("ice",)
    assert (regions.number == 0).all()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_regions_in_another_crs_are_projected(tmp_path, suffix):
    to_degrees = pyproj.Transformer.from_crs("EPSG:3031", "EPSG:4326", always_xy=True)
    inner = shapely.box(2_500, 2_500, 12_500, 17_500)
    moved = shapely.transform(
        shapely.segmentize(inner, 100.0), lambda xy: np.column_stack(to_degrees.transform(*xy.T))
    )
    path = basins(tmp_path / f"b{suffix}", moved, names=["ice"], crs="EPSG:4326")
    inside = (X > 2_500) & (X < 12_500) & (Y > 2_500) & (Y < 17_500)
    np.testing.assert_array_equal(Regions.read(path, "NAME", GRID).number == 0, inside)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1, 2], ("1", "2")),
        ([1.0, 2.0], ("1", "2")),
        ([5.0, 1.1], ("5.0", "1.1")),
        ([" A-Ap ", "Ap-B"], ("A-Ap", "Ap-B")),
    ],
)
def test_numbers_are_names_as_they_are_written(tmp_path, values, names):
    path = basins(tmp_path / "b.gpkg", WEST, EAST, names=values)
    assert Regions.read(path, "NAME", GRID).names == names


def test_a_region_off_the_grid_has_no_post_and_one_across_its_edge_says_how_much_lies_beyond(
    tmp_path,
):
    across = shapely.box(10_500, -30_500, 30_500, 30_500)
    path = basins(
        tmp_path / "b.gpkg", WEST, across, shapely.box(90e3, 0, 95e3, 9e3), names=["a", "b", "c"]
    )
    regions = Regions.read(path, "NAME", GRID)
    assert regions.beyond == pytest.approx([0.0, 0.5, 1.0])
    assert not (regions.number == 2).any()


def test_the_digest_follows_names_and_geometries_alone(tmp_path):
    def digest(name: str, *shapes: shapely.Geometry, names: list[object], grid: Grid = GRID) -> str:
        return Regions.read(basins(tmp_path / name, *shapes, names=names), "NAME", grid).digest

    first = digest("a.gpkg", WEST, EAST, names=["w", "e"])
    small = Grid("EPSG:3031", (-5e3, -5e3, 5e3, 5e3), 500.0)
    assert digest("b.gpkg", EAST, WEST, names=["e", "w"], grid=small) == first
    assert digest("c.gpkg", WEST, EAST, names=["e", "w"]) != first
    assert (
        digest("d.gpkg", WEST, shapely.box(0, -30_500, 20_400, 30_500), names=["w", "e"]) != first
    )


def test_bad_basins_are_refused_with_the_reason(tmp_path):
    good = basins(tmp_path / "good.gpkg", WEST, EAST, names=["w", "e"])
    assert "do not exist" in refused(tmp_path / "absent.gpkg")
    assert "has no column 'name'; choose one of NAME" in refused(good, "name").replace(
        "have", "has"
    )
    wide = shapely.box(-2_500, -30_500, 20_500, 30_500)
    overlap = refused(basins(tmp_path / "o.gpkg", WEST, wide, names=["w", "e"]))
    assert "w and e overlap at" in overlap
    assert "no CRS" in refused(basins(tmp_path / "c.shp", WEST, names=["w"], crs=None))
    assert "1 of 2 features have no NAME" in refused(
        basins(tmp_path / "n.gpkg", WEST, EAST, names=[None, "e"])
    )
    assert "'all'" in refused(basins(tmp_path / "all.gpkg", WEST, names=["all"]))
    assert "contain none of" in refused(
        basins(tmp_path / "far.gpkg", shapely.box(9e5, 9e5, 9.1e5, 9.1e5), names=["far"])
    )
    line = shapely.LineString([(0, 0), (1000, 1000)])
    assert "no polygon" in refused(basins(tmp_path / "line.gpkg", line, names=["l"]))
    text = tmp_path / "text.gpkg"
    text.write_text("{}")
    assert "cannot be read" in refused(text)
