"""Values that a table declares, or does not declare, as missing: the same in every container."""

from __future__ import annotations

import struct

import h5py
import netCDF4
import numpy as np
import pandas as pd
import pytest

from cryotile.errors import GranuleError
from cryotile.readers import ColumnMapping, read_granule

COUNT = 50
MAPPING = ColumnMapping.parse(
    {
        "columns": {
            "longitude": "lon",
            "latitude": "lat",
            "time": "time",
            "elevation": "h",
            "uncertainty": "s",
        },
        "constants": {"platform": "cryosat2", "mode": "lrm"},
    }
)


def columns_of_a_table() -> dict[str, np.ndarray]:
    rows = np.arange(COUNT)
    return {
        "lon": np.full(COUNT, -45.0),
        "lat": 72 + rows * 1e-3,
        "time": 6e8 + rows * 0.05,
        "h": np.full(COUNT, 2500.0),
        "s": np.full(COUNT, 0.3),
    }


def write(path, container, columns, attributes):
    """Write a table with attributes of some of its variables."""
    attributes = {"time": {"units": "seconds since 2000-01-01"}} | attributes
    if container == "hdf5":
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                file[name] = np.ma.filled(values, 9.969209968386869e36)
                file[name].attrs.update(attributes.get(name, {}))
        return
    with netCDF4.Dataset(path, "w", format=container) as file:
        file.createDimension("row", COUNT)
        for name, values in columns.items():
            variable = file.createVariable(name, values.dtype, ("row",))
            variable.set_auto_maskandscale(False)
            variable.setncatts(attributes.get(name, {}))
            variable[:] = np.ma.filled(values, 9.969209968386869e36)


CONTAINERS = pytest.mark.parametrize("container", ["NETCDF4", "NETCDF3_CLASSIC", "hdf5"])


@CONTAINERS
@pytest.mark.parametrize(
    "attributes",
    [
        {"missing_value": 777.0},
        {"valid_min": 1000.0},
        {"valid_range": np.array([1000.0, 5000.0])},
    ],
)
def test_heights_that_a_file_declares_invalid_are_dropped(tmp_path, container, attributes):
    columns = columns_of_a_table()
    columns["h"][::10] = 777.0
    write(tmp_path / "t", container, columns, {"h": attributes})
    granule = read_granule(tmp_path / "t", mapping=MAPPING)
    assert granule.dropped == {"no_elevation": 5}
    assert (granule.points["elevation"] == 2500.0).all()


@CONTAINERS
def test_an_uncertainty_that_was_never_written_is_missing(tmp_path, container):
    columns = columns_of_a_table()
    columns["s"] = np.ma.array(columns["s"], mask=np.arange(COUNT) == 7)
    write(tmp_path / "t", container, columns, {})
    uncertainty = read_granule(tmp_path / "t", mapping=MAPPING).points["uncertainty"]
    assert uncertainty.isna().sum() == 1
    assert uncertainty.max() == 0.3


@CONTAINERS
@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian"])
def test_times_in_another_calendar_are_refused(tmp_path, container, calendar):
    attributes = {"units": "seconds since 2000-01-01", "calendar": calendar}
    write(tmp_path / "t", container, columns_of_a_table(), {"time": attributes})
    with pytest.raises(GranuleError, match=f"calendar '{calendar}'"):
        read_granule(tmp_path / "t", mapping=MAPPING)


@pytest.mark.parametrize("stand_in", [-9999.0, 9999.0, -999.25, -32768.0, 1e20])
def test_an_undeclared_stand_in_is_dropped_and_named(tmp_path, stand_in):
    columns = columns_of_a_table()
    columns["h"][::10] = stand_in
    write(tmp_path / "t", "NETCDF4", columns, {})
    granule = read_granule(tmp_path / "t", mapping=MAPPING)
    assert granule.dropped == {"no_elevation": 5}
    assert any(f"{stand_in:.10g} m" in note for note in granule.notes)


def test_an_undeclared_stand_in_in_millimetres_is_dropped(tmp_path):
    frame = pd.DataFrame(columns_of_a_table())
    frame["h"] = 1500.0
    frame.loc[::10, "h"] = -9999.0
    frame.to_csv(tmp_path / "t.csv", index=False)
    mapping = ColumnMapping.parse(
        {
            "columns": {
                "longitude": "lon",
                "latitude": "lat",
                "time": {"name": "time", "unit": "seconds since 2000-01-01"},
                "elevation": {"name": "h", "unit": "mm"},
            },
            "constants": {"platform": "cryosat2", "mode": "lrm"},
        }
    )
    granule = read_granule(tmp_path / "t.csv", mapping=mapping)
    assert granule.dropped == {"no_elevation": 5}
    assert (granule.points["elevation"] == 1.5).all()


