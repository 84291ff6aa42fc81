"""Columns of tables in any supported format: text (CSV), Parquet, HDF5, NetCDF."""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote

import h5py
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cryotile.errors import GranuleError
from cryotile.geo.values import physical_values
from cryotile.readers.source import Source, is_yes
from cryotile.readers.tables.mapping import TextLayout
from cryotile.times import parse_dates

__all__ = ["Columns", "Piece", "open_columns"]

HEAD = 1000
"""Rows of a text file from which the types of its columns are inferred."""

_PARQUET, _NETCDF3, _GZIP = b"PAR1", b"CDF", b"\x1f\x8b"
T = TypeVar("T")

_DAMAGE = (
    OSError,
    ValueError,
    RuntimeError,
    pa.ArrowException,
    pd.errors.ParserWarning,
    struct.error,
)
"""Raised by pandas, pyarrow, netCDF4 and struct if a file does not match its first bytes."""


Piece: TypeAlias = "dict[str, pd.Series[Any]]"
"""Some rows of some columns: numbers with NaN, instants, text."""


@dataclass(frozen=True)
class Columns:
    """A table whose columns can be read one by one.

    Attributes
    ----------
    path : Path
        The file.
    names : tuple of str
        All columns, in the order of the file.
    load : callable
        Names, and rows of a piece or None → pieces with exactly these columns; None: a single piece.
    units : mapping of str to str
        Column → unit, if the file states it.
    calendars : mapping of str to str
        Column → calendar of a time, if the file states it.
    simulated : bool
        Whether the file says that its points are simulated: in an attribute, in a text file in a column.
    """

    path: Path
    names: tuple[str, ...]
    load: Callable[[Sequence[str], int | None], Iterator[Piece]]
    units: Mapping[str, str]
    calendars: Mapping[str, str] = field(default_factory=dict)
    simulated: bool = False

    def read(
        self,
        wanted: Sequence[str],
        *,
        rows: int | None = None,
        missing: Sequence[float] = (),
        dated: Mapping[str, float] | None = None,
    ) -> Iterator[Piece]:
        """Read columns, which must exist and have equal lengths, in pieces of ``rows`` rows; None: in one piece.

        A name may be a sum or difference of columns and numbers, such as ``"h - d_ellip + 0.5"``, with blanks around
        the signs; it is missing where one of them is, also by the numbers ``missing``.  The sums in ``dated`` are
        instants: a column of dates, and times of day as text or in numbers of that many seconds.

        Raises
        ------
        GranuleError
            One is missing, they differ in length, or the file is damaged.
        """
        terms = {name: self._terms(name) for name in wanted}
        operands = {term for each in terms.values() for _, term in each if not _is_number(term)}
        stored = {name: self._stored(name) for name in sorted(operands)}
        try:
            for columns in self.load(list(dict.fromkeys(stored.values())), rows):
                self._check_lengths(columns)
                found = {
                    name: columns[column] if column == name else _member(columns[column], name)
                    for name, column in stored.items()
                }
                yield {
                    name: found[name]
                    if name in found
                    else _instants(each, found, missing, dated[name])
                    if dated and name in dated
                    else _total(each, found, missing)
                    for name, each in terms.items()
                }
        except _DAMAGE as error:
            reason = " ".join(str(error).split())
            raise GranuleError(
                f"granule {self.path} cannot be read as a table ({reason}); correct the file or the mapping"
            ) from error

    def _terms(self, name: str) -> list[tuple[str, str]]:
        """Return sign and name or number of each term of a sum; the column itself if there is one of that name."""
        first, *others = [name] if name in self.names else _SIGN.split(name.strip())
        return [("+", first), *zip(others[::2], others[1::2], strict=True)]

    def units_of(self, name: str) -> set[str]:
        """Return the units that the file states of a column, or of the columns of a sum."""
        columns = [term for _, term in self._terms(name) if not _is_number(term)]
        return {self.units.get(column, "unstated") for column in columns}

    def _stored(self, name: str) -> str:
        """Return the column that holds ``name``: itself, or the column of geometries or structures before a dot."""
        column = name
        while column not in self.names:
            column, dot, _ = column.rpartition(".")
            if not dot:
                raise GranuleError(
                    f"granule {self.path} has no column {name!r} (it has {_some(self.names)}); correct the mapping"
                )
        return column

    def _check_lengths(self, columns: Piece) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise GranuleError(
                f"granule {self.path} has columns of different lengths ({listed}); map columns of one table"
            )


