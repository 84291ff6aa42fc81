"""Fragments: immutable Parquet files of points, which any Parquet reader understands; and the writers of them.

While a process writes fragments that no commit names yet, its marker in ``writers/`` shows that it is alive, so that a
compaction leaves its files alone.  Markers affect efficiency only, not correctness.  A compaction that presumes a
writer dead *fences* its commit in the compaction's own commit, before it deletes anything.  Commits are exclusive: a
writer that is alive after all has either committed before, so that its fragments are named, or reads in the log that it
is fenced and writes its fragments again under a new id.  No clock and no delay can break this.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cryotile.errors import DamagedFile, UnwritablePath, command
from cryotile.files import fsync, make_way, writing
from cryotile.pointdb.encoding import TEXT, Stored, from_table, text_of, to_table
from cryotile.pointdb.sort_order import RANK_BITS, chunk_directory, places
from cryotile.processes import is_alive, this_process

__all__ = [
    "FragmentGone",
    "Writer",
    "by_chunk",
    "check_footer",
    "damaged_fragment",
    "describe_fragment",
    "discard_fragments",
    "fragment_bytes",
    "load_fragment",
    "write_fragments",
    "writer_of",
]

ROW_GROUP_SIZE = 1 << 15
"""Points of a row group, the unit that statistics prune: some 500 kB.  Twice as many make files smaller by 0.3 %."""

DELTA_ENCODED = ("x_cm", "y_cm", "time", "elevation_mm", "uncertainty_mm", "pass_id")

SYNCS_AT_ONCE = 16

SILENCE = 600.0
"""Seconds without a sign of life, by the file server's clock, after which a writer of another host is presumed dead."""


class FragmentGone(Exception):
    """A fragment does not exist: a compaction has replaced it, or it is lost; the log tells which."""


