"""What a point DB holds after a commit: which granules, and which fragments; and what a commit changes of that."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.pointdb.squares import SQUARES

__all__ = ["FRAGMENTS", "GRANULES", "Change", "State", "apply", "describe_granules", "new_id"]

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
    oldest : int
        Snapshots before it are gone: a compaction, which was this commit, may have deleted fragments of theirs.
    kept : tuple of int
        Snapshots before it that are there all the same.
    fenced : frozenset of str
        Ids of changes that may not be committed any more, as far as this state was followed commit by commit.
    """

    number: int = 0
    checkpoint: int = 0
    granules: pa.Table = field(default_factory=GRANULES.empty_table)
    fragments: pa.Table = field(default_factory=FRAGMENTS.empty_table)
    oldest: int = 0
    kept: tuple[int, ...] = ()
    fenced: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Change:
    """What a commit does.

    Attributes
    ----------
    granules, fragments : sequence of mapping
        Added; rows of :data:`GRANULES` (without ``snapshot``) and :data:`FRAGMENTS`.
    squares : pyarrow.Table
        What it changes of each square, as :data:`cryotile.pointdb.squares.SQUARES`.
    removed_granules : sequence of int
        Numbers.
    removed_fragments : sequence of str
        Paths.
    kept : sequence of int or None
        Of a compaction, which changes no content: the earlier snapshots that it does not end.  None: no compaction.
    fenced : sequence of str
        Ids of changes whose writers are taken for dead: they may not be committed after this one.
    id : str
        Tells this commit from any other; its fragments are named for it.
    """

    granules: Sequence[Mapping[str, Any]] = ()
    fragments: Sequence[Mapping[str, Any]] = ()
    squares: pa.Table = field(default_factory=SQUARES.empty_table)
    removed_granules: Sequence[int] = ()
    removed_fragments: Sequence[str] = ()
    kept: Sequence[int] | None = None
    fenced: Sequence[str] = ()
    id: str = field(default_factory=lambda: new_id())


def new_id() -> str:
    """Return the id of a change to come."""
    return secrets.token_hex(8)


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
    number, checkpoint = state.number, state.checkpoint
    history: Mapping[str, Any] = {"oldest": state.oldest, "kept": state.kept}
    fenced = set(state.fenced)
    granules: dict[int, Mapping[str, Any]] = {}
    fragments: dict[str, Mapping[str, Any]] = {}
    removed_granules, removed_fragments = set[int](), set[str]()
    for entry in entries:
        number = entry["number"]
        checkpoint = number if entry["checkpoint"] else checkpoint
        history = entry["history"]
        fenced.update(entry["fenced"])
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
        checkpoint,
        _changed(state.granules, "number", removed_granules, granules.values()),
        _changed(state.fragments, "path", removed_fragments, fragments.values()),
        history["oldest"],
        tuple(history["kept"]),
        frozenset(fenced),
    )


def _changed(
    table: pa.Table, key: str, removed: Collection[Any], added: Collection[Mapping[str, Any]]
) -> pa.Table:
    if removed:
        gone = pc.is_in(table[key], value_set=pa.array(list(removed), table.schema.field(key).type))
        table = table.filter(pc.invert(gone))
    new = pa.Table.from_pylist(list(added), schema=table.schema)
    return pa.concat_tables([table, new]).combine_chunks()


def describe_granules(table: pa.Table) -> pd.DataFrame:
    """Granules as a user sees them.

    Parameters
    ----------
    table : pyarrow.Table
        As :data:`GRANULES`.

    Returns
    -------
    DataFrame
        One row each; ``dropped`` is a dict, times are datetime64[ms].
    """
    frame: pd.DataFrame = table.drop_columns(["dropped", "time_min", "time_max"]).to_pandas()
    frame["dropped"] = pd.Series(
        [json.loads(t) for t in table["dropped"].to_pylist()], dtype=object
    )
    for name in ("time_min", "time_max"):
        frame[name] = table[name].cast(pa.timestamp("ms")).to_numpy()
    first = ["id", "name", "product", "baseline", "version", "checksum", "rows", "record_count"]
    last = ["dropped", "notes", "platforms", "passes", "time_min", "time_max", "snapshot", "number"]
    return frame[first + last]
