"""Fitted tiles, one NetCDF-4 file each: the truth about what is done.

A tile file ends with a seal, which no NetCDF reader looks at: a newline, the tile's fingerprint, a newline, and the
SHA-256 of all before.  Damage anywhere is seen without asking the HDF5 library to make sense of damaged bytes, and
what a tile was made of, and whether it has an end, by reading the end alone.
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

_SEAL = 65
"""Bytes of a newline and a SHA-256 in hexadecimal."""

# What the last bytes of a sealed file are, the fingerprint being one line of any reasonable length.
_END = 256
_SEALED_END = re.compile(rb"\n([!-~]{1,128})\n[0-9a-f]{64}\Z")

# Files are looked at side by side: a server answers many questions in the time of one, and hashing uses every core.
_THREADS = 8

# Fewer files than this are not worth another thread.
_LEAST = 8

T = TypeVar("T")
R = TypeVar("R")


class TileStore:
    """A directory of fitted tiles; each is whole and as it was saved, or it is missing.

    Parameters
    ----------
    path : path
        The directory; a tile can be saved once it exists.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._ends: dict[str, tuple[int, str | None]] = {}

    def file(self, tile: Tile) -> Path:
        """Return where a tile is or would be."""
        return self.path / f"{tile.name}{_SUFFIX}"

    def save(self, tile: Tile, dataset: xr.Dataset, fingerprint: str) -> None:
        """Save a tile, whole or not at all; one that was there is replaced.

        Equal datasets and fingerprints give equal bytes.

        Parameters
        ----------
        tile : Tile
            Which posts.
        dataset : Dataset
            Their fit, dimensions (y, x).
        fingerprint : str
            One line: a digest of all that the fit follows from.

        Raises
        ------
        UnwritablePath
            The directory cannot be written, or the disk is full.
        """
        with atomic_path(self.file(tile)) as temporary:
            write_dataset(temporary, dataset)
            sealed = temporary.read_bytes() + f"\n{fingerprint}".encode()
            temporary.write_bytes(sealed + _seal(sealed))

    def load(self, tile: Tile) -> xr.Dataset:
        """Load a tile.

        Parameters
        ----------
        tile : Tile
            Which posts.

        Returns
        -------
        Dataset
            As it was saved, instants as datetime64[ms].

        Raises
        ------
        DamagedFile
            It is absent, truncated, altered, or another tile.
        """
        dataset = read_dataset(bytes(self._unseal(tile)[0]))
        # A seal tells that nothing was altered, not that nobody has renamed the file.
        if not (np.array_equal(dataset["x"], tile.x) and np.array_equal(dataset["y"], tile.y)):
            raise DamagedFile(
                f"{self.file(tile)} holds other posts than its name says; run again to make it"
            )
        return dataset

    def fingerprint(self, tile: Tile) -> str | None:
        """Return the fingerprint that a tile was saved with; None when it is absent or damaged.

        The whole file is checked, without decoding it.
        """
        try:
            return self._unseal(tile)[1]
        except DamagedFile:
            return None

    def is_current(self, tile: Tile, fingerprint: str) -> bool:
        """Tell whether a tile is there, undamaged and with this fingerprint, and need not be made again."""
        # A stale tile is told by its end; only one that may be current is read.
        return _end_of(self.file(tile)) == fingerprint and self.fingerprint(tile) == fingerprint

    def are_current(self, tiles: Sequence[tuple[Tile, str]]) -> list[bool]:
        """Tell of many tiles, each with the fingerprint expected, what :meth:`is_current` tells of one."""
        return _side_by_side(lambda expected: self.is_current(*expected), tiles)

    def names(self) -> set[str]:
        """Return the names of the tiles that have a file, whatever its content."""
        return {name.removesuffix(_SUFFIX) for name in self._files()}

    def seals(self, names: Collection[str] | None = None) -> dict[str, str]:
        """Return name → fingerprint of the tiles, all or of these names, whose files end with a seal.

        Of each file only the end is read, and that only once unless it is replaced: a file that was cut short has
        no seal, one that was altered further up still has.
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

    def _unseal(self, tile: Tile) -> tuple[memoryview, str]:
        path = self.file(tile)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedFile(
                f"tile {path} cannot be read: {error.strerror}; run again to make it"
            ) from error
        # Views, not copies: other threads hash meanwhile.
        sealed = memoryview(content)[:-_SEAL]
        if content[-_SEAL:] != _seal(sealed):
            raise DamagedFile(f"tile {path} is truncated, altered or foreign; run again to make it")
        end = content.rindex(b"\n", 0, len(sealed))
        return sealed[:end], str(sealed[end + 1 :], "utf-8")


def _seal(sealed: bytes | memoryview) -> bytes:
    return f"\n{hashlib.sha256(sealed).hexdigest()}".encode()


def _end_of(path: str | Path) -> str | None:
    """Return the fingerprint in the seal of a file; None where there is no file or no seal."""
    try:
        # Plain system calls: files come by the hundred thousand.
        file = os.open(path, os.O_RDONLY)
        try:
            size = os.lseek(file, 0, os.SEEK_END)
            end = _SEALED_END.search(os.pread(file, _END, max(0, size - _END)))
        finally:
            os.close(file)
    except OSError:
        return None
    return None if end is None else end[1].decode()


def _side_by_side(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return what a function makes of each item, calling it in several threads."""
    # A slice for each thread: to hand over one item costs more than to look at a small file.
    size = max(_LEAST, -(-len(items) // _THREADS))
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(_THREADS) as pool:
        done = pool.map(lambda part: [function(item) for item in part], parts)
        return [result for part in done for result in part]
