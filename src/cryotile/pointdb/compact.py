"""Compact a point DB: merge small fragments, and delete files that no snapshot needs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from cryotile.files import writing
from cryotile.pointdb.encoding import Stored
from cryotile.pointdb.fragments import Writer, load_fragment, write_fragments, writer_of
from cryotile.pointdb.log import CHECKPOINT_INTERVAL, CHECKPOINT_TABLES, Commit, Snapshot
from cryotile.pointdb.sort_order import merged
from cryotile.pointdb.store import Store
from cryotile.points import ReprMixin

__all__ = ["Compacted", "compact"]

FULL = 2_000_000
"""Largest number of points of a merged fragment: about 30 MB, and 300 MB while it is merged."""

SMALL = FULL // 2
"""Fragments of fewer points are merged, so that each point is rewritten only a few times."""

GROUPS_PER_COMMIT = 32

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
    groups = _groups(snapshot)
    done = Compacted(snapshot.number)
    while True:
        batch = list(islice(groups, GROUPS_PER_COMMIT))
        round_ = _Round(store, kept, sorted(keep), batch)
        committed = store.commit(snapshot, round_.prepare)
        snapshot = committed.after
        if committed.commit is not None:
            done = _sum(done, committed.commit, *round_.sweep(committed.commit, snapshot))
        # The last round has nothing to merge; it finds the files of writers that died meanwhile.
        if not batch:
            return snapshot, replace(done, snapshot=snapshot.number)


def _groups(snapshot: Snapshot) -> Iterator[Group]:
    """Yield groups of fragments to merge, each of one chunk."""
    fragments = snapshot.fragments
    small = fragments.filter(pc.less(fragments["rows"], SMALL)).sort_by("chunk")
    group: Group = []
    for entry in small.to_pylist():
        full = sum(e["rows"] for e in group) + entry["rows"] > FULL
        if group and (full or entry["chunk"] != group[0]["chunk"]):
            if len(group) > 1:
                yield group
            group = []
        group.append(entry)
    if len(group) > 1:
        yield group


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
    """One commit of a compaction, and the deletions after it."""

    store: Store
    kept: Sequence[Snapshot]
    keep: Sequence[int]
    batch: Sequence[Group]

    def prepare(self, snapshot: Snapshot, writer: Writer) -> Commit | None:
        """Merge the groups that still exist, and fence the dead writers of files that no snapshot names."""
        there = set(snapshot.fragments["path"].to_pylist())
        groups = [group for group in self.batch if all(e["path"] in there for e in group)]
        # List files before markers: a writer whose marker appears in between has written none of these files.
        authors = {writer_of(p) for p in self._unnamed(snapshot)} | set(self._unfinished())
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
        root = self.store.root
        fenced, replaced = set(commit.fenced), set(commit.removed_fragments)
        doomed = [
            root / path
            for path in self._unnamed(after)
            if writer_of(path) in fenced or path in replaced
        ]
        doomed += self._spare_checkpoints(after)
        freed = 0
        with writing(root):
            for path in doomed:
                with suppress(FileNotFoundError):
                    freed += path.stat().st_size
                    path.unlink()
            for author, path in self._unfinished().items():
                if author in fenced:
                    shutil.rmtree(path, ignore_errors=True)
            for author in fenced:
                (root / "writers" / author).unlink(missing_ok=True)
        return len(doomed), freed

    def _merged(self, group: Group) -> Stored:
        root, description = self.store.root, self.store.description
        parts = [load_fragment(root, entry, description.schema) for entry in group]
        return merged(parts, description.chunk_size)

    def _unnamed(self, snapshot: Snapshot) -> list[str]:
        """Return paths of the fragments that neither the snapshot nor one to keep names."""
        named = {path for s in (snapshot, *self.kept) for path in s.fragments["path"].to_pylist()}
        there = (self.store.root / "chunks").glob("*/*/*/*/*.parquet")
        paths = (path.relative_to(self.store.root).as_posix() for path in there)
        return [path for path in paths if path not in named]

    def _unfinished(self) -> dict[str, Path]:
        """Return the temporary directories of commits in the log, by the id of their commit."""
        directory = self.store.log.directory
        found = ((re.fullmatch(r"\.\d{8}\.(\w+)\.tmp", p.name), p) for p in directory.iterdir())
        return {match[1]: path for match, path in found if match}

    def _spare_checkpoints(self, after: Snapshot) -> list[Path]:
        """Return the files of checkpoints that no remaining snapshot rests on."""
        # A writer that does not know this commit yet may look for the checkpoint before it.
        latest = (after.oldest - 1) // CHECKPOINT_INTERVAL * CHECKPOINT_INTERVAL
        needed = {snapshot.checkpoint for snapshot in self.kept}
        return [
            path
            for number in range(CHECKPOINT_INTERVAL, latest, CHECKPOINT_INTERVAL)
            if number not in needed
            for name in CHECKPOINT_TABLES
            if (path := self.store.log.path(number) / f"{name}.parquet").exists()
        ]
