"""Fit the elevation and its change at posts: inputs, kernel, variables."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.fit.config import FitConfig
from cryotile.fit.height_sums import HeightSums
from cryotile.fit.inputs import Inputs, kernel_intervals, make_kernel, take_inputs
from cryotile.fit.region_sums import RegionSums
from cryotile.fit.variables import Fitted, Status, name_variables

__all__ = ["check_axis", "fit_posts", "fit_with_sums"]

MAX_RADII = 2e9
"""Radii between a post and the origin of the CRS; further away, rounded coordinates would change the circle."""

ROOM = 1 << 18
"""Points in a circle for which each of several threads has memory; fuller circles are fitted afterwards, by one."""

_DEFAULT = FitConfig()

_Floats = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


def fit_posts(
    points: pd.DataFrame,
    post_x: npt.ArrayLike,
    post_y: npt.ArrayLike,
    config: FitConfig = _DEFAULT,
    *,
    crs: pyproj.CRS | str | None = None,
    threads: int = 1,
) -> xr.Dataset:
    """Fit elevation, slope and elevation change at each post of a rectangle.

    At a post (x0, y0) the points at a distance strictly below the search radius r and within the period are fitted by
    least squares: z = c2 + c0·u + c1·v + ḣ·τ with u = (x − x0) / r, v = (y − y0) / r and τ the time since the reference
    epoch in years of 31 557 600 s.  ``dhdt`` is ḣ, ``elevation`` c2, ``slope_x`` c0 / r, ``slope_y`` c1 / r.  The
    recipe ``passes`` adds curvature, direction, season and an offset of each pass, and rejects points.

    Parameters
    ----------
    points : DataFrame
        Columns ``x, y`` (m, projected), ``time`` (datetime64, any unit, UTC or with a time zone), ``elevation`` (m),
        ``pass_id`` (points of one pass share their error) and, if they are known, ``mode`` and ``platform``.  A point
        is used if it has a finite x, y and elevation, a time, a pass and a value of each column that is a term.
        Where modes mix within a circle and their offset is not fitted, only the most frequent mode is fitted, and
        ``terms`` records it.  ``passes`` reads ``ascending`` (an unknown direction says nothing), weights read
        ``uncertainty``.  Sums run in the order of the points, which may affect the last bits; other points and other
        posts do not.
    post_x : array_like of float, shape (nx,)
        x of the posts, m.
    post_y : array_like of float, shape (ny,)
        y of the posts, m.
    config : FitConfig
        Radius, terms, weights, period, reference epoch and gates.
    crs : pyproj.CRS or str or None
        CRS of x and y; None: ``points.attrs["crs"]``.  With a CRS slopes are per metre on the ground, without one per
        metre of the projection.
    threads : int
        Threads that fit posts side by side; the bytes are the same for any number.

    Returns
    -------
    Dataset, dimensions (y, x), shape (ny, nx); of windows (time, y, x) and of heights (height_time, y, x)
        The variables of :func:`cryotile.fit.variables.fit_variables`.  Values are NaN where there is no fit, and
        ``status`` gives the reason.  ``dhdt_sigma`` is the delete-one-pass jackknife and ``dhdt_ci95`` its 95 %
        interval by Student's t; both are NaN if one pass carries the fit alone, so that the fit without it is
        undetermined.

    Raises
    ------
    InvalidValue
        A column is missing or has invalid values, the points mix platforms whose offset is not fitted, or posts
        are not finite numbers.
    """
    return fit_with_sums(points, post_x, post_y, config, crs=crs, threads=threads)[0]


def fit_with_sums(
    points: pd.DataFrame,
    post_x: npt.ArrayLike,
    post_y: npt.ArrayLike,
    config: FitConfig,
    *,
    crs: pyproj.CRS | str | None = None,
    threads: int = 1,
    regions: npt.NDArray[np.int32] | None = None,
    areas: _Floats | None = None,
) -> tuple[xr.Dataset, RegionSums | None]:
    """Fit posts as :func:`fit_posts` does, and add their rates up by region.

    Parameters
    ----------
    points, post_x, post_y, config, crs
        As of :func:`fit_posts`.
    threads : int
        As of :func:`fit_posts`; with regions, one thread adds up in the order of posts.
    regions : ndarray of int32, shape (ny, nx), or None
        Number of the region of each post; negative: none.
    areas : ndarray, shape (ny, nx), or None
        Area of each post, m².

    Returns
    -------
    (Dataset, RegionSums or None)
        The maps, and the sums if there are regions.

    Raises
    ------
    InvalidValue
        As of :func:`fit_posts`.
    """
    if threads < 1:
        raise InvalidValue(f"threads {threads} must be 1 or more; give the number of cores")
    x, y = (
        check_axis(posts, name, config.radius)
        for posts, name in ((post_x, "post_x"), (post_y, "post_y"))
    )
    inputs = take_inputs(points, config)
    given = None if regions is None or areas is None else _Given(regions, areas, inputs)
    fitted = _fit(inputs, x, y, np.ones((y.size, x.size), bool), config.radius, threads, given)
    for wider in config.fallback_radii:
        open_posts = fitted.posts["status"] != Status.OK
        again = _fit(inputs, x, y, open_posts, wider, threads, given)
        fitted.replace(open_posts & (again.posts["status"] == Status.OK), again)
    crs = points.attrs.get("crs") if crs is None else crs
    maps = name_variables(fitted, x, y, inputs.config, crs)
    return maps, None if given is None else given.sums(fitted)


class _Given:
    """The regions of a rectangle of posts, and what the kernel adds up of them."""

    def __init__(self, regions: npt.NDArray[np.int32], areas: _Floats, inputs: Inputs) -> None:
        self._regions, self._areas = regions, np.ascontiguousarray(areas)
        # The kernel counts the regions of this rectangle.
        self._numbers = np.unique(regions[regions >= 0]).astype(np.int64)
        places = np.searchsorted(self._numbers, regions).astype(np.int32)
        self._labels = np.ascontiguousarray(np.where(regions >= 0, places, -1)[..., None], np.int32)
        self._deltas: _Floats | None = None
        self._inputs = inputs
        count, bins = self._numbers.size, len(inputs.config.intervals.get("height_time", ()))
        # Passes of several regions are few: the system provides only the pages of the rows that are filled.
        self._heights = (
            np.zeros((count, 2, bins)),
            np.zeros((count * inputs.pass_total if bins else 0, 2, bins)),
            np.full((count, inputs.pass_total), -1, np.int32),
            np.zeros(1, np.int32),
        )

    def options(self) -> dict[str, Any]:
        """Return arguments of the kernel."""
        if not self._numbers.size:
            return {}
        return {
            "regions": self._labels,
            "areas": self._areas,
            "region_total": self._numbers.size,
            "departures": self._heights if self._heights[1].size else None,
        }

    def take(self, deltas: _Floats | None) -> None:
        """Add the deltas of posts that were fitted with one radius; a post has a rate with one radius alone."""
        if deltas is not None:
            self._deltas = deltas if self._deltas is None else self._deltas + deltas

    def sums(self, fitted: Fitted) -> RegionSums:
        """Return the sums, with the passes that are in them."""
        inputs = self._inputs
        deltas = np.zeros((0, inputs.pass_total + 1)) if self._deltas is None else self._deltas
        here = np.flatnonzero(((deltas[:, :-1] != 0) | (self._heights[2] >= 0)).any(axis=0))
        ok = (fitted.posts["status"] == Status.OK) & (self._regions >= 0)
        area = np.zeros(len(deltas))
        np.add.at(area, self._labels[..., 0][ok], self._areas[ok])
        passes, first, last = inputs.passes_seen(here)
        return RegionSums(
            self._numbers,
            deltas[:, -1],
            area,
            passes,
            first,
            last,
            deltas[:, here],
            self._height_sums(here),
        )

    def _height_sums(self, here: npt.NDArray[np.intp]) -> HeightSums | None:
        totals, changed, rows, _ = self._heights
        if not totals.shape[-1]:
            return None
        region, code = np.nonzero(rows >= 0)
        own = changed[rows[region, code]]
        lost_row, lost_bin = np.nonzero(own[:, 1])
        return HeightSums(
            totals[:, 0],
            totals[:, 1],
            region,
            np.searchsorted(here, code),
            own[:, 0],
            lost_row,
            lost_bin,
            own[lost_row, 1, lost_bin],
        )


def check_axis(posts: npt.ArrayLike, name: str, radius: float) -> _Floats:
    """Return posts along one axis as floats.

    Parameters
    ----------
    posts : array_like, shape (n,)
        Metres.
    name : str
        Name of the axis in an error.
    radius : float
        Search radius, m.

    Raises
    ------
    InvalidValue
        They are not finite numbers along one axis, or are too far from the origin.
    """
    try:
        axis = np.ascontiguousarray(posts, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidValue(
            f"{name} holds {type(posts).__name__} values, not numbers; give metres"
        ) from None
    if np.ndim(posts) != 1:
        raise InvalidValue(
            f"{name} has {np.ndim(posts)} dimensions; give the posts along one axis, e.g. Grid.x"
        )
    beyond = axis[~(np.abs(axis) <= MAX_RADII * radius)]
    if beyond.size:
        raise InvalidValue(
            f"{name} holds {beyond[0]:g} m, which is not within {MAX_RADII:g} search radii of {radius:g} m of the"
            " origin, where floats can tell points apart; give finite posts in the points' CRS, or a larger radius"
        )
    return axis


def _fit(
    inputs: Inputs,
    x: _Floats,
    y: _Floats,
    wanted: _Flags,
    radius: float,
    threads: int,
    given: _Given | None = None,
) -> Fitted:
    """Fit the wanted posts with one radius."""
    kernel, cells = make_kernel(inputs, x, y, radius)
    windows, bins = kernel_intervals(inputs.config)

    def fit(rows: slice, some: _Flags, room: int) -> Fitted:
        options = {} if given is None else given.options()
        posts, coefficients, over_time = kernel.fit(
            x, y[rows], some[rows].view(np.uint8), room, windows=windows, bins=bins, **options
        )
        if given is not None:
            given.take(over_time.pop("deltas", None))
        return Fitted(posts, coefficients, np.full(posts.shape, radius), **over_time)

    if threads == 1 or y.size < 2 or given is not None:
        return fit(slice(None), wanted, cells.order.size)
    fitted = _fit_side_by_side(lambda rows: fit(rows, wanted, ROOM), y.size, threads)
    crowded = wanted & (fitted.posts["status"] == Status.NOT_COMPUTED)
    if crowded.any():
        fitted.replace(crowded, fit(slice(None), crowded, cells.order.size))
    return fitted


def _fit_side_by_side(fit_rows: Callable[[slice], Fitted], rows: int, threads: int) -> Fitted:
    """Fit rows of posts in several threads, a few rows at a time so that no thread waits long for the slowest."""
    step = max(1, rows // (8 * threads))
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(fit_rows, (slice(k, k + step) for k in range(0, rows, step))))
    return Fitted.stacked(parts)
