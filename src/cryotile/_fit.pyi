from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]

SIMD_LEVELS: tuple[str, ...]
"""Levels of vector instructions that the kernel is compiled for, the lowest first."""

POST: np.dtype[np.void]
"""The result at a post: dhdt, elevation, c0, c1 (m per radius), sigmas, counts, terms, status."""

WINDOW: np.dtype[np.void]
"""The rate in a window: dhdt, its sigma and 95 % interval (m/yr), points, passes, status."""

HEIGHT: np.dtype[np.void]
"""The height in an interval of time: absolute, its sigma and 95 % interval (m), points, passes."""

PASS: np.dtype[np.void]
"""A pass of a circle of the recipe ``passes``: code, number of points and of kept ones, whether it is free, time
(years), offset (m), studentised offset when it was last tested, change of the rate without it (m/yr); or NaN."""

class Report(TypedDict):
    """What was decided at one post by the recipe ``passes``.

    Attributes
    ----------
    post : void
        Of dtype POST.
    seen : ndarray
        Places of the points within the radius.
    order : ndarray
        Places of the points that were fitted, pass by pass.
    residuals : ndarray
        Of these points about the fit, metres.
    kept : ndarray
        Whether these points are kept.
    passes : ndarray, dtype PASS
        Of these points, in their order.
    thetas, likelihood : ndarray, shape (16,)
        Variances of pass offsets in units of that of points, and the logarithm of their likelihood.
    theta : float
        The likeliest.
    screen_sigma : float
        Of points within a pass, m, from the screen.
    """

    post: np.void
    seen: _Integers
    order: npt.NDArray[np.int32]
    residuals: _Floats
    kept: npt.NDArray[np.bool_]
    passes: npt.NDArray[np.void]
    thetas: _Floats
    likelihood: _Floats
    theta: float
    screen_sigma: float

def find_simd_level() -> str:
    """Return the highest level that this machine has."""

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
    """Sort the points that posts can see into cells; a radius spans a few cells.

    Parameters
    ----------
    x, y, elevation : ndarray, shape (points,)
        Metres; a point that is not finite is left out.
    ticks : ndarray, shape (points,)
        Times since 1970; ticks times ``tick`` must not overflow within the period.
    passes : ndarray, shape (points,)
        Codes; a point with a negative code is left out.
    post_x, post_y : ndarray, shapes (nx,), (ny,)
        Posts, m, ascending.
    radius : float
        Search radius, m.
    period : tuple of int
        First tick, and first tick after the last.
    tick : int
        Nanoseconds of a tick.
    epoch : int
        Reference epoch, nanoseconds since 1970.
    year : float
        Nanoseconds of a year.

    Returns
    -------
    tuple
        The elevation furthest from 0, and the attributes of :class:`cryotile.fit.inputs.Cells`.
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
    """The points of a tile and the settings of their fit; threads share it.

    Nothing is checked here: arrays that contradict each other lead to reads out of bounds.

    Parameters
    ----------
    x, y, rows, passes, row_y, row_start, cell_x, cell_start : ndarray
        As of :class:`cryotile.fit.inputs.Cells`.
    extras : ndarray, shape (points, extras), or None
        Columns of terms that are not computed from ``rows``.
    weights : ndarray, shape (points,), or None
        Positive; None: all are 1.
    modes, platforms : ndarray, shape (points,), or None
        Below 10; among equally frequent ones the lowest is the majority.  None: there is only one.
    terms, slots : sequence, int
        As of :func:`cryotile.fit.terms.terms_for_kernel`; number of coefficients.
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
    max_ci95 : float
        m/yr.
    plain : bool
        The recipe ``plane``, which has no terms and no weights; else ``passes``.
    student : ndarray, shape (2, pass_total + 2)
        t(0.975; k) at place k, and at place L the t for which P(|T| > t) · L = 0.005 with
        L - 3 degrees of freedom (infinite below 4).
    majority_mode : int
        Flag of a cut to the most frequent mode.
    level : str
        One of SIMD_LEVELS; the machine must have it.
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
        terms: Sequence[tuple[float, ...]],
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
        max_ci95: float,
        plain: bool,
        student: _Floats,
        majority_mode: int,
        level: str,
    ) -> None: ...
    def fit(
        self,
        post_x: _Floats,
        post_y: _Floats,
        wanted: npt.NDArray[np.uint8],
        room: int,
        *,
        windows: _Floats | None = None,
        bins: _Floats | None = None,
        regions: npt.NDArray[np.int32] | None = None,
        areas: _Floats | None = None,
        region_total: int = 0,
        departures: tuple[_Floats, _Floats, npt.NDArray[np.int32], npt.NDArray[np.int32]]
        | None = None,
        groups: npt.NDArray[np.int32] | None = None,
        group_total: int = 0,
    ) -> tuple[npt.NDArray[np.void], _Floats, dict[str, npt.NDArray[Any]]]:
        """Fit the wanted posts.

        Parameters
        ----------
        post_x, post_y : ndarray, shapes (nx,), (ny,)
            Posts, m; ascending x is fastest.
        wanted : ndarray, shape (ny, nx)
            0: the post is not computed.
        room : int
            Number of points for which memory is taken.
        windows : ndarray, shape (windows, 2), or None
            Start and end of each, half open, years from the reference epoch; recipe ``passes``, as the next ones.
        bins : ndarray, shape (bins + 1,), or None
            Ascending edges of the intervals of heights, likewise.
        regions : ndarray, shape (ny, nx, depth), or None
            Labels below ``region_total`` of the regions of each post; negative: none.
        areas : ndarray, shape (ny, nx), or None
            Factor of the rate of a post in the totals of its regions.
        region_total : int
            Number of regions.
        departures : tuple of ndarray, or None
            With regions and bins, what is added to: of shape (regions, 2, bins) the totals of the departures of heights
            from the straight line of the fit, m³, and the areas of posts with a height, m²; of shape (regions ·
            pass_total, 2, bins) by how much the former change when a pass is left out everywhere, and the areas of
            posts of which it alone has seen a bin, whose departure is then lost; int32 of shape (regions, pass_total)
            the row there of each pass, at first -1; int32 of shape (1,) the number of rows.
        groups : ndarray, shape (depth, pass_total), or None
            Labels below ``group_total`` of the groups of each pass; negative: none; recipe ``passes``.
        group_total : int
            Number of groups.

        Returns
        -------
        posts : ndarray, shape (ny, nx), dtype POST
            NaN where there is no fit; not computed if a circle may hold more points than ``room``.
        coefficients : ndarray, shape (ny, nx, 2 * slots)
            Of the terms, then their sigmas by leaving out passes: of acceleration, offsets and point columns, else NaN.
        more : dict
            ``windows``, shape (ny, nx, windows), dtype WINDOW; ``heights``, shape (ny, nx, bins), dtype HEIGHT; with
            groups ``changes``, shape (ny, nx, groups, 2): by how much the rate changes when all passes of a group are
            left out, and the standard deviation of that if passes share no error, m/yr, NaN if too few are left; with
            regions ``deltas``, shape (regions, pass_total + 1): by how much the total of a region changes when a pass
            is left out everywhere, and in the last place the total.  Deltas are summed in the order of posts.
        """

    def explain(self, x: float, y: float) -> Report:
        """Fit one post by the recipe ``passes`` and report what was decided about its points and passes."""
