"""A comparison brings both maps to one grid, sign and period, and says what it did."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import shapely

import cryotile as ct
from cryotile.errors import InvalidValue
from cryotile.exchange.compare import Comparison
from tests.exchange import published
from tests.exchange.conftest import Make
from tests.exchange.published import NORTH, SIGMA, SOUTH
from tests.support.command_line import Call
from tests.support.errors import one_line
from tests.support.maps import vector_file

pytest.importorskip("rasterio")

NAMED = {"variable": "trend", "sigma": "trend_error"}
SAME = {"period": ("2018-01-01", "2022-01-01")}


def test_a_product_compared_with_itself_gives_zeros(product: Make) -> None:
    path = product(windows=("2y", "1y"))
    found = ct.compare(path, path)
    assert found.overall["posts"] == 41 * 41 - 2
    for name in ("bias", "median", "mad", "rms", "ratio_rms", "ratio_mad"):
        assert (found.table[name] == 0.0).all()
    # Of rates that fit equally well, the one of the whole period.
    assert "whole period" in found.product
    assert "whole period" in found.reference


def test_numbers_of_a_comparison_are_those_of_the_differences(
    product: Make, tmp_path: Path
) -> None:
    noise = 0.05 * np.random.default_rng(3).standard_normal((41, 40))

    def spoil(values: np.ndarray) -> None:
        values -= 0.1 + noise

    published.cf_grid(tmp_path / "ref.nc", edit=spoil, **SAME)
    found = ct.compare(product(), tmp_path / "ref.nc", **NAMED)
    bare = np.zeros((41, 40), bool)
    bare[1:3, 2] = True
    difference = 0.1 + noise[~bare]
    row = found.overall
    assert row["posts"] == difference.size
    assert row["bias"] == pytest.approx(difference.mean(), rel=1e-6, abs=1e-7)
    assert row["median"] == pytest.approx(np.median(difference), rel=1e-6, abs=1e-7)
    assert row["rms"] == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-6, abs=1e-7)
    mad = 1.482602218505602 * np.median(np.abs(difference - np.median(difference)))
    assert row["mad"] == pytest.approx(mad, rel=1e-6, abs=1e-7)
    ratio = difference / np.hypot(0.03, SIGMA)
    assert row["ratio_rms"] == pytest.approx(np.sqrt((ratio**2).mean()), rel=1e-6, abs=1e-7)
    assert row["within_ci95"] == pytest.approx((np.abs(ratio) < 1.959964).mean(), abs=1e-9)
    assert found.notes == ("both have the same posts",)


@pytest.mark.parametrize(
    ("posting", "shift", "note"),
    [
        (1000.0, 0.0, "the same posts"),
        (1000.0, 300.0, "interpolated linearly"),
        (5000.0, 2500.0, "the product is averaged over the squares of the reference, 5000 m"),
        (250.0, 125.0, "the reference is averaged over the squares around the posts"),
    ],
)
def test_a_plane_has_no_difference_on_any_grid(
    posting: float, shift: float, note: str, product: Make, tmp_path: Path
) -> None:
    published.cf_grid(tmp_path / "ref.nc", posting=posting, shift=shift, **SAME)
    found = ct.compare(product(), tmp_path / "ref.nc", **NAMED)
    assert any(note in said for said in found.notes)
    # The posts without a rate leave some squares to the mean of the others, and an edge to one side.
    assert abs(found.overall["median"]) < 1e-3
    assert found.overall["rms"] < 2e-3
    assert found.overall["posts"] > 40


def test_a_reference_in_another_crs_lies_at_the_same_places(product: Make, tmp_path: Path) -> None:
    path = product()
    to = published.pyproj.Transformer.from_crs("EPSG:3031", "EPSG:32722", always_xy=True)
    left, bottom = published.CORNERS[SOUTH]
    u, v = to.transform(left + 20e3, bottom + 20e3)
    at_u, at_v = (np.arange(c - 15e3, c + 15e3, 700.0) for c in (u, v))
    x, y = to.transform(*np.meshgrid(at_u, at_v), direction="INVERSE")
    with published.netCDF4.Dataset(tmp_path / "utm.nc", "w") as file:
        published.put(file, "x", ("x",), at_u, units="m")
        published.put(file, "y", ("y",), at_v, units="m")
        wkt = published.pyproj.CRS("EPSG:32722").to_wkt()
        published.put(file, "crs", (), np.int8(0), grid_mapping_name="tm", crs_wkt=wkt)
        values = published.truth(x, y, SOUTH)
        published.put(file, "trend", ("y", "x"), values, units="m/yr", grid_mapping="crs")
    found = ct.compare(path, tmp_path / "utm.nc", variable="trend")
    assert found.overall["posts"] > 300
    assert found.overall["rms"] < 1e-4
    assert any("the reference is in EPSG:32722" in note for note in found.notes)
    assert (
        "the reference states no period: the whole period of the product is compared" in found.notes
    )


# --- periods -----------------------------------------------------------------------------------------------------


def test_the_window_nearest_to_the_period_of_the_reference_is_taken(
    product: Make, tmp_path: Path
) -> None:
    published.cf_grid(tmp_path / "ref.nc", period=("2019-02-01", "2021-02-01"))
    found = ct.compare(product(windows=("2y", "1y")), tmp_path / "ref.nc", **NAMED)
    assert "window 1, 2019-01-01 to 2021-01-01" in found.product
    assert found.overall["bias"] == pytest.approx(0.01, abs=1e-9)
    assert any(
        note.startswith("periods differ: product 2019-01-01 to 2021-01-01, reference 2019-02-01")
        for note in found.notes
    )


def test_the_lag_nearest_to_the_period_of_the_product_is_taken(
    product: Make, tmp_path: Path
) -> None:
    published.atl15(tmp_path / "atl15.nc")
    path = product(crs=NORTH, period=("2019-01-01", "2020-01-01"))
    found = ct.compare(path, tmp_path / "atl15.nc")
    assert "dhdt_lag4" in found.reference
    assert found.overall["rms"] < 1e-6


def test_disjoint_periods_are_refused_in_one_line(product: Make, tmp_path: Path) -> None:
    published.cf_grid(tmp_path / "ref.nc", period=("1992-01-01", "2000-01-01"))
    with pytest.raises(InvalidValue, match="they share no time") as error:
        ct.compare(product(), tmp_path / "ref.nc", **NAMED)
    assert "1992-01-01 to 2000-01-01" in one_line(error)


@pytest.mark.parametrize(("crs", "shift"), [(NORTH, 0.0), (SOUTH, 3e5)])
def test_disjoint_regions_are_refused_in_one_line(
    crs: str, shift: float, product: Make, tmp_path: Path
) -> None:
    published.cf_grid(tmp_path / "ref.nc", crs=crs, shift=shift, **SAME)
    with pytest.raises(InvalidValue, match="share no post with a rate") as error:
        ct.compare(product(), tmp_path / "ref.nc", **NAMED)
    one_line(error)


def test_one_month_of_eolis_makes_no_rate(product: Make, tmp_path: Path) -> None:
    published.eolis(tmp_path / "a.nc", month="2019-01-16")
    with pytest.raises(InvalidValue, match="a rate needs two") as error:
        ct.compare(product(), tmp_path / "a.nc")
    one_line(error)


# --- groups ------------------------------------------------------------------------------------------------------


def test_posts_are_told_by_slope_and_region(product: Make, tmp_path: Path) -> None:
    left, bottom = published.CORNERS[SOUTH]
    boxes = [
        shapely.box(left - 500, bottom - 500, left + 20_500, bottom + 50_000),
        shapely.box(left + 20_500, bottom - 500, left + 30_500, bottom + 50_000),
    ]
    basins = tmp_path / "basins.geojson"
    features = [
        {"type": "Feature", "properties": {"id": name}, "geometry": shapely.geometry.mapping(box)}
        for name, box in zip(("west", "east"), boxes, strict=True)
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3031"}}
    basins.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))

    def spoil(values: np.ndarray) -> None:
        values[:, 21:] += 0.5

    published.cf_grid(tmp_path / "ref.nc", edit=spoil, **SAME)
    path = product(slope=np.tan(np.radians(0.3)))
    found = ct.compare(path, tmp_path / "ref.nc", basins=basins, column="id", **NAMED)
    rows = {(row["group"], row["name"]): row for row in found.table.to_dict("records")}
    assert list(rows) == [
        ("all", "all"),
        ("slope", "0.2 to 0.5°"),
        ("region", "west"),
        ("region", "east"),
    ]
    assert rows["region", "west"]["posts"] == 41 * 21 - 2
    assert rows["region", "west"]["bias"] == pytest.approx(0.0, abs=1e-9)
    assert rows["region", "east"]["bias"] == pytest.approx(-0.5, abs=1e-9)
    with pytest.raises(InvalidValue, match='give column="NAME"'):
        ct.compare(path, tmp_path / "ref.nc", basins=basins, **NAMED)
    # On the coarser grid of a reference, a square belongs to the region of its middle.
    published.cf_grid(tmp_path / "coarse.nc", posting=5000.0, **SAME)
    found = ct.compare(path, tmp_path / "coarse.nc", basins=basins, column="id", **NAMED)
    assert set(found.table["name"]) >= {"west", "east"}


def test_basins_in_another_crs_overlapping_or_without_a_post(product: Make, tmp_path: Path) -> None:
    left, bottom = published.CORNERS[SOUTH]
    west = shapely.box(left - 500, bottom - 500, left + 20_500, bottom + 50_000)
    both = shapely.box(left + 10_500, bottom - 500, left + 30_500, bottom + 50_000)
    far = shapely.box(left + 2e6, bottom, left + 2.1e6, bottom + 5e4)
    to_degrees = published.pyproj.Transformer.from_crs(SOUTH, "EPSG:4326", always_xy=True)
    published.cf_grid(tmp_path / "ref.nc", **SAME)
    path = product()

    def compare(name: str, **shapes: shapely.Geometry) -> Comparison:
        degrees = [
            shapely.transform(
                shapely.segmentize(shape, 500.0),
                lambda xy: np.column_stack(to_degrees.transform(*xy.T)),
            )
            for shape in shapes.values()
        ]
        basins = vector_file(tmp_path / name, *degrees, crs="EPSG:4326", id=list(shapes))
        return ct.compare(path, tmp_path / "ref.nc", basins=basins, column="id", **NAMED)

    found = compare("two.geojson", west=west, far=far)
    regions = found.table[found.table["group"] == "region"]
    # As in the test before, whose file is in the CRS of the map.
    assert regions[["name", "posts"]].to_numpy().tolist() == [["west", 41 * 21 - 2]]
    assert "basin far has no post with both" in found.notes
    for name, shapes, says in (
        ("three.geojson", {"west": west, "east": both}, "west and east overlap at 410 posts"),
        ("four.geojson", {"far": far}, "contain none of the 1681 posts"),
    ):
        with pytest.raises(InvalidValue, match=says) as error:
            compare(name, **shapes)
        one_line(error)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("dhdt [ft/yr], sigma [ft/yr]", "dhdt [ft/yr] converted from ft/yr to m yr-1"),
        (
            "dhdt (mm/yr), sigma (mm2/yr2)",
            "sigma (mm2/yr2) is a variance (mm2/yr2): its square root",
        ),
        (
            "dhdt (m/yr), sigma_variance",
            "sigma_variance is a variance by its name, but its unit is not",
        ),
        ("dhdt (m w.e./yr), sigma", "is not that of a rate of elevation change; convert it"),
    ],
)
def test_units_and_variances_of_a_table_are_named_and_not_guessed(
    product: Make, tmp_path: Path, head: str, says: str
) -> None:
    x, y = (at.ravel() for at in np.meshgrid(*published.axes(SOUTH, 1000.0, 20)))
    lon, lat = published.pyproj.Transformer.from_crs(SOUTH, "EPSG:4326", always_xy=True).transform(
        x, y
    )
    rows = np.column_stack([lon, lat, published.truth(x, y, SOUTH), np.full_like(x, SIGMA)])
    lines = [f"longitude,latitude,{head}", *(",".join(f"{n:.9f}" for n in row) for row in rows)]
    (tmp_path / "air.csv").write_text("\n".join(lines))
    names = head.split(", ")
    try:
        said = " ".join(ct.compare(product(), tmp_path / "air.csv", sigma=names[1]).notes)
    except InvalidValue as error:
        said = str(error)
        assert "\n" not in said
    assert says in said


def test_airborne_points_are_averaged_around_posts(product: Make, tmp_path: Path) -> None:
    x, y = (at.ravel() for at in np.meshgrid(*published.axes(SOUTH, 250.0, 80)))
    lon, lat = published.pyproj.Transformer.from_crs(SOUTH, "EPSG:4326", always_xy=True).transform(
        x, y
    )
    rows = np.column_stack([lon, lat, published.truth(x, y, SOUTH)])
    lines = ["longitude,latitude,dhdt", *(",".join(f"{n:.9f}" for n in row) for row in rows)]
    (tmp_path / "air.csv").write_text("\n".join(lines))
    found = ct.compare(product(), tmp_path / "air.csv")
    assert found.layout == "table of points"
    assert found.overall["posts"] == 21 * 21 - 2
    assert found.overall["rms"] < 2e-3
    assert np.isnan(found.overall["ratio_mad"])


# --- the command and the report ------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_a_report(product: Make, call: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = product()
    published.cf_grid(tmp_path / "ref.nc", **SAME)
    words = ("compare", path, tmp_path / "ref.nc", "--variable", "trend", "--sigma", "trend_error")
    report = tmp_path / "report.html"
    code, said, _ = call(*words, "-o", report)
    assert code == 0
    assert "  all                     1,638   +0.0000   +0.0000" in said
    page = report.read_text()
    assert "a drift that all passes share is in no standard error" in said
    assert "a drift that all passes share is in no standard error" in page
    assert page.count("data:image/png;base64,") == 4
    # Nothing is fetched: neither style, nor script, nor picture.
    for word in ("http:", "https:", 'src="/', "<script", "@import", "<link"):
        assert word not in page
    before = report.read_bytes()
    assert call(*words, "-o", report)[0] == 2
    assert call(*words, "-o", report, "--force")[0] == 0
    assert report.read_bytes() == before
    code, said, _ = call(*words, "--json")
    found = json.loads(said)
    assert found["table"][0]["posts"] == 1638
    assert found["notes"] == ["both have the same posts"]


def test_the_command_refuses_in_one_line(product: Make, call: Call, tmp_path: Path) -> None:
    path = product()
    (tmp_path / "text.nc").write_text("no NetCDF")
    damaged = product("damaged.nc")
    with netCDF4.Dataset(damaged) as file:
        assert file["dhdt"].chunking() == [41, 41]
    with h5py.File(damaged) as file:
        start = file["dhdt"].id.get_chunk_info(0).byte_offset
    content = bytearray(damaged.read_bytes())
    content[start : start + 200] = bytes(200)
    damaged.write_bytes(content)
    for words in (
        (path, tmp_path / "absent.nc"),
        (path, tmp_path / "text.nc"),
        (tmp_path / "absent.nc", path),
        (path, path, "--variable", "nothing"),
        (path, path, "--basins", tmp_path / "absent.gpkg", "--column", "id"),
        (path, path, "--column", "id"),
        (path, path, "--sigma", "dhdt_sigma"),
        (path, path, "--mapping", path),
        (path, path, "-o", tmp_path / "report.txt"),
        (damaged, path),
        (path, damaged),
    ):
        code, said, complaint = call("compare", *words)
        assert code in (1, 2)
        assert said == ""
        assert complaint.count("\n") == 1
    published.cf_grid(tmp_path / "ref.nc")
    assert "--variable " in call("compare", path, tmp_path / "ref.nc")[2]
