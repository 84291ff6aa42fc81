"""Convert points to stored form, scaled integers, and back.

The stored form, between a DataFrame and a Parquet file, is a dict of plain numpy arrays with the names of the file: NaN
is :data:`ABSENT`, an unknown flag −1, text the position in :data:`~cryotile.points.CATEGORIES`, a platform its
:func:`~cryotile.points.platform_code`.  Sorting, hashing and selecting work on that form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.points import (
    CATEGORIES,
    CORE_COLUMNS,
    index_platforms,
    platform_code,
    platform_words,
)

__all__ = [
    "ABSENT",
    "SCALES",
    "SQUARES",
    "Stored",
    "decode",
    "encode",
    "from_table",
    "schema",
    "stored_names",
    "text_of",
    "to_table",
]

Stored = dict[str, npt.NDArray[Any]]
"""Stored name → values, shape (points,)."""

SCALES: Mapping[str, tuple[str, int]] = {
    "x": ("x_cm", 100),
    "y": ("y_cm", 100),
    "elevation": ("elevation_mm", 1000),
    "uncertainty": ("uncertainty_mm", 1000),
}
"""Column → its stored name and the number of stored units in a metre."""

ABSENT = -(2**31)
"""Stands for NaN in scaled columns; null in the file."""

_LIMIT = 2**31 - 1
_OPTIONAL = frozenset({"uncertainty"})

TIME = pa.timestamp("ms", tz="UTC")
TEXT = pa.dictionary(pa.int8(), pa.string())

SQUARES = pa.schema(
    [
        pa.field("ix", pa.int32(), nullable=False),
        pa.field("iy", pa.int32(), nullable=False),
        pa.field("platform", TEXT, nullable=False),
        pa.field("mode", TEXT, nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("digest", pa.uint64(), nullable=False),
        pa.field("time_min", TIME, nullable=False),
        pa.field("time_max", TIME, nullable=False),
    ]
)
"""One row per square, platform and mode.

