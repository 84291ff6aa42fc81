import numpy as np
import numpy.typing as npt

CELLS_PER_RADIUS: int
"""Cells along one search radius."""

POST: np.dtype[np.void]
"""What is known of a post: c0, c1 (m per radius), dhdt, elevation, their sigmas, counts, times (years), status."""

def fit_plane_posts(
    points: npt.NDArray[np.float64],
    passes: npt.NDArray[np.int32],
    modes: npt.NDArray[np.uint8],
    row_y: npt.NDArray[np.int64],
    row_start: npt.NDArray[np.int64],
    cell_x: npt.NDArray[np.int64],
    cell_start: npt.NDArray[np.int64],
    post_x: npt.NDArray[np.float64],
    post_y: npt.NDArray[np.float64],
    *,
    pass_total: int,
    one_mode: bool,
    cell_size: float,
    radius: float,
    min_span: float,
    min_tolerance: float,
    min_points: int,
    min_passes: int,
) -> npt.NDArray[np.void]:
    """Fit a plane in x, y and time at every post.

    Nothing is checked here: arrays that contradict each other are read out of bounds.

    Parameters
    ----------
    points : ndarray, shape (points, 4)
        x, y (m), time (years from the reference epoch), elevation (m), sorted by cell: by floor(y / cell_size), then by
        floor(x / cell_size).
    passes : ndarray, shape (points,)
        Pass of each point, 0 to pass_total - 1.
    modes : ndarray, shape (points,)
        Mode of each point, below 16; of equally frequent ones the lowest is the majority.
    row_y : ndarray, shape (rows,)
        Numbers of the rows of cells that hold points, ascending.
    row_start : ndarray, shape (rows + 1,)
        First cell of each row.
    cell_x : ndarray, shape (cells,)
        Numbers of the cells along x, ascending within a row.
    cell_start : ndarray, shape (cells + 1,)
        First point of each cell.
    post_x, post_y : ndarray, shapes (nx,), (ny,)
        Posts, m; ascending x is fastest.
    pass_total : int
        Number of passes.
    one_mode : bool
        All points have one mode.
    cell_size : float
        radius / CELLS_PER_RADIUS, m.
    radius : float
        Search radius, m.
    min_span : float
        Years.
    min_tolerance : float
        Smallest 1 - R² of a column.
    min_points, min_passes : int
        Smallest counts.

    Returns
    -------
    ndarray, shape (ny, nx), dtype POST
        NaN where there is no fit.
    """
