"""Tables: the reader contract on each format, under cryotile's own names and by a column mapping; their errors."""

from __future__ import annotations

import gzip
import json
import re

import h5py
import numpy as np
import pandas as pd
import pyproj
import pytest

from cryotile.cli import describe
from cryotile.errors import GranuleError, InvalidValue
from cryotile.points import SURFACE_TYPES, join_passes, pass_id
from cryotile.readers import ColumnMapping, read_granule
from cryotile.simulate import World, simulate
from cryotile.testing.readers import ReaderContract
from tests.support import PROJECT
from tests.support.command_line import run
from tests.support.errors import one_line
from tests.support.tables import save_table

FORMATS = ("csv", "parquet", "hdf5", "netcdf")
WORLD = World(bounds=(-20e3, -1370e3, 20e3, -1330e3))
WINDOW = "2019-03-20T03:36:19.830", "2019-03-27T14:05:53.696"

MAPPING = """
product = "my_survey"
version = 2
missing = [-9999]

[columns]
longitude = "lon"
latitude = "lat"
time = {name = "t", unit = "days since 2010-01-01"}
elevation = {name = "h", unit = "cm"}
uncertainty = {name = "sigma", unit = "mm"}
mode = {name = "how", values = {1 = "lrm", 3 = "sarin_poca"}}

[constants]
platform = "envisat"

[extra]
power = {name = "backscatter", unit = "dB"}
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Write one month of the same points in each format."""
    root = tmp_path_factory.mktemp("tables")
    days = {"start": "2019-03-01", "years": 30 / 365.25, "seed": 3, "world": WORLD}
    return {name: simulate(root / name, product=name, **days)[0] for name in FORMATS}


@pytest.fixture(scope="module")
def points(simulated):
    return read_granule(simulated["parquet"], surface_types=SURFACE_TYPES, columns=("power",))


@pytest.fixture(scope="module")
def foreign(points):
    """Write the same points under other names, in other units."""
    frame = points.points
    return pd.DataFrame(
        {
            "lon": frame["longitude"],
            "lat": frame["latitude"],
            "t": (frame["time"] - pd.Timestamp("2010-01-01")) / pd.Timedelta(days=1),
            "h": frame["elevation"] * 100,
            "sigma": frame["uncertainty"] * 1000,
            "how": np.where(np.arange(len(frame)) % 2, 1, 3),
            "backscatter": frame["power"],
            "nobody_asks": "x",
        }
    )


class TestOwnNames(ReaderContract):
    @pytest.fixture(params=FORMATS)
    def granule_path(self, request, simulated):
        return simulated[request.param]

    @pytest.fixture
    def sensing_window(self):
        return WINDOW

    def test_all_formats_have_the_same_points(self, granule, points):
        expected = points.points.drop(columns="power")
        pd.testing.assert_frame_equal(granule.points, expected, rtol=0, atol=1e-9)


class TestMapped(ReaderContract):
    @pytest.fixture(params=[*FORMATS, "netcdf3"])
    def granule_path(self, request, foreign, tmp_path):
        return save_table(foreign, tmp_path / "table.bin", request.param)

    @pytest.fixture
    def mapping(self, tmp_path):
        path = tmp_path / "mapping.toml"
        path.write_text(MAPPING)
        return ColumnMapping.load(path)

    @pytest.fixture
    def sensing_window(self):
        return WINDOW

    def test_units_and_classes_are_translated(self, read, points):
        granule = read(columns=("power",))
        expected = points.points
        assert (granule.product, granule.version) == ("my_survey", 2)
        assert set(granule.points["platform"]) == {"envisat"}
        assert granule.points["mode"].tolist()[:3] == ["sarin_poca", "lrm", "sarin_poca"]
        for name in ("longitude", "latitude", "elevation", "uncertainty", "power"):
            np.testing.assert_allclose(granule.points[name], expected[name], rtol=1e-12)
        late = granule.points["time"] - expected["time"]
        assert late.abs().max() <= pd.Timedelta("1ms")

    def test_assumptions_are_noted(self, read):
        assert any("inferred" in note for note in read().notes)
        assert any("grounded_ice" in note for note in read().notes)

    def test_numbers_for_missing_values_are_missing(self, foreign, mapping, tmp_path):
        gaps = foreign.copy()
        gaps.loc[:4, "h"] = -9999
        gaps.loc[5:6, "sigma"] = np.nan
        gaps.loc[7, "how"] = 2
        granule = read_granule(save_table(gaps, tmp_path / "gaps.csv", "csv"), mapping=mapping)
        assert granule.dropped == {"no_elevation": 5, "no_mode": 1}
        assert granule.points["uncertainty"].isna().sum() == 2


