"""What a fit takes from a DataFrame of points: checked columns, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile._fit import sort_points
from cryotile.errors import InvalidValue
from cryotile.fit.cells import Cells
from cryotile.fit.config import FitConfig
from cryotile.fit.terms import annual_columns
from cryotile.times import SECONDS_PER_YEAR, parse_instant

__all__ = [
    "NS_PER_YEAR",
    "Sample",
    "epoch_nanoseconds",
    "extra_columns",
    "sort_into_cells",
    "take_sample",
]

REQUIRED_COLUMNS = ("x", "y", "time", "elevation", "pass_id")

MAX_ELEVATION = 1e7
"""Metres; what a fill value exceeds and no ice does."""

NS_PER_YEAR = SECONDS_PER_YEAR * 1e9

_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_NAT = np.iinfo(np.int64).min

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sample:
    """The columns of a table of points that every fit needs, checked.

    Attributes
    ----------
    points : DataFrame
        The table.
    config : FitConfig
        With period and reference epoch.
    x, y, elevation : ndarray of float64, shape (points,)
        Metres; not finite where a point has none.
    ticks : ndarray of int64, shape (points,)
        Times since 1970.
    tick : int
        Nanoseconds of a tick.
    passes : ndarray of int64, shape (points,)
        Codes from 0 to ``pass_total`` - 1; negative: the point is not to be used.
    pass_total : int
        Number of passes among all points given.
    """

    points: pd.DataFrame
    config: FitConfig
    x: _Floats
    y: _Floats
    elevation: _Floats
    ticks: _Integers
    tick: int
    passes: _Integers
    pass_total: int


def take_sample(points: pd.DataFrame, config: FitConfig) -> Sample:
    """Take from a DataFrame what every fit needs.

    Parameters
    ----------
    points : DataFrame
        As of :func:`cryotile.fit.posts.fit_posts`.
    config : FitConfig
        What is fitted.

    Raises
    ------
    InvalidValue
        A column is missing or has values without meaning.
    """
    for name in (*REQUIRED_COLUMNS, *config.column_terms):
        if name not in points.columns:
            raise InvalidValue(
                f"points have no column {name!r}; they need {', '.join(REQUIRED_COLUMNS)}, as PointDB.read gives them,"
                " and the columns that are terms"
            )
    ticks, unit = _ticks(points["time"])
    if config.period is None or config.reference_epoch is None:
        config = _frozen(config, ticks, unit)
    passes, pass_total = _number_passes(points["pass_id"].to_numpy())
    for name in config.column_terms:
        passes = np.where(np.isfinite(_known_floats(points[name])), passes, -1)
    x, y, elevation = (
        np.ascontiguousarray(_floats(points[name])) for name in ("x", "y", "elevation")
    )
    return Sample(
        points,
        config,
        x,
        y,
        elevation,
        ticks,
        _NANOSECONDS[unit],
        passes,
        pass_total,
    )


def sort_into_cells(sample: Sample, x: _Floats, y: _Floats, radius: float) -> Cells:
    """Sort the points that posts may see into the square cells that suit a radius.

    Parameters
    ----------
    sample : Sample
        All points.
    x, y : ndarray, shapes (nx,), (ny,)
        Posts, m.
    radius : float
        Search radius, m.

    Raises
    ------
    InvalidValue
        An elevation is a fill value, or platforms mix.
    """
    config = sample.config
    extreme, columns = sort_points(
        sample.x,
        sample.y,
        sample.elevation,
        sample.ticks,
        sample.passes,
        post_x=np.sort(x),
        post_y=np.sort(y),
        radius=radius,
        period=_period_in_ticks(config, sample.tick),
        tick=sample.tick,
        epoch=epoch_nanoseconds(config),
        year=NS_PER_YEAR,
    )
    cells = Cells(*columns)
    if "platform_offset" not in config.terms:
        _refuse_mixed_platforms(sample.points, cells.order)
    if abs(extreme) > MAX_ELEVATION:
        raise InvalidValue(
            f"column 'elevation' holds {extreme:g} m, which is beyond ±{MAX_ELEVATION:g} m; leave fill values out"
        )
    return cells


def extra_columns(sample: Sample, cells: Cells, names: Sequence[str]) -> _Floats | None:
    """Return the columns of terms that the kernel does not make itself.

    Parameters
    ----------
    sample : Sample
        All points.
    cells : Cells
        Those that posts may see.
    names : sequence of str
        As of :class:`cryotile.fit.terms.Layout`.

    Returns
    -------
    ndarray, shape (points, names), or None
        NaN where a direction is not known; None without names.
    """
    columns: list[_Floats] = []
    for name in names:
        if name == "cos":
            nanoseconds = sample.ticks.take(cells.order) * sample.tick
            columns += annual_columns(nanoseconds, sample.config.reference_epoch or "1970-01-01")
        elif name == "ascending":
            columns.append(_direction(sample.points, cells.order))
        elif name != "sin":
            columns.append(_floats(sample.points[name]).take(cells.order))
    return np.column_stack(columns) if columns else None


def _direction(points: pd.DataFrame, seen: npt.NDArray[np.integer]) -> _Floats:
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


def _number_passes(ids: npt.NDArray[Any]) -> tuple[_Integers, int]:
    """Return codes of passes in the order of their ids, negative where a point has none, and how many there are."""
    if ids.dtype.kind != "i" or not ids.size:
        codes, distinct = pd.factorize(ids, sort=True)
        return codes.astype(np.int64, copy=False), len(distinct)
    # Points mostly come pass by pass: it is enough to look at the first point of each run.
    heads = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    codes, distinct = pd.factorize(ids[heads], sort=True)
    numbers = np.repeat(codes.astype(np.int64, copy=False), np.diff(heads, append=ids.size))
    return numbers, len(distinct)


def _ticks(column: pd.Series) -> tuple[_Integers, str]:
    """Return times as numbers and their unit."""
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise InvalidValue(
            f"column 'time' is {column.dtype}, which does not say what it counts;"
            " give datetime64 (UTC), e.g. by pandas.to_datetime"
        )
    # A time zone is only how an instant is shown.
    times = pd.DatetimeIndex(column)
    return np.ascontiguousarray(times.asi8), times.unit


def _frozen(config: FitConfig, ticks: _Integers, unit: str) -> FitConfig:
    if ticks.size and ticks.min() == _NAT:
        ticks = ticks[ticks != _NAT]
    if not ticks.size:
        return config
    ends = (pd.Timestamp(int(end) * _NANOSECONDS[unit]) for end in (ticks.min(), ticks.max()))
    return config.frozen(*ends)


def _floats(column: pd.Series) -> _Floats:
    if column.dtype == np.float64 and isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise InvalidValue(
            f"column {column.name!r} is {column.dtype}, not numbers; give metres as float64"
        ) from None


def _period_in_ticks(config: FitConfig, tick: int) -> tuple[int, int]:
    if config.period is None:  # then there is no time at all
        return 0, 0
    start, end = (parse_instant(text).value for text in config.period)
    return -(-start // tick), -(-end // tick)


def epoch_nanoseconds(config: FitConfig) -> int:
    """Return the reference epoch in nanoseconds since 1970; without any point it does not matter."""
    return 0 if config.reference_epoch is None else parse_instant(config.reference_epoch).value


def _refuse_mixed_platforms(points: pd.DataFrame, seen: npt.NDArray[np.integer]) -> None:
    if "platform" not in points.columns:
        return
    names = sorted(map(str, points["platform"].take(seen).dropna().unique()))
    if len(names) > 1:
        raise InvalidValue(
            f"points mix the platforms {', '.join(names)}, and the step between them would become elevation change;"
            f" select one, e.g. where=\"platform == '{names[0]}'\", or fit the step with the term platform_offset where"
            " the recipe has terms (plane has none)"
        )
