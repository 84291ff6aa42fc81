"""What a product says of itself: attributes by the CF conventions 1.11 and ACDD 1.3."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

import cryotile
from cryotile.errors import InvalidValue
from cryotile.fit.config import FitConfig
from cryotile.fit.variables import Variable, axis_attrs, settings_attrs, time_axes
from cryotile.geo.grid import Grid
from cryotile.geo.projection import areal_scale, projected_crs
from cryotile.maps.netcdf import is_map
from cryotile.maps.unknown import unknowns
from cryotile.points import Bounds
from cryotile.times import parse_instant

__all__ = ["CELL_AREA", "MARK", "TITLE", "cell_area", "date_created", "described"]

MARK = "cryotile_version"
"""Global attribute that distinguishes a product from other files."""

TITLE = "Ice elevation change rate from satellite altimetry"

CELL_AREA = Variable(
    "cell_area",
    "float64",
    np.nan,
    {
        "units": "m2",
        "standard_name": "cell_area",
        "long_name": "true area of the square of one posting around the post",
    },
)


_STANDARD_NAMES = {
    "elevation_sigma": "height_above_reference_ellipsoid standard_error",
    "time_start": "time",
    "time_end": "time",
    "window_data_count": "number_of_observations",
}
"""Names of the CF table in addition to those that the variables of a fit carry; it has none for a rate of elevation."""

_QUALITY = ("_sigma", "_ci95", "_dof", "_sigma_formal", "_rms", "_covariance", "_delta", "status")
_AUXILIARY = ("_count", "centroid_distance", "time_start", "time_end", "radius", "terms")
_REFERENCE = ("_area", "pass_id")


def described(
    mosaic: xr.Dataset,
    *,
    grid: Grid,
    config: FitConfig,
    about: Mapping[str, str | int] = MappingProxyType({}),
    sums: xr.Dataset | None = None,
) -> xr.Dataset:
    """Return a mosaic with the metadata of a product.

    Parameters
    ----------
    mosaic : Dataset, dimensions (y, x)
        Its maps may be lazy, and stay so; :data:`CELL_AREA` may be one of them.
    grid, config, about, sums
        As of :func:`cryotile.maps.product.write_product`.

    Returns
    -------
    Dataset
        With the grid mapping, the coordinates of time and their bounds, and the scalar coordinate ``period``.
    """
    crs = projected_crs(grid.crs)
    mapping = _grid_mapping(crs, grid)
    mapping_name = mapping.get("grid_mapping_name", "crs")
    product = mosaic.assign({mapping_name: ((), np.int32(0), mapping)})
    axes = time_axes(config)
    axes |= _period_axis(config)
    product = product.assign_coords(axes).reset_coords([name for name in axes if "_bnds" in name])
    if sums is not None:
        product = product.merge(sums, combine_attrs="override")
    for name in product.indexes.keys() & {"x", "y", "time", "height_time"}:
        axis = axis_attrs(str(name)) if name in ("x", "y") else product[name].attrs
        product[name].attrs = {**axis, "coverage_content_type": "coordinate"}
    for name, variable in product.data_vars.items():
        if str(name) != mapping_name and not str(name).endswith("_bnds"):
            variable.attrs = _attributes(str(name), variable, mapping_name, product)
    product.attrs = {**_global_attributes(crs, grid, config), **about}
    product.attrs["limitations"] = "; ".join(unknowns(product))
    return product


def _period_axis(config: FitConfig) -> dict[str, xr.Variable]:
    """Return the middle of the period as a scalar coordinate, of which cell methods of two dimensions are.

    Its ends are in ``time_coverage_start`` and ``…_end``: compliance-checker 6.1 rejects the bounds of a scalar.
    """
    if config.period is None:
        return {}
    start, end = _ends(config.period)
    about = {"standard_name": "time", "long_name": "middle of the period"}
    return {"period": xr.Variable((), start + (end - start) // 2, about)}


def _ends(period: tuple[str, str]) -> tuple[np.datetime64, np.datetime64]:
    start, end = (np.datetime64(parse_instant(text), "ms") for text in period)
    return start, end


def _attributes(
    name: str, variable: xr.DataArray, mapping: str, product: xr.Dataset
) -> dict[str, Any]:
    """Return the attributes of a variable of a product; none names a variable that the product does not have."""
    attrs = {**variable.attrs, "coverage_content_type": _content_type(name)}
    if name in _STANDARD_NAMES:
        attrs["standard_name"] = _STANDARD_NAMES[name]
    if "ancillary_variables" in attrs:
        named = [one for one in attrs.pop("ancillary_variables").split() if one in product]
        attrs |= {"ancillary_variables": " ".join(named)} if named else {}
    if is_map(variable):
        attrs["grid_mapping"] = mapping
        if (method := _cell_method(name, variable)) and method.split(":")[0] in product.coords:
            attrs["cell_methods"] = method
        if name != CELL_AREA.name and CELL_AREA.name in product:
            attrs["cell_measures"] = f"area: {CELL_AREA.name}"
    return attrs


def _content_type(name: str) -> str:
    """Return what a variable is in the words of ISO 19115-1."""
    if name.endswith(_QUALITY):
        return "qualityInformation"
    if name.endswith(_AUXILIARY):
        return "auxiliaryInformation"
    return "referenceInformation" if name.endswith(_REFERENCE) else "physicalMeasurement"


def _cell_method(name: str, variable: xr.DataArray) -> str | None:
    """Return how a value stands for its interval of time; None if it stands for none."""
    interval = "period" if variable.ndim == 2 else str(variable.dims[0])
    about = " (time_coverage_start to time_coverage_end)" if variable.ndim == 2 else ""
    if name.endswith("_count"):
        return f"{interval}: sum{about}"
    is_mean = variable.attrs.get("units") == "m yr-1" or name == "height"
    return f"{interval}: mean{about}" if is_mean and not name.endswith(_QUALITY) else None


def _grid_mapping(crs: pyproj.CRS, grid: Grid) -> dict[str, Any]:
    mapping = crs.to_cf()
    if mapping.get("grid_mapping_name") == "polar_stereographic" and "standard_parallel" in mapping:
        # CF requires the latitude of the pole, which pyproj omits if there is a standard parallel.
        pole = math.copysign(90.0, mapping["standard_parallel"])
        mapping.setdefault("latitude_of_projection_origin", pole)
    left, bottom, _, top = _edges(grid)
    # The transform of the rows as stored, from south to north: rioxarray applies it to the array as it is; GDAL and GMT
    # follow the axes.  Where an axis has a single post, GDAL takes the transform, and expects it from the north.
    row, step = (bottom, grid.posting) if min(grid.shape) > 1 else (top, -grid.posting)
    transform = f"{left!r} {grid.posting!r} 0 {row!r} 0 {step!r}"
    # The attributes of GDAL in addition to those of CF: they also define a grid of a single row.
    return {**mapping, "spatial_ref": mapping["crs_wkt"], "GeoTransform": transform}


def _edges(grid: Grid) -> Bounds:
    """Return the outer edges of the squares around the outermost posts, metres."""
    x, y, half = grid.x, grid.y, grid.posting / 2
    return float(x[0] - half), float(y[0] - half), float(x[-1] + half), float(y[-1] + half)


def cell_area(grid: Grid) -> npt.NDArray[np.float64]:
    """Return the true area of the square of one posting around each post, m²; ndarray, shape (ny, nx)."""
    crs = projected_crs(grid.crs)
    # Row by row, because the factors of all posts at once need ten times the memory of the result.
    x, area = grid.x, np.empty(grid.shape)
    for row, y in enumerate(grid.y):
        area[row] = grid.posting**2 / areal_scale(crs, x, np.full_like(x, y))
    return area


def _global_attributes(crs: pyproj.CRS, grid: Grid, config: FitConfig) -> dict[str, Any]:
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(*_edges(grid))
    left, bottom, right, top = _edges(grid)
    corners = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    return {
        "Conventions": "CF-1.11, ACDD-1.3",
        "title": TITLE,
        "summary": (
            f"Least-squares fit of a surface and its rate of change (recipe {config.recipe}) to the elevations within"
            f" {config.radius:g} m of each post, every {grid.posting:g} m. A post without a fit has NaN, and status"
            " says why."
        ),
        "keywords": "EARTH SCIENCE > CRYOSPHERE > GLACIERS/ICE SHEETS > GLACIER ELEVATION/ICE SHEET ELEVATION",
        "keywords_vocabulary": "GCMD Science Keywords",
        "standard_name_vocabulary": "CF Standard Name Table v93",
        "source": "satellite altimetry",
        "processing_level": "Level 3",
        "cdm_data_type": "Grid",
        "references": "https://doi.org/10.5334/jors.393",
        "history": f"cryotile {cryotile.__version__}: plan, run, assemble",
        MARK: cryotile.__version__,
        "crs": grid.crs,
        "posting": grid.posting,
        "geospatial_bounds": f"POLYGON (({', '.join(f'{x!r} {y!r}' for x, y in corners)}))",
        "geospatial_bounds_crs": grid.crs,
        "geospatial_lat_min": south,
        "geospatial_lat_max": north,
        "geospatial_lat_units": "degrees_north",
        "geospatial_lat_resolution": f"{grid.posting:g} m",
        "geospatial_lon_min": west,
        "geospatial_lon_max": east,
        "geospatial_lon_units": "degrees_east",
        "geospatial_lon_resolution": f"{grid.posting:g} m",
        # Elevations are above the WGS84 ellipsoid, whose 3D CRS is EPSG:4979.
        "geospatial_bounds_vertical_crs": "EPSG:4979",
        "geospatial_vertical_positive": "up",
        "geospatial_vertical_units": "m",
        **settings_attrs(config),
        **_time_coverage(config),
    }


def _time_coverage(config: FitConfig) -> dict[str, str]:
    """Return length of the period and distance of its values in time, as durations of ISO 8601."""
    if config.period is None:
        return {}
    start, end = _ends(config.period)
    step = end - start
    for intervals in config.intervals.values():
        if len(intervals) > 1:
            step = min(step, (intervals[-1, 0] - intervals[0, 0]) / (len(intervals) - 1))
    return {
        "time_coverage_duration": _duration(end - start),
        "time_coverage_resolution": _duration(step),
    }


def _duration(length: np.timedelta64) -> str:
    return f"P{round(length / np.timedelta64(1, 'D'))}D"


def date_created() -> dict[str, str]:
    """Return ``date_created`` by the environment variable ``SOURCE_DATE_EPOCH``; nothing without it.

    Raises
    ------
    InvalidValue
        It is not a number of seconds since 1970.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return {}
    try:
        instant = datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidValue(
            f"SOURCE_DATE_EPOCH {text!r} is not a number of seconds since 1970; set it to one, or unset it"
        ) from error
    return {"date_created": instant.strftime("%Y-%m-%dT%H:%M:%SZ")}
