"""Mosaics of made-up numbers, and vector files for masks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
import xarray as xr
from pyogrio.raw import write

from cryotile.fit.config import FitConfig
from cryotile.fit.variables import Status, fit_variables, time_axes
from cryotile.geo.grid import Grid, Tile

GRID = Grid("EPSG:3031", (-1_510_000.0, -480_000.0, -1_425_000.0, -410_000.0), 1000.0)

CONFIG = FitConfig(
    radius=2000.0, recipe="plane", period=("2015-01-01", "2018-01-01"), reference_epoch="2016-07-02"
)


OVER_TIME = FitConfig(
    radius=2000.0,
    recipe="passes",
    period=CONFIG.period,
    reference_epoch=CONFIG.reference_epoch,
    windows=("2y", "6m"),
    heights="1y",
)
"""Windows and heights: three of each."""


def made_up(posts: Grid | Tile, config: FitConfig = CONFIG) -> xr.Dataset:
    """Return a fit of every variable; what a post has depends on the post alone, and some have no fit."""
    x, y = np.meshgrid(posts.x / 1e5, posts.y / 1e5)
    field = np.sin(7 * x) * np.cos(5 * y)
    has_fit = np.sin(31 * x) * np.sin(37 * y) < 0.5
    arrays = {}
    for number, variable in enumerate(fit_variables(config), start=1):
        if variable.dtype == "float64":
            values = np.where(has_fit, field / number, np.nan)
        elif variable.dtype.startswith("datetime64"):
            days = np.round(100 * field + number).astype("timedelta64[D]")
            values = np.where(has_fit, np.datetime64("2016-07-01") + days, np.datetime64("NaT"))
        else:
            values = np.round(50 + 40 * field)
        if variable.size is not None:
            values = np.stack([values + k * has_fit for k in range(variable.size)])
        arrays[variable.name] = (variable.dims, values.astype(variable.dtype), dict(variable.attrs))
    status = np.where(has_fit, Status.OK, Status.SINGULAR).astype("int8")
    fitted = xr.Dataset(arrays, coords={"y": posts.y, "x": posts.x} | time_axes(config))
    fitted["status"].values[...] = status
    return fitted


def vector_file(
    path: Path,
    *geometries: shapely.Geometry,
    crs: str | None = "EPSG:3031",
    **columns: Sequence[object],
) -> Path:
    """Write a GeoPackage, shapefile, GeoJSON or FlatGeobuf file, by its suffix."""
    blobs = np.array(shapely.to_wkb(geometries), object)
    options = {"SPATIAL_INDEX": "NO"} if path.suffix == ".gpkg" else {}
    kind = geometries[0].geom_type if path.suffix == ".shp" else "Unknown"
    with warnings.catch_warnings():
        # pyogrio warns of a file without CRS, which a test needs.
        warnings.simplefilter("ignore", UserWarning)
        write(
            path,
            blobs,
            [np.array(values) for values in columns.values()],
            list(columns),
            layer=path.stem,
            geometry_type=kind,
            crs=crs,
            layer_options=options,
        )
    return path
