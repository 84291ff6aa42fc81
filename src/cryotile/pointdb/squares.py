"""Count of the points in each 5 km square, and a digest that changes when the points change.

Both are sums over the points.  Each commit records only what it adds (negative: removes), the order of commits does not
matter, and plans, costs and stale tiles follow from the log alone.  A digest is the sum modulo 2⁶⁴ of a hash of each
point's stored values: it does not depend on granules, fragments or rows, and a compaction does not change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from cryotile.pointdb.encoding import SQUARES, Stored, decode, from_table, to_table
from cryotile.pointdb.sort_order import SQUARE_SIZE, square_indices
from cryotile.points import CATEGORIES, index_platforms

__all__ = [
    "SquareChanges",
    "add_up",
    "count_squares",
    "describe_squares",
    "negated",
    "point_hashes",
]

FEWEST_HELD = 1 << 18
"""Rows of changes that are always held before they are summed: about 10 MB."""

TABLE_ROWS = 128
"""Rows that take as much memory as a table takes without any."""

Uint64 = npt.NDArray[np.uint64]


def count_squares(stored: Stored) -> pa.Table:
    """Count and digest points by square, platform and mode.

    Parameters
    ----------
    stored : dict of str to ndarray
        All stored columns.

    Returns
    -------
    pyarrow.Table
        As :data:`~cryotile.pointdb.encoding.SQUARES`.
    """
    each = {
        "ix": square_indices(stored["x_cm"]),
        "iy": square_indices(stored["y_cm"]),
        "platform": stored["platform"],
        "mode": stored["mode"],
        "count": np.ones(len(stored["time"]), np.int64),
        "digest": point_hashes(stored),
        "time_min": stored["time"],
        "time_max": stored["time"],
    }
    return to_table(_summed(each), SQUARES)


def add_up(tables: Sequence[pa.Table]) -> pa.Table:
    """Sum changes of squares; a square whose sum is empty is left out.

    Parameters
    ----------
    tables : sequence of pyarrow.Table
        As :data:`~cryotile.pointdb.encoding.SQUARES`, in any order.

    Returns
    -------
    pyarrow.Table
        As :data:`~cryotile.pointdb.encoding.SQUARES`, sorted by row of squares from the south, then from
        the west, platform, mode.
    """
    summed = _summed(from_table(pa.concat_tables([SQUARES.empty_table(), *tables])))
    # A change may add as many points as it removes: then only the digest differs.
    held = (summed["count"] != 0) | (summed["digest"] != 0)
    return to_table({name: values[held] for name, values in summed.items()}, SQUARES)


def negated(table: pa.Table) -> pa.Table:
    """Return the change of squares when points are removed, given their counts and digests."""
    for name in ("count", "digest"):
        at = table.schema.get_field_index(name)
        table = table.set_column(
            at, SQUARES.field(name), pa.array(np.negative(table[name].to_numpy()))
        )
    return table


class SquareChanges:
    """Running sum of changes, in memory of a few times its own size and in time linear in the changes."""

    def __init__(self) -> None:
        self._sum = SQUARES.empty_table()
        self._changes: list[pa.Table] = []
        self._held = 0

    def add(self, *changes: pa.Table) -> None:
        """Add changes, as :data:`~cryotile.pointdb.encoding.SQUARES`."""
        for change in changes:
            self._changes.append(change)
            self._held += len(change) + TABLE_ROWS
            # Each change may have all squares, or one. Summing when the changes outgrow the sum costs, for each of
            # their rows, at most the work of two.
            if self._held > max(len(self._sum), FEWEST_HELD):
                self.total()

    def total(self) -> pa.Table:
        """Return the sum, as of :func:`add_up`."""
        self._sum = add_up([self._sum, *self._changes])
        self._changes, self._held = [], 0
        return self._sum


def describe_squares(table: pa.Table) -> pd.DataFrame:
    """Return squares in metres and datetimes.

    Parameters
    ----------
    table : pyarrow.Table
        As :data:`~cryotile.pointdb.encoding.SQUARES`.

    Returns
    -------
    DataFrame
        ``x_min, y_min`` (m), ``platform, mode`` (categories), ``count`` (int64), ``digest`` (uint64), ``time_min,
        time_max`` (datetime64[ms]).
    """
    stored = from_table(table)
    times = {n: stored[n].view("datetime64[ms]") for n in ("time_min", "time_max")}
    texts = decode(stored, ["platform", "mode"])
    return pd.DataFrame(
        {
            "x_min": stored["ix"] * SQUARE_SIZE,
            "y_min": stored["iy"] * SQUARE_SIZE,
            "platform": texts["platform"],
            "mode": texts["mode"],
            "count": stored["count"],
            "digest": stored["digest"],
            **times,
        }
    )


def _summed(rows: Stored) -> Stored:
    # Each index needs 15 bits: 2³¹ cm divided by 5 km is less than 2¹³, on either side of the origin.
    key = (rows["iy"].astype(np.int64) + (1 << 14)) << 15 | (rows["ix"] + (1 << 14))
    platform, _ = index_platforms(rows["platform"])
    key = key << 16 | platform.astype(np.int64) << 8 | rows["mode"]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    if not len(starts):
        return rows
    result = {n: rows[n][order[starts]] for n in ("ix", "iy", "platform", "mode")}
    reductions = {"count": np.add, "digest": np.add, "time_min": np.minimum, "time_max": np.maximum}
    for name, reduction in reductions.items():
        result[name] = reduction.reduceat(rows[name][order], starts)
    return result


def point_hashes(stored: Stored) -> Uint64:
    """Return a hash of each point, from the values of all its stored columns except ``granule``.

    Each value, as a 64-bit word, is multiplied by an odd number that follows from the column's name.  The products are
    summed modulo 2⁶⁴ (multilinear hashing: Lemire and Kaser 2014, doi:10.1093/comjnl/bxt070) and mixed with the
    finalizer of splitmix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195), so that sums of hashes do not
    cancel as sums of values do.

    Parameters
    ----------
    stored : dict of str to ndarray
        All stored columns.

    Returns
    -------
    ndarray of uint64, shape (points,)
        The same on every machine and for every order of the columns.
    """
    total = np.full(len(stored["time"]), _text_hash("point"), np.uint64)
    for name, values in stored.items():
        if name != "granule":
            total += _words(name, values) * (_text_hash(name) | np.uint64(1))
    total ^= total >> np.uint64(30)
    total *= np.uint64(0xBF58476D1CE4E5B9)
    total ^= total >> np.uint64(27)
    total *= np.uint64(0x94D049BB133111EB)
    total ^= total >> np.uint64(31)
    return total


def _words(name: str, values: npt.NDArray[Any]) -> Uint64:
    if name in CATEGORIES:
        # By the text: its position among the categories is private to this program.
        places, texts = (
            index_platforms(values) if name == "platform" else (values, CATEGORIES[name])
        )
        return np.array([_text_hash(text) for text in texts], np.uint64).take(places)
    if values.dtype == np.float32:
        return values.view(np.uint32).astype(np.uint64)
    return values.astype(np.int64).view(np.uint64)


@cache
def _text_hash(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
