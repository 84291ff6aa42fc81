"""Fragments written again: with new points, or without those of some granules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.errors import DamagedFile
from cryotile.pointdb.description import Description
from cryotile.pointdb.encoding import Stored
from cryotile.pointdb.fragments import FragmentGone, by_chunk, load_fragment, write_fragments
from cryotile.pointdb.layout import SQUARE_SIZE, chunk_numbers
from cryotile.pointdb.log import Log
from cryotile.pointdb.sort_order import in_total_order
from cryotile.pointdb.squares import add_up, count_squares, taken_away
from cryotile.pointdb.state import State
from cryotile.pointdb.writers import Writer

__all__ = ["Rewriting", "fragments_of", "merged", "rewrite"]

MOST_CHANGES = 64
"""Changes of squares that are held before they are added up."""


@dataclass(frozen=True, eq=False)
class Rewriting:
    """What comes of it, for a commit.

    Attributes
    ----------
    added : list of dict
        Fragments that were written.
    removed : list of str
        Paths of those that they stand in for.
    squares : pyarrow.Table
        What that changes of the squares.
    """

    added: list[dict[str, Any]]
    removed: list[str]
    squares: pa.Table


def rewrite(
    description: Description,
    log: Log,
    state: State,
    writer: Writer,
    *,
    new: Iterable[Stored] = (),
    gone: Collection[int] = (),
) -> Rewriting:
    """Write new points, and again the fragments that hold points of some granules, without these.

    A fragment of no other granules need not be read; if it is damaged, the squares of its chunk are counted anew.

    Parameters
    ----------
    description : Description
        Of the point DB.
    log : Log
        Of it.
    state : State
        Of it.
    writer : Writer
        Of the change.
    new : iterable of dict of str to ndarray
        All stored columns of new points, in pieces that are each in total order; gone through once, and each piece may
        be forgotten before the next.
    gone : collection of int
        Numbers of the granules whose points go.

    Returns
    -------
    Rewriting
        On the disk.

    Raises
    ------
    DamagedFile
        A fragment that has to be read; it is named.
    FragmentGone
        One is not there, and may be replaced.
    """
    old: dict[int, list[dict[str, Any]]] = {}
    for entry in fragments_of(state, gone):
        old.setdefault(entry["chunk"], []).append(entry)
    replaced = [entry["path"] for entries in old.values() for entry in entries]
    work = _Work(description, log, state, writer, frozenset(gone))

    def pieces() -> Iterator[tuple[int, Stored]]:
        for points in new:
            work.note(count_squares(points))
            for chunk, part in by_chunk(points, description.chunk_size):
                stay = [p for p in work.without(old.pop(chunk, ())) if len(p["time"])]
                # What is of one fragment, or new, is in order already.
                yield chunk, merged([*stay, part], description.chunk_size) if stay else part
        for chunk, entries in sorted(old.items()):
            stay = [p for p in work.without(entries) if len(p["time"])]
            if stay:
                yield (
                    chunk,
                    stay[0] if len(stay) == 1 else merged(stay, description.chunk_size),
                )

    added = write_fragments(writer, pieces(), description.schema)
    return Rewriting(added, replaced, add_up(work.changes))


def merged(parts: Sequence[Stored], chunk_size: float) -> Stored:
    """Put points together, in total order."""
    return in_total_order({n: np.concatenate([p[n] for p in parts]) for n in parts[0]}, chunk_size)


def fragments_of(state: State, granules: Collection[int]) -> list[dict[str, Any]]:
    """Return what the log says of the fragments that hold points of some granules, by their numbers."""
    numbers = state.fragments["granules"].combine_chunks()
    hit = pc.is_in(pc.list_flatten(numbers), value_set=pa.array(list(granules), pa.int32()))
    rows = pc.unique(pc.list_parent_indices(numbers).filter(hit))
    found: list[dict[str, Any]] = state.fragments.take(rows).to_pylist()
    return found


@dataclass(frozen=True, eq=False)
class _Work:
    description: Description
    log: Log
    state: State
    writer: Writer
    gone: frozenset[int]
    changes: list[pa.Table] = field(default_factory=list)

    def note(self, *changes: pa.Table) -> None:
        """Keep what changes of the squares."""
        self.changes.extend(changes)
        # Of many pieces, each with all squares, no more than a few are held.
        if len(self.changes) > MOST_CHANGES:
            self.changes[:] = [add_up(self.changes)]

    def without(self, entries: Sequence[Mapping[str, Any]]) -> list[Stored]:
        """Return what stays of the fragments of one chunk, and note what that changes of its squares."""
        stay, changes, lost = list[Stored](), list[pa.Table](), set[str]()
        for entry in entries:
            try:
                points = load_fragment(self.writer.root, entry, self.description.schema)
            except (DamagedFile, FragmentGone):
                if not self._can_be_lost(entry):
                    raise
                lost.add(entry["path"])
                continue
            leaves = np.isin(points["granule"], list(self.gone))
            changes.append(taken_away(count_squares(_rows(points, leaves))))
            stay.append(_rows(points, ~leaves))
        self.note(*([self._recount(entries, stay)] if lost else changes))
        return stay

    def _can_be_lost(self, entry: Mapping[str, Any]) -> bool:
        """Tell whether all points of a fragment go anyway, and no newer commit has replaced it."""
        return self.gone.issuperset(entry["granules"]) and self.log.follow(self.state) is self.state

    def _recount(self, entries: Sequence[Mapping[str, Any]], stay: Sequence[Stored]) -> pa.Table:
        """Return what the squares of a chunk lack, from all the points that it still has."""
        chunk, touched = entries[0]["chunk"], {entry["path"] for entry in entries}
        counts = [count_squares(points) for points in stay]
        fragments = self.state.fragments
        for entry in fragments.filter(pc.equal(fragments["chunk"], chunk)).to_pylist():
            if entry["path"] not in touched:
                points = load_fragment(self.writer.root, entry, self.description.schema)
                counts.append(count_squares(points))
        before = self.log.squares(self.state)
        squares_per_chunk = round(self.description.chunk_size / SQUARE_SIZE)
        ix, iy = (before[n].to_numpy().astype(np.int64) // squares_per_chunk for n in ("ix", "iy"))
        before = before.filter(pa.array(chunk_numbers(ix, iy) == chunk))
        return add_up([*counts, taken_away(before)])


def _rows(points: Stored, which: np.ndarray[Any, np.dtype[np.bool_]]) -> Stored:
    return {name: values[which] for name, values in points.items()}
