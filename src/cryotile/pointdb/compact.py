"""How a point DB is kept tidy: small fragments merged, and what no snapshot needs any more deleted."""

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
from cryotile.pointdb.commit import Committed, commit_change
from cryotile.pointdb.description import Description
from cryotile.pointdb.encoding import Stored
from cryotile.pointdb.fragments import load_fragment, write_fragments, writer_of
from cryotile.pointdb.log import CHECKPOINT_INTERVAL, CHECKPOINT_TABLES, Log
from cryotile.pointdb.rewrite import merged
from cryotile.pointdb.state import Change, State
from cryotile.pointdb.writers import Writer

__all__ = ["Compacted", "compact"]

FULL = 2_000_000
"""Points of a merged fragment at most: some 30 MB, and 300 MB while it is merged."""

SMALL = FULL // 2
"""Fragments of fewer points are merged, so that each point is written a few times in all."""

GROUPS_PER_COMMIT = 32

Group = list[dict[str, Any]]
"""Fragments of one chunk that become one, as the log describes them."""


@dataclass(frozen=True)
class Compacted:
    """What a compaction has done.

    Attributes
    ----------
    snapshot : int
        The newest commit.
    merged, written : int
        Small fragments, and what they became.
    deleted : int
        Files of the point DB that were deleted.
    freed : int
        Their bytes.
    """

    snapshot: int
    merged: int = 0
    written: int = 0
    deleted: int = 0
    freed: int = 0


def compact(
    root: Path, description: Description, log: Log, state: State, keep: Collection[int]
) -> tuple[State, Compacted]:
    """Merge small fragments and delete what is superseded or orphaned, in commits of some chunks each.

    Parameters
    ----------
    root : Path
        The point DB.
    description : Description
        Of it.
    log : Log
        Of it.
    state : State
        What the caller knows of it.
    keep : collection of int
        Earlier snapshots that stay.

    Returns
    -------
    State
        The newest.
    Compacted
        What was done.

    Raises
    ------
    InvalidValue
        A snapshot to keep is not there.
    DamagedFile
        A fragment that should be merged; it is named.
    """
    state = log.follow(state)
    kept = [log.load(number) for number in keep]
    groups = _groups(state)
    done = Compacted(state.number)
    while True:
        batch = list(islice(groups, GROUPS_PER_COMMIT))
        round_ = _Round(root, description, kept, sorted(keep), batch)
        committed = commit_change(root, log, state, round_.prepare)
        state = committed.after
        if committed.change is not None:
            done = _added_up(done, committed, *round_.sweep(committed))
        # The last round has nothing to merge; it finds what was left by those who died meanwhile.
        if not batch:
            return state, replace(done, snapshot=state.number)


def _groups(state: State) -> Iterator[Group]:
    """Yield fragments of one chunk each that are worth merging."""
    fragments = state.fragments
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


def _added_up(done: Compacted, committed: Committed, deleted: int, freed: int) -> Compacted:
    change = committed.change
    assert change is not None
    return Compacted(
        committed.after.number,
        done.merged + len(change.removed_fragments),
        done.written + len(change.fragments),
        done.deleted + deleted,
        done.freed + freed,
    )


@dataclass(frozen=True, eq=False)
class _Round:
    """One commit of a compaction, and what may be deleted after it."""

    root: Path
    description: Description
    kept: Sequence[State]
    keep: Sequence[int]
    batch: Sequence[Group]

    def prepare(self, state: State, writer: Writer) -> Change | None:
        """Merge the groups that are still there, and fence the writers of what nobody names and nobody is writing."""
        there = set(state.fragments["path"].to_pylist())
        groups = [group for group in self.batch if all(e["path"] in there for e in group)]
        # Files before signs of life: who gives its sign in between has not written any of these.
        authors = {writer_of(p) for p in self._unnamed(state)} | set(_unfinished(self.root))
        living, dead = writer.others()
        fenced = sorted((authors | dead) - living)
        if not groups and not fenced and list(self.keep) == list(state.kept):
            return None
        pieces = ((group[0]["chunk"], self._merged(group)) for group in groups)
        return Change(
            fragments=write_fragments(writer, pieces, self.description.schema),
            removed_fragments=[entry["path"] for group in groups for entry in group],
            kept=self.keep,
            fenced=fenced,
            id=writer.id,
        )

    def sweep(self, committed: Committed) -> tuple[int, int]:
        """Delete, after the commit, what it merged and what the fenced have left; return how many files and bytes."""
        assert committed.change is not None
        fenced, merged = set(committed.change.fenced), set(committed.change.removed_fragments)
        doomed = [
            self.root / path
            for path in self._unnamed(committed.after)
            if writer_of(path) in fenced or path in merged
        ]
        doomed += _spare_checkpoints(self.root, committed.after, self.kept)
        freed = 0
        with writing(self.root):
            for path in doomed:
                with suppress(FileNotFoundError):
                    freed += path.stat().st_size
                    path.unlink()
            for author, path in _unfinished(self.root).items():
                if author in fenced:
                    shutil.rmtree(path, ignore_errors=True)
            for author in fenced:
                (self.root / "writers" / author).unlink(missing_ok=True)
        return len(doomed), freed

    def _merged(self, group: Group) -> Stored:
        parts = [load_fragment(self.root, entry, self.description.schema) for entry in group]
        return merged(parts, self.description.chunk_size)

    def _unnamed(self, state: State) -> list[str]:
        """Paths of the fragments that neither a state nor a snapshot to keep names."""
        named = {path for s in (state, *self.kept) for path in s.fragments["path"].to_pylist()}
        there = (self.root / "chunks").glob("*/*/*/*/*.parquet")
        paths = (path.relative_to(self.root).as_posix() for path in there)
        return [path for path in paths if path not in named]


def _unfinished(root: Path) -> dict[str, Path]:
    """Entries of the log that were not finished, by the id of their change."""
    found = ((re.fullmatch(r"\.\d{8}\.(\w+)\.tmp", p.name), p) for p in (root / "log").iterdir())
    return {match[1]: path for match, path in found if match}


def _spare_checkpoints(root: Path, state: State, kept: Sequence[State]) -> list[Path]:
    """Checkpoints that none of the snapshots there are rests on."""
    # A writer that has not heard of this commit may look for the one before.
    latest = (state.oldest - 1) // CHECKPOINT_INTERVAL * CHECKPOINT_INTERVAL
    needed = {s.checkpoint for s in kept}
    return [
        path
        for number in range(CHECKPOINT_INTERVAL, latest, CHECKPOINT_INTERVAL)
        if number not in needed
        for name in CHECKPOINT_TABLES
        if (path := root / "log" / f"{number:08d}" / f"{name}.parquet").exists()
    ]
