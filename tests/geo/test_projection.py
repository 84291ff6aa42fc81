from __future__ import annotations

import numpy as np
import pandas as pd
import pyproj
import pytest

from cryotile.errors import InvalidValue
from cryotile.geo.projection import (
    areal_scale,
    point_scale,
    project,
    project_granule,
    projected_crs,
)
from cryotile.points import Granule

ANTARCTICA = projected_crs("EPSG:3031")


def places(longitude: list[float], latitude: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"longitude": longitude, "latitude": latitude, "elevation": 1.0})


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("EPSG:4326", "singular at the pole"),
        ("EPSG:4979", "geographic"),
        ("EPSG:2222", "foot"),
        ("EPSG:4978", "not a projected CRS"),
        ("EPSG:3031+5773", "vertical axis"),
        ("EPSG:999999", "unknown"),
        ("south polar stereo", "unknown"),
        ("", "unknown"),
        ("+proj=stere +lat_0=-90 +units=km +ellps=WGS84", "kilometre"),
    ],
)
def test_an_unsuitable_crs_is_refused_with_the_reason(text: str, rule: str) -> None:
    with pytest.raises(InvalidValue, match=rule) as caught:
        projected_crs(text)
    assert "\n" not in str(caught.value)
    assert "give" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["EPSG:3031", "EPSG:3413", "EPSG:32633", "ESRI:102018", "EPSG:6932"]
)
def test_any_projected_crs_in_metres_is_accepted(text: str) -> None:
    assert projected_crs(text) == pyproj.CRS(text)


def test_a_track_across_the_antimeridian_has_no_jump() -> None:
    points = project(places([179.9, 180.0, -180.0, -179.9, 180.1], [-75.0] * 5), ANTARCTICA)
    assert np.abs(np.diff(points["x"])).max() < 6000
    assert points["x"][1] == pytest.approx(points["x"][2], abs=1e-6)
    assert points["x"][3] == pytest.approx(points["x"][4], abs=1e-6)


def test_the_pole_lies_at_the_origin_whatever_its_longitude() -> None:
    points = project(places([0.0, 123.0, -57.0], [-90.0, -90.0, -89.999999]), ANTARCTICA)
    assert np.hypot(points["x"], points["y"]).max() < 0.2


def test_longitude_comes_before_latitude() -> None:
    points = project(places([90.0], [-80.0]), ANTARCTICA)
    assert points["x"][0] > 1e6
    assert abs(points["y"][0]) < 1e-3


def test_projecting_keeps_other_columns_index_and_order() -> None:
    given = places([10.0, 20.0], [-80.0, -81.0]).set_index(pd.Index([7, 3]))
    points = project(given, ANTARCTICA)
    assert list(points.columns) == ["x", "y", "elevation"]
    assert list(points.index) == [7, 3]
    assert points.attrs["crs"] == "EPSG:3031"
    assert list(given.columns) == ["longitude", "latitude", "elevation"]


def test_points_outside_the_projection_are_dropped_and_counted() -> None:
    points = places([0.0, 0.0, 0.0, np.nan], [-80.0, 90.0, 95.0, -80.0])
    granule = Granule("id", "p", "A", 1, "n", "c", 6, {"no_height": 2}, points)
    projected = project_granule(granule, ANTARCTICA)
    assert len(projected.points) == 1
    assert projected.dropped == {"no_height": 2, "outside_projection": 3}
    assert len(projected.points) + sum(projected.dropped.values()) == projected.record_count


def test_projecting_no_points_gives_no_points() -> None:
    assert list(project(places([], []), ANTARCTICA).columns) == ["x", "y", "elevation"]


def test_the_scale_is_one_on_the_standard_parallel_and_known_at_the_pole() -> None:
    on_parallel = project(places([30.0], [-71.0]), ANTARCTICA)
    x = np.array([on_parallel["x"][0], 0.0])
    y = np.array([on_parallel["y"][0], 0.0])
    # k0 of EPSG:3031 at the pole, (1 + sin 71°)/2 on the ellipsoid.
    np.testing.assert_allclose(point_scale(ANTARCTICA, x, y), [1.0, 0.97276901], atol=1e-8)
    np.testing.assert_allclose(areal_scale(ANTARCTICA, x, y), [1.0, 0.97276901**2], atol=1e-7)


def test_the_scale_is_the_ratio_of_projected_to_geodesic_lengths() -> None:
    x, y = np.full((2, 3), 500e3), np.linspace(-2e6, -5e5, 6).reshape(2, 3)
    crs = projected_crs("EPSG:3413")
    back = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lon0, lat0 = back.transform(x, y - 5.0)
    lon1, lat1 = back.transform(x, y + 5.0)
    ground = pyproj.Geod(ellps="WGS84").inv(lon0, lat0, lon1, lat1)[2]
    np.testing.assert_allclose(point_scale(crs, x, y), 10.0 / np.asarray(ground), rtol=1e-6)


def test_an_equal_area_projection_preserves_areas() -> None:
    crs = projected_crs("EPSG:6932")
    x, y = np.array([0.0, 1e6]), np.array([5e5, -1e6])
    np.testing.assert_allclose(areal_scale(crs, x, y), 1.0, atol=1e-6)
