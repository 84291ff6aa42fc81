"""Points of a point DB, from as few bytes of its fragments as will do."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.geo.grid import Tile
from cryotile.pointdb.description import Description
from cryotile.pointdb.encoding import SCALES, decode, from_table, stored_names
from cryotile.pointdb.fragments import FragmentGone, damaged_fragment
from cryotile.pointdb.selection import Limits, Time, read_limits, row_filter
from cryotile.pointdb.sort_order import has_no_ties, in_total_order
from cryotile.points import CATEGORIES, CORE_COLUMNS, Bounds
from cryotile.selection.parser import Where

__all__ = ["Selection", "parsed", "read_points"]


@dataclass(frozen=True)
class Selection:
    """Which points are asked for, and what of them.

    Attributes
    ----------
    columns : tuple of str
        Names in memory.
    limits : mapping of str to (int, int)
        Stored name → first and last value.
    where : Where or None
        Further condition.
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
        """Make sense of what a user asks for.

        Parameters
        ----------
        known : collection of str
            All columns of the point DB.
        bounds, columns, where, time
            As of :meth:`cryotile.PointDB.read`.

        Raises
        ------
        InvalidValue
            It makes none.
        """
        names = tuple(CORE_COLUMNS if columns is None else columns)
        if unknown := [name for name in names if name not in known]:
            raise InvalidValue(
                f"column {unknown[0]!r} is not in this point DB; use {', '.join(known)}"
            )
        return cls(names, read_limits(bounds, time), parsed(where, known))

    @property
    def stored(self) -> list[str]:
        """Stored names of the columns to read: position and time always, because they order the points."""
        extra = self.where.columns if self.where else ()
        return stored_names(dict.fromkeys(("x", "y", "time", *self.columns, *extra)))


def parsed(where: str | Where | None, known: Collection[str]) -> Where | None:
    """Parse a condition, if it is a text, and make sure that its columns are among those known."""
    if where is None:
        return None
    where = Where.parse(where) if isinstance(where, str) else where
    where.check(known)
    return where


def read_points(
    root: Path,
    description: Description,
    entries: Sequence[Mapping[str, Any]],
    selection: Selection,
) -> pd.DataFrame:
    """Read points of several fragments, in total order.

    Parameters
    ----------
    root : Path
        The point DB.
    description : Description
        Of it.
    entries : sequence of mapping
        What the log says of the fragments: ``path``, ``chunk`` and ``checksum``; by chunk.
    selection : Selection
        Which points.

    Returns
    -------
    DataFrame, shape (points, columns)
        With ``attrs["crs"]``.

    Raises
    ------
    DamagedFile
        It names the fragment.
    FragmentGone
        A compaction has replaced a fragment, or it is lost.
    """
    table = _table(root, entries, description.schema, selection)
    stored, where = from_table(table), selection.where
    if where is not None:
        keep = where.mask(decode(stored, sorted(where.columns)))
        stored = {name: values[keep] for name, values in stored.items()}
    chunks = [entry["chunk"] for entry in entries]
    # Fragments are sorted, and here each stands for a chunk; columns that are not read may have ordered ties.
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
    # Each by name, so that no file is asked for before it is read.
    parts = [form_of_files.make_fragment(str(root / e["path"]), files) for e in entries]
    data = ds.FileSystemDataset(parts, form, form_of_files, files)
    try:
        if selection.where is not None:
            data = _pruned(data, selection.where)
        return data.to_table(columns=selection.stored, filter=row_filter(selection.limits))
    except (OSError, pa.ArrowException) as error:
        raise _diagnosed(root, entries, error) from error


def _pruned(data: ds.FileSystemDataset, where: Where) -> ds.FileSystemDataset:
    """Leave out the row groups whose statistics say that no point of theirs satisfies the condition."""
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
    """What the statistics of row groups say of a column: the value that all points share, or bounds."""
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
    """Find out which fragment it is that cannot be read."""
    paths = {root / entry["path"]: entry["checksum"] for entry in entries}
    for path in paths:
        if not path.exists():
            return FragmentGone(str(path))
    if isinstance(symptom, FileNotFoundError):
        # A file server has shown it meanwhile: to be read again.
        return FragmentGone(str(next(iter(paths))))
    for path, checksum in paths.items():
        if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
            return damaged_fragment(root, path)
    return DamagedFile(f"{root} cannot be read ({' '.join(str(symptom).split())}); try again")
