"""How granules leave a point DB."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cryotile.errors import InvalidValue
from cryotile.pointdb.commit import commit_change
from cryotile.pointdb.description import Description
from cryotile.pointdb.log import Log
from cryotile.pointdb.rewrite import rewrite
from cryotile.pointdb.state import Change, State
from cryotile.pointdb.writers import Writer

__all__ = ["Removed", "remove_granules"]


@dataclass(frozen=True)
class Removed:
    """What left a point DB.

    Attributes
    ----------
    snapshot : int
        The commit that is without them.
    granules : tuple of str
        Names of the granules.
    rows : int
        Their points.
    """

    snapshot: int
    granules: tuple[str, ...]
    rows: int


def remove_granules(
    root: Path, description: Description, log: Log, state: State, granules: Sequence[str]
) -> tuple[State, Removed]:
    """Remove the points of granules, all of them in one commit.

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
    granules : sequence of str
        Ids or file names.

    Returns
    -------
    State
        The newest.
    Removed
        What left.

    Raises
    ------
    InvalidValue
        A granule is not there; nothing was done.
    DamagedFile
        A fragment that holds points of other granules, too, cannot be read.
    """

    def prepare(state: State, writer: Writer) -> Change | None:
        doomed = _found(root, state, granules)["number"].to_pylist()
        if not doomed:
            return None
        written = rewrite(description, log, state, writer, gone=doomed)
        return Change((), written.added, written.squares, doomed, written.removed, id=writer.id)

    def stands(change: Change, state: State) -> bool:
        # Another writer may have put more of a granule's points into fragments, or a newer delivery in its place.
        doomed = _found(root, state, granules)["number"].to_pylist()
        return set(doomed) == set(change.removed_granules)

    done = commit_change(root, log, state, prepare, stands)
    left = _found(root, done.before, granules)
    names, rows = tuple(left["name"].to_pylist()), sum(left["rows"].to_pylist())
    return done.after, Removed(done.after.number, names, rows)


def _found(root: Path, state: State, granules: Collection[str]) -> pa.Table:
    wanted = pa.array(list(granules), pa.string())
    known = state.granules
    hit = pc.or_(*(pc.is_in(known[key], value_set=wanted) for key in ("id", "name")))
    found = known.filter(hit)
    there = {*found["id"].to_pylist(), *found["name"].to_pylist()}
    if unknown := [granule for granule in granules if granule not in there]:
        raise InvalidValue(
            f"granule {unknown[0]} is not in point DB {root}; give ids or file names as PointDB.granules lists them"
        )
    return found
