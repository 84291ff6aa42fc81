"""Verify that the files of a point DB agree with its log, to the last byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.errors import DamagedFile
from cryotile.pointdb.encoding import Stored
from cryotile.pointdb.fragments import FragmentGone, by_chunk, describe_fragment, load_fragment
from cryotile.pointdb.log import Log
from cryotile.pointdb.snapshot import Snapshot, rows_of
from cryotile.pointdb.sort_order import in_total_order
from cryotile.pointdb.squares import SquareChanges, count_squares
from cryotile.pointdb.store import Store

__all__ = ["Damage", "verify"]


@dataclass(frozen=True)
class Damage:
    """A difference between a file and the log.

    Attributes
    ----------
    path : Path
        The file.
    reason : str
        The difference, one line.
    granules : tuple of str
        File names of the granules with points in the file: to be ingested again if there is no copy.
    """

    path: Path
    reason: str
    granules: tuple[str, ...] = ()


def verify(store: Store, newest: Snapshot) -> Iterator[Damage]:
    """Compare the log with itself, and all fragments with the log.

    Parameters
    ----------
    store : Store
        The point DB.
    newest : Snapshot
        The snapshot to verify; snapshots that it has kept are verified, too.

    Yields
    ------
    Damage
        As soon as it is found; files that the log does not name are not damage.
    """
    root, description, log = store.root, store.description, store.log
    kept = [log.load(number) for number in newest.kept]
    spare = set(log.spare_files(newest, kept))
    whole = True
    for number in range(1, newest.number + 1):
        for damage in _commit_damage(log, number, spare):
            whole = False
            yield damage
    counts, rows = SquareChanges(), Counter[int]()
    for snapshot in (newest, *kept):
        fragments = snapshot.fragments
        if snapshot is not newest:
            known = pc.is_in(fragments["path"], value_set=newest.fragments["path"])
            fragments = fragments.filter(pc.invert(known))
        columns = (snapshot.granules[name].to_pylist() for name in ("number", "name"))
        names = {number: (at, name) for at, (number, name) in enumerate(zip(*columns, strict=True))}
        for entry in rows_of(fragments):
            try:
                points = load_fragment(root, entry, description.schema)
                reason = _disagreement(entry, points, description.chunk_size)
            except (DamagedFile, FragmentGone) as error:
                reason = "is missing" if isinstance(error, FragmentGone) else "has another checksum"
            if reason:
                whole = False
                concerned = sorted(names[n] for n in entry["granules"] if n in names)
                yield Damage(root / entry["path"], reason, tuple(name for _, name in concerned))
            elif snapshot is newest:
                counts.add(count_squares(points))
                numbers, times = np.unique(points["granule"], return_counts=True)
                rows.update(dict(zip(numbers.tolist(), times.tolist(), strict=True)))
    if whole:
        yield from _total_damage(store, newest, counts.total(), rows)


def _commit_damage(log: Log, number: int, spare: Collection[Path]) -> Iterator[Damage]:
    try:
        commit = log.read(number)
        for name, checksum in {
            "squares": commit["squares"],
            **(commit["checkpoint"] or {}),
        }.items():
            # A compaction deletes the files that no snapshot rests on.
            path = log.table_path(number, name)
            if path not in spare or path.exists():
                log.table(number, name, {name: checksum})
    except DamagedFile as error:
        yield Damage(log.path(number), str(error))


def _disagreement(entry: Mapping[str, Any], points: Stored, chunk_size: float) -> str:
    """Return the first difference between the points of a fragment and its row in the log; empty if they agree."""
    chunks = [chunk for chunk, _ in by_chunk(points, chunk_size)]
    if chunks != [entry["chunk"]]:
        return "has points of another chunk"
    found = describe_fragment(entry["chunk"], points)
    for name, value in found.items():
        if value != entry[name]:
            return f"has {name} {value}, and the log says {entry[name]}"
    if in_total_order(points, chunk_size) is not points:
        return "is out of order"
    return ""


def _total_damage(
    store: Store, newest: Snapshot, counts: pa.Table, rows: Mapping[int, int]
) -> Iterator[Damage]:
    """Compare the totals of all fragments with the granules and squares of the log."""
    for granule in newest.granules.select(["number", "name", "rows"]).to_pylist():
        there = rows.get(granule["number"], 0)
        if there != granule["rows"]:
            reason = f"has {there} points of a granule, and the log says {granule['rows']}"
            yield Damage(store.root, reason, (granule["name"],))
    # Times of squares may be wider than those of the remaining points.
    names = ["ix", "iy", "platform", "mode", "count", "digest"]
    if not counts.select(names).equals(store.log.squares(newest).select(names)):
        yield Damage(store.log.directory, "has squares that do not add up to the points")
