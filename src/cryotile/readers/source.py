"""An open granule: raw variables, physical values, attributes, and one-line errors for what is wrong with it.

NetCDF-4 files are HDF5 files.  They are read with h5py alone, which hands out raw integers, opens an L2I file with its
154 variables forty times faster than netCDF4 does, and also reads ATL11, which netCDF4 does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryotile.errors import GranuleError

__all__ = ["Shape", "Source", "open_source"]

Shape = tuple[int, ...]
"""Of a variable: how many values it has along each of its dimensions."""

# What h5py raises when the bytes of an object are not what its headers promise.
_DAMAGE = (OSError, RuntimeError, KeyError)


@dataclass(frozen=True, eq=False)
class Source:
    """A granule that is open for reading.

    Attributes
    ----------
    path : Path
        Where it lies.
    file : h5py.File or None
        The open file; None when it is neither NetCDF-4 nor HDF5, so that readers of other formats start from ``path``.
    """

    path: Path
    file: h5py.File | None

    def __contains__(self, name: str) -> bool:
        return self._node(name) is not None

    def attribute(self, name: str, *, of: str = "/") -> str | float | None:
        """Attribute ``name`` of the file or of the group or variable ``of``; None when it is absent.

        Returns
        -------
        str, int, float or None
            Text is stripped; of an array its first element.
        """
        node = self._node(of)
        return None if node is None else self._attribute(node, name)

    def text(self, name: str) -> str | None:
        """Text in the variable ``name``, stripped; None when it is absent."""
        if name not in self:
            return None
        try:
            return str(_scalar(h5py.Dataset(self._dataset(name))[()]))
        except _DAMAGE as error:
            raise self.damaged(f"variable /{name}", error) from error

    def integer(self, name: str, *, of: str = "/") -> int:
        """Attribute ``name`` of ``of``, which the granule must have, as a whole number.

        Raises
        ------
        GranuleError
            It is absent or no number.
        """
        value = self.attribute(name, of=of)
        try:
            return int(float(value))  # type: ignore[arg-type]  # None is the TypeError below
        except (TypeError, ValueError, OverflowError):
            raise self.lacks(f"number in its attribute {name}") from None

    def raw(self, name: str, shape: Shape | None = None) -> NDArray[Any]:
        """Variable ``name`` as it is stored: flags keep their bits, fill values are values.

        Parameters
        ----------
        name : str
            Path of the variable in the file.
        shape : tuple of int, optional
            The shape that it must have.

        Returns
        -------
        ndarray
            Integers or floats.

        Raises
        ------
        GranuleError
            It is missing, of another shape, no number, or damaged.
        """
        return self._numbers(name, self._dataset(name), shape)

    def shape(self, name: str) -> Shape:
        """Shape of the variable ``name``, which the granule must have."""
        shape: Shape = self._dataset(name).shape
        return shape

    def first(self, name: str) -> int:
        """First value of the variable ``name``, which the granule must have, as a whole number."""
        raw = self.raw(name)
        if raw.size == 0:
            raise self.lacks(f"value in its variable {name}")
        return int(raw.flat[0])

    def values(
        self, name: str, shape: Shape | None = None, *, part: slice | None = None
    ) -> NDArray[np.float64]:
        """Variable ``name`` in the unit that the file declares; NaN where it holds the fill value.

        Parameters and errors are those of :meth:`raw`; of a long variable only a ``part`` may be asked for.
        """
        dataset = self._dataset(name)
        raw = self._numbers(name, dataset, shape, part)
        scale, offset, fill = (
            self._attribute(dataset, key) for key in ("scale_factor", "add_offset", "_FillValue")
        )
        values = raw.astype(np.float64)
        if scale is not None:
            values *= float(scale)
        if offset is not None:
            values += float(offset)
        if fill is not None:
            values[raw == np.asarray(fill).astype(raw.dtype)] = np.nan
        return values

    def values_or_nan(self, name: str, shape: Shape) -> NDArray[np.float64]:
        """Return :meth:`values`, or NaN throughout when the file has no such variable."""
        return self.values(name, shape) if name in self else np.full(shape, np.nan)

    def sensing_start(
        self, text: str | float | None, times: NDArray[np.datetime64]
    ) -> np.datetime64:
        """Instant at which the granule begins: as ``text`` says, else the first of its ``times``.

        Raises
        ------
        GranuleError
            The text is no date, or there is none and no record has a time.
        """
        if text:
            try:
                return pd.Timestamp(str(text)).to_datetime64()
            except ValueError as error:
                raise self.damaged(f"sensing start {text!r}", error) from error
        known = times[~np.isnat(times)]
        if known.size == 0:
            raise self.lacks("sensing start, or a record with a time,")
        first: np.datetime64 = known.min()
        return first

    def checksum(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def lacks(self, what: str) -> GranuleError:
        """Error that says what the granule needs and does not have."""
        return GranuleError(
            f"granule {self.path} lacks the {what} that its product prescribes; download it anew"
        )

    def damaged(self, what: str, error: Exception) -> GranuleError:
        """Error that says what of the granule cannot be made out."""
        reason = " ".join(str(error).split())
        return GranuleError(
            f"granule {self.path} is damaged: its {what} cannot be read ({reason}); download it anew"
        )

    def _node(self, name: str) -> h5py.h5i.ObjectID | None:
        """Identifier of an object; h5py's own objects for it take ten times as long to make."""
        if self.file is None or name == "/":
            return None if self.file is None else self.file.id
        try:
            return h5py.h5o.open(self.file.id, name.encode())
        except KeyError as error:
            if name not in self.file:
                return None
            raise self.damaged(f"object {name}", error) from error
        except _DAMAGE as error:
            raise self.damaged(f"object {name}", error) from error

    def _dataset(self, name: str) -> h5py.h5d.DatasetID:
        node = self._node(name)
        if not isinstance(node, h5py.h5d.DatasetID):
            raise self.lacks(f"variable {name}")
        return node

    def _attribute(self, node: h5py.h5i.ObjectID, name: str) -> str | float | None:
        try:
            # Most are absent, and to be told so by an exception takes twenty times as long.
            if not h5py.h5a.exists(node, name.encode()):
                return None
            attribute = h5py.h5a.open(node, name.encode())
            if attribute.dtype.kind not in "iuf":
                return _scalar(h5py.AttributeManager(_Node(node))[name])
            value = np.empty(attribute.shape, attribute.dtype)
            attribute.read(value)
            return _scalar(value)
        except _DAMAGE as error:
            raise self.damaged(f"attribute {name}", error) from error

    def _numbers(
        self,
        name: str,
        dataset: h5py.h5d.DatasetID,
        shape: Shape | None,
        part: slice | None = None,
    ) -> NDArray[Any]:
        if dataset.dtype.kind not in "iuf":
            raise self.lacks(f"numbers in its variable /{name}")
        if shape is not None and dataset.shape != shape:
            raise self.lacks(f"{shape} values in its variable /{name} (it has {dataset.shape})")
        try:
            if part is not None:
                return np.asarray(h5py.Dataset(dataset)[part])
            values = np.empty(dataset.shape, dataset.dtype)
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        except _DAMAGE as error:
            raise self.damaged(f"variable /{name}", error) from error
        return values


class _Node(NamedTuple):
    """What h5py wants to read attributes of."""

    id: h5py.h5i.ObjectID


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a granule of any format for the length of a ``with``.

    Raises
    ------
    GranuleError
        The file does not exist, may not be read, is empty, or is an HDF5 file that is cut short.
    """
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise GranuleError(
            f"granule {path} cannot be opened: {error.strerror}; check the path"
        ) from error
    if empty:
        raise GranuleError(f"granule {path} is empty (0 bytes); download it anew")
    if not h5py.is_hdf5(path):
        yield Source(path, None)
        return
    try:
        # Archives are often mounted read-only or over NFS, where HDF5's locks fail.
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise GranuleError(
            f"granule {path} is truncated or damaged ({reason}); download it anew"
        ) from error
    with file:
        yield Source(path, file)


def _scalar(value: Any) -> str | float | None:
    """Python value of what h5py gives for text, numbers and one-element arrays of them."""
    if value is None:
        return None
    first = np.asarray(value).ravel()
    if first.size == 0:
        return None
    item = first[0]
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace").strip()
    if isinstance(item, str):
        return item.strip()
    number: float = item.item() if isinstance(item, np.generic) else float("nan")
    return number
