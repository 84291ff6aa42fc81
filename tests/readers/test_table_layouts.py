"""Layouts in which tables hold place, time and pass: directories, structures, sums, dates and times of day."""

from __future__ import annotations

import datetime
import struct

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cryotile.errors import GranuleError, InvalidValue
from cryotile.points import pass_id
from cryotile.readers import ColumnMapping, granules_under, read_granule
from cryotile.readers.icesat2 import orbit_number

COUNT = 40
FIRST = pd.Timestamp("2019-05-04T23:59:30")


def rows(**columns):
    number = np.arange(COUNT)
    return pd.DataFrame(
        {
            "lon": -45 + number * 1e-4,
            "lat": 72 + number * 1e-3,
            "t": FIRST + pd.to_timedelta(number * 1500, unit="ms"),
            "h": 2000.0 + number,
        }
    ).assign(**columns)


def mapped(*, without=(), **columns):
    """Return a mapping of the columns of :func:`rows`."""
    usual = {"longitude": "lon", "latitude": "lat", "time": "t", "elevation": "h"}
    found = {name: given for name, given in usual.items() if name not in without}
    return ColumnMapping.parse(
        {"columns": found | columns, "constants": {"platform": "icesat2"}, "missing": [-9999]}
    )


def saved(frame, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


# --- directories ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_names_of_directories_are_columns(tmp_path, suffix):
    folder = tmp_path / "mission=saral" / "mode=lrm" / "orbit=77" / "night=true"
    path = saved(rows(), folder / f"part-0.{suffix}")
    columns = {"longitude": "lon", "latitude": "lat", "time": "t", "elevation": "h"}
    columns |= {"platform": "mission", "mode": "mode", "orbit": "orbit", "ascending": "night"}
    points = read_granule(path, mapping=ColumnMapping.parse({"columns": columns})).points
    assert len(points) == COUNT
    assert set(points["platform"]) == {"saral"}
    assert set(points["mode"]) == {"lrm"}
    assert set(points["pass_id"]) == {pass_id("saral", 77, ascending=True)}


def test_a_dataset_as_pyarrow_writes_it_is_read_file_by_file(tmp_path):
    frame = rows(mission=np.resize(["saral", "geosat"], COUNT), cycle=np.resize([1, 2], COUNT))
    pq.write_to_dataset(
        pa.Table.from_pandas(frame, preserve_index=False),
        tmp_path,
        partition_cols=["mission", "cycle"],
    )
    (tmp_path / "_SUCCESS").touch()
    pq.write_metadata(pa.schema([("lon", pa.float64())]), tmp_path / "_common_metadata")
    files, strays = granules_under(tmp_path)
    assert [path.name for path in strays] == ["_SUCCESS", "_common_metadata"]
    columns = {"longitude": "lon", "latitude": "lat", "time": "t", "elevation": "h"}
    columns |= {"platform": "mission"}
    mapping = ColumnMapping.parse({"columns": columns, "constants": {"mode": "lrm"}})
    granules = [read_granule(path, mapping=mapping) for path in files]
    points = pd.concat([granule.points for granule in granules])
    assert points["platform"].astype(str).value_counts().to_dict() == {"saral": 20, "geosat": 20}
    assert len({granule.id for granule in granules}) == 2


def test_directories_that_hold_what_a_table_needs_need_no_mapping(tmp_path):
    frame = rows().set_axis(["longitude", "latitude", "time", "elevation"], axis=1)
    path = saved(frame, tmp_path / "platform=cryosat2" / "mode=sar" / "t.parquet")
    assert set(read_granule(path).points["mode"]) == {"sar"}


def test_a_column_of_the_file_goes_before_a_directory_of_its_name(tmp_path):
    path = saved(rows(orbit=5), tmp_path / "orbit=6" / "t.parquet")
    points = read_granule(path, mapping=mapped(orbit="orbit")).points
    assert set(points["pass_id"]) == {pass_id("icesat2", 5, ascending=False)}


def test_a_directory_without_a_value_is_a_missing_value(tmp_path):
    path = saved(rows(), tmp_path / "orbit=__HIVE_DEFAULT_PARTITION__" / "t.parquet")
    granule = read_granule(path, mapping=mapped(orbit="orbit"))
    assert granule.dropped == {"no_orbit": COUNT}


def test_values_of_directories_are_decoded(tmp_path):
    frame = rows(sod=FIRST.hour * 3600.0 + 59 * 60 + 30 + np.arange(COUNT) * 1.5)
    path = saved(frame, tmp_path / "day=2019%2D05%2D04" / "t.csv")
    points = read_granule(path, mapping=mapped(time="day + sod")).points
    assert points["time"].tolist() == rows()["t"].tolist()


# --- dates and times of day -------------------------------------------------------------------------------------

DAY = rows()["t"].dt.normalize()
SINCE_MIDNIGHT = rows()["t"] - DAY


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("date", "time_of_day", "unit"),
    [
        (DAY.dt.strftime("%Y-%m-%d"), rows()["t"].dt.strftime("%H:%M:%S.%f"), None),
        (DAY.dt.strftime("%Y%m%d").astype(int), SINCE_MIDNIGHT.dt.total_seconds(), None),
        (DAY.dt.strftime("%Y%m%d").astype(int), SINCE_MIDNIGHT.dt.total_seconds(), "seconds"),
        (DAY.dt.strftime("%Y%m%d"), SINCE_MIDNIGHT.dt.total_seconds() / 3600, "hours"),
        (DAY, SINCE_MIDNIGHT.dt.total_seconds() * 1000, "ms"),
        (DAY.dt.strftime("%Y-%m-%dT00:00:00Z"), SINCE_MIDNIGHT.dt.total_seconds() / 86400, "days"),
    ],
    ids=["text", "numbers", "seconds", "hours", "milliseconds", "days"],
)
def test_a_date_and_a_time_of_day_are_a_time(tmp_path, suffix, date, time_of_day, unit):
    path = saved(rows(date=date, clock=time_of_day).drop(columns="t"), tmp_path / f"t.{suffix}")
    time = {"name": "date + clock"} | ({} if unit is None else {"unit": unit})
    points = read_granule(path, mapping=mapped(time=time)).points
    assert points["time"].tolist() == rows()["t"].tolist()


