"""Fit the elevation and its change at posts: what is checked, sorted and named around the kernel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import xarray as xr

from cryotile._fit import CELLS_PER_RADIUS, fit_plane_posts
from cryotile.cells import sort_into_cells
from cryotile.config import SECONDS_PER_YEAR, FitConfig, parse_instant
from cryotile.errors import InvalidValue
from cryotile.outputs import VARIABLES, Status, axis_attrs, settings_attrs
from cryotile.points import MODES
from cryotile.projection import point_scale
from cryotile.student import quantile_975

__all__ = ["fit_posts"]

REQUIRED_COLUMNS = ("x", "y", "time", "elevation", "pass_id")

MAX_RADII = 2e9
"""Radii between a post and the origin of the CRS, beyond which the rounding of coordinates shows in the circle."""

_DAYS_PER_YEAR = SECONDS_PER_YEAR / 86_400
_NS_PER_YEAR = SECONDS_PER_YEAR * 1e9
_PLANE = FitConfig()

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


def fit_posts(
    points: pd.DataFrame,
    post_x: npt.ArrayLike,
    post_y: npt.ArrayLike,
    config: FitConfig = _PLANE,
    *,
    crs: pyproj.CRS | str | None = None,
) -> xr.Dataset:
    """Fit elevation, slope and elevation change at each post of a rectangle.

    At a post (x0, y0) the points at a distance strictly below the search radius r and within the period are fitted by
    least squares: z = c2 + c0·u + c1·v + ḣ·τ with u = (x − x0) / r, v = (y − y0) / r and τ the time since the reference
    epoch in years of 31 557 600 s.  ``dhdt`` is ḣ, ``elevation`` c2, ``slope_x`` c0 / r, ``slope_y`` c1 / r.

    Parameters
    ----------
    points : DataFrame
        Columns ``x, y`` (m, projected), ``time`` (datetime64, any unit, UTC or with a time zone), ``elevation`` (m),
        ``pass_id`` (points of one pass share their error) and, where they matter, ``mode`` and ``platform``.  A point
        without a finite x, y and elevation, a time and a pass is not used.  Where modes mix within a circle only the
        most frequent is fitted, and ``terms`` says so.  The order of the points is the order of the sums: it may show
        in the last bits; other points and other posts do not.
    post_x : array_like of float, shape (nx,)
        Posts' x, m.
    post_y : array_like of float, shape (ny,)
        Posts' y, m.
    config : FitConfig
        Radius, period, reference epoch and gates.
    crs : pyproj.CRS or str or None
        CRS of x and y; None: ``points.attrs["crs"]``.  With it slopes are per metre on the ground, without it per
        metre of the projection.

    Returns
    -------
    Dataset, dimensions (y, x), shape (ny, nx)
        The variables of :data:`cryotile.outputs.VARIABLES`.  NaN where there is no fit, and ``status`` says why.
        ``dhdt_sigma`` is the delete-one-pass jackknife and ``dhdt_ci95`` its 95 % interval by Student's t; both are NaN
        where the fit without some pass is not determined, so that this pass carries the fit alone.

    Raises
    ------
    InvalidValue
        A column is missing or has a dtype without meaning, the points mix platforms, or posts are not finite numbers.
    """
    x, y = _axis(post_x, "post_x", config.radius), _axis(post_y, "post_y", config.radius)
    for name in REQUIRED_COLUMNS:
        if name not in points.columns:
            raise InvalidValue(
                f"points have no column {name!r}; they need {', '.join(REQUIRED_COLUMNS)}, as PointDB.read gives them"
            )
    times = _times(points["time"])
    if times.notna().any():
        config = config.frozen(times.min(), times.max())
    place = {name: _floats(points[name]) for name in ("x", "y", "elevation")}
    passes, distinct = pd.factorize(points["pass_id"])
    seen = np.flatnonzero(
        _within_reach(place, x, y, config.radius) & _within_period(times, config) & (passes >= 0)
    )
    _refuse_mixed_platforms(points, seen)
    rows = np.column_stack(
        [
            place["x"].take(seen),
            place["y"].take(seen),
            _years(times.take(seen), config),
            place["elevation"].take(seen),
        ]
    )
    cells = sort_into_cells(rows[:, 0], rows[:, 1], config.radius / CELLS_PER_RADIUS)
    modes = _mode_numbers(points, seen)
    fitted = fit_plane_posts(
        rows.take(cells.order, axis=0),
        passes.take(seen).take(cells.order).astype(np.int32),
        modes.take(cells.order),
        cells.row_y,
        cells.row_start,
        cells.cell_x,
        cells.cell_start,
        x,
        y,
        pass_total=len(distinct),
        one_mode=bool((modes == modes[:1]).all()),
        cell_size=config.radius / CELLS_PER_RADIUS,
        radius=config.radius,
        min_span=config.min_span_days / _DAYS_PER_YEAR,
        min_tolerance=config.min_tolerance,
        min_points=config.min_points,
        min_passes=config.min_passes,
    )
    return _dataset(fitted, x, y, config, points.attrs.get("crs") if crs is None else crs)


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


def _times(column: pd.Series) -> pd.DatetimeIndex:
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise InvalidValue(
            f"column 'time' is {column.dtype}, which does not say what it counts;"
            " give datetime64 (UTC), e.g. by pandas.to_datetime"
        )
    times = pd.DatetimeIndex(column)
    return times if times.tz is None else times.tz_convert(None)


def _floats(column: pd.Series) -> _Floats:
    if column.dtype == np.float64 and isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise InvalidValue(
            f"column {column.name!r} is {column.dtype}, not numbers; give metres as float64"
        ) from None


def _within_reach(
    place: dict[str, _Floats], x: _Floats, y: _Floats, radius: float
) -> npt.NDArray[np.bool_]:
    # A little more than the radius, lest rounding cut a circle; comparisons are False for NaN.
    reach = 1.001 * radius
    within = np.isfinite(place["elevation"])
    for name, posts in (("x", x), ("y", y)):
        within &= place[name] >= posts.min(initial=np.inf) - reach
        within &= place[name] <= posts.max(initial=-np.inf) + reach
    return within


def _within_period(times: pd.DatetimeIndex, config: FitConfig) -> npt.NDArray[np.bool_]:
    if config.period is None:  # then there is no time at all
        return np.zeros(times.size, bool)
    start, end = (parse_instant(text) for text in config.period)
    within: npt.NDArray[np.bool_] = (times >= start) & (times < end)
    return within


def _years(times: pd.DatetimeIndex, config: FitConfig) -> _Floats:
    # Nanoseconds cannot overflow within the period; the same instant gives the same bits, whatever its unit was.
    years: _Floats = (times.as_unit("ns").asi8 - _epoch(config)) / _NS_PER_YEAR
    return years


def _epoch(config: FitConfig) -> int:
    """Return the reference epoch in nanoseconds since 1970; without any point it does not matter."""
    return 0 if config.reference_epoch is None else parse_instant(config.reference_epoch).value


def _refuse_mixed_platforms(points: pd.DataFrame, seen: _Integers) -> None:
    if "platform" not in points.columns:
        return
    names = sorted(map(str, points["platform"].take(seen).dropna().unique()))
    if len(names) > 1:
        raise InvalidValue(
            f"points mix the platforms {', '.join(names)}, and the step between them would become elevation change;"
            f" select one, e.g. where=\"platform == '{names[0]}'\", or fit the step with the term platform_offset where"
            " the recipe has terms (plane has none)"
        )


def _mode_numbers(points: pd.DataFrame, seen: _Integers) -> npt.NDArray[np.uint8]:
    """Number each point's mode in the order of MODES; where none is given, that is one more mode."""
    if "mode" not in points.columns:
        return np.zeros(seen.size, np.uint8)
    modes = points["mode"].take(seen).astype("category").cat
    unknown = [str(name) for name in modes.categories if name not in MODES]
    if unknown:
        raise InvalidValue(
            f"mode {unknown[0]!r} is unknown; column 'mode' holds {', '.join(MODES)}"
        )
    numbers = np.array([*(MODES.index(name) for name in modes.categories), len(MODES)], np.uint8)
    return numbers.take(modes.codes)


