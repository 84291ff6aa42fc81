"""How a change becomes a commit: written, committed, and again if another writer was faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cryotile.pointdb.commits import NumberTaken
from cryotile.pointdb.fragments import FragmentGone, discard_fragments
from cryotile.pointdb.log import Log
from cryotile.pointdb.snapshots import newer_state
from cryotile.pointdb.state import Change, State
from cryotile.pointdb.writers import Writer

__all__ = ["Committed", "commit_change"]


@dataclass(frozen=True, eq=False)
class Committed:
    """What became of a change.

    Attributes
    ----------
    before, after : State
        Of the point DB, around the commit; the same where there was nothing to do.
    change : Change or None
        What was committed.
    """

    before: State
    after: State
    change: Change | None


def commit_change(
    root: Path,
    log: Log,
    state: State,
    prepare: Callable[[State, Writer], Change | None],
    stands: Callable[[Change, State], bool] | None = None,
) -> Committed:
    """Commit a change of a point DB, however many others write to it.

    Parameters
    ----------
    root : Path
        The point DB.
    log : Log
        Of it.
    state : State
        What the caller knows of it.
    prepare : callable
        Writes the fragments of the change that a state calls for; None: there is nothing to do.
    stands : callable
        Tells whether a change that was prepared before another writer's commit is still the one to make after it;
        that what it removes is still there is looked after.  None: it is.

    Returns
    -------
    Committed
        With the newest state.
    """
    attempted = 0
    while True:
        state = log.follow(state, at_least=attempted)
        with Writer(root) as writer:
            try:
                change = prepare(state, writer)
            except FragmentGone as gone:
                state = newer_state(root, partial(log.follow, state), state, gone)
                continue
            if change is None:
                return Committed(state, state, None)
            try:
                while _is_possible(change, state) and (stands is None or stands(change, state)):
                    attempted = state.number + 1
                    try:
                        return Committed(state, log.commit(state, change), change)
                    except NumberTaken:
                        state = log.follow(state, at_least=attempted)
            except BaseException:
                # Interrupted after the rename, the fragments are the log's.
                if not log.holds(attempted, change):
                    discard_fragments(root, change.fragments)
                raise
            discard_fragments(root, change.fragments)


def _is_possible(change: Change, state: State) -> bool:
    """Tell whether others have not fenced a change, nor removed what it removes, nor taken its numbers."""
    granules, fragments = state.granules["number"], state.fragments["path"]
    added = [row["number"] for row in change.granules]
    return (
        change.id not in state.fenced
        and _count(granules, added) == 0
        and _count(granules, change.removed_granules) == len(change.removed_granules)
        and _count(fragments, change.removed_fragments) == len(change.removed_fragments)
    )


def _count(column: pa.ChunkedArray, values: Sequence[int] | Sequence[str]) -> int:
    """Return how many of some values a column of distinct values has."""
    wanted = pa.array(values, column.type)
    return int(pc.sum(pc.is_in(column, value_set=wanted)).as_py() or 0) if len(wanted) else 0