def test_objects_of_dates_times_and_durations_are_times(tmp_path):
    dates = [day.date() for day in DAY]
    for clock in ([t.time() for t in rows()["t"]], SINCE_MIDNIGHT):
        path = saved(rows(date=dates, clock=clock), tmp_path / "t.parquet")
        points = read_granule(path, mapping=mapped(time="date + clock")).points
        assert points["time"].tolist() == rows()["t"].tolist()


@pytest.mark.parametrize(
    ("clock", "time"),
    [
        ("23:59:60", "2019-05-05"),
        ("23:59:60.25", "2019-05-05T00:00:00.25"),
        ("24:00:00", "2019-05-05"),
        ("7:05", "2019-05-04T07:05"),
        ("07:05:09,5", "2019-05-04T07:05:09.5"),
        ("", None),
        ("12:60:00", "refused"),
        ("25:00:00", "refused"),
        ("-01:00:00", "refused"),
        ("12:00:00 PM", "refused"),
        ("1:2:3:4", "refused"),
    ],
)
def test_times_of_day_have_the_notations_of_dates(tmp_path, clock, time):
    clocks = ["12:00:00"] * (COUNT - 1) + [clock]
    path = saved(rows(date="2019-05-04", clock=clocks), tmp_path / "t.parquet")
    if time == "refused":
        with pytest.raises(GranuleError, match=f"clock has '{clock}', which is not a time of day"):
            read_granule(path, mapping=mapped(time="date + clock"))
        return
    granule = read_granule(path, mapping=mapped(time="date + clock"))
    if time is None:
        assert granule.dropped == {"no_time": 1}
    else:
        assert granule.points["time"].iloc[-1] == pd.Timestamp(time)


def test_a_missing_date_or_time_of_day_is_a_missing_time(tmp_path):
    dates, clocks = [20190504.0] * COUNT, np.full(COUNT, 40.0)
    dates[3], dates[4], clocks[5], clocks[6] = -9999, np.nan, -9999, np.nan
    path = saved(rows(date=dates, clock=clocks), tmp_path / "t.csv")
    granule = read_granule(path, mapping=mapped(time="date + clock"))
    assert granule.dropped == {"no_time": 4}


@pytest.mark.parametrize("date", ["04/05/2019", "soon", "2019-13-01"])
def test_a_date_that_is_none_is_quoted(tmp_path, date):
    path = saved(rows(date=["2019-05-04"] * (COUNT - 1) + [date], clock=1.0), tmp_path / "t.csv")
    with pytest.raises(GranuleError, match=f"date has '{date}', which is not a date"):
        read_granule(path, mapping=mapped(time="date + clock"))


