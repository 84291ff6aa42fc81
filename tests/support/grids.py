"""Small grids in NetCDF files, as users give them with a total."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import xarray as xr

from cryotile.geo.grid import Grid


def projected_grid(path: Path, grid: Grid, **maps: tuple[np.ndarray, str]) -> Path:
    """Write maps (values, units) over the posts of a grid; an empty unit is not written."""
    variables = {
        name: (("y", "x"), values, {"grid_mapping": "crs"} | ({"units": units} if units else {}))
        for name, (values, units) in maps.items()
    }
    crs = ((), 0, {"crs_wkt": pyproj.CRS(grid.crs).to_wkt()})
    xr.Dataset({**variables, "crs": crs}, coords={"y": grid.y, "x": grid.x}).to_netcdf(path)
    return path


def degree_grid(path: Path, south: float, north: float, **maps: tuple[float, str]) -> Path:
    """Write constant maps (value, units) over a band of latitudes, by longitude and latitude, north first."""
    latitude, longitude = np.arange(north, south - 0.5, -0.5), np.arange(-180.0, 180.0, 1.0)
    shape = (len(longitude), len(latitude))
    coords = {
        "lon": ("lon", longitude, {"units": "degrees_east"}),
        "lat": ("lat", latitude, {"units": "degrees_north"}),
    }
    variables = {
        name: (("lon", "lat"), np.full(shape, value), {"units": units})
        for name, (value, units) in maps.items()
    }
    xr.Dataset(variables, coords=coords).to_netcdf(path)
    return path
