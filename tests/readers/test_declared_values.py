"""What a file says of its own values means the same in every container, and what the NetCDF library takes it for."""

from __future__ import annotations

import h5py
import netCDF4
import numpy as np
import pytest

from cryotile.errors import GranuleError
from cryotile.readers import ColumnMapping, read_granule

COUNT = 40
BAD = slice(None, None, 10)
CONTAINERS = ("NETCDF4", "NETCDF4_CLASSIC", "NETCDF3_CLASSIC", "NETCDF3_64BIT_DATA", "hdf5")

# Type of the heights as stored, other attributes, and the number that stands in every tenth place.
F8 = {"dtype": "f8", "good": 2500.0}
PACKED = {"dtype": "i4", "good": 250_000, "scale_factor": 0.01}
SHORT = {"dtype": "i2", "good": 5000, "scale_factor": 0.5}
MOVED = {"dtype": "i2", "good": 500, "add_offset": 2000.0}
DECLARATIONS = {
    "fill": F8 | {"_FillValue": 777.0, "bad": 777.0},
    "fill not a number": F8 | {"_FillValue": np.nan, "bad": np.nan},
    "fill as f4": {"dtype": "f4", "good": 2500.0, "_FillValue": np.float32(777.7), "bad": 777.7},
    "fill, packed": PACKED | {"_FillValue": np.int32(77_700), "bad": 77_700},
    "fill, offset": MOVED | {"_FillValue": np.int16(-1), "bad": -1},
    "fill and missing": F8 | {"_FillValue": 1e30, "missing_value": 777.0, "bad": 777.0},
    "missing": F8 | {"missing_value": 777.0, "bad": 777.0},
    "missing, packed": SHORT | {"missing_value": np.int16(77), "bad": 77},
    "missing, packed, as f8": SHORT | {"missing_value": 77.0, "bad": 77},
    "several missing": F8 | {"missing_value": np.array([1.0, 777.0]), "bad": 777.0},
    "missing as text": F8 | {"missing_value": "777", "bad": 777.0},
    "least": F8 | {"valid_min": 1000.0, "bad": 777.0},
    "most": F8 | {"valid_max": 3000.0, "bad": 7777.0},
    "range": F8 | {"valid_range": np.array([1000.0, 3000.0]), "bad": 777.0},
    "least, packed": PACKED | {"valid_min": np.int32(100_000), "bad": 77_700},
    "most, packed": SHORT | {"valid_max": np.int16(6000), "bad": 7777},
    "range, packed": PACKED | {"valid_range": np.array([100_000, 300_000], "i4"), "bad": 77_700},
    "range, packed, in metres": PACKED | {"valid_range": np.array([1000.0, 3000.0]), "bad": 77_700},
    "range, offset": MOVED | {"valid_range": np.array([0, 1000], "i2"), "bad": -100},
    "never written f8": F8 | {"bad": 9.969209968386869e36},
    "never written f4": {"dtype": "f4", "good": 2500.0, "bad": 9.969209968386869e36},
    "never written i2": SHORT | {"bad": -32767},
    "never written i4": PACKED | {"bad": -2147483647},
    "not a number": F8 | {"bad": np.nan},
}
_OURS = ("dtype", "good", "bad")
# The library does not compare numbers with text, nor packed numbers with a range in metres.
_BEYOND_THE_LIBRARY = ("missing as text", "range, packed, in metres", "several missing")


def mapping(**elevation):
    return ColumnMapping.parse(
        {
            "columns": {
                "longitude": "lon",
                "latitude": "lat",
                "time": "time",
                "elevation": {"name": "h", **elevation},
                "uncertainty": "s",
            },
            "constants": {"platform": "cryosat2", "mode": "lrm"},
        }
    )


def write(path, container, **columns):
    """Write variables, each given by its values and attributes."""
    if container == "hdf5":
        with h5py.File(path, "w") as file:
            for name, (values, attributes) in columns.items():
                file[name] = values
                file[name].attrs.update(attributes)
        return
    with netCDF4.Dataset(path, "w", format=container) as file:
        file.createDimension("row", COUNT)
        for name, (values, attributes) in columns.items():
            others = dict(attributes)
            fill = others.pop("_FillValue", None)
            variable = file.createVariable(name, values.dtype, ("row",), fill_value=fill)
            variable.set_auto_maskandscale(False)
            variable.setncatts(others)
            variable[:] = values


def table(path, container, declaration, column="h", **others):
    rows = np.arange(COUNT)
    values = np.full(COUNT, declaration["good"], declaration["dtype"])
    values[BAD] = declaration["bad"]
    said = {name: value for name, value in declaration.items() if name not in _OURS}
    columns = {
        "lon": (np.full(COUNT, -45.0), {}),
        "lat": (72 + rows * 1e-3, {}),
        "time": (6e8 + rows * 0.05, {"units": "seconds since 2000-01-01"}),
        "h": (np.full(COUNT, 2500.0), {}),
        "s": (np.full(COUNT, 0.3), {}),
    }
    columns[column] = (values, said)
    write(path, container, **columns | others)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", DECLARATIONS)
