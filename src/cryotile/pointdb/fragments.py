"""Fragments: immutable Parquet files of points, that any Parquet reader understands."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cryotile.errors import DamagedFile, UnwritablePath
from cryotile.files import fsync, writing
from cryotile.pointdb.encoding import TEXT, Stored, from_table, to_table
from cryotile.pointdb.layout import RANK_BITS, chunk_directory, places
from cryotile.pointdb.writers import Writer
from cryotile.points import CATEGORIES

__all__ = [
    "FragmentGone",
    "by_chunk",
    "damaged_fragment",
    "describe_fragment",
    "discard_fragments",
    "load_fragment",
    "write_fragments",
    "writer_of",
]

ROW_GROUP_SIZE = 1 << 16
"""Points of a row group, the unit that statistics prune: about 1 MB."""


SYNCS_AT_ONCE = 16


class FragmentGone(Exception):
    """A fragment is not there: a compaction has replaced it, or it is lost; the log tells which."""


DELTA_ENCODED = ("x_cm", "y_cm", "time", "elevation_mm", "uncertainty_mm", "pass_id")


def by_chunk(stored: Stored, chunk_size: float) -> Iterator[tuple[int, Stored]]:
    """Yield chunk by chunk, with their numbers, points that are in total order."""
    chunks = places(stored["x_cm"], stored["y_cm"], chunk_size) >> RANK_BITS
    borders = np.flatnonzero(np.diff(chunks, prepend=-1, append=-1))
    for start, end in pairwise(borders):
        yield int(chunks[start]), {name: values[start:end] for name, values in stored.items()}


def write_fragments(
    writer: Writer, chunks: Iterable[tuple[int, Stored]], form: pa.Schema
) -> list[dict[str, Any]]:
    """Write fragments, each with points of one chunk.

    Parameters
    ----------
    writer : Writer
        Of the change that will name them.
    chunks : iterable of (int, dict of str to ndarray)
        Number of the chunk, and all stored columns in total order.
    form : pyarrow.Schema
        Of the fragments.

    Returns
    -------
    list of dict
        What the log says of each (:data:`cryotile.pointdb.state.FRAGMENTS`); on the disk when this returns.

    Raises
    ------
    UnwritablePath
        The disk is full, …; none is left behind.
    """
    root = writer.root
    entries: list[dict[str, Any]] = []
    changed: set[Path] = set()
    if not (root / "chunks").is_dir():
        # Before half of one is made in its old place.
        raise UnwritablePath(f"{root / 'chunks'} is not there; was the point DB moved away?")
    with writing(root / "chunks"):
        try:
            for chunk, points in chunks:
                content = _parquet(to_table(points, form))
                path = f"{chunk_directory(chunk)}/{writer.id}-{len(entries)}.parquet"
                checksum = hashlib.sha256(content).hexdigest()
                facts: dict[str, object] = {
                    "path": path,
                    "bytes": len(content),
                    "checksum": checksum,
                }
                entries.append(describe_fragment(chunk, points) | facts)
                writer.beat()
                changed.update(_make_directories((root / path).parent))
                with (root / path).open("xb") as fragment:
                    fragment.write(content)
                changed.add(root / path)
            _force_to_disk(changed)
        except BaseException:
            discard_fragments(root, entries)
            raise
    return entries


def _make_directories(path: Path) -> Iterator[Path]:
    """Make a directory and those above it, and yield the directories that changed or are about to."""
    yield path
    if not path.is_dir():
        yield from _make_directories(path.parent)
        path.mkdir(exist_ok=True)


def _force_to_disk(paths: Collection[Path]) -> None:
    # Many at once, so that the file system can settle them together; one after the other, each would wait for a turn.
    with ThreadPoolExecutor(SYNCS_AT_ONCE) as threads:
        for _ in threads.map(fsync, paths):
            pass


def writer_of(path: str) -> str:
    """Return the id of the change that a fragment was written for."""
    return path.rpartition("/")[2].partition(".")[0].partition("-")[0]


def discard_fragments(root: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Delete fragments that no commit names."""
    for entry in entries:
        (root / entry["path"]).unlink(missing_ok=True)


def describe_fragment(chunk: int, points: Stored) -> dict[str, Any]:
    """Return what the log says of the points of a fragment."""
    bounds = {
        f"{name}_{end}": int(reduce(points[name]))
        for name in ("x_cm", "y_cm", "time")
        for end, reduce in (("min", np.min), ("max", np.max))
    }
    return {
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


def load_fragment(root: Path, entry: Mapping[str, Any], form: pa.Schema) -> Stored:
    """Read all of a fragment, and make sure that it is what was written.

    Parameters
    ----------
    root : Path
        The point DB.
    entry : mapping
        What the log says of it.
    form : pyarrow.Schema
        Of the fragments.

    Returns
    -------
    dict of str to ndarray
        All stored columns.

    Raises
    ------
    DamagedFile
        Its bytes are not those that were written.
    FragmentGone
        It is not there.
    """
    path = root / entry["path"]
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FragmentGone(str(path)) from None
    if hashlib.sha256(content).hexdigest() != entry["checksum"]:
        raise damaged_fragment(root, path)
    return from_table(pq.read_table(pa.BufferReader(content), schema=form))


def damaged_fragment(root: Path, path: Path, what: str = "is not what was written") -> DamagedFile:
    """Return the error that a fragment is damaged, and what mends it."""
    return DamagedFile(
        f"{path} {what}: its checksum differs from the log's; put it back from a copy, or give 'cryotile remove {root}"
        " --damaged' and ingest the granules that it names again"
    )
