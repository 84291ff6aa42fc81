"""Write fragments again without the points of some granules: to remove the granules, or to replace them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.pointdb.delivery import complete
from cryotile.pointdb.encoding import Stored
from cryotile.pointdb.fragments import (
    FragmentGone,
    Writer,
    by_chunk,
    load_fragment,
    write_fragments,
)
from cryotile.pointdb.snapshot import Commit, Snapshot
from cryotile.pointdb.sort_order import SQUARE_SIZE, chunk_numbers, merged
from cryotile.pointdb.squares import SquareChanges, add_up, count_squares, negated
from cryotile.points import ReprMixin

if TYPE_CHECKING:
    from cryotile.pointdb.store import Store

__all__ = ["Removed", "Rewritten", "remove_granules", "rewrite"]


@dataclass(frozen=True, repr=False)
class Removed(ReprMixin):
    """Result of removing granules.

    Attributes
    ----------
    snapshot : int
        The commit that is without them.
    granules : tuple of str
        File names of the granules.
    rows : int
        Number of their points.
    incomplete : tuple of str
        File names of granules that stay and lack the records that they had in common: to be ingested again.
    """

    snapshot: int
    granules: tuple[str, ...]
    rows: int
    incomplete: tuple[str, ...] = ()


def remove_granules(
    store: Store, snapshot: Snapshot, granules: Sequence[str]
) -> tuple[Snapshot, Removed]:
    """Remove the points of granules, all of them in one commit.

    Parameters
    ----------
    store : Store
        The point DB.
    snapshot : Snapshot
        The newest that the caller knows.
    granules : sequence of str
        Ids, file names or checksums; an id or a name means all deliveries that have it.

    Returns
    -------
    Snapshot
        The newest.
    Removed
        Granules and points that were removed.

    Raises
    ------
    InvalidValue
        A granule is not in the point DB; nothing was changed.
    DamagedFile
        A fragment that also holds points of other granules cannot be read.
    """

    def prepare(snapshot: Snapshot, writer: Writer) -> Commit | None:
        doomed = _find(store, snapshot, granules)["number"].to_pylist()
        if not doomed:
            return None
        written = rewrite(store, snapshot, writer, gone=doomed)
        return Commit((), written.added, written.squares, doomed, written.removed, id=writer.id)

    def stands(commit: Commit, snapshot: Snapshot) -> bool:
        # Another writer may have replaced a granule by a newer delivery.
        doomed = _find(store, snapshot, granules)["number"].to_pylist()
        return set(doomed) == set(commit.removed_granules)

    done = store.commit(snapshot, prepare, stands)
    left = _find(store, done.before, granules)
    names, rows = tuple(left["name"].to_pylist()), sum(left["rows"].to_pylist())
    stay = done.after.granules
    lack = stay.filter(pa.array(~complete(stay)))["name"]
    whole = done.before.granules.filter(pa.array(complete(done.before.granules)))["name"]
    incomplete = lack.filter(pc.is_in(lack, value_set=whole)).to_pylist()
    return done.after, Removed(done.after.number, names, rows, tuple(incomplete))


def _find(store: Store, snapshot: Snapshot, granules: Collection[str]) -> pa.Table:
    wanted = pa.array(list(granules), pa.string())
    known = snapshot.granules
    keys = ("id", "name", "checksum")
    hits = [pc.is_in(known[key], value_set=wanted) for key in keys]
    found = known.filter(reduce(pc.or_, hits))
    there = {value for key in keys for value in found[key].to_pylist()}
    if unknown := [granule for granule in granules if granule not in there]:
        raise InvalidValue(
            f"granule {unknown[0]} is not in point DB {store.root}; give ids or file names as PointDB.granules lists"
            " them"
        )
    return found


@dataclass(frozen=True, eq=False)
class Rewritten:
    """Result of :func:`rewrite`, for a commit.

    Attributes
    ----------
    added : list of dict
        Fragments that were written.
    removed : list of str
        Paths of the fragments that they replace.
    squares : pyarrow.Table
        Resulting change of the squares.
    """

    added: list[dict[str, Any]]
    removed: list[str]
    squares: pa.Table


def rewrite(
    store: Store,
    snapshot: Snapshot,
    writer: Writer,
    *,
    new: Iterable[Stored] = (),
    gone: Collection[int],
) -> Rewritten:
    """Write the fragments that hold points of some granules again without these, together with new points.

    A fragment that holds points of no other granule need not be read; if it is damaged, the squares of its chunk are
    counted again.

    Parameters
    ----------
    store : Store
        The point DB.
    snapshot : Snapshot
        Of the point DB.
    writer : Writer
        Of the commit.
    new : iterable of dict of str to ndarray
        All stored columns of new points, in pieces that are each in total order; iterated once, and no piece is needed
        after the next one.
    gone : collection of int
        Numbers of the granules whose points are left out.

    Returns
    -------
    Rewritten
        The fragments are on the disk.

    Raises
    ------
    DamagedFile
        A fragment that must be read is damaged; the message names it.
    FragmentGone
        A fragment does not exist; a compaction may have replaced it.
    """
    old: dict[int, list[dict[str, Any]]] = {}
    for entry in snapshot.fragments_of(gone).to_pylist():
        old.setdefault(entry["chunk"], []).append(entry)
    replaced = [entry["path"] for entries in old.values() for entry in entries]
    work = _Work(store, snapshot, frozenset(gone))
    chunk_size, schema = store.description.chunk_size, store.description.schema

    def pieces() -> Iterator[tuple[int, Stored]]:
        for points in new:
            work.changes.add(count_squares(points))
            for chunk, part in by_chunk(points, chunk_size):
                stay = work.without(old.pop(chunk, ()))
                yield chunk, merged([*stay, part], chunk_size)
        for chunk, entries in sorted(old.items()):
            if stay := work.without(entries):
                yield chunk, merged(stay, chunk_size)

    added = write_fragments(writer, pieces(), schema)
    return Rewritten(added, replaced, work.changes.total())


@dataclass(frozen=True, eq=False)
class _Work:
    store: Store
    snapshot: Snapshot
    gone: frozenset[int]
    changes: SquareChanges = field(default_factory=SquareChanges)

    def without(self, entries: Sequence[Mapping[str, Any]]) -> list[Stored]:
        """Return the remaining points of the fragments of one chunk, and add the change of its squares."""
        stay, changes, lost = list[Stored](), list[pa.Table](), False
        for entry in entries:
            try:
                points = self._load(entry)
            except (DamagedFile, FragmentGone):
                if not self._can_be_lost(entry):
                    raise
                lost = True
                continue
            leaves = np.isin(points["granule"], list(self.gone))
            changes.append(negated(count_squares(_rows(points, leaves))))
            if not leaves.all():
                stay.append(_rows(points, ~leaves))
        self.changes.add(*([self._recount(entries, stay)] if lost else changes))
        return stay

    def _load(self, entry: Mapping[str, Any]) -> Stored:
        return load_fragment(self.store.root, entry, self.store.description.schema)

    def _can_be_lost(self, entry: Mapping[str, Any]) -> bool:
        """Tell whether all points of a fragment are left out anyway, and no newer commit has replaced it."""
        return (
            self.gone.issuperset(entry["granules"])
            and self.store.log.follow(self.snapshot) is self.snapshot
        )

    def _recount(self, entries: Sequence[Mapping[str, Any]], stay: Sequence[Stored]) -> pa.Table:
        """Return the change of a chunk's squares, from all the points that remain in it."""
        chunk, read = entries[0]["chunk"], {entry["path"] for entry in entries}
        counts = [count_squares(points) for points in stay]
        fragments = self.snapshot.fragments
        for entry in fragments.filter(pc.equal(fragments["chunk"], chunk)).to_pylist():
            if entry["path"] not in read:
                counts.append(count_squares(self._load(entry)))
        before = self.store.log.squares(self.snapshot)
        squares_per_chunk = round(self.store.description.chunk_size / SQUARE_SIZE)
        ix, iy = (before[n].to_numpy().astype(np.int64) // squares_per_chunk for n in ("ix", "iy"))
        before = before.filter(pa.array(chunk_numbers(ix, iy) == chunk))
        return add_up([*counts, negated(before)])


def _rows(points: Stored, which: np.ndarray[Any, np.dtype[np.bool_]]) -> Stored:
    return {name: values[which] for name, values in points.items()}