LASER = {"platform": "icesat", "mode": "laser"}
PLACE = {"longitude": "lon", "latitude": "lat", "elevation": "h"}


def mapped(**changes):
    table = {"columns": PLACE | {"time": "t"}, "constants": LASER}
    return ColumnMapping.parse(table | changes)


def text(tmp_path, *lines):
    path = tmp_path / "table.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_projected_coordinates_are_reprojected(tmp_path):
    columns = {"x": "e", "y": {"name": "n", "unit": "km"}, "time": "t", "elevation": "h"}
    mapping = mapped(columns=columns, crs="EPSG:3031")
    path = text(tmp_path, "e,n,t,h", "-1500000,400,2005-01-01T00:00:00Z,1000")
    point = read_granule(path, mapping=mapping).points.iloc[0]
    to_xy = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
    place = to_xy.transform(point["longitude"], point["latitude"])
    np.testing.assert_allclose(place, (-1_500_000, 400_000), atol=1e-6)


@pytest.mark.parametrize(
    ("time", "written", "instant"),
    [
        ("t", "2005-03-01T12:00:00.125Z", "2005-03-01T12:00:00.125"),
        ("t", "2005-03-01 13:00:00+01:00", "2005-03-01T12:00:00"),
        ({"name": "t", "unit": "days since 2000-01-01"}, "0.5", "2000-01-01T12:00:00"),
        ({"name": "t", "unit": "hours since 2000-01-01 06:00"}, "6", "2000-01-01T12:00:00"),
        ({"name": "t", "unit": "ms since 1970-01-01"}, "1500", "1970-01-01T00:00:01.500"),
        ({"name": "t", "unit": "decimal year"}, "2005.5", "2005-07-02T12:00:00"),
        # The IERS table: GPS runs ahead of UTC by 18 s from 2017 on, TAI by 37 s.
        (
            {"name": "t", "unit": "seconds since 1980-01-06", "clock": "gps"},
            "1230768018",
            "2019-01-06T00:00:00",
        ),
        (
            {"name": "t", "unit": "seconds since 2000-01-01", "clock": "tai"},
            "599616037",
            "2019-01-01T00:00:00",
        ),
    ],
)
def test_times_are_read_in_the_unit_of_the_mapping(tmp_path, time, written, instant):
    mapping = mapped(columns=PLACE | {"time": time})
    path = text(tmp_path, "lon,lat,h,t", f"-45,70,1000,{written}")
    assert read_granule(path, mapping=mapping).points["time"].iloc[0] == pd.Timestamp(instant)


def test_text_may_have_other_layouts(tmp_path):
    layout = {"delimiter": "whitespace", "comment": "#", "names": ["t", "lat", "lon", "h", "id"]}
    path = text(
        tmp_path, "# a survey", "2005-01-01  70.5  -45   1000 7", "2005-01-01 70.6 -45 1001 8"
    )
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for each in (path, packed):
        granule = read_granule(each, mapping=mapped(text=layout))
        assert granule.points["latitude"].tolist() == [70.5, 70.6]


def test_the_pass_follows_from_orbit_and_direction(tmp_path):
    columns = PLACE | {
        "time": "t",
        "orbit": "o",
        "ascending": {"name": "a", "values": {"N": "true", "S": "false"}},
    }
    path = text(
        tmp_path,
        "lon,lat,h,t,o,a",
        "-45,70,1000,2005-01-01,12,N",
        "-45,71,1000,2005-01-02,13,S",
        "-45,72,1000,2005-01-03,13,?",
        "-45,73,1000,2005-01-04,,S",
    )
    granule = read_granule(path, mapping=mapped(columns=columns))
    assert granule.points["pass_id"].tolist() == [
        pass_id("icesat", 12, ascending=True),
        pass_id("icesat", 13, ascending=False),
        pass_id("icesat", 13, ascending=False),
    ]
    assert granule.points["ascending"].isna().tolist() == [False, False, True]
    assert granule.dropped == {"no_orbit": 1}


