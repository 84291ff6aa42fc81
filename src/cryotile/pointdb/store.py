"""A point DB on disk: its directory, its description in ``cryotile.json``, its log; and how a commit gets into it."""

from __future__ import annotations

import errno
import json
import logging
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj

from cryotile.errors import DamagedFile, InvalidValue, UnwritablePath
from cryotile.files import (
    atomic_path,
    fsync,
    make_directory,
    read_sealed,
    set_aside,
    write_sealed,
    writing,
)
from cryotile.geo.projection import projected_crs
from cryotile.pointdb.encoding import schema, stored_names
from cryotile.pointdb.fragments import FragmentGone, Writer, damaged_fragment, discard_fragments
from cryotile.pointdb.log import Log, NumberTaken, patiently
from cryotile.pointdb.snapshot import Commit, Snapshot
from cryotile.pointdb.sort_order import SQUARE_SIZE
from cryotile.points import CORE_COLUMNS

__all__ = [
    "FILE_NAME",
    "FORMAT",
    "FORMAT_VERSION",
    "Committed",
    "Description",
    "Store",
    "create_store",
    "extra_columns",
]

FILE_NAME = "cryotile.json"
FORMAT = "cryotile point DB"

FORMAT_VERSION = 1
"""Increased when an older cryotile cannot read the files of a newer one."""

_logger = logging.getLogger(__name__)

LARGEST_CHUNK = 1_000_000.0


@dataclass(frozen=True)
class Description:
    """Properties of a point DB that never change.

    Attributes
    ----------
    crs : str
        Name at an authority, e.g. ``EPSG:3031``, or WKT.
    chunk_size : float
        Metres.
    extra : tuple of (str, str)
        Extra columns and their units.
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
        """Arrow schema of the fragments."""
        return schema(dict(self.extra), self.crs)

    def check_matches(
        self,
        path: Path,
        *,
        crs: str | None,
        columns: Sequence[str] | None,
        chunk_size: float | None,
    ) -> None:
        """Raise InvalidValue if the point DB differs from the caller's expectation; None is not checked."""
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
        """Return the content of ``cryotile.json``."""
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
            # The name on disk is part of the format.
            "further_columns": dict(self.extra),
            "columns": fields,
        }


@dataclass(frozen=True, eq=False)
class Committed:
    """Result of :meth:`Store.commit`.

    Attributes
    ----------
    before, after : Snapshot
        Around the commit; the same if there was nothing to change.
    commit : Commit or None
        None: there was nothing to change.
    """

    before: Snapshot
    after: Snapshot
    commit: Commit | None


@dataclass(frozen=True, eq=False)
class Store:
    """A point DB on disk.

    Attributes
    ----------
    root : Path
        Its directory.
    description : Description
        Content of its ``cryotile.json``.
    log : Log
        Its log.
    """

    root: Path
    description: Description
    log: Log

    @classmethod
    def open(cls, root: Path) -> Store:
        """Open a point DB.

        Raises
        ------
        InvalidValue
            The directory does not exist, is not a point DB, or has a newer format.
        DamagedFile
            ``cryotile.json`` was altered.
        """
        return cls(root, _read_description(root), Log(root / "log"))

    def commit(
        self,
        snapshot: Snapshot,
        prepare: Callable[[Snapshot, Writer], Commit | None],
        stands: Callable[[Commit, Snapshot], bool] | None = None,
    ) -> Committed:
        """Change the point DB by one commit, however many other processes write to it.

        Parameters
        ----------
        snapshot : Snapshot
            The newest that the caller knows.
        prepare : callable
            Writes the fragments of the commit that a snapshot requires; returns None if there is nothing to change.
        stands : callable
            Called after another writer's commit: tells whether a commit that was prepared before it is still right.
            That everything it removes still exists is checked here.  None: it is always right.

        Returns
        -------
        Committed
            With the newest snapshot.
        """
        attempted = 0
        while True:
            snapshot = self.log.follow(snapshot, at_least=attempted)
            with Writer(self.root) as writer:
                try:
                    commit = prepare(snapshot, writer)
                except FragmentGone as gone:
                    snapshot = self.newer(partial(self.log.follow, snapshot), snapshot, gone)
                    continue
                if commit is None:
                    return Committed(snapshot, snapshot, None)
                try:
                    while True:
                        attempted = snapshot.number + 1
                        try:
                            return Committed(snapshot, self.log.commit(snapshot, commit), commit)
                        except NumberTaken:
                            snapshot = self.log.follow(snapshot, at_least=attempted)
                        if not commit.is_possible(snapshot) or (
                            stands is not None and not stands(commit, snapshot)
                        ):
                            break
                except BaseException:
                    # After the rename, the fragments belong to the log.
                    if not self.log.holds(attempted, commit):
                        discard_fragments(self.root, commit.fragments)
                    raise
                discard_fragments(self.root, commit.fragments)

    def newer(
        self, reload: Callable[[], Snapshot], snapshot: Snapshot, gone: FragmentGone
    ) -> Snapshot:
        """Return the newer snapshot that explains why a fragment is gone.

        If the file server shows the fragment after all, return what ``reload`` returns.

        Parameters
        ----------
        reload : callable
            Reads the log again.
        snapshot : Snapshot
            The one that names the fragment.
        gone : FragmentGone
            Names the fragment.

        Raises
        ------
        DamagedFile
            There is no newer snapshot: the fragment is lost.
        """
        path = Path(str(gone))
        for _ in patiently():
            found = reload()
            if found.number > snapshot.number or path.exists():
                return found
        raise damaged_fragment(self.root, path, "is missing") from gone


