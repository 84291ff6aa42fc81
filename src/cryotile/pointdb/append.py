"""How granules get into a point DB: sorted out, written as fragments, committed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.batch import Batch
from cryotile.errors import InvalidValue
from cryotile.pointdb.commit import commit_change
from cryotile.pointdb.description import Description
from cryotile.pointdb.encoding import Stored, encode
from cryotile.pointdb.log import Log
from cryotile.pointdb.order import in_total_order
from cryotile.pointdb.passes import shared_passes
from cryotile.pointdb.rewrite import rewrite
from cryotile.pointdb.state import Change, State
from cryotile.pointdb.writers import Writer
from cryotile.points import CATEGORIES, Granule, empty_points

__all__ = ["Appended", "append_granules"]


@dataclass(frozen=True)
class Appended:
    """What became of the granules of one call.

    Attributes
    ----------
    snapshot : int
        The commit that has them all.
    added : tuple of str
        Ids of granules that went in.
    unchanged : tuple of str
        Ids of granules that were there already.
    replaced : tuple of str
        File names of older deliveries that made way for newer ones.
    refused : mapping of str to str
        Id → one line that says why and what to do.
    rows : int
        Points that went in.
    notes : mapping of str to sequence of str
        What a user should know → file names of the granules it is true of: that their passes are there by another
        product, too.
    """

    snapshot: int
    added: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


class _There(NamedTuple):
    """What the log says of a granule, as far as another delivery of it is concerned."""

    number: int
    name: str
    baseline: str
    version: int
    checksum: str


@dataclass(frozen=True, eq=False)
class _Verdict:
    """What is to become of granules; those that are new by their positions."""

    new: list[int] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    names_replaced: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def append_granules(
    root: Path, description: Description, log: Log, state: State, batch: Batch
) -> tuple[State, Appended]:
    """Commit the points of several granules at once.

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
    batch : Batch
        The granules, projected.

    Returns
    -------
    State
        The newest.
    Appended
        What became of them.
    """
    batch, stored, unfit = _encoded(batch, [name for name, _ in description.further])
    granules = batch.granules

    def prepare(state: State, writer: Writer) -> Change | None:
        verdict = _sort_out(granules, state)
        if not verdict.new:
            return None
        return _written(description, log, state, writer, verdict, batch, stored)

    def stands(change: Change, state: State) -> bool:
        verdict = _sort_out(granules, state)
        ids = [row["id"] for row in change.granules]
        return (
            ids == [granules[at].id for at in verdict.new]
            and change.removed_granules == verdict.replaced
        )

    done = commit_change(root, log, state, prepare, stands)
    verdict = _sort_out(granules, done.before)
    return done.after, Appended(
        snapshot=done.after.number,
        added=tuple(granules[at].id for at in verdict.new),
        unchanged=tuple(verdict.unchanged),
        replaced=tuple(verdict.names_replaced),
        refused={**unfit, **verdict.refused},
        rows=int(batch.sizes[verdict.new].sum()),
        notes={}
        if done.change is None
        else shared_passes(done.change.granules, done.before.granules),
    )


def _encoded(batch: Batch, further: Sequence[str]) -> tuple[Batch, Stored, dict[str, str]]:
    """Granules, their points as they are stored, and by id those whose points cannot be."""
    try:
        return batch, encode(batch.points, further), {}
    except InvalidValue:
        fit, unfit = list[Granule](), dict[str, str]()
        for granule in batch.split():
            try:
                encode(granule.points, further)
                fit.append(granule)
            except InvalidValue as error:
                unfit[granule.id] = f"granule {granule.name}: {error}"
    batch = Batch.of(fit)
    return batch, encode(batch.points if fit else empty_points(projected=True), further), unfit


def _sort_out(granules: Sequence[Granule], state: State) -> _Verdict:
    known = _known({granule.id for granule in granules}, state)
    verdict, new = _Verdict(), dict[str, int]()
    # The newest delivery first, wherever in the batch it is.
    order = sorted(range(len(granules)), key=lambda at: _delivery(granules[at]), reverse=True)
    for at in order:
        granule, there = granules[at], known.get(granules[at].id)
        rival = granules[new[granule.id]] if granule.id in new else there
        if rival is None or (rival is there and _delivery(granule) > _delivery(rival)):
            new[granule.id] = at
            if there is not None:
                verdict.replaced.append(there.number)
                verdict.names_replaced.append(there.name)
        elif reason := _objection(granule, rival):
            verdict.refused[granule.id] = f"granule {granule.name}: {reason}"
        else:
            verdict.unchanged.append(granule.id)
    verdict.new.extend(sorted(new.values()))
    return verdict


def _known(ids: Collection[str], state: State) -> dict[str, _There]:
    table = state.granules
    there = table.filter(pc.is_in(table["id"], value_set=pa.array(list(ids), pa.string())))
    columns = ["id", *_There._fields]
    return {row.pop("id"): _There(**row) for row in there.select(columns).to_pylist()}


def _delivery(granule: Granule | _There) -> tuple[str, int]:
    """Sort key of deliveries; padded, so that release 10 comes after 9."""
    return granule.baseline.rjust(8, "0"), granule.version


def _objection(granule: Granule, there: Granule | _There) -> str | None:
    """Why a granule that is not newer than the one of its id is not just the same again."""
    which = f"baseline {granule.baseline} version {granule.version}"
    if _delivery(granule) < _delivery(there):
        other = f"baseline {there.baseline} version {there.version}"
        return f"its {which} is older than {other}, which the point DB has; leave it out"
    if granule.checksum != there.checksum:
        return (
            f"the point DB has {which} of it from a file with other content, {there.name}; leave this one out, or give"
            f" 'cryotile remove' that one and then this one again"
        )
    return None


def _written(
    description: Description,
    log: Log,
    state: State,
    writer: Writer,
    verdict: _Verdict,
    batch: Batch,
    stored: Stored,
) -> Change:
    taken = set(state.granules["number"].to_numpy().tolist())
    numbers = np.full(len(batch.granules), -1, np.int32)
    ends = np.cumsum(batch.sizes)
    rows = []
    for at in verdict.new:
        granule = batch.granules[at]
        numbers[at] = _granule_number(granule, taken)
        taken.add(int(numbers[at]))
        own = slice(ends[at] - batch.sizes[at], ends[at])
        rows.append(_row(int(numbers[at]), granule, {n: v[own] for n, v in stored.items()}))
    new = stored | {"granule": numbers[batch.owners]}
    if len(rows) < len(numbers):
        new = {name: values[new["granule"] >= 0] for name, values in new.items()}
    new = in_total_order(new, description.chunk_size)
    written = rewrite(description, log, state, writer, new=new, gone=verdict.replaced)
    return Change(
        rows,
        written.added,
        written.squares,
        verdict.replaced,
        written.removed,
        id=writer.id,
    )


def _granule_number(granule: Granule, taken: set[int]) -> int:
    """Number of a granule in fragments: a hash, so that writers who do not know of each other rarely clash.

    A writer that loses a commit need not write its fragments again, as it would if numbers were counted.
    """
    name = f"{granule.id} {granule.baseline} {granule.version}"
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 1
    while number in taken:
        number = (number + 1) % 2**31
    return number


def _row(number: int, granule: Granule, points: Stored) -> dict[str, Any]:
    times = points["time"]
    platforms = np.unique(points["platform"])
    return {
        "number": number,
        "id": granule.id,
        "name": granule.name,
        "product": granule.product,
        "baseline": granule.baseline,
        "version": int(granule.version),
        "checksum": granule.checksum,
        "rows": len(times),
        "record_count": int(granule.record_count),
        "dropped": json.dumps({reason: int(n) for reason, n in granule.dropped.items()}),
        "notes": list(granule.notes),
        "platforms": [CATEGORIES["platform"][code] for code in platforms],
        "passes": np.unique(points["pass_id"]).tolist(),
        "time_min": int(times.min()) if len(times) else None,
        "time_max": int(times.max()) if len(times) else None,
    }
