from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CELLS_PER_RADIUS: int
"""Cells along one search radius."""

SIMD_LEVELS: tuple[str, ...]
"""Levels of vector instructions that the kernel is compiled for, the poorest first."""

POST: np.dtype[np.void]
"""What is known of a post: dhdt, elevation, c0, c1 (m per radius), sigmas, coefficients of terms, counts, status."""

def find_simd_level() -> str:
    """Return the richest level that this machine has."""

def fit_at_posts(
    points: npt.NDArray[np.float64],
    extras: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    passes: npt.NDArray[np.int32],
    modes: npt.NDArray[np.uint8],
    platforms: npt.NDArray[np.uint8],
    row_y: npt.NDArray[np.int64],
    row_start: npt.NDArray[np.int64],
    cell_x: npt.NDArray[np.int64],
    cell_start: npt.NDArray[np.int64],
    post_x: npt.NDArray[np.float64],
    post_y: npt.NDArray[np.float64],
    wanted: npt.NDArray[np.uint8],
    *,
    terms: Sequence[tuple[int, ...]],
    columns: int,
    pass_total: int,
    cell_size: float,
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
) -> npt.NDArray[np.void]:
    """Fit at every post that is wanted.

    Nothing is checked here: arrays that contradict each other are read out of bounds.

    Parameters
    ----------
    points : ndarray, shape (points, 4)
        x, y (m), time (years from the reference epoch), elevation (m), sorted by cell: by floor(y / cell_size), then by
        floor(x / cell_size).
    extras : ndarray, shape (points, extras)
        Columns of terms that are not made of ``points``.
    weights : ndarray, shape (points,)
        Positive.
    passes : ndarray, shape (points,)
        Pass of each point, 0 to pass_total - 1.
    modes, platforms : ndarray, shape (points,)
        Below 10; of equally frequent ones the lowest is the majority.
    row_y, row_start, cell_x, cell_start : ndarray
        As of :class:`cryotile.cells.Cells`.
    post_x, post_y : ndarray, shapes (nx,), (ny,)
        Posts, m; ascending x is fastest.
    wanted : ndarray, shape (ny, nx)
        Posts of 0 are left alone.
    terms, columns : sequence, int
        As of :class:`cryotile.terms.Layout`.
    pass_total : int
        Number of passes.
    cell_size : float
        radius / CELLS_PER_RADIUS, m.
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

    Returns
    -------
    ndarray, shape (ny, nx), dtype POST
        NaN where there is no fit.
    """
