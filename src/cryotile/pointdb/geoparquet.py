"""Points as GeoParquet 1.1: a geometry column in well-known binary, and a column of boxes that readers prune by.

The format: https://geoparquet.org/releases/v1.1.0/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj

from cryotile import __version__
from cryotile.files import atomic_path

__all__ = ["write_geoparquet"]

GEOMETRY, COVERING = "geometry", "bbox"

ROWS = 2**16
"""Rows of a row group: points are sorted along a curve, so that the boxes of groups are small."""

ROWS_CONVERTED = 2**20
"""Rows converted at once, so that a full chunk is not held twice."""

_WKB_POINT = np.dtype([("order", "u1"), ("kind", "<u4"), ("x", "<f8"), ("y", "<f8")])

_EDGES = ("xmin", "ymin", "xmax", "ymax")

_TYPES: Mapping[str, pa.DataType] = {
    "x": pa.float64(),
    "y": pa.float64(),
    "time": pa.timestamp("ms", tz="UTC"),
    "elevation": pa.float64(),
    "uncertainty": pa.float64(),
    "pass_id": pa.int64(),
    "ascending": pa.bool_(),
    "platform": pa.string(),
    "mode": pa.string(),
    "surface_type": pa.string(),
}
"""Type of each core column; extra columns are float."""

_UNITS = {"x": "m", "y": "m", "elevation": "m", "uncertainty": "m"}


def write_geoparquet(
    path: Path,
    chunks: Iterable[pd.DataFrame],
    columns: Sequence[str],
    *,
    crs: pyproj.CRS,
    units: Mapping[str, str],
    about: Mapping[str, object],
) -> int:
    """Write points to a GeoParquet file, whole or not at all, and return their number.

    Parameters
    ----------
    path : Path
        The file.
    chunks : iterable of DataFrame
        Points with ``x``, ``y`` and the columns, one chunk after another; one is held at a time.
    columns : sequence of str
        Columns to write beside the geometry.
    crs : pyproj.CRS
        Of x and y.
    units : mapping of str to str
        Extra column → unit.
    about : mapping
        Where the points come from, kept as JSON under the key ``cryotile``.

    Raises
    ------
    UnwritablePath
        The file cannot be written, or the disk is full.
    """
    schema = _schema(columns, crs, units, about)
    count = 0
    with atomic_path(path) as temporary:
        # Otherwise the library creates the file only with the first row group, and names the temporary path.
        temporary.touch()
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for points in chunks:
                count += len(points)
                for start in range(0, len(points), ROWS_CONVERTED):
                    part = points.iloc[start : start + ROWS_CONVERTED]
                    writer.write_table(_table(part, columns, schema), row_group_size=ROWS)
    return count


def _schema(
    columns: Sequence[str], crs: pyproj.CRS, units: Mapping[str, str], about: Mapping[str, object]
) -> pa.Schema:
    box = pa.struct([pa.field(edge, pa.float64(), nullable=False) for edge in _EDGES])
    units = {**_UNITS, **units}
    fields = [
        pa.field(
            name,
            _TYPES.get(name, pa.float32()),
            metadata={"unit": units[name]} if units.get(name) else None,
        )
        for name in columns
    ]
    geometry = {
        "encoding": "WKB",
        "geometry_types": ["Point"],
        "crs": crs.to_json_dict(),
        "covering": {COVERING: {edge: [COVERING, edge] for edge in _EDGES}},
    }
    geo = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: geometry}}
    return pa.schema(
        [
            *fields,
            pa.field(COVERING, box, nullable=False),
            pa.field(GEOMETRY, pa.binary(), nullable=False),
        ],
        metadata={
            "geo": json.dumps(geo),
            "cryotile": json.dumps({"version": __version__, **about}),
        },
    )


def _table(points: pd.DataFrame, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    x, y = (points[name].to_numpy(np.float64) for name in "xy")
    arrays = [_array(points[name], schema.field(name).type) for name in columns]
    edges = [pa.array(values) for values in (x, y, x, y)]
    box = pa.StructArray.from_arrays(edges, fields=list(schema.field(COVERING).type))
    return pa.Table.from_arrays([*arrays, box, _points(x, y)], schema=schema)


def _array(values: pd.Series, kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        return pa.array(values).cast(kind)
    if pa.types.is_floating(kind):
        return pa.array(values.to_numpy(), kind, from_pandas=True)
    return pa.array(values, kind, from_pandas=True)


def _points(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> pa.Array:
    """Return points as well-known binary, each of 21 bytes: byte order, kind 1, x, y."""
    wkb = np.empty(len(x), _WKB_POINT)
    wkb["order"], wkb["kind"], wkb["x"], wkb["y"] = 1, 1, x, y
    fixed = pa.Array.from_buffers(
        pa.binary(_WKB_POINT.itemsize), len(x), [None, pa.py_buffer(wkb.tobytes())]
    )
    return fixed.cast(pa.binary())