class Writer:
    """Writer of the fragments of one commit; while it is entered, its marker in ``writers/`` shows that it is alive.

    Parameters
    ----------
    root : Path
        The point DB.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.id = secrets.token_hex(8)
        self._marker = root / "writers" / self.id
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun:
            # If the marker cannot be deleted, it is soon that of a dead writer.
            with suppress(OSError):
                self._marker.unlink()

    def beat(self) -> None:
        """Touch the marker; to be called before each fragment."""
        self._begun = True
        try:
            os.utime(self._marker)
        except (FileNotFoundError, NotADirectoryError):
            make_way(self._marker.parent, directory=True)
            self._marker.parent.mkdir(exist_ok=True)
            self._marker.write_text(this_process(), encoding="ascii")

    def others(self) -> tuple[set[str], set[str]]:
        """Return the ids of the commits of writers that are presumed alive, including this one, and of dead ones."""
        self.beat()
        # The marker's own time, because the clock of the file server may differ from this host's.
        now = self._marker.stat().st_mtime
        markers = [path for path in self._marker.parent.iterdir() if path.name.isalnum()]
        signs = {path.name: _is_fresh(path, now) for path in markers}
        living = {name for name, alive in signs.items() if alive} | {self.id}
        return living, signs.keys() - living


def _is_fresh(marker: Path, now: float) -> bool:
    with suppress(OSError):
        # A damaged marker names no process: then the time of its last change tells.
        alive = is_alive(marker.read_text(encoding="ascii", errors="replace"))
        return abs(now - marker.stat().st_mtime) < SILENCE if alive is None else alive
    return False


def by_chunk(stored: Stored, chunk_size: float) -> Iterator[tuple[int, Stored]]:
    """Split points, which must be in total order, by chunk; yield number and points of each chunk."""
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
        Of the commit that will name them.
    chunks : iterable of (int, dict of str to ndarray)
        Number of the chunk, and all stored columns in total order.
    form : pyarrow.Schema
        Of the fragments.

    Returns
    -------
    list of dict
        Their rows in the log (:data:`cryotile.pointdb.snapshot.FRAGMENTS`); the fragments are on the disk.

    Raises
    ------
    UnwritablePath
        The disk is full or another error of the file system; all of them are deleted.
    """
    root = writer.root
    entries: list[dict[str, Any]] = []
    changed: set[Path] = set()
    if not (root / "chunks").is_dir():
        # Otherwise half a point DB would be created at the old path.
        raise UnwritablePath(
            f"{root / 'chunks'} does not exist; was the point DB moved away? Give its new path"
        )
    with writing(root / "chunks"):
        try:
            for chunk, points in chunks:
                content = fragment_bytes(to_table(points, form))
                path = f"{chunk_directory(chunk)}/{writer.id}-{len(entries)}.parquet"
                checksum = hashlib.sha256(content).hexdigest()
                facts: dict[str, object] = {
                    "path": path,
                    "bytes": len(content),
                    "checksum": checksum,
                    "footer": _footer_digest(content[-_footer_length(content[-8:]) :]),
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
    """Make a directory and its parents; yield the directories whose entries change."""
    yield path
    if not path.is_dir():
        yield from _make_directories(path.parent)
        path.mkdir(exist_ok=True)


def _force_to_disk(paths: Collection[Path]) -> None:
    # Many at once, so that the file system can write them together; in sequence, each would wait for the disk.
    with ThreadPoolExecutor(SYNCS_AT_ONCE) as threads:
        for _ in threads.map(fsync, paths):
            pass


def writer_of(path: str) -> str:
    """Return the id of the commit that a fragment was written for."""
    return path.rpartition("/")[2].partition(".")[0].partition("-")[0]


def discard_fragments(root: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Delete fragments that no commit names."""
    for entry in entries:
        (root / entry["path"]).unlink(missing_ok=True)


def describe_fragment(chunk: int, points: Stored) -> dict[str, Any]:
    """Return those columns of a fragment's row in the log that follow from its points."""
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
    """Return the text that all points share in a column, or None."""
    codes = points[name]
    return text_of(name, codes[0]) if (codes == codes[0]).all() else None


def fragment_bytes(table: pa.Table) -> bytes:
    """Return the content of the Parquet file of a fragment."""
    sink = pa.BufferOutputStream()
    # Delta for values that are sorted or vary little, byte streams for floats; every current reader knows both.
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
    """Read a whole fragment and compare it with its checksum.

    Parameters
    ----------
    root : Path
        The point DB.
    entry : mapping
        Its row in the log.
    form : pyarrow.Schema
        Of the fragments.

    Returns
    -------
    dict of str to ndarray
        All stored columns.

    Raises
    ------
    DamagedFile
        Its bytes have changed since they were written.
    FragmentGone
        It does not exist.
    """
    path = root / entry["path"]
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FragmentGone(str(path)) from None
    except OSError as error:
        raise damaged_fragment(root, path, f"cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != entry["checksum"]:
        raise damaged_fragment(root, path)
    return from_table(pq.read_table(pa.BufferReader(content), schema=form))


def check_footer(root: Path, entry: Mapping[str, Any]) -> None:
    """Compare the footer of a fragment with the log, because damage to it can mislead or crash Arrow.

    The checksums of pages do not cover the footer.

    Parameters
    ----------
    root : Path
        The point DB.
    entry : mapping
        The fragment's row in the log: ``path``, ``bytes`` and ``footer``.

    Raises
    ------
    DamagedFile
        Its size or its footer has changed since it was written, or it cannot be read.
    FragmentGone
        It does not exist.
    """
    path = root / entry["path"]
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            length = min(_footer_length(file.read()), size)
            file.seek(size - length)
            digest = _footer_digest(file.read())
    except FileNotFoundError:
        raise FragmentGone(str(path)) from None
    except OSError as error:
        raise damaged_fragment(root, path, f"cannot be read ({error.strerror})") from error
    if size != entry["bytes"] or entry["footer"] not in (digest, None):
        raise damaged_fragment(root, path)


def _footer_length(end: bytes) -> int:
    """Return the length of a Parquet footer from its last 8 bytes: length of the metadata, ``PAR1``."""
    return int.from_bytes(end[:4], "little") + 8


def _footer_digest(footer: bytes) -> str:
    return hashlib.blake2b(footer, digest_size=8).hexdigest()


def damaged_fragment(
    root: Path,
    path: Path,
    what: str = "is not what was written: its checksum differs from the log's",
) -> DamagedFile:
    """Return the error that a fragment is damaged, with its remedy."""
    return DamagedFile(
        f"{path} {what}; put it back from a copy, or ingest the granules again that this names,"
        " and plan runs again:"
        f" {command('remove', root, '--damaged')}"
    )
