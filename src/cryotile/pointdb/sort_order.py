"""The total order of stored points: the order of the file, and of everything that is read from it.

It follows from the points alone, never from granules, commits or fragments, so that the same points give the same bytes
however they came in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cryotile.pointdb.encoding import Stored
from cryotile.pointdb.layout import RANK_BITS, places

__all__ = ["has_no_ties", "in_total_order"]

Int64 = npt.NDArray[np.int64]


def in_total_order(stored: Stored, chunk_size: float) -> Stored:
    """Sort points by chunk, square, time, x, y, then the rest.

    Parameters
    ----------
    stored : dict of str to ndarray
        With ``x_cm``, ``y_cm`` and ``time``; of the others, any.  ``granule`` has no say.
    chunk_size : float
        Metres.

    Returns
    -------
    dict of str to ndarray
        The same points; the same object if they were in order.
    """
    rows = _sorting_rows(_levels(stored, chunk_size))
    return stored if rows is None else {name: values[rows] for name, values in stored.items()}


def has_no_ties(stored: Stored) -> bool:
    """Tell whether points that are sorted by chunk, square, time, x and y are in total order, because no two tie.

    Parameters
    ----------
    stored : dict of str to ndarray
        With ``x_cm``, ``y_cm`` and ``time``.
    """
    tied = stored["time"][1:] == stored["time"][:-1]
    for name in ("x_cm", "y_cm"):
        tied &= stored[name][1:] == stored[name][:-1]
    return not tied.any()


def _levels(stored: Stored, chunk_size: float) -> Iterator[npt.NDArray[Any]]:
    x, y = stored["x_cm"], stored["y_cm"]
    yield from _places_and_times(places(x, y, chunk_size), stored["time"])
    yield (x.astype(np.int64) << 32) + y
    for name in sorted(stored.keys() - {"x_cm", "y_cm", "time", "granule"}):
        yield _sortable(stored[name])


def _places_and_times(place: Int64, time: Int64) -> Iterator[Int64]:
    """Yield one number that sorts by place, then time, where 63 bits will do: one sort is half the work of two."""
    if not len(time):
        return
    # Chunks are few, and come in runs: numbered from 0 they need few bits.
    chunk = place >> RANK_BITS
    chunks = np.unique(chunk[np.flatnonzero(np.diff(chunk, prepend=-1))])
    first, bits = time.min(), int(np.ptp(time)).bit_length()
    if len(chunks).bit_length() + RANK_BITS + bits > 63:
        yield place
        yield time
        return
    if len(chunks) > 1:
        chunk_bits = np.searchsorted(chunks, chunk) << RANK_BITS
        place = chunk_bits | (place & ((1 << RANK_BITS) - 1))
    else:
        place = place & ((1 << RANK_BITS) - 1)
    yield (place << bits) | (time - first)


def _sortable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Any order will do that knows NaN: the bits of a float have one.
    return values.view(np.int32) if values.dtype == np.float32 else values


def _sorting_rows(levels: Iterator[npt.NDArray[Any]]) -> npt.NDArray[np.intp] | None:
    """Rows that sort by the levels, the first one first; None where they are in order.

    Fragments are sorted already: a stable sort of the first level merges them, and of each extra level only those
    groups of rows are sorted that are tied so far and out of order.
    """
    rows: npt.NDArray[np.intp] | None = None
    tied: npt.NDArray[np.bool_] | None = None
    for level in levels:
        values = level if rows is None else level[rows]
        disordered = values[1:] < values[:-1]
        if tied is None:
            if disordered.any():
                rows = np.argsort(values, kind="stable")
                values = values[rows]
            tied = np.ones(len(disordered), bool)
        elif (disordered := disordered & tied).any():
            rows = np.arange(len(values)) if rows is None else rows
            at = _members(tied, disordered)
            group = np.cumsum(np.concatenate([[0], ~tied]))[at]
            rows[at] = rows[at][np.lexsort((values[at], group))]
            values = level[rows]
        tied = tied & (values[1:] == values[:-1])
        if not tied.any():
            break
    return rows


def _members(
    tied: npt.NDArray[np.bool_], disordered: npt.NDArray[np.bool_]
) -> npt.NDArray[np.intp]:
    """Places of the rows whose group of ties has two neighbours out of order."""
    group = np.concatenate([[0], np.cumsum(~tied)])
    affected = np.zeros(group[-1] + 1, bool)
    affected[group[1:][disordered]] = True
    return np.flatnonzero(affected[group])
