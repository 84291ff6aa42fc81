"""Tables of points under cryotile's own names, one file per month: CSV, Parquet, flat HDF5, NetCDF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cryotile.files import atomic_path
from cryotile.points import SURFACE_TYPES
from cryotile.simulate.headers import SIMULATED
from cryotile.simulate.mission import Flyover
from cryotile.times import seconds_since

__all__ = ["write_csv", "write_hdf5", "write_netcdf", "write_parquet"]

UNITS = {
    "longitude": "degrees_east",
    "latitude": "degrees_north",
    "time": "seconds since 2000-01-01",
    "elevation": "m",
    "uncertainty": "m",
    "power": "dB",
}
TEXTS = ("platform", "mode", "surface_type")
PLATFORM, MODE = "cryosat2", "sarin_poca"


def write_csv(directory: Path, flyovers: Sequence[Flyover]) -> list[Path]:
    """Write the points of a month as text, times in ISO 8601.

    Parameters
    ----------
    directory : Path
        Where to.
    flyovers : sequence of Flyover
        Of CryoSat-2, in order of time.

    Returns
    -------
    list of Path
        The table.
    """
    return _write(directory, flyovers, "csv", _csv)


def write_parquet(directory: Path, flyovers: Sequence[Flyover]) -> list[Path]:
    """Write the points of a month as Parquet; as :func:`write_csv` otherwise."""
    return _write(directory, flyovers, "parquet", _parquet)


def write_hdf5(directory: Path, flyovers: Sequence[Flyover]) -> list[Path]:
    """Write the points of a month as datasets in the root of an HDF5 file; as :func:`write_csv` otherwise."""
    return _write(directory, flyovers, "h5", _hdf5)


def write_netcdf(directory: Path, flyovers: Sequence[Flyover]) -> list[Path]:
    """Write the points of a month as variables along one dimension; as :func:`write_csv` otherwise."""
    return _write(directory, flyovers, "nc", _netcdf)


def _write(
    directory: Path,
    flyovers: Sequence[Flyover],
    suffix: str,
    form: Callable[[pd.DataFrame, Path], None],
) -> list[Path]:
    table = pd.concat([_points(flyover) for flyover in flyovers], ignore_index=True)
    if table.empty:
        return []
    path = directory / f"{PLATFORM}_{table['time'].iloc[0]:%Y-%m}.{suffix}"
    with atomic_path(path) as temporary:
        form(table, temporary)
    return [path]


def _points(flyover: Flyover) -> pd.DataFrame:
    """Return the valid points of a flyover, on all surfaces."""
    (echoes,) = flyover.beams
    names = ["longitude", "latitude", "time", "elevation", "uncertainty", "ascending", "power"]
    table = echoes.loc[~(echoes["lost"] | echoes["ambiguous"]), names]
    kinds = echoes["surface_type"].loc[table.index]
    return table.assign(
        time=table["time"].dt.round("ms"),
        orbit=flyover.number,
        platform=PLATFORM,
        mode=MODE,
        surface_type=kinds.map(dict(enumerate(SURFACE_TYPES))),
    )


def _csv(table: pd.DataFrame, path: Path) -> None:
    # Text has no attributes: a column says that the points are simulated.
    table = table.assign(simulated=1)
    table.to_csv(path, index=False, date_format="%Y-%m-%dT%H:%M:%S.%fZ", lineterminator="\n")


def _parquet(table: pd.DataFrame, path: Path) -> None:
    points = pa.Table.from_pandas(table, preserve_index=False)
    said = {**points.schema.metadata, "simulated": SIMULATED}
    pq.write_table(points.replace_schema_metadata(said), path)


def _hdf5(table: pd.DataFrame, path: Path) -> None:
    content = BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["simulated"] = SIMULATED
        for name, column in _counted(table).items():
            values = column.to_numpy("S") if name in TEXTS else column.to_numpy()
            dataset = file.create_dataset(str(name), data=values)
            if name in UNITS:
                dataset.attrs["units"] = UNITS[str(name)]
    path.write_bytes(content.getbuffer())


def _netcdf(table: pd.DataFrame, path: Path) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.simulated = SIMULATED
        file.createDimension("point", len(table))
        for name, column in _counted(table).items():
            text = name in TEXTS
            kind: Any = str if text else column.dtype
            variable = file.createVariable(str(name), kind, ("point",))
            if name in UNITS:
                variable.units = UNITS[str(name)]
            variable[:] = column.to_numpy(object if text else None)


def _counted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with times and flags as numbers, for formats that have no types for them."""
    return table.assign(
        time=seconds_since(table["time"].to_numpy(), "2000-01-01"),
        ascending=table["ascending"].astype("int8"),
    )
