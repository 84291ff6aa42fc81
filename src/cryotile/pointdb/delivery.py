"""Decide what becomes of a delivery of a granule, from its baseline, version, content and extent.

One id may have several deliveries in a point DB: cuts of its file by region or time.  An extent is the box of all
records of a delivery in x, y and time, dropped ones included, so that flags of a newer baseline do not shrink it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.pointdb.encoding import Stored
from cryotile.pointdb.snapshot import EXTENT, Snapshot
from cryotile.points import Granule

__all__ = [
    "SHIFT",
    "Box",
    "Verdict",
    "around",
    "boxes_of",
    "columns_of",
    "complete",
    "hull",
    "meet",
    "sort_out",
]

Box = npt.NDArray[np.int64]
"""Least and greatest x and y (cm) and time (ms since 1970), shape (2, 3); of several deliveries: shape (n, 2, 3)."""

_FAR = 2**60

_NOWHERE: Box = np.array([[_FAR] * 3, [-_FAR] * 3])
"""The extent of a delivery without records: it meets no other."""

_EVERYWHERE: Box = -_NOWHERE
"""An extent that is not known."""

_CM_LIMIT = 2**31 - 1

SHIFT = np.array([1_000_000, 1_000_000, 1000])
"""How far records move from one baseline to the next: 10 km, since the closest point of a slope is found anew; 1 s."""

_LONG = 86_400_000
"""Milliseconds; a delivery that lasts longer holds many passes, of which a newer one may lack the first or the last."""

_SHARE = 10
"""One part in so many may be absent at each end where ends are not sharp."""


def hull(points: Stored, extent: npt.NDArray[np.float64]) -> Box:
    """Return the box of stored points and of further records as in :attr:`cryotile.points.Granule.extent`."""
    box = _NOWHERE
    if len(points["time"]):
        columns = [points[name] for name in ("x_cm", "y_cm", "time")]
        box = np.array([[c.min() for c in columns], [c.max() for c in columns]], np.int64)
    if len(extent):
        rows = np.rint(extent * [100, 100, 1]).astype(np.int64)
        rows[:, :2] = np.clip(rows[:, :2], -_CM_LIMIT, _CM_LIMIT)
        box = around(np.stack([box, [rows.min(axis=0), rows.max(axis=0)]]))
    return box


def around(boxes: Box) -> Box:
    """Return the smallest box around several."""
    return np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])


def meet(one: Box, other: Box) -> npt.NDArray[np.bool_]:
    """Tell whether boxes have anything in common; shapes (…, 2, 3)."""
    apart = (one[..., 0, :] > other[..., 1, :]) | (other[..., 0, :] > one[..., 1, :])
    return np.asarray(~apart.any(axis=-1))


def _reaches(newer: _Delivery, older: Box) -> bool:
    """Tell whether the extent of a newer delivery holds that of an older one, up to what a baseline may shift."""
    length = older[1] - older[0]
    # The points alone do not tell how far the records of a granule reached.
    blunt = np.array([not newer.sharp, not newer.sharp, not newer.sharp or length[2] > _LONG])
    spare = np.maximum(SHIFT, np.where(blunt, length // _SHARE, 0))
    ends = newer.box
    return bool((ends[0] - spare <= older[0]).all() and (ends[1] + spare >= older[1]).all())


def columns_of(box: Box) -> dict[str, int | None]:
    """Return a box as columns of :data:`cryotile.pointdb.snapshot.GRANULES`."""
    known = (box[0] <= box[1]).all()
    values = [int(box[end, axis]) for axis in range(3) for end in range(2)]
    return {name: value if known else None for name, value in zip(EXTENT, values, strict=True)}


def boxes_of(granules: pa.Table) -> Box:
    """Return the boxes of granules in the log, shape (granules, 2, 3)."""
    # Of the first point DBs, the extent of a granule with points is not known.
    known = granules["x_cm_min"].is_valid().to_numpy()
    there = granules["rows"].to_numpy() > 0
    boxes = np.where(there[:, None, None], _EVERYWHERE, _NOWHERE)
    rows = np.stack([granules[name].fill_null(0).to_numpy().astype(np.int64) for name in EXTENT], 1)
    boxes[known] = rows[known].reshape(-1, 3, 2).swapaxes(1, 2)
    return boxes


def complete(granules: pa.Table) -> npt.NDArray[np.bool_]:
    """Tell which granules have all of their points in the point DB.

    A granule is stored without the records that another one had before it.  If that one is gone, so are they.
    """
    lists = granules["overlaps"].combine_chunks()
    whole = np.ones(len(granules), bool)
    gone = pc.invert(pc.is_in(pc.list_flatten(lists), value_set=granules["number"]))
    whole[pc.list_parent_indices(lists).filter(gone).to_numpy()] = False
    return whole


@dataclass(frozen=True, eq=False)
class _Delivery:
    """What decides about another delivery of a granule.

    Its number is negative if it is not in the point DB yet.  Its box is sharp if it is that of all its records.
    """

    number: int
    name: str
    baseline: str
    version: int
    checksum: str
    rows: int
    box: Box
    complete: bool = True
    sharp: bool = True

    @property
    def order(self) -> tuple[str, int]:
        """Sort key; padded, so that release 10 comes after 9."""
        return self.baseline.rjust(8, "0"), self.version

    def __str__(self) -> str:
        return f"baseline {self.baseline} version {self.version}"


@dataclass(frozen=True, eq=False)
class Verdict:
    """Decision on each of several granules.

    Attributes
    ----------
    new, unchanged : list of int
        Positions of those to add, and of those that the point DB has.
    replaced : list of int
        Numbers of the deliveries that the new ones replace.
    names_replaced : list of str
        File names of those of them that are older.
    refused : dict of int to str
        Position → one line with the reason and the remedy.
    older : list of int
        Positions of those refused that are older than what the point DB has.
    """

    new: list[int] = field(default_factory=list)
    unchanged: list[int] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    names_replaced: list[str] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    older: list[int] = field(default_factory=list)


def sort_out(
    granules: Sequence[Granule],
    boxes: Sequence[Box],
    snapshot: Snapshot,
    blocked: Mapping[int, str],
) -> Verdict:
    """Decide which granules are new, and what becomes of the others.

    Parameters
    ----------
    granules : sequence of Granule
        Their points do not matter.
    boxes : sequence of ndarray
        Their extents.
    snapshot : Snapshot
        Of the point DB.
    blocked : mapping of int to str
        Position → reason for which a granule was refused before.
    """
    known = _known({granule.id for granule in granules}, snapshot)
    verdict = Verdict(refused=dict(blocked))
    ours = [
        _Delivery(
            -1 - at,
            g.name,
            g.baseline,
            g.version,
            g.checksum,
            g.record_count,
            box,
            sharp=len(g.extent) > 0,
        )
        for at, (g, box) in enumerate(zip(granules, boxes, strict=True))
    ]
    # The newest delivery first, at whatever position in the batch; of equal ones the first.
    for at in sorted(range(len(granules)), key=lambda at: ours[at].order, reverse=True):
        if at not in blocked:
            _decide(at, ours[at], known.setdefault(granules[at].id, []), verdict)
    verdict.new.sort()
    return verdict


def _decide(at: int, delivery: _Delivery, rivals: list[_Delivery], verdict: Verdict) -> None:
    """Decide on one granule; ``rivals`` are the deliveries of its id that stay so far."""
    same = [r for r in rivals if (r.checksum, r.order) == (delivery.checksum, delivery.order)]
    if any(rival.complete for rival in same):
        verdict.unchanged.append(at)
        return
    near = [r for r in rivals if r not in same and meet(delivery.box, r.box)]
    older = [r for r in near if r.order < delivery.order]
    reason = ""
    if newer := next((r for r in near if r.order > delivery.order), None):
        verdict.older.append(at)
        reason = f"its {delivery} is older than {newer}, which the point DB has; leave it out"
    elif cut := next((r for r in older if r.rows and not _reaches(delivery, r.box)), None):
        reason = (
            f"its {delivery} is newer than {cut} of {cut.name}, which the point DB has, and covers only part of it;"
            " ingest the whole granule, or remove that one with 'cryotile remove' and ingest this one again"
        )
    if reason:
        verdict.refused[at] = f"granule {delivery.name}: {reason}"
        return
    verdict.new.append(at)
    verdict.replaced.extend(r.number for r in (*same, *older))
    verdict.names_replaced.extend(r.name for r in older)
    rivals[:] = [r for r in rivals if r not in same and r not in older] + [delivery]


def _known(ids: Collection[str], snapshot: Snapshot) -> dict[str, list[_Delivery]]:
    """Return the deliveries in the point DB of granules with the ids."""
    table = snapshot.granules
    rows = pc.is_in(table["id"], value_set=pa.array(list(ids), pa.string())).to_numpy()
    if not rows.any():
        return {}
    whole, found = complete(table)[rows], table.filter(pa.array(rows))
    columns = ["id", "number", "name", "baseline", "version", "checksum", "rows"]
    known = dict[str, list[_Delivery]]()
    named = zip(found.select(columns).to_pylist(), boxes_of(found), whole.tolist(), strict=True)
    for row, box, is_whole in named:
        values: dict[str, Any] = row
        known.setdefault(values.pop("id"), []).append(
            _Delivery(**values, box=box, complete=is_whole)
        )
    return known
