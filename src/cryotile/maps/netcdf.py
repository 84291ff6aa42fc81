"""Datasets as NetCDF-4 files: the same content gives the same bytes.

Maps of floats are stored in single precision, in which NaN is a missing value; integers are stored unchanged.  Instants
are stored as days since 2000 in double precision, because single precision would round them to minutes.
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import xarray as xr

__all__ = [
    "CHUNK",
    "TIME_UNITS",
    "Rows",
    "bands",
    "chunk_of",
    "encoded",
    "is_map",
    "is_text",
    "labels_apart",
    "labels_on_axes",
    "reason",
    "stored_attributes",
    "stored_type",
    "write_dataset",
]

EPOCH = np.datetime64("2000-01-01", "ms")
TIME_UNITS = "days since 2000-01-01"
MS_PER_DAY = 86_400_000.0

Rows = Callable[[slice], Mapping[str, npt.NDArray[Any]]]
"""Returns the values of all maps in some rows; it may complete the global attributes, which are written last."""

CHUNK = 256
"""Posts along a side of a chunk, which is compressed as one."""

HELD = 2**21
"""Bytes of a variable that the library caches before it writes them: a few chunks."""

PROBE = 2**20
"""Bytes written to find out whether the disk is full."""


def write_dataset(
    path: Path, dataset: xr.Dataset, rows: Rows, advance: Callable[[int], object]
) -> None:
    """Write a dataset to a compressed NetCDF-4 file, without a trace of time, path or host.

    Parameters
    ----------
    path : Path
        Overwritten.
    dataset : Dataset
        Maps and others, of floats, integers, datetime64 or text; attributes are text, numbers or arrays.  The
        values of maps are not used.
    rows : callable
        Returns the values of the maps in some rows, a name → array.
    advance : callable
        Told the number of rows written.

    Raises
    ------
    OSError
        The file cannot be written or the disk is full; :func:`cryotile.files.atomic_path` turns this into a message.
    """
    # The netCDF library reports every failure as "permission denied"; the operating system gives the reason.
    path.touch()
    try:
        with netCDF4.Dataset(path, "w") as file:
            _declare(file, labels_apart(dataset))
            for part in bands(dataset.sizes.get("y", 0)):
                for name, values in rows(part).items():
                    stored = file.variables[name]
                    stored[..., part, :] = encoded(values, stored.dtype)
                advance(part.stop - part.start)
            file.setncatts(_chars(dataset.attrs))
    except (RuntimeError, OSError) as error:
        raise reason(path, error) from error


def reason(path: Path, failure: Exception) -> OSError:
    """Return why a library could not write a file, as the system says it: on a full disk a plain write fails, too."""
    try:
        with path.open("ab") as file:
            file.write(bytes(PROBE))
    except OSError as error:
        return error
    return OSError(errno.EIO, str(failure))


def bands(rows: int) -> Iterator[slice]:
    """Yield bands of rows, each as high as a compressed chunk: memory does not grow with the map."""
    for start in range(0, rows, CHUNK):
        yield slice(start, min(start + CHUNK, rows))


def _declare(file: netCDF4.Dataset, dataset: xr.Dataset) -> None:
    """Create all variables, and write those that are no maps."""
    for dimension, size in dataset.sizes.items():
        file.createDimension(str(dimension), size)
    for name, variable in dataset.variables.items():
        mapped, texts, dtype = is_map(variable), is_text(variable), stored_type(variable)
        created = file.createVariable(
            str(name),
            str if texts else dtype,
            tuple(str(dimension) for dimension in variable.dims),
            compression="zlib" if mapped or (variable.ndim > 1 and not texts) else None,
            complevel=4,
            chunksizes=chunk_of(variable.shape) if mapped else None,
            fill_value=np.nan if mapped and dtype.kind == "f" else False,
        )
        created.set_auto_maskandscale(False)
        created.setncatts(_chars(stored_attributes(dataset, str(name))))
        if mapped:
            # Without a limit the library caches all data until the file is closed.
            created.set_var_chunk_cache(size=HELD)
        else:
            created[...] = variable.values if texts else encoded(variable.values, dtype)


def stored_type(variable: xr.Variable | xr.DataArray) -> np.dtype[Any]:
    """Return the type in which a file holds a variable: maps of floats are single.

    Areas stay double, so that programs add up rate times area over millions of posts in double precision.
    """
    if variable.dtype.kind == "M":
        return np.dtype(np.float64)
    single = variable.dtype.kind == "f" and variable.attrs.get("standard_name") != "cell_area"
    single = single and is_map(variable)
    return np.dtype(np.float32) if single else variable.dtype


def stored_attributes(dataset: xr.Dataset, name: str) -> dict[str, Any]:
    """Return the attributes that a file holds of a variable.

    Its own; units of time, which bounds do not repeat; and the coordinates that are none of its dimensions: the scalar
    one that its cell methods name, and those along its dimensions.
    """
    variable = dataset.variables[name]
    attrs = dict(variable.attrs)
    bounds = {other.attrs.get("bounds") for other in dataset.variables.values()}
    interval = attrs.get("cell_methods", "").split(":")[0]
    beside = [
        str(other)
        for other, values in dataset.coords.items()
        if name not in dataset.coords
        and other not in (*dataset.dims, *bounds)
        and (other == interval or (values.dims and {*values.dims} <= {*variable.dims}))
    ]
    if beside:
        attrs["coordinates"] = " ".join(beside)
    if variable.dtype.kind == "M" and name not in bounds:
        attrs |= {
            "units": TIME_UNITS,
            "calendar": "proleptic_gregorian",
            "units_metadata": "leap_seconds: none",
        }
    return attrs


_LABEL = "_name"


def labels_apart(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset as files hold it: texts along a dimension are no coordinate of its name.

    A coordinate variable of CF is a number; labels are auxiliary coordinates (CF 1.11, section 6.1).
    """
    labels = [name for name in dataset.dims if name in dataset.coords and is_text(dataset[name])]
    return dataset.reset_index(labels).rename_vars({name: f"{name}{_LABEL}" for name in labels})


