"""Cryo-TEMPO EOLIS points: no real granule is available, so simulated granules and changed copies of them are read."""

from __future__ import annotations

import shutil

import h5py
import netCDF4
import numpy as np
import pandas as pd
import pyproj
import pytest

from cryotile.errors import GranuleError
from cryotile.readers import read_granule
from cryotile.simulate import World, simulate
from cryotile.testing.readers import ReaderContract

WORLD = World(bounds=(-20e3, -1410e3, 20e3, -1370e3))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Return a month over the corner of two tiles of 100 km."""
    root = tmp_path_factory.mktemp("eolis")
    return simulate(root, product="eolis", start="2019-03-16", years=16 / 365.25, world=WORLD)


@pytest.fixture
def copy(tiles, tmp_path):
    return shutil.copy(tiles[-1], tmp_path / "copy.nc")


def raw(path, *names):
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        return [file[name][:] for name in names]


class TestEolis(ReaderContract):
    @pytest.fixture
    def granule_path(self, tiles):
        return tiles[0]

    @pytest.fixture
    def sensing_window(self):
        return "2019-03-01", "2019-04-01"


def test_points_are_where_the_file_has_them_in_its_own_projection(tiles):
    for path in tiles:
        x, y, elevation, uncertainty = raw(path, "x", "y", "elevation", "uncertainty")
        points = read_granule(path).points
        to_xy = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True)
        back = to_xy.transform(points["longitude"], points["latitude"])
        np.testing.assert_allclose(back, (x, y), atol=1e-4)
        np.testing.assert_array_equal(points["elevation"], elevation.astype(float))
        np.testing.assert_array_equal(points["uncertainty"], uncertainty.astype(float))


def test_swath_and_poca_are_separate_modes(tiles):
    (is_swath,) = raw(tiles[0], "isSwath")
    modes = read_granule(tiles[0]).points["mode"]
    assert modes.tolist() == np.where(is_swath, "sarin_swath", "sarin_poca").tolist()
    assert modes.nunique() == 2


def test_times_count_from_1970_unless_the_units_state_another_epoch(tiles, copy):
    (seconds,) = raw(tiles[-1], "time")
    expected = pd.to_datetime(seconds, unit="s").as_unit("ms")
    assert read_granule(tiles[-1]).points["time"].tolist() == expected.tolist()
    with h5py.File(copy, "r+") as file:
        file["time"].attrs["units"] = "seconds since 2000-01-01 00:00:00"
    shifted = expected + (pd.Timestamp("2000-01-01") - pd.Timestamp(0))
    assert read_granule(copy).points["time"].tolist() == shifted.tolist()


def test_a_pass_over_two_tiles_is_one_pass(tiles):
    assert len(tiles) > 1
    parts = [read_granule(path).points.assign(tile=path.name) for path in tiles]
    points = pd.concat(parts).sort_values("time", ignore_index=True)
    flights = (points["time"].diff() > pd.Timedelta("600s")).cumsum()
    assert points.groupby(flights)["tile"].nunique().max() > 1
    # Only the direction may be unknown, if a tile has too few points of a pass.
    assert points["pass_id"].groupby(flights).nunique().max() == 1


def input_files(path, name):
    """Name the input file of each point by its start."""
    with h5py.File(path, "r+") as file:
        numbers, seconds = file["inputfileid"][:], file["time"][:]
        starts = {
            n: pd.Timestamp(seconds[numbers == n].min(), unit="s") for n in np.unique(numbers)
        }
        file.attrs["fileids"] = str({int(n): name.format(start) for n, start in starts.items()})


def test_the_start_of_its_input_file_tells_a_pass(copy):
    before = read_granule(copy).points
    input_files(copy, "CS_OFFL_SIR_SIN_1B_{0:%Y%m%dT%H%M%S}_20190501T000000_D001")
    granule = read_granule(copy)
    ids = granule.points["pass_id"]
    assert (
        before.groupby("pass_id")["time"].min().sort_values().astype("int64") // 600_000
    ).tolist() == [id_ // 2 % 2**31 for id_ in sorted(ids.unique())]
    assert not any("passes were inferred" in note for note in granule.notes)


@pytest.mark.parametrize("name", ["file {0:%Y}", "99999999T999999"])
def test_passes_are_inferred_if_names_of_input_files_tell_none(copy, name):
    input_files(copy, name)
    granule = read_granule(copy)
    assert any("passes were inferred" in note for note in granule.notes)
    flights = (granule.points["time"].sort_values().diff() > pd.Timedelta("600s")).sum() + 1
    assert granule.points["pass_id"].nunique() == flights


def test_directions_are_those_of_the_flight(tiles):
    granules = [read_granule(path) for path in tiles]
    points = pd.concat([granule.points for granule in granules])
    seen = set()
    for _, flown in points[points["ascending"].notna()].groupby("pass_id"):
        third = len(flown) // 3
        latitude = flown.sort_values("time")["latitude"]
        north = latitude.iloc[-third:].mean() > latitude.iloc[:third].mean()
        assert (flown["ascending"] == north).all()
        seen.add(north)
    assert seen == {True, False}
    assert all(any("inferred" in note for note in granule.notes) for granule in granules)


def test_the_id_of_a_tile_and_month_has_no_version(tiles):
    ids = {read_granule(path).id for path in tiles}
    assert "cryotempo_eolis_point:-100000_-1400000:20190301T000000:0" in ids
    assert len(ids) == len(tiles)


def test_degrees_are_accepted_in_place_of_x_and_y(copy):
    expected = read_granule(copy).points
    with h5py.File(copy, "r+") as file:
        for name, new in (("x", "lon"), ("y", "lat")):
            del file[name]
            file[new] = expected[{"lon": "longitude", "lat": "latitude"}[new]].to_numpy()
        del file.attrs["geospatial_projection"]
    granule = read_granule(copy)
    pd.testing.assert_frame_equal(granule.points, expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.attrs.pop("geospatial_projection"), "geospatial_projection"),
        (lambda file: file.attrs.modify("geospatial_projection", "+proj=none"), "+proj=none"),
        (lambda file: file.pop("y"), "lacks the variable y "),
    ],
)
def test_an_invalid_tile_is_refused_in_one_line(copy, change, said):
    with h5py.File(copy, "r+") as file:
        change(file)
    with pytest.raises(GranuleError) as error:
        read_granule(copy)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