_SIGN = re.compile(r"\s+([+-])\s+")


def _is_number(term: str) -> bool:
    return re.fullmatch(r"-?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", term, re.IGNORECASE) is not None


def _total(
    terms: Sequence[tuple[str, str]], columns: Piece, missing: Sequence[float]
) -> pd.Series[Any]:
    """Return the sum of the terms; NaN where one of them is missing."""
    total: Any = 0.0
    for sign, term in terms:
        values: Any = float(term) if _is_number(term) else _operand(columns[term], missing)
        total = total + values if sign == "+" else total - values
    return (
        total
        if isinstance(total, pd.Series)
        else pd.Series(total, next(iter(columns.values())).index)
    )


def _operand(column: pd.Series[Any], missing: Sequence[float]) -> pd.Series[Any]:
    numbers = pd.to_numeric(column).astype("float64")
    return numbers.where(~numbers.isin(list(missing)))


def _instants(
    terms: Sequence[tuple[str, str]], columns: Piece, missing: Sequence[float], seconds: float
) -> pd.Series[Any]:
    """Return dates plus times of day, UTC; NaT where one of them is missing."""
    (_, first), *others = terms
    dates = columns[first]
    if pd.api.types.is_numeric_dtype(dates.dtype):
        # As 20190504.
        whole = _operand(dates, missing).astype("Int64")
        dates = whole.astype("string")
    total = parse_dates(dates)
    wrong = total.isna() & dates.notna()
    if wrong.any():
        raise ValueError(f"{first} has {dates[wrong].iloc[0]!r}, which is not a date")
    for sign, term in others:
        shift = _duration(columns[term], missing, seconds)
        total = total + shift if sign == "+" else total - shift
    return total


def _duration(
    column: pd.Series[Any], missing: Sequence[float], seconds: float
) -> pd.Series[pd.Timedelta]:
    """Return times of day: ``11:18:32.5``, an object of Python, or a number."""
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return column
    if not pd.api.types.is_numeric_dtype(column.dtype):
        texts = column.astype("string").str.strip()
        if texts.str.contains(":", regex=False).any():
            return _time_of_day(texts)
        column = texts
    return pd.to_timedelta(_operand(column, missing) * seconds, unit="s")


# A second 60 is the first one of the next minute, as in dates.
_CLOCK = r"(2[0-4]|[01]?\d):([0-5]\d)(?::([0-5]\d(?:[.,]\d*)?|60(?:[.,]\d*)?))?"


def _time_of_day(texts: pd.Series[Any]) -> pd.Series[pd.Timedelta]:
    parts = texts.str.replace(",", ".").str.extract(f"^{_CLOCK}$")
    wrong = parts[0].isna() & texts.notna() & (texts != "")
    if wrong.any():
        raise ValueError(f"{texts.name} has {texts[wrong].iloc[0]!r}, which is not a time of day")
    hours, minutes, seconds = (parts[k].astype("Float64") for k in range(3))
    return pd.to_timedelta(3600 * hours + 60 * minutes + seconds.fillna(0.0), unit="s")


_POINT = re.compile(
    r"\s*(?:SRID=\d+;)?\s*POINT\s*(?:ZM?|M)?\s*\(\s*([^\s()]+)\s+([^\s()]+)[^()]*\)\s*",
    re.IGNORECASE,
)
_AXES = ("x", "y")
_WKB_SRID = 0x20000000


