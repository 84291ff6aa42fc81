"""Columns of tables, whatever they are stored as: text (CSV), Parquet, HDF5, NetCDF."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cryotile.errors import GranuleError
from cryotile.readers.mapping import TextLayout
from cryotile.readers.source import Source

__all__ = ["Columns", "open_columns"]

_PARQUET, _NETCDF3, _GZIP = b"PAR1", b"CDF", b"\x1f\x8b"
_DAMAGE = (OSError, ValueError, RuntimeError, pa.ArrowException, pd.errors.ParserWarning)
"""What pandas, pyarrow and netCDF4 raise when a file is not what its first bytes promise."""


@dataclass(frozen=True)
class Columns:
    """A table that can hand out some of its columns.

    Attributes
    ----------
    path : Path
        The file.
    names : tuple of str
        Of all columns, in the order of the file.
    load : callable
        Names → columns as pandas keeps them (numbers with NaN, instants, text), and none that was not asked for.
    units : mapping of str to str
        What the file says that its numbers count.
    """

    path: Path
    names: tuple[str, ...]
    load: Callable[[Sequence[str]], dict[str, pd.Series[Any]]]
    units: Mapping[str, str]

    def read(self, wanted: Sequence[str]) -> dict[str, pd.Series[Any]]:
        """Read columns, which must be there and equally long.

        Raises
        ------
        GranuleError
            One is missing, they differ in length, or the file is damaged.
        """
        for name in wanted:
            if name not in self.names:
                raise GranuleError(
                    f"granule {self.path} has no column {name!r} (it has {_some(self.names)}); correct the mapping"
                )
        try:
            columns = self.load(list(dict.fromkeys(wanted)))
        except _DAMAGE as error:
            reason = " ".join(str(error).split())
            raise GranuleError(
                f"granule {self.path} cannot be read as a table ({reason}); mend the file, or its layout in the mapping"
            ) from error
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise GranuleError(
                f"granule {self.path} has columns of different lengths ({listed}); map columns of one table"
            )
        return columns


def open_columns(source: Source, layout: TextLayout) -> Columns:
    """Look at the head of a file and say which columns it has.

    Parameters
    ----------
    source : Source
        The file.
    layout : TextLayout
        Of the file if it is text.

    Raises
    ------
    GranuleError
        It is none of the formats, or damaged.
    """
    with source.path.open("rb") as stream:
        head = stream.read(4)
    try:
        if source.file is not None:
            return _hdf5(source, source.file)
        if head == _PARQUET:
            return _parquet(source.path)
        if head.startswith(_NETCDF3):
            return _netcdf3(source.path)
        return _text(source.path, layout, gzipped=head.startswith(_GZIP))
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise GranuleError(
            f"granule {source.path} is no table of text, Parquet, HDF5 or NetCDF ({reason}); give one of these"
        ) from error


def _hdf5(source: Source, file: h5py.File) -> Columns:
    names: list[str] = []

    def note(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim == 1 and node.dtype.names is None:
            names.append(name)

    file.visititems(note)

    def load(wanted: Sequence[str]) -> dict[str, pd.Series[Any]]:
        return {name: pd.Series(_hdf5_column(source, file[name], name)) for name in wanted}

    units = {name: source.attribute("units", of=name) for name in names}
    return Columns(source.path, tuple(names), load, _stated(units))


def _hdf5_column(source: Source, dataset: h5py.Dataset, name: str) -> Any:
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return dataset.asstr()[()]
    return dataset[()] if dataset.dtype.kind == "b" else source.values(name)


def _parquet(path: Path) -> Columns:
    schema = pq.read_schema(path)

    def load(wanted: Sequence[str]) -> dict[str, pd.Series[Any]]:
        table = pq.read_table(path, columns=list(wanted), partitioning=None)
        frame = table.to_pandas(ignore_metadata=True)
        return {name: frame[name] for name in wanted}

    units = {
        field.name: (field.metadata or {}).get(b"units", b"").decode("utf-8", "replace")
        for field in schema
    }
    return Columns(path, tuple(schema.names), load, _stated(units))


def _netcdf3(path: Path) -> Columns:
    import netCDF4

    def load(wanted: Sequence[str]) -> dict[str, pd.Series[Any]]:
        with netCDF4.Dataset(path) as dataset:
            return {
                name: pd.Series(np.ma.filled(dataset[name][:].astype(np.float64), np.nan))
                for name in wanted
            }

    with netCDF4.Dataset(path) as dataset:
        flat = {
            name: getattr(variable, "units", None)
            for name, variable in dataset.variables.items()
            if variable.ndim == 1 and variable.dtype.kind in "iuf"
        }
    return Columns(path, tuple(flat), load, _stated(flat))


def _text(path: Path, layout: TextLayout, *, gzipped: bool) -> Columns:
    read_csv: Callable[..., pd.DataFrame] = pd.read_csv

    def load(wanted: Sequence[str] | None, rows: int | None = None) -> dict[str, pd.Series[Any]]:
        with warnings.catch_warnings():
            # Of rows that are longer than the first: what is beyond would be lost.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return parse(wanted, rows)

    def parse(wanted: Sequence[str] | None, rows: int | None) -> dict[str, pd.Series[Any]]:
        frame = read_csv(
            path,
            sep=r"\s+" if layout.delimiter == "whitespace" else layout.delimiter,
            comment=layout.comment,
            names=layout.names or None,
            header=None if layout.names else 0,
            usecols=wanted,
            nrows=rows,
            index_col=False,
            skipinitialspace=True,
            compression="gzip" if gzipped else None,
            # A column is of one type, however long it is.
            low_memory=False,
        )
        return {str(name): frame[name] for name in frame.columns}

    return Columns(path, tuple(load(None, 0)), load, {})


def _stated(units: Mapping[str, object]) -> dict[str, str]:
    return {name: str(unit) for name, unit in units.items() if unit}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12]) or "none"
    return f"{shown}, and {len(names) - 12} more" if len(names) > 12 else shown
