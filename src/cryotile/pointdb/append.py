"""How granules get into a point DB: sorted out, written as fragments, committed; again if another writer was faster."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cryotile.errors import InvalidValue
from cryotile.pointdb.description import Description
from cryotile.pointdb.encoding import Stored, encode
from cryotile.pointdb.fragments import discard_fragments, write_fragments
from cryotile.pointdb.log import Change, Log, NumberTaken
from cryotile.pointdb.order import in_total_order
from cryotile.pointdb.squares import count_squares
from cryotile.pointdb.state import State
from cryotile.points import CATEGORIES, Granule

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
    refused : mapping of str to str
        Id → one line that says why and what to do.
    rows : int
        Points that went in.
    """

    snapshot: int
    added: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0


@dataclass(frozen=True, eq=False)
class _Verdict:
    new: list[Granule] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def append_granules(
    root: Path, description: Description, log: Log, state: State, granules: Sequence[Granule]
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
    granules : sequence of Granule
        Projected.

    Returns
    -------
    State
        The newest.
    Appended
        What became of them.
    """
    points, unfit = _encoded(granules, description)
    fit = [granule for granule in granules if granule.id in points]
    change: Change | None = None
    attempted = 0
    try:
        while True:
            state = log.follow(state, at_least=attempted)
            verdict = _sort_out(fit, state)
            if change is not None and not _stands(change, verdict, state):
                discard_fragments(root, change.fragments)
                change = None
            if not verdict.new:
                break
            if change is None:
                change = _written(
                    root, description, state, [(g, points[g.id]) for g in verdict.new]
                )
            attempted = state.number + 1
            try:
                state = log.commit(state, change)
                break
            except NumberTaken:
                continue
    except BaseException:
        # Interrupted after the rename, the fragments are the log's.
        if change is not None and not log.holds(attempted, change):
            discard_fragments(root, change.fragments)
        raise
    return state, Appended(
        snapshot=state.number,
        added=tuple(g.id for g in verdict.new),
        unchanged=tuple(verdict.unchanged),
        refused={**unfit, **verdict.refused},
        rows=sum(len(g.points) for g in verdict.new),
    )


def _encoded(
    granules: Sequence[Granule], description: Description
) -> tuple[dict[str, Stored], dict[str, str]]:
    """Points as they are stored by granule id, and the granules whose points cannot be."""
    points: dict[str, Stored] = {}
    unfit: dict[str, str] = {}
    names = [name for name, _ in description.further]
    for granule in granules:
        try:
            points[granule.id] = encode(granule.points, names)
        except InvalidValue as error:
            unfit[granule.id] = f"granule {granule.name}: {error}"
    return points, unfit


def _sort_out(granules: Sequence[Granule], state: State) -> _Verdict:
    names = ["id", "baseline", "version", "checksum"]
    known = {row.pop("id"): row for row in state.granules.select(names).to_pylist()}
    verdict = _Verdict()
    for granule in granules:
        if granule.id not in known:
            verdict.new.append(granule)
            known[granule.id] = {name: getattr(granule, name) for name in names[1:]}
            continue
        reason = _objection(granule, known[granule.id])
        if reason:
            verdict.refused[granule.id] = f"granule {granule.name}: {reason}"
        else:
            verdict.unchanged.append(granule.id)
    return verdict


def _objection(granule: Granule, known: Mapping[str, Any]) -> str | None:
    """Why a granule of a known id is not just the same again."""
    given, there = (
        _delivery(granule.baseline, granule.version),
        _delivery(known["baseline"], known["version"]),
    )
    which = f"baseline {granule.baseline} version {granule.version}"
    other = f"baseline {known['baseline']} version {known['version']}"
    if given < there:
        return f"its {which} is older than {other}, which the point DB has; leave it out"
    if given > there:
        return (
            f"its {which} is newer than {other}, which the point DB has and keeps;"
            " ingest the newer granules into a new point DB"
        )
    if granule.checksum != known["checksum"]:
        return (
            f"the point DB has {which} of it from a file with other content; leave one of the two out,"
            " or ingest this one into a new point DB"
        )
    return None


def _delivery(baseline: str, version: int) -> tuple[str, int]:
    """Sort key of deliveries; padded, so that release 10 comes after 9."""
    return baseline.rjust(8, "0"), version


def _stands(change: Change, verdict: _Verdict, state: State) -> bool:
    """Tell whether what was written before another writer's commit can still be committed after it."""
    ids = [row["id"] for row in change.granules]
    numbers = {row["number"] for row in change.granules}
    return ids == [g.id for g in verdict.new] and numbers.isdisjoint(_numbers_taken(state))


def _numbers_taken(state: State) -> set[int]:
    return set(state.granules["number"].to_pylist())


def _written(
    root: Path, description: Description, state: State, batch: Sequence[tuple[Granule, Stored]]
) -> Change:
    taken = _numbers_taken(state)
    rows, parts = [], []
    for granule, points in batch:
        number = _granule_number(granule, taken)
        taken.add(number)
        rows.append(_row(number, granule, points))
        parts.append(points | {"granule": np.full(len(granule.points), number, np.int32)})
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    stored = in_total_order(merged, description.chunk_size)
    fragments = write_fragments(root, stored, description.schema, description.chunk_size)
    return Change(rows, fragments, count_squares(stored))


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
        "time_min": int(times.min()) if len(times) else None,
        "time_max": int(times.max()) if len(times) else None,
    }