def test_a_clock_with_its_own_scale_counts_leap_seconds(tmp_path):
    path = saved(rows(date="2019-05-04", clock=37.0), tmp_path / "t.csv")
    time = {"name": "date + clock", "clock": "tai"}
    points = read_granule(path, mapping=mapped(time=time)).points
    assert set(points["time"]) == {pd.Timestamp("2019-05-04")}


def test_a_sum_of_numbers_with_an_epoch_is_a_number(tmp_path):
    path = saved(rows(day=7063.0, part=0.25), tmp_path / "t.csv")
    time = {"name": "day + part", "unit": "days since 2000-01-01"}
    points = read_granule(path, mapping=mapped(time=time)).points
    assert set(points["time"]) == {pd.Timestamp("2019-05-04T06:00")}


# --- cycles and tracks ------------------------------------------------------------------------------------------


def test_cycle_and_track_are_an_orbit(tmp_path):
    path = saved(rows(cycle=np.resize([3, 4], COUNT), rgt=277), tmp_path / "t.csv")
    points = read_granule(path, mapping=mapped(cycle="cycle", track="rgt")).points
    assert set(points["pass_id"]) == {
        pass_id("icesat2", orbit_number(cycle, 277), ascending=False) for cycle in (3, 4)
    }


@pytest.mark.parametrize(("cycle", "track"), [(0, 1), (0, 0), (999, 5000), (2**31 - 1, 2**31 - 1)])
def test_any_cycle_and_track_have_a_number(tmp_path, cycle, track):
    path = saved(rows(cycle=cycle, track=track), tmp_path / "t.csv")
    assert len(read_granule(path, mapping=mapped(cycle="cycle", track="track")).points) == COUNT


def test_a_row_without_cycle_or_track_has_no_pass(tmp_path):
    cycle, track = np.full((2, COUNT), 5.0)
    cycle[0], track[1] = np.nan, -9999
    path = saved(rows(cycle=cycle, track=track), tmp_path / "t.csv")
    granule = read_granule(path, mapping=mapped(cycle="cycle", track="track"))
    assert granule.dropped == {"no_orbit": 2}


@pytest.mark.parametrize(
    "columns", [{"cycle": "c"}, {"track": "t"}, {"orbit": "o", "cycle": "c", "track": "t"}]
)
def test_half_a_pass_is_refused(columns):
    with pytest.raises(InvalidValue, match="give the orbit, or the cycle and the track"):
        mapped(**columns)


def test_a_cycle_that_is_no_number_is_quoted(tmp_path):
    path = saved(rows(cycle=1.5, track=2), tmp_path / "t.csv")
    with pytest.raises(GranuleError, match=r"column 'cycle' has .*1\.5.* not an integer"):
        read_granule(path, mapping=mapped(cycle="cycle", track="track"))


# --- structures, geometries and sums ----------------------------------------------------------------------------


def test_structures_may_be_deep_may_lack_values_and_may_have_dots_in_their_names(tmp_path):
    place = [{"p": {"lon": x, "lat": y}} for x, y in zip(rows()["lon"], rows()["lat"], strict=True)]
    place[3], place[4], place[5] = None, {"p": None}, {"p": {"lon": -45.0, "lat": None}}
    frame = rows(place=place).rename(columns={"h": "a.h"}).drop(columns=["lon", "lat"])
    path = saved(frame, tmp_path / "t.parquet")
    granule = read_granule(
        path, mapping=mapped(longitude="place.p.lon", latitude="place.p.lat", elevation="a.h")
    )
    assert granule.dropped == {"no_position": 3}
    assert granule.points["latitude"].iloc[-1] == rows()["lat"].iloc[-1]


def test_a_sum_may_have_fields_of_structures_numbers_and_exponents(tmp_path):
    frame = rows(fit={"h": None, "geoid": None})
    frame["fit"] = [{"h": 2000.0 + k, "geoid": 30.0} for k in range(COUNT)]
    path = saved(frame, tmp_path / "t.parquet")
    mapping = mapped(elevation="fit.h - fit.geoid + 1e-1 - .5")
    heights = read_granule(path, mapping=mapping).points["elevation"]
    assert heights.to_numpy() == pytest.approx(1969.6 + np.arange(COUNT))


