"""Fitted tiles, one Arrow IPC file each: the record of which tasks are done.

A tile file is an Arrow IPC stream of one record batch: a column per variable, a row per post in order of y, then x.
A variable that also has a dimension of time is a column of lists of equal length.  The metadata of the schema has the
posts (JSON) and all attributes (JSON, compressed, in base64).  The file ends with a trailer, which readers of streams
ignore: a newline, the tile's fingerprint, a newline, and the SHA-256 of all bytes before.  The checksum reveals damage
before Arrow decodes a byte.  The last bytes alone tell whether the file is complete and which fingerprint it was saved
with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xarray as xr

from cryotile.errors import DamagedFile
from cryotile.files import atomic_path, make_way
from cryotile.geo.grid import Tile

__all__ = ["TileStore"]

_SUFFIX = ".arrow"

_POSTS, _ATTRIBUTES, _TIMES, _SUMS = b"posts", b"attributes", b"times", b"sums"
"""Keys of the schema's metadata.  Plain attributes would make half of the file of a small tile.  The dimensions of time
are in the third: coordinate → dimensions and milliseconds since 1970, and variable → its dimension.  The last has sums
over the posts, of a run with regions."""

# The level is fixed, because the default may change between versions of Arrow.
_WRITING = pa.ipc.IpcWriteOptions(
    compression=pa.Codec("zstd", compression_level=3), use_threads=False
)

_CHECKSUM = 65
"""Bytes of a newline and a SHA-256 in hexadecimal."""

# The trailer lies within the last 256 bytes, because a fingerprint has at most 128 characters.
_END = 256
_TRAILER = re.compile(rb"\n([!-~]{1,128})\n[0-9a-f]{64}\Z")

# Threads that read files: a file server answers many requests in the time of one, and hashing uses every core.
_THREADS = 8

# Files per thread, at least: a thread costs more than reading fewer files.
_LEAST = 8

T = TypeVar("T")
R = TypeVar("R")


class TileStore:
    """A directory of fitted tiles; a tile is exactly as it was saved, or it is missing.

    Parameters
    ----------
    path : path
        The directory; it must exist before a tile is saved.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._ends: dict[str, tuple[int, str | None]] = {}

    def file(self, tile: Tile) -> Path:
        """Return the path of a tile, saved or not."""
        return self.path / f"{tile.name}{_SUFFIX}"

    def save(
        self,
        tile: Tile,
        dataset: xr.Dataset,
        fingerprint: str,
        sums: Mapping[str, Any] | None = None,
    ) -> None:
        """Save a tile, whole or not at all, and replace an earlier one.

        Equal datasets and fingerprints give equal bytes.

        Parameters
        ----------
        tile : Tile
            The posts.
        dataset : Dataset
            Their fit, dimensions (y, x), or a dimension of time and these.
        fingerprint : str
            One line of at most 128 characters: a digest of everything that determines the fit.
        sums : mapping of str to list of numbers, or None
            What :meth:`sums` returns.

        Raises
        ------
        UnwritablePath
            The directory cannot be written, or the disk is full.
        """
        content, path = _encode(tile, dataset, sums) + f"\n{fingerprint}".encode(), self.file(tile)
        make_way(path)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content + _checksum(content))

    def load(self, tile: Tile) -> xr.Dataset:
        """Load a tile.

        Parameters
        ----------
        tile : Tile
            The posts.

        Returns
        -------
        Dataset
            As it was saved, instants as datetime64[ms]; arrays are read-only.

        Raises
        ------
        DamagedFile
            The file is absent, truncated or altered, or holds another tile.
        """
        batch = self._batch(tile)
        about = json.loads(zlib.decompress(base64.b64decode(batch.schema.metadata[_ATTRIBUTES])))
        attributes = {name: _from_json(attrs) for name, attrs in about.items()}
        times, along = json.loads(batch.schema.metadata.get(_TIMES, b"[{}, {}]"))
        axes = {n: (n, axis, attributes[n]) for n, axis in (("y", tile.y), ("x", tile.x))}
        axes |= {
            name: (dims, np.array(instants, "datetime64[ms]"), attributes[name])
            for name, (dims, instants) in times.items()
        }
        return xr.Dataset(
            {
                name: xr.Variable((*along.get(name, ()), "y", "x"), array, attributes[name])
                for name, array in _arrays(tile, batch, batch.schema.names).items()
            },
            coords=xr.Coordinates(axes),
            attrs=attributes[""],
        )

    def arrays(self, tile: Tile, names: Sequence[str]) -> dict[str, npt.NDArray[np.generic]]:
        """Return some variables of a tile as read-only arrays of the tile's shape, behind a dimension of time if any.

        Parameters
        ----------
        tile : Tile
            The posts.
        names : sequence of str
            Names of variables.

        Raises
        ------
        DamagedFile
            The file is absent, truncated or altered, or holds another tile or other variables.
        """
        return _arrays(tile, self._batch(tile, names), names)

    def sums_of(self, tiles: Sequence[Tile]) -> list[dict[str, Any] | None]:
        """Return :meth:`sums` of many tiles."""
        return _side_by_side(self.sums, tiles)

    def sums(self, tile: Tile) -> dict[str, Any] | None:
        """Return the sums that a tile was saved with; None without any.

        Raises
        ------
        DamagedFile
            The file is absent, truncated or altered, or holds another tile.
        """
        stored = self._batch(tile, []).schema.metadata.get(_SUMS)
        return None if stored is None else json.loads(zlib.decompress(base64.b64decode(stored)))

    def fingerprint(self, tile: Tile) -> str | None:
        """Return the fingerprint that a tile was saved with; None if the tile is absent or damaged.

        The whole file is checked, without decoding it.
        """
        try:
            return self._verified(tile)[1]
        except DamagedFile:
            return None

    def is_current(self, tile: Tile, fingerprint: str) -> bool:
        """Return whether a tile is present, undamaged and saved with this fingerprint."""
        # The trailer reveals a stale tile; only a tile that may be current is read in full.
        return _end_of(self.file(tile)) == fingerprint and self.fingerprint(tile) == fingerprint

    def are_current(self, tiles: Sequence[tuple[Tile, str]]) -> list[bool]:
        """Return :meth:`is_current` of many tiles, each with its expected fingerprint."""
        return _side_by_side(lambda expected: self.is_current(*expected), tiles)

    def names(self) -> set[str]:
        """Return the names of the tiles that have a file, of whatever content."""
        return {name.removesuffix(_SUFFIX) for name in self._files()}

    def trailers(self, names: Collection[str] | None = None) -> dict[str, str]:
        """Return name → fingerprint of the tiles whose files end with a trailer: all of them, or those of ``names``.

        Only the end of each file is read, once unless the file is replaced.  A truncated file has no trailer; a file
        that was altered further up still has one.
        """
        files = self._files()
        if names is not None:
            files = {
                name: files[name] for name in (f"{n}{_SUFFIX}" for n in names) if name in files
            }
        new = [name for name, inode in files.items() if self._ends.get(name, (0,))[0] != inode]
        directory = os.fspath(self.path)
        ends = _side_by_side(lambda name: _end_of(f"{directory}{os.sep}{name}"), new)
        self._ends.update({n: (files[n], end) for n, end in zip(new, ends, strict=True)})
        return {
            name.removesuffix(_SUFFIX): end
            for name in files
            if (end := self._ends[name][1]) is not None
        }

    def _files(self) -> dict[str, int]:
        """Return file name → inode; a file that is replaced has another inode."""
        try:
            with os.scandir(self.path) as entries:
                return {
                    entry.name: entry.inode()
                    for entry in entries
                    if entry.name.endswith(_SUFFIX) and not entry.name.startswith(".")
                }
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def _batch(self, tile: Tile, names: Sequence[str] | None = None) -> pa.RecordBatch:
        """Return some columns of a tile, or all."""
        path, content = self.file(tile), self._verified(tile)[0]
        try:
            schema = pa.ipc.open_stream(content).schema
            posts = json.loads(schema.metadata[_POSTS])
            wanted = None if names is None else [schema.names.index(name) for name in names]
            options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=wanted)
            batch = pa.ipc.open_stream(content, options=options).read_next_batch()
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise DamagedFile(f"{path} is not a tile of this run; run again to make it") from error
        # The checksum does not reveal that a file was renamed.
        if posts != _posts(tile):
            raise DamagedFile(f"{path} holds other posts than its name says; run again to make it")
        return batch

    def _verified(self, tile: Tile) -> tuple[memoryview, str]:
        """Return the content and the fingerprint of a tile after a check of all its bytes."""
        path = self.file(tile)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedFile(
                f"tile {path} cannot be read: {error.strerror}; run again to make it"
            ) from error
        # Views, not copies: a copy would hold the GIL while other threads hash.
        checked = memoryview(content)[:-_CHECKSUM]
        if content[-_CHECKSUM:] != _checksum(checked):
            raise DamagedFile(f"tile {path} is truncated, altered or foreign; run again to make it")
        end = content.rindex(b"\n", 0, len(checked))
        return checked[:end], str(checked[end + 1 :], "utf-8")


