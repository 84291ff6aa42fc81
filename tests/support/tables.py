"""Tables of points in the formats that cryotile reads."""

from __future__ import annotations

from pathlib import Path

import h5py
import netCDF4
import pandas as pd


def save_table(frame: pd.DataFrame, path: Path, form: str) -> Path:
    """Write a table; HDF5 and NetCDF files get its columns of numbers only.

    Parameters
    ----------
    frame : DataFrame
        Its columns.
    path : Path
        The file; a name that ends in ``.gz`` compresses text.
    form : str
        ``csv``, ``csv.gz``, ``parquet`` (groups of 1000 rows), ``hdf5``, ``netcdf`` or ``netcdf3``.
    """
    numbers = frame.select_dtypes("number")
    if form.startswith("csv"):
        frame.to_csv(path, index=False)
    elif form == "parquet":
        frame.to_parquet(path, row_group_size=1000)
    elif form == "hdf5":
        with h5py.File(path, "w") as file:
            for name, column in numbers.items():
                file[str(name)] = column
    else:
        classic = "NETCDF3_64BIT_OFFSET" if form == "netcdf3" else "NETCDF4"
        with netCDF4.Dataset(path, "w", format=classic) as file:
            file.createDimension("row", len(frame))
            for name, column in numbers.items():
                kind = "i4" if column.dtype.kind == "i" else "f8"
                file.createVariable(str(name), kind, ("row",))[:] = column
    return path
