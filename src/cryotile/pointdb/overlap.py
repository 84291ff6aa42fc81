"""Find the records of new granules that other granules of their product have put into the point DB before.

Files of one product may overlap: cuts with a margin, or a granule and a part of it.  A record, given by platform, time,
x, y and elevation as stored, is then stored once, and the later granule is stored without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.pointdb.delivery import Box, around, boxes_of, hull, meet
from cryotile.pointdb.encoding import Stored
from cryotile.pointdb.fragments import load_fragment
from cryotile.pointdb.snapshot import Snapshot, rows_of
from cryotile.pointdb.sort_order import RANK_BITS, places
from cryotile.pointdb.squares import point_hashes
from cryotile.points import Batch, pass_keys

if TYPE_CHECKING:
    from cryotile.pointdb.store import Store

__all__ = ["ALREADY_THERE", "OtherContent", "Overlaps", "may_overlap"]

ALREADY_THERE = "already_there"
"""Reason for records that another granule of the product has put into the point DB before."""

_PLACE = ("platform", "time", "x_cm", "y_cm")
_IDENTITY = ["number", "name", "product", "baseline", "version"]

Int64 = npt.NDArray[np.int64]


class OtherContent(Exception):
    """Granules differ from others of the same baseline and version in elevation alone: position → reason."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__()
        self.reasons = reasons