def test_one_orbit_that_ascends_and_descends_is_two_passes(tmp_path):
    up = [f"-45,{70 + i / 10},1000,2005-01-01T00:00:{i:02d},7" for i in range(20)]
    down = [f"-60,{72 - i / 10},1000,2005-01-01T00:15:{i:02d},7" for i in range(20)]
    path = text(tmp_path, "lon,lat,h,t,o", *up, *down)
    columns = PLACE | {"time": "t", "orbit": "o"}
    points = read_granule(path, mapping=mapped(columns=columns)).points
    # The gap divides them; a direction that another part of the table might not show is no part of the id.
    assert set(points["pass_id"]) == {pass_id("icesat", 7, ascending=False)}
    passes = join_passes(points)
    assert len(set(passes[:20])) == len(set(passes[20:])) == 1
    assert len(set(passes)) == 2


def test_the_pass_does_not_depend_on_the_part_of_a_table(tmp_path):
    rows = [f"-45,{70 + i / 10},1000,2005-01-01T00:00:{i:02d},7" for i in range(20)]
    columns = PLACE | {"time": "t", "orbit": "o"}
    ids = set()
    for name, part in (("all", rows), ("most", rows[:18]), ("two", rows[18:])):
        (tmp_path / name).mkdir()
        path = text(tmp_path / name, "lon,lat,h,t,o", *part)
        ids |= set(read_granule(path, mapping=mapped(columns=columns)).points["pass_id"])
    assert len(ids) == 1


def test_a_gap_of_more_than_600_seconds_divides_two_passes(tmp_path):
    rows = [f"-45,70,1000,2005-01-01T{clock}" for clock in ("00:00", "00:10", "00:20:01", "00:25")]
    passes = read_granule(text(tmp_path, "lon,lat,h,t", *rows), mapping=mapped()).points
    assert passes["pass_id"].nunique() == 2
    assert passes["pass_id"].iloc[0] == passes["pass_id"].iloc[1]
    assert passes["ascending"].isna().all(), "one place tells no direction"


def test_json_and_toml_give_the_same_mapping(tmp_path):
    table = {"columns": PLACE | {"time": "t"}, "constants": LASER}
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps(table))
    assert ColumnMapping.load(path) == ColumnMapping.parse(table)


def test_the_mapping_in_the_documentation_is_valid(tmp_path):
    page = PROJECT / "docs" / "formats.md"
    (example,) = re.findall(r"^```toml\n# glas.toml\n(.*?)^```", page.read_text(), re.S | re.M)
    path = tmp_path / "glas.toml"
    path.write_text(example)
    table = text(
        tmp_path,
        "# of revolution 7",
        "-45 70 1.1e9 250000 0.1 7 A 13",
        "-45 70 1.1e9 -9999 0.1 7 A 13",
    )
    granule = read_granule(table, mapping=ColumnMapping.load(path), columns=("gain",))
    point = granule.points.iloc[0]
    assert granule.dropped == {"no_elevation": 1}
    assert (point["elevation"], point["gain"], bool(point["ascending"])) == (2500.0, 13.0, True)
    assert point["pass_id"] == pass_id("icesat", 7, ascending=True)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["lon,lat,h", "1,2,3"], "no column 't' (it has lon, lat, h)"),
        (["lon,lat,h,t", "1,70,high,2005-01-01"], "column 'h' has 'high' in row 1, which is no"),
        (["lon,lat,h,t", "1,70,3,2005-01-01", "1,70,3,soon"], "column 't' has 'soon' in row 2"),
        (["lon,lat,h,t", "1,70,3,5"], "column 't' holds times as numbers"),
        (["lon,lat,h,t", ",,3,2005-01-01"], "no row with a time and a position"),
        (["lon,lat,h,t", "1,2,3,4,5,6", "1,2"], "is not a table in text"),
        (["lon,lat,h,t"], "no row with a time and a position"),
    ],
)
def test_an_invalid_table_is_refused_in_one_line(tmp_path, rows, said):
    path = text(tmp_path, *rows)
    with pytest.raises(GranuleError) as error:
        read_granule(path, mapping=mapped())
    line = one_line(error)
    assert said in line
    assert str(path) in line


