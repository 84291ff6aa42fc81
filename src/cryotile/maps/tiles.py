"""Fitted tiles, one NetCDF-4 file each: the record of which tasks are done.

A tile file ends with a trailer, which NetCDF readers ignore: a newline, the tile's fingerprint, a newline, and the
SHA-256 of all bytes before.  The checksum reveals damage without a call of the HDF5 library on damaged bytes.  The last
bytes alone tell whether the file is complete and which fingerprint it was saved with.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import xarray as xr

from cryotile.errors import DamagedFile
from cryotile.files import atomic_path
from cryotile.geo.grid import Tile
from cryotile.maps.netcdf import read_dataset, write_dataset

__all__ = ["TileStore"]

_SUFFIX = ".nc"

_CHECKSUM = 65
"""Bytes of a newline and a SHA-256 in hexadecimal."""

# The trailer lies within so many bytes of the end: a fingerprint has at most 128 characters.
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

    def save(self, tile: Tile, dataset: xr.Dataset, fingerprint: str) -> None:
        """Save a tile, whole or not at all, and replace an earlier one.

        Equal datasets and fingerprints give equal bytes.

        Parameters
        ----------
        tile : Tile
            The posts.
        dataset : Dataset
            Their fit, dimensions (y, x).
        fingerprint : str
            One line of at most 128 characters: a digest of everything that determines the fit.

        Raises
        ------
        UnwritablePath
            The directory cannot be written, or the disk is full.
        """
        with atomic_path(self.file(tile)) as temporary:
            write_dataset(temporary, dataset)
            content = temporary.read_bytes() + f"\n{fingerprint}".encode()
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
            As it was saved, instants as datetime64[ms].

        Raises
        ------
        DamagedFile
            The file is absent, truncated or altered, or holds another tile.
        """
        dataset = read_dataset(bytes(self._verified(tile)[0]))
        # The checksum does not reveal that a file was renamed.
        if not (np.array_equal(dataset["x"], tile.x) and np.array_equal(dataset["y"], tile.y)):
            raise DamagedFile(
                f"{self.file(tile)} holds other posts than its name says; run again to make it"
            )
        return dataset

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
        except FileNotFoundError:
            return {}

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
