"""Square, chunk and total order of stored points: the order of the file, and of everything that is read from it.

All follow from the stored values of the points alone, never from granules, commits or fragments, so that every reader
agrees with the writer, and the same points give the same bytes in whatever batches they were appended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cryotile.pointdb.encoding import Stored

__all__ = [
    "RANK_BITS",
    "SQUARE_SIZE",
    "chunk_directory",
    "chunk_numbers",
    "has_no_ties",
    "in_total_order",
    "merged",
    "places",
    "square_indices",
]

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

SQUARE_SIZE = 5000.0
"""Side of the squares that the log counts, metres; chunk sizes are multiples of it."""

_SQUARE_CM = 500_000

_HALF = 1 << 15
"""Offset that makes chunk indices non-negative in 16 bits."""

RANK_BITS = 16
"""Bits of a place for the rank of the square in its chunk; the bits above are the chunk's number."""

_SQUARES = 1 << 13
"""Square indices of 32-bit centimetres are between its negative and itself."""


def square_indices(cm: Int32) -> Int32:
    """Return the index of the square along one axis; square i is i · 5 km ≤ x < (i + 1) · 5 km.

    Parameters
    ----------
    cm : ndarray of int32, shape (points,)
        ``x_cm`` or ``y_cm``.

    Returns
    -------
    ndarray of int32, shape (points,)
        Negative west or south of the origin.
    """
    return cm // np.int32(_SQUARE_CM)


def chunk_numbers(ix: Int64, iy: Int64) -> Int64:
    """Return the linearised chunk index (iy + 2¹⁵) · 2¹⁶ + (ix + 2¹⁵)."""
    return ((iy + _HALF) << 16) + (ix + _HALF)


def chunk_directory(chunk: int) -> str:
    """Return the directory of a chunk, relative to the point DB: its number in hex, two digits a level."""
    return "chunks/" + "/".join(f"{byte:02x}" for byte in chunk.to_bytes(4, "big"))


def places(x_cm: Int32, y_cm: Int32, chunk_size: float) -> Int64:
    """Return chunk and square of each point as one number that sorts the points of a DB.

    Within a chunk, squares follow a Z-curve: neighbours in the file are neighbours on the ground, so that the bounds of
    a row group are compact and prune well.

    Parameters
    ----------
    x_cm, y_cm : ndarray of int32, shape (points,)
        Centimetres.
    chunk_size : float
        Metres, a multiple of :data:`SQUARE_SIZE`.

    Returns
    -------
    ndarray of int64, shape (points,)
        Chunk number · 2¹⁶ + rank of the square on the Z-curve.
    """
    west_east, south_north = _parts(chunk_size)
    x, y = square_indices(x_cm) + _SQUARES, square_indices(y_cm) + _SQUARES
    return west_east.take(x) + south_north.take(y)


@lru_cache(maxsize=8)
def _parts(chunk_size: float) -> tuple[Int64, Int64]:
    """Return the addend of each square index along x and y: the chunk's number and the rank are both sums."""
    square = np.arange(-_SQUARES, _SQUARES)
    chunk, within = np.divmod(square, round(chunk_size / SQUARE_SIZE))
    # A zero before each bit: two such numbers, one shifted, add up to a rank on the Z-curve.
    rank = sum((((within >> bit) & 1) << (2 * bit) for bit in range(8)), np.zeros_like(square))
    zero = np.zeros_like(square)
    return (
        (chunk_numbers(chunk, zero) << RANK_BITS) + rank,
        (chunk_numbers(zero, chunk) - chunk_numbers(zero, zero) << RANK_BITS) + 2 * rank,
    )


def in_total_order(stored: Stored, chunk_size: float) -> Stored:
    """Sort points by chunk, square, time, x, y, then the rest.

    Parameters
    ----------
    stored : dict of str to ndarray
        With ``x_cm``, ``y_cm`` and ``time``; any other columns.  ``granule`` does not affect the order.
    chunk_size : float
        Metres.

    Returns
    -------
    dict of str to ndarray
        The same points; the same object if they were sorted.
    """
    rows = _sorting_rows(_levels(stored, chunk_size))
    return stored if rows is None else {name: values[rows] for name, values in stored.items()}


def merged(parts: Sequence[Stored], chunk_size: float) -> Stored:
    """Return the points of several parts, each in total order, as one in total order."""
    if len(parts) == 1:
        return parts[0]
    return in_total_order({n: np.concatenate([p[n] for p in parts]) for n in parts[0]}, chunk_size)


def has_no_ties(stored: Stored) -> bool:
    """Tell whether no two points tie in time, x and y.

    If so, points sorted by chunk, square, time, x and y are in total order.

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
    """Yield one number that sorts by place, then time, if 63 bits suffice: one sort is half the work of two."""
    if not len(time):
        return
    # There are few chunks, in runs: numbered from 0 they need few bits.
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
    # Any order that includes NaN will do, such as that of the bits of a float.
    return values.view(np.int32) if values.dtype == np.float32 else values


def _sorting_rows(levels: Iterator[npt.NDArray[Any]]) -> npt.NDArray[np.intp] | None:
    """Return the rows that sort by the levels, the first one first; None if they are sorted.

    Fragments are already sorted: a stable sort of the first level merges them.  Of each further level only those groups
    of rows are sorted that are tied so far and out of order.
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
    """Return the positions of the rows whose group of ties has two neighbours out of order."""
    group = np.concatenate([[0], np.cumsum(~tied)])
    affected = np.zeros(group[-1] + 1, bool)
    affected[group[1:][disordered]] = True
    return np.flatnonzero(affected[group])
