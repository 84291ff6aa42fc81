"""The point DB: projected points of many granules in square chunks, that grows by commits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyproj

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.pointdb.append import Appended, append_granules
from cryotile.pointdb.description import (
    FILE_NAME,
    Description,
    create_directory,
    further_columns,
    read_description,
)
from cryotile.pointdb.encoding import decode, from_table, stored_names
from cryotile.pointdb.fragments import read_fragments
from cryotile.pointdb.layout import SQUARE_SIZE
from cryotile.pointdb.log import Log
from cryotile.pointdb.order import in_total_order
from cryotile.pointdb.selection import (
    Limits,
    Time,
    checked_bounds,
    read_limits,
    row_filter,
    touched,
)
from cryotile.pointdb.squares import describe_squares
from cryotile.pointdb.state import State
from cryotile.points import CORE_COLUMNS, Bounds, Granule
from cryotile.projection import crs_text, projected_crs
from cryotile.where import Where

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
    >>> db = PointDB("greenland.pdb")                                                   # doctest: +SKIP
    >>> points = db.read((-2e5, -2.3e6, -1e5, -2.2e6), where="platform == 'cryosat2'")   # doctest: +SKIP
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._description = read_description(self.path)
        self._log = Log(self.path / "log")
        self._state = self._log.load()
        self._pinned = self._state
        self._counted: tuple[State, pa.Table] | None = None

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

        Returns
        -------
        PointDB
            Open.

        Raises
        ------
        InvalidValue
            A value breaks its rule, or the point DB that is there differs.
        UnwritablePath
            The directory holds something else, or cannot be written.
        """
        path = Path(path)
        further = further_columns(columns)
        text = crs_text(projected_crs(crs))
        description = Description(text, float(chunk_size), further)
        if not (path / FILE_NAME).exists():
            create_directory(path, description)
        db = cls(path)
        db.check_matches(crs=text, columns=[name for name, _ in further], chunk_size=chunk_size)
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
        """Names of the further columns."""
        return tuple(name for name, _ in self._description.further)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of all columns: core columns, then further ones."""
        return (*CORE_COLUMNS, *self.columns)

    @property
    def snapshot(self) -> int:
        """Number of the newest commit seen, 0 where there is none: what is read if nothing else is said."""
        return self._state.number

    @property
    def granules(self) -> pd.DataFrame:
        """Granules, one row each.

        Columns ``id, name, product, baseline, version, checksum, rows, record_count, dropped`` (dict, reason → points),
        ``notes, platforms`` (lists), ``time_min, time_max`` (datetime64[ms], NaT without rows), ``snapshot`` (the
        commit that added it), ``number`` (in the column ``granule`` of the fragments).
        """
        table = self._state.granules
        frame: pd.DataFrame = table.drop_columns(["dropped", "time_min", "time_max"]).to_pandas()
        frame["dropped"] = pd.Series(
            [json.loads(t) for t in table["dropped"].to_pylist()], dtype=object
        )
        for name in ("time_min", "time_max"):
            frame[name] = table[name].cast(pa.timestamp("ms")).to_numpy()
        first = ["id", "name", "product", "baseline", "version", "checksum", "rows", "record_count"]
        last = ["dropped", "notes", "platforms", "time_min", "time_max", "snapshot", "number"]
        return frame[first + last]

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
        crs : str or None
            CRS.
        columns : sequence of str or None
            Further columns that must be there.
        chunk_size : float or None
            Metres.

        Raises
        ------
        InvalidValue
            Something differs; these are settled when a point DB is created.
        """
        remedy = "leave it out, or use another point DB"
        if crs is not None and crs != self.crs_text and projected_crs(crs) != self.crs:
            ours = self.crs_text if len(self.crs_text) < 30 else self.crs.name
            raise InvalidValue(f"CRS {crs} is not that of point DB {self.path} ({ours}); {remedy}")
        if chunk_size is not None and chunk_size != self.chunk_size:
            raise InvalidValue(
                f"chunk size {chunk_size} m is not that of point DB {self.path} ({self.chunk_size} m); {remedy}"
            )
        for name in columns or ():
            if name not in self.columns:
                raise InvalidValue(
                    f"column {name!r} is not kept by point DB {self.path} (further columns:"
                    f" {', '.join(self.columns) or 'none'}); {remedy}"
                )

    def append(self, granules: Sequence[Granule]) -> Appended:
        """Add the points of projected granules: one fragment per chunk that they touch, one commit.

        Idempotent: a granule that is there already (by id, baseline, version and content) is left alone.

        Parameters
        ----------
        granules : sequence of Granule
            With ``x, y``; a further column of the DB that one lacks is NaN there, others are left out.  Without points,
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
        self._state, appended = append_granules(
            self.path, self._description, self._log, self._state, granules
        )
        return appended

    def read(
        self,
        bounds: Bounds | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: str | Where | None = None,
        time: tuple[Time, Time] | None = None,
        snapshot: int | None = None,
    ) -> pd.DataFrame:
        """Read points.

        Parameters
        ----------
        bounds : (float, float, float, float) or None
            ``(x_min, y_min, x_max, y_max)``, metres; points on them are inside.  None: everywhere.
        columns : sequence of str or None
            Which columns, in this order.  None: the core columns.
        where : str, Where or None
            Which points; see :class:`cryotile.where.Where`.
        time : (time, time) or None
            First instant, and first instant after the last; ISO 8601 or datetimes, UTC.
        snapshot : int or None
            Number of the commit to look at.  None: :attr:`snapshot`.

        Returns
        -------
        DataFrame, shape (points, columns)
            Dtypes of :data:`cryotile.points.CORE_COLUMNS`, further columns float32; ``attrs["crs"]`` names the CRS.
            Sorted by chunk, 5 km square, time, x, y and then the columns read: an order that follows from the points
            alone, whenever and with whichever granules they came in.

        Raises
        ------
        InvalidValue
            Bounds or times that are reversed or NaN, an unknown column or snapshot, an expression that is none.
        DamagedFile
            A fragment is missing or altered; it is named.
        """
        names = tuple(CORE_COLUMNS if columns is None else columns)
        where = self._parsed(where)
        if unknown := [name for name in names if name not in self.column_names]:
            raise InvalidValue(
                f"column {unknown[0]!r} is not in point DB {self.path}; use {', '.join(self.column_names)}"
            )
        limits = read_limits(bounds, time)
        # Position and time always, because they order the points.
        wanted = stored_names(
            dict.fromkeys(("x", "y", "time", *names, *(where.columns if where else ())))
        )
        stored = from_table(self._table(limits, where, wanted, snapshot))
        if where is not None:
            keep = where.mask(decode(stored, sorted(where.columns)))
            stored = {name: values[keep] for name, values in stored.items()}
        points = decode(in_total_order(stored, self.chunk_size), names)
        points.attrs["crs"] = self.crs_text
        return points

    def squares(
        self,
        bounds: Bounds | None = None,
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
        where = self._parsed(where)
        state = self._at(snapshot)
        if self._counted is None or self._counted[0] is not state:
            self._counted = state, self._log.squares(state)
        squares = describe_squares(self._counted[1])
        keep = np.ones(len(squares), bool)
        if bounds is not None:
            x_min, y_min, x_max, y_max = checked_bounds(bounds)
            keep &= (
                (squares["x_min"] <= x_max) & (squares["x_min"] + SQUARE_SIZE > x_min)
            ).to_numpy()
            keep &= (
                (squares["y_min"] <= y_max) & (squares["y_min"] + SQUARE_SIZE > y_min)
            ).to_numpy()
        if where is not None:
            far = {"x_max": squares["x_min"] + SQUARE_SIZE, "y_max": squares["y_min"] + SQUARE_SIZE}
            keep &= where.possible(squares.assign(**far))
        return squares[keep].reset_index(drop=True)

    def _parsed(self, where: str | Where | None) -> Where | None:
        if where is None:
            return None
        where = Where.parse(where) if isinstance(where, str) else where
        where.check(self.column_names)
        return where

    def _at(self, snapshot: int | None) -> State:
        if snapshot is None or snapshot == self._state.number:
            return self._state
        if snapshot != self._pinned.number:
            self._pinned = self._log.load(snapshot)
        return self._pinned

    def _table(
        self, limits: Limits, where: Where | None, wanted: Sequence[str], snapshot: int | None
    ) -> pa.Table:
        state = self._at(snapshot)
        form, keep = self._description.schema, row_filter(limits)
        while True:
            entries = touched(state.fragments, limits, where)
            try:
                return read_fragments(self.path, entries, form, columns=wanted, keep=keep)
            except FileNotFoundError as error:
                # A compaction may have replaced it; then the log says so.
                newer = self._log.follow(state)
                if snapshot is not None or newer is state:
                    raise DamagedFile(
                        f"a fragment of {self.path} that the log names is missing ({error});"
                        " put it back from a copy, or ingest its granules into a new point DB"
                    ) from error
                self._state = state = newer
