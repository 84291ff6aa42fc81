"""Fitted tiles, one NetCDF-4 file each: the truth about what is done.

A tile file ends with a seal, which no NetCDF reader looks at: a newline, the tile's fingerprint, a newline, and the
SHA-256 of all before.  Damage anywhere is seen without asking the HDF5 library to make sense of damaged bytes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import xarray as xr

from cryotile.errors import DamagedFile
from cryotile.files import atomic_path
from cryotile.grid import Tile
from cryotile.netcdf import read_dataset, write_dataset

__all__ = ["TileStore"]

_SEAL = 65
"""Bytes of a newline and a SHA-256 in hexadecimal."""


class TileStore:
    """A directory of fitted tiles; each is whole and as it was saved, or it is missing.

    Parameters
    ----------
    path : path
        The directory; a tile can be saved once it exists.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def file(self, tile: Tile) -> Path:
        """Return where a tile is or would be."""
        return self.path / f"{tile.name}.nc"

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
        dataset = read_dataset(self._unseal(tile)[0])
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
        return self.fingerprint(tile) == fingerprint

    def _unseal(self, tile: Tile) -> tuple[bytes, str]:
        path = self.file(tile)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedFile(
                f"tile {path} cannot be read: {error.strerror}; run again to make it"
            ) from error
        sealed, digest = content[:-_SEAL], content[-_SEAL:]
        if digest != _seal(sealed):
            raise DamagedFile(f"tile {path} is truncated, altered or foreign; run again to make it")
        netcdf, _, fingerprint = sealed.rpartition(b"\n")
        return netcdf, fingerprint.decode()


def _seal(sealed: bytes) -> bytes:
    return f"\n{hashlib.sha256(sealed).hexdigest()}".encode()
