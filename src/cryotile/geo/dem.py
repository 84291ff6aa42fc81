"""Digital elevation models: the height of points above one, from a GeoTIFF or NetCDF file of any size and CRS.

A model is read in blocks, and only the blocks that contain points are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
from pyproj.exceptions import CRSError

from cryotile.errors import InvalidValue, MissingDependency

__all__ = ["Dem"]

BLOCK = 1024
"""Pixels along a side of a block: 8 MB."""

GDAL_CACHE = 64
"""Megabytes; the default of GDAL is a twentieth of the memory."""

BESIDE = 5.0
"""Degrees by which maps may reach beyond the area of use of a CRS."""

_NAMES = ("dem", "elevation", "height", "surface_altitude", "z", "band1", "data")
_STANDARD_NAMES = ("height_above_reference_ellipsoid", "surface_altitude", "height")

Array = npt.NDArray[np.float64]

LOWEST, HIGHEST = -500.0, 9000.0
"""Ice is within these heights above the ellipsoid, metres.  Other values (-9999, 9999) mark places without a height."""

_METRES = {
    **dict.fromkeys(("", "1", "m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("km", "kilometre", "kilometer", "kilometres", "kilometers"), 1000.0),
    **dict.fromkeys(("dm", "decimetre", "decimeter"), 0.1),
    **dict.fromkeys(("cm", "centimetre", "centimeter", "centimetres", "centimeters"), 0.01),
    **dict.fromkeys(("mm", "millimetre", "millimeter", "millimetres", "millimeters"), 0.001),
    **dict.fromkeys(("ft", "foot", "feet", "international foot"), 0.3048),
    **dict.fromkeys(("us survey foot", "us_survey_foot", "ftus", "us-ft"), 1200 / 3937),
}
"""Metres per unit of height."""

_DATUM_ATTRIBUTES = (
    "geoid_name",
    "geopotential_datum_name",
    "vertical_datum",
    "vertical_reference",
    "geoid",
)
_GEOID_NAMES = ("height_above_geopotential_datum", "height_above_mean_sea_level")


@dataclass(frozen=True, eq=False)
class _Raster:
    """Elevations at the pixel centres of a grid aligned with the axes of its CRS.

    Attributes
    ----------
    crs : pyproj.CRS
        CRS of the grid.
    x, y : (float, float)
        Centre of the first pixel and distance to the next, in units of the CRS.
    shape : (int, int)
        Rows, columns.
    read : callable
        Returns the elevations of some rows and columns, metres; NaN where there is none.
    """

    def closed(self) -> _Raster:
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

    def in_metres(self, path: Path, units: str) -> _Raster:
        """Return a raster of metres whose values off the range of ice are NaN."""
        metres = _METRES.get(units.strip().casefold())
        if metres is None:
            raise InvalidValue(
                f"DEM {path} has heights in {units!r}, which is no known unit of length; convert them to metres"
            )

        def read(rows: slice, columns: slice) -> Array:
            heights = self.read(rows, columns) * metres
            heights[~((heights >= LOWEST) & (heights <= HIGHEST))] = np.nan
            return heights

        return replace(self, read=read)

    crs: pyproj.CRS
    x: tuple[float, float]
    y: tuple[float, float]
    shape: tuple[int, int]
    read: Callable[[slice, slice], Array]


class Dem:
    """An elevation model, open for reading.

    Parameters
    ----------
    path : Path
        A GeoTIFF (with rasterio), or a NetCDF file with the elevation over ``y, x`` and a CF grid mapping; heights
        above the WGS84 ellipsoid, in metres unless the file names another unit.  A file with several maps names the
        elevation ``dem``, ``elevation`` or ``height``.
    crs : pyproj.CRS
        CRS of the points passed to :meth:`difference`.

    Raises
    ------
    InvalidValue
        The file is absent, is not an elevation model, has no CRS, gives heights above a geoid or in an unknown unit, or
        does not overlap the area of use of ``crs``.
    MissingDependency
        The file is a GeoTIFF and rasterio is not installed.
    """

    def __init__(self, path: Path, crs: pyproj.CRS) -> None:
        if not path.is_file():
            raise InvalidValue(f"DEM {path} does not exist; give a GeoTIFF or NetCDF file")
        self.path = path
        raster = _open_netcdf(path) if _is_netcdf(path) else _open_geotiff(path)
        self._raster = raster.closed()
        self._transformer = (
            None
            if self._raster.crs == crs
            else pyproj.Transformer.from_crs(crs, self._raster.crs, always_xy=True)
        )
        if not _overlap(self._raster, crs):
            raise InvalidValue(
                f"DEM {path} ({self._raster.crs.name}) covers no place of the point DB's CRS ({crs.name}); give the DEM"
                " of that part of the Earth"
            )

    def difference(self, points: pd.DataFrame) -> Array:
        """Return the height of points above the model, interpolated bilinearly.

        Parameters
        ----------
        points : DataFrame
            With ``x, y, elevation``, metres.

        Returns
        -------
        ndarray, shape (points,)
            Metres; NaN outside the model and where one of the four surrounding values is missing.
        """
        columns, rows = self._places(points)
        ny, nx = self._raster.shape
        inside = (columns >= 0) & (columns <= nx - 1) & (rows >= 0) & (rows <= ny - 1)
        found = np.full(len(points), np.nan)
        at = np.flatnonzero(inside)
        blocks = (rows[at] // BLOCK).astype(np.int64) * (nx // BLOCK + 1) + (columns[at] // BLOCK)
        order = np.argsort(blocks, kind="stable")
        for group in np.split(at[order], np.flatnonzero(np.diff(blocks[order])) + 1):
            if len(group):
                found[group] = self._interpolated(rows[group], columns[group])
        above: Array = points["elevation"].to_numpy(np.float64) - found
        return above

    def _places(self, points: pd.DataFrame) -> tuple[Array, Array]:
        """Return columns and rows of points, in pixels from the centre of the first pixel."""
        x, y = (points[name].to_numpy(np.float64) for name in ("x", "y"))
        if self._transformer is not None:
            x, y = self._transformer.transform(x, y, errcheck=False)
        raster = self._raster
        if raster.crs.is_geographic:
            west = min(raster.x[0], raster.x[0] + raster.x[1] * (raster.shape[1] - 1))
            x = west + (x - west) % 360.0
        with np.errstate(invalid="ignore"):
            return (x - raster.x[0]) / raster.x[1], (y - raster.y[0]) / raster.y[1]

    def _interpolated(self, rows: Array, columns: Array) -> Array:
        """Return the elevation at positions within one block."""
        ny, nx = self._raster.shape
        # Points on the last row or column are interpolated from the pixels before it.
        row = np.minimum(np.floor(rows).astype(np.int64), max(ny - 2, 0))
        column = np.minimum(np.floor(columns).astype(np.int64), max(nx - 2, 0))
        top, left = int(row.min()), int(column.min())
        window = self._raster.read(
            slice(top, min(int(row.max()) + 2, ny)), slice(left, min(int(column.max()) + 2, nx))
        )
        window = np.pad(window, ((0, int(ny < 2)), (0, int(nx < 2))), mode="edge")
        down, right = rows - row, columns - column
        row, column = row - top, column - left
        upper = window[row, column] * (1 - right) + window[row, column + 1] * right
        lower = window[row + 1, column] * (1 - right) + window[row + 1, column + 1] * right
        interpolated: Array = upper * (1 - down) + lower * down
        return interpolated


def _is_netcdf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith((b"CDF", b"\x89HDF\r\n\x1a\n"))


def _open_geotiff(path: Path) -> _Raster:
    try:
        import rasterio
        from rasterio.errors import RasterioIOError
    except ImportError as error:
        raise MissingDependency(
            f"DEM {path} is not a NetCDF file, and reading a GeoTIFF needs rasterio: pip install 'cryotile[geo]'"
        ) from error
    try:
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            file = rasterio.open(path)
    except RasterioIOError as error:
        raise InvalidValue(
            f"DEM {path} is neither a GeoTIFF nor a NetCDF file; give one of these"
        ) from error
    transform = file.transform
    if file.crs is None:
        raise _no_crs(path)
    band = _elevation_band(path, file.descriptions)
    scale, offset, tags = file.scales[band - 1], file.offsets[band - 1], file.tags(band)
    _refuse_geoid(path, {**file.tags(), **tags})
    if transform.b or transform.d:
        raise InvalidValue(
            f"DEM {path} is rotated; warp it to the axes of its CRS, e.g. with gdalwarp"
        )

    def read(rows: slice, columns: slice) -> Array:
        window = rasterio.windows.Window.from_slices(rows, columns)
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            stored = file.read(band, window=window, masked=True, out_dtype="float64")
        values: Array = stored.filled(np.nan)
        # As in NetCDF, limits and fill values are those of the stored numbers.
        heights: Array = _where_valid(values, tags) * scale + offset
        return heights

    raster = _Raster(
        _horizontal(path, pyproj.CRS.from_wkt(file.crs.to_wkt())),
        (transform.c + transform.a / 2, transform.a),
        (transform.f + transform.e / 2, transform.e),
        (file.height, file.width),
        read,
    )
    return raster.in_metres(path, file.units[band - 1] or tags.get("units", ""))


def _elevation_band(path: Path, descriptions: Sequence[str | None]) -> int:
    """Return the number of the band of a GeoTIFF that holds the elevation."""
    names = [str(text or "").casefold() for text in descriptions]
    found = [names.index(name) + 1 for name in _NAMES if name in names]
    if len(names) > 1 and not found:
        raise InvalidValue(
            f"DEM {path} has {len(names)} bands, and none is named {_NAMES[0]};"
            " extract that of the elevation, e.g. with gdal_translate -b 1"
        )
    return (found or [1])[0]


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


def _horizontal(path: Path, crs: pyproj.CRS) -> pyproj.CRS:
    """Return a CRS without its heights, which must be above the ellipsoid."""
    if crs.is_compound:
        vertical = crs.sub_crs_list[-1]
        if "ellips" not in vertical.name.casefold():
            raise _above_geoid(path, vertical.name)
        crs = crs.sub_crs_list[0]
    return crs.to_2d()


def _refuse_geoid(path: Path, attributes: Mapping[str, Any]) -> None:
    """Refuse heights whose metadata name a surface other than the ellipsoid."""
    for name, value in attributes.items():
        text = str(value).casefold()
        if name.casefold() in _DATUM_ATTRIBUTES and not ("ellips" in text or "wgs" in text):
            raise _above_geoid(path, str(value))
        if name == "standard_name" and text in _GEOID_NAMES:
            raise _above_geoid(path, text)


def _above_geoid(path: Path, datum: str) -> InvalidValue:
    return InvalidValue(
        f"DEM {path} has heights of {datum}, not above the ellipsoid; convert it, e.g. with gdalwarp -t_srs EPSG:4979"
    )


def _open_netcdf(path: Path) -> _Raster:
    file = netCDF4.Dataset(path)
    variable = _elevation(path, file)
    y, x = (np.asarray(file[name][:], np.float64) for name in variable.dimensions[-2:])
    _refuse_geoid(path, {name: variable.getncattr(name) for name in variable.ncattrs()})
    first = (0,) * (variable.ndim - 2)

    def read(rows: slice, columns: slice) -> Array:
        stored = np.ma.asarray(variable[(*first, rows, columns)], np.float64)
        values: Array = np.ma.filled(stored, np.nan)
        return values

    raster = _Raster(
        _netcdf_crs(path, file, variable), _axis(path, x), _axis(path, y), variable.shape[-2:], read
    )
    return raster.in_metres(path, str(getattr(variable, "units", "")))


def _elevation(path: Path, file: netCDF4.Dataset) -> Any:
    """Return the variable over two axes that holds the elevation."""
    maps = {
        name.casefold(): variable
        for name, variable in file.variables.items()
        if variable.ndim >= 2
        and variable.dtype.kind in "iuf"
        # A dimension of one band or instant before the axes is left out.
        and all(size == 1 for size in variable.shape[:-2])
        and all(name in file.variables for name in variable.dimensions[-2:])
    }
    if len(maps) == 1:
        return next(iter(maps.values()))
    standard = [v for v in maps.values() if getattr(v, "standard_name", "") in _STANDARD_NAMES]
    named = [maps[name] for name in _NAMES if name in maps]
    if not maps:
        raise InvalidValue(
            f"DEM {path} has no map (no variable over y, x); give a GeoTIFF or NetCDF file of elevations on a grid"
        )
    if not (standard or named):
        raise InvalidValue(
            f"DEM {path} has {len(maps)} maps ({', '.join(sorted(maps))}), and none is marked as the elevation;"
            f" name one {_NAMES[0]}"
        )
    return (standard or named)[0]


def _netcdf_crs(path: Path, file: netCDF4.Dataset, variable: Any) -> pyproj.CRS:
    mapping = file.variables.get(getattr(variable, "grid_mapping", ""))
    if mapping is not None:
        attributes = {name: mapping.getncattr(name) for name in mapping.ncattrs()}
        _refuse_geoid(path, attributes)
        text = attributes.get("crs_wkt", attributes.get("spatial_ref"))
        try:
            crs = pyproj.CRS.from_cf(attributes) if text is None else pyproj.CRS(text)
        except (CRSError, KeyError) as error:
            raise _no_crs(path) from error
        return _horizontal(path, crs)
    if getattr(file[variable.dimensions[-1]], "units", "").startswith("degree"):
        return pyproj.CRS("EPSG:4326")
    raise _no_crs(path)


def _axis(path: Path, values: Array) -> tuple[float, float]:
    steps = np.diff(values)
    if len(values) < 2 or not np.allclose(steps, steps[0], rtol=1e-3) or steps[0] == 0:
        raise InvalidValue(f"DEM {path} is not evenly spaced; resample it to a regular grid")
    return float(values[0]), float((values[-1] - values[0]) / (len(values) - 1))


def _no_crs(path: Path) -> InvalidValue:
    return InvalidValue(
        f"DEM {path} does not say in which CRS it is; add the CRS, e.g. with gdal_edit.py -a_srs EPSG:3031"
    )


def _overlap(raster: _Raster, crs: pyproj.CRS) -> bool:
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