def test_columns_of_different_lengths_are_refused(tmp_path):
    path = tmp_path / "table.h5"
    with h5py.File(path, "w") as file:
        for name, length in (("lon", 3), ("lat", 3), ("h", 2), ("t", 3)):
            file[name] = np.zeros(length)
    with pytest.raises(GranuleError) as error:
        read_granule(path, mapping=mapped())
    assert "h: 2" in one_line(error)


@pytest.mark.parametrize("form", ["parquet", "hdf5", "netcdf3"])
def test_a_truncated_table_is_reported_as_damaged(foreign, tmp_path, form):
    path = save_table(foreign, tmp_path / "table", form)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(GranuleError) as error:
        read_granule(path, mapping=mapped())
    assert str(path) in one_line(error)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"columns": PLACE, "constants": LASER}, "time is missing"),
        ({"columns": PLACE | {"time": "t"}}, "platform is missing"),
        ({"columns": {"time": "t", "elevation": "h"}, "constants": LASER}, "x and y"),
        ({"columns": PLACE | {"time": "t", "hight": "h"}}, "column 'hight' does not exist"),
        ({"colums": {}}, "entry 'colums' does not exist; choose from columns"),
        ({"columns": PLACE | {"time": "t"}, "constants": {"platform": "x"}}, "mode is missing"),
        ({"columns": PLACE | {"time": "t"}, "constants": {"platform": "SARAL"}}, "lower-case word"),
        ({"columns": PLACE | {"time": "t"}, "constants": {"platform": "ers-1"}}, "write 'ers1'"),
        ({"columns": PLACE | {"time": {"name": "t", "unit": "fortnights"}}}, "'fortnights'"),
        ({"columns": PLACE | {"elevation": {"name": "h", "unit": "ft"}}}, "choose from m, cm"),
        ({"columns": PLACE | {"time": {"name": "t", "clock": "moon"}}}, "choose from utc"),
        ({"columns": PLACE | {"mode": {"name": "m", "values": {"1": "radar"}}}}, "'radar'"),
        ({"columns": {"x": "x", "y": "y", "time": "t", "elevation": "h"}, "constants": LASER}, "crs"),
        ({"columns": PLACE | {"time": "t"}, "constants": LASER, "missing": ["no"]}, "missing is"),
        ({"columns": PLACE | {"time": "t"}, "constants": LASER, "extra": {"x": "a"}}, "'x'"),
        ({"columns": PLACE | {"time": "t"}, "constants": LASER, "product": "a b"}, "'a b'"),
        ({"columns": PLACE | {"time": "t"}, "constants": LASER, "text": {"delimiter": "::"}}, "'::'"),
    ],
)  # fmt: skip
def test_an_invalid_mapping_is_refused(tmp_path, table, said):
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps(table))
    with pytest.raises(InvalidValue) as error:
        ColumnMapping.load(path)
    line = one_line(error)
    assert said in line
    assert str(path) in line
    assert ";" in line, "the remedy"


def test_a_mapping_that_cannot_be_parsed_is_named(tmp_path):
    path = tmp_path / "mapping.toml"
    path.write_text("[columns\n")
    with pytest.raises(InvalidValue, match="neither TOML nor JSON"):
        ColumnMapping.load(path)
    with pytest.raises(InvalidValue, match="cannot be opened"):
        ColumnMapping.load(tmp_path / "none.toml")


def test_the_command_line_ingests_a_table_by_its_mapping(foreign, tmp_path):
    table, db = save_table(foreign, tmp_path / "survey.csv", "csv"), tmp_path / "ice.pdb"
    (tmp_path / "mapping.toml").write_text(MAPPING)
    words = ["ingest", db, table, "--crs", "EPSG:3413", "--columns", "power"]
    refused = run(*words)
    assert refused.returncode == 1
    assert "--mapping" in refused.stderr
    assert not db.exists()
    done = run(*words, "--mapping", tmp_path / "mapping.toml")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"1 granule added.* {len(foreign)} of {len(foreign)} points", done.stdout)
    again = run("ingest", db, table, "--mapping", tmp_path / "mapping.toml")
    assert "0 granules added, 1 there already" in again.stdout
    told = run("info", table, "--mapping", tmp_path / "mapping.toml")
    assert "my_survey" in told.stdout


