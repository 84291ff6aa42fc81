"""An open granule: raw variables, physical values, attributes, and one-line errors.

NetCDF-4 files are HDF5 files.  They are read with h5py alone, which returns raw integers, opens an L2I file with its
154 variables forty times faster than netCDF4, and can read ATL11, which netCDF4 cannot.
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
from numpy.typing import NDArray

from cryotile.errors import GranuleError
from cryotile.geo.values import VALUE_ATTRIBUTES, physical_values
from cryotile.times import parse_date

__all__ = ["Shape", "Source", "is_yes", "open_source"]

Shape = tuple[int, ...]
"""Shape of a variable."""

# Raised by h5py if the bytes of an object do not match its headers.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


@dataclass(frozen=True, eq=False)
class Source:
    """A granule that is open for reading.

    Attributes
    ----------
    path : Path
        Path of the file.
    file : h5py.File or None
        The open file; None if it is neither NetCDF-4 nor HDF5, so that readers of other formats open ``path``.
    """

    path: Path
    file: h5py.File | None

    def __contains__(self, name: str) -> bool:
        return self._node(name) is not None

    @property
    def simulated(self) -> bool:
        """Whether the file says in its attribute ``simulated`` that its points were not measured."""
        return is_yes(self.attribute("simulated"))

    def attribute(self, name: str, *, of: str = "/") -> str | float | None:
        """Return the attribute ``name`` of the file or of the group or variable ``of``; None if it is absent.

        Returns
        -------
        str, int, float or None
            Text is stripped; an array gives its first element.
        """
        node = self._node(of)
        return None if node is None else self._attribute(node, name)

    def text(self, name: str) -> str | None:
        """Return the text in the variable ``name``, stripped; None if it is absent."""
        if name not in self:
            return None
        try:
            return str(_scalar(h5py.Dataset(self._dataset(name))[()]))
        except _DAMAGE as error:
            raise self.damaged(f"variable /{name}", error) from error

    def integer(self, name: str, *, of: str = "/") -> int:
        """Return the attribute ``name`` of ``of``, which the granule must have, as an integer.

        Raises
        ------
        GranuleError
            It is absent or not a number.
        """
        value = self.attribute(name, of=of)
        try:
            return int(float(value))  # type: ignore[arg-type]  # None is the TypeError below
        except (TypeError, ValueError, OverflowError):
            raise self.lacks(f"number in its attribute {name}") from None

    def optional_integer(self, name: str) -> int | None:
        """Return the attribute ``name`` of the file as an integer; None if it is absent."""
        return None if self.attribute(name) is None else self.integer(name)

    def raw(self, name: str, shape: Shape | None = None) -> NDArray[Any]:
        """Return the variable ``name`` as stored: flags keep their bits, fill values are values.

        Parameters
        ----------
        name : str
            Path of the variable in the file.
        shape : tuple of int, optional
            Its required shape.

        Returns
        -------
        ndarray
            Integers or floats.

        Raises
        ------
        GranuleError
            It is missing, has another shape, is not numeric, or is damaged.
        """
        return self._numbers(name, self._dataset(name), shape)

    def shape(self, name: str) -> Shape:
        """Return the shape of the variable ``name``, which the granule must have."""
        shape: Shape = self._dataset(name).shape
        return shape

    def first(self, name: str) -> int:
        """Return the first value of the variable ``name``, which the granule must have, as an integer."""
        raw = self.raw(name)
        if raw.size == 0:
            raise self.lacks(f"value in its variable {name}")
        return int(raw.flat[0])

    def values(
        self, name: str, shape: Shape | None = None, *, part: slice | tuple[Any, ...] | None = None
    ) -> NDArray[np.float64]:
        """Return the variable ``name`` in the unit that the file declares; NaN where it says that a value is missing.

        Parameters and errors are those of :meth:`raw`; ``part`` selects values of a long variable.
        """
        dataset = self._dataset(name)
        raw = self._numbers(name, dataset, shape, part)
        stated = {key: self._value(dataset, key) for key in VALUE_ATTRIBUTES}
        if stated["_FillValue"] is None:
            stated["_FillValue"] = _unwritten(dataset)
        return physical_values(raw, stated)

    def values_or_nan(self, name: str, shape: Shape) -> NDArray[np.float64]:
        """Return :meth:`values`, or NaN throughout if the file lacks the variable."""
        return self.values(name, shape) if name in self else np.full(shape, np.nan)

    def raw_or(self, name: str, shape: Shape, value: int) -> NDArray[Any]:
        """Return :meth:`raw`, or ``value`` throughout if the file lacks the variable."""
        return self.raw(name, shape) if name in self else np.full(shape, value)

    def sensing_start(
        self, text: str | float | None, times: NDArray[np.datetime64]
    ) -> np.datetime64:
        """Return the instant at which the granule begins: that of ``text``, otherwise the first of its ``times``.

        Raises
        ------
        GranuleError
            The text is not a date, or there is no text and no record has a time.
        """
        if text:
            try:
                return parse_date(str(text)).to_datetime64()
            except ValueError as error:
                raise self.damaged(f"sensing start {text!r}", error) from error
        known = times[~np.isnat(times)]
        if known.size == 0:
            raise self.lacks("sensing start, or a record with a time,")
        first: np.datetime64 = known.min()
        return first

    def checksum(self) -> str:
        """Return the SHA-256 of the file, hexadecimal."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def lacks(self, what: str) -> GranuleError:
        """Return the error of a granule that lacks ``what``."""
        return GranuleError(
            f"granule {self.path} lacks the {what} that its reader requires; download it again, or a subset with it"
        )

    def damaged(self, what: str, error: Exception) -> GranuleError:
        """Return the error of a granule whose ``what`` cannot be read."""
        reason = " ".join(str(error).split())
        return GranuleError(
            f"granule {self.path} is damaged: its {what} cannot be read ({reason}); download it again"
        )

    def _node(self, name: str) -> h5py.h5i.ObjectID | None:
        """Return the identifier of an object; creating h5py's high-level object takes ten times as long."""
        if self.file is None or name == "/":
            return None if self.file is None else self.file.id
        try:
            return h5py.h5o.open(self.file.id, name.encode())
        except _DAMAGE as error:
            # h5py raises a KeyError both for an absent object and for one whose header is damaged.
            if isinstance(error, KeyError) and self._is_absent(name):
                return None
            raise self.damaged(f"object {name}", error) from error

    def _is_absent(self, name: str) -> bool:
        try:
            return self.file is not None and name not in self.file
        except _DAMAGE as error:
            raise self.damaged(f"object {name}", error) from error

    def _dataset(self, name: str) -> h5py.h5d.DatasetID:
        node = self._node(name)
        if not isinstance(node, h5py.h5d.DatasetID):
            raise self.lacks(f"variable {name}")
        return node

    def _attribute(self, node: h5py.h5i.ObjectID, name: str) -> str | float | None:
        return _scalar(self._value(node, name))

    def _value(self, node: h5py.h5i.ObjectID, name: str) -> Any:
        """Return an attribute as h5py returns it; None if it is absent."""
        try:
            # Most attributes are absent, and an exception takes twenty times as long as this test.
            if not h5py.h5a.exists(node, name.encode()):
                return None
            attribute = h5py.h5a.open(node, name.encode())
            if attribute.dtype.kind not in "iuf":
                return h5py.AttributeManager(_Node(node))[name]
            value = np.empty(attribute.shape, attribute.dtype)
            attribute.read(value)
        except _DAMAGE as error:
            raise self.damaged(f"attribute {name}", error) from error
        return value

    def _numbers(
        self,
        name: str,
        dataset: h5py.h5d.DatasetID,
        shape: Shape | None,
        part: slice | tuple[Any, ...] | None = None,
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


def _unwritten(dataset: h5py.h5d.DatasetID) -> NDArray[Any] | None:
    """Return the value that HDF5 gives where nothing was written, if whoever made the variable chose it; not 0."""
    made = dataset.get_create_plist()
    # NetCDF, too, chooses one for bytes, of which every value is valid.
    if dataset.dtype.itemsize == 1 or made.fill_value_defined() != h5py.h5d.FILL_VALUE_USER_DEFINED:
        return None
    value = np.zeros((), dataset.dtype)
    made.get_fill_value(value)
    return value if value else None


class _Node(NamedTuple):
    """The object whose attributes h5py reads."""

    id: h5py.h5i.ObjectID


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a granule of any format for the length of a ``with``.

    Raises
    ------
    GranuleError
        The file does not exist, cannot be read, is empty, or is a truncated HDF5 file.
    """
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        remedy = "give the files in it" if path.is_dir() else "check the path"
        raise GranuleError(
            f"granule {path} cannot be opened: {error.strerror}; {remedy}"
        ) from error
    if empty:
        raise GranuleError(f"granule {path} is empty (0 bytes); download it again")
    if not h5py.is_hdf5(path):
        yield Source(path, None)
        return
    try:
        # Archives are often mounted read-only or over NFS, where HDF5's locks fail.
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise GranuleError(
            f"granule {path} is truncated or damaged ({reason}); download it again"
        ) from error
    with file:
        yield Source(path, file)


def is_yes(mark: object) -> bool:
    """Return whether the mark ``simulated`` of a file is set: it is there, and says neither 0 nor no."""
    return str(mark).strip().casefold() not in ("none", "", "0", "0.0", "false", "no", "nan")


def _scalar(value: Any) -> str | float | None:
    """Return the Python value of text, a number or the first element of an array, as h5py returns them."""
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