def extra_columns(columns: Mapping[str, str] | Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return names and units of extra columns; the unit of a name alone is ``""``."""
    units = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, "")
    return tuple(units.items())


def _read_description(path: Path) -> Description:
    if not path.is_dir():
        raise InvalidValue(f"point DB {path} does not exist; was it moved away? Give its new path")
    try:
        content = read_sealed(path / FILE_NAME)
    except (FileNotFoundError, DamagedFile) as problem:
        content = _restored(path, problem)
    _check_version(path, content)
    if content["square_size"] != SQUARE_SIZE:
        raise DamagedFile(
            f"{path / FILE_NAME} has squares of {content['square_size']} m, not {SQUARE_SIZE} m; put it back from a"
            " copy"
        )
    extra = tuple(content["further_columns"].items())
    return Description(content["crs"], content["chunk_size"], extra)


def _restored(path: Path, problem: Exception) -> dict[str, Any]:
    """Return the description from the copy beside the log, and put it back; without a copy say what is wrong."""
    place, copy = path / FILE_NAME, path / "log" / FILE_NAME
    try:
        content = read_sealed(copy)
    except (FileNotFoundError, DamagedFile):
        if isinstance(problem, FileNotFoundError):
            raise InvalidValue(
                f"{path} is not a point DB (it has no {FILE_NAME}); give the directory of a point DB"
            ) from None
        try:
            # A newer format may have another checksum.
            described = json.loads(place.read_bytes())
        except (OSError, ValueError):
            raise problem from None
        _check_version(path, described)
        raise problem from None
    set_aside(place)
    try:
        with atomic_path(place) as temporary:
            temporary.write_bytes(copy.read_bytes())
    except UnwritablePath as error:
        _logger.warning("%s", error)
    return content


def _check_version(path: Path, content: dict[str, Any]) -> None:
    try:
        named, version = content["format"] == FORMAT, int(content["format_version"])
    except (ValueError, TypeError, KeyError):
        raise DamagedFile(
            f"{path / FILE_NAME} has no format and version of a point DB; put it back from a copy"
        ) from None
    if not named:
        raise InvalidValue(f"{path} is a {content['format']}, not a point DB; give a point DB")
    if version > FORMAT_VERSION:
        raise InvalidValue(
            f"point DB {path} has format version {version}, and this cryotile reads up to {FORMAT_VERSION};"
            " install a newer cryotile"
        )


def create_store(path: Path, description: Description) -> None:
    """Create an empty point DB, which appears whole by a rename: the rename fails if the path exists."""
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with writing(path):
        make_directory(path.parent)
        try:
            for directory in (temporary, temporary / "log", temporary / "chunks"):
                directory.mkdir()
            for directory in (temporary, temporary / "log"):
                # The copy beside the log takes the place of the first one if that is damaged.
                write_sealed(directory / FILE_NAME, description.content())
            fsync(temporary)
            temporary.rename(path)
        except OSError as error:
            if (path / FILE_NAME).exists():
                return  # Another process was faster.
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise UnwritablePath(
                    f"{path} exists and is not a point DB; give a directory that does not exist or is empty"
                ) from error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync(path.parent)
