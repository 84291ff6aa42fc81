"""The point DB: projected points of many granules in square chunks, that grows by commits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from os import PathLike
from pathlib import Path

import pandas as pd
import pyproj

from cryotile.errors import InvalidValue
from cryotile.geo.grid import Tile
from cryotile.geo.projection import crs_text, projected_crs
from cryotile.pointdb.append import Appended, append_granules
from cryotile.pointdb.compact import Compacted, compact
from cryotile.pointdb.description import (
    FILE_NAME,
    Description,
    create_directory,
    extra_columns,
    read_description,
)
from cryotile.pointdb.fragments import FragmentGone
from cryotile.pointdb.history import describe_commits
from cryotile.pointdb.read import Selection, parsed, read_points
from cryotile.pointdb.remove import Removed, remove_granules
from cryotile.pointdb.selection import Time, read_limits, touched
from cryotile.pointdb.snapshots import Snapshots
from cryotile.pointdb.squares import select_squares
from cryotile.pointdb.state import describe_granules
from cryotile.pointdb.verify import Damage, verify
from cryotile.points import CORE_COLUMNS, Batch, Bounds, Granule, InPieces
from cryotile.selection.parser import Where

__all__ = ["PointDB"]


class PointDB:
    """Points on disk, in one directory that any number of processes may read and append to at once.

    Parameters
    ----------
    path : path
        The directory of a point DB.

    Raises
    ------
    InvalidValue
        It does not exist, is no point DB, or needs a newer cryotile.
    DamagedFile
        Its log is altered or incomplete.

    Examples
    --------
    >>> points = PointDB("greenland.pdb").read(where="platform == 'cryosat2'")  # doctest: +SKIP
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._description = read_description(self.path)
        self._snapshots = Snapshots(self.path)

    @classmethod
    def create(
        cls,
        path: str | PathLike[str],
        crs: str | pyproj.CRS,
        *,
        chunk_size: float = 100_000.0,
        columns: Mapping[str, str] | Iterable[str] = (),
    ) -> PointDB:
        """Create a point DB, or open the one that is there if it is just so.

        Parameters
        ----------
        path : path
            A directory that does not exist or is empty; those above it are created.
        crs : str or pyproj.CRS
            Projected, metres.
        chunk_size : float
            Side of a chunk, metres; a multiple of 5 km, up to 1000 km.
        columns : mapping of str to str, or iterable of str
            Further columns to keep, float32, and their units.

        Raises
        ------
        InvalidValue
            A value breaks its rule, or the point DB that is there differs.
        UnwritablePath
            The directory holds something else, or cannot be written.
        """
        path = Path(path)
        extra = extra_columns(columns)
        text = crs_text(projected_crs(crs))
        description = Description(text, float(chunk_size), extra)
        if not (path / FILE_NAME).exists():
            create_directory(path, description)
        db = cls(path)
        db.check_matches(crs=text, columns=[name for name, _ in extra], chunk_size=chunk_size)
        return db

    @cached_property
    def crs(self) -> pyproj.CRS:
        """CRS of ``x, y``."""
        return pyproj.CRS.from_user_input(self.crs_text)

    @property
    def crs_text(self) -> str:
        """The CRS as text: ``EPSG:3031`` where an authority lists it, else WKT."""
        return self._description.crs

    @property
    def chunk_size(self) -> float:
        """Side of a chunk, metres."""
        return self._description.chunk_size

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the extra columns."""
        return tuple(name for name, _ in self._description.extra)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of all columns: core columns, then extra ones."""
        return (*CORE_COLUMNS, *self.columns)

    @property
    def snapshot(self) -> int:
        """Number of the newest commit seen, 0 where there is none: what is read if nothing else is said."""
        return self._snapshots.newest.number

    @property
    def granules(self) -> pd.DataFrame:
        """Granules, one row each.

        Columns ``id, name, product, baseline, version, checksum, rows, record_count, dropped`` (dict, reason → points),
        ``notes, platforms, passes`` (lists), ``time_min, time_max`` (datetime64[ms], NaT without rows),
        ``snapshot`` (the commit that added it), ``number`` (in the column ``granule`` of the fragments).
        """
        return describe_granules(self._snapshots.newest.granules)

    def checksums(self) -> dict[str, str]:
        """Return checksum → id of the granules that are there now, also by commits since the point DB was opened."""
        known = self._snapshots
        known.newest = known.log.follow(known.newest)
        columns = (known.newest.granules[name].to_pylist() for name in ("checksum", "id"))
        return dict(zip(*columns, strict=True))

    def check_matches(
        self,
        *,
        crs: str | None = None,
        columns: Sequence[str] | None = None,
        chunk_size: float | None = None,
    ) -> None:
        """Make sure that the point DB is what a user takes it for; None is not checked.

        Parameters
        ----------
        crs, columns, chunk_size
            As for :meth:`create`; the extra columns must be among those that are kept.

        Raises
        ------
        InvalidValue
            Something differs; these are settled when a point DB is created.
        """
        self._description.check_matches(self.path, crs=crs, columns=columns, chunk_size=chunk_size)

    def append(self, granules: Sequence[Granule] | Batch | InPieces) -> Appended:
        """Add the points of projected granules: one fragment per chunk that they touch, one commit.

        A granule that is there already (by id, baseline, version and content) is left alone, a newer baseline or
        version replaces an older one, and an older one is refused by name.

        Parameters
        ----------
        granules : sequence of Granule, Batch or InPieces
            With ``x, y``; a extra column of the DB that one lacks is NaN there, others are left out.  Without points,
            a granule is recorded with 0 rows.

        Returns
        -------
        Appended
            What became of each; one that is refused keeps none of the others out.

        Raises
        ------
        UnwritablePath
            A full disk, …; the DB is as it was.
        """
        batch = Batch.of(granules) if isinstance(granules, Sequence) else granules
        known, about = self._snapshots, self._description
        known.newest, done = append_granules(self.path, about, known.log, known.newest, batch)
        return done

    def read(
        self,
        bounds: Bounds | Tile | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: str | Where | None = None,
        time: tuple[Time, Time] | None = None,
        snapshot: int | None = None,
    ) -> pd.DataFrame:
        """Read points.

        Parameters
        ----------
        bounds : (float, float, float, float), Tile or None
            ``(x_min, y_min, x_max, y_max)``, metres, or a tile's; points on them are inside.  None: everywhere.
        columns : sequence of str or None
            Which columns, in this order.  None: the core columns.
        where : str, Where or None
            Which points; see :class:`cryotile.selection.parser.Where`.
        time : (time, time) or None
            First instant, and first instant after the last; ISO 8601 or datetimes, UTC.
        snapshot : int or None
            Number of the commit to look at.  None: :attr:`snapshot`.

        Returns
        -------
        DataFrame, shape (points, columns)
            Dtypes of :data:`cryotile.points.CORE_COLUMNS`, extra columns float32; ``attrs["crs"]`` names the CRS.
            Sorted by chunk, 5 km square, time, x, y and then the columns read: an order that follows from the points
            alone, whenever and with whichever granules they came in.

        Raises
        ------
        InvalidValue
            Bounds or times that are reversed or NaN, an unknown column or snapshot, an expression that is none.
        DamagedFile
            A fragment is missing or altered; it is named.
        """
        selection = Selection.of(self.column_names, bounds, columns, where, time)
        return self._read(selection, snapshot, None)

    def iter_chunks(
        self,
        bounds: Bounds | Tile | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: str | Where | None = None,
        time: tuple[Time, Time] | None = None,
        snapshot: int | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Read points chunk by chunk, where all of them do not fit into memory.

        Parameters
        ----------
        bounds, columns, where, time, snapshot
            As :meth:`read`.

        Yields
        ------
        DataFrame, shape (points, columns)
            The points of one chunk, if there are any; one after the other they are what :meth:`read` returns.

        Raises
        ------
        InvalidValue, DamagedFile
            As :meth:`read`; also when a compaction ends the snapshot meanwhile.
        """
        selection = Selection.of(self.column_names, bounds, columns, where, time)
        snapshot = self.snapshot if snapshot is None else snapshot
        fragments = touched(
            self._snapshots.at(snapshot).fragments, selection.limits, selection.where
        )
        for chunk in dict.fromkeys(entry["chunk"] for entry in fragments):
            points = self._read(selection, snapshot, chunk)
            if len(points):
                yield points

    def fragments(
        self, bounds: Bounds | Tile | None = None, *, snapshot: int | None = None
    ) -> list[Path]:
        """List the Parquet files that hold the points, for other programs; those that touch bounds, if given."""
        limits = read_limits(bounds, None)
        entries = touched(self._snapshots.at(snapshot).fragments, limits, None)
        return [self.path / entry["path"] for entry in entries]

    def squares(
        self,
        bounds: Bounds | Tile | None = None,
        *,
        where: str | Where | None = None,
        snapshot: int | None = None,
    ) -> pd.DataFrame:
        """Count points without reading any, by 5 km square, platform and mode.

        Parameters
        ----------
        bounds : (float, float, float, float) or None
            Squares that touch these bounds, metres.  None: all.
        where : str, Where or None
            Squares that may hold a point that it selects, as far as place, time, platform and mode tell.
        snapshot : int or None
            Number of the commit to look at.  None: :attr:`snapshot`.

        Returns
        -------
        DataFrame
            ``x_min, y_min`` (south-western corner, m), ``platform, mode`` (categories), ``count`` (int64), ``digest``
            (uint64, the sum modulo 2⁶⁴ of a hash of each point), ``time_min, time_max`` (datetime64[ms]); from south to
            north, then west to east.

        Raises
        ------
        InvalidValue
            As :meth:`read`.
        """
        condition = parsed(where, self.column_names)
        return select_squares(self._snapshots.squares(snapshot), bounds, condition)

    def history(self, last: int | None = None) -> pd.DataFrame:
        """Tell what the commits did, the newest first.

        Parameters
        ----------
        last : int or None
            How many of them; None: all.

        Returns
        -------
        DataFrame, one row per commit
            ``snapshot, time`` (UTC, by the writer's clock), ``cryotile`` (version), ``added, removed`` (granules),
            ``rows`` (of those added), ``compaction`` (no content changed), ``available`` (can still be read).
        """
        return describe_commits(
            islice(self._snapshots.log.history(self.snapshot), last), self._snapshots.newest
        )

    def has_snapshot(self, snapshot: int) -> bool:
        """Tell whether a snapshot can be read: it exists, and no compaction has ended it."""
        try:
            self._snapshots.log.load(snapshot)
        except InvalidValue:
            return False
        return True

    def remove(self, granules: Sequence[str]) -> Removed:
        """Remove the points of granules, in one commit that rewrites the fragments with points of them.

        Parameters
        ----------
        granules : sequence of str
            Ids or file names.

        Raises
        ------
        InvalidValue
            A granule is not there; nothing was done.
        DamagedFile, UnwritablePath
            A fragment that holds points of other granules, too, is damaged; a full disk, …: the DB is as it was.
        """
        known = self._snapshots
        known.newest, removed = remove_granules(
            self.path, self._description, known.log, known.newest, granules
        )
        return removed

    def compact(self, *, keep: Collection[int] = ()) -> Compacted:
        """Merge small fragments, and delete those that are superseded or that dead writers left.

        Others may read and write meanwhile.  The points stay the same, and so do counts and digests of squares.

        Parameters
        ----------
        keep : collection of int
            Earlier snapshots to keep, all others are ended; the next compaction has to name them again.

        Raises
        ------
        InvalidValue
            A snapshot to keep is not there.
        DamagedFile, UnwritablePath
            A fragment that should be merged is damaged; a full disk, …: the points are as they were.
        """
        self._snapshots.newest, compacted = compact(
            self.path, self._description, self._snapshots.log, self._snapshots.newest, keep
        )
        return compacted

    def verify(self) -> Iterator[Damage]:
        """Compare every file that the log names with what it says of it; yield each damage as it is found."""
        return verify(self.path, self._description, self._snapshots.log, self._snapshots.newest)

    def _read(self, selection: Selection, snapshot: int | None, chunk: int | None) -> pd.DataFrame:
        while True:
            fragments = self._snapshots.at(snapshot).fragments
            entries = touched(fragments, selection.limits, selection.where, chunk)
            try:
                return read_points(self.path, self._description, entries, selection)
            except FragmentGone as gone:
                self._snapshots.renew(snapshot, gone)