def test_info_on_a_table_counts_platforms_and_lists_some_passes(call, tmp_path, monkeypatch):
    monkeypatch.setattr(describe, "ROWS_AT_ONCE", 7)
    count = 60
    path = tmp_path / "years.csv"
    pd.DataFrame(
        {
            "longitude": -40.0,
            "latitude": 75.0,
            "time": pd.Timestamp("2015-01-01") + pd.to_timedelta(np.arange(count), unit="D"),
            "elevation": 2000.0,
            "platform": np.where(np.arange(count) % 3, "cryosat2", "icesat2"),
            "mode": np.where(np.arange(count) % 3, "lrm", "laser"),
        }
    ).to_csv(path, index=False)
    code, said, _ = call("info", path)
    assert code == 0
    assert "\npoints       60 read, 60 kept\n" in said
    assert said.count("inferred") == 1
    assert re.search(r"^time +2015-01-01 00:00:00 to 2015-03-01 00:00:00 UTC$", said, re.MULTILINE)
    assert re.search(r"^  cryosat2 +lrm +40$", said, re.MULTILINE)
    assert re.search(r"^  icesat2 +laser +20$", said, re.MULTILINE)
    assert re.search(r"^passes +(\d+, ){19}\d+ and 40 more$", said, re.MULTILINE)


def with_platforms(path, words, modes="lrm", **others):
    """Write a table whose rows have those platforms in turn."""
    count = 60
    pd.DataFrame(
        {
            "longitude": -40.0 + np.arange(count) * 1e-4,
            "latitude": 75.0 + np.arange(count) * 1e-3,
            "time": pd.Timestamp("2015-01-01") + pd.to_timedelta(np.arange(count), unit="s"),
            "elevation": 2000.0,
            "platform": np.resize(words, count),
            "mode": np.resize(modes, count),
            **others,
        }
    ).to_csv(path, index=False)
    return path


def test_a_platform_is_any_lower_case_word(tmp_path):
    path = with_platforms(
        tmp_path / "t.csv", ["saral", "geosat", "jason-like", "cryosat2"], orbit=7
    )
    found = read_granule(path)
    assert found.points["platform"].value_counts()[lambda n: n > 0].to_dict() == dict.fromkeys(
        ["saral", "geosat", "jason-like", "cryosat2"], 15
    )
    assert found.points.groupby("platform", observed=True)["pass_id"].nunique().eq(1).all()
    assert found.points["pass_id"].nunique() == 4


def test_words_that_are_none_are_dropped_and_counted(tmp_path):
    path = with_platforms(
        tmp_path / "t.csv", ["saral", "SARAL", "CryoSat-2", "cryosat-2", None, "x"]
    )
    found = read_granule(path)
    assert found.dropped == {"no_platform": 40}
    assert set(found.points["platform"]) == {"saral", "x"}


def test_a_mapping_translates_platforms_and_says_what_they_are(tmp_path):
    path = with_platforms(tmp_path / "t.csv", ["SARAL", "ATM"], ["Ka", "L"])
    columns = {name: name for name in ("longitude", "latitude", "time", "elevation")}
    columns["platform"] = {"name": "platform", "values": {"SARAL": "saral", "ATM": "airborne"}}
    columns["mode"] = {"name": "mode", "values": {"Ka": "lrm", "L": "laser"}}
    found = read_granule(path, mapping=ColumnMapping.parse({"columns": columns})).points
    assert found.groupby("platform", observed=True)["mode"].unique().map(list).to_dict() == {
        "airborne": ["laser"],
        "saral": ["lrm"],
    }


def test_a_known_laser_needs_no_mode(tmp_path):
    path = with_platforms(tmp_path / "t.csv", ["x"])
    columns = {name: name for name in ("longitude", "latitude", "time", "elevation")}
    mapping = ColumnMapping.parse({"columns": columns, "constants": {"platform": "icesat"}})
    assert set(read_granule(path, mapping=mapping).points["mode"]) == {"laser"}


@pytest.mark.parametrize(
    ("words", "modes", "said"),
    [
        (["icesat2", "saral"], ["laser", "lrm", "sar", "lrm"], "row 3 has mode 'sar'.* is a laser"),
        (["saral", "ers1"], ["lrm", "laser"], "row 2 has mode 'laser'.*'ers1' is a radar"),
    ],
)
def test_a_mode_that_a_known_platform_cannot_have_is_refused(tmp_path, words, modes, said):
    path = with_platforms(tmp_path / "t.csv", words, modes)
    with pytest.raises(GranuleError, match=said):
        read_granule(path)
