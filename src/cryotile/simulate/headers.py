"""Headers of the products: names, types, units and flags read from real granules, and the files written with them.

``headers/`` has one table per product.  A number is written ``[dtype, value]``; null stands for text of the agency, or
of one granule, that is not repeated here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
from numpy.typing import NDArray

from cryotile.files import atomic_path

__all__ = ["SIMULATED", "attach_scale", "attributes", "header", "new_hdf5", "write_netcdf"]

SIMULATED = "simulated by cryotile"


@cache
def header(product: str) -> Mapping[str, Any]:
    """Return the table of a product: the name of a file in ``headers/``, such as ``atl06``."""
    text = (files(__package__) / "headers" / f"{product}.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def attributes(table: Mapping[str, Any], values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the attributes of a table with their values, in the types and order of the table.

    Parameters
    ----------
    table : mapping of str to object
        Attributes from a header table.
    values : mapping of str to object, optional
        Values of this granule; the table must have their names.

    Returns
    -------
    dict of str to str, numpy scalar or ndarray
        A text that neither has is "simulated by cryotile".
    """
    values = values or {}
    if unknown := values.keys() - table.keys():
        raise KeyError(f"the header has no attributes {sorted(unknown)}")
    return {name: _typed(default, values.get(name)) for name, default in table.items()}


def _typed(default: Any, value: Any) -> Any:
    if isinstance(default, list) and not isinstance(value, str):
        dtype, number = default
        return np.array(number if value is None else value, dtype)[()]
    if value is None:
        return SIMULATED if default is None else default
    return value  # a product may write "none" as text in place of a number


def write_netcdf(
    path: Path,
    variables: Mapping[str, Any],
    data: Mapping[str, NDArray[Any]],
    *,
    header: Mapping[str, Any],
    compressed: bool,
) -> None:
    """Write a granule as a flat netCDF-4 file, whole or not at all.

    Parameters
    ----------
    path : Path
        The file to create.
    variables : mapping
        Name → dtype, dimensions and attributes, from a header table.
    data : mapping of str to ndarray
        Variable → stored values; they set the length of the dimensions.
    header : mapping of str to object
        Global attributes; ``simulated`` is added.
    compressed : bool
        Deflated in one chunk, as in ESA's L2I, rather than contiguous, as in Cryo-TEMPO.
    """
    with atomic_path(path) as temporary:
        try:
            with netCDF4.Dataset(temporary, "w") as file:
                file.set_fill_off()
                file.setncatts({**header, "simulated": SIMULATED})
                for name, entry in variables.items():
                    _write_variable(file, name, entry, data[name], compressed)
        except RuntimeError as error:  # raised by the netCDF library on a full disk
            raise OSError(f"{error}, or the disk is full") from error


def _write_variable(
    file: netCDF4.Dataset,
    name: str,
    entry: Mapping[str, Any],
    values: NDArray[Any],
    compressed: bool,
) -> None:
    for dimension, length in zip(entry["dimensions"], values.shape, strict=True):
        if dimension not in file.dimensions:
            file.createDimension(dimension, length)
    own = attributes(entry["attributes"])
    variable = file.createVariable(
        name,
        entry["dtype"],
        entry["dimensions"],
        compression="zlib" if compressed else None,
        complevel=4,
        chunksizes=values.shape if compressed else None,
        contiguous=not compressed,
        fill_value=own.pop("_FillValue", None),
    )
    variable.setncatts(own)
    variable.set_auto_maskandscale(False)
    variable[:] = values


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Create an HDF5 file for the length of a ``with``, whole or not at all; it says that it is simulated."""
    # Built in memory: the HDF5 library's error on a full disk is long, the system's is short.
    content = BytesIO()
    with h5py.File(content, "w") as file:
        yield file
        file.attrs["simulated"] = np.bytes_(SIMULATED)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def attach_scale(dataset: h5py.Dataset, axis: int, scale: h5py.Dataset) -> None:
    """Make ``scale`` the dimension scale of an axis, nameless as the agencies have it."""
    if not h5py.h5ds.is_scale(scale.id):
        scale.make_scale()
        del scale.attrs["NAME"]
    dataset.dims[axis].attach_scale(scale)
