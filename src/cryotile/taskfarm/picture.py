"""What the page about a run reads, from a server or embedded in one file: arrays of tiles and thumbnails, and streams.

Arrays are in little endian, one after the other, behind a head: a magic word, the number of tasks, the epoch, and the
time from which to ask for changes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["coarse", "pack_thumbnails", "pack_tiles", "streams"]

TILES_MAGIC = 0x54435931
"""First word of an answer with tiles."""

THUMBNAILS_MAGIC = 0x54435932
"""First word of an answer with thumbnails."""

# Two spans of a worker less than this apart are one, seconds.
_GAP = 2.0

_Bytes = npt.NDArray[np.uint8]


def pack_tiles(epoch: int, after: float, portions: Iterable[Sequence[Sequence[Any]]]) -> bytes:
    """Return the states of tasks as the page reads them.

    Parameters
    ----------
    epoch : int
        Number of times that settled tasks were opened again.
    after : float
        Time from which to ask for changes, seconds since 1970.
    portions : iterable of sequence of sequence
        For each task of each portion: index, seconds of the last attempt (or None), cost, number of the worker (or 0),
        state (0 waiting, 1 leased, 2 done, 3 failed), attempts.
    """
    packed = [_columns(portion) for portion in portions if portion]
    count = sum(len(states) for *_, states, _ in packed)
    head = struct.pack("<IIId", TILES_MAGIC, count, epoch, after)
    return head + b"".join(
        array.tobytes() for column in zip(*packed, strict=True) for array in column
    )


def _columns(rows: Sequence[Sequence[Any]]) -> tuple[npt.NDArray[Any], ...]:
    index, seconds, cost, worker, state, attempts = zip(*rows, strict=True)
    greatest = float(np.finfo("<f4").max)
    return (
        np.array(index, "<u4"),
        np.array(seconds, "<f4"),
        np.clip(np.array(cost, "<f8"), -greatest, greatest).astype("<f4"),
        np.array(worker, "<u4"),
        np.array(state, "u1"),
        np.minimum(np.array(attempts, "<i4"), 255).astype("u1"),
    )


def pack_thumbnails(epoch: int, after: float, indices: Sequence[int], values: _Bytes) -> bytes:
    """Return thumbnails as the page reads them.

    Parameters
    ----------
    epoch, after
        As of :func:`pack_tiles`.
    indices : sequence of int
        The tasks.
    values : ndarray of uint8, shape (tasks, rows, columns)
        Row 0 is the lowest y.
    """
    head = struct.pack("<IIIdII", THUMBNAILS_MAGIC, len(indices), epoch, after, *values.shape[1:])
    return head + np.array(indices, "<u4").tobytes() + np.ascontiguousarray(values).tobytes()


def coarse(values: _Bytes, *, flags: bool) -> _Bytes:
    """Return one value for each thumbnail: the mean of its data or, of flags, the most common; 0 without data.

    Parameters
    ----------
    values : ndarray of uint8, shape (tasks, rows, columns)
        0 is no data.
    flags : bool
        Whether the values are flags.

    Returns
    -------
    ndarray of uint8, shape (tasks, 1, 1)
    """
    # Spelled out, since NumPy does not find the size of a side of nothing.
    flat = values.reshape(len(values), values.shape[1] * values.shape[2])
    if not flags:
        count = np.count_nonzero(flat, axis=1)
        found = np.rint(flat.sum(axis=1, dtype=float) / np.maximum(count, 1))
    elif len(kinds := np.unique(flat[flat > 0])):
        counts = np.stack([np.count_nonzero(flat == kind, axis=1) for kind in kinds], axis=1)
        found = np.where(counts.any(axis=1), kinds[counts.argmax(axis=1)], 0)
    else:
        found = np.zeros(len(values))
    return np.asarray(found[:, np.newaxis, np.newaxis], "u1")


def streams(rows: Iterable[tuple[int, float, float]]) -> dict[int, list[list[float]]]:
    """Return when each worker was busy.

    Parameters
    ----------
    rows : iterable of (int, float, float)
        Of each attempt: number of the worker, start and end, seconds since 1970.

    Returns
    -------
    dict of int to list of [float, float]
        Spans in their order, those that touch joined.
    """
    busy: dict[int, list[list[float]]] = {}
    for worker, start, stop in sorted(rows):
        spans = busy.setdefault(worker, [])
        if spans and start - spans[-1][1] < _GAP:
            spans[-1][1] = max(stop, spans[-1][1])
        else:
            spans.append([start, stop])
    return busy
