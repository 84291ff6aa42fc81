"""The mosaic with its metadata, as a file: NetCDF-4 by the CF conventions, Zarr, or GeoTIFF.

Points and settings alone determine the content; time, path and host do not enter it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.errors import DamagedFile, InvalidValue, command
from cryotile.files import atomic_path, writing
from cryotile.fit.config import FitConfig
from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid
from cryotile.maps.geotiff import write_geotiffs
from cryotile.maps.metadata import CELL_AREA, MARK, cell_area, date_created, described
from cryotile.maps.netcdf import is_map, labels_on_axes, write_dataset
from cryotile.maps.zarr_store import attributes_of_store, open_store, write_zarr

__all__ = [
    "check_product",
    "chosen",
    "is_geotiff",
    "is_product",
    "open_product",
    "product_files",
    "read_product",
    "summarize_product",
    "write_product",
]

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
    with_area: bool = True,
    advance: Callable[[int], object] | None = None,
) -> None:
    """Write a mosaic with its metadata, whole or not at all.

    Parameters
    ----------
    mosaic : Dataset, dimensions (y, x), or callable
        As returned by :func:`cryotile.maps.mosaic.mosaic`, or what returns some rows of it: memory then does not grow
        with the map.
    path : Path
        NetCDF-4 (``.nc``) or Zarr (``.zarr``); or cloud-optimised GeoTIFF (``.tif``, ``.tiff``), which is one file for
        each map, see :func:`product_files`.
    grid : Grid
        CRS and posting.
    config : FitConfig
        Settings of the fit.
    about : mapping of str to str or int
        Global attributes that say what the maps are made of (:func:`cryotile.runs.origin.about`), and what their maker
        says of them (:func:`cryotile.maps.authorship.check_authorship`).
    sums : Dataset or None
        Sums by region, which go into a product in NetCDF or Zarr.
    with_area : bool
        Whether the product has the map :data:`CELL_AREA`.
    advance : callable
        Told the number of rows written.

    Raises
    ------
    InvalidValue
        The suffix is unknown, or what stands in the place of a Zarr store is none.
    UnwritablePath
        The directory cannot be written, or the disk is full.
    MissingDependency
        The product is a GeoTIFF and rasterio is not installed, or a Zarr store and zarr is not.
    """
    suffix = _suffix(path)
    advance = advance or (lambda _: None)
    made = mosaic if callable(mosaic) else lambda part: mosaic.isel(y=part)
    product = described(
        _outline(made(slice(0, 1)), grid, with_area=with_area),
        grid=grid,
        config=config,
        about={**about, **date_created()},
        sums=sums,
    )

    def rows(part: slice) -> dict[str, npt.NDArray[Any]]:
        maps = {str(name): values.to_numpy() for name, values in made(part).data_vars.items()}
        if "elevation" in maps:
            _extend(product.attrs, maps["elevation"])
        if with_area:
            maps[CELL_AREA.name] = cell_area(grid.part(grid.rows[part], grid.columns))
        return maps

    if suffix == ".zarr":
        write_zarr(path, product, rows, advance)
        return
    with ExitStack() as stack:
        if suffix == ".nc":
            write_dataset(stack.enter_context(atomic_path(path)), product, rows, advance)
            return
        maps = [str(name) for name, variable in product.data_vars.items() if is_map(variable)]
        files = zip(maps, product_files(path, maps), strict=True)
        temporary = {name: stack.enter_context(atomic_path(file)) for name, file in files}
        # Of several files, an error names the one that the user named.
        stack.enter_context(writing(path))
        write_geotiffs(temporary, product, grid, rows, advance)


def product_files(path: Path, maps: Sequence[str]) -> list[Path]:
    """Return the files of a product: a GeoTIFF holds one map, others have its name behind that of the first.

    Parameters
    ----------
    path : Path
        Of :func:`write_product`.
    maps : sequence of str
        Names of the maps, in order.

    Raises
    ------
    InvalidValue
        The suffix is unknown.
    """
    if not is_geotiff(path):
        return [path]
    return [path, *(path.with_name(f"{path.stem}-{name}{path.suffix}") for name in maps[1:])]


def chosen(names: Iterable[str], asked: Collection[str] | None) -> list[str]:
    """Return which variables a product gets, in the order in which a product has them.

    Parameters
    ----------
    names : iterable of str
        All that there are.
    asked : collection of str or None
        What a user asks for; None: all.

    Raises
    ------
    InvalidValue
        One of them does not exist, or there is none.
    """
    there = list(names)
    for name in asked or ():
        if name not in there:
            raise InvalidValue(f"there is no variable {name!r}; choose from {', '.join(there)}")
    if asked is not None and not asked:
        raise InvalidValue(f"no variable is asked for; choose from {', '.join(there)}")
    return [name for name in there if asked is None or name in asked]


def is_geotiff(path: Path) -> bool:
    """Return whether a product of this name is a GeoTIFF.

    Raises
    ------
    InvalidValue
        The suffix is unknown.
    """
    return _suffix(path) in _GEOTIFF_SUFFIXES


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".nc", ".zarr", *_GEOTIFF_SUFFIXES):
        raise InvalidValue(
            f"{path} ends in none of .nc, .zarr and .tif; name the product e.g. {path.stem}.nc"
        )
    return suffix


def _extend(attributes: dict[Any, Any], elevation: npt.NDArray[np.floating]) -> None:
    """Widen the vertical extent of a product by the elevations of some rows, as they are stored."""
    known = elevation[np.isfinite(elevation)].astype(np.float32)
    if not known.size:
        return
    for end, of in (("min", min), ("max", max)):
        name, value = f"geospatial_vertical_{end}", float(getattr(known, end)())
        attributes[name] = of(attributes.get(name, value), value)


def _outline(row: xr.Dataset, grid: Grid, *, with_area: bool) -> xr.Dataset:
    """Return a dataset of the variables of one row over the whole grid; its values take no memory."""
    maps = {name: (v.dims, v.to_numpy(), v.attrs) for name, v in row.data_vars.items()}
    if with_area:
        maps[CELL_AREA.name] = (CELL_AREA.dims, CELL_AREA.empty((1, 1)), dict(CELL_AREA.attrs))
    return xr.Dataset(
        {
            name: (dims, np.broadcast_to(v[..., :1, :1], (*v.shape[:-2], *grid.shape)), attrs)
            for name, (dims, v, attrs) in maps.items()
        },
        coords={"y": grid.y, "x": grid.x},
    )


def open_product(path: Path, **options: Any) -> xr.Dataset:
    """Open a product lazily.

    Parameters
    ----------
    path : Path
        A NetCDF or Zarr product.
    **options
        Of the engine of xarray.

    Returns
    -------
    Dataset, dimensions (y, x)
        Times as datetime64, all attributes.

    Raises
    ------
    InvalidValue
        The path does not exist or is not a product.
    DamagedFile
        It cannot be opened.
    MissingDependency
        It is a Zarr store and zarr is not installed.
    """
    check_product(path)
    try:
        if path.is_dir():
            return labels_on_axes(open_store(path, **options))
        stored = xr.backends.NetCDF4BackendEntrypoint().open_dataset(str(path), **options)
        return labels_on_axes(stored)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DamagedFile(f"{path} is damaged ({error}); assemble it again") from error


def read_product(path: Path, variables: Sequence[str] | None = None) -> xr.Dataset:
    """Return a product of :func:`write_product`, read into memory.

    Parameters
    ----------
    path : Path
        A NetCDF or Zarr product.
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
    with open_product(path) as product:
        maps = [str(name) for name, variable in product.data_vars.items() if is_map(variable)]
        names = maps if variables is None else list(variables)
        for name in names:
            if name not in maps:
                raise InvalidValue(
                    f"{path} has no variable {name!r}; choose one of {', '.join(maps)}"
                )
        try:
            return product[names].load()
        except (OSError, RuntimeError, ValueError) as error:
            raise DamagedFile(f"{path} is damaged ({error}); assemble it again") from error


