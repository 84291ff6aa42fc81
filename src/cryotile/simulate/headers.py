"""Headers of the products: names, types, units and flags, as facts read from real granules.

One table a product stands in ``headers/``.  A number is written ``[dtype, value]``; null is text of the agency, or of
one granule, that is not repeated here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
from numpy.typing import NDArray

from cryotile.files import atomic_path

__all__ = ["attributes", "header", "write_netcdf"]

SIMULATED = "simulated by cryotile"


@cache
def header(product: str) -> Mapping[str, Any]:
    """Return the table of a product: ``cryotempo``, ``l2i`` or ``atl06``."""
    text = (files(__package__) / "headers" / f"{product}.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def attributes(table: Mapping[str, Any], values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Give the attributes of a table their values, each in the table's type and order.

    Parameters
    ----------
    table : mapping of str to object
        Attributes as a header table has them.
    values : mapping of str to object, optional
        What this granule says; names that the table lacks are an error of the caller.

    Returns
    -------
    dict of str to str, numpy scalar or ndarray
        Texts that neither has say that they are simulated.
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
    return value  # a text in place of a number is a product's own way to say "none"


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
        The file to appear.
    variables : mapping
        Of a header table: dtype, dimensions and attributes by name.
    data : mapping of str to ndarray
        Stored values, by variable; they set the length of the dimensions.
    header : mapping of str to object
        Global attributes.
    compressed : bool
        Deflated in one chunk, as ESA's L2I is, or contiguous, as Cryo-TEMPO is.
    """
    with atomic_path(path) as temporary:
        try:
            with netCDF4.Dataset(temporary, "w") as file:
                file.set_fill_off()
                file.setncatts(dict(header))
                for name, entry in variables.items():
                    _write_variable(file, name, entry, data[name], compressed)
        except RuntimeError as error:  # what the netCDF library makes of a full disk
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
