"""The mosaic with its metadata, as a file: NetCDF-4 by the CF conventions, or GeoTIFF.

Points and settings alone determine the content; time, path and host do not enter it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

import cryotile
from cryotile.errors import DamagedFile, InvalidValue, command
from cryotile.files import atomic_path
from cryotile.fit.config import FitConfig
from cryotile.fit.variables import Status, Variable, axis_attrs, settings_attrs, time_axes
from cryotile.geo.grid import Grid
from cryotile.geo.projection import areal_scale, projected_crs
from cryotile.maps.geotiff import write_geotiff
from cryotile.maps.netcdf import is_map, write_dataset
from cryotile.maps.zarr_store import write_zarr
from cryotile.points import Bounds

__all__ = [
    "CELL_AREA",
    "cell_area",
    "check_product",
    "described",
    "read_product",
    "summarize_product",
    "write_product",
]

MARK = "cryotile_version"
"""Global attribute that distinguishes a product from other NetCDF files."""

TITLE = "Ice elevation change rate from satellite altimetry"

_GEOTIFF_SUFFIXES = (".tif", ".tiff")


Mosaic = Callable[[slice], xr.Dataset]
"""Returns some rows of a mosaic, as :func:`cryotile.maps.mosaic.mosaic` does."""


def write_product(
    mosaic: xr.Dataset | Mosaic,
    path: Path,
    *,
    grid: Grid,
    config: FitConfig,
    about: Mapping[str, str | int] = MappingProxyType({}),
    sums: xr.Dataset | None = None,
    advance: Callable[[int], object] | None = None,
) -> None:
    """Write a mosaic with its metadata, whole or not at all.

    Parameters
    ----------
    mosaic : Dataset, dimensions (y, x), or callable
        As returned by :func:`cryotile.maps.mosaic.mosaic`, or what returns some rows of it: memory then does not grow
        with the map.
    path : Path
        NetCDF-4 (``.nc``), Zarr (``.zarr``), or GeoTIFF (``.tif``, ``.tiff``) with one band per map, over time one per
        interval.
    grid : Grid
        CRS and posting.
    config : FitConfig
        Settings of the fit.
    about : mapping of str to str or int
        Global attributes that say what the maps are made of; see :func:`cryotile.runs.origin.about`.
    sums : Dataset or None
        Sums by region, which go into a product in NetCDF or Zarr.
    advance : callable
        Told the number of rows written.

    Raises
    ------
    InvalidValue
        The suffix is unknown.
    UnwritablePath
        The directory cannot be written, or the disk is full.
    MissingDependency
        The product is a GeoTIFF and rasterio is not installed, or a Zarr store and zarr is not.
    """
    suffix = path.suffix.lower()
    if suffix not in (".nc", ".zarr", *_GEOTIFF_SUFFIXES):
        raise InvalidValue(
            f"{path} ends in none of .nc, .zarr and .tif; name the product e.g. {path.stem}.nc"
        )
    advance = advance or (lambda _: None)
    made = mosaic if callable(mosaic) else lambda part: mosaic.isel(y=part)
    product = described(
        _outline(made(slice(0, 1)), grid),
        grid=grid,
        config=config,
        about=about,
    )

    if sums is not None and suffix in (".nc", ".zarr"):
        product = product.merge(sums)

    def rows(part: slice) -> dict[str, npt.NDArray[Any]]:
        maps = {str(name): values.to_numpy() for name, values in made(part).data_vars.items()}
        return {**maps, CELL_AREA.name: cell_area(grid.part(grid.rows[part], grid.columns))}

    if suffix == ".zarr":
        write_zarr(path, product, rows, advance)
        return
    with atomic_path(path) as temporary:
        if suffix in _GEOTIFF_SUFFIXES:
            write_geotiff(temporary, product, grid, rows, advance)
        else:
            write_dataset(temporary, product, rows, advance)


def _outline(row: xr.Dataset, grid: Grid) -> xr.Dataset:
    """Return a dataset of the variables of one row over the whole grid; its values take no memory."""
    maps = {name: (v.dims, v.to_numpy(), v.attrs) for name, v in row.data_vars.items()}
    maps[CELL_AREA.name] = (CELL_AREA.dims, CELL_AREA.empty((1, 1)), dict(CELL_AREA.attrs))
    return xr.Dataset(
        {
            name: (dims, np.broadcast_to(v[..., :1, :1], (*v.shape[:-2], *grid.shape)), attrs)
            for name, (dims, v, attrs) in maps.items()
        },
        coords={"y": grid.y, "x": grid.x},
    )


def read_product(path: Path, variables: Sequence[str] | None = None) -> xr.Dataset:
    """Return a product of :func:`write_product`, read into memory.

    Parameters
    ----------
    path : Path
        A NetCDF product.
    variables : sequence of str or None
        Names of the variables to read; None: all with dimensions (y, x).

    Returns
    -------
    Dataset, dimensions (y, x)
        Times as datetime64, all attributes.

    Raises
    ------
    InvalidValue
        The file is absent, is not a product, or lacks a variable.
    DamagedFile
        The file cannot be read to its end.
    """
    check_product(path)
    try:
        with xr.open_dataset(path, engine="netcdf4") as product:
            maps = [str(name) for name, variable in product.data_vars.items() if is_map(variable)]
            names = maps if variables is None else list(variables)
            for name in names:
                if name not in maps:
                    raise InvalidValue(
                        f"{path} has no variable {name!r}; choose one of {', '.join(maps)}"
                    )
            return product[names].load()
    except (OSError, RuntimeError) as error:
        raise DamagedFile(f"{path} is damaged ({error}); assemble it again") from error


def check_product(path: Path) -> None:
    """Raise an error unless a file is a NetCDF product.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    InvalidValue
        It is absent, or is not a product of :func:`write_product` in NetCDF.
    """
    if not is_product(path):
        state = "is not a product of cryotile in NetCDF" if path.exists() else "does not exist"
        file = path.with_suffix(".nc")
        raise InvalidValue(
            f"{path} {state}; make a product with: {command('assemble', 'RUN', '-o', file)}"
        )


def summarize_product(path: Path) -> dict[str, Any] | None:
    """Return what a product says of itself, and its posts in numbers.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    dict or None
        ``attributes`` (global ones), ``shape`` (rows, columns), ``dhdt`` or ``dhdt_difference`` (its percentiles 5, 50
        and 95, m/yr; absent without a fit), ``status`` (name → number of posts).  None if the file is not a product.

    Raises
    ------
    DamagedFile
        The file is a product that cannot be read to its end.
    """
    if not is_product(path):
        return None
    with h5py.File(path, "r") as file:
        # A validation writes a product of the differences of two rates.
        name = "dhdt" if "dhdt" in file else "dhdt_difference"
    product = read_product(path, [name, "status"])
    dhdt = product[name].to_numpy()
    rates = dhdt[np.isfinite(dhdt)]
    counts = np.bincount(product["status"].to_numpy().ravel(), minlength=max(Status) + 1).tolist()
    return {
        # Python's own numbers, as JSON takes them.
        "attributes": {
            n: v.item() if isinstance(v, np.generic) else v for n, v in product.attrs.items()
        },
        "shape": list(dhdt.shape),
        **({name: np.percentile(rates, [5, 50, 95]).tolist()} if rates.size else {}),
        "status": {s.name.lower(): counts[s] for s in Status if counts[s]},
    }


def is_product(path: Path) -> bool:
    """Return whether a file is a product in NetCDF."""
    try:
        with h5py.File(path, "r") as file:
            return MARK in file.attrs
    except OSError:
        return False


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


def described(
    mosaic: xr.Dataset,
    *,
    grid: Grid,
    config: FitConfig,
    about: Mapping[str, str | int] = MappingProxyType({}),
) -> xr.Dataset:
    """Return a mosaic with the metadata of a product.

    Parameters
    ----------
    mosaic : Dataset, dimensions (y, x)
        With :data:`CELL_AREA`; its maps may be lazy, and stay so.
    grid, config, about
        As of :func:`write_product`.
    """
    crs = projected_crs(grid.crs)
    mapping = _grid_mapping(crs, grid)
    mapping_name = mapping.get("grid_mapping_name", "crs")
    area = mosaic[CELL_AREA.name]
    product = mosaic.drop_vars(CELL_AREA.name).assign(
        {mapping_name: ((), np.int32(0), mapping), CELL_AREA.name: area}
    )
    product = product.assign_coords(time_axes(config))
    product["x"].attrs, product["y"].attrs = axis_attrs("x"), axis_attrs("y")
    for name, variable in product.data_vars.items():
        if is_map(variable):
            area_of = {} if name == CELL_AREA.name else {"cell_measures": "area: cell_area"}
            variable.attrs = {**variable.attrs, "grid_mapping": mapping_name, **area_of}
    product.attrs = {**_global_attributes(crs, grid, config), **about}
    return product


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
        "keywords": "ice sheet elevation, glacier elevation, elevation change, satellite altimetry",
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
        "geospatial_lon_min": west,
        "geospatial_lon_max": east,
        "geospatial_lon_units": "degrees_east",
        **settings_attrs(config),
    }
