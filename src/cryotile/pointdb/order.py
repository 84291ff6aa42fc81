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
from cryotile.pointdb.layout import places

__all__ = ["in_total_order"]


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
    if (rows == np.arange(len(rows))).all():
        return stored
    return {name: values[rows] for name, values in stored.items()}


def _levels(stored: Stored, chunk_size: float) -> Iterator[npt.NDArray[Any]]:
    x, y = stored["x_cm"], stored["y_cm"]
    yield places(x, y, chunk_size)
    yield stored["time"]
    yield (x.astype(np.int64) << 32) + y
    for name in sorted(stored.keys() - {"x_cm", "y_cm", "time", "granule"}):
        yield _sortable(stored[name])


def _sortable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Any order will do that knows NaN: the bits of a float have one.
    return values.view(np.int32) if values.dtype == np.float32 else values


def _sorting_rows(levels: Iterator[npt.NDArray[Any]]) -> npt.NDArray[np.intp]:
    """Rows that sort by the levels, the first one first.

    Fragments are sorted already: a stable sort of the first level merges them, and of each further level only those
    groups of rows are sorted that are tied so far and out of order.
    """
    values = next(levels)
    rows = np.argsort(values, kind="stable")
    tied = values[rows[1:]] == values[rows[:-1]]
    for level in levels:
        if not tied.any():
            break
        values = level[rows]
        disordered = tied & (values[1:] < values[:-1])
        if disordered.any():
            group = np.concatenate([[0], np.cumsum(~tied)])
            affected = np.zeros(group[-1] + 1, bool)
            affected[group[1:][disordered]] = True
            at = np.flatnonzero(affected[group])
            rows[at] = rows[at][np.lexsort((values[at], group[at]))]
            values = level[rows]
        tied &= values[1:] == values[:-1]
    return rows
