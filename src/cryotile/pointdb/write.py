"""Append granules to a point DB: decide which are new, write their points as fragments, commit them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.errors import InvalidValue
from cryotile.pointdb.delivery import SHIFT, Box, Verdict, around, columns_of, hull, sort_out
from cryotile.pointdb.encoding import Stored, encode, text_of
from cryotile.pointdb.fragments import Writer, by_chunk, write_fragments
from cryotile.pointdb.overlap import ALREADY_THERE, OtherContent, Overlaps, may_overlap
from cryotile.pointdb.rewrite import Rewritten, rewrite
from cryotile.pointdb.snapshot import EXTENT, Commit, Snapshot
from cryotile.pointdb.sort_order import in_total_order
from cryotile.pointdb.squares import SquareChanges, count_squares
from cryotile.points import (
    MOST_PLATFORMS,
    PLATFORM_CODES,
    Batch,
    Granule,
    InPieces,
    ReprMixin,
    empty_points,
    platform_code,
)

if TYPE_CHECKING:
    from cryotile.pointdb.store import Store

__all__ = ["Appended", "append_granules"]


MIXED = (
    "the point DB has both simulated and real points, and a fit would take all of them for measured; remove the"
    " granules of one kind with 'cryotile remove'"
)
"""Note on granules that were added to such a point DB."""

_NONE: Stored = {"time": np.empty(0, np.int64)}

_KIND = ["product", "baseline", "version"]
_PASS_COLUMNS = ["name", *_KIND, "passes", *EXTENT]


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
        Id → one line with the reason and the remedy; of further granules with the same id: id and file name.
    older : tuple of str
        File names of those refused that are older than what the point DB has.
    checksums : tuple of str
        Of the files that were added, then of those that the point DB already had.
    rows : int
        Number of points that were added.
    notes : mapping of str to sequence of str
        Information for the user → file names of the granules that it concerns: that the point DB also has their passes
        by another product or another version, or that it has both simulated and real points.
    """

    snapshot: int
    added: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    older: tuple[str, ...] = ()
    checksums: tuple[str, ...] = ()
    rows: int = 0
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


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
        box = hull(_NONE, granules.granule.extent)
        return _append(store, snapshot, (granules.granule,), [box], pieces)
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
    ends = np.cumsum(batch.sizes).tolist()
    boxes = [
        hull({n: v[end - size : end] for n, v in stored.items()}, granule.extent)
        for granule, size, end in zip(batch.granules, batch.sizes.tolist(), ends, strict=True)
    ]
    after, appended = _append(store, snapshot, batch.granules, boxes, lambda: [(batch, stored)])
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
    boxes: Sequence[Box],
    pieces: Callable[[], Iterable[tuple[Batch, Stored]]],
) -> tuple[Snapshot, Appended]:
    """Commit granules, whose points come in pieces; every piece has all granules, in the same order."""
    verdict, compared = Verdict(), snapshot
    blocked: dict[int, str] = {}

    def prepare(snapshot: Snapshot, writer: Writer) -> Commit | None:
        nonlocal verdict, compared
        compared = snapshot
        blocked.clear()
        while True:
            verdict = sort_out(granules, boxes, snapshot, blocked)
            if not verdict.new:
                return None
            try:
                return _write(store, snapshot, writer, verdict, granules, boxes, pieces())
            except OtherContent as found:
                blocked.update(found.reasons)

    def stands(commit: Commit, snapshot: Snapshot) -> bool:
        # Another writer may have committed one of these granules, another delivery of it, or records of it.
        nonlocal verdict
        before, verdict = verdict, sort_out(granules, boxes, snapshot, blocked)
        return (
            verdict.new == before.new
            and verdict.replaced == before.replaced
            and not _is_touched(commit.granules, compared.granules, snapshot.granules)
        )

    done = store.commit(snapshot, prepare, stands)
    rows = () if done.commit is None else done.commit.granules
    return done.after, Appended(
        snapshot=done.after.number,
        added=tuple(granules[at].id for at in verdict.new),
        unchanged=tuple(granules[at].id for at in verdict.unchanged),
        replaced=tuple(verdict.names_replaced),
        refused=_by_id({at: (granules[at], line) for at, line in verdict.refused.items()}),
        older=tuple(granules[at].name for at in verdict.older),
        checksums=tuple(granules[at].checksum for at in (*verdict.new, *verdict.unchanged)),
        rows=sum(row["rows"] for row in rows),
        notes={**_shared_passes(rows, done.after.granules), **_mixed(rows, done.after)}
        if rows
        else {},
    )