def _posts(tile: Tile) -> list[float]:
    """Return what determines the posts of a tile."""
    columns, rows = tile.columns, tile.rows
    return [columns.start, columns.stop, rows.start, rows.stop, tile.posting]


def _encode(tile: Tile, dataset: xr.Dataset, sums: Mapping[str, Any] | None = None) -> bytes:
    """Return an Arrow IPC stream of a tile; equal datasets give equal bytes."""
    attributes = {str(name): _to_json(v.attrs) for name, v in dataset.variables.items()}
    text = json.dumps({"": _to_json(dataset.attrs), **attributes})
    metadata = {
        _POSTS: json.dumps(_posts(tile)),
        _ATTRIBUTES: _compressed(text),
    }
    times = {
        str(name): (axis.dims, axis.to_numpy().astype("datetime64[ms]").astype(np.int64).tolist())
        for name, axis in dataset.variables.items()
        if name in dataset.coords and name not in ("x", "y")
    }
    if times:
        along = {str(name): v.dims[:-2] for name, v in dataset.data_vars.items() if v.ndim > 2}
        metadata[_TIMES] = json.dumps([times, along]).encode()
    if sums is not None:
        metadata[_SUMS] = base64.b64encode(zlib.compress(json.dumps(sums).encode(), level=6))
    # Variables, because xarray takes longer to make a DataArray than Arrow to take its values.
    columns = {str(name): _column(dataset.variables[name].values) for name in dataset.data_vars}
    batch = pa.RecordBatch.from_pydict(columns, metadata=metadata)
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, batch.schema, options=_WRITING) as writer:
        writer.write_batch(batch)
    content: bytes = stream.getvalue().to_pybytes()
    return content


