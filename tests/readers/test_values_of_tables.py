"""Values that a table declares, or does not declare, as missing: the same in every container."""

from __future__ import annotations

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