@dataclass(eq=False)
class Overlaps:
    """Records of new granules that are in a point DB already.

    Attributes
    ----------
    store : Store
        The point DB.
    snapshot : Snapshot
        Of the point DB.
    gone : collection of int
        Numbers of granules that the new ones replace.
    found : dict of int to set of int
        Position of a new granule → numbers of those that have some of its records.
    """

    store: Store
    snapshot: Snapshot
    gone: Collection[int]
    found: dict[int, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        granules = self.snapshot.granules
        replaced = pa.array(list(self.gone), granules["number"].type)
        self._there = granules.filter(pc.invert(pc.is_in(granules["number"], value_set=replaced)))
        self._boxes = boxes_of(self._there)

    def of(
        self, batch: Batch, stored: Stored, numbers: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.bool_]:
        """Find the records of a batch that are in the point DB, or in earlier granules of the batch.

        Parameters
        ----------
        batch : Batch
            A piece of the new granules.
        stored : dict of str to ndarray
            Its stored points.
        numbers : ndarray of int32, shape (granules,)
            The number of each granule; −1 for those that are not added.

        Returns
        -------
        ndarray of bool, shape (points,)

        Raises
        ------
        OtherContent
            Records of a granule differ in elevation alone from those of another of its baseline and version.
        """
        doubled = np.zeros(len(stored["time"]), bool)
        ends = np.cumsum(batch.sizes)
        own = np.flatnonzero((numbers >= 0) & (batch.sizes > 0))
        if not len(own):
            return doubled
        rows = {at: slice(ends[at] - batch.sizes[at], ends[at]) for at in own.tolist()}
        new = pa.Table.from_pylist(
            [
                {
                    "number": int(numbers[at]),
                    "name": batch.granules[at].name,
                    "product": batch.granules[at].product,
                    "baseline": batch.granules[at].baseline,
                    "version": int(batch.granules[at].version),
                    "passes": np.unique(stored["pass_id"][where]).tolist(),
                }
                for at, where in rows.items()
            ],
            schema=pa.schema([self._there.schema.field(n) for n in (*_IDENTITY, "passes")]),
        )
        boxes = np.array(
            [hull({n: stored[n][where] for n in _AXES}, _NO_ROWS) for where in rows.values()]
        )
        with_others, near = _pairs(new, boxes, self._there, self._boxes)
        chosen = own[with_others].tolist()
        if not chosen:
            return doubled
        there = self._there.take(near)
        taken = np.concatenate([np.arange(rows[at].start, rows[at].stop) for at in chosen])
        points = {name: values[taken] for name, values in stored.items()}
        owners = np.repeat(numbers[chosen], batch.sizes[chosen])
        old = self._read(there, points)
        known = pa.concat_tables([there.select(_IDENTITY), new.select(_IDENTITY)]).to_pandas()
        found = _Doubles.among(old, points | {"granule": owners}, known)
        doubled[taken] = found.doubled
        at_of = {int(numbers[at]): at for at in chosen}
        for number, other in found.pairs:
            self.found.setdefault(at_of[number], set()).add(other)
        if found.reasons:
            raise OtherContent({at_of[number]: line for number, line in found.reasons.items()})
        return doubled

    def _read(self, granules: pa.Table, new: Stored) -> Stored:
        """Read points of granules, of those chunks and that time and place where new points are."""
        numbers = granules["number"].to_numpy()
        fragments = self.snapshot.fragments_of(numbers)
        chunks = places(new["x_cm"], new["y_cm"], self.store.description.chunk_size) >> RANK_BITS
        keep = np.isin(fragments["chunk"].to_numpy(), chunks)
        ends = hull(new, _NO_ROWS).T.tolist()
        for name, (first, last) in zip(_AXES, ends, strict=True):
            keep &= fragments[f"{name}_max"].to_numpy() >= first
            keep &= fragments[f"{name}_min"].to_numpy() <= last
        form = self.store.description.schema
        parts = [{name: np.empty(0, values.dtype) for name, values in new.items()}]
        parts[0]["granule"] = np.empty(0, np.int32)
        for entry in rows_of(fragments.filter(pa.array(keep))):
            points = load_fragment(self.store.root, entry, form)
            within = np.isin(points["granule"], numbers)
            for name, (first, last) in zip(_AXES, ends, strict=True):
                within &= (points[name] >= first) & (points[name] <= last)
            parts.append({name: values[within] for name, values in points.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


_AXES = ("x_cm", "y_cm", "time")
_NO_ROWS = np.empty((0, 3))


@dataclass(frozen=True, eq=False)
class _Doubles:
    """Records of new points that others have before them.

    Attributes
    ----------
    doubled : ndarray of bool, shape (new points,)
        Whether another granule has the record.
    pairs : set of (int, int)
        Numbers of a new granule and of one that has records of it.
    reasons : dict of int to str
        Number of a new granule → why it is refused.
    """

    doubled: npt.NDArray[np.bool_]
    pairs: set[tuple[int, int]]
    reasons: dict[int, str]

    @classmethod
    def among(cls, old: Stored, new: Stored, known: pd.DataFrame) -> _Doubles:
        """Compare new points with old ones, and with new ones of earlier granules.

        Parameters
        ----------
        old, new : dict of str to ndarray
            Stored points, with ``granule``.
        known : DataFrame
            ``number, name, product, baseline, version`` of their granules.
        """
        names = (*_PLACE, "elevation_mm", "granule")
        points = {name: np.concatenate([old[name], new[name]]) for name in names}
        known = known.set_index("number")
        row = pd.Index(known.index).get_indexer(points["granule"])
        product = pd.factorize(known["product"])[0][row]
        delivery = known.groupby(["product", "baseline", "version"]).ngroup().to_numpy()[row]
        # By hashes of 64 bits: of a million records, two agree by accident once in ten million times.
        place = point_hashes({name: points[name] for name in _PLACE})
        record = point_hashes({name: points[name] for name in names[:-1]} | {"product": product})
        count = len(new["time"])
        holder = _first(record, row)[-count:]
        rival = _first(place + delivery.astype(np.uint64), row)[-count:]
        own = row[-count:]
        doubled = holder != own
        numbers = known.index.to_numpy()
        pairs = np.unique(np.stack([numbers[own[doubled]], numbers[holder[doubled]]], 1), axis=0)
        differs = ~doubled & (rival != own)
        reasons = {
            int(numbers[at]): _refusal(
                known["name"].iloc[at],
                known["name"].iloc[rival[differs & (own == at)][0]],
                int(np.count_nonzero(differs & (own == at))),
            )
            for at in np.unique(own[differs])
        }
        return cls(doubled, {(one, other) for one, other in pairs.tolist()}, reasons)


def _first(keys: npt.NDArray[np.uint64], values: Int64) -> Int64:
    """Return, for each key, the value at which it occurs first."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return values[first][inverse]


def _refusal(name: str, other: str, count: int) -> str:
    return (
        f"granule {name}: {count:,} of its records have other elevations in {other}, a file with other content of the"
        " same baseline and version, which the point DB has; leave this one out, or remove that one with 'cryotile"
        " remove' and ingest this one again"
    )


def may_overlap(rows: Collection[Mapping[str, Any]], granules: pa.Table) -> bool:
    """Tell whether granules of the log may have records of others, given by their rows in the log."""
    new = pa.Table.from_pylist(list(rows), schema=granules.schema)
    return bool(len(_pairs(new, boxes_of(new), granules, boxes_of(granules))[1]))


def _pairs(
    new: pa.Table, boxes: Box, there: pa.Table, there_boxes: Box
) -> tuple[npt.NDArray[np.bool_], Int64]:
    """Find granules that may have records in common: boxes that meet, a pass and the product.

    Returns
    -------
    ndarray of bool, shape (new,)
        Whether another one may have records of it.
    ndarray of int, shape (n,)
        Those that are there and may have records of a new one.
    """
    near = np.flatnonzero(meet(there_boxes, around(boxes)))
    there_boxes = there_boxes[near]
    meets_new = np.zeros(len(boxes), bool)
    meets_there = np.zeros(len(near), bool)
    for at, box in enumerate(boxes):
        hit = meet(there_boxes, box)
        meets_there |= hit
        meets_new[at] = hit.any() or np.count_nonzero(meet(boxes, box)) > 1
    near = near[meets_there]
    columns = ["product", "passes"]
    table = pa.concat_tables(
        [
            there.select(columns).take(near),
            new.select(columns).filter(pa.array(meets_new)),
        ]
    ).combine_chunks()
    shares = np.zeros(len(table), bool)
    if len(table):
        lists = table["passes"].combine_chunks()
        owner = pc.list_parent_indices(lists).to_numpy()
        keys = pass_keys(pc.list_flatten(lists).to_numpy())
        product = table["product"].dictionary_encode().combine_chunks().indices.to_numpy()[owner]
        distinct = np.unique(np.stack([product, keys, owner], 1), axis=0)
        new_one = distinct[:, 2] >= len(near)
        _, group, size = np.unique(distinct[:, :2], axis=0, return_inverse=True, return_counts=True)
        group = group.reshape(-1)
        has_new = np.bincount(group, weights=new_one)[group] > 0
        shares[distinct[(size[group] > 1) & has_new, 2]] = True
    with_others = np.zeros(len(boxes), bool)
    with_others[np.flatnonzero(meets_new)] = shares[len(near) :]
    return with_others, near[shares[: len(near)]]