@lru_cache(maxsize=4)
def _compressed(text: str) -> bytes:
    # All tiles of a run have the same attributes.
    return base64.b64encode(zlib.compress(text.encode(), level=6))


def _column(values: npt.NDArray[np.generic]) -> pa.Array:
    """Return the values of posts as a column, those over time as lists."""
    if values.ndim == 2:
        return pa.array(values.ravel())
    of_posts = pa.array(np.moveaxis(values, 0, -1).ravel())
    return pa.FixedSizeListArray.from_arrays(of_posts, values.shape[0])


def _arrays(
    tile: Tile, batch: pa.RecordBatch, names: Sequence[str]
) -> dict[str, npt.NDArray[np.generic]]:
    return {name: _of_column(batch.column(name), tile.shape) for name in names}


def _of_column(column: pa.Array, shape: tuple[int, int]) -> npt.NDArray[np.generic]:
    """Return the values of a column, as :func:`_column` took them."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False).reshape(shape))
    of_posts = column.values.to_numpy(zero_copy_only=False)
    return np.moveaxis(of_posts.reshape(*shape, column.type.list_size), -1, 0)


def _to_json(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    # Arrays of flags keep their type, which is that of their variable.
    for name, value in attributes.items():
        if not isinstance(value, str | int | float | np.ndarray):
            raise TypeError(f"attribute {name} is {type(value)}; give text, a number or an array")
    return {
        str(name): {value.dtype.str: value.tolist()} if isinstance(value, np.ndarray) else value
        for name, value in attributes.items()
    }


def _from_json(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: np.array(*value.values(), *value) if isinstance(value, dict) else value
        for name, value in attributes.items()
    }


def _checksum(content: bytes | memoryview) -> bytes:
    return f"\n{hashlib.sha256(content).hexdigest()}".encode()


def _end_of(path: str | Path) -> str | None:
    """Return the fingerprint in the trailer of a file; None if there is no file or no trailer."""
    try:
        # Plain system calls, because there may be hundreds of thousands of files.
        file = os.open(path, os.O_RDONLY)
        try:
            size = os.lseek(file, 0, os.SEEK_END)
            end = _TRAILER.search(os.pread(file, _END, max(0, size - _END)))
        finally:
            os.close(file)
    except OSError:
        return None
    return None if end is None else end[1].decode()


def _side_by_side(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return the results of a function for each item, called in several threads."""
    # One slice per thread: handing over an item costs more than reading a small file.
    size = max(_LEAST, -(-len(items) // _THREADS))
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(_THREADS) as pool:
        done = pool.map(lambda part: [function(item) for item in part], parts)
        return [result for part in done for result in part]