def _member(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Return one coordinate of points in WKB or WKT, or one field of structures; the last word of ``name`` names it."""
    path = name.removeprefix(f"{column.name}.").split(".")
    return pd.Series([_member_of(value, path, name) for value in column])


def _member_of(value: Any, path: Sequence[str], name: str) -> Any:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    if isinstance(value, dict) and path[0] in value:
        return _member_of(value[path[0]], path[1:], name) if len(path) > 1 else value[path[0]]
    if path[-1] not in _AXES or len(path) > 1 or not isinstance(value, bytes | str):
        raise ValueError(f"{name} is neither a coordinate of a point nor a field of a structure")
    return _coordinates(value)[_AXES.index(path[-1])]


def _coordinates(geometry: bytes | str) -> tuple[float, float]:
    """Return x and y of a point in WKB or in text; NaN if it is empty."""
    if isinstance(geometry, str):
        if match := _POINT.fullmatch(geometry):
            return float(match[1]), float(match[2])
        if re.fullmatch(r"\s*POINT\s*(ZM?|M)?\s*EMPTY\s*", geometry, re.IGNORECASE):
            return math.nan, math.nan
    elif len(geometry) >= _SHORTEST_WKB:
        order = "<" if geometry[0] == 1 else ">"
        (kind,) = struct.unpack_from(f"{order}I", geometry, 1)
        # Thousands count the dimensions of ISO, the highest bits those of PostGIS.
        if (kind & 0xFFFF) % 1000 == 1:
            x, y = struct.unpack_from(f"{order}dd", geometry, 9 if kind & _WKB_SRID else 5)
            return x, y
    raise ValueError(f"the geometry {geometry[:40]!r} is not a point")


_SHORTEST_WKB = 21


def open_columns(source: Source, layout: TextLayout) -> Columns:
    """Read the head of a file and return its columns, none of them read yet.

    Parameters
    ----------
    source : Source
        The file.
    layout : TextLayout
        Layout of the file if it is text.

    Raises
    ------
    GranuleError
        The file has another format, or is damaged.
    """
    with source.path.open("rb") as stream:
        head = stream.read(4)
    try:
        if source.file is not None:
            found = _hdf5(source, source.file)
        elif head == _PARQUET:
            found = _parquet(source.path)
        elif head.startswith(_NETCDF3):
            found = _netcdf3(source.path)
        else:
            found = _text(source.path, layout, gzipped=head.startswith(_GZIP))
        return _with_partitions(found)
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise GranuleError(
            f"granule {source.path} is not a table in text, Parquet, HDF5 or NetCDF ({reason}); give one of these"
        ) from error


_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def _with_partitions(table: Columns) -> Columns:
    """Add the columns that stand in the names of directories, such as ``year=2019`` (Hive's partitions)."""
    folders = [part.split("=", 1) for part in table.path.absolute().parent.parts if "=" in part]
    given = {
        name: None if value == _NO_PARTITION else unquote(value)
        for name, value in folders
        if name not in table.names
    }
    if not given:
        return table

    def load(wanted: Sequence[str], rows: int | None) -> Iterator[Piece]:
        # A column of the file tells the number of rows.
        own = [name for name in wanted if name not in given] or list(table.names[:1])
        for piece in table.load(own, rows):
            index = next(iter(piece.values())).index
            shared = {
                name: pd.Series(value, index, dtype="object") for name, value in given.items()
            }
            yield {name: shared[name] if name in given else piece[name] for name in wanted}

    return replace(table, names=(*table.names, *given), load=load)


def _hdf5(source: Source, file: h5py.File) -> Columns:
    names: list[str] = []

    def note(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset) and (node.ndim == 1 or _is_flat(node)):
            names.extend(f"{name}.{field}" for field in node.dtype.names or ())
            names.extend([] if node.dtype.names else [name])

    file.visititems(note)

    def load(wanted: Sequence[str], rows: int | None) -> Iterator[Piece]:
        length = max(file[_dataset_name(file, name)].size for name in wanted)
        for part in _parts(length, rows):
            yield {name: pd.Series(_hdf5_column(source, file, name, part)) for name in wanted}

    units = {name: source.attribute("units", of=name) for name in names}
    calendars = {name: source.attribute("calendar", of=name) for name in names}
    return Columns(
        source.path, tuple(names), load, _stated(units), _stated(calendars), source.simulated
    )


def _parts(length: int, rows: int | None) -> Iterator[slice]:
    """Yield the pieces of ``length`` rows, at least one."""
    step = length if rows is None else rows
    for start in range(0, max(length, 1), max(step, 1)):
        yield slice(start, start + step)


def _is_flat(dataset: h5py.Dataset) -> bool:
    """Return whether a dataset is one row or one column, as MATLAB and IDL write vectors."""
    return dataset.ndim == 2 and 1 in dataset.shape


def _dataset_name(file: h5py.File, name: str) -> str:
    """Return the dataset of a column: itself, or the compound dataset before the dot."""
    return name if name in file else name.rpartition(".")[0]


def _hdf5_column(source: Source, file: h5py.File, name: str, rows: slice) -> Any:
    dataset = file[_dataset_name(file, name)]
    part: Any = rows
    if _is_flat(dataset):
        part = (rows, 0) if dataset.shape[1] == 1 else (0, rows)
    if dataset.dtype.names is not None:
        values = dataset.fields(name.rpartition(".")[2])[part]
        return physical_values(values, {}) if values.dtype.kind in "iuf" else values
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return dataset.asstr()[part]
    return dataset[part] if dataset.dtype.kind == "b" else source.values(name, part=part)


def _parquet(path: Path) -> Columns:
    schema = pq.read_schema(path)

    def load(wanted: Sequence[str], rows: int | None) -> Iterator[Piece]:
        if rows is None:
            # Without partitioning, so that a directory called year=2020 adds no column.
            yield piece(pq.read_table(path, columns=list(wanted), partitioning=None), wanted)
            return
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(rows, columns=list(wanted)):
                yield piece(pa.Table.from_batches([batch]), wanted)

    def piece(table: pa.Table, wanted: Sequence[str]) -> Piece:
        frame = table.to_pandas(ignore_metadata=True)
        return {name: frame[name] for name in wanted}

    units = {
        field.name: (field.metadata or {}).get(b"units", b"").decode("utf-8", "replace")
        for field in schema
    }
    mark = (schema.metadata or {}).get(b"simulated", b"").decode("utf-8", "replace")
    return Columns(path, tuple(schema.names), load, _stated(units), simulated=is_yes(mark))


def _netcdf3(path: Path) -> Columns:
    import netCDF4

    def load(wanted: Sequence[str], rows: int | None) -> Iterator[Piece]:
        with netCDF4.Dataset(path) as dataset:
            dataset.set_auto_maskandscale(False)
            for part in _parts(max(dataset[name].size for name in wanted), rows):
                yield {
                    name: pd.Series(physical_values(dataset[name][part], dataset[name].__dict__))
                    for name in wanted
                }

    with netCDF4.Dataset(path) as dataset:
        flat = {
            name: (getattr(variable, "units", None), getattr(variable, "calendar", None))
            for name, variable in dataset.variables.items()
            if variable.ndim == 1 and variable.dtype.kind in "iuf"
        }
        simulated = is_yes(getattr(dataset, "simulated", None))
    units = {name: unit for name, (unit, _) in flat.items()}
    calendars = {name: calendar for name, (_, calendar) in flat.items()}
    return Columns(path, tuple(flat), load, _stated(units), _stated(calendars), simulated)


def _text(path: Path, layout: TextLayout, *, gzipped: bool) -> Columns:
    read_csv: Callable[..., Any] = partial(
        pd.read_csv,
        path,
        sep=r"\s+" if layout.delimiter == "whitespace" else layout.delimiter,
        comment=layout.comment,
        names=layout.names or None,
        header=None if layout.names else 0,
        index_col=False,
        skipinitialspace=True,
        compression="gzip" if gzipped else None,
        # A column has one type, however long it is.
        low_memory=False,
    )

    def load(wanted: Sequence[str], rows: int | None) -> Iterator[Piece]:
        if rows is None:
            yield piece(read_csv(usecols=wanted))
            return
        # A column that is text at the head is text in all pieces, even in one that contains only digits.
        head = read_csv(usecols=wanted, nrows=HEAD)
        texts = dict.fromkeys(head.select_dtypes(["object", "string"]), str)
        with read_csv(usecols=wanted, chunksize=rows, dtype=texts) as frames:
            for frame in frames:
                yield piece(frame.reset_index(drop=True))

    def piece(frame: pd.DataFrame) -> Piece:
        return {str(name): frame[name] for name in frame.columns}

    def strictly(wanted: Sequence[str], rows: int | None) -> Iterator[Piece]:
        pieces = load(wanted, rows)
        while (found := _strictly(lambda: next(pieces, None))) is not None:
            yield found

    names = tuple(map(str, _strictly(lambda: read_csv(nrows=0)).columns))
    marks = read_csv(usecols=["simulated"], nrows=1) if "simulated" in names else pd.DataFrame()
    return Columns(path, names, strictly, {}, simulated=any(map(is_yes, marks.to_numpy().flat)))


def _strictly(read: Callable[[], T]) -> T:
    """Read text; a row longer than the first is damage, because its last values would be lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return read()


def _stated(units: Mapping[str, object]) -> dict[str, str]:
    return {name: str(unit) for name, unit in units.items() if unit}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12]) or "none"
    return f"{shown}, and {len(names) - 12} more" if len(names) > 12 else shown
