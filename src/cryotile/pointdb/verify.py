"""Whether a point DB holds what its log says, to the last byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.errors import DamagedFile
from cryotile.pointdb.description import Description
from cryotile.pointdb.encoding import Stored
from cryotile.pointdb.fragments import FragmentGone, by_chunk, describe_fragment, load_fragment
from cryotile.pointdb.log import CHECKPOINT_TABLES, Log
from cryotile.pointdb.sort_order import in_total_order
from cryotile.pointdb.squares import SQUARES, add_up, count_squares
from cryotile.pointdb.state import State

__all__ = ["Damage", "verify"]


@dataclass(frozen=True)
class Damage:
    """Something that is not as the log says.

    Attributes
    ----------
    path : Path
        The file.
    reason : str
        One line.
    granules : tuple of str
        File names of the granules with points in it: to be ingested again, if there is no copy.
    """

    path: Path
    reason: str
    granules: tuple[str, ...] = ()


def verify(root: Path, description: Description, log: Log, state: State) -> Iterator[Damage]:
    """Compare the log with itself, and all fragments with the log.

    Parameters
    ----------
    root : Path
        The point DB.
    description : Description
        Of it.
    log : Log
        Of it.
    state : State
        The snapshot to look at; snapshots that were kept are looked at, too.

    Yields
    ------
    Damage
        As it is found; what nothing names is none.
    """
    kept = [log.load(number) for number in state.kept]
    needed = {snapshot.checkpoint for snapshot in (state, *kept)}
    whole = True
    for number in range(1, state.number + 1):
        for damage in _entry_damage(log, number, needed=number in needed):
            whole = False
            yield damage
    counts, rows = SQUARES.empty_table(), Counter[int]()
    for snapshot in (state, *kept):
        known = set() if snapshot is state else set(state.fragments["path"].to_pylist())
        for entry in snapshot.fragments.to_pylist():
            if entry["path"] in known:
                continue
            try:
                points = load_fragment(root, entry, description.schema)
                reason = _disagreement(entry, points, description)
            except (DamagedFile, FragmentGone) as error:
                reason = "is missing" if isinstance(error, FragmentGone) else "has another checksum"
            if reason:
                whole = False
                yield Damage(root / entry["path"], reason, _names(snapshot, entry["granules"]))
            elif snapshot is state:
                counts = add_up([counts, count_squares(points)])
                numbers, times = np.unique(points["granule"], return_counts=True)
                rows.update(dict(zip(numbers.tolist(), times.tolist(), strict=True)))
    if whole:
        yield from _total_damage(log, state, counts, rows)


def _entry_damage(log: Log, number: int, *, needed: bool) -> Iterator[Damage]:
    entries = log.entries
    try:
        entry = entries.read(number)
        entries.table(number, "squares", entry)
        for name in CHECKPOINT_TABLES if entry["checkpoint"] else ():
            # A compaction deletes those that no snapshot rests on.
            if needed or (entries.path(number) / f"{name}.parquet").exists():
                entries.table(number, name, entry["checkpoint"])
    except FileNotFoundError:
        yield Damage(entries.path(number), str(entries.missing(number)))
    except DamagedFile as error:
        yield Damage(entries.path(number), str(error))


def _disagreement(entry: Mapping[str, Any], points: Stored, description: Description) -> str:
    """What the log says otherwise of a fragment than its points do; empty when they agree."""
    chunks = [chunk for chunk, _ in by_chunk(points, description.chunk_size)]
    if chunks != [entry["chunk"]]:
        return "has points of another chunk"
    found = describe_fragment(entry["chunk"], points)
    for name, value in found.items():
        if value != entry[name]:
            return f"has {name} {value}, and the log says {entry[name]}"
    if in_total_order(points, description.chunk_size) is not points:
        return "is out of order"
    return ""


def _total_damage(
    log: Log, state: State, counts: pa.Table, rows: Mapping[int, int]
) -> Iterator[Damage]:
    """Compare what all fragments come to with what the log says of granules and squares."""
    for granule in state.granules.select(["number", "name", "rows"]).to_pylist():
        there = rows.get(granule["number"], 0)
        if there != granule["rows"]:
            reason = f"has {there} points of a granule, and the log says {granule['rows']}"
            yield Damage(log.entries.directory.parent, reason, (granule["name"],))
    # Times of squares may be wider than those of the points that are left.
    names = ["ix", "iy", "platform", "mode", "count", "digest"]
    if not counts.select(names).equals(log.squares(state).select(names)):
        yield Damage(log.entries.directory, "has squares that do not add up to the points")


def _names(state: State, numbers: Sequence[int]) -> tuple[str, ...]:
    table = state.granules
    hit = pc.is_in(table["number"], value_set=pa.array(numbers, pa.int32()))
    return tuple(table.filter(hit)["name"].to_pylist())
