"""How granules get into a point DB: sorted out, written as fragments, committed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.errors import InvalidValue
from cryotile.pointdb.commit import commit_change
from cryotile.pointdb.description import Description
from cryotile.pointdb.encoding import Stored, encode
from cryotile.pointdb.log import Log
from cryotile.pointdb.passes import shared_passes
from cryotile.pointdb.rewrite import rewrite
from cryotile.pointdb.sort_order import in_total_order
from cryotile.pointdb.state import Change, State
from cryotile.pointdb.writers import Writer
from cryotile.points import CATEGORIES, Batch, Granule, InPieces, empty_points

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
    root: Path, description: Description, log: Log, state: State, batch: Batch | InPieces
) -> tuple[State, Appended]:
    """Commit the points of several granules, or of one that comes in pieces, at once.

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
    batch : Batch or InPieces
        The granules, projected.

    Returns
    -------
    State
        The newest.
    Appended
        What became of them.

    Raises
    ------
    InvalidValue
        A point that cannot be stored, in a piece.  In a batch it only keeps its own granule out.
    """
    place, extra = _Place(root, description, log), [name for name, _ in description.extra]
    if isinstance(batch, InPieces):
        return _append(place, state, (batch.granule,), partial(_encoded_pieces, batch, extra))
    batch, stored, unfit = _encoded(batch, extra)
    after, appended = _append(place, state, batch.granules, lambda: [(batch, stored)])
    return after, replace(appended, refused={**unfit, **appended.refused})


def _encoded_pieces(granule: InPieces, extra: Sequence[str]) -> Iterator[tuple[Batch, Stored]]:
    for batch in granule.batches():
        yield batch, encode(batch.points, extra)


class _Place(NamedTuple):
    """A point DB."""

    root: Path
    description: Description
    log: Log


def _append(
    place: _Place,
    state: State,
    granules: Sequence[Granule],
    pieces: Callable[[], Iterable[tuple[Batch, Stored]]],
) -> tuple[State, Appended]:
    """Commit granules, of each of which every piece has some points, in their order; and as they are stored."""

    def prepare(state: State, writer: Writer) -> Change | None:
        verdict = _sort_out(granules, state)
        if not verdict.new:
            return None
        return _written(place, state, writer, verdict, granules, pieces())

    def stands(change: Change, state: State) -> bool:
        # What others committed meanwhile may have made some of these old, or the same again.
        verdict = _sort_out(granules, state)
        ids = [row["id"] for row in change.granules]
        return (
            ids == [granules[at].id for at in verdict.new]
            and change.removed_granules == verdict.replaced
        )

    done = commit_change(place.root, place.log, state, prepare, stands)
    verdict = _sort_out(granules, done.before)
    return done.after, Appended(
        snapshot=done.after.number,
        added=tuple(granules[at].id for at in verdict.new),
        unchanged=tuple(verdict.unchanged),
        replaced=tuple(verdict.names_replaced),
        refused=verdict.refused,
        rows=0 if done.change is None else sum(row["rows"] for row in done.change.granules),
        notes={}
        if done.change is None
        else shared_passes(done.change.granules, done.before.granules),
    )


def _encoded(batch: Batch, extra: Sequence[str]) -> tuple[Batch, Stored, dict[str, str]]:
    """Granules, their points as they are stored, and by id those whose points cannot be."""
    try:
        # All of them at once: hardly ever is there one that cannot be stored.
        return batch, encode(batch.points, extra), {}
    except InvalidValue:
        fit, unfit = list[Granule](), dict[str, str]()
        for granule in batch.split():
            try:
                encode(granule.points, extra)
                fit.append(granule)
            except InvalidValue as error:
                unfit[granule.id] = f"granule {granule.name}: {error}"
    batch = Batch.of(fit)
    return batch, encode(batch.points if fit else empty_points(projected=True), extra), unfit


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
    place: _Place,
    state: State,
    writer: Writer,
    verdict: _Verdict,
    granules: Sequence[Granule],
    pieces: Iterable[tuple[Batch, Stored]],
) -> Change:
    taken = set(state.granules["number"].to_numpy().tolist())
    numbers = np.full(len(granules), -1, np.int32)
    for at in verdict.new:
        numbers[at] = _granule_number(granules[at], taken)
        # Two of one batch may clash, too.
        taken.add(int(numbers[at]))
    tallies = {at: _Tally(granules[at]) for at in verdict.new}

    def new() -> Iterator[Stored]:
        for batch, stored in pieces:
            ends = np.cumsum(batch.sizes)
            for at, tally in tallies.items():
                own = slice(ends[at] - batch.sizes[at], ends[at])
                tally.count(batch.granules[at], {n: v[own] for n, v in stored.items()})
            points = stored | {"granule": numbers[batch.owners]}
            # Of granules that are there already, or are refused, no point is stored.
            if len(tallies) < len(numbers):
                points = {n: values[points["granule"] >= 0] for n, values in points.items()}
            yield in_total_order(points, place.description.chunk_size)

    written = rewrite(place.description, place.log, state, writer, new=new(), gone=verdict.replaced)
    return Change(
        [tally.row(int(numbers[at])) for at, tally in tallies.items()],
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
    # 31 bits, for the column of the fragments is INT32 and numbers are not negative.
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 1
    while number in taken:
        number = (number + 1) % 2**31
    return number


@dataclass(eq=False)
class _Tally:
    """What the log is to say of a granule whose points come in pieces."""

    granule: Granule
    rows: int = 0
    record_count: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)
    platforms: set[int] = field(default_factory=set)
    passes: set[int] = field(default_factory=set)
    times: list[int] = field(default_factory=list)

    def count(self, piece: Granule, points: Stored) -> None:
        """Add a piece: what was dropped of it, and the points as they are stored."""
        self.rows += len(points["time"])
        self.record_count += int(piece.record_count)
        self.dropped.update({reason: int(n) for reason, n in piece.dropped.items()})
        self.notes |= dict.fromkeys(piece.notes)
        self.platforms.update(np.unique(points["platform"]).tolist())
        self.passes.update(np.unique(points["pass_id"]).tolist())
        if len(points["time"]):
            times = [*self.times, int(points["time"].min()), int(points["time"].max())]
            self.times = [min(times), max(times)]

    def row(self, number: int) -> dict[str, Any]:
        """Row of :data:`cryotile.pointdb.state.GRANULES`."""
        granule = self.granule
        return {
            "number": number,
            "id": granule.id,
            "name": granule.name,
            "product": granule.product,
            "baseline": granule.baseline,
            "version": int(granule.version),
            "checksum": granule.checksum,
            "rows": self.rows,
            "record_count": self.record_count,
            "dropped": json.dumps(self.dropped),
            "notes": list(self.notes),
            "platforms": [CATEGORIES["platform"][code] for code in sorted(self.platforms)],
            "passes": sorted(self.passes),
            "time_min": self.times[0] if self.times else None,
            "time_max": self.times[1] if self.times else None,
        }
