"""What the log of a point DB tells: granules and fragments, the commit that changes them, the snapshot after it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cryotile import __version__
from cryotile.pointdb.encoding import SQUARES

__all__ = ["EXTENT", "FRAGMENTS", "GRANULES", "Commit", "Snapshot", "rows_of"]

GRANULES = pa.schema(
    [
        ("number", pa.int32()),  # in the column "granule" of fragments
        ("id", pa.string()),
        ("name", pa.string()),
        ("product", pa.string()),
        ("baseline", pa.string()),
        ("version", pa.int32()),
        ("checksum", pa.string()),
        ("rows", pa.int64()),
        ("record_count", pa.int64()),
        ("dropped", pa.string()),  # JSON, reason → points
        ("notes", pa.list_(pa.string())),
        ("platforms", pa.list_(pa.string())),
        ("passes", pa.list_(pa.int64())),  # the pass ids of its points
        ("x_cm_min", pa.int32()),  # of all its records; null if none has time and place
        ("x_cm_max", pa.int32()),
        ("y_cm_min", pa.int32()),
        ("y_cm_max", pa.int32()),
        ("time_min", pa.int64()),  # milliseconds since 1970, UTC
        ("time_max", pa.int64()),
        ("overlaps", pa.list_(pa.int32())),  # numbers of those that have records which it lacks
        ("simulated", pa.bool_()),  # null in the first point DBs
        ("snapshot", pa.int32()),  # the commit that added it
    ]
)

EXTENT = ("x_cm_min", "x_cm_max", "y_cm_min", "y_cm_max", "time_min", "time_max")
"""Columns of :data:`GRANULES` that bound the records of a granule."""

FRAGMENTS = pa.schema(
    [
        ("path", pa.string()),  # relative to the point DB
        ("chunk", pa.int64()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("checksum", pa.string()),
        ("x_cm_min", pa.int32()),
        ("x_cm_max", pa.int32()),
        ("y_cm_min", pa.int32()),
        ("y_cm_max", pa.int32()),
        ("time_min", pa.int64()),
        ("time_max", pa.int64()),
        ("platform", pa.string()),  # null where mixed
        ("mode", pa.string()),
        ("granules", pa.list_(pa.int32())),  # numbers of those with points in it
        ("footer", pa.string()),  # digest of the Parquet footer; null in the first point DBs
    ]
)


@dataclass(frozen=True, eq=False)
class Commit:
    """One atomic change of a point DB.

    Attributes
    ----------
    granules, fragments : sequence of mapping
        Added; rows of :data:`GRANULES` (without ``snapshot``) and :data:`FRAGMENTS`.
    squares : pyarrow.Table
        Change of each square, as :data:`cryotile.pointdb.encoding.SQUARES`.
    removed_granules : sequence of int
        Numbers.
    removed_fragments : sequence of str
        Paths.
    kept : sequence of int or None
        Of a compaction, which changes no content: the earlier snapshots that it does not end.  None: no compaction.
    fenced : sequence of str
        Ids of commits whose writers are presumed dead: they must not follow this one.
    id : str
        Identifies this commit; its fragments are named after it.
    """

    granules: Sequence[Mapping[str, Any]] = ()
    fragments: Sequence[Mapping[str, Any]] = ()
    squares: pa.Table = field(default_factory=SQUARES.empty_table)
    removed_granules: Sequence[int] = ()
    removed_fragments: Sequence[str] = ()
    kept: Sequence[int] | None = None
    fenced: Sequence[str] = ()
    id: str = field(default_factory=partial(secrets.token_hex, 8))

    def content(self, before: Snapshot) -> dict[str, Any]:
        """Return the content of ``commit.json``, without the checksums of the commit's other files."""
        number = before.number + 1
        oldest, kept = (
            (before.oldest, before.kept) if self.kept is None else (number, sorted(self.kept))
        )
        return {
            "id": self.id,
            "number": number,
            "cryotile": __version__,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "granules": {"added": list(self.granules), "removed": list(self.removed_granules)},
            "fragments": {"added": list(self.fragments), "removed": list(self.removed_fragments)},
            "compaction": self.kept is not None,
            "history": {"oldest": oldest, "kept": list(kept)},
            "fenced": list(self.fenced),
            "checkpoint": None,
        }

    def is_possible(self, before: Snapshot) -> bool:
        """Tell whether other writers have left this commit possible.

        They may have fenced it, removed what it removes, or taken the numbers of its granules.
        """
        granules, fragments = before.granules["number"], before.fragments["path"]
        added = [row["number"] for row in self.granules]
        return (
            self.id not in before.fenced
            and _count(granules, added) == 0
            and _count(granules, self.removed_granules) == len(self.removed_granules)
            and _count(fragments, self.removed_fragments) == len(self.removed_fragments)
        )


