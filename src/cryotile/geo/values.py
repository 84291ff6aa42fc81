"""Physical values of stored numbers: the same rules for NetCDF-3, NetCDF-4 and HDF5, for points and for DEMs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HIGHEST", "LOWEST", "VALUE_ATTRIBUTES", "has_utc_calendar", "physical_values"]

LOWEST, HIGHEST = -500.0, 9000.0
"""Heights above the ellipsoid, metres, between which all ice of the Earth lies; stand-ins such as −9999, −999.25 and
9999 lie outside."""

VALUE_ATTRIBUTES = (
    "_FillValue",
    "missing_value",
    "valid_range",
    "valid_min",
    "valid_max",
    "scale_factor",
    "add_offset",
)
"""Attributes of a variable in which a file says what its numbers mean."""

# Left by the NetCDF library where nothing was written (netcdf.h, NC_FILL_*); those of bytes are valid values.
_UNWRITTEN: Mapping[str, float] = {
    "i2": -32767,
    "u2": 65535,
    "i4": -2147483647,
    "u4": 4294967295,
    "i8": -9223372036854775806,
    "u8": 18446744073709551614,
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
}

_UTC_CALENDARS = ("", "standard", "gregorian", "proleptic_gregorian", "utc")


def physical_values(raw: NDArray[Any], attributes: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return stored numbers in their unit; NaN where the file says that they are missing or invalid.

    Parameters
    ----------
    raw : ndarray
        Numbers as stored.
    attributes : mapping of str to object
        Those of :data:`VALUE_ATTRIBUTES` that the variable has; text that is not a number is passed over.

    Returns
    -------
    ndarray of float64, shape of ``raw``
        Scaled and offset.
    """
    stated = {name: _numbers(attributes.get(name)) for name in VALUE_ATTRIBUTES}
    bad = np.zeros(raw.shape, bool)
    fills = [*stated["_FillValue"], *stated["missing_value"]]
    unwritten = _UNWRITTEN.get(raw.dtype.str[1:])
    if not len(stated["_FillValue"]) and unwritten is not None:
        fills.append(np.asarray(unwritten))
    for fill in fills:
        bad |= raw == _stored(fill, raw.dtype)
    scaled = bool(len(stated["scale_factor"]) or len(stated["add_offset"]))
    values = raw.astype(np.float64)
    if len(stated["scale_factor"]):
        values *= float(stated["scale_factor"][0])
    if len(stated["add_offset"]):
        values += float(stated["add_offset"][0])
    low, high = stated["valid_min"][:1], stated["valid_max"][:1]
    if len(stated["valid_range"]) == 2:
        low, high = stated["valid_range"][:1], stated["valid_range"][1:]
    for limit, beyond in ((low, np.less), (high, np.greater)):
        if len(limit):
            # NUG, attribute conventions: a range of the type of the scale applies to scaled values.
            unpacked = scaled and limit.dtype.kind == "f" and raw.dtype.kind != "f"
            bad |= beyond(values if unpacked else raw, limit[0])
    values[bad] = np.nan
    return values


def has_utc_calendar(calendar: object) -> bool:
    """Return whether the attribute ``calendar`` of a time, None if absent, is a name of today's calendar."""
    return calendar is None or str(calendar).strip().casefold() in _UTC_CALENDARS


def _numbers(value: Any) -> NDArray[Any]:
    """Return the numbers in an attribute, also of text such as "-9999"; none if it is absent or other text."""
    numbers = np.atleast_1d(np.asarray([] if value is None else value)).ravel()
    if numbers.dtype.kind in "iuf":
        return numbers
    try:
        return np.array([float(text) for text in numbers])
    except (TypeError, ValueError):
        return np.empty(0)


def _stored(fill: Any, dtype: np.dtype[Any]) -> Any:
    """Return a fill value in the type of the variable, which rounded it; itself if the type cannot hold it."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(fill).astype(dtype)
    whole = np.isfinite(fill) and float(fill).is_integer()
    info = np.iinfo(dtype)
    return np.asarray(fill).astype(dtype) if whole and info.min <= fill <= info.max else np.nan
