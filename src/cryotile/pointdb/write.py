"""Append granules to a point DB: decide which are new, write their points as fragments, commit them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.errors import InvalidValue
from cryotile.pointdb.encoding import Stored, encode, text_of
from cryotile.pointdb.fragments import Writer, by_chunk, write_fragments
from cryotile.pointdb.rewrite import Rewritten, rewrite
from cryotile.pointdb.snapshot import Commit, Snapshot
from cryotile.pointdb.sort_order import in_total_order
from cryotile.pointdb.squares import SquareChanges, count_squares
from cryotile.pointdb.store import Store
from cryotile.points import (
    MOST_PLATFORMS,
    PLATFORM_CODES,
    Batch,
    Granule,
    InPieces,
    ReprMixin,
    empty_points,
)

__all__ = ["Appended", "append_granules"]


MIXED = (
    "the point DB has both simulated and real points, and a fit would take all of them for measured; remove the"
    " granules of one kind with 'cryotile remove'"
)
"""Note on granules that were added to such a point DB."""

_PASS_COLUMNS = ["name", "product", "passes", "time_min", "time_max"]


@dataclass(frozen=True, repr=False)
class Appended(ReprMixin):
    """Result of appending granules.

    Attributes
    ----------
    snapshot : int
        The commit that holds them all.
    added : tuple of str
        Ids of granules that were added.
    unchanged : tuple of str
        Ids of granules that the point DB already had.
    replaced : tuple of str
        File names of older deliveries that newer ones have replaced.
    refused : mapping of str to str
        Id → one line with the reason and the remedy.
    rows : int
        Number of points that were added.
    notes : mapping of str to sequence of str
        Information for the user → file names of the granules that it concerns: that the point DB also has their passes
        by another product, or that it has both simulated and real points.
    """

    snapshot: int
    added: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


class _Delivery(NamedTuple):
    """Columns of a granule in the log that decide about another delivery of it."""

    number: int
    name: str
    baseline: str
    version: int
    checksum: str


@dataclass(frozen=True, eq=False)
class _Verdict:
    """Decision on each granule; new ones by their positions, replaced ones by their numbers."""

    new: list[int] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    names_replaced: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def append_granules(
    store: Store, snapshot: Snapshot, granules: Granule | Sequence[Granule] | Batch | InPieces
) -> tuple[Snapshot, Appended]:
    """Commit the points of several granules, or of one that comes in pieces, at once.

    Parameters
    ----------
    store : Store
        The point DB.
    snapshot : Snapshot
        The newest that the caller knows.
    granules : Granule, sequence of Granule, Batch or InPieces
        The granules, projected.

    Returns
    -------
    Snapshot
        The newest.
    Appended
        Decision on each granule.

    Raises
    ------
    InvalidValue
        A granule is not projected; or a point in a piece cannot be stored (in a batch, only its granule is refused).
    """
    extra = [name for name, _ in store.description.extra]
    if isinstance(granules, InPieces):
        pieces = partial(_encoded_pieces, granules, extra)
        return _append(store, snapshot, (granules.granule,), pieces)
    if isinstance(granules, Granule):
        granules = [granules]
    if not isinstance(granules, Batch):
        if not (
            isinstance(granules, Sequence) and all(isinstance(one, Granule) for one in granules)
        ):
            raise InvalidValue(
                "only granules can be appended; read files with cryotile.read_granule, or ingest them"
            )
        for granule in granules:
            _check_projected(granule.name, granule.points)
        granules = Batch.of(granules)
    batch, stored, unfit = _encoded(granules, extra)
    after, appended = _append(store, snapshot, batch.granules, lambda: [(batch, stored)])
    return after, replace(appended, refused={**unfit, **appended.refused})


def _check_projected(name: str, points: pd.DataFrame) -> None:
    if "longitude" in points and not {"x", "y"} <= set(points.columns):
        raise InvalidValue(
            f"granule {name} has longitude and latitude in place of x, y, and a point DB stores projected points; use"
            " cryotile.geo.projection.project_granule(granule, db.crs) first"
        )


def _encoded_pieces(granule: InPieces, extra: Sequence[str]) -> Iterator[tuple[Batch, Stored]]:
    for batch in granule.batches():
        _check_projected(granule.granule.name, batch.points)
        yield batch, encode(batch.points, extra)


def _encoded(batch: Batch, extra: Sequence[str]) -> tuple[Batch, Stored, dict[str, str]]:
    """Return the granules that can be stored, their stored points, and id → reason of those that cannot."""
    if batch.granules:
        _check_projected(batch.granules[0].name, batch.points)
    try:
        # All granules at once: there is rarely one that cannot be stored.
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


def _append(
    store: Store,
    snapshot: Snapshot,
    granules: Sequence[Granule],
    pieces: Callable[[], Iterable[tuple[Batch, Stored]]],
) -> tuple[Snapshot, Appended]:
    """Commit granules, whose points come in pieces; every piece has all granules, in the same order."""
    verdict = _Verdict()

    def prepare(snapshot: Snapshot, writer: Writer) -> Commit | None:
        nonlocal verdict
        verdict = _sort_out(granules, snapshot)
        if not verdict.new:
            return None
        return _write(store, snapshot, writer, verdict, granules, pieces())

    def stands(commit: Commit, snapshot: Snapshot) -> bool:
        # Another writer may have committed one of these granules, or another delivery of it.
        nonlocal verdict
        verdict = _sort_out(granules, snapshot)
        ids = [row["id"] for row in commit.granules]
        return (
            ids == [granules[at].id for at in verdict.new]
            and commit.removed_granules == verdict.replaced
        )

    done = store.commit(snapshot, prepare, stands)
    rows = () if done.commit is None else done.commit.granules
    return done.after, Appended(
        snapshot=done.after.number,
        added=tuple(granules[at].id for at in verdict.new),
        unchanged=tuple(verdict.unchanged),
        replaced=tuple(verdict.names_replaced),
        refused=verdict.refused,
        rows=sum(row["rows"] for row in rows),
        notes={**_shared_passes(rows, done.before.granules), **_mixed(rows, done.after)}
        if rows
        else {},
    )


def _sort_out(granules: Sequence[Granule], snapshot: Snapshot) -> _Verdict:
    """Decide which granules are new, and what becomes of the others."""
    known = _known({granule.id for granule in granules}, snapshot)
    verdict, new = _Verdict(), dict[str, int]()
    # The newest delivery first, at whatever position in the batch.
    order = sorted(range(len(granules)), key=lambda at: _order_of(granules[at]), reverse=True)
    for at in order:
        granule, there = granules[at], known.get(granules[at].id)
        rival = granules[new[granule.id]] if granule.id in new else there
        if rival is None or (rival is there and _order_of(granule) > _order_of(rival)):
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


def _known(ids: Collection[str], snapshot: Snapshot) -> dict[str, _Delivery]:
    """Return the granules of the point DB that have one of the ids."""
    table = snapshot.granules
    there = table.filter(pc.is_in(table["id"], value_set=pa.array(list(ids), pa.string())))
    columns = ["id", *_Delivery._fields]
    return {row.pop("id"): _Delivery(**row) for row in there.select(columns).to_pylist()}


def _order_of(granule: Granule | _Delivery) -> tuple[str, int]:
    """Return the sort key of a delivery; padded, so that release 10 comes after 9."""
    return granule.baseline.rjust(8, "0"), granule.version


def _objection(granule: Granule, there: Granule | _Delivery) -> str | None:
    """Return why a granule that is not newer than the known delivery is refused; None if it is the same file."""
    which = f"baseline {granule.baseline} version {granule.version}"
    if _order_of(granule) < _order_of(there):
        other = f"baseline {there.baseline} version {there.version}"
        return f"its {which} is older than {other}, which the point DB has; leave it out"
    if granule.checksum != there.checksum:
        return (
            f"the point DB has {which} of it from a file with other content, {there.name}; leave this one out, or"
            " remove that one with 'cryotile remove' and ingest this one again"
        )
    return None


def _write(
    store: Store,
    snapshot: Snapshot,
    writer: Writer,
    verdict: _Verdict,
    granules: Sequence[Granule],
    pieces: Iterable[tuple[Batch, Stored]],
) -> Commit:
    """Write the fragments of new granules, and return their commit."""
    taken = set(snapshot.granules["number"].to_numpy().tolist())
    numbers = np.full(len(granules), -1, np.int32)
    for at in verdict.new:
        numbers[at] = _granule_number(granules[at], taken)
        # Two granules of one batch may clash, too.
        taken.add(int(numbers[at]))
    tallies = {at: _Tally(granules[at]) for at in verdict.new}

    def new() -> Iterator[Stored]:
        for batch, stored in pieces:
            ends = np.cumsum(batch.sizes)
            for at, tally in tallies.items():
                own = slice(ends[at] - batch.sizes[at], ends[at])
                tally.count(batch.granules[at], {n: v[own] for n, v in stored.items()})
            _check_platforms(tallies.values(), snapshot)
            points = stored | {"granule": numbers[batch.owners]}
            # Points of granules that are unchanged or refused are not stored.
            if len(tallies) < len(numbers):
                points = {n: values[points["granule"] >= 0] for n, values in points.items()}
            yield in_total_order(points, store.description.chunk_size)

    if verdict.replaced:
        written = rewrite(store, snapshot, writer, new=new(), gone=verdict.replaced)
    else:
        written = _written(store, writer, new())
    return Commit(
        [tally.row(int(numbers[at])) for at, tally in tallies.items()],
        written.added,
        written.squares,
        verdict.replaced,
        written.removed,
        id=writer.id,
    )


def _check_platforms(tallies: Iterable[_Tally], snapshot: Snapshot) -> None:
    there = pc.unique(pc.list_flatten(snapshot.granules["platforms"])).to_pylist()
    words = set(there).union(*(tally.words for tally in tallies))
    if len(words | set(PLATFORM_CODES)) > MOST_PLATFORMS:
        raise InvalidValue(
            f"a point DB holds {MOST_PLATFORMS} platforms at most, and {sorted(words - set(there))[0]!r} would be one"
            " more; give the flights of a fleet one word, e.g. 'airborne'"
        )


def _written(store: Store, writer: Writer, pieces: Iterable[Stored]) -> Rewritten:
    """Write points that replace none."""
    changes = SquareChanges()

    def chunks() -> Iterator[tuple[int, Stored]]:
        for points in pieces:
            changes.add(count_squares(points))
            yield from by_chunk(points, store.description.chunk_size)

    added = write_fragments(writer, chunks(), store.description.schema)
    return Rewritten(added, [], changes.total())


def _granule_number(granule: Granule, taken: set[int]) -> int:
    """Return the number of a granule in fragments: a hash, so that writers that commit at the same time rarely clash.

    With consecutive numbers, a writer that loses a race would have to write its fragments again.
    """
    name = f"{granule.id} {granule.baseline} {granule.version}"
    # 31 bits, because the column of the fragments is INT32 and numbers are not negative.
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 1
    while number in taken:
        number = (number + 1) % 2**31
    return number


@dataclass(eq=False)
class _Tally:
    """Running row in the log of a granule whose points come in pieces."""

    granule: Granule
    rows: int = 0
    record_count: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)
    platforms: set[int] = field(default_factory=set)
    passes: set[int] = field(default_factory=set)
    times: list[int] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        """The platforms."""
        return [text_of("platform", code) for code in sorted(self.platforms)]

    def count(self, piece: Granule, points: Stored) -> None:
        """Add a piece: its counts of dropped points, and its stored points."""
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
        """Return the row of :data:`cryotile.pointdb.snapshot.GRANULES`."""
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
            "platforms": self.words,
            "passes": sorted(self.passes),
            "time_min": self.times[0] if self.times else None,
            "time_max": self.times[1] if self.times else None,
            "simulated": bool(granule.simulated),
        }


def _shared_passes(new: Sequence[Mapping[str, Any]], granules: pa.Table) -> dict[str, list[str]]:
    """Find passes that the point DB has as points of two products, which a fit would take for independent.

    Parameters
    ----------
    new : sequence of mapping
        New granules, as rows of :data:`cryotile.pointdb.snapshot.GRANULES`.
    granules : pyarrow.Table
        Earlier granules.

    Returns
    -------
    dict of str to list of str
        One line for each pair of products → file names of the new granules that it concerns.
    """
    ours = _exploded(pd.DataFrame([{name: row[name] for name in _PASS_COLUMNS} for row in new]))
    products = pa.array(ours["product"].unique(), pa.string())
    if len(products) < 2:
        # The usual case: all new granules are of one product, so only granules of other products matter.
        granules = granules.filter(pc.invert(pc.is_in(granules["product"], value_set=products)))
    theirs = _exploded(granules.select(_PASS_COLUMNS).to_pandas())
    both = ours.merge(pd.concat([ours, theirs]), on="passes")
    # A pass may be split over granules, e.g. of several modes; only points of the same time are doubled.
    same = (both["time_min_x"] <= both["time_max_y"]) & (both["time_min_y"] <= both["time_max_x"])
    both = both[same & (both["product_x"] != both["product_y"])]
    notes: dict[str, list[str]] = {}
    pairs = both[["product_x", "product_y", "name_x"]].drop_duplicates()
    for *products, name in pairs.itertuples(index=False, name=None):
        one, other = sorted(products)
        note = (
            f"the same passes are in {one} and {other}: a fit would take their points for independent; keep one of the"
            " two products, and remove the granules of the other with 'cryotile remove'"
        )
        notes.setdefault(note, []).append(name)
    return {note: sorted(set(names)) for note, names in notes.items()}


def _mixed(new: Sequence[Mapping[str, Any]], after: Snapshot) -> dict[str, list[str]]:
    """Return a note on the new granules if the point DB now has both simulated and real points."""
    names = [row["name"] for row in new if row["rows"]]
    return {MIXED: names} if names and 0 < after.simulated < 1 else {}


def _exploded(granules: pd.DataFrame) -> pd.DataFrame:
    """Return one row per granule and pass; granules without points have no row."""
    return granules.explode("passes").dropna(subset="passes")
