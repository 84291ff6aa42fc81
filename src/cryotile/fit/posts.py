"""Fit the elevation and its change at posts: what is checked, sorted and named around the kernel."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import xarray as xr

from cryotile._fit import Kernel, find_simd_level
from cryotile.errors import InvalidValue
from cryotile.fit.cells import Cells
from cryotile.fit.config import FitConfig
from cryotile.fit.inputs import (
    NS_PER_YEAR,
    Sample,
    epoch_nanoseconds,
    extra_columns,
    sort_into_cells,
    take_sample,
)
from cryotile.fit.student import quantile_975
from cryotile.fit.terms import (
    Layout,
    category_numbers,
    coefficients,
    materialize,
    point_weights,
)
from cryotile.fit.variables import Status, Term, axis_attrs, fit_variables, settings_attrs
from cryotile.geo.projection import point_scale
from cryotile.times import SECONDS_PER_YEAR, parse_instant

__all__ = ["Reason", "explain_post", "fit_posts", "simd_level"]

MAX_RADII = 2e9
"""Radii between a post and the origin of the CRS, beyond which the rounding of coordinates shows in the circle."""

ROOM = 1 << 18
"""Points in the circle of a post that each of several threads has room for; fuller circles wait for their turn."""

_DAYS_PER_YEAR = SECONDS_PER_YEAR / 86_400
_ROBUST = FitConfig()
_LEVEL = find_simd_level()

_Floats = npt.NDArray[np.float64]
_Parts = tuple[npt.NDArray[np.void], _Floats]


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
        The variables of :func:`cryotile.fit.variables.fit_variables`.  NaN where there is no fit, and
        ``status`` says why.
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
    sample = take_sample(points, config)
    fitted, layout = _fit(sample, x, y, np.ones((y.size, x.size), np.uint8), config.radius, threads)
    radius = np.full(fitted.posts.shape, config.radius)
    for wider in config.fallback_radii:
        open_posts = fitted.posts["status"] != Status.OK
        again, _ = _fit(sample, x, y, open_posts.view(np.uint8), wider, threads)
        mended = open_posts & (again.posts["status"] == Status.OK)
        fitted.posts[mended] = again.posts[mended]
        fitted.coefficients[mended] = again.coefficients[mended]
        radius[mended] = wider
    crs = points.attrs.get("crs") if crs is None else crs
    return _dataset(fitted, layout, sample.config, _Posts(x, y, radius, crs))


class Reason(StrEnum):
    """Why a point within the radius of a post is in its fit, or not."""

    KEPT = "kept"
    POINT_REJECTED = "point_rejected"
    PASS_REJECTED = "pass_rejected"
    OTHER_KIND = "other_kind"


def explain_post(points: pd.DataFrame, x: float, y: float, config: FitConfig) -> pd.DataFrame:
    """Tell what the fit at one post made of each point within its radius.

    Parameters
    ----------
    points : DataFrame
        As of :func:`fit_posts`.
    x, y : float
        The post, m.
    config : FitConfig
        As of :func:`fit_posts`; of several radii, the one whose fit the post has.

    Returns
    -------
    DataFrame, one row per point within the radius and the period, in the order of ``points``
        ``index`` (place in ``points``), ``pass_id``, ``reason`` (of :class:`Reason`; ``other_kind``: a mode or platform
        that is not the majority's), ``residual`` (m, elevation less the fit that the post came to, whether it counts
        or not; NaN where there was none) and ``pass_offset`` (m, the median residual of its pass about that of all
        passes when whole passes were screened; NaN where they were not).  ``attrs`` has ``status``
        (:class:`cryotile.fit.variables.Status`) and ``radius``.

    Raises
    ------
    InvalidValue
        As :func:`fit_posts`.
    """
    post = _axis([x], "x", config.radius), _axis([y], "y", config.radius)
    sample = take_sample(points, config)
    radii = (config.radius, *config.fallback_radii)
    explained = {radius: _explain(sample, *post, radius) for radius in radii}
    radius = next((r for r in radii if explained[r].attrs["status"] == Status.OK), config.radius)
    return explained[radius]


def _explain(sample: Sample, x: _Floats, y: _Floats, radius: float) -> pd.DataFrame:
    cells = sort_into_cells(sample, x, y, radius)
    kernel, _ = _kernel(sample, cells, radius, plain=False)
    post, seen, order, residuals, kept, pass_kept, offset = kernel.explain(x[0], y[0])
    reason = np.where(
        kept, Reason.KEPT, np.where(pass_kept, Reason.POINT_REJECTED, Reason.PASS_REJECTED)
    )
    told = pd.DataFrame(
        {"reason": reason, "residual": residuals, "pass_offset": offset}, index=cells.order[order]
    )
    told = told.reindex(np.sort(cells.order[seen]))
    told["reason"] = told["reason"].fillna(Reason.OTHER_KIND.value).astype(str)
    told.insert(0, "pass_id", sample.points["pass_id"].to_numpy()[told.index])
    told = told.rename_axis("index").reset_index()
    told.attrs = {"status": Status(int(post["status"])), "radius": radius}
    return told


@dataclass(frozen=True, eq=False)
class _Posts:
    x: _Floats
    y: _Floats
    radius: _Floats
    crs: pyproj.CRS | str | None


@dataclass(frozen=True, eq=False)
class _Fitted:
    posts: npt.NDArray[np.void]
    coefficients: _Floats


def _fit(
    sample: Sample,
    x: _Floats,
    y: _Floats,
    wanted: npt.NDArray[np.uint8],
    radius: float,
    threads: int,
) -> tuple[_Fitted, Layout]:
    cells = sort_into_cells(sample, x, y, radius)
    kernel, layout = _kernel(sample, cells, radius)
    if threads == 1 or y.size < 2:
        return _Fitted(*kernel.fit(x, y, wanted, cells.order.size)), layout
    fitted = _side_by_side(lambda some: kernel.fit(x, y[some], wanted[some], ROOM), y.size, threads)
    crowded = wanted.view(bool) & (fitted.posts["status"] == Status.NOT_COMPUTED)
    if crowded.any():
        alone = _Fitted(*kernel.fit(x, y, crowded.view(np.uint8), cells.order.size))
        fitted.posts[crowded] = alone.posts[crowded]
        fitted.coefficients[crowded] = alone.coefficients[crowded]
    return fitted, layout


def _kernel(
    sample: Sample, cells: Cells, radius: float, *, plain: bool = True
) -> tuple[Kernel, Layout]:
    """Hand points and settings to the kernel, which goes the short way to a plain plane unless told not to."""
    config = sample.config
    modes, platforms = (
        category_numbers(sample.points, cells.order, name) for name in ("mode", "platform")
    )
    mode_total, platform_total = _distinct(modes), _distinct(platforms)
    layout = materialize(config, modes=mode_total, platforms=platform_total)
    period = [parse_instant(text) for text in config.period or ()]
    share = (period[1] - period[0]).value / NS_PER_YEAR * config.min_span_share if period else 0.0
    kernel = Kernel(
        cells.x,
        cells.y,
        cells.rows,
        cells.passes,
        cells.row_y,
        cells.row_start,
        cells.cell_x,
        cells.cell_start,
        extras=extra_columns(sample, cells, layout.extras),
        weights=point_weights(sample.points, cells.order, config)
        if "uncertainty" in config.weights
        else None,
        modes=modes,
        platforms=platforms,
        terms=layout.terms,
        columns=layout.columns,
        slots=layout.slot_total,
        pass_total=sample.pass_total,
        mode_total=mode_total,
        radius=radius,
        min_span=max(config.min_span_days / _DAYS_PER_YEAR, share),
        min_tolerance=config.min_tolerance,
        max_rate=config.max_rate,
        distance_scale=config.distance_scale if "distance" in config.weights else 0.0,
        min_points=config.min_points,
        min_passes=config.min_passes,
        rejects=config.rejects,
        plain=plain and not (config.terms or config.weights or config.rejects),
        majority_mode=Term.MAJORITY_MODE.value,
        majority_platform=Term.MAJORITY_PLATFORM.value,
        level=_LEVEL,
    )
    return kernel, layout


def _distinct(numbers: npt.NDArray[np.uint8] | None) -> int:
    return 1 if numbers is None else max(1, int(np.count_nonzero(np.bincount(numbers))))


def _side_by_side(fit_some: Callable[[slice], _Parts], rows: int, threads: int) -> _Fitted:
    """Fit rows of posts in several threads; no more than a few rows wait for the slowest."""
    step = max(1, rows // (8 * threads))
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(fit_some, (slice(k, k + step) for k in range(0, rows, step))))
    return _Fitted(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


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
    found = fitted.posts
    has_fit = found["status"] == Status.OK
    per_metre = _point_scale(posts.x, posts.y, posts.crs) / posts.radius
    dof = np.where(has_fit, found["pass_count"] - 1, 0)
    values = {name: found[name] for name in found.dtype.names or ()} | {
        "dhdt_ci95": found["dhdt_sigma"] * quantile_975(dof),
        "dhdt_dof": dof,
        "slope_x": found["c0"] * per_metre,
        "slope_y": found["c1"] * per_metre,
        "time_start": _instants(found["time_start"], config),
        "time_end": _instants(found["time_end"], config),
        "radius": np.where(has_fit, posts.radius, np.nan),
        **coefficients(fitted.coefficients, layout, posts.radius),
    }
    # Ready variables and coordinates spare xarray half of its work, which is as long as the fit of a thousand posts.
    axes = {name: (name, axis, axis_attrs(name)) for name, axis in (("y", posts.y), ("x", posts.x))}
    return xr.Dataset(
        {
            v.name: xr.Variable(("y", "x"), values[v.name].astype(v.dtype), dict(v.attrs))
            for v in fit_variables(config)
        },
        coords=xr.Coordinates(axes),
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
