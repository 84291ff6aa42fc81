"""xarray engine ``cryotile``: a run directory or a product as a lazy Dataset.

Posts of a tile that is missing have status ``not_computed`` and NaN, as in a partial product.  Tiles are read when
their values are needed, so that a Dataset that was opened early sees tiles that are saved later.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK
from xarray.core import indexing

from cryotile.errors import DamagedFile, path_of
from cryotile.fit.variables import VARIABLES, Variable, fit_variables
from cryotile.geo.grid import Grid, Tile
from cryotile.maps.metadata import CELL_AREA, cell_area, described
from cryotile.maps.mosaic import mosaic
from cryotile.maps.product import is_product, open_product
from cryotile.maps.tiles import TileStore
from cryotile.runs.origin import about
from cryotile.runs.run import Run
from cryotile.runs.sums import region_sums

__all__ = ["CryotileBackendEntrypoint", "Product", "named_maps", "open_map", "read_status"]

Product = xr.Dataset | Run | str | os.PathLike[str]

TILES_HELD = 16
"""Decoded tiles that a process keeps: all variables of a tile are usually read one after the other."""

_STATUS = next(variable for variable in VARIABLES if variable.name == "status")

_Values = npt.NDArray[np.generic]


class CryotileBackendEntrypoint(BackendEntrypoint):
    """Open run directories and products of cryotile with ``xr.open_dataset(path, engine="cryotile")``."""

    description: ClassVar[str] = "Runs and products of cryotile"
    url: ClassVar[str] = ""
    open_dataset_parameters: ClassVar[Any] = ("filename_or_obj", "drop_variables")

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> xr.Dataset:
        """Open a run directory or a product lazily.

        Parameters
        ----------
        filename_or_obj : path
            A run directory, or a product in NetCDF or Zarr.
        drop_variables : str or iterable of str or None
            Names of variables to leave out.

        Raises
        ------
        InvalidValue
            The path is neither a run nor a product.
        """
        path = Path(filename_or_obj)
        if not path.is_dir() or is_product(path):
            options = {} if path.is_dir() else {"lock": _NETCDF}
            with _NETCDF:
                dataset = open_product(path, drop_variables=drop_variables, **options)
        else:
            dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
            dataset = _open_run(Run.load(path)).drop_vars(list(dropped), errors="ignore")
        # As coordinates, so that a variable that is taken out of the Dataset still names its CRS.
        named = {v.attrs.get("grid_mapping") for v in dataset.data_vars.values()}
        return dataset.set_coords(named & {*dataset.data_vars})

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether a path is a run directory; products are left to the engines for NetCDF."""
        return (
            isinstance(filename_or_obj, str | os.PathLike)
            and (Path(filename_or_obj) / "run.toml").is_file()
        )


def open_map(path: Path) -> xr.Dataset:
    """Open a run directory or a product lazily, with one dask chunk per tile if dask is installed.

    Parameters
    ----------
    path : Path
        A run directory, or a product in NetCDF or Zarr.

    Returns
    -------
    Dataset, dimensions (y, x)
        Of a product, chunks are those of its file.
    """
    try:
        import dask  # noqa: F401  (xarray uses it where there are chunks)
    except ImportError:
        return xr.open_dataset(path, engine=CryotileBackendEntrypoint)
    return xr.open_dataset(path, engine=CryotileBackendEntrypoint, chunks={})


def read_status(path: Path) -> npt.NDArray[np.int8]:
    """Return the status of each post of a run or product, shape (ny, nx)."""
    # Without chunks: dask would import its distributed scheduler, which takes longer than the reading.
    with xr.open_dataset(path, engine=CryotileBackendEntrypoint) as maps:
        return maps["status"].to_numpy()


def named_maps(product: Product) -> tuple[xr.Dataset, str]:
    """Return the maps of a Dataset, run or path, and what messages call them."""
    if isinstance(product, xr.Dataset):
        return product, "the product"
    path = product.path if isinstance(product, Run) else path_of("product", product)
    return open_map(path), str(path)