def _by_id(refused: Mapping[int, tuple[Granule, str]]) -> dict[str, str]:
    """Return id → line of granules; further ones of the same id have their file name in the key, too."""
    lines: dict[str, str] = {}
    for _, (granule, line) in sorted(refused.items()):
        lines[granule.id if granule.id not in lines else f"{granule.id} {granule.name}"] = line
    return lines


def _is_touched(rows: Sequence[Mapping[str, Any]], before: pa.Table, now: pa.Table) -> bool:
    """Tell whether other writers have changed, since granules were compared with ``before``, what concerns them."""
    numbers = set(now["number"].to_pylist())
    if any(not numbers.issuperset(row["overlaps"]) for row in rows):
        return True
    later = now.filter(pc.invert(pc.is_in(now["number"], value_set=before["number"])))
    return bool(len(later)) and may_overlap(rows, later)


def _write(
    store: Store,
    snapshot: Snapshot,
    writer: Writer,
    verdict: Verdict,
    granules: Sequence[Granule],
    boxes: Sequence[Box],
    pieces: Iterable[tuple[Batch, Stored]],
) -> Commit:
    """Write the fragments of new granules, and return their commit."""
    taken = set(snapshot.granules["number"].to_numpy().tolist())
    numbers = np.full(len(granules), -1, np.int32)
    for at in verdict.new:
        numbers[at] = _granule_number(granules[at], taken)
        # Two granules of one batch may clash, too.
        taken.add(int(numbers[at]))
    tallies = {at: _Tally(granules[at], boxes[at]) for at in verdict.new}
    overlaps = Overlaps(store, snapshot, verdict.replaced)
    there: list[str] = pc.unique(pc.list_flatten(snapshot.granules["platforms"])).to_pylist()

    def new() -> Iterator[Stored]:
        for batch, stored in pieces:
            for word in there:
                platform_code(word)  # refused if a word of the new points has its number
            doubled = overlaps.of(batch, stored, numbers)
            ends = np.cumsum(batch.sizes)
            for at, tally in tallies.items():
                own = slice(ends[at] - batch.sizes[at], ends[at])
                points = {n: v[own] for n, v in stored.items()}
                tally.count(batch.granules[at], points, doubled[own])
            _check_platforms(tallies.values(), there)
            owners = numbers[batch.owners]
            owners[doubled] = -1
            points = stored | {"granule": owners}
            # Points of granules that are unchanged or refused are not stored, and no record twice.
            if (owners < 0).any():
                points = {n: values[owners >= 0] for n, values in points.items()}
            yield in_total_order(points, store.description.chunk_size)

    if verdict.replaced:
        written = rewrite(store, snapshot, writer, new=new(), gone=verdict.replaced)
    else:
        written = _written(store, writer, new())
    return Commit(
        [
            tally.row(int(numbers[at]), sorted(overlaps.found.get(at, ())))
            for at, tally in tallies.items()
        ],
        written.added,
        written.squares,
        verdict.replaced,
        written.removed,
        id=writer.id,
    )


def _check_platforms(tallies: Iterable[_Tally], there: Sequence[str]) -> None:
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
    name = f"{granule.id} {granule.baseline} {granule.version} {granule.checksum}"
    # 31 bits, because the column of the fragments is INT32 and numbers are not negative.
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 1
    while number in taken:
        number = (number + 1) % 2**31
    return number


@dataclass(eq=False)
class _Tally:
    """Running row in the log of a granule whose points come in pieces."""

    granule: Granule
    box: Box
    rows: int = 0
    record_count: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)
    platforms: set[int] = field(default_factory=set)
    passes: set[int] = field(default_factory=set)

    @property
    def words(self) -> list[str]:
        """The platforms."""
        return [text_of("platform", code) for code in sorted(self.platforms)]

    def count(self, piece: Granule, points: Stored, doubled: npt.NDArray[np.bool_]) -> None:
        """Add a piece: its counts of dropped points, its stored points, and which of them are in the point DB."""
        doubles = int(np.count_nonzero(doubled))
        self.rows += len(doubled) - doubles
        self.dropped.update({ALREADY_THERE: doubles} if doubles else {})
        self.record_count += int(piece.record_count)
        self.dropped.update({reason: int(n) for reason, n in piece.dropped.items()})
        self.notes |= dict.fromkeys(piece.notes)
        self.platforms.update(np.unique(points["platform"]).tolist())
        self.passes.update(np.unique(points["pass_id"]).tolist())
        self.box = around(np.stack([self.box, hull(points, piece.extent)]))

    def row(self, number: int, overlaps: Sequence[int]) -> dict[str, Any]:
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
            **columns_of(self.box),
            "overlaps": list(overlaps),
            "simulated": bool(granule.simulated),
        }


