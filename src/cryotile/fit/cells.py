"""Points sorted into cells, so that those around a post lie together in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Cells"]

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cells:
    """Points by rows of cells, then by cells; only rows and cells that hold a point are listed.

    Cell (i, j) is the square from (i, j) · size to (i + 1, j + 1) · size, whatever the tile and the points.  Nothing
    here grows with the extent, so that no coordinate is too far.

    Attributes
    ----------
    order : ndarray, shape (points,)
        Their places in the table that they come from; those of a cell keep their order.
    x, y : ndarray, shape (points,)
        Metres.
    rows : ndarray, shape (points, 4)
        x, y (m), years from the reference epoch, elevation (m).
    passes : ndarray, shape (points,)
        Codes of passes.
    row_y : ndarray, shape (rows,)
        j of each row, ascending.
    row_start : ndarray, shape (rows + 1,)
        First cell of each row, and the number of cells.
    cell_x : ndarray, shape (cells,)
        i of each cell, ascending within a row.
    cell_start : ndarray, shape (cells + 1,)
        First point of each cell, and the number of points.
    """

    order: npt.NDArray[np.int32]
    x: _Floats
    y: _Floats
    rows: _Floats
    passes: npt.NDArray[np.int32]
    row_y: _Integers
    row_start: _Integers
    cell_x: _Integers
    cell_start: _Integers