def _count(column: pa.ChunkedArray, values: Sequence[int] | Sequence[str]) -> int:
    """Return how many of the values are in a column of distinct values."""
    wanted = pa.array(values, column.type)
    return int(pc.sum(pc.is_in(column, value_set=wanted)).as_py() or 0) if len(wanted) else 0


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The granules and fragments of a point DB after a commit.

    Attributes
    ----------
    number : int
        Number of the commit; 0 before the first.
    granules, fragments : pyarrow.Table
        As :data:`GRANULES` and :data:`FRAGMENTS`, in the order in which they were added.
    oldest : int
        The newest compaction, which may have deleted fragments of earlier snapshots: they have ended.
    kept : tuple of int
        Snapshots before it that the compaction has kept.
    fenced : frozenset of str
        Ids of commits that must not follow, as far as this snapshot was followed commit by commit.
    """

    number: int = 0
    granules: pa.Table = field(default_factory=GRANULES.empty_table)
    fragments: pa.Table = field(default_factory=FRAGMENTS.empty_table)
    oldest: int = 0
    kept: tuple[int, ...] = ()
    fenced: frozenset[str] = frozenset()

    @property
    def simulated(self) -> float:
        """Share of the points that are simulated, 0 to 1."""
        rows = self.granules["rows"].to_numpy()
        simulated = self.granules["simulated"].fill_null(fill_value=False).to_numpy()
        return float(rows[simulated].sum() / max(rows.sum(), 1))

    def fragments_of(self, granules: Iterable[int]) -> pa.Table:
        """Return the rows of the fragments that hold points of some granules, given by number."""
        numbers = self.fragments["granules"].combine_chunks()
        hit = pc.is_in(pc.list_flatten(numbers), value_set=pa.array(granules, pa.int32()))
        return self.fragments.take(pc.unique(pc.list_parent_indices(numbers).filter(hit)))

    def after(self, commits: Iterable[Mapping[str, Any]]) -> Snapshot:
        """Return the snapshot after further commits.

        Parameters
        ----------
        commits : iterable of mapping
            Contents of the ``commit.json`` that follow this snapshot, in order.
        """
        number = self.number
        history: Mapping[str, Any] = {"oldest": self.oldest, "kept": self.kept}
        fenced = set(self.fenced)
        granules, fragments = list[_Change](), list[_Change]()
        for commit in commits:
            number = commit["number"]
            history = commit["history"]
            fenced.update(commit["fenced"])
            added = [{**row, "snapshot": number} for row in commit["granules"]["added"]]
            # As tables: as JSON, the rows of 64 large commits would take a gigabyte.
            granules.append(
                (commit["granules"]["removed"], pa.Table.from_pylist(added, schema=GRANULES))
            )
            added = commit["fragments"]["added"]
            fragments.append(
                (commit["fragments"]["removed"], pa.Table.from_pylist(added, schema=FRAGMENTS))
            )
        return Snapshot(
            number,
            _changed(self.granules, "number", granules),
            _changed(self.fragments, "path", fragments),
            history["oldest"],
            tuple(history["kept"]),
            frozenset(fenced),
        )


_Change = tuple[Sequence[Any], pa.Table]
"""Keys of the rows that a commit removes, and the rows that it adds."""


def _changed(table: pa.Table, key: str, changes: Sequence[_Change]) -> pa.Table:
    """Return a table after changes; each one removes only rows that were added before it."""
    parts, removed = list[pa.Table](), list[Any]()
    for keys, added in reversed(changes):
        parts.append(_without(added, key, removed))
        removed.extend(keys)
    parts.append(_without(table, key, removed))
    return pa.concat_tables(reversed(parts)).combine_chunks()


def _without(table: pa.Table, key: str, removed: Sequence[Any]) -> pa.Table:
    if not removed or not len(table):
        return table
    gone = pc.is_in(table[key], value_set=pa.array(removed, table.schema.field(key).type))
    return table.filter(pc.invert(gone))


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table; all of them at once could take a hundred times its memory."""
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()
