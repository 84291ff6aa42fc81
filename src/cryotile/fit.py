"""Fit the elevation and its change at posts: what is checked, sorted and named around the kernel."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import xarray as xr

from cryotile._fit import CELLS_PER_RADIUS, find_simd_level, fit_at_posts
from cryotile.cells import sort_into_cells
from cryotile.config import SECONDS_PER_YEAR, FitConfig, parse_instant
from cryotile.errors import InvalidValue
from cryotile.outputs import Status, Term, axis_attrs, fit_variables, settings_attrs
from cryotile.projection import point_scale
from cryotile.sample import NS_PER_YEAR, Sample, epoch_nanoseconds, take_sample
from cryotile.student import quantile_975
from cryotile.terms import Layout, coefficients, lay_out

__all__ = ["fit_posts", "simd_level"]

MAX_RADII = 2e9
"""Radii between a post and the origin of the CRS, beyond which the rounding of coordinates shows in the circle."""

_DAYS_PER_YEAR = SECONDS_PER_YEAR / 86_400
_ROBUST = FitConfig()
_LEVEL = find_simd_level()

_Floats = npt.NDArray[np.float64]
_Fitted = npt.NDArray[np.void]


def simd_level() -> str:
    """Return which vector instructions the kernel uses on this machine: ``avx512``, ``avx2`` or ``generic``.

    Every level gives the same bytes.
    """
    return _LEVEL


def fit_posts(
    points: pd.DataFrame,
    post_x: npt.ArrayLike,
    post_y: npt.ArrayLike,
    config: FitConfig = _ROBUST,
    *,
    crs: pyproj.CRS | str | None = None,
    threads: int = 1,
) -> xr.Dataset:
    """Fit elevation, slope and elevation change at each post of a rectangle.

    At a post (x0, y0) the points at a distance strictly below the search radius r and within the period are fitted by
    least squares: z = c2 + c0·u + c1·v + ḣ·τ with u = (x − x0) / r, v = (y − y0) / r and τ the time since the reference
    epoch in years of 31 557 600 s.  ``dhdt`` is ḣ, ``elevation`` c2, ``slope_x`` c0 / r, ``slope_y`` c1 / r.  The
    config adds terms, weights and rejection.

    Parameters
    ----------
    points : DataFrame
        Columns ``x, y`` (m, projected), ``time`` (datetime64, any unit, UTC or with a time zone), ``elevation`` (m),
        ``pass_id`` (points of one pass share their error) and, where they matter, ``mode`` and ``platform``.  A point
        without a finite x, y and elevation, a time, a pass and a value of each column that is a term is not used.
        Where modes mix within a circle and their offset is not fitted, only the most frequent is, and ``terms`` says
        so.  The term ``direction`` reads ``ascending``, weights read ``uncertainty``.  The order of the points is the
        order of the sums: it may show in the last bits; other points and other posts do not.
    post_x : array_like of float, shape (nx,)
        Posts' x, m.
    post_y : array_like of float, shape (ny,)
        Posts' y, m.
    config : FitConfig
        Radius, terms, weights, period, reference epoch and gates.
    crs : pyproj.CRS or str or None
        CRS of x and y; None: ``points.attrs["crs"]``.  With it slopes are per metre on the ground, without it per
        metre of the projection.
    threads : int
        Threads that fit posts side by side; the bytes are the same for any number.

    Returns
    -------
    Dataset, dimensions (y, x), shape (ny, nx)
        The variables of :func:`cryotile.outputs.fit_variables`.  NaN where there is no fit, and ``status`` says why.
        ``dhdt_sigma`` is the delete-one-pass jackknife and ``dhdt_ci95`` its 95 % interval by Student's t; both are NaN
        where the fit without some pass is not determined, so that this pass carries the fit alone.

    Raises
    ------
    InvalidValue
        A column is missing or has values without meaning, the points mix platforms whose offset is not fitted, or posts
        are not finite numbers.
    """
    if threads < 1:
        raise InvalidValue(f"threads {threads} is not 1 or more; give the cores there are")
    x, y = _axis(post_x, "post_x", config.radius), _axis(post_y, "post_y", config.radius)
    sample = take_sample(points, x, y, config)
    layout = lay_out(
        sample.config, modes=_distinct(sample.modes), platforms=_distinct(sample.platforms)
    )
    fitted = _fit(sample, layout, x, y, config.radius, np.ones((y.size, x.size), np.uint8), threads)
    radius = np.full(fitted.shape, config.radius)
    for wider in config.fallback_radii:
        open_posts = fitted["status"] != Status.OK
        again = _fit(sample, layout, x, y, wider, open_posts.view(np.uint8), threads)
        mended = open_posts & (again["status"] == Status.OK)
        fitted[mended] = again[mended]
        radius[mended] = wider
    crs = points.attrs.get("crs") if crs is None else crs
    return _dataset(fitted, layout, sample.config, _Posts(x, y, radius, crs))


@dataclass(frozen=True, eq=False)
class _Posts:
    x: _Floats
    y: _Floats
    radius: _Floats
    crs: pyproj.CRS | str | None


def _distinct(numbers: npt.NDArray[np.uint8]) -> int:
    return max(1, np.unique(numbers).size)


def _fit(
    sample: Sample,
    layout: Layout,
    x: _Floats,
    y: _Floats,
    radius: float,
    wanted: npt.NDArray[np.uint8],
    threads: int,
) -> _Fitted:
    config = sample.config
    cells = sort_into_cells(sample.rows[:, 0], sample.rows[:, 1], radius / CELLS_PER_RADIUS)
    order = cells.order
    # The kernel takes the address of a first extra, whether there is one or not.
    extras = np.column_stack([sample.extras, np.zeros(order.size)]).take(order, axis=0)
    rows, weights = sample.rows.take(order, axis=0), sample.weights.take(order)
    passes, modes = sample.passes.take(order), sample.modes.take(order)
    platforms = sample.platforms.take(order)
    period = [parse_instant(text) for text in config.period or ()]
    share = (period[1] - period[0]).value / NS_PER_YEAR * config.min_span_share if period else 0.0

    def fit_some(some: slice) -> _Fitted:
        return fit_at_posts(
            rows,
            extras,
            weights,
            passes,
            modes,
            platforms,
            cells.row_y,
            cells.row_start,
            cells.cell_x,
            cells.cell_start,
            x,
            y[some],
            wanted[some],
            terms=layout.terms,
            columns=layout.columns,
            pass_total=sample.pass_total,
            cell_size=radius / CELLS_PER_RADIUS,
            radius=radius,
            min_span=max(config.min_span_days / _DAYS_PER_YEAR, share),
            min_tolerance=config.min_tolerance,
            max_rate=config.max_rate,
            distance_scale=config.distance_scale if "distance" in config.weights else 0.0,
            min_points=config.min_points,
            min_passes=config.min_passes,
            rejects=config.rejects,
            plain=not (config.terms or config.weights or config.rejects),
            majority_mode=Term.MAJORITY_MODE.value,
            majority_platform=Term.MAJORITY_PLATFORM.value,
            level=_LEVEL,
        )

    return _side_by_side(fit_some, y.size, threads)


def _side_by_side(fit_some: Callable[[slice], _Fitted], rows: int, threads: int) -> _Fitted:
    """Fit rows of posts in several threads; no more than a few rows wait for the slowest."""
    if threads == 1 or rows < 2:
        return fit_some(slice(0, rows))
    step = max(1, rows // (8 * threads))
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(fit_some, (slice(k, k + step) for k in range(0, rows, step)))
        return np.concatenate(list(parts))


def _axis(posts: npt.ArrayLike, name: str, radius: float) -> _Floats:
    try:
        axis = np.ascontiguousarray(posts, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidValue(
            f"{name} holds {type(posts).__name__} values that are no numbers; give metres"
        ) from None
    if np.ndim(posts) != 1:
        raise InvalidValue(
            f"{name} has {np.ndim(posts)} dimensions; give the posts along one axis, e.g. Grid.x"
        )
    beyond = axis[~(np.abs(axis) <= MAX_RADII * radius)]
    if beyond.size:
        raise InvalidValue(
            f"{name} holds {beyond[0]:g} m, which is not within {MAX_RADII:g} search radii of {radius:g} m of the"
            " origin, as far as floats tell points apart; give finite posts in the points' CRS, or a larger radius"
        )
    return axis


def _dataset(fitted: _Fitted, layout: Layout, config: FitConfig, posts: _Posts) -> xr.Dataset:
    """Name what the kernel gave, in SI units."""
    has_fit = fitted["status"] == Status.OK
    per_metre = _point_scale(posts.x, posts.y, posts.crs) / posts.radius
    dof = np.where(has_fit, fitted["pass_count"] - 1, 0)
    values = {name: fitted[name] for name in fitted.dtype.names or ()} | {
        "dhdt_ci95": fitted["dhdt_sigma"] * quantile_975(dof),
        "dhdt_dof": dof,
        "slope_x": fitted["c0"] * per_metre,
        "slope_y": fitted["c1"] * per_metre,
        "time_start": _instants(fitted["time_start"], config),
        "time_end": _instants(fitted["time_end"], config),
        "radius": np.where(has_fit, posts.radius, np.nan),
        **coefficients(fitted, layout, posts.radius),
    }
    return xr.Dataset(
        {
            v.name: (("y", "x"), values[v.name].astype(v.dtype), dict(v.attrs))
            for v in fit_variables(config)
        },
        coords={
            "y": ("y", posts.y, axis_attrs("y")),
            "x": ("x", posts.x, axis_attrs("x")),
        },
        attrs=settings_attrs(config),
    )


def _point_scale(x: _Floats, y: _Floats, crs: pyproj.CRS | str | None) -> _Floats:
    if crs is None:
        return np.ones((y.size, x.size))
    return point_scale(pyproj.CRS.from_user_input(crs), *np.meshgrid(x, y))


def _instants(years: _Floats, config: FitConfig) -> npt.NDArray[np.datetime64]:
    # Years hold an instant to some 50 ns over a century: rounding to the millisecond gives back what a product had.
    instants = np.full(years.shape, np.datetime64("NaT", "ms"))
    known = np.isfinite(years)
    since = np.rint(years[known] * NS_PER_YEAR).astype(np.int64) + epoch_nanoseconds(config)
    instants[known] = ((since + 500_000) // 1_000_000).astype("datetime64[ms]")
    return instants
