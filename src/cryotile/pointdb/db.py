"""The point DB: projected points of many granules in square chunks; it grows by commits."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyproj

from cryotile.errors import DamagedFile, InvalidValue, path_of
from cryotile.geo.grid import Tile
from cryotile.geo.projection import crs_text, projected_crs
from cryotile.pointdb.compact import SMALL, Compacted, compact
from cryotile.pointdb.delivery import complete
from cryotile.pointdb.fragments import FragmentGone
from cryotile.pointdb.geoparquet import write_geoparquet
from cryotile.pointdb.read import (
    Selection,
    parse_condition,
    read_limits,
    read_points,
    select_fragments,
    select_squares,
)
from cryotile.pointdb.rewrite import Removed, remove_granules
from cryotile.pointdb.snapshot import EXTENT, Snapshot
from cryotile.pointdb.squares import describe_squares
from cryotile.pointdb.store import FILE_NAME, Description, Store, create_store, extra_columns
from cryotile.pointdb.verify import Damage, verify
from cryotile.pointdb.write import Appended, append_granules
from cryotile.points import CORE_COLUMNS, Batch, Bounds, Granule, InPieces, ReprMixin
from cryotile.selection import Where
from cryotile.times import Instant, instant_text

if TYPE_CHECKING:
    from cryotile.runs.ingest_batch import IngestReport

__all__ = ["PointDB"]

MANY_FRAGMENTS = 10
"""Small fragments of a chunk; with more, a tile takes longer to read than after :meth:`PointDB.compact`."""


class PointDB(ReprMixin):
    """Points on disk, in one directory that any number of processes may read and append to at the same time.

    Parameters
    ----------
    path : path
        The directory of a point DB.

    Raises
    ------
    InvalidValue
        It does not exist, is not a point DB, or needs a newer cryotile.
    DamagedFile
        Its log is altered or incomplete.

    Examples
    --------
    >>> points = PointDB("greenland.pdb").read(where="platform == 'cryosat2'")  # doctest: +SKIP
    """

    last_ingest: IngestReport | None = None
    """Report of the last :func:`cryotile.ingest` through this object; None before."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = path_of("path", path)
        self._store = Store.open(self.path)
        self._newest = self._store.log.load()
        # The snapshot that was read last, by number, and the squares that were counted last.
        self._requested = self._newest.number, self._newest
        self._counted: tuple[Snapshot, pd.DataFrame] | None = None

    @classmethod
    def create(
        cls,
        path: str | PathLike[str],
        crs: str | pyproj.CRS,
        *,
        chunk_size: float = 100_000.0,
        columns: Mapping[str, str] | Iterable[str] = (),
    ) -> PointDB:
        """Create a point DB, or open the existing one if it has the same properties.

        Parameters
        ----------
        path : path
            A directory that does not exist or is empty; its parents are created.
        crs : str or pyproj.CRS
            Projected, in metres.
        chunk_size : float
            Side of a chunk, metres; a multiple of 5 km, up to 1000 km.
        columns : mapping of str to str, or iterable of str
            Extra columns to keep, float32, and their units.

        Raises
        ------
        InvalidValue
            An argument is invalid, or the existing point DB differs.
        UnwritablePath
            The directory holds other files, or cannot be written.
        """
        path = Path(path)
        extra = extra_columns(columns)
        text = crs_text(projected_crs(crs))
        description = Description(text, float(chunk_size), extra)
        if not (path / FILE_NAME).exists():
            create_store(path, description)
        db = cls(path)
        db.check_matches(crs=text, columns=[name for name, _ in extra], chunk_size=chunk_size)
        return db

    @cached_property
    def crs(self) -> pyproj.CRS:
        """CRS of ``x, y``."""
        return pyproj.CRS.from_user_input(self.crs_text)

    @property
    def crs_text(self) -> str:
        """The CRS as text: ``EPSG:3031`` if an authority lists it, else WKT."""
        return self._store.description.crs

    @property
    def chunk_size(self) -> float:
        """Side of a chunk, metres."""
        return self._store.description.chunk_size

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the extra columns."""
        return tuple(name for name, _ in self._store.description.extra)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of all columns: core columns, then extra ones."""
        return (*CORE_COLUMNS, *self.columns)

    @property
    def snapshot(self) -> int:
        """Number of the newest commit that this object knows, 0 if there is none; read by default."""
        return self._newest.number

    @property
    def granules(self) -> pd.DataFrame:
        """Table of the granules, one row each.

        Columns ``id, name, product, baseline, version, checksum, rows, record_count, dropped`` (dict, reason → points),
        ``notes, platforms, passes`` (lists), ``x_min, y_min, x_max, y_max`` (m) and ``time_min, time_max``
        (datetime64[ms]) of all its records (NaN and NaT if none has time and place), ``overlaps`` (list, numbers of
        those that have records that it was stored without), ``complete`` (bool, whether those are there),
        ``simulated`` (bool), ``snapshot`` (the commit that added it), ``number`` (in the column ``granule`` of the
        fragments).
        """
        return self.granules_at(None)

    def granules_at(self, snapshot: int | None) -> pd.DataFrame:
        """Return :attr:`granules` as of a snapshot; None: the newest."""
        table = self._at(snapshot).granules
        frame: pd.DataFrame = table.drop_columns(["dropped", *EXTENT]).to_pandas()
        frame["dropped"] = pd.Series(
            [json.loads(t) for t in table["dropped"].to_pylist()], dtype=object
        )
        for name in ("time_min", "time_max"):
            frame[name] = table[name].cast(pa.timestamp("ms")).to_numpy()
        bounds = [f"{axis}_{end}" for end in ("min", "max") for axis in "xy"]
        for name in bounds:
            frame[name] = table[f"{name[0]}_cm{name[1:]}"].to_numpy() / 100
        first = ["id", "name", "product", "baseline", "version", "checksum", "rows", "record_count"]
        frame["simulated"] = table["simulated"].fill_null(fill_value=False).to_numpy()
        frame["complete"] = complete(table)
        last = ["dropped", "notes", "platforms", "passes", *bounds, "time_min", "time_max"]
        return frame[[*first, *last, "overlaps", "complete", "simulated", "snapshot", "number"]]

    def simulated(self, snapshot: int | None = None) -> float:
        """Return the share of the points that are simulated, 0 to 1, as of a snapshot or the newest."""
        return self._at(snapshot).simulated

    def checksums(self) -> dict[str, str]:
        """Return checksum → id of all complete granules, including those of commits since the point DB was opened.

        A granule is incomplete if it was stored without records that another one had, and that one was removed.
        """
        self._newest = self._store.log.follow(self._newest)
        granules = self._newest.granules
        granules = granules.filter(pa.array(complete(granules)))
        columns = (granules[name].to_pylist() for name in ("checksum", "id"))
        return dict(zip(*columns, strict=True))

    def check_matches(
        self,
        *,
        crs: str | None = None,
        columns: Sequence[str] | None = None,
        chunk_size: float | None = None,
    ) -> None:
        """Check that the point DB has the given properties; None is not checked.

        Parameters
        ----------
        crs, columns, chunk_size
            As for :meth:`create`; the extra columns must be among those of the point DB.

        Raises
        ------
        InvalidValue
            A property differs; the properties of a point DB never change.
        """
        self._store.description.check_matches(
            self.path, crs=crs, columns=columns, chunk_size=chunk_size
        )

    def append(self, granules: Granule | Sequence[Granule] | Batch | InPieces) -> Appended:
        """Add the points of projected granules, in one commit with one fragment for each chunk that they touch.

        A delivery that the point DB already has (by id, baseline, version and content) is skipped.  Deliveries of one
        id that have no record's time and place in common are cuts of a granule: all stay.  Otherwise a newer baseline
        or version replaces an older one that it covers, and is refused by name if it covers only part; an older one is
        refused by name.  A record (platform, time, x, y, elevation) that another granule of the product has is stored
        once.

        Parameters
        ----------
        granules : Granule, sequence of Granule, Batch or InPieces
            With ``x, y``.  An extra column of the point DB that a granule lacks is NaN there, others are left out.  A
            granule without points is recorded with 0 rows.

        Returns
        -------
        Appended
            Which granules were added, skipped, replaced or refused; a refused granule does not affect the others.

        Raises
        ------
        InvalidValue
            A granule is not projected, or a point of an InPieces cannot be stored; nothing was changed.
        UnwritablePath
            The disk is full or another error of the file system; nothing was changed.
        """
        self._newest, appended = append_granules(self._store, self._newest, granules)
        return appended

    def read(
        self,
        bounds: Bounds | Tile | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: str | Where | None = None,
        time: tuple[Instant, Instant] | None = None,
        snapshot: int | None = None,
    ) -> pd.DataFrame:
        """Read points.

        Parameters
        ----------
        bounds : (float, float, float, float), Tile or None
            ``(x_min, y_min, x_max, y_max)``, metres, or those of a tile; inclusive.  None: everywhere.
        columns : sequence of str or None
            Columns to return, in this order.  None: the core columns.
        where : str, Where or None
            Condition on the points; see :class:`cryotile.selection.Where`.
        time : (time, time) or None
            First instant, and first instant after the last; ISO 8601 or datetimes, UTC.
        snapshot : int or None
            Number of the commit to read.  None: :attr:`snapshot`.

        Returns
        -------
        DataFrame, shape (points, columns)
            Dtypes of :data:`cryotile.points.CORE_COLUMNS`, extra columns float32; ``attrs["crs"]`` names the CRS.
            Sorted by chunk, 5 km square, time, x, y and then the columns read: an order that follows from the points
            alone, not from the granules and commits that added them.

        Raises
        ------
        InvalidValue
            Bounds or times are reversed or NaN, a column or the snapshot is unknown, or the expression is invalid.
        DamagedFile
            A fragment is missing or altered; the message names it.
        """
        selection = Selection.of(self.column_names, bounds, columns, where, time)
        return self._read(selection, snapshot, None)

    def iter_chunks(
        self,
        bounds: Bounds | Tile | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: str | Where | None = None,
        time: tuple[Instant, Instant] | None = None,
        snapshot: int | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Read points chunk by chunk, for more points than fit in memory.

        Parameters
        ----------
        bounds, columns, where, time, snapshot
            As for :meth:`read`.

        Yields
        ------
        DataFrame, shape (points, columns)
            The points of one chunk that has any; concatenated, they equal the result of :meth:`read`.

        Raises
        ------
        InvalidValue, DamagedFile
            As for :meth:`read`; also if a compaction ends the snapshot meanwhile.
        """
        selection = Selection.of(self.column_names, bounds, columns, where, time)
        snapshot = self.snapshot if snapshot is None else snapshot
        fragments = select_fragments(
            self._at(snapshot).fragments, selection.limits, selection.where
        )
        for chunk in dict.fromkeys(entry["chunk"] for entry in fragments):
            points = self._read(selection, snapshot, chunk)
            if len(points):
                yield points

    def to_geoparquet(
        self,
        path: str | PathLike[str],
        bounds: Bounds | Tile | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: str | Where | None = None,
        time: tuple[Instant, Instant] | None = None,
        snapshot: int | None = None,
    ) -> int:
        """Write points to a GeoParquet 1.1 file, as geopandas, DuckDB and QGIS read it; memory is that of a chunk.

        Parameters
        ----------
        path : path
            The file.
        bounds, columns, where, time, snapshot
            As for :meth:`read`; by default the geometry holds x and y.

        Returns
        -------
        int
            Number of points.

        Raises
        ------
        InvalidValue, DamagedFile
            As for :meth:`iter_chunks`.
        UnwritablePath
            The file cannot be written.
        """
        names = [n for n in CORE_COLUMNS if n not in ("x", "y")] if columns is None else columns
        selection = Selection.of(self.column_names, bounds, names, where, time)
        snapshot = self.snapshot if snapshot is None else snapshot
        read = dict.fromkeys(("x", "y", *selection.columns))
        return write_geoparquet(
            path_of("path", path),
            self.iter_chunks(bounds, columns=[*read], where=where, time=time, snapshot=snapshot),
            selection.columns,
            crs=self.crs,
            units=dict(self._store.description.extra),
            about={
                "snapshot": snapshot,
                "bounds": list(bounds.bounds if isinstance(bounds, Tile) else bounds or ()),
                "where": str(where or ""),
                "time": [instant_text(instant) for instant in time or ()],
                "simulated": self.simulated(snapshot),
            },
        )

    def fragments(
        self, bounds: Bounds | Tile | None = None, *, snapshot: int | None = None
    ) -> list[Path]:
        """Return the Parquet files that hold the points within the bounds, for other programs."""
        limits = read_limits(bounds, None)
        entries = select_fragments(self._at(snapshot).fragments, limits, None)
        return [self.path / entry["path"] for entry in entries]

    def scattered_chunks(self, *, snapshot: int | None = None) -> pd.Series:
        """Return the number of small fragments of each chunk that has more than ten, which :meth:`compact` merges.

        Parameters
        ----------
        snapshot : int or None
            The commit to look at; None: the newest.

        Returns
        -------
        Series of int
            By the number of the chunk.
        """
        fragments = self._at(snapshot).fragments
        small = fragments["chunk"].filter(pc.less(fragments["rows"], SMALL))
        counts: pd.Series = small.to_pandas().value_counts()
        return counts[counts > MANY_FRAGMENTS]

    def squares(
        self,
        bounds: Bounds | Tile | None = None,
        *,
        where: str | Where | None = None,
        snapshot: int | None = None,
    ) -> pd.DataFrame:
        """Count points by 5 km square, platform and mode, without reading any.

        Parameters
        ----------
        bounds : (float, float, float, float) or None
            Only squares that touch these bounds, metres.  None: all.
        where : str, Where or None
            Only squares that may hold a point that it selects, judged by place, time, platform and mode.
        snapshot : int or None
            Number of the commit to read.  None: :attr:`snapshot`.

        Returns
        -------
        DataFrame
            ``x_min, y_min`` (south-western corner, m), ``platform, mode`` (categories), ``count`` (int64), ``digest``
            (uint64, the sum modulo 2⁶⁴ of a hash of each point), ``time_min, time_max`` (datetime64[ms]); from south to
            north, then west to east.

        Raises
        ------
        InvalidValue
            As for :meth:`read`.
        """
        condition = parse_condition(where, self.column_names)
        found = self._at(snapshot)
        if self._counted is None or self._counted[0] is not found:
            self._counted = self._count(found, snapshot)
        return select_squares(self._counted[1], bounds, condition)

    def _count(self, found: Snapshot, snapshot: int | None) -> tuple[Snapshot, pd.DataFrame]:
        """Return a snapshot and its squares, or a newer one and its squares if a compaction has ended it."""
        log = self._store.log
        while True:
            try:
                return found, describe_squares(log.squares(found))
            except DamagedFile:
                newer = log.follow(found) if snapshot is None else log.load(snapshot)
                if newer.number == found.number:
                    raise
                if snapshot is None:
                    self._newest = newer
                found = newer

    def history(self, last: int | None = None) -> pd.DataFrame:
        """Return a table of the commits, the newest first.

        Parameters
        ----------
        last : int or None
            Number of commits; None: all.

        Returns
        -------
        DataFrame, one row per commit
            ``snapshot, time`` (UTC, by the writer's clock), ``cryotile`` (version), ``added, removed`` (granules),
            ``rows`` (of the granules added), ``compaction`` (no content changed), ``available`` (can still be read).
        """
        rows: list[dict[str, Any]] = []
        for commit in islice(self._store.log.history(self.snapshot), last):
            number, granules = commit["number"], commit["granules"]
            # A snapshot that a compaction follows at once has the same points as the one after it.
            alike = bool(rows) and rows[-1]["compaction"] and rows[-1]["available"]
            rows.append(
                {
                    "snapshot": number,
                    "time": pd.Timestamp(commit["time"]).tz_convert(None),
                    "cryotile": commit["cryotile"],
                    "added": len(granules["added"]),
                    "removed": len(granules["removed"]),
                    "rows": sum(granule["rows"] for granule in granules["added"]),
                    "compaction": commit["compaction"],
                    "available": number >= self._newest.oldest
                    or number in self._newest.kept
                    or alike,
                }
            )
        columns = ["snapshot", "time", "cryotile", "added", "removed", "rows"]
        return pd.DataFrame(rows, columns=[*columns, "compaction", "available"])

    def commit_id(self, snapshot: int) -> str:
        """Return the id of a commit, which no other commit of the same number has; empty if there is no such commit.

        A point DB that was made again, or repaired, has commits of the same numbers with other ids.
        """
        return "" if snapshot > self.snapshot else self._store.log.id(snapshot)

    def has_snapshot(self, snapshot: int) -> bool:
        """Tell whether a snapshot can be read: it exists, and no compaction has ended it."""
        try:
            self._store.log.load(snapshot)
        except InvalidValue:
            return False
        return True

    def remove(self, granules: Sequence[str]) -> Removed:
        """Remove the points of granules, in one commit that rewrites the fragments that hold them.

        Parameters
        ----------
        granules : sequence of str
            Ids, file names or checksums of files; an id or a name means all deliveries that have it.

        Raises
        ------
        InvalidValue
            A granule is not in the point DB; nothing was changed.
        DamagedFile, UnwritablePath
            A fragment that also holds points of other granules is damaged; or the disk is full or another error of the
            file system; nothing was changed.
        """
        self._newest, removed = remove_granules(self._store, self._newest, granules)
        return removed

    def compact(self, *, keep: Collection[int] = ()) -> Compacted:
        """Merge small fragments, and delete fragments that were replaced or that dead writers left.

        Other processes may read and write meanwhile.  Points, counts and digests of squares do not change.

        Parameters
        ----------
        keep : collection of int
            Earlier snapshots to keep; all others end.  The next compaction must name them again.

        Raises
        ------
        InvalidValue
            A snapshot to keep does not exist.
        DamagedFile, UnwritablePath
            A fragment to merge is damaged; or the disk is full or another error of the file system; no point was
            changed.
        """
        self._newest, compacted = compact(self._store, self._newest, keep)
        return compacted

    def verify(self) -> Iterator[Damage]:
        """Compare every file that the log names with the log; yield each damage as soon as it is found."""
        return verify(self._store, self._newest)

    def _at(self, snapshot: int | None) -> Snapshot:
        if snapshot is None:
            return self._newest
        if snapshot != self._requested[0]:
            known = snapshot == self._newest.number
            found = self._newest if known else self._store.log.load(snapshot)
            self._requested = snapshot, found
        return self._requested[1]

    def _read(self, selection: Selection, snapshot: int | None, chunk: int | None) -> pd.DataFrame:
        while True:
            found = self._at(snapshot)
            entries = select_fragments(found.fragments, selection.limits, selection.where, chunk)
            try:
                return read_points(self._store, entries, selection)
            except FragmentGone as gone:
                # A compaction may have replaced the fragment since the log was read.
                log = self._store.log
                if snapshot is None:
                    self._newest = self._store.newer(partial(log.follow, found), found, gone)
                else:
                    newer = self._store.newer(partial(log.load, snapshot), found, gone)
                    self._requested = snapshot, newer

    def _facts(self) -> Mapping[str, str]:
        """Return the lines of ``repr``, from the log alone."""
        granules, fragments = self._newest.granules, self._newest.fragments
        points, chunks = (
            pc.sum(granules["rows"]).as_py() or 0,
            pc.count_distinct(fragments["chunk"]),
        )
        facts = {
            "path": str(self.path),
            "crs": f"{self.crs_text} ({self.crs.name})"
            if len(self.crs_text) < 30
            else self.crs.name,
            "granules": f"{len(granules):,}",
            "points": f"{points:,}",
            "chunks": f"{chunks} of {self.chunk_size / 1000:g} km, {len(fragments):,} fragments",
        }
        if len(fragments):
            ends = [pc.min(fragments[f"{axis}_cm_min"]).as_py() / 100 for axis in "xy"]
            ends += [pc.max(fragments[f"{axis}_cm_max"]).as_py() / 100 for axis in "xy"]
            first = pd.Timestamp(pc.min(fragments["time_min"]).as_py(), unit="ms")
            last = pd.Timestamp(pc.max(fragments["time_max"]).as_py(), unit="ms")
            facts["extent"] = (
                " ".join(f"{end:.0f}" for end in ends) + " m (x_min y_min x_max y_max)"
            )
            facts["time"] = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
        if self.columns:
            facts["extra columns"] = ", ".join(self.columns)
        return facts | {"snapshot": str(self.snapshot)}
