"""Rasters of any size and CRS, from GeoTIFF and NetCDF files: read in blocks, interpolated at positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import pyproj
from pyproj.exceptions import CRSError

from cryotile.errors import DamagedFile, InvalidValue, MissingDependency

__all__ = [
    "Raster",
    "is_netcdf",
    "maps_of",
    "open_band",
    "open_netcdf",
    "open_variable",
    "overlaps",
]

BLOCK = 1024
"""Pixels along a side of a block: 8 MB."""

GDAL_CACHE = 64
"""Megabytes; the default of GDAL is a twentieth of the memory."""

BESIDE = 5.0
"""Degrees by which maps may reach beyond the area of use of a CRS."""

_X_NAMES = ("x", "lon", "longitude", "projection_x_coordinate")

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Raster:
    """Values at the pixel centres of a grid aligned with the axes of its CRS.

    Attributes
    ----------
    crs : pyproj.CRS
        CRS of the grid, as the file names it.
    x, y : (float, float)
        Centre of the first pixel and distance to the next, in units of the CRS.
    shape : (int, int)
        Rows, columns.
    read : callable
        Returns the values of some rows and columns; NaN where there is none.
    name, units : str
        Of the variable or band; empty where the file gives none.
    attributes : mapping of str to object
        Of the variable and its grid mapping, or of the file and the band.
    """

    crs: pyproj.CRS
    x: tuple[float, float]
    y: tuple[float, float]
    shape: tuple[int, int]
    read: Callable[[slice, slice], Array]
    name: str = ""
    units: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def closed(self) -> Raster:
        """Return a raster round the Earth with its first column once more after its last: its seam has no gap."""
        ny, nx = self.shape
        step = abs(self.x[1])
        if not self.crs.is_geographic or abs(step * nx - 360.0) > step / 2:
            return self

        def read(rows: slice, columns: slice) -> Array:
            if columns.stop <= nx:
                return self.read(rows, columns)
            whole = self.read(rows, slice(columns.start, nx))
            return np.hstack([whole, self.read(rows, slice(0, 1))])

        return replace(self, shape=(ny, nx + 1), read=read)

    def at(self, x: Array, y: Array, crs: pyproj.CRS) -> Array:
        """Return the values at positions, interpolated bilinearly.

        Parameters
        ----------
        x, y : ndarray, shape (positions,)
            In units of ``crs``.
        crs : pyproj.CRS
            Of the positions.

        Returns
        -------
        ndarray, shape (positions,)
            NaN outside the raster and where one of the four surrounding values is missing.
        """
        columns, rows = self._places(x, y, crs)
        ny, nx = self.shape
        inside = (columns >= 0) & (columns <= nx - 1) & (rows >= 0) & (rows <= ny - 1)
        found = np.full(len(x), np.nan)
        at = np.flatnonzero(inside)
        blocks = (rows[at] // BLOCK).astype(np.int64) * (nx // BLOCK + 1) + (columns[at] // BLOCK)
        order = np.argsort(blocks, kind="stable")
        for group in np.split(at[order], np.flatnonzero(np.diff(blocks[order])) + 1):
            if len(group):
                found[group] = self._interpolated(rows[group], columns[group])
        return found

    def _places(self, x: Array, y: Array, crs: pyproj.CRS) -> tuple[Array, Array]:
        """Return columns and rows of positions, in pixels from the centre of the first pixel."""
        if self.crs != crs:
            to_raster = pyproj.Transformer.from_crs(crs, self.crs, always_xy=True)
            x, y = to_raster.transform(x, y, errcheck=False)
        if self.crs.is_geographic:
            west = min(self.x[0], self.x[0] + self.x[1] * (self.shape[1] - 1))
            x = west + (x - west) % 360.0
        with np.errstate(invalid="ignore"):
            return (x - self.x[0]) / self.x[1], (y - self.y[0]) / self.y[1]

    def _interpolated(self, rows: Array, columns: Array) -> Array:
        """Return the value at positions within one block."""
        ny, nx = self.shape
        # Points on the last row or column are interpolated from the pixels before it.
        row = np.minimum(np.floor(rows).astype(np.int64), max(ny - 2, 0))
        column = np.minimum(np.floor(columns).astype(np.int64), max(nx - 2, 0))
        top, left = int(row.min()), int(column.min())
        window = self.read(
            slice(top, min(int(row.max()) + 2, ny)), slice(left, min(int(column.max()) + 2, nx))
        )
        window = np.pad(window, ((0, int(ny < 2)), (0, int(nx < 2))), mode="edge")
        down, right = rows - row, columns - column
        row, column = row - top, column - left
        upper = window[row, column] * (1 - right) + window[row, column + 1] * right
        lower = window[row + 1, column] * (1 - right) + window[row + 1, column + 1] * right
        interpolated: Array = upper * (1 - down) + lower * down
        return interpolated


def is_netcdf(path: Path) -> bool:
    """Return whether a file begins as a NetCDF file of any version does."""
    with path.open("rb") as file:
        return file.read(8).startswith((b"CDF", b"\x89HDF\r\n\x1a\n"))


def open_band(path: Path, noun: str, choose: Callable[[Sequence[str | None]], int]) -> Raster:
    """Open a band of a GeoTIFF.

    Parameters
    ----------
    path : Path
        The file.
    noun : str
        What messages call it.
    choose : callable
        Returns the number of the band, from 1 on, for the descriptions of all bands.

    Raises
    ------
    InvalidValue
        The file is not a GeoTIFF, has no CRS or is rotated.
    MissingDependency
        rasterio is not installed.
    """
    try:
        import rasterio
        from rasterio.errors import RasterioIOError
    except ImportError as error:
        raise MissingDependency(
            f"{noun} {path} is not a NetCDF file, and reading a GeoTIFF needs rasterio: pip install 'cryotile[geo]'"
        ) from error
    try:
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            file = rasterio.open(path)
    except RasterioIOError as error:
        raise InvalidValue(
            f"{noun} {path} is neither a GeoTIFF nor a NetCDF file; give one of these"
        ) from error
    transform = file.transform
    if file.crs is None:
        raise _no_crs(path, noun)
    band = choose(file.descriptions)
    scale, offset, tags = file.scales[band - 1], file.offsets[band - 1], file.tags(band)
    if transform.b or transform.d:
        raise InvalidValue(
            f"{noun} {path} is rotated; warp it to the axes of its CRS, e.g. with gdalwarp"
        )

    def read(rows: slice, columns: slice) -> Array:
        window = rasterio.windows.Window.from_slices(rows, columns)
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            stored = file.read(band, window=window, masked=True, out_dtype="float64")
        values: Array = stored.filled(np.nan)
        # As in NetCDF, limits and fill values are those of the stored numbers.
        valid: Array = _where_valid(values, tags) * scale + offset
        return valid

    return Raster(
        pyproj.CRS.from_wkt(file.crs.to_wkt()),
        (transform.c + transform.a / 2, transform.a),
        (transform.f + transform.e / 2, transform.e),
        (file.height, file.width),
        read,
        name=file.descriptions[band - 1] or "",
        units=file.units[band - 1] or tags.get("units", ""),
        attributes={**file.tags(), **tags},
    )


def _where_valid(values: Array, attributes: Mapping[str, str]) -> Array:
    """Return values that are NaN where the text of the attributes of CF says that they are missing."""

    def numbers(name: str) -> list[float]:
        return [
            float(word) for word in attributes.get(name, "").strip("{}[]").replace(",", " ").split()
        ]

    low, high = numbers("valid_range") or [-np.inf, np.inf]
    low, high = (numbers("valid_min") or [low])[0], (numbers("valid_max") or [high])[0]
    missing = np.isin(values, numbers("missing_value") + numbers("_FillValue"))
    return np.where(missing | (values < low) | (values > high), np.nan, values)


def maps_of(file: netCDF4.Dataset) -> dict[str, Any]:
    """Return the variables of numbers over two axes, by name; axes of one band or instant before them are left out."""
    return {
        name: variable
        for name, variable in file.variables.items()
        if variable.ndim >= 2
        and variable.dtype.kind in "iuf"
        and all(size == 1 for size in variable.shape[:-2])
        and all(name in file.variables for name in variable.dimensions[-2:])
    }


def open_netcdf(path: Path, noun: str) -> netCDF4.Dataset:
    """Open a NetCDF file.

    Raises
    ------
    DamagedFile
        It cannot be read.
    """
    try:
        return netCDF4.Dataset(path)
    except (OSError, RuntimeError) as error:
        raise DamagedFile(f"{noun} {path} cannot be read as NetCDF; fetch it again") from error


def open_variable(path: Path, noun: str, choose: Callable[[netCDF4.Dataset], Any]) -> Raster:
    """Open a variable of a NetCDF file.

    Parameters
    ----------
    path : Path
        The file.
    noun : str
        What messages call it.
    choose : callable
        Returns the variable.

    Raises
    ------
    InvalidValue
        The variable has no CRS, or is not evenly spaced.
    DamagedFile
        The file cannot be read.
    """
    file = open_netcdf(path, noun)
    variable = choose(file)
    first = (0,) * (variable.ndim - 2)
    crs = _netcdf_crs(path, noun, file, variable)
    y, x = (np.asarray(file[name][:], np.float64) for name in variable.dimensions[-2:])
    turned = _is_x(file[variable.dimensions[-2]])

    def read(rows: slice, columns: slice) -> Array:
        places = (columns, rows) if turned else (rows, columns)
        stored = np.ma.asarray(variable[(*first, *places)], np.float64)
        values: Array = np.ma.filled(stored, np.nan)
        return values.T if turned else values

    shape = variable.shape[-2:]
    if turned:
        x, y, shape = y, x, shape[::-1]
    return Raster(
        crs,
        _axis(path, noun, x),
        _axis(path, noun, y),
        shape,
        read,
        name=str(variable.name),
        units=str(getattr(variable, "units", "")),
        attributes=_mapping(file, variable)
        | {name: variable.getncattr(name) for name in variable.ncattrs()},
    )


def _is_x(axis: Any) -> bool:
    names = (axis.name, getattr(axis, "standard_name", ""))
    return getattr(axis, "axis", "") == "X" or any(name.casefold() in _X_NAMES for name in names)


def _mapping(file: netCDF4.Dataset, variable: Any) -> dict[str, Any]:
    """Return the attributes of the grid mapping of a variable; none if it has no grid mapping."""
    mapping = file.variables.get(getattr(variable, "grid_mapping", ""))
    return {} if mapping is None else {n: mapping.getncattr(n) for n in mapping.ncattrs()}


def _netcdf_crs(path: Path, noun: str, file: netCDF4.Dataset, variable: Any) -> pyproj.CRS:
    if attributes := _mapping(file, variable):
        text = attributes.get("crs_wkt", attributes.get("spatial_ref"))
        try:
            return pyproj.CRS.from_cf(attributes) if text is None else pyproj.CRS(text)
        except (CRSError, KeyError) as error:
            raise _no_crs(path, noun) from error
    if any(
        getattr(file[name], "units", "").startswith("degree") for name in variable.dimensions[-2:]
    ):
        return pyproj.CRS("EPSG:4326")
    raise _no_crs(path, noun)


def _axis(path: Path, noun: str, values: Array) -> tuple[float, float]:
    steps = np.diff(values)
    if len(values) < 2 or not np.allclose(steps, steps[0], rtol=1e-3) or steps[0] == 0:
        raise InvalidValue(f"{noun} {path} is not evenly spaced; resample it to a regular grid")
    return float(values[0]), float((values[-1] - values[0]) / (len(values) - 1))


def _no_crs(path: Path, noun: str) -> InvalidValue:
    return InvalidValue(
        f"{noun} {path} does not say in which CRS it is; add the CRS, e.g. with gdal_edit.py -a_srs EPSG:3031"
    )


def overlaps(raster: Raster, crs: pyproj.CRS) -> bool:
    """Return whether a raster overlaps the area of use of a CRS, checked at a net of positions in each."""
    use = crs.area_of_use
    if use is None:
        return True
    south, north = max(use.south - BESIDE, -90.0), min(use.north + BESIDE, 90.0)
    west, width = use.west - BESIDE, ((use.east - use.west) % 360.0 or 360.0) + 2 * BESIDE
    ny, nx = raster.shape
    (x, dx), (y, dy) = raster.x, raster.y
    to_raster = pyproj.Transformer.from_crs("EPSG:4326", raster.crs, always_xy=True)
    longitude, latitude = to_raster.transform(
        *_net(x, dx * (nx - 1), y, dy * (ny - 1)), direction="INVERSE", errcheck=False
    )
    near = (latitude >= south) & (latitude <= north) & ((longitude - west) % 360.0 <= width)
    if near.any():
        return True
    # A small area of use may lie between the positions checked in a large raster.
    east, up = to_raster.transform(*_net(west, width, south, north - south), errcheck=False)
    column, row = (east - x) / dx, (up - y) / dy
    return bool(np.any((column >= 0) & (column < nx) & (row >= 0) & (row < ny)))


def _net(x: float, width: float, y: float, height: float) -> tuple[Array, Array]:
    """Return a net of 41 by 41 positions in a rectangle."""
    share = np.linspace(0.0, 1.0, 41)
    columns, rows = np.meshgrid(x + width * share, y + height * share)
    return columns.ravel(), rows.ravel()