def check_product(path: Path) -> None:
    """Raise an error unless a path is a product.

    Parameters
    ----------
    path : Path
        The file or the Zarr store.

    Raises
    ------
    InvalidValue
        It is absent, or is not a product of :func:`write_product` in NetCDF or Zarr.
    """
    if not is_product(path):
        state = (
            "is not a product of cryotile in NetCDF or Zarr" if path.exists() else "does not exist"
        )
        if path.is_file() and h5py.is_hdf5(path):
            state += ", or is damaged"
        file = path.with_suffix(".nc")
        raise InvalidValue(
            f"{path} {state}; make a product with: {command('assemble', 'RUN', '-o', file)}"
        )


def summarize_product(path: Path) -> dict[str, Any] | None:
    """Return what a product says of itself, and its posts in numbers.

    Parameters
    ----------
    path : Path
        Any file or directory.

    Returns
    -------
    dict or None
        ``attributes`` (global ones), ``shape`` (rows, columns), ``variables`` (names of the maps), ``dhdt`` or
        ``dhdt_difference`` (its percentiles 5, 50 and 95, m/yr; absent without a fit), ``status`` (name → number of
        posts; absent if the product has no status).  None if the path is not a product.

    Raises
    ------
    DamagedFile
        The product cannot be read to its end.
    """
    if not is_product(path):
        return None
    with open_product(path) as opened:
        maps = [str(name) for name, variable in opened.data_vars.items() if is_map(variable)]
        shape = [opened.sizes["y"], opened.sizes["x"]]
        attributes = dict(opened.attrs)
    # A validation writes a product of the differences of two rates.
    rate = next((name for name in ("dhdt", "dhdt_difference") if name in maps), None)
    product = read_product(path, [name for name in (rate, "status") if name in maps])
    found: dict[str, Any] = {
        # Python's own numbers, as JSON takes them.
        "attributes": {
            n: v.item() if isinstance(v, np.generic) else v for n, v in attributes.items()
        },
        "shape": shape,
        "variables": maps,
    }
    if rate is not None:
        rates = product[rate].to_numpy()
        rates = rates[np.isfinite(rates)]
        if rates.size:
            found[rate] = np.percentile(rates.astype(np.float64), [5, 50, 95]).tolist()
    if "status" in product:
        status = product["status"].to_numpy().ravel()
        counts = np.bincount(status, minlength=max(Status) + 1).tolist()
        found["status"] = {s.name.lower(): counts[s] for s in Status if counts[s]}
    return found


def is_product(path: Path) -> bool:
    """Return whether a path is a product of cryotile in NetCDF or Zarr, whole or not."""
    if path.is_dir():
        return MARK in (attributes_of_store(path) or {})
    try:
        with h5py.File(path, "r") as file:
            return MARK in file.attrs
    except OSError:
        return False