def _dataset(
    fitted: npt.NDArray[np.void],
    x: _Floats,
    y: _Floats,
    config: FitConfig,
    crs: pyproj.CRS | str | None,
) -> xr.Dataset:
    """Name what the kernel gave, in SI units."""
    has_fit = fitted["status"] == Status.OK
    per_metre = _point_scale(x, y, crs) / config.radius
    dof = np.where(has_fit, fitted["pass_count"] - 1, 0)
    nothing = np.zeros(fitted.shape)
    values = {name: fitted[name] for name in fitted.dtype.names or ()} | {
        "dhdt_ci95": fitted["dhdt_sigma"] * quantile_975(dof),
        "dhdt_dof": dof,
        "slope_x": fitted["c0"] * per_metre,
        "slope_y": fitted["c1"] * per_metre,
        "rejected_count": nothing,
        "rejected_pass_count": nothing,
        "time_start": _instants(fitted["time_start"], config),
        "time_end": _instants(fitted["time_end"], config),
        "radius": np.where(has_fit, config.radius, np.nan),
    }
    return xr.Dataset(
        {v.name: (("y", "x"), values[v.name].astype(v.dtype), dict(v.attrs)) for v in VARIABLES},
        coords={"y": ("y", y, axis_attrs("y")), "x": ("x", x, axis_attrs("x"))},
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
    since = np.rint(years[known] * _NS_PER_YEAR).astype(np.int64) + _epoch(config)
    instants[known] = ((since + 500_000) // 1_000_000).astype("datetime64[ms]")
    return instants