``ix, iy`` are the square's south-western corner divided by 5 km; ``count`` and ``digest`` are changes, to be summed;
``time_min, time_max`` bound the times (after a removal they may be wider than the times of the remaining points).
"""


def stored_names(columns: Iterable[str]) -> list[str]:
    """Return the names in the file of columns in memory."""
    return [SCALES[name][0] if name in SCALES else name for name in columns]


def schema(extra: Mapping[str, str], crs: str) -> pa.Schema:
    """Return the schema of a fragment.

    Parameters
    ----------
    extra : mapping of str to str
        Extra column → unit.
    crs : str
        CRS of x and y, for readers without cryotile.

    Returns
    -------
    pyarrow.Schema
        With scale and unit in the metadata of each field.
    """
    fields = []
    for name, dtype in CORE_COLUMNS.items():
        if name in SCALES:
            stored, scale = SCALES[name]
            meta = {"scale": str(1 / scale), "unit": "m"}
            fields.append(pa.field(stored, pa.int32(), name in _OPTIONAL, meta))
        else:
            kind = {"time": TIME, "pass_id": pa.int64(), "ascending": pa.bool_()}.get(name, TEXT)
            fields.append(pa.field(name, kind, dtype == "boolean"))
    fields += [pa.field(n, pa.float32(), metadata={"unit": unit}) for n, unit in extra.items()]
    fields.append(pa.field("granule", pa.int32(), nullable=False))
    return pa.schema(fields, metadata={"crs": crs})


def encode(points: pd.DataFrame, extra: Collection[str]) -> Stored:
    """Convert projected points to stored form.

    Parameters
    ----------
    points : DataFrame
        Core columns and any extra columns; extra columns that it lacks become NaN, others are left out.
    extra : collection of str
        Names of the extra columns to store.

    Returns
    -------
    dict of str to ndarray
        Without ``granule``.

    Raises
    ------
    InvalidValue
        A core column is missing, or a value cannot be stored: not finite, out of range, an unknown text.
    """
    missing = [name for name in CORE_COLUMNS if name not in points]
    if missing:
        raise InvalidValue(
            f"points have no column {missing[0]!r}; a point DB stores {', '.join(CORE_COLUMNS)}:"
            " give all of them"
        )
    stored: Stored = {}
    for name in CORE_COLUMNS:
        column = points[name]
        if name in SCALES:
            stored[SCALES[name][0]] = _scaled(name, column.to_numpy(np.float64))
        elif name in CATEGORIES:
            stored[name] = _codes(name, column)
        elif name == "ascending":
            stored[name] = column.astype("boolean").astype("Int8").to_numpy(np.int8, na_value=-1)
        elif name == "time":
            stored[name] = _milliseconds(column)
        else:
            stored[name] = _whole(name, column)
    for name in extra:
        stored[name] = np.full(len(points), np.nan, np.float32)
        if name in points:
            values = points[name].to_numpy(np.float32, na_value=np.nan)
            # There are many NaNs; order and digest of points require one.
            np.copyto(stored[name], values, where=~np.isnan(values))
    return stored


def _scaled(name: str, metres: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    scale = SCALES[name][1]
    units = np.rint(metres * scale)
    absent = np.isnan(metres) if name in _OPTIONAL else np.zeros(len(metres), bool)
    # Comparisons with NaN are False, so this catches NaN in columns that must have a value.
    wrong = ~(np.abs(units) <= _LIMIT) & ~absent
    if wrong.any():
        raise InvalidValue(
            f"{name} {metres[wrong][0]} m cannot be stored: it must be a number of at most {_LIMIT // scale} m;"
            " leave such points out"
        )
    return np.where(absent, ABSENT, units).astype(np.int32)


def _whole(name: str, column: pd.Series[Any]) -> npt.NDArray[np.int64]:
    if column.isna().any():
        raise InvalidValue(f"a point without {name} cannot be stored; leave such points out")
    return column.to_numpy(np.int64)


def _milliseconds(column: pd.Series[Any]) -> npt.NDArray[np.int64]:
    times = column.to_numpy("datetime64[ms]")
    if np.isnat(times).any():
        raise InvalidValue("a point without time cannot be stored; leave such points out")
    return times.astype(np.int64)


def _codes(name: str, column: pd.Series[Any]) -> npt.NDArray[np.signedinteger]:
    values = column.astype("category").cat
    # The entry appended is for code -1, the missing value.
    lookup = np.array([*_numbers(name, values.categories), -1], _CODES[name])
    codes = lookup[values.codes.to_numpy()]
    if (codes < 0).any():
        raise InvalidValue(
            f"{name} {column.iloc[int(np.argmax(codes < 0))]!r} is unknown; it must be one of"
            f" {', '.join(CATEGORIES[name])}"
        )
    return codes


_CODES: Mapping[str, type[np.signedinteger]] = {
    name: np.int32 if name == "platform" else np.int8 for name in CATEGORIES
}


def _numbers(name: str, texts: Iterable[str]) -> list[int]:
    """Return the stored numbers of texts; −1 for an unknown mode or surface type."""
    if name == "platform":
        return [platform_code(text) for text in texts]
    known = {text: code for code, text in enumerate(CATEGORIES[name])}
    return [known.get(text, -1) for text in texts]


def text_of(name: str, code: int) -> str:
    """Return the text of a stored number."""
    return str(
        platform_words(np.array([code]))[0] if name == "platform" else CATEGORIES[name][code]
    )


def to_table(stored: Stored, form: pa.Schema) -> pa.Table:
    """Return an Arrow table of stored points, for a file; arrays are copied only if necessary."""
    return pa.Table.from_arrays([_to_arrow(stored[f.name], f) for f in form], schema=form)


def _to_arrow(values: npt.NDArray[Any], field: pa.Field) -> pa.Array:
    if field.type == TEXT:
        texts = list(CATEGORIES[field.name])
        if field.name == "platform":
            values, texts = index_platforms(values)
        return pa.DictionaryArray.from_arrays(values, texts)
    if field.type == TIME:
        return pa.array(values).cast(TIME)
    if field.type == pa.bool_():
        return pa.array(values > 0, mask=values < 0)
    if not field.nullable:
        return pa.array(values)
    absent = np.isnan(values) if field.type == pa.float32() else values == ABSENT
    return pa.array(values, field.type, mask=absent)


def from_table(table: pa.Table) -> Stored:
    """Convert a table, of any stored columns, back to stored form.

    Parameters
    ----------
    table : pyarrow.Table
        As read from fragments.

    Returns
    -------
    dict of str to ndarray
        Some may be read-only views of the table.
    """
    return {name: _from_arrow(name, table[name]) for name in table.column_names}


def _from_arrow(name: str, column: pa.ChunkedArray) -> npt.NDArray[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        codes = [_canonical(name, chunk) for chunk in column.chunks]
        return np.concatenate([np.zeros(0, _CODES[name]), *codes])
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_boolean(kind):
        column = pc.fill_null(column.cast(pa.int8()), pa.scalar(-1, pa.int8()))
    elif column.null_count:
        blank = np.nan if pa.types.is_floating(kind) else ABSENT
        column = pc.fill_null(column, pa.scalar(blank, kind))
    values: npt.NDArray[Any] = column.to_numpy()
    return values


def _canonical(name: str, chunk: pa.DictionaryArray) -> npt.NDArray[Any]:
    texts = chunk.dictionary.to_pylist()
    try:
        lookup = np.array(_numbers(name, texts), _CODES[name])
    except InvalidValue as error:
        raise DamagedFile(f"a point DB has an impossible value: {error}") from error
    if (lookup < 0).any():
        raise DamagedFile(
            f"{name} {texts[int(np.argmin(lookup))]!r} in a point DB is unknown to this cryotile; install a newer one"
        )
    indices = chunk.indices.to_numpy()
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(lookup):
        raise DamagedFile(
            f"{name} in a point DB has more values than its dictionary; run 'cryotile verify' to find the file"
        )
    codes: npt.NDArray[Any] = lookup[indices]
    return codes


def decode(stored: Stored, columns: Sequence[str]) -> pd.DataFrame:
    """Convert stored points to metres and datetimes.

    Parameters
    ----------
    stored : dict of str to ndarray
        At least the requested columns.
    columns : sequence of str
        Names in memory.

    Returns
    -------
    DataFrame, shape (points, columns)
        Dtypes of :data:`~cryotile.points.CORE_COLUMNS`; extra columns are float32.
    """
    names = zip(columns, stored_names(columns), strict=True)
    return pd.DataFrame({name: _in_memory(name, stored[kept]) for name, kept in names}, copy=False)


def _in_memory(name: str, values: npt.NDArray[Any]) -> Any:
    if name in SCALES:
        # A quotient is the double nearest to the decimal number; a product with 0.01 may not be.
        metres = values / np.float64(SCALES[name][1])
        if name in _OPTIONAL:
            metres[values == ABSENT] = np.nan
        return metres
    if name == "platform":
        return platform_words(values)
    if name in CATEGORIES:
        return pd.Categorical.from_codes(values, dtype=_DTYPES[name])
    if name == "time":
        return values.view("datetime64[ms]")
    if name == "ascending":
        return pd.arrays.BooleanArray(values > 0, values < 0)
    return values


_DTYPES = {name: pd.CategoricalDtype(list(texts)) for name, texts in CATEGORIES.items()}
