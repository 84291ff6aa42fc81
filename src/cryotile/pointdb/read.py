"""Read points of a point DB, from as few bytes of its fragments as possible.

A selection becomes limits of stored values; chunks, fragments and row groups that cannot have such values are skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.geo.grid import Tile
from cryotile.pointdb.encoding import SCALES, TIME, decode, from_table, stored_names
from cryotile.pointdb.fragments import FragmentGone, check_footer, damaged_fragment
from cryotile.pointdb.sort_order import SQUARE_SIZE, has_no_ties, in_total_order
from cryotile.pointdb.store import Store
from cryotile.points import CATEGORIES, CORE_COLUMNS, Bounds
from cryotile.selection import Where
from cryotile.times import parse_instant

__all__ = [
    "Limits",
    "Selection",
    "Time",
    "parse_condition",
    "read_limits",
    "read_points",
    "select_fragments",
    "select_squares",
]

Time = str | np.datetime64 | pd.Timestamp

Limits = dict[str, tuple[int, int]]
"""Stored name → first and last value."""

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
        time: tuple[Time, Time] | None,
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
        names = tuple(CORE_COLUMNS if columns is None else columns)
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


def parse_condition(where: str | Where | None, known: Collection[str]) -> Where | None:
    """Parse a condition if it is text, and check that its columns are known."""
    if where is None:
        return None
    where = Where.parse(where) if isinstance(where, str) else where
    where.check(known)
    return where


def _checked_bounds(bounds: Bounds | Tile) -> Bounds:
    """Return the bounds, or those of the tile; raise InvalidValue if they are reversed or NaN."""
    if isinstance(bounds, Tile):
        return bounds.bounds
    x_min, y_min, x_max, y_max = bounds
    if not (x_min <= x_max and y_min <= y_max):
        raise InvalidValue(
            f"bounds {' '.join(map(str, bounds))} are reversed or NaN; give x_min y_min x_max y_max, metres"
        )
    return bounds


def read_limits(bounds: Bounds | Tile | None, time: tuple[Time, Time] | None) -> Limits:
    """Convert bounds and times to limits of stored values; bounds are inclusive, the second time is exclusive."""
    limits: Limits = {}
    if bounds is not None:
        x_min, y_min, x_max, y_max = _checked_bounds(bounds)
        limits["x_cm"] = _first_at_least(x_min), -_first_at_least(-x_max)
        limits["y_cm"] = _first_at_least(y_min), -_first_at_least(-y_max)
    if time is not None:
        start, end = (
            pd.Timestamp(parse_instant(t) if isinstance(t, str) else t).to_datetime64()
            for t in time
        )
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


def _row_filter(limits: Limits) -> pc.Expression | None:
    """Return the limits as an Arrow expression, None if there are none."""
    keep = None
    for name, ends in limits.items():
        first, last = (pa.scalar(end, TIME if name == "time" else pa.int32()) for end in ends)
        within = (pc.field(name) >= first) & (pc.field(name) <= last)
        keep = within if keep is None else keep & within
    return keep


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
    chosen = near.select(["chunk", "path", "bytes", "checksum", "footer"])
    rows: list[dict[str, Any]] = chosen.sort_by(
        [("chunk", "ascending"), ("path", "ascending")]
    ).to_pylist()
    return rows


def _bounds_of(fragments: pa.Table) -> pd.DataFrame:
    columns = {name: fragments[name].to_pandas() for name in ("platform", "mode")}
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
        Rows of the fragments in the log, sorted by chunk: ``path``, ``chunk``, ``bytes``, ``checksum``, ``footer``.
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
    table = _table(store.root, entries, description.schema, selection)
    try:
        stored, where = from_table(table), selection.where
    except DamagedFile as error:
        raise _diagnosed(store.root, entries, error) from error
    if where is not None:
        keep = where.mask(decode(stored, sorted(where.columns)))
        stored = {name: values[keep] for name, values in stored.items()}
    chunks = [entry["chunk"] for entry in entries]
    # Sorted fragments of different chunks are in order, except for ties that columns not read have ordered.
    if len(set(chunks)) < len(chunks) or not has_no_ties(stored):
        stored = in_total_order(stored, description.chunk_size)
    points = decode(stored, selection.columns)
    points.attrs["crs"] = description.crs
    return points


def _table(
    root: Path, entries: Sequence[Mapping[str, Any]], form: pa.Schema, selection: Selection
) -> pa.Table:
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    form_of_files = ds.ParquetFileFormat(default_fragment_scan_options=options)
    files = pyarrow.fs.LocalFileSystem()
    for entry in entries:
        check_footer(root, entry)
    # Fragments are made from their names, so that no file is looked up before it is read.
    parts = [form_of_files.make_fragment(str(root / e["path"]), files) for e in entries]
    data = ds.FileSystemDataset(parts, form, form_of_files, files)
    try:
        if selection.where is not None:
            data = _pruned(data, selection.where)
        return data.to_table(columns=selection.stored, filter=_row_filter(selection.limits))
    except (OSError, pa.ArrowException) as error:
        raise _diagnosed(root, entries, error) from error


def _pruned(data: ds.FileSystemDataset, where: Where) -> ds.FileSystemDataset:
    """Leave out the row groups in which, by their statistics, no point satisfies the condition."""
    files = list(data.get_fragments())
    groups = [(file, group) for file in files for group in range(file.metadata.num_row_groups)]
    known = {
        key: values
        for name in sorted(where.columns)
        for key, values in _statistics(name, groups).items()
    }
    possible = where.possible(pd.DataFrame(known, index=range(len(groups))))
    chosen: dict[int, list[int]] = {}
    for at in np.flatnonzero(possible):
        file, group = groups[at]
        chosen.setdefault(id(file), []).append(group)
    parts = [file.subset(row_group_ids=chosen[id(file)]) for file in files if id(file) in chosen]
    return ds.FileSystemDataset(parts, data.schema, data.format, pyarrow.fs.LocalFileSystem())


def _statistics(name: str, groups: Sequence[tuple[Any, int]]) -> dict[str, Any]:
    """Return the value that all points of each row group share in a column, or its bounds, from the statistics."""
    stored = stored_names([name])[0]
    ends: list[tuple[Any, Any]] = []
    for file, group in groups:
        column = file.metadata.row_group(group).column(file.physical_schema.get_field_index(stored))
        found = column.statistics
        raw = found is not None and found.has_min_max
        ends.append((found.min_raw, found.max_raw) if raw else (None, None))
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


def _diagnosed(root: Path, entries: Sequence[Mapping[str, Any]], symptom: Exception) -> Exception:
    """Return the error that names the fragment that could not be read."""
    paths = {root / entry["path"]: entry["checksum"] for entry in entries}
    for path in paths:
        if not path.exists():
            return FragmentGone(str(path))
    if isinstance(symptom, FileNotFoundError):
        # A file server shows it again: the caller must read once more.
        return FragmentGone(str(next(iter(paths))))
    for path, checksum in paths.items():
        if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
            return damaged_fragment(root, path)
    if isinstance(symptom, DamagedFile):
        return symptom
    return DamagedFile(f"{root} cannot be read ({' '.join(str(symptom).split())}); try again")