def _shared_passes(new: Sequence[Mapping[str, Any]], granules: pa.Table) -> dict[str, list[str]]:
    """Find passes that the point DB has from two products or two versions, which a fit would take for independent.

    Parameters
    ----------
    new : sequence of mapping
        New granules, as rows of :data:`cryotile.pointdb.snapshot.GRANULES`.
    granules : pyarrow.Table
        Earlier granules.

    Returns
    -------
    dict of str to list of str
        One line for each pair of products or versions → file names of the new granules that it concerns.
    """
    ours = _exploded(pd.DataFrame([{name: row[name] for name in _PASS_COLUMNS} for row in new]))
    if len(ours[_KIND].drop_duplicates()) < 2:
        # The usual case: all new granules are of one version of one product, so only others matter.
        alike = reduce(pc.and_, (pc.equal(granules[name], new[0][name]) for name in _KIND))
        granules = granules.filter(pc.invert(alike))
    theirs = _exploded(granules.select(_PASS_COLUMNS).to_pandas())
    both = ours.merge(pd.concat([ours, theirs]), on="passes")
    # A pass may be split over granules, e.g. of several modes; only points of the same time are doubled.
    both = both[
        (both["time_min_x"] <= both["time_max_y"]) & (both["time_min_y"] <= both["time_max_x"])
    ]
    other_product = both["product_x"] != both["product_y"]
    other_version = (both["baseline_x"] != both["baseline_y"]) | (
        both["version_x"] != both["version_y"]
    )
    both = both[other_product | (other_version & _is_deep(both))]
    notes: dict[str, list[str]] = {}
    sides = [[f"{name}_{side}" for name in _KIND] for side in "xy"]
    kinds = both[[*sides[0], *sides[1], "name_x"]].drop_duplicates()
    for *pair, name in kinds.itertuples(index=False, name=None):
        notes.setdefault(_doubled(*sorted([tuple(pair[:3]), tuple(pair[3:])])), []).append(name)
    return {note: sorted(set(names)) for note, names in notes.items()}


def _is_deep(both: pd.DataFrame) -> pd.Series[bool]:
    """Tell whether extents have more in common than files that are cut along one line."""
    deep = pd.Series(data=True, index=both.index)
    for axis, shift in zip(("x_cm", "y_cm", "time"), SHIFT, strict=True):
        ends = {end: both[[f"{axis}_{end}_{side}" for side in "xy"]] for end in ("min", "max")}
        common = ends["max"].min(axis=1) - ends["min"].max(axis=1)
        shorter = (ends["max"].to_numpy() - ends["min"].to_numpy()).min(axis=1, initial=2 * shift)
        deep &= common >= shorter / 2
    return deep


def _doubled(one: tuple[str, str, int], other: tuple[str, str, int]) -> str:
    """Return the note that two products, or two versions of a product, have the same passes."""
    if one[0] != other[0]:
        return (
            f"the same passes are in {one[0]} and {other[0]}: a fit would take their points for independent; keep one"
            " of the two products, and remove the granules of the other with 'cryotile remove'"
        )
    first, second = (
        f"baseline {baseline} version {version}" for _, baseline, version in (one, other)
    )
    return (
        f"the same passes are in {first} and {second} of {one[0]}, in files with different starts: a fit would take"
        " their points for independent; remove the granules of the older one with 'cryotile remove'"
    )


def _mixed(new: Sequence[Mapping[str, Any]], after: Snapshot) -> dict[str, list[str]]:
    """Return a note on the new granules if the point DB now has both simulated and real points."""
    names = [row["name"] for row in new if row["rows"]]
    return {MIXED: names} if names and 0 < after.simulated < 1 else {}


def _exploded(granules: pd.DataFrame) -> pd.DataFrame:
    """Return one row per granule and pass; granules without points have no row."""
    return granules.explode("passes").dropna(subset="passes")
