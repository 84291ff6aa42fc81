"""``cryotile.json``: what a point DB says of itself, once and for all."""

from __future__ import annotations

import errno
import json
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj

from cryotile.errors import DamagedFile, InvalidValue, UnwritablePath
from cryotile.files import fsync_directory, make_directory, read_sealed, write_sealed, writing
from cryotile.geo.projection import projected_crs
from cryotile.pointdb.encoding import schema, stored_names
from cryotile.pointdb.layout import SQUARE_SIZE
from cryotile.points import CORE_COLUMNS

__all__ = [
    "FILE_NAME",
    "FORMAT",
    "FORMAT_VERSION",
    "Description",
    "extra_columns",
    "read_description",
]

FILE_NAME = "cryotile.json"
FORMAT = "cryotile point DB"

FORMAT_VERSION = 1
"""Raised when an older cryotile could no longer read what a newer one writes."""

LARGEST_CHUNK = 1_000_000.0


@dataclass(frozen=True)
class Description:
    """What never changes in a point DB.

    Attributes
    ----------
    crs : str
        An authority's name for it, e.g. ``EPSG:3031``, or WKT.
    chunk_size : float
        Metres.
    extra : tuple of (str, str)
        Further columns and their units.
    """

    crs: str
    chunk_size: float
    extra: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        squares = self.chunk_size / SQUARE_SIZE
        if not (SQUARE_SIZE <= self.chunk_size <= LARGEST_CHUNK and squares == np.rint(squares)):
            raise InvalidValue(
                f"chunk size {self.chunk_size} m is not a multiple of {SQUARE_SIZE:.0f} m up to"
                f" {LARGEST_CHUNK:.0f} m; use e.g. 100000"
            )
        reserved = {*CORE_COLUMNS, *stored_names(CORE_COLUMNS), "granule", "longitude", "latitude"}
        for name, _ in self.extra:
            if not name.isidentifier() or name in reserved:
                raise InvalidValue(
                    f"extra column {name!r} is not a new name of letters, digits and _; choose another"
                )

    @property
    def schema(self) -> pa.Schema:
        """Schema of the fragments."""
        return schema(dict(self.extra), self.crs)

    def check_matches(
        self,
        path: Path,
        *,
        crs: str | None,
        columns: Sequence[str] | None,
        chunk_size: float | None,
    ) -> None:
        """Refuse what a user takes the point DB for, if it is not that; None is not checked."""
        remedy = "leave it out, or use another point DB"
        if crs is not None and crs != self.crs:
            own = pyproj.CRS.from_user_input(self.crs)
            if projected_crs(crs) != own:
                shown = self.crs if len(self.crs) < 30 else own.name
                raise InvalidValue(f"CRS {crs} is not that of point DB {path} ({shown}); {remedy}")
        if chunk_size is not None and chunk_size != self.chunk_size:
            raise InvalidValue(
                f"chunk size {chunk_size} m is not that of point DB {path} ({self.chunk_size} m); {remedy}"
            )
        ours = [name for name, _ in self.extra]
        for name in columns or ():
            if name not in ours:
                raise InvalidValue(
                    f"column {name!r} is not kept by point DB {path} (extra columns:"
                    f" {', '.join(ours) or 'none'}); {remedy}"
                )

    def content(self) -> dict[str, Any]:
        """What ``cryotile.json`` holds."""
        fields = [
            {"name": f.name, "dtype": str(f.type)}
            | {key.decode(): value.decode() for key, value in (f.metadata or {}).items()}
            for f in self.schema
        ]
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "crs": self.crs,
            "crs_wkt": pyproj.CRS.from_user_input(self.crs).to_wkt(),
            "chunk_size": self.chunk_size,
            "square_size": SQUARE_SIZE,
            "extra_columns": dict(self.extra),
            "columns": fields,
        }


def extra_columns(columns: Mapping[str, str] | Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Names and units of extra columns; names alone have the unit ``""``."""
    units = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, "")
    return tuple(units.items())


def read_description(path: Path) -> Description:
    """Read ``cryotile.json``.

    Parameters
    ----------
    path : Path
        The point DB.

    Returns
    -------
    Description
        What it says.

    Raises
    ------
    InvalidValue
        The directory is gone, is no point DB, or is one of a newer format.
    DamagedFile
        The file was altered.
    """
    if not path.is_dir():
        raise InvalidValue(f"point DB {path} does not exist; was it moved away? Give its new path")
    try:
        _check_version(path)
        content = read_sealed(path / FILE_NAME)
    except FileNotFoundError:
        raise InvalidValue(
            f"{path} is no point DB (it has no {FILE_NAME}); give the directory of one"
        ) from None
    if content["square_size"] != SQUARE_SIZE:
        raise DamagedFile(
            f"{path / FILE_NAME} has squares of {content['square_size']} m; restore it"
        )
    extra = tuple(content["extra_columns"].items())
    return Description(content["crs"], content["chunk_size"], extra)


def _check_version(path: Path) -> None:
    """Look at the version before anything else, for a newer format may be sealed otherwise."""
    try:
        content = json.loads((path / FILE_NAME).read_bytes())
        named, version = content["format"] == FORMAT, int(content["format_version"])
    except (ValueError, TypeError, KeyError):
        raise DamagedFile(
            f"{path / FILE_NAME} does not say what a point DB says; put it back from a copy"
        ) from None
    if not named:
        raise InvalidValue(f"{path} is no point DB but a {content['format']}; give a point DB")
    if version > FORMAT_VERSION:
        raise InvalidValue(
            f"point DB {path} has format version {version}, and this cryotile reads up to {FORMAT_VERSION};"
            " install a newer cryotile"
        )


def create_directory(path: Path, description: Description) -> None:
    """Make a point DB appear whole, by the trick of the log: a rename fails where something is."""
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with writing(path):
        make_directory(path.parent)
        try:
            for directory in (temporary, temporary / "log", temporary / "chunks"):
                directory.mkdir()
            write_sealed(temporary / FILE_NAME, description.content())
            fsync_directory(temporary)
            temporary.rename(path)
        except OSError as error:
            if (path / FILE_NAME).exists():
                return  # another process was faster
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise UnwritablePath(
                    f"{path} exists and is no point DB; give a directory that does not exist or is empty"
                ) from error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync_directory(path.parent)
