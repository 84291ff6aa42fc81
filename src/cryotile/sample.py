"""What a fit takes from a DataFrame of points: checked columns, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile.config import SECONDS_PER_YEAR, FitConfig, parse_instant
from cryotile.errors import InvalidValue
from cryotile.terms import annual_columns, category_numbers, lay_out, point_weights

__all__ = ["NS_PER_YEAR", "Sample", "epoch_nanoseconds", "take_sample"]

REQUIRED_COLUMNS = ("x", "y", "time", "elevation", "pass_id")

MAX_ELEVATION = 1e7
"""Metres; what a fill value exceeds and no ice does."""

NS_PER_YEAR = SECONDS_PER_YEAR * 1e9

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sample:
    """The points that posts may see, and the config with its period.

    Attributes
    ----------
    config : FitConfig
        With period and reference epoch.
    rows : ndarray, shape (points, 4)
        x, y (m), years from the reference epoch, elevation (m).
    extras : ndarray, shape (points, extras)
        Columns of terms, as of :class:`cryotile.terms.Layout`.
    weights : ndarray, shape (points,)
        All but those by distance.
    passes : ndarray, shape (points,)
        Codes from 0 to ``pass_total`` - 1.
    pass_total : int
        Number of passes among all points given.
    modes, platforms : ndarray, shape (points,)
        Their places in the lists of them.
    """

    config: FitConfig
    rows: _Floats
    extras: _Floats
    weights: _Floats
    passes: npt.NDArray[np.int32]
    pass_total: int
    modes: npt.NDArray[np.uint8]
    platforms: npt.NDArray[np.uint8]


def take_sample(points: pd.DataFrame, x: _Floats, y: _Floats, config: FitConfig) -> Sample:
    """Take from a DataFrame the points that posts may see.

    Parameters
    ----------
    points : DataFrame
        As of :func:`cryotile.fit.fit_posts`.
    x, y : ndarray, shapes (nx,), (ny,)
        Posts, m.
    config : FitConfig
        What is fitted.

    Raises
    ------
    InvalidValue
        A column is missing or has values without meaning, or platforms mix.
    """
    for name in (*REQUIRED_COLUMNS, *config.column_terms):
        if name not in points.columns:
            raise InvalidValue(
                f"points have no column {name!r}; they need {', '.join(REQUIRED_COLUMNS)}, as PointDB.read gives them,"
                " and the columns that are terms"
            )
    times = _times(points["time"])
    if times.notna().any():
        config = config.frozen(times.min(), times.max())
    place = {name: _floats(points[name]) for name in ("x", "y", "elevation")}
    passes, distinct = pd.factorize(points["pass_id"])
    known = _within_reach(place, x, y, config.reach) & _within_period(times, config) & (passes >= 0)
    for name in config.column_terms:
        known &= np.isfinite(_known_floats(points[name]))
    seen = np.flatnonzero(known)
    if "platform_offset" not in config.terms:
        _refuse_mixed_platforms(points, seen)
    times = times.take(seen)
    elevation = place["elevation"].take(seen)
    _refuse_fill_values(elevation)
    return Sample(
        config,
        np.column_stack(
            [place["x"].take(seen), place["y"].take(seen), _years(times, config), elevation]
        ),
        _extras(points, seen, times, config),
        point_weights(points, seen, config),
        passes.take(seen).astype(np.int32),
        len(distinct),
        category_numbers(points, seen, "mode"),
        category_numbers(points, seen, "platform"),
    )


def _extras(
    points: pd.DataFrame, seen: _Integers, times: pd.DatetimeIndex, config: FitConfig
) -> _Floats:
    """Return the columns of terms that the kernel does not make itself, in the order of their layout."""
    columns: list[_Floats] = []
    for name in lay_out(config, modes=1, platforms=1).extras:
        if name == "cos":
            columns += annual_columns(
                times.as_unit("ns").asi8, config.reference_epoch or "1970-01-01"
            )
        elif name == "ascending":
            columns.append(_direction(points, seen))
        elif name != "sin":
            columns.append(_floats(points[name]).take(seen))
    return np.column_stack([np.empty((seen.size, 0)), *columns])


def _direction(points: pd.DataFrame, seen: _Integers) -> _Floats:
    """Return +½ on ascending and −½ on descending passes, NaN where that is not known."""
    if "ascending" not in points.columns:
        return np.full(seen.size, np.nan)
    return _floats(points["ascending"]).take(seen) - 0.5


def _known_floats(column: pd.Series) -> _Floats:
    values = _floats(column)
    if values.size and not np.isfinite(values).any():
        raise InvalidValue(
            f"column {column.name!r} has no finite value, so it cannot be a term; leave it out of terms"
        )
    return values


def _refuse_fill_values(elevation: _Floats) -> None:
    beyond = elevation[np.abs(elevation) > MAX_ELEVATION]
    if beyond.size:
        raise InvalidValue(
            f"column 'elevation' holds {beyond[0]:g} m, which is beyond ±{MAX_ELEVATION:g} m; leave fill values out"
        )


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
    years: _Floats = (times.as_unit("ns").asi8 - epoch_nanoseconds(config)) / NS_PER_YEAR
    return years


def epoch_nanoseconds(config: FitConfig) -> int:
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
