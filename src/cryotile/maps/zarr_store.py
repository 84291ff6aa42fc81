"""Datasets as Zarr stores of format 3, written by bands of rows, whole or not at all."""

from __future__ import annotations

import secrets
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from cryotile.errors import MissingDependency
from cryotile.files import writing
from cryotile.maps.netcdf import CHUNK, TIME_UNITS, Rows, bands, is_map

__all__ = ["write_zarr"]


def write_zarr(
    path: Path, dataset: xr.Dataset, rows: Rows, advance: Callable[[int], object]
) -> None:
    """Write a dataset to a Zarr store, a directory; an earlier one of the name is replaced at the end.

    Parameters
    ----------
    path : Path
        The store.
    dataset : Dataset
        As for :func:`cryotile.maps.netcdf.write_dataset`.
    rows, advance
        As for :func:`cryotile.maps.netcdf.write_dataset`.

    Raises
    ------
    MissingDependency
        zarr is not installed.
    UnwritablePath
        The store cannot be written, or the disk is full.
    """
    try:
        import zarr  # noqa: F401  (xarray uses it)
    except ImportError as error:
        raise MissingDependency(
            "a Zarr store needs zarr: pip install 'cryotile[zarr]'; or give a path that ends in .nc"
        ) from error
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    maps = {str(name): v for name, v in dataset.data_vars.items() if is_map(v)}
    with writing(path), warnings.catch_warnings():
        # Format 3 has no final word on texts yet.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        try:
            for part in bands(dataset.sizes["y"]):
                values = rows(part)
                band = dataset.isel(y=part).assign(
                    {name: (v.dims, values[name], v.attrs) for name, v in maps.items()}
                )
                if part.start == 0:
                    encoding = {name: _encoding(band[name]) for name in maps}
                    band.to_zarr(
                        temporary, mode="w", zarr_format=3, consolidated=False, encoding=encoding
                    )
                else:
                    along = band.drop_vars(
                        [n for n, v in band.variables.items() if "y" not in v.dims]
                    )
                    along.to_zarr(temporary, append_dim="y", zarr_format=3, consolidated=False)
                advance(part.stop - part.start)
            if path.exists():
                old = path.with_name(f".{path.name}.{secrets.token_hex(6)}.old")
                path.rename(old)
                temporary.rename(path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _encoding(variable: xr.DataArray) -> dict[str, object]:
    """Return chunks of the store, and instants as the NetCDF product has them."""
    chunks = (*(1 for _ in variable.shape[:-2]), CHUNK, min(CHUNK, variable.shape[-1]))
    if variable.dtype.kind != "M":
        return {"chunks": chunks}
    return {"chunks": chunks, "units": TIME_UNITS, "dtype": "float64", "_FillValue": np.nan}