def points_of_a_geometry() -> pd.DataFrame:
    rows = np.arange(COUNT)
    time = pd.Timestamp("2019-05-04T11:18:32") + pd.to_timedelta(rows, unit="ms")
    return pd.DataFrame(
        {"lon": -45 + rows * 1e-4, "lat": 72 + rows * 1e-3, "time": time, "h": 2000.0 + rows}
    )


def mapping_with(**columns: str) -> ColumnMapping:
    return ColumnMapping.parse(
        {
            "columns": {"time": "time", "elevation": "h", **columns},
            "constants": {"platform": "icesat2", "mode": "laser"},
        }
    )


@pytest.mark.parametrize(
    ("suffix", "write_point"),
    [
        ("parquet", lambda x, y: struct.pack("<BIdd", 1, 1, x, y)),
        ("csv", lambda x, y: f"POINT ({x} {y})"),
    ],
)
def test_the_place_of_a_point_may_be_a_geometry(tmp_path, suffix, write_point):
    table = points_of_a_geometry()
    table["shape"] = [write_point(*each) for each in zip(table["lon"], table["lat"], strict=True)]
    stored = table.drop(columns=["lon", "lat"])
    path = tmp_path / f"points.{suffix}"
    stored.to_csv(path, index=False) if suffix == "csv" else stored.to_parquet(path)
    points = read_granule(path, mapping=mapping_with(geometry="shape")).points
    np.testing.assert_array_equal(points["longitude"], table["lon"])
    np.testing.assert_array_equal(points["latitude"], table["lat"])


def test_columns_of_hdf5_may_lie_in_rows_in_columns_and_in_a_compound(tmp_path):
    table = columns_of_a_table()
    compound = np.zeros(COUNT, [("h", "f8"), ("s", "f4")])
    compound["h"], compound["s"] = table["h"], table["s"]
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["lon"], file["lat"] = table["lon"][:, None], table["lat"][None]
        file["time"], file["data/points"] = table["time"], compound
        file["time"].attrs["units"] = "seconds since 2000-01-01"
    mapping = mapping_with(
        longitude="lon", latitude="lat", elevation="data/points.h", uncertainty="data/points.s"
    )
    points = read_granule(tmp_path / "t.h5", mapping=mapping).points
    np.testing.assert_array_equal(points["latitude"], table["lat"])
    np.testing.assert_array_equal(points["elevation"], table["h"])
    np.testing.assert_allclose(points["uncertainty"], 0.3, rtol=1e-6)


@pytest.mark.parametrize("suffix", ["csv", "h5"])
def test_an_elevation_may_be_a_sum_of_columns(tmp_path, suffix):
    table = columns_of_a_table()
    table |= {"d/ellip": np.full(COUNT, 0.7), "sat": np.full(COUNT, 0.1)}
    table["sat"][3] = -99.0
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        pd.DataFrame(table).to_csv(path, index=False)
    else:
        with h5py.File(path, "w") as file:
            for name, values in table.items():
                file[name] = values
    mapping = ColumnMapping.parse(
        {
            "missing": [-99],
            "columns": {
                "longitude": "lon",
                "latitude": "lat",
                "time": {"name": "time", "unit": "seconds since 2000-01-01"},
                "elevation": "h - d/ellip + sat + 1.5",
            },
            "constants": {"platform": "icesat2", "mode": "laser"},
        }
    )
    granule = read_granule(path, mapping=mapping)
    assert granule.dropped == {"no_elevation": 1}
    np.testing.assert_allclose(granule.points["elevation"], 2500.9, rtol=1e-12)


def test_a_sum_with_an_absent_column_names_it(tmp_path):
    pd.DataFrame(columns_of_a_table()).to_csv(tmp_path / "t.csv", index=False)
    mapping = mapping_with(longitude="lon", latitude="lat", elevation="h + tide")
    with pytest.raises(GranuleError, match="no column 'tide'"):
        read_granule(tmp_path / "t.csv", mapping=mapping)
