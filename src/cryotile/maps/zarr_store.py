"""Datasets as Zarr stores of format 3, written by bands of rows, whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cryotile.errors import InvalidValue, MissingDependency
from cryotile.files import fsync, writing
from cryotile.maps.netcdf import (
    Rows,
    bands,
    chunk_of,
    encoded,
    is_map,
    is_text,
    labels_apart,
    stored_attributes,
    stored_type,
)

if TYPE_CHECKING:
    import zarr

__all__ = ["attributes_of_store", "open_store", "write_zarr"]

_METADATA = "zarr.json"
"""File of a store that has its global attributes."""


def write_zarr(
    path: Path, dataset: xr.Dataset, rows: Rows, advance: Callable[[int], object]
) -> None:
    """Write a dataset to a Zarr store, a directory; an earlier store of the name is replaced at the end.

    Parameters
    ----------
    path : Path
        The store.
    dataset, rows, advance
        As for :func:`cryotile.maps.netcdf.write_dataset`.

    Raises
    ------
    InvalidValue
        The path exists and is not a Zarr store; it stays as it is.
    MissingDependency
        zarr is not installed.
    UnwritablePath
        The store cannot be written, or the disk is full.
    """
    _check_zarr("make the product in NetCDF: give a path that ends in .nc")
    import zarr

    if (path.exists() or path.is_symlink()) and attributes_of_store(path) is None:
        raise InvalidValue(
            f"{path} exists and is not a Zarr store, so that it is not replaced; give another name, or remove it"
        )
    with _atomic_directory(path) as temporary, _unfinished_specification():
        group = zarr.create_group(temporary, zarr_format=3)
        stored = labels_apart(dataset)
        arrays = {str(name): _array(group, stored, str(name)) for name in stored.variables}
        for part in bands(dataset.sizes["y"]):
            for name, values in rows(part).items():
                arrays[name][..., part, :] = encoded(values, arrays[name].dtype)
            advance(part.stop - part.start)
        group.attrs.update(_plain(dataset.attrs))
        zarr.consolidate_metadata(temporary)


def open_store(path: Path, **options: Any) -> xr.Dataset:
    """Open a Zarr store lazily; ``options`` are those of xarray's engine.

    Raises
    ------
    MissingDependency
        zarr is not installed.
    """
    _check_zarr("or make the product in NetCDF")
    with _unfinished_specification():
        return xr.backends.ZarrBackendEntrypoint().open_dataset(path, **options)


def attributes_of_store(path: Path) -> dict[str, Any] | None:
    """Return the global attributes of a Zarr store of format 3; None if a path is not one."""
    try:
        found = json.loads((path / _METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_group = isinstance(found, dict) and found.get("node_type") == "group"
    return dict(found.get("attributes", {})) if is_group else None


def _check_zarr(otherwise: str) -> None:
    try:
        import zarr  # noqa: F401  (xarray uses it, too)
    except ImportError as error:
        raise MissingDependency(
            f"a Zarr store needs zarr: pip install 'cryotile[zarr]'; {otherwise}"
        ) from error


@contextmanager
def _unfinished_specification() -> Iterator[None]:
    """Ignore the warnings of zarr that format 3 has no final word on texts and consolidated metadata yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Zarr V3|Zarr format 3) specification.*")
        yield


def _array(group: zarr.Group, dataset: xr.Dataset, name: str) -> zarr.Array[Any]:
    """Create an array; write it unless it is a map."""
    variable = dataset.variables[name]
    mapped, texts, dtype = is_map(variable), is_text(variable), stored_type(variable)
    array = group.create_array(
        name,
        shape=variable.shape,
        dtype=str if texts else dtype,
        chunks=chunk_of(variable.shape) if mapped else tuple(max(n, 1) for n in variable.shape),
        fill_value=np.nan if dtype.kind == "f" else None,
        attributes=_plain(stored_attributes(dataset, name)),
        dimension_names=[str(dimension) for dimension in variable.dims],
    )
    if not mapped:
        array[...] = variable.values.astype(str) if texts else encoded(variable.values, dtype)
    return array


def _plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes as JSON has them: arrays as lists."""
    return {
        str(name): value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in attributes.items()
    }


@contextmanager
def _atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes its place, on failure it is removed.

    As :func:`cryotile.files.atomic_path`, but a directory cannot be replaced in one step: an earlier one is renamed
    first, and gets its name back if the new one cannot have it.
    """
    mark = secrets.token_hex(6)
    temporary, old = (path.with_name(f".{path.name}.{mark}.{end}") for end in ("tmp", "old"))
    with writing(path):
        try:
            yield temporary
            # A store has thousands of files: to force each to the disk takes longer than to write them.
            os.sync()
            if path.exists():
                path.rename(old)
            try:
                temporary.rename(path)
            except BaseException:
                if old.exists():
                    old.rename(path)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
