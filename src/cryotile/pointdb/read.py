"""Read points of a point DB, from as few bytes of its fragments as possible.

A selection becomes limits of stored values; chunks, fragments and row groups that cannot have such values are skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.geo.grid import Tile
from cryotile.pointdb.encoding import SCALES, Stored, decode, from_table, stored_names
from cryotile.pointdb.fragments import FragmentGone, check_footer, damaged_fragment
from cryotile.pointdb.sort_order import SQUARE_SIZE, has_no_ties, in_total_order
from cryotile.pointdb.store import Store
from cryotile.points import CATEGORIES, CORE_COLUMNS, Bounds
from cryotile.selection import Where
from cryotile.times import Instant, instant_text, parse_instant

__all__ = [
    "Limits",
    "Selection",
    "parse_condition",
    "read_limits",
    "read_points",
    "select_fragments",
    "select_squares",
]


Limits = dict[str, tuple[int, int]]
"""Stored name → first and last value."""

SHARED = ("platform", "mode")
"""Columns whose value the log tells where all points of a fragment have the same."""

FARTHEST = 21_474_836.47
"""Largest number of metres that centimetres in 32 bits can hold."""


@dataclass(frozen=True)
class Selection:
    """Criteria for points, and the columns to return.

    Attributes
    ----------
    columns : tuple of str
        Names in memory.
    limits : mapping of str to (int, int)
        Stored name → first and last value.
    where : Where or None
        Condition on the points.
    """

    columns: tuple[str, ...]
    limits: Limits
    where: Where | None

    @classmethod
    def of(
        cls,
        known: Collection[str],
        bounds: Bounds | Tile | None,
        columns: Sequence[str] | None,
        where: str | Where | None,
        time: tuple[Instant, Instant] | None,
    ) -> Selection:
        """Check and convert the arguments of :meth:`cryotile.PointDB.read`.

        Parameters
        ----------
        known : collection of str
            All columns of the point DB.
        bounds, columns, where, time
            As for :meth:`cryotile.PointDB.read`.

        Raises
        ------
        InvalidValue
            A column is unknown, bounds or times are reversed or NaN, or the expression is invalid.
        """
        if columns is None:
            columns = tuple(CORE_COLUMNS)
        if isinstance(columns, str) or not isinstance(columns, Iterable):
            raise InvalidValue(f"columns {columns!r} is not a list of names; give one")
        names = tuple(columns)
        if unknown := [name for name in names if name not in known]:
            raise InvalidValue(
                f"column {unknown[0]!r} is not in this point DB; use {', '.join(known)}"
            )
        return cls(names, read_limits(bounds, time), parse_condition(where, known))

    @property
    def stored(self) -> list[str]:
        """Stored names of the columns to read, including position and time, which order the points."""
        extra = self.where.columns if self.where else ()
        return stored_names(dict.fromkeys(("x", "y", "time", *self.columns, *extra)))

    def without_decided(self, shared: Collection[str]) -> Selection:
        """Return the selection without its condition if that depends only on columns by which fragments were selected.

        Parameters
        ----------
        shared : collection of str
            Columns that have a single, known value in each of the fragments.
        """
        decided = self.where is not None and self.where.columns <= set(shared)
        return replace(self, where=None) if decided else self


def parse_condition(where: str | Where | None, known: Collection[str]) -> Where | None:
    """Parse a condition if it is text, and check that its columns are known."""
    if where is None:
        return None
    where = where if isinstance(where, Where) else Where.parse(where)
    where.check(known)
    return where


def _checked_bounds(bounds: Bounds | Tile) -> Bounds:
    """Return the bounds, or those of the tile; raise InvalidValue if they are reversed or NaN."""
    if isinstance(bounds, Tile):
        return bounds.bounds
    if np.shape(bounds) != (4,) or not (bounds[0] <= bounds[2] and bounds[1] <= bounds[3]):
        raise InvalidValue(
            f"bounds {bounds!r} are reversed, NaN or not four; give x_min y_min x_max y_max, metres"
        )
    return bounds


def read_limits(bounds: Bounds | Tile | None, time: tuple[Instant, Instant] | None) -> Limits:
    """Convert bounds and times to limits of stored values; bounds are inclusive, the second time is exclusive."""
    limits: Limits = {}
    if bounds is not None:
        x_min, y_min, x_max, y_max = _checked_bounds(bounds)
        limits["x_cm"] = _first_at_least(x_min), -_first_at_least(-x_max)
        limits["y_cm"] = _first_at_least(y_min), -_first_at_least(-y_max)
    if time is not None:
        if np.size(np.asarray(time, object)) != 2:
            raise InvalidValue(f"time {time!r} is not two instants; give the first, and the end")
        start, end = (parse_instant(instant_text(t)).to_datetime64() for t in time)
        if not start <= end:
            raise InvalidValue(
                f"times {time[0]} to {time[1]} are reversed; give the earlier one first"
            )
        first, last = (int(t.astype("datetime64[ms]").astype(np.int64)) for t in (start, end))
        limits["time"] = first, last - 1
    return limits


def _first_at_least(metres: float) -> int:
    """Return the smallest number of centimetres that, converted back, is at least ``metres``."""
    metres = min(max(metres, -FARTHEST), FARTHEST)
    cm = ceil(metres * 100) - 2
    # The product may be off by a rounding error; readers see the quotient.
    while cm / 100 < metres:
        cm += 1
    return cm


def select_fragments(
    fragments: pa.Table, limits: Limits, where: Where | None, chunk: int | None = None
) -> list[dict[str, Any]]:
    """Return rows of the fragments that may hold points within the limits that ``where`` selects, sorted by chunk."""
    keep = np.ones(len(fragments), bool)
    if chunk is not None:
        keep &= fragments["chunk"].to_numpy() == chunk
    for name, (first, last) in limits.items():
        keep &= fragments[f"{name}_max"].to_numpy() >= first
        keep &= fragments[f"{name}_min"].to_numpy() <= last
    near = fragments.filter(keep)
    if where is not None and len(near):
        near = near.filter(where.possible(_bounds_of(near)))
    chosen = near.select(["chunk", "path", "bytes", "checksum", "footer", *SHARED])
    rows: list[dict[str, Any]] = chosen.sort_by(
        [("chunk", "ascending"), ("path", "ascending")]
    ).to_pylist()
    return rows


def _bounds_of(fragments: pa.Table) -> pd.DataFrame:
    columns = {name: fragments[name].to_pandas() for name in SHARED}
    for end in ("min", "max"):
        columns[f"time_{end}"] = fragments[f"time_{end}"].to_numpy().view("datetime64[ms]")
        for axis in ("x", "y"):
            columns[f"{axis}_{end}"] = fragments[f"{axis}_cm_{end}"].to_numpy() / 100
    return pd.DataFrame(columns)


def select_squares(
    squares: pd.DataFrame, bounds: Bounds | Tile | None, where: Where | None
) -> pd.DataFrame:
    """Keep the squares that touch bounds and may hold a point that ``where`` selects.

    Parameters
    ----------
    squares : DataFrame
        As of :func:`cryotile.pointdb.squares.describe_squares`.
    bounds : (float, float, float, float), Tile or None
        Metres.
    where : Where or None
        Condition.

    Returns
    -------
    DataFrame
        Some of the rows, with a new index.
    """
    edges = {f"{axis}_max": squares[f"{axis}_min"] + SQUARE_SIZE for axis in ("x", "y")}
    keep = np.ones(len(squares), bool)
    if bounds is not None:
        x_min, y_min, x_max, y_max = _checked_bounds(bounds)
        for axis, low, high in (("x", x_min, x_max), ("y", y_min, y_max)):
            keep &= (squares[f"{axis}_min"] <= high) & (edges[f"{axis}_max"] > low)
    if where is not None:
        keep &= where.possible(squares.assign(**edges))
    return squares[keep].reset_index(drop=True)


def read_points(
    store: Store, entries: Sequence[Mapping[str, Any]], selection: Selection
) -> pd.DataFrame:
    """Read points of several fragments, in total order.

    Parameters
    ----------
    store : Store
        The point DB.
    entries : sequence of mapping
        Rows of the fragments in the log, as of :func:`select_fragments`.
    selection : Selection
        Criteria and columns.

    Returns
    -------
    DataFrame, shape (points, columns)
        With ``attrs["crs"]``.

    Raises
    ------
    DamagedFile
        A fragment is altered; the message names it.
    FragmentGone
        A compaction has replaced a fragment, or it is lost.
    """
    description = store.description
    shared = {name for name in SHARED if all(entry[name] is not None for entry in entries)}
    selection = selection.without_decided(shared)
    parts = [from_table(description.schema.empty_table().select(selection.stored))]
    for entry in entries:
        check_footer(store.root, entry)
        try:
            parts.append(_read_fragment(store.root, entry, selection))
        except (OSError, pa.ArrowException, DamagedFile) as error:
            raise _diagnosed(store.root, entry, error) from error
    stored = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if selection.where is not None:
        keep = selection.where.mask(decode(stored, sorted(selection.where.columns)))
        stored = {name: values[keep] for name, values in stored.items()}
    chunks = [entry["chunk"] for entry in entries]
    # Sorted fragments of different chunks are in order, except for ties that columns not read have ordered.
    if len(set(chunks)) < len(chunks) or not has_no_ties(stored):
        stored = in_total_order(stored, description.chunk_size)
    points = decode(stored, selection.columns)
    points.attrs["crs"] = description.crs
    return points


def _read_fragment(root: Path, entry: Mapping[str, Any], selection: Selection) -> Stored:
    """Read the points within the limits, from the row groups that may hold any."""
    # A text that all points of the fragment share is in the log: it need not be read.
    names = selection.stored
    texts = {name: entry[name] for name in SHARED if name in names and entry[name] is not None}
    with pq.ParquetFile(root / entry["path"], page_checksum_verification=True) as file:
        groups = _RowGroups(file.metadata)
        chosen, cut = groups.within(selection.limits)
        if selection.where is not None and chosen:
            chosen = groups.possible(chosen, selection.where)
        stored = from_table(
            file.read_row_groups(chosen, columns=[n for n in names if n not in texts])
        )
    if cut:
        keep = np.ones(len(stored["time"]), bool)
        for name in cut:
            first, last = selection.limits[name]
            keep &= (stored[name] >= first) & (stored[name] <= last)
        rows = np.flatnonzero(keep)
        stored = {name: values.take(rows) for name, values in stored.items()}
    return stored | from_table(_repeated(texts, len(stored["time"])))


def _repeated(texts: Mapping[str, str], count: int) -> pa.Table:
    codes = np.zeros(count, np.int8)
    return pa.table({n: pa.DictionaryArray.from_arrays(codes, [t]) for n, t in texts.items()})


class _RowGroups:
    """The row groups of a fragment and what their statistics tell."""

    def __init__(self, metadata: pq.FileMetaData) -> None:
        self._groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        self._place = {name: n for n, name in enumerate(metadata.schema.names)}

    def within(self, limits: Limits) -> tuple[list[int], list[str]]:
        """Return the row groups that may have points within the limits, and which limits some points exceed."""
        chosen, ends = list(range(len(self._groups))), dict[str, list[tuple[Any, Any]]]()
        for name, (first, last) in limits.items():
            ends[name] = self._ends(name)
            chosen = [n for n in chosen if _overlap(ends[name][n], first, last)]
        cut = [
            name
            for name, (first, last) in limits.items()
            if any(not _inside(ends[name][n], first, last) for n in chosen)
        ]
        return chosen, cut

    def possible(self, chosen: Sequence[int], where: Where) -> list[int]:
        """Return those row groups in which, by their statistics, a point may satisfy the condition."""
        known = dict[str, Any]()
        for name in where.columns:
            ends = self._ends(stored_names([name])[0])
            known |= _statistics(name, [ends[n] for n in chosen])
        possible = where.possible(pd.DataFrame(known, index=range(len(chosen))))
        return [n for n, keep in zip(chosen, possible, strict=True) if keep]

    def _ends(self, stored: str) -> list[tuple[Any, Any]]:
        """Return least and greatest value of a column in each row group, (None, None) where they are not known."""
        found = [group.column(self._place[stored]).statistics for group in self._groups]
        return [
            (s.min_raw, s.max_raw) if s is not None and s.has_min_max else (None, None)
            for s in found
        ]


def _overlap(ends: tuple[Any, Any], first: int, last: int) -> bool:
    return ends[0] is None or (ends[1] >= first and ends[0] <= last)


def _inside(ends: tuple[Any, Any], first: int, last: int) -> bool:
    return ends[0] is not None and first <= ends[0] and ends[1] <= last


def _statistics(name: str, ends: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """Return the value that all points of each row group share in a column, or its bounds."""
    if name in CATEGORIES or name == "ascending":
        shared = [low if low == high else None for low, high in ends]
        texts = [value.decode() if isinstance(value, bytes) else value for value in shared]
        return {name: pd.Series(texts, dtype="boolean" if name == "ascending" else "object")}
    low, high = (np.array([end[i] for end in ends], np.float64) for i in (0, 1))
    if name == "time":
        return {f"time_{e}": _instants(v) for e, v in (("min", low), ("max", high))}
    scale = SCALES[name][1] if name in SCALES else 1
    return {f"{name}_min": low / scale, f"{name}_max": high / scale}


def _instants(milliseconds: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    known = ~np.isnan(milliseconds)
    instants = np.full(len(milliseconds), np.datetime64("NaT", "ms"))
    instants[known] = milliseconds[known].astype(np.int64).view("datetime64[ms]")
    return instants


def _diagnosed(root: Path, entry: Mapping[str, Any], symptom: Exception) -> Exception:
    """Return the error that names the fragment that could not be read."""
    path = root / entry["path"]
    # If a file server shows it again, the caller must read once more.
    if isinstance(symptom, FileNotFoundError) or not path.exists():
        return FragmentGone(str(path))
    try:
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return damaged_fragment(root, path, f"cannot be read ({error.strerror})")
    if checksum != entry["checksum"]:
        return damaged_fragment(root, path)
    if isinstance(symptom, DamagedFile):
        return symptom
    return DamagedFile(f"{root} cannot be read ({' '.join(str(symptom).split())}); try again")
