from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]

SIMD_LEVELS: tuple[str, ...]
"""Levels of vector instructions that the kernel is compiled for, the poorest first."""

POST: np.dtype[np.void]
"""What is known of a post: dhdt, elevation, c0, c1 (m per radius), sigmas, counts, terms, status."""

def find_simd_level() -> str:
    """Return the richest level that this machine has."""

def sort_points(
    x: _Floats,
    y: _Floats,
    elevation: _Floats,
    ticks: _Integers,
    passes: _Integers,
    *,
    post_x: _Floats,
    post_y: _Floats,
    radius: float,
    period: tuple[int, int],
    tick: int,
    epoch: int,
    year: float,
) -> tuple[float, tuple[Any, ...]]:
    """Sort the points that posts may see into cells, a few to a radius, whatever else there is.

    Parameters
    ----------
    x, y, elevation : ndarray, shape (points,)
        Metres; a point that is not finite is left out.
    ticks : ndarray, shape (points,)
        Times since 1970; ticks times ``tick`` must not overflow within the period.
    passes : ndarray, shape (points,)
        Codes; a point with a negative one is left out.
    post_x, post_y : ndarray, shapes (nx,), (ny,)
        Posts, m, ascending.
    radius : float
        Search radius, m.
    period : tuple of int
        First tick and the one after the last.
    tick : int
        Nanoseconds of a tick.
    epoch : int
        Reference epoch, nanoseconds since 1970.
    year : float
        Nanoseconds of a year.

    Returns
    -------
    tuple
        The elevation furthest from 0, and the attributes of :class:`cryotile.fit.cells.Cells`.
    """

def seasons(nanoseconds: _Integers, start: int, length: int) -> _Floats:
    """Return cosine and sine of the season, shape (2, points); the bits are the same on every machine.

    Parameters
    ----------
    nanoseconds : ndarray, shape (points,)
        Since 1970.
    start, length : int
        Of a year, nanoseconds.
    """

class Kernel:
    """The points of a tile and what is fitted to them; threads share it.

    Nothing is checked here: arrays that contradict each other are read out of bounds.

    Parameters
    ----------
    x, y, rows, passes, row_y, row_start, cell_x, cell_start : ndarray
        As of :class:`cryotile.fit.cells.Cells`.
    extras : ndarray, shape (points, extras), or None
        Columns of terms that are not made of ``rows``.
    weights : ndarray, shape (points,), or None
        Positive; None: all are 1.
    modes, platforms : ndarray, shape (points,), or None
        Below 10; of equally frequent ones the lowest is the majority.  None: there is but one.
    terms, columns, slots : sequence, int, int
        As of :class:`cryotile.fit.terms.Layout`.
    pass_total, mode_total : int
        Number of passes and of modes.
    radius : float
        Search radius, m.
    min_span : float
        Years.
    min_tolerance : float
        Smallest 1 - R² of a column.
    max_rate : float
        m/yr.
    distance_scale : float
        Of the weight by distance, m; 0 for none.
    min_points, min_passes : int
        Smallest counts.
    rejects : bool
        Screen passes, then points.
    plain : bool
        There are neither terms, weights nor rejection, and it may go the short way.
    majority_mode, majority_platform : int
        Flags of a cut to the most frequent one.
    level : str
        One of SIMD_LEVELS that the machine has.
    """

    def __init__(
        self,
        x: _Floats,
        y: _Floats,
        rows: _Floats,
        passes: npt.NDArray[np.int32],
        row_y: _Integers,
        row_start: _Integers,
        cell_x: _Integers,
        cell_start: _Integers,
        *,
        extras: _Floats | None,
        weights: _Floats | None,
        modes: npt.NDArray[np.uint8] | None,
        platforms: npt.NDArray[np.uint8] | None,
        terms: Sequence[tuple[int, ...]],
        columns: int,
        slots: int,
        pass_total: int,
        mode_total: int,
        radius: float,
        min_span: float,
        min_tolerance: float,
        max_rate: float,
        distance_scale: float,
        min_points: int,
        min_passes: int,
        rejects: bool,
        plain: bool,
        majority_mode: int,
        majority_platform: int,
        level: str,
    ) -> None: ...
    def fit(
        self, post_x: _Floats, post_y: _Floats, wanted: npt.NDArray[np.uint8], room: int
    ) -> tuple[npt.NDArray[np.void], _Floats]:
        """Fit at every post that is wanted.

        Parameters
        ----------
        post_x, post_y : ndarray, shapes (nx,), (ny,)
            Posts, m; ascending x is fastest.
        wanted : ndarray, shape (ny, nx)
            Posts of 0 are left alone.
        room : int
            Points that there is memory for.

        Returns
        -------
        posts : ndarray, shape (ny, nx), dtype POST
            NaN where there is no fit; not computed where a circle may hold more points than there is room for.
        coefficients : ndarray, shape (ny, nx, slots)
            Of the terms.
        """

    def explain(
        self, x: float, y: float
    ) -> tuple[
        np.void,
        _Integers,
        npt.NDArray[np.int32],
        _Floats,
        npt.NDArray[np.bool_],
        npt.NDArray[np.bool_],
        _Floats,
    ]:
        """Fit one post and tell what became of its points.

        Returns
        -------
        post : void
            Of dtype POST.
        seen : ndarray
            Places of the points within the radius.
        order : ndarray
            Places of those that were fitted, of which follow
        residuals : ndarray
            Metres,
        kept, pass_kept : ndarray
            whether they, and their passes, were not rejected,
        offset : ndarray
            and the residuals of their passes in the screen, metres, NaN where there was none.
        """
