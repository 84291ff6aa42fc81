"""Datasets as cloud-optimised GeoTIFF files, one for each map, written by bands of rows.

A file of this kind has its overviews before its full resolution, which is known last: the map is first written plainly,
and then copied.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.errors import MissingDependency
from cryotile.geo.grid import Grid
from cryotile.geo.polygons import transform_of
from cryotile.maps.netcdf import CHUNK, TIME_UNITS, Rows, bands, encoded, reason, stored_type

if TYPE_CHECKING:
    from rasterio.io import DatasetReader, DatasetWriter

__all__ = ["write_geotiffs"]

HELD = 2**26
"""Bytes that GDAL caches before it writes them; its default is a share of the machine's memory."""


def write_geotiffs(
    paths: Mapping[str, Path],
    dataset: xr.Dataset,
    grid: Grid,
    rows: Rows,
    advance: Callable[[int], object],
) -> None:
    """Write maps of a dataset to compressed GeoTIFFs, over time with a band for each interval; read them back.

    Parameters
    ----------
    paths : mapping of str to Path
        Name of a map → its file, which is overwritten.
    dataset : Dataset
        As for :func:`cryotile.maps.netcdf.write_dataset`.  Its attributes become tags.
    grid : Grid
        The posts.
    rows, advance
        As for :func:`cryotile.maps.netcdf.write_dataset`.

    Raises
    ------
    MissingDependency
        rasterio is not installed.
    OSError
        A file cannot be written or the disk is full.
    """
    try:
        import rasterio
        from rasterio._err import CPLE_BaseError  # rasterio.shutil.copy raises it
    except ImportError as error:
        raise MissingDependency(
            "a GeoTIFF needs rasterio: pip install 'cryotile[geo]'; or give a path that ends in .nc"
        ) from error
    some = next(iter(paths.values()))
    # Otherwise the system tells why a file cannot be made only in a log of GDAL.
    some.touch()
    plain = Path(tempfile.mkdtemp(prefix=f"{some.name}.", dir=some.parent))
    try:
        with rasterio.Env(GDAL_CACHEMAX=HELD):
            sums = _write_plain(plain, list(paths), dataset, grid, rows, advance)
            for name, path in paths.items():
                _optimize(plain / name, path, is_flag="flag_meanings" in dataset[name].attrs)
                (plain / name).unlink()
                with rasterio.open(path) as file:
                    _compare(file, sums[name])
    except (rasterio.errors.RasterioError, CPLE_BaseError, OSError) as error:
        raise reason(some, error) from error
    finally:
        shutil.rmtree(plain, ignore_errors=True)


def _write_plain(
    directory: Path,
    names: Sequence[str],
    dataset: xr.Dataset,
    grid: Grid,
    rows: Rows,
    advance: Callable[[int], object],
) -> dict[str, list[int]]:
    """Write a file for each map, band by band of rows; return the checksum of each band, by map."""
    sums: dict[str, list[int]] = {name: [] for name in names}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(_new(directory / name, dataset, name, grid)) for name in names
        }
        for part in bands(grid.shape[0]):
            # Counted from the north, as in all GeoTIFFs.
            found = rows(slice(grid.shape[0] - part.stop, grid.shape[0] - part.start))
            for name, file in files.items():
                sums[name].append(_write_rows(file, part, found[name]))
            advance(part.stop - part.start)
        for name, file in files.items():
            file.update_tags(**dataset.attrs, variable=name)
    return sums


def _new(path: Path, dataset: xr.Dataset, name: str, grid: Grid) -> DatasetWriter:
    """Create a GeoTIFF for a map."""
    import rasterio

    variable = dataset[name]
    dtype = stored_type(variable)
    file = rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1 if variable.ndim == 2 else len(variable),
        height=grid.shape[0],
        width=grid.shape[1],
        dtype=dtype,
        nodata=math.nan if dtype.kind == "f" else None,
        crs=grid.crs,
        transform=transform_of(grid),
        tiled=True,
        blockxsize=CHUNK,
        blockysize=CHUNK,
        interleave="band",
        bigtiff="if_safer",
    )
    units = TIME_UNITS if variable.dtype.kind == "M" else variable.attrs.get("units", "")
    bounds = f"{variable.dims[0]}_bnds"
    for band in file.indexes:
        number = "" if variable.ndim == 2 else f" {band}"
        file.set_band_description(band, f"{name}{number}")
        file.set_band_unit(band, units)
        tags = {str(key): _text(value) for key, value in variable.attrs.items()}
        if number and bounds in dataset:
            ends = dataset[bounds].to_numpy()[band - 1].astype("datetime64[s]")
            tags["interval"] = "/".join(map(str, ends))
        file.update_tags(band, **tags)
    return file


def _text(value: Any) -> str:
    return " ".join(map(str, value.tolist())) if isinstance(value, np.ndarray) else str(value)


def _write_rows(file: DatasetWriter, part: slice, values: npt.NDArray[Any]) -> int:
    """Write some rows of a map; return their checksum."""
    from rasterio.windows import Window

    window = Window(0, part.start, file.width, part.stop - part.start)
    layers = encoded(values, np.dtype(file.dtypes[0])).reshape(file.count, -1, file.width)[:, ::-1]
    file.write(layers, window=window)
    return zlib.crc32(np.ascontiguousarray(layers).data)


def _optimize(plain: Path, path: Path, *, is_flag: bool) -> None:
    """Copy a GeoTIFF to a cloud-optimised one: overviews are means; of flags, the nearest."""
    from rasterio.shutil import copy

    copy(
        plain,
        path,
        driver="COG",
        compress="deflate",
        predictor="yes",
        blocksize=CHUNK,
        overview_resampling="nearest" if is_flag else "average",
        bigtiff="if_safer",
    )


def _compare(file: DatasetReader, written: Sequence[int]) -> None:
    """Read the values back: GDAL writes the end of a file on closing and does not report a failure."""
    from rasterio.windows import Window

    for part, expected in zip(bands(file.height), written, strict=True):
        window = Window(0, part.start, file.width, part.stop - part.start)
        if zlib.crc32(file.read(window=window).data) != expected:
            raise OSError("other values were read back")
