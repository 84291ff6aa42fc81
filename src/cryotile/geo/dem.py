"""Digital elevation models: the height of points above one, from a GeoTIFF or NetCDF file of any size and CRS.

A model is read in blocks, and only the blocks that contain points are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj

from cryotile.errors import InvalidValue
from cryotile.geo.raster import Raster, is_netcdf, maps_of, open_band, open_variable, overlaps
from cryotile.geo.values import HIGHEST, LOWEST

__all__ = ["METRES", "Dem"]

_NAMES = ("dem", "elevation", "height", "surface_altitude", "z", "band1", "data")
_STANDARD_NAMES = ("height_above_reference_ellipsoid", "surface_altitude", "height")

Array = npt.NDArray[np.float64]

METRES = {
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
            raise InvalidValue(
                f"DEM {path} does not exist or is not a file; give a GeoTIFF or NetCDF file"
            )
        self.path = path
        self._crs, self._raster = crs, _in_metres(path, _open(path)).closed()
        if not overlaps(self._raster, crs):
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
        x, y, elevation = (points[name].to_numpy(np.float64) for name in ("x", "y", "elevation"))
        return elevation - self.heights(x, y)

    def heights(self, x: Array, y: Array) -> Array:
        """Return the height of the model at positions, interpolated bilinearly.

        Parameters
        ----------
        x, y : ndarray, shape (positions,)
            Metres, in the CRS of the model's user.

        Returns
        -------
        ndarray, shape (positions,)
            Metres; NaN as for :meth:`difference`.
        """
        return self._raster.at(x, y, self._crs)


def _open(path: Path) -> Raster:
    if is_netcdf(path):
        return open_variable(path, "DEM", lambda file: _elevation(path, file))
    return open_band(path, "DEM", lambda descriptions: _elevation_band(path, descriptions))


def _in_metres(path: Path, raster: Raster) -> Raster:
    """Return a raster of metres above the ellipsoid whose values off the range of ice are NaN."""
    _refuse_geoid(path, raster.attributes)
    metres = METRES.get(raster.units.strip().casefold())
    if metres is None:
        raise InvalidValue(
            f"DEM {path} has heights in {raster.units!r}, which is no known unit of length; convert them to metres"
        )

    def read(rows: slice, columns: slice) -> Array:
        heights = raster.read(rows, columns) * metres
        heights[~((heights >= LOWEST) & (heights <= HIGHEST))] = np.nan
        return heights

    return replace(raster, crs=_horizontal(path, raster.crs), read=read)


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


def _elevation(path: Path, file: netCDF4.Dataset) -> Any:
    """Return the variable over two axes that holds the elevation."""
    maps = {name.casefold(): variable for name, variable in maps_of(file).items()}
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
