"""Where a point is kept: its 5 km square, its chunk, and the chunk's directory.

All three follow from the stored centimetres alone, so that every reader agrees with the writer.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = [
    "SQUARE_SIZE",
    "chunk_directory",
    "chunk_numbers",
    "places",
    "square_indices",
]

SQUARE_SIZE = 5000.0
"""Side of the squares that the log counts, metres; chunk sizes are multiples of it."""

_SQUARE_CM = 500_000

_HALF = 1 << 15
"""Offset that makes chunk indices positive in 16 bits."""

RANK_BITS = 16
"""A place is the chunk's number, then so many bits for the rank of the square in it."""

_SQUARES = 1 << 13
"""More than 2³¹ cm hold: square indices are between its negative and itself."""

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


def square_indices(cm: Int32) -> Int32:
    """Index of the square along one axis; square i is i · 5 km ≤ x < (i + 1) · 5 km.

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
    """Linearised chunk index (iy + 2¹⁵) · 2¹⁶ + (ix + 2¹⁵)."""
    return ((iy + _HALF) << 16) + (ix + _HALF)


def chunk_directory(chunk: int) -> str:
    """Directory of a chunk, relative to the point DB: its number in hex, two digits a level."""
    return "chunks/" + "/".join(f"{byte:02x}" for byte in chunk.to_bytes(4, "big"))


def places(x_cm: Int32, y_cm: Int32, chunk_size: float) -> Int64:
    """Chunk and square of each point as one number that sorts the points of a DB.

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
    """What the square's index along each axis adds to a place: both the chunk's number and the rank are sums."""
    square = np.arange(-_SQUARES, _SQUARES)
    chunk, within = np.divmod(square, round(chunk_size / SQUARE_SIZE))
    # A zero before each bit: two such numbers, one shifted, add up to a rank on the Z-curve.
    rank = sum((((within >> bit) & 1) << (2 * bit) for bit in range(8)), np.zeros_like(square))
    zero = np.zeros_like(square)
    return (
        (chunk_numbers(chunk, zero) << RANK_BITS) + rank,
        (chunk_numbers(zero, chunk) - chunk_numbers(zero, zero) << RANK_BITS) + 2 * rank,
    )