def test_a_height_that_the_file_declares_missing_is_dropped(tmp_path, name, container):
    path = tmp_path / "t"
    table(path, container, DECLARATIONS[name])
    granule = read_granule(path, mapping=mapping())
    assert granule.dropped == {"no_elevation": COUNT // 10}
    assert granule.points["elevation"].to_numpy() == pytest.approx(2500.0)
    if container != "hdf5" and name not in _BEYOND_THE_LIBRARY:
        with netCDF4.Dataset(path) as file:
            known = np.ma.masked_invalid(file["h"][:])
        assert known.mask.sum() == COUNT // 10
        assert known.compressed() == pytest.approx(2500.0)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", DECLARATIONS)
def test_an_uncertainty_that_the_file_declares_missing_is_missing(tmp_path, name, container):
    path = tmp_path / "t"
    table(path, container, DECLARATIONS[name], column="s")
    points = read_granule(path, mapping=mapping()).points
    assert points["uncertainty"].isna().to_numpy().nonzero()[0].tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("column", ["lon", "lat", "time"])
def test_a_place_or_time_that_the_file_declares_missing_is_dropped(tmp_path, container, column):
    good = {"lon": -45.0, "lat": 72.5, "time": 6e8}[column]
    declaration = {"dtype": "f8", "good": good, "bad": -77.0, "missing_value": -77.0}
    if column == "time":
        declaration["units"] = "seconds since 2000-01-01"
    table(tmp_path / "t", container, declaration, column=column)
    granule = read_granule(tmp_path / "t", mapping=mapping())
    reason = "no_time" if column == "time" else "no_position"
    assert granule.dropped == {reason: COUNT // 10}


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_packed_time_is_scaled(tmp_path, container):
    said = {"units": "days since 2000-01-01", "scale_factor": 0.5, "add_offset": 7000.0}
    table(tmp_path / "t", container, {"dtype": "i2", "good": 126, "bad": 127, **said}, "time")
    times = read_granule(tmp_path / "t", mapping=mapping()).points["time"]
    assert times.dt.strftime("%Y-%m-%dT%H").unique().tolist() == ["2019-05-04T12", "2019-05-04T00"]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("unit", "written"),
    [
        ("m", 25.0),
        ("metres above the ellipsoid", 25.0),
        ("mm", 25_000.0),
        ("centimeters", 2500.0),
        ("km", 0.025),
        ("Millimetres", 25_000.0),
        ("1", 25.0),
    ],
)
def test_a_height_is_in_the_unit_that_the_file_states(tmp_path, container, unit, written):
    table(
        tmp_path / "t", container, {"dtype": "f8", "good": written, "bad": written, "units": unit}
    )
    granule = read_granule(tmp_path / "t", mapping=mapping())
    assert granule.points["elevation"].to_numpy() == pytest.approx(25.0)
    # What the mapping says goes before.
    heights = read_granule(tmp_path / "t", mapping=mapping(unit="cm")).points["elevation"]
    assert len(heights) == 0 or heights.to_numpy() == pytest.approx(written / 100)


@pytest.mark.parametrize("container", CONTAINERS)
def test_an_angle_is_in_the_unit_that_the_file_states(tmp_path, container):
    angle = {"dtype": "f8", "good": np.radians(72.5), "bad": np.radians(72.5), "units": "radian"}
    table(tmp_path / "t", container, angle, "lat")
    points = read_granule(tmp_path / "t", mapping=mapping()).points
    assert points["latitude"].to_numpy() == pytest.approx(72.5)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_sum_of_columns_in_two_units_is_refused(tmp_path, container):
    table(tmp_path / "t", container, {"dtype": "f8", "good": 25.0, "bad": 25.0, "units": "cm"}, "s")
    split = ColumnMapping.parse(
        {
            "columns": {name: name[:3] for name in ("longitude", "latitude")}
            | {"time": "time", "elevation": "h - s"},
            "constants": {"platform": "icesat2"},
        }
    )
    with pytest.raises(GranuleError, match="sum of columns in cm and unstated; write them in one"):
        read_granule(tmp_path / "t", mapping=split)
    shifts = (np.full(COUNT, 25.0), {"units": "m"})
    heights = {"dtype": "f8", "good": 2500.0, "bad": 2500.0}
    table(tmp_path / "t", container, heights, "h", s=shifts)
    assert set(read_granule(tmp_path / "t", mapping=split).points["elevation"]) == {2475.0}
    table(tmp_path / "t", container, heights | {"units": "cm"}, "h", s=(shifts[0], {"units": "cm"}))
    assert set(read_granule(tmp_path / "t", mapping=split).points["elevation"]) == {24.75}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_byte_is_a_value(tmp_path, container):
    """NetCDF fills bytes that nobody wrote with -127, which may be a value."""
    table(tmp_path / "t", container, {"dtype": "i1", "good": 100, "bad": -127}, "h")
    granule = read_granule(tmp_path / "t", mapping=mapping())
    assert sorted(granule.points["elevation"].unique()) == [-127.0, 100.0]


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4"])
def test_what_hdf5_gives_for_unwritten_values_is_missing(tmp_path, dtype):
    path = tmp_path / "t"
    table(path, "hdf5", {"dtype": dtype, "good": 2500, "bad": 2500})
    with h5py.File(path, "r+") as file:
        del file["h"]
        heights = file.create_dataset("h", (COUNT,), dtype, chunks=(10,), fillvalue=777)
        heights[10:] = 2500
    granule = read_granule(path, mapping=mapping())
    assert granule.dropped == {"no_elevation": 10}
    with h5py.File(path, "r+") as file:
        del file["h"]
        # Zero is HDF5's own default, and a height may be 0 mm off another level.
        file.create_dataset("h", (COUNT,), dtype, chunks=(10,), fillvalue=0)[:] = 2500
    assert len(read_granule(path, mapping=mapping()).points) == COUNT


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("calendar", ["standard", "gregorian", "proleptic_gregorian", "Standard"])
def test_calendars_of_utc_are_read(tmp_path, container, calendar):
    time = {"dtype": "f8", "good": 6e8, "bad": 6e8, "units": "seconds since 2000-01-01"}
    table(tmp_path / "t", container, {**time, "calendar": calendar}, "time")
    assert len(read_granule(tmp_path / "t", mapping=mapping()).points) == COUNT
