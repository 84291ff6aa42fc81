"""What a point DB holds after a commit: which granules, and which fragments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["FRAGMENTS", "GRANULES", "State", "apply"]

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
        ("time_min", pa.int64()),  # milliseconds since 1970, UTC; null without rows
        ("time_max", pa.int64()),
        ("snapshot", pa.int32()),  # the commit that added it
    ]
)

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
    ]
)


@dataclass(frozen=True, eq=False)
class State:
    """What a point DB holds after a commit.

    Attributes
    ----------
    number : int
        The commit; 0: none yet.
    checkpoint : int
        The newest commit up to it that carries the whole state; 0: none.
    granules, fragments : pyarrow.Table
        As :data:`GRANULES` and :data:`FRAGMENTS`, in the order in which they were added.
    """

    number: int = 0
    checkpoint: int = 0
    granules: pa.Table = field(default_factory=GRANULES.empty_table)
    fragments: pa.Table = field(default_factory=FRAGMENTS.empty_table)


def apply(state: State, entries: Iterable[Mapping[str, Any]]) -> State:
    """Apply commits to a state.

    Parameters
    ----------
    state : State
        Before them.
    entries : iterable of mapping
        Contents of the ``commit.json`` that follow it, in order.

    Returns
    -------
    State
        After them.
    """
    number = state.number
    granules: dict[int, Mapping[str, Any]] = {}
    fragments: dict[str, Mapping[str, Any]] = {}
    removed_granules, removed_fragments = set[int](), set[str]()
    for entry in entries:
        number = entry["number"]
        for key in entry["granules"]["removed"]:
            granules.pop(key, None)
            removed_granules.add(key)
        for path in entry["fragments"]["removed"]:
            fragments.pop(path, None)
            removed_fragments.add(path)
        granules |= {
            row["number"]: {**row, "snapshot": number} for row in entry["granules"]["added"]
        }
        fragments |= {row["path"]: row for row in entry["fragments"]["added"]}
    return State(
        number,
        state.checkpoint,
        _changed(state.granules, "number", removed_granules, granules.values()),
        _changed(state.fragments, "path", removed_fragments, fragments.values()),
    )


def _changed(
    table: pa.Table, key: str, removed: Collection[Any], added: Collection[Mapping[str, Any]]
) -> pa.Table:
    if removed:
        gone = pc.is_in(table[key], value_set=pa.array(list(removed), table.schema.field(key).type))
        table = table.filter(pc.invert(gone))
    new = pa.Table.from_pylist(list(added), schema=table.schema)
    return pa.concat_tables([table, new]).combine_chunks()