def test_a_structure_of_coordinates_is_a_geometry(tmp_path):
    """As GeoParquet 1.1 writes points in its native encoding."""
    places = [{"x": x, "y": y} for x, y in zip(rows()["lon"], rows()["lat"], strict=True)]
    path = saved(rows(geometry=places).drop(columns=["lon", "lat"]), tmp_path / "t.parquet")
    mapping = mapped(without=("longitude", "latitude"), geometry="geometry")
    points = read_granule(path, mapping=mapping).points
    assert points["longitude"].tolist() == rows()["lon"].tolist()


@pytest.mark.parametrize(
    "field", ["place", "place.x", "place.p.lon.x", "place.p", "h.x", "lon.y", "nowhere.x"]
)
def test_a_field_that_is_no_number_is_refused_in_one_line(tmp_path, field):
    path = saved(rows(place=[{"p": {"lon": 1.0}}] * COUNT), tmp_path / "t.parquet")
    with pytest.raises(GranuleError) as caught:
        read_granule(path, mapping=mapped(longitude=field))
    assert "\n" not in str(caught.value)
    assert field.split(".")[0] in str(caught.value)


POINT = struct.pack("<BIdd", 1, 1, -45.0, 72.0)


@pytest.mark.parametrize(
    "geometry",
    [
        POINT,
        struct.pack(">BIdd", 0, 1, -45.0, 72.0),
        struct.pack("<BIddd", 1, 1001, -45.0, 72.0, 9.0),
        struct.pack("<BIdddd", 1, 3001, -45.0, 72.0, 9.0, 1.0),
        struct.pack("<BIIddd", 1, 0xA0000001, 4326, -45.0, 72.0, 9.0),
        "POINT(-45 72)",
        "point z (-45.0 72.0 9)",
        "SRID=4326;POINT ( -4.5e1 72 )",
        {"x": -45.0, "y": 72.0, "z": 9.0},
    ],
)
def test_every_spelling_of_a_point_is_the_point(tmp_path, geometry):
    path = saved(rows(g=[geometry] * COUNT), tmp_path / "t.parquet")
    mapping = mapped(without=("longitude", "latitude"), geometry="g")
    points = read_granule(path, mapping=mapping).points
    assert set(points["longitude"]) == {-45.0}
    assert set(points["latitude"]) == {72.0}


@pytest.mark.parametrize(
    "geometry",
    [
        POINT[:12],
        b"\x07" + POINT[1:],
        struct.pack("<BII", 1, 2, 0) + bytes(20),
        struct.pack("<BIIBIdd", 1, 4, 1, 1, 1, -45.0, 72.0),
        b"",
        "LINESTRING (0 1, 2 3)",
        "POINT (-45)",
        "POINT (a b)",
        "-45 72",
    ],
)
def test_a_geometry_that_is_no_point_is_quoted_in_one_line(tmp_path, geometry):
    path = saved(rows(g=[geometry] * COUNT), tmp_path / "t.parquet")
    with pytest.raises(GranuleError, match=r"is not a point|cannot be read as a table") as caught:
        read_granule(path, mapping=mapped(without=("longitude", "latitude"), geometry="g"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("empty", [None, struct.pack("<BIdd", 1, 1, np.nan, np.nan)])
def test_an_empty_point_is_a_missing_place(tmp_path, empty):
    path = saved(rows(g=[POINT] * (COUNT - 1) + [empty]), tmp_path / "t.parquet")
    mapping = mapped(without=("longitude", "latitude"), geometry="g")
    assert read_granule(path, mapping=mapping).dropped == {"no_position": 1}


@pytest.mark.parametrize("formula", ["h +", "h + + h", "+ h", "h * 2 + h", "h-h", "h + (h - h)"])
def test_a_sum_that_is_none_is_refused_in_one_line(tmp_path, formula):
    path = saved(rows(), tmp_path / "t.csv")
    with pytest.raises(GranuleError, match="correct the"):
        read_granule(path, mapping=mapped(elevation=formula))


def test_whole_days_may_be_objects_of_dates(tmp_path):
    path = saved(rows(t=[datetime.date(2019, 5, 4)] * COUNT), tmp_path / "t.parquet")
    assert set(read_granule(path, mapping=mapped()).points["time"]) == {pd.Timestamp("2019-05-04")}