def labels_on_axes(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset of which :func:`labels_apart` was stored; its labels are indices again."""
    labels = {
        name: name.removesuffix(_LABEL)
        for name in map(str, dataset.coords)
        if name.endswith(_LABEL) and dataset[name].dims == (name.removesuffix(_LABEL),)
    }
    dataset = dataset.rename_vars(labels)
    for name in labels.values():
        dataset = dataset.set_xindex(name)
    return dataset


def is_text(variable: xr.Variable | xr.DataArray) -> bool:
    """Return whether a variable holds texts."""
    return variable.dtype.kind in "OUT"


def is_map(variable: xr.Variable | xr.DataArray) -> bool:
    """Return whether a variable has a value for each post, over time or not."""
    return variable.dims[-2:] == ("y", "x")


def chunk_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the chunks in which a map is compressed: squares of posts of one instant."""
    return (*(1 for _ in shape[:-2]), *(min(CHUNK, size) for size in shape[-2:]))


def _chars(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes with text as characters in UTF-8: the library makes strings of other text than ASCII.

    GMT opens no file with an attribute of type string.  Some readers take characters for ASCII, so that the text of a
    CRS, which programs parse, is without accents.
    """
    plain = "crs_wkt" in attributes
    return {
        name: (_plain(value) if plain else value).encode("utf-8", "backslashreplace")
        if isinstance(value, str) and not value.isascii()
        else value
        for name, value in attributes.items()
    }


def _plain(text: str) -> str:
    """Return the text of a CRS without accents; other characters outside ASCII are escaped."""
    letters = unicodedata.normalize("NFKD", text.replace("°", " deg "))
    kept = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return kept.encode("ascii", "backslashreplace").decode()


def encoded(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return values as a file holds them.

    Parameters
    ----------
    values : ndarray
        Numbers, or instants in UTC as datetime64.
    dtype : dtype
        As of :func:`stored_type`.

    Returns
    -------
    ndarray of ``dtype``, same shape
        Instants as days since 2000-01-01, exact to a millisecond for any year; NaT as NaN.
    """
    if values.dtype.kind != "M":
        return values.astype(dtype, copy=False)
    since = np.asarray(values, "datetime64[ms]") - EPOCH
    return np.where(np.isnat(since), np.nan, since.astype(np.int64) / MS_PER_DAY)