class _NetcdfLock:
    """The lock of xarray around the netCDF library, which its holder may take again.

    The library crashes if two threads are in it at once.  xarray holds its lock while it opens a file and while it
    reads data, but not while it reads the metadata of a file that it opens; its lock cannot be held around all of that,
    because it would wait for itself.
    """

    def __init__(self) -> None:
        self._own, self._depth = threading.RLock(), 0

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock; return whether it is taken."""
        if not self._own.acquire(blocking):
            return False
        if self._depth == 0 and not NETCDF4_PYTHON_LOCK.acquire(blocking):
            self._own.release()
            return False
        self._depth += 1
        return True

    def release(self) -> None:
        """Give the lock back."""
        self._depth -= 1
        if self._depth == 0:
            NETCDF4_PYTHON_LOCK.release()
        self._own.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __reduce__(self) -> str:
        # Each process has one.
        return "_NETCDF"


_NETCDF = _NetcdfLock()


class _MapArray(BackendArray):
    """A variable over all posts of a grid, of which each rectangle is made when it is asked for."""

    def __init__(self, grid: Grid, variable: Variable, make: Callable[[Grid], _Values]) -> None:
        times = () if variable.size is None else (variable.size,)
        self.shape, self.dtype = (*times, *grid.shape), np.dtype(variable.dtype)
        self._grid, self._make = grid, make

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        *times, rows, columns = (np.arange(n)[k] for n, k in zip(self.shape, key, strict=True))
        if not (np.size(rows) and np.size(columns)):
            shapes = (np.shape(places) for places in (*times, rows, columns))
            return np.empty(tuple(chain(*shapes)), self.dtype)
        low, left = int(np.min(rows)), int(np.min(columns))
        part = self._make(
            self._grid.part(
                self._grid.rows[low : int(np.max(rows)) + 1],
                self._grid.columns[left : int(np.max(columns)) + 1],
            )
        )
        part = part.take(rows - low, axis=-2).take(columns - left, axis=-1)
        return part.take(times[0], axis=0) if times else part


class _CurrentTiles(TileStore):
    """The tiles of a run that are there, undamaged and up to date; some are held decoded."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.store.path)
        self._run = run
        self._names = tuple(variable.name for variable in fit_variables(run.settings.fit))
        self._tasks = {(tile.ix, tile.iy): index for index, tile in enumerate(run.tiles)}

    def arrays(self, tile: Tile, names: Sequence[str]) -> dict[str, _Values]:
        """Return variables of a tile of the run; raise DamagedFile if the tile is missing."""
        fingerprint = self._run.fingerprint(self._tasks[tile.ix, tile.iy])
        decoded = _decoded(self.path, tile, fingerprint, self._names)
        return {name: decoded[name] for name in names}

    def values(self, variable: Variable, grid: Grid) -> _Values:
        """Return the values of a variable at the posts of a part of the run's grid."""
        settings = self._run.settings
        columns, rows = settings.grid.cuts(settings.tile_size)
        across, up = grid.cuts(settings.tile_size)
        touched = [Tile(ix, iy, columns[ix], rows[iy], grid.posting) for iy in up for ix in across]
        part = mosaic(
            self,
            grid,
            tiles=filter(self._is_there, touched),
            empty=[tile for tile in touched if (tile.ix, tile.iy) not in self._tasks],
            variables=[_STATUS] if variable.name == _STATUS.name else [variable, _STATUS],
            mask=settings.mask,
        )
        return part[variable.name].to_numpy()

    def _is_there(self, tile: Tile) -> bool:
        if (tile.ix, tile.iy) not in self._tasks:
            return False
        try:
            self.arrays(tile, ())
        except DamagedFile:
            return False
        return True


@lru_cache(maxsize=TILES_HELD)
def _decoded(
    path: Path, tile: Tile, fingerprint: str, names: tuple[str, ...]
) -> dict[str, _Values]:
    store = TileStore(path)
    if not store.is_current(tile, fingerprint):
        raise DamagedFile(f"tile {store.file(tile)} is not up to date; run again to make it")
    return store.arrays(tile, names)


def _open_run(run: Run) -> xr.Dataset:
    settings, tiles = run.settings, _CurrentTiles(run)
    grid = settings.map_grid
    columns, rows = grid.cuts(settings.tile_size)
    encoding = {
        "source": str(run.path),
        "preferred_chunks": {
            "y": tuple(len(posts) for posts in rows.values()),
            "x": tuple(len(posts) for posts in columns.values()),
        },
    }

    def lazy(variable: Variable, make: Callable[[Grid], _Values]) -> xr.Variable:
        array = indexing.LazilyIndexedArray(_MapArray(grid, variable, make))
        return xr.Variable(variable.dims, array, dict(variable.attrs), encoding)

    maps = {v.name: lazy(v, partial(tiles.values, v)) for v in fit_variables(settings.fit)}
    dataset = xr.Dataset(
        {**maps, CELL_AREA.name: lazy(CELL_AREA, cell_area)}, coords={"y": grid.y, "x": grid.x}
    )
    sums = None
    if settings.regions is not None:
        # Of the tiles that are there, and whole, when it is opened.
        sums = region_sums(run, {task.index for task in run.missing()})
    dataset = described(dataset, grid=grid, config=settings.fit, about=about(run), sums=sums)
    dataset.encoding["source"] = str(run.path)
    return dataset
