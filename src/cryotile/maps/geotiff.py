"""Datasets as GeoTIFF files, one band per map, written by bands of rows."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.errors import MissingDependency
from cryotile.geo.grid import Grid
from cryotile.maps.netcdf import CHUNK, TIME_UNITS, Rows, bands, days, is_map, reason

if TYPE_CHECKING:
    from rasterio.io import DatasetReader, DatasetWriter

__all__ = ["write_geotiff"]

HELD = 2**26
"""Bytes that GDAL caches before it writes them; its default is a share of the machine's memory."""


def write_geotiff(
    path: Path, dataset: xr.Dataset, grid: Grid, rows: Rows, advance: Callable[[int], object]
) -> None:
    """Write the maps of a dataset to a compressed GeoTIFF, over time one for each interval; read it back to check it.

    Parameters
    ----------
    path : Path
        Overwritten.
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
        The file cannot be written or the disk is full.
    """
    try:
        import rasterio
    except ImportError as error:
        raise MissingDependency(
            "a GeoTIFF needs rasterio: pip install 'cryotile[geo]'; or give a path that ends in .nc"
        ) from error
    maps = _layers({str(name): v for name, v in dataset.data_vars.items() if is_map(v)})
    half = grid.posting / 2
    transform = rasterio.Affine(
        grid.posting, 0.0, float(grid.x[0]) - half, 0.0, -grid.posting, float(grid.y[-1]) + half
    )
    # Otherwise the system tells why the file cannot be made only in a log of GDAL.
    path.touch()
    try:
        with rasterio.Env(GDAL_CACHEMAX=HELD):
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=len(maps),
                height=grid.shape[0],
                width=grid.shape[1],
                # All bands of a GeoTIFF have one type; float64 stores counts and status exactly.
                dtype="float64",
                nodata=math.nan,
                crs=grid.crs,
                transform=transform,
                compress="deflate",
                predictor=3,
                tiled=True,
                blockxsize=CHUNK,
                blockysize=CHUNK,
                interleave="band",
                bigtiff="if_safer",
            ) as file:
                _describe_bands(file, maps)
                file.update_tags(**dataset.attrs)
                written = [_write_rows(file, part, rows, advance) for part in bands(file.height)]
            with rasterio.open(path) as file:
                _compare(file, written)
    except (rasterio.errors.RasterioError, OSError) as error:
        raise reason(path, error) from error


def _layers(maps: Mapping[str, Any]) -> dict[str, Any]:
    """Return maps by name; of a map over time one for each interval, named by its number from 1 on."""
    layers = {}
    for name, values in maps.items():
        if values.ndim == 2:
            layers[name] = values
        else:
            layers |= {f"{name} {k + 1}": values[k] for k in range(len(values))}
    return layers


def _describe_bands(file: DatasetWriter, maps: dict[str, xr.DataArray]) -> None:
    for band, (name, variable) in enumerate(maps.items(), start=1):
        is_time = variable.dtype.kind == "M"
        file.set_band_description(band, name)
        file.set_band_unit(band, TIME_UNITS if is_time else variable.attrs.get("units", ""))


def _write_rows(
    file: DatasetWriter, part: slice, rows: Rows, advance: Callable[[int], object]
) -> int:
    """Write some rows, counted from the north as in all GeoTIFFs, of all variables; return their checksum."""
    from rasterio.windows import Window

    ny, checksum = file.height, 0
    found = _layers(rows(slice(ny - part.stop, ny - part.start)))
    window = Window(0, part.start, file.width, part.stop - part.start)
    for band, name in enumerate(file.descriptions, start=1):
        values = found[name]
        values = days(values) if values.dtype.kind == "M" else values.astype(np.float64)
        file.write(values[::-1], band, window=window)
        checksum = _checksum(values[::-1], checksum)
    advance(part.stop - part.start)
    return checksum


def _compare(file: DatasetReader, written: Sequence[int]) -> None:
    """Read the values back: GDAL writes the end of a file on closing and does not report a failure."""
    from rasterio.windows import Window

    for part, expected in zip(bands(file.height), written, strict=True):
        window, checksum = Window(0, part.start, file.width, part.stop - part.start), 0
        for band in file.indexes:
            checksum = _checksum(file.read(band, window=window), checksum)
        if checksum != expected:
            raise OSError("other values were read back")


def _checksum(values: npt.NDArray[Any], before: int) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data, before)
