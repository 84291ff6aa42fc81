"""Heights of posts and along lines, and volumes of basins, over time."""

from __future__ import annotations

import json
import pickle
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
import xarray as xr
from scipy import stats
from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK, NetCDF4DataStore

import cryotile as ct
from cryotile.errors import InvalidValue
from cryotile.fit.variables import Status
from cryotile.maps.product import CELL_AREA, cell_area, described
from cryotile.plotting.kinds import draw
from cryotile.plotting.series import PANELS
from cryotile.runs.series import as_table
from tests.support.command_line import Call
from tests.support.flown_run import REQUEST, WORLD, fly_over, plan_flown, work
from tests.support.maps import GRID, OVER_TIME, made_up, vector_file

PLACE, DEGREES = (-5_000.0, -1_340_000.0), (-45.213789, 77.675813)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a finished run with heights, and its product."""
    home = tmp_path_factory.mktemp("series")
    run = plan_flown(home, fly_over(), {**REQUEST, "heights": "1y"})
    work(run)
    ct.assemble(run, home / "dhdt.nc")
    return home


@pytest.fixture(scope="module")
def maps(home: Path) -> xr.Dataset:
    with ct.open(home / "dhdt.nc") as lazy:
        return lazy.load()


def made_up_maps() -> xr.Dataset:
    fitted = made_up(GRID, OVER_TIME)
    area = (CELL_AREA.dims, cell_area(GRID), dict(CELL_AREA.attrs))
    return described(fitted.assign(cell_area=area), grid=GRID, config=OVER_TIME)


def with_basins(maps: xr.Dataset, names: list[str], *, full: bool = True) -> xr.Dataset:
    """Return maps with heights of regions whose errors come from passes, some of which regions share."""
    random, bins = np.random.default_rng(5), maps.sizes["height_time"]
    deltas = random.normal(0, 3e7, (len(names), bins, 40))
    height = np.linspace(0, -2e9, bins) + random.normal(0, 1e8, (len(names), bins))
    square = ("height_time", "height_time_2")
    products = np.einsum("kig,kjg->kij", deltas, deltas)
    made = maps.assign(
        region_area=("region", np.full(len(names), 1e10)),
        region_fitted_area=("region", np.full(len(names), 8e9)),
        region_height=(("region", "height_time"), height),
        region_height_covariance=(("region", *square), products),
    ).assign_coords(region=names)
    if not full:
        return made
    between = deltas[:, :, None, :] - deltas[:, None, :, :]
    squares = (between**2).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        dof = squares**2 / (between**4).sum(axis=-1)
    whole = deltas.sum(axis=0)
    return made.assign(
        region_height_dof=(("region", *square), dof),
        region_height_area=(("region", "height_time"), np.full((len(names), bins), 6e9)),
        whole_height=("height_time", height.sum(axis=0)),
        whole_height_covariance=(square, whole @ whole.T),
        whole_height_dof=(square, dof[0]),
        deltas=(("region", "height_time", "pass"), deltas),
    )


# --- posts -------------------------------------------------------------------------------------------------------


def test_the_heights_of_a_post_follow_the_surface(maps: xr.Dataset) -> None:
    found = ct.series(maps, at=PLACE)
    middle = found["height_time"].to_numpy()
    since = (middle - np.datetime64(maps.attrs["reference_epoch"])) / np.timedelta64(1, "D")
    truth = float(WORLD.dhdt(np.array(PLACE[0]), np.array(PLACE[1]))) * since / 365.25
    error = found["height"].to_numpy()[0] - truth
    half = (found["height_upper"] - found["height"]).to_numpy()[0]
    assert np.isfinite(error).all()
    # Eight intervals of 95 %; they share the error of elevation.
    assert (np.abs(error) < half).sum() >= 6
    assert found["height_upper"].to_numpy() == pytest.approx(
        2 * found["height"].to_numpy() - found["height_lower"].to_numpy()
    )


def test_a_place_has_the_values_of_the_nearest_post_however_it_is_named(
    home: Path, maps: xr.Dataset
) -> None:
    post = maps.sel(x=PLACE[0], y=PLACE[1])
    near = (PLACE[0] + 400.0, PLACE[1] - 400.0)
    run = ct.Run.load(home / "run")
    for found in (
        ct.series(maps, at=near),
        ct.series(run, at=[near]),
        ct.series(home / "dhdt.nc", at=DEGREES, lonlat=True),
    ):
        assert found["height"].dims == ("post", "height_time")
        for name in ("height", "height_sigma", "height_pass_count"):
            # The product of the same run has single precision.
            np.testing.assert_allclose(found[name][0], post[name], rtol=1e-6)
        assert (found["x"].item(), found["y"].item()) == PLACE
        assert (found["longitude"].item(), found["latitude"].item()) == pytest.approx(DEGREES)
        assert found["height_pass_count"].dtype.kind == "i"


def test_points_of_files_keep_their_names_and_order(maps: xr.Dataset, tmp_path: Path) -> None:
    places = {"summit": (0.0, -1_340_000.0), "b": PLACE, "c": (5_000.0, -1_345_000.0)}
    expected = ct.series(maps, at=list(places.values()))
    rows = [f"{name}, {x}, {y}" for name, (x, y) in places.items()]
    metres = tmp_path / "metres.csv"
    metres.write_text("\n".join(["# stakes", "name, x, y", *rows]))
    to_degrees = pyproj.Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    shapes = [shapely.Point(to_degrees.transform(x, y)) for x, y in places.values()]
    degrees = tmp_path / "degrees.csv"
    pairs = [f"{name},{p.x:.7f},{p.y:.7f}" for name, p in zip(places, shapes, strict=True)]
    degrees.write_text("\n".join(["name,Lon,Lat", *pairs]))
    vector = vector_file(tmp_path / "points.gpkg", *shapes, crs="EPSG:4326", name=list(places))
    for path in (metres, degrees, vector):
        found = ct.series(maps, points=path, column="name")
        assert list(found["post"].to_numpy()) == list(places)
        np.testing.assert_array_equal(found["height"], expected["height"])
    assert list(ct.series(maps, points=metres)["post"].to_numpy()) == ["1", "2", "3"]


POINTS = {
    "x,y\n1,2\nq,3": "x of row 2 is q, not a number",
    "x,y\n1,2,3,4": "cannot be read as CSV",
    "east,north\n1,2": "have the columns east, north; give a CSV file with columns longitude",
    "name,x,y\na,0,-1340000\na,1,-1340000": "have the name 'a' 2 times in name; name each point once",
    "x,y\n": "contain no point",
    "lon,lat\n0,91": "latitude 91 are not in degrees",
    "lon,lat\n0,-77": "longitude 0, latitude -77 have no place in EPSG:3413",
    "lon,lat\n0,77": "is outside the map",
    "\x00\xff": "have the columns",
}


@pytest.mark.parametrize("text", POINTS)
def test_what_is_wrong_with_a_file_of_points_is_said(
    maps: xr.Dataset, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    column = "name" if "name" in text else None
    with pytest.raises(InvalidValue) as refused:
        ct.series(maps, points=path, column=column)
    assert POINTS[text] in str(refused.value), refused.value
    assert "\n" not in str(refused.value)


def test_places_outside_the_map_or_without_a_fit_are_named(maps: xr.Dataset) -> None:
    empty = np.argwhere(maps["status"].to_numpy() == Status.NO_POINTS)[0]
    lost = (float(maps["x"][empty[1]]), float(maps["y"][empty[0]]))
    found = ct.series(maps, at=[PLACE, (1e6, 0.0), lost])
    assert list(found["post"].to_numpy()) == ["1", "3"]
    assert [Status(int(state)) for state in found["status"]] == [Status.OK, Status.NO_POINTS]
    notes = found.attrs["notes"].split("\n")
    assert notes[0].startswith("point 2 is outside the map, e.g. x 1000000 m, y 0 m, and its posts")
    assert notes[1].startswith("point 3 is without a fit in the product (no_points)")
    assert f"cryotile explain RUN --at {lost[0]:.10g} {lost[1]:.10g}" in notes[1]
    for place, says in (((1e6, 0.0), "give a place among them"), (lost, "no_points")):
        with pytest.raises(InvalidValue, match=says):
            ct.series(maps, at=place)


# --- lines -------------------------------------------------------------------------------------------------------

LINE = (-10_000.0, -1_348_000.0, 8_000.0, -1_332_000.0)


def test_a_line_has_the_heights_of_the_posts_along_it(maps: xr.Dataset) -> None:
    found = ct.series(maps, line=LINE)
    assert found["height"].dims == ("distance", "height_time")
    share = np.linspace(0, 1, found.sizes["distance"])
    x, y = LINE[0] + share * (LINE[2] - LINE[0]), LINE[1] + share * (LINE[3] - LINE[1])
    at = maps.sel(x=xr.DataArray(x, dims="d"), y=xr.DataArray(y, dims="d"), method="nearest")
    np.testing.assert_array_equal(found["height"], at["height"].transpose("d", ...))
    to_degrees = pyproj.Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    ends = np.ravel([to_degrees.transform(*LINE[:2]), to_degrees.transform(*LINE[2:])])
    truth = pyproj.Geod(ellps="WGS84").inv(*ends)[2]
    assert float(found["distance"][-1]) == pytest.approx(truth, rel=1e-4)
    same = ct.series(maps, line=tuple(ends), lonlat=True)
    np.testing.assert_allclose(same["distance"], found["distance"], atol=0.01)


def test_a_flowline_of_a_file_may_have_corners_and_pieces(maps: xr.Dataset, tmp_path: Path) -> None:
    corner = (2_000.0, -1_346_000.0)
    vertices = [LINE[:2], corner, LINE[2:]]
    table = tmp_path / "line.csv"
    table.write_text("\n".join(["x,y", *(f"{x},{y}" for x, y in vertices)]))
    pieces = shapely.MultiLineString([vertices[:2], vertices[1:]])
    path = vector_file(tmp_path / "line.gpkg", pieces, crs="EPSG:3413")
    to_degrees = pyproj.Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    moved = shapely.LineString([to_degrees.transform(*vertex) for vertex in vertices])
    degrees = vector_file(tmp_path / "degrees.geojson", moved, crs="EPSG:4326")
    found = ct.series(maps, along=path)
    np.testing.assert_array_equal(ct.series(maps, along=table)["height"], found["height"])
    # A line that is straight in degrees is a curve here, by some hundred metres.
    length = float(found["distance"][-1])
    assert float(ct.series(maps, along=degrees)["distance"][-1]) == pytest.approx(length, rel=2e-3)
    apart = [shapely.LineString([(0.0, y), (5e3, y)]) for y in (-1_340e3, -1_345e3)]
    two = vector_file(tmp_path / "two.gpkg", *apart, crs="EPSG:3413")
    with pytest.raises(InvalidValue, match="holds 2 lines; give a vector file with one line"):
        ct.series(maps, along=two)


def test_the_part_of_a_line_outside_the_map_has_no_height(maps: xr.Dataset) -> None:
    found = ct.series(maps, line=(0.0, -1_340_000.0, 60_000.0, -1_340_000.0))
    outside = found["status"].to_numpy() == Status.NOT_COMPUTED
    assert 40 <= outside.sum() <= 48
    assert np.isnan(found["height"].to_numpy()[outside]).all()
    assert (
        f"{outside.sum()} of {outside.size} places of the line are outside the map" in found.notes
    )


# --- basins ------------------------------------------------------------------------------------------------------


def test_a_difference_of_volume_has_the_error_of_the_difference(maps: xr.Dataset) -> None:
    made = with_basins(maps, ["NE", "NW"])
    found = ct.series(made, basins="NW", relative_to="2013-06-01", density=900.0)
    deltas = made["deltas"].to_numpy()[1] / 1e9
    change = deltas - deltas[2]
    height = made["region_height"].to_numpy()[1] / 1e9
    np.testing.assert_allclose(found["volume"][0], height - height[2])
    np.testing.assert_allclose(
        found["volume_sigma"][0], np.sqrt((change**2).sum(axis=1)), atol=1e-9
    )
    dof = (change[0] ** 2).sum() ** 2 / (change[0] ** 4).sum()
    half = stats.t.ppf(0.975, dof) * np.sqrt((change[0] ** 2).sum())
    assert float(found["volume_upper"][0, 0] - found["volume"][0, 0]) == pytest.approx(half)
    np.testing.assert_allclose(found["mass"], 0.9 * found["volume"])
    np.testing.assert_allclose(found["mass_sigma"], 0.9 * found["volume_sigma"])
    np.testing.assert_allclose(found["seen"], 0.75)
    assert "relative to the bin from 2013-01-01" in found.attrs["notes"]
    assert "75 % of the fitted area has a height in a bin" in found.attrs["notes"]


def test_all_basins_and_their_union_are_the_default(maps: xr.Dataset) -> None:
    made = with_basins(maps, ["NE", "NW"])
    found = ct.series(made)
    assert list(found["region"].to_numpy()) == ["NE", "NW", "all"]
    total = found.sel(region="all")
    np.testing.assert_allclose(total["volume"], found["volume"][:2].sum("region"))
    whole = (made["deltas"].sum("region") / 1e9).to_numpy()
    own = np.sqrt(((whole - whole[0]) ** 2).sum(axis=1))
    np.testing.assert_allclose(total["volume_sigma"], own, atol=1e-9)


def test_a_basin_begins_with_its_first_bin_and_what_is_not_known_is_said(maps: xr.Dataset) -> None:
    made = with_basins(maps, ["NE", "NW", "none"], full=False)
    made["region_height"][0, :2] = np.nan
    made["region_height"][2] = np.nan
    found = ct.series(made)
    assert np.isnan(found["volume"].to_numpy()[0, :2]).all()
    assert np.isnan(found["volume_sigma"].to_numpy()[0, :2]).all()
    assert found["volume"].to_numpy()[0, 2] == found["volume_sigma"].to_numpy()[0, 2] == 0.0
    assert "seen" not in found
    for said in (
        "basin NE is relative to the bin from 2013-01-01",
        "basin NW is relative to the bin from 2011-01-01",
        "intervals are those of a normal distribution",
        "no series of all: ",
        "no bin has a height of basin none",
        "not known: the uplift of the bedrock is not removed",
    ):
        assert said in found.attrs["notes"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"basins": "NX"}, "basin 'NX' is not one of the product; choose one of NE, NW, all"),
        (
            {"relative_to": "1999-01-01"},
            "are from 2011-01-01 to 2019-01-01; give a date among them",
        ),
        (
            {"relative_to": "2011-05-01"},
            "without a height of basin NE; give another date, e.g. 2012",
        ),
        ({"relative_to": "spring"}, "not an instant"),
        ({"density": "grid.nc"}, "density grid.nc must be a number"),
        ({"density": 0.9}, "density 0.9 is not between"),
        ({"at": PLACE, "density": 917}, "density is of the volume of basins"),
        ({"at": PLACE, "basins": "NE"}, "at and basins exclude each other"),
        ({"at": PLACE, "column": "name"}, "column 'name' is one of points"),
        ({"at": (1.0, 2.0, 3.0)}, "must be x and y of one or more places"),
        ({"line": (1.0, 2.0, 3.0)}, "must be x, y of its start and of its end"),
        ({"lonlat": True}, "lonlat is of places and a line that are given as numbers"),
        ({"at": (200.0, 95.0), "lonlat": True}, "latitude 95 are not in degrees"),
        ({"points": "absent.csv"}, "points absent.csv do not exist"),
        ({"along": "absent.gpkg"}, "line absent.gpkg does not exist"),
    ],
)
def test_what_is_wrong_is_said(maps: xr.Dataset, options: dict[str, object], says: str) -> None:
    made = with_basins(maps, ["NE", "NW"])
    made["region_height"][0, 0] = np.nan
    with pytest.raises(InvalidValue) as refused:
        ct.series(made, **options)
    assert says in str(refused.value), refused.value
    assert "\n" not in str(refused.value)


def test_maps_without_heights_or_basins_name_the_plan_that_makes_them(
    home: Path, maps: xr.Dataset, call: Call, tmp_path: Path
) -> None:
    plain = maps.drop_dims("height_time")
    plain.attrs["history"] = plain.attrs["history"].replace(" --heights 1y", "")
    basins = vector_file(
        tmp_path / "basins.gpkg",
        shapely.Point(0, -1_340e3).buffer(9e3),
        crs="EPSG:3413",
        NAME=["a"],
    )
    for dataset, options in ((plain, {"at": PLACE}), (plain, {}), (maps, {})):
        with pytest.raises(InvalidValue) as refused:
            ct.series(dataset, **options)
        words = shlex.split(str(refused.value).partition("plan another with: cryotile ")[2])
        assert "--heights" in words
        names = {"RUN": tmp_path / f"run{len(words)}", "DB": home / "ice.pdb", "FILE": basins}
        code, _, complaint = call(*(names.get(word, word) for word in words))
        assert code == 0, complaint


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_the_same_numbers(
    home: Path, call: Call, tmp_path: Path
) -> None:
    product, at = home / "dhdt.nc", ("--at", *PLACE)
    code, said, notes = call("series", product, *at)
    assert code == 0
    rows = [line for line in said.splitlines() if re.match(r"\d{4}-\d\d-\d\d to ", line)]
    assert len(rows) == 8
    assert all(" ± " in row for row in rows)
    assert "note: not known: the uplift of the bedrock" in notes
    found = ct.series(product, at=PLACE)
    for path in (tmp_path / "a.csv", tmp_path / "a.nc", tmp_path / "a.png"):
        assert call("series", product, *at, "-o", path)[0] == 0
        assert "give --force" in call("series", product, *at, "-o", path)[2]
    table = pd.read_csv(tmp_path / "a.csv", parse_dates=["start", "end"])
    assert list(table.columns) == list(as_table(found).columns)
    assert list(table.columns[:9]) == [
        *("post", "x", "y", "longitude", "latitude", "start", "end", "height", "height_sigma")
    ]
    assert table["height"].to_numpy() == pytest.approx(found["height"].to_numpy()[0])
    assert set(table["status"]) == {"ok"}
    with xr.open_dataset(tmp_path / "a.nc") as stored:
        # By CF a label is no coordinate variable of its dimension.
        labelled = stored.rename_vars(post_name="post").set_xindex("post")
        xr.testing.assert_equal(labelled["height_lower"], found["height_lower"])
        assert stored.attrs["notes"] == found.attrs["notes"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    printed = json.loads(call("series", product, *at, "--json")[1])
    assert [row["height"] for row in printed["rows"]] == pytest.approx(table["height"].tolist())
    assert printed["rows"][0]["start"] == "2011-01-01"


def test_the_command_shows_basins_side_by_side_and_a_line_by_its_range(
    home: Path, call: Call, tmp_path: Path, maps: xr.Dataset
) -> None:
    made = with_basins(maps, [f"b{k}" for k in range(7)])
    made.drop_vars("deltas").to_netcdf(tmp_path / "basins.nc")
    code, said, _ = call("series", tmp_path / "basins.nc", "--density", "917")
    assert code == 0
    assert said.splitlines()[0] == "mass, Gt, ± half of the 95 % interval"
    assert said.splitlines()[1].split() == ["bin", "b0", "b1", "b2", "b3", "b4"]
    assert said.splitlines()[-1] == "and 3 more: -o series.csv has all"
    code, said, _ = call("series", tmp_path / "basins.nc", "--basin", "b6", "--basin", "all")
    assert said.splitlines()[1].split() == ["bin", "b6", "all"]
    code, said, _ = call("series", home / "run", "--line", *LINE)
    assert code == 0
    assert re.match(r"line of 24\.\d km, 26 places", said)
    code, said, complaint = call("series", home / "run", "--at", 1, 2, "-o", tmp_path / "x.txt")
    assert (code, said) == (2, "")
    assert "ends in none of .csv, .nc, .png" in complaint


# --- pictures ----------------------------------------------------------------------------------------------------


def test_a_curve_and_its_band_end_at_a_gap(maps: xr.Dataset) -> None:
    found = ct.series(with_basins(maps, ["NE", "NW"]), basins=["NE", "NW"])
    found["volume"][0, 3] = np.nan
    axes = draw(found)
    curves = [line for line in axes.get_lines() if len(line.get_xdata()) == 8]
    assert np.isnan(curves[0].get_ydata()).sum() == 1
    assert np.isnan(curves[1].get_ydata()).sum() == 0
    first, second = (
        band.get_paths() for band in axes.collections if band.get_paths()[0].vertices.shape[0] > 4
    )
    assert (len(first), len(second)) == (2, 1)
    assert axes.get_ylabel() == "volume change (km³)"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["NE", "NW"]


def test_many_curves_have_a_panel_each_and_a_line_has_distance_and_time(maps: xr.Dataset) -> None:
    made = with_basins(maps, [f"b{k}" for k in range(PANELS + 2)])
    panels = draw(ct.series(made))
    assert len(panels) == PANELS
    assert "3 others are not drawn" in panels[0].figure.get_suptitle()
    axes = ct.plot(ct.series(maps, line=LINE))
    mesh = axes.collections[0]
    assert mesh.get_array().shape == (8, 26)
    assert mesh.norm.vmin == -mesh.norm.vmax
    for options, says in (
        ({"kind": "map"}, "a series has no kind"),
        ({"variable": "dhdt"}, "has no dhdt"),
    ):
        with pytest.raises(InvalidValue, match=says):
            draw(ct.series(maps, line=LINE), **options)


def test_places_of_distant_chunks_are_read_in_their_order() -> None:
    maps = made_up_maps()
    random = np.random.default_rng(1)
    x, y = random.choice(GRID.x, 40), random.choice(GRID.y, 40)
    found = ct.series(maps, at=list(zip(x, y, strict=True)))
    expected = maps["height"].sel(x=xr.DataArray(x, dims="p"), y=xr.DataArray(y, dims="p"))
    np.testing.assert_array_equal(found["height"], expected.transpose("p", ...))


# --- files that are open ------------------------------------------------------------------------------------------


def test_no_thread_is_in_the_netcdf_library_while_a_product_is_opened(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library crashes, and xarray reads what a file says of itself without its lock.
    free: list[bool] = []
    reads = NetCDF4DataStore.get_attrs

    def another_thread_may_enter(store: NetCDF4DataStore) -> object:
        with ThreadPoolExecutor(1) as other:
            free.append(other.submit(NETCDF4_PYTHON_LOCK.acquire, False).result())
        if free[-1]:
            NETCDF4_PYTHON_LOCK.release()
        return reads(store)

    monkeypatch.setattr(NetCDF4DataStore, "get_attrs", another_thread_may_enter)
    with ct.open(home / "dhdt.nc") as maps:
        assert free == [False]
        assert not NETCDF4_PYTHON_LOCK.locked()
        again = pickle.loads(pickle.dumps(maps))
        assert float(again["dhdt"].mean()) == float(maps["dhdt"].mean())
