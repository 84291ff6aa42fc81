"""Fragments: immutable Parquet files of points, that any Parquet reader understands."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from cryotile.errors import DamagedFile
from cryotile.files import fsync_directory, make_directory, write_durably, writing
from cryotile.pointdb.encoding import TEXT, Stored, to_table
from cryotile.pointdb.layout import RANK_BITS, chunk_directory, places
from cryotile.points import CATEGORIES

__all__ = ["discard_fragments", "read_fragments", "write_fragments"]

ROW_GROUP_SIZE = 1 << 16
"""Points of a row group, the unit that statistics prune: about 1 MB."""

DELTA_ENCODED = ("x_cm", "y_cm", "time", "elevation_mm", "uncertainty_mm", "pass_id")


def write_fragments(
    root: Path, stored: Stored, form: pa.Schema, chunk_size: float
) -> list[dict[str, Any]]:
    """Write one fragment for each chunk that the points touch.

    Parameters
    ----------
    root : Path
        The point DB.
    stored : dict of str to ndarray
        All stored columns, in total order.
    form : pyarrow.Schema
        Of the fragments.
    chunk_size : float
        Metres.

    Returns
    -------
    list of dict
        What the log says of each (:data:`cryotile.pointdb.state.FRAGMENTS`); on the disk when this returns.

    Raises
    ------
    UnwritablePath
        The disk is full, …; none is left behind.
    """
    entries: list[dict[str, Any]] = []
    with writing(root / "chunks"):
        # Fails where the DB was moved away, before half of one is made in its old place.
        (root / "chunks").stat()
        try:
            for chunk, points in _by_chunk(stored, chunk_size):
                entries.append(_entry(chunk, points))
                content = _parquet(to_table(points, form))
                entries[-1] |= {
                    "bytes": len(content),
                    "checksum": hashlib.sha256(content).hexdigest(),
                }
                path = root / entries[-1]["path"]
                make_directory(path.parent)
                write_durably(path, content)
            for directory in {(root / e["path"]).parent for e in entries}:
                fsync_directory(directory)
        except BaseException:
            discard_fragments(root, entries)
            raise
    return entries


def discard_fragments(root: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Delete fragments that no commit names."""
    for entry in entries:
        (root / entry["path"]).unlink(missing_ok=True)


def _by_chunk(stored: Stored, chunk_size: float) -> Iterator[tuple[int, Stored]]:
    chunks = places(stored["x_cm"], stored["y_cm"], chunk_size) >> RANK_BITS
    borders = np.flatnonzero(np.diff(chunks, prepend=-1, append=-1))
    for start, end in pairwise(borders):
        yield int(chunks[start]), {name: values[start:end] for name, values in stored.items()}


def _entry(chunk: int, points: Stored) -> dict[str, Any]:
    bounds = {
        f"{name}_{end}": int(reduce(points[name]))
        for name in ("x_cm", "y_cm", "time")
        for end, reduce in (("min", np.min), ("max", np.max))
    }
    return {
        "path": f"{chunk_directory(chunk)}/{secrets.token_hex(8)}.parquet",
        "chunk": chunk,
        "rows": len(points["time"]),
        **bounds,
        "platform": _shared("platform", points),
        "mode": _shared("mode", points),
        "granules": np.unique(points["granule"]).tolist(),
    }


def _shared(name: str, points: Stored) -> str | None:
    """Text that all points have in a column, or None."""
    codes = points[name]
    return CATEGORIES[name][codes[0]] if (codes == codes[0]).all() else None


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    # Delta for what is sorted or varies little, byte streams for floats; both, with zstd, in every current reader.
    encodings = {
        f.name: "DELTA_BINARY_PACKED" if f.name in DELTA_ENCODED else "BYTE_STREAM_SPLIT"
        for f in table.schema
        if f.name in DELTA_ENCODED or f.type == pa.float32()
    }
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP_SIZE,
        compression="zstd",
        use_dictionary=["granule", *(f.name for f in table.schema if f.type == TEXT)],
        column_encoding=encodings,
        write_page_checksum=True,
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_fragments(
    root: Path,
    entries: Sequence[Mapping[str, Any]],
    form: pa.Schema,
    *,
    columns: Sequence[str],
    keep: ds.Expression | None,
) -> pa.Table:
    """Read points of several fragments, one after the other.

    Parameters
    ----------
    root : Path
        The point DB.
    entries : sequence of mapping
        Their ``path``, ``bytes`` and ``checksum``.
    form : pyarrow.Schema
        Of the fragments.
    columns : sequence of str
        Stored names.
    keep : pyarrow.dataset.Expression or None
        Which rows; row groups whose statistics exclude it are not read.  None: all.

    Returns
    -------
    pyarrow.Table
        The columns asked for.

    Raises
    ------
    DamagedFile
        It names the fragment.
    FileNotFoundError
        A fragment is gone: a compaction has replaced it, or it is lost.
    """
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    data = ds.dataset(
        [str(root / entry["path"]) for entry in entries],
        schema=form,
        format=ds.ParquetFileFormat(default_fragment_scan_options=options),
        filesystem=pyarrow.fs.LocalFileSystem(),
    )
    try:
        return data.to_table(columns=list(columns), filter=keep)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise DamagedFile(_diagnosis(root, entries, str(error))) from error


def _diagnosis(root: Path, entries: Sequence[Mapping[str, Any]], symptom: str) -> str:
    for entry in entries:
        path = root / entry["path"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["checksum"]:
            return (
                f"{path} is not what was written: its checksum differs from the log's;"
                " put it back from a copy, or ingest its granules into a new point DB"
            )
    return f"{root} cannot be read ({' '.join(symptom.split())}); try again"
