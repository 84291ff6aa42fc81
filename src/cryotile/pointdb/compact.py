"""Compact a point DB: merge small fragments, and delete files that no snapshot needs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cryotile.files import make_way, writing
from cryotile.pointdb.encoding import Stored
from cryotile.pointdb.fragments import Writer, load_fragment, write_fragments, writer_of
from cryotile.pointdb.snapshot import Commit, Snapshot, rows_of
from cryotile.pointdb.sort_order import merged
from cryotile.pointdb.store import Store
from cryotile.points import ReprMixin

__all__ = ["Compacted", "compact"]

FULL = 2_000_000
"""Largest number of points of a merged fragment: about 30 MB, and 300 MB while it is merged."""

SMALL = FULL // 2
"""Fragments of fewer points are merged, so that each point is rewritten only a few times."""

POINTS_PER_COMMIT = 16 * FULL
"""Points that are merged in one commit: whatever the size of chunks, the number of commits grows with the points."""

Group = list[dict[str, Any]]
"""Rows of fragments of one chunk that become one fragment."""


@dataclass(frozen=True, repr=False)
class Compacted(ReprMixin):
    """Result of a compaction.

    Attributes
    ----------
    snapshot : int
        The newest commit.
    merged, written : int
        Number of small fragments, and of the fragments that replace them.
    deleted : int
        Number of files that were deleted.
    freed : int
        Size of the deleted files, bytes.
    """

    snapshot: int
    merged: int = 0
    written: int = 0
    deleted: int = 0
    freed: int = 0


def compact(store: Store, snapshot: Snapshot, keep: Collection[int]) -> tuple[Snapshot, Compacted]:
    """Merge small fragments and delete replaced or orphaned files, in commits of some chunks each.

    Parameters
    ----------
    store : Store
        The point DB.
    snapshot : Snapshot
        The newest that the caller knows.
    keep : collection of int
        Earlier snapshots to keep.

    Returns
    -------
    Snapshot
        The newest.
    Compacted
        Counts of merged and deleted files.

    Raises
    ------
    InvalidValue
        A snapshot to keep does not exist.
    DamagedFile
        A fragment to merge is damaged; the message names it.
    """
    snapshot = store.log.follow(snapshot)
    kept = [store.log.load(number) for number in keep]
    needed = {path for s in kept for path in s.fragments["path"].to_pylist()}
    done = Compacted(snapshot.number)
    # The first round lists all files, once: what dead writers left, the next compaction would find as well.
    files, unfinished = _files(store), _unfinished(store)
    for batch in _batches(_groups(snapshot)):
        round_ = _Round(store, sorted(keep), needed, batch, files, unfinished)
        committed = store.commit(snapshot, round_.prepare)
        snapshot = committed.after
        if committed.commit is not None:
            done = _sum(done, committed.commit, *round_.sweep(committed.commit, snapshot))
        files, unfinished = [], {}
    done = replace(done, snapshot=snapshot.number)
    base = store.log.base(snapshot)
    if not base or store.log.has_checkpoint(base):
        deleted, freed = _delete(store.root, store.log.spare_files(snapshot, kept))
        done = replace(done, deleted=done.deleted + deleted, freed=done.freed + freed)
    return snapshot, done


def _files(store: Store) -> list[str]:
    """Return the paths of all fragments on the disk."""
    there = (store.root / "chunks").glob("*/*/*/*/*.parquet")
    return [path.relative_to(store.root).as_posix() for path in there]


def _unfinished(store: Store) -> dict[str, Path]:
    """Return the temporary directories of commits in the log, by the id of their commit."""
    directory = store.log.directory
    found = ((re.fullmatch(r"\.\d{8}\.(\w+)\.tmp", p.name), p) for p in directory.iterdir())
    return {match[1]: path for match, path in found if match}


def _batches(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """Yield the groups of each commit; at least once, even if there are no groups."""
    batch: list[Group] = []
    points = 0
    for group in groups:
        batch.append(group)
        points += sum(entry["rows"] for entry in group)
        if points >= POINTS_PER_COMMIT:
            yield batch
            batch, points = [], 0
    yield batch


def _groups(snapshot: Snapshot) -> Iterator[Group]:
    """Yield groups of fragments to merge, each of one chunk."""
    fragments = snapshot.fragments
    small = fragments.filter(pc.less(fragments["rows"], SMALL)).sort_by("chunk")
    group: Group = []
    for entry in rows_of(small):
        full = sum(e["rows"] for e in group) + entry["rows"] > FULL
        if group and (full or entry["chunk"] != group[0]["chunk"]):
            if len(group) > 1:
                yield group
            group = []
        group.append(entry)
    if len(group) > 1:
        yield group


def _delete(root: Path, paths: Iterable[Path]) -> tuple[int, int]:
    """Delete files, those that exist; return their number and bytes."""
    deleted = freed = 0
    with writing(root):
        for path in paths:
            with suppress(FileNotFoundError, IsADirectoryError):
                size = path.stat().st_size
                path.unlink()
                deleted, freed = deleted + 1, freed + size
    return deleted, freed


def _sum(done: Compacted, commit: Commit, deleted: int, freed: int) -> Compacted:
    return Compacted(
        done.snapshot,
        done.merged + len(commit.removed_fragments),
        done.written + len(commit.fragments),
        done.deleted + deleted,
        done.freed + freed,
    )


@dataclass(frozen=True, eq=False)
class _Round:
    """One commit of a compaction, and the deletions after it.

    Attributes
    ----------
    store : Store
        The point DB.
    keep : sequence of int
        Earlier snapshots to keep.
    needed : set of str
        Paths of the fragments that they name.
    batch : sequence of list of dict
        Groups of fragments to merge.
    files : sequence of str
        Paths of fragments on the disk, to delete those of dead writers.
    unfinished : mapping of str to Path
        Id → temporary directory of commits, to delete those of dead writers.
    """

    store: Store
    keep: Sequence[int]
    needed: Set[str]
    batch: Sequence[Group]
    files: Sequence[str]
    unfinished: Mapping[str, Path]

    def prepare(self, snapshot: Snapshot, writer: Writer) -> Commit | None:
        """Merge the groups that still exist, and fence the dead writers of files that no snapshot names."""
        paths = pa.array([e["path"] for group in self.batch for e in group], pa.string())
        named = snapshot.fragments["path"]
        there = set(named.filter(pc.is_in(named, value_set=paths)).to_pylist())
        groups = [group for group in self.batch if all(e["path"] in there for e in group)]
        # Files were listed before markers: a writer whose marker appeared in between has written none of them.
        authors = {writer_of(path) for path in self._unnamed(snapshot)} | set(self.unfinished)
        living, dead = writer.others()
        fenced = sorted((authors | dead) - living)
        if not groups and not fenced and list(self.keep) == list(snapshot.kept):
            return None
        pieces = ((group[0]["chunk"], self._merged(group)) for group in groups)
        return Commit(
            fragments=write_fragments(writer, pieces, self.store.description.schema),
            removed_fragments=[entry["path"] for group in groups for entry in group],
            kept=self.keep,
            fenced=fenced,
            id=writer.id,
        )

    def sweep(self, commit: Commit, after: Snapshot) -> tuple[int, int]:
        """Delete merged fragments and files of fenced writers; return number and bytes of the deleted files."""
        root, fenced = self.store.root, set(commit.fenced)
        doomed = {path for path in self._unnamed(after) if writer_of(path) in fenced}
        doomed |= set(commit.removed_fragments) - self.needed
        found = _delete(root, [root / path for path in sorted(doomed)])
        with writing(root):
            for author in fenced:
                if author in self.unfinished:
                    shutil.rmtree(self.unfinished[author], ignore_errors=True)
                marker = root / "writers" / author
                make_way(marker)
                marker.unlink(missing_ok=True)
        return found

    def _merged(self, group: Group) -> Stored:
        root, description = self.store.root, self.store.description
        parts = [load_fragment(root, entry, description.schema) for entry in group]
        return merged(parts, description.chunk_size)

    def _unnamed(self, snapshot: Snapshot) -> set[str]:
        """Return paths of the listed fragments that neither the snapshot nor one to keep names."""
        if not self.files:
            return set()
        return set(self.files).difference(snapshot.fragments["path"].to_pylist(), self.needed)
