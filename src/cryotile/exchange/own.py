"""The product of cryotile in the common form: the rate of the whole period, and those of its windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyproj
import xarray as xr

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.exchange.reference import Epoch, Field, Floats, Period, Rate, Reference
from cryotile.geo.projection import projected_crs

__all__ = ["of_product", "values_of"]


def of_product(product: xr.Dataset, name: str) -> Reference:
    """Return the rates and heights of a product.

    Parameters
    ----------
    product : Dataset, dimensions (y, x)
        A product or an open run.
    name : str
        What messages call it.

    Raises
    ------
    InvalidValue
        It has no rate.
    """
    if "dhdt" not in product:
        raise InvalidValue(f"{name} has no variable dhdt; give a product of: cryotile assemble")
    if any(np.any(np.diff(product[axis]) < 0) for axis in ("y", "x")):
        product = product.sortby(["y", "x"])
    rates = [Rate(_period_of(product), "dhdt, whole period", _reader(product, "dhdt"))]
    if "window_dhdt" in product and "time_bnds" in product:
        bounds = product["time_bnds"].to_numpy().astype("datetime64[ms]")
        rates += [
            Rate((start, end), f"window {k}", _reader(product.isel(time=k), "window_dhdt"))
            for k, (start, end) in enumerate(bounds)
        ]
    epochs = []
    if "height" in product:
        times = product["height_time"].to_numpy().astype("datetime64[ms]")
        epochs = [
            Epoch(time, _reader(product.isel(height_time=k), "height"))
            for k, time in enumerate(times)
        ]
    return Reference(
        "cryotile",
        name,
        _crs_of(product, name),
        product["x"].to_numpy().astype(np.float64),
        product["y"].to_numpy().astype(np.float64),
        tuple(rates),
        tuple(epochs),
    )


def _reader(product: xr.Dataset, value: str) -> Callable[[], Field]:
    def read() -> Field:
        return Field(
            values_of(product, value),
            None if f"{value}_sigma" not in product else values_of(product, f"{value}_sigma"),
        )

    return read


def values_of(product: xr.Dataset, name: str) -> Floats:
    """Return a map of a product in float64.

    Raises
    ------
    DamagedFile
        The file cannot be read to its end.
    """
    try:
        values: Floats = product[name].to_numpy().astype(np.float64)
    except (OSError, RuntimeError) as error:
        file = product.encoding.get("source", "the product")
        raise DamagedFile(f"{file} is damaged ({error}); assemble it again") from error
    return values


def _period_of(product: xr.Dataset) -> Period | None:
    """Return the period of the rate: that of the settings, else the median first and last point of posts."""
    ends = [product.attrs.get(f"time_coverage_{end}") for end in ("start", "end")]
    if all(ends):
        return np.datetime64(str(ends[0]), "ms"), np.datetime64(str(ends[1]), "ms")
    if "time_start" not in product or "time_end" not in product:
        return None
    times = [product[name].to_numpy() for name in ("time_start", "time_end")]
    known = [t[~np.isnat(t)].astype("datetime64[ms]").astype(np.int64) for t in times]
    if not all(t.size for t in known):
        return None
    start, end = (np.datetime64(int(np.median(t)), "ms") for t in known)
    return start, end


def _crs_of(product: xr.Dataset, name: str) -> pyproj.CRS:
    """Return the CRS of a product.

    Raises
    ------
    InvalidValue
        It names none.
    """
    if "crs" in product.attrs:
        return projected_crs(product.attrs["crs"])
    mapping = product["dhdt"].attrs.get(
        "grid_mapping", product["dhdt"].encoding.get("grid_mapping")
    )
    if mapping in product.variables:
        return projected_crs(pyproj.CRS.from_cf(dict(product[mapping].attrs)))
    raise InvalidValue(f"{name} names no CRS; assemble it again")
