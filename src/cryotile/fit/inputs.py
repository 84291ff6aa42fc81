"""From a DataFrame of points to a kernel: checked columns, sorted into cells, with the settings of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile._fit import Kernel, find_simd_level, seasons, sort_points
from cryotile.errors import InvalidValue
from cryotile.fit.config import NANOSECONDS_PER_YEAR, FitConfig
from cryotile.fit.terms import TermFlag, extra_columns, terms_for_kernel
from cryotile.points import MODES, join_passes
from cryotile.times import SECONDS_PER_YEAR, parse_instant

__all__ = ["Cells", "Inputs", "kernel_intervals", "make_kernel", "simd_level", "take_inputs"]

REQUIRED_COLUMNS = ("x", "y", "time", "elevation", "pass_id")

MAX_ELEVATION = 1e7
"""Metres; fill values exceed it, ice does not."""

_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_NAT = np.iinfo(np.int64).min
_DAYS_PER_YEAR = SECONDS_PER_YEAR / 86_400
_LEVEL = find_simd_level()

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]
_Places = npt.NDArray[np.integer]


def simd_level() -> str:
    """Return which vector instructions the kernel uses on this machine: ``avx512``, ``avx2`` or ``generic``.

    Every level gives the same bytes.
    """
    return _LEVEL


@dataclass(frozen=True, eq=False)
class Inputs:
    """The columns of a table of points that every fit needs, checked.

    Attributes
    ----------
    points : DataFrame
        The table.
    config : FitConfig
        With period and reference epoch, unless there are no points.
    x, y, elevation : ndarray of float64, shape (points,)
        Metres; not finite where a point has no value.
    ticks : ndarray of int64, shape (points,)
        Times since 1970.
    tick : int
        Nanoseconds of a tick.
    passes : ndarray of int64, shape (points,)
        Codes from 0 to ``pass_total`` - 1; a point with a negative code is not used.
    pass_total : int
        Number of passes among all points.
    pass_ids : ndarray, shape (points,)
        Pass ids, of which the codes number the distinct ones.
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
    pass_ids: npt.NDArray[Any]

    def column(self, name: str) -> _Floats:
        """Return a column as floats; NaN where a point has no value."""
        return _floats(self.points[name])

    def passes_seen(self, codes: _Places) -> tuple[_Integers, _Integers, _Integers]:
        """Return pass ids of some codes, and the times of their first and last points, milliseconds since 1970."""
        chosen = np.full(self.pass_total + 1, -1)
        chosen[codes] = np.arange(codes.size)
        place = chosen[self.passes]
        of = np.flatnonzero(place >= 0)
        found = np.zeros(codes.size, np.int64)
        found[place[of]] = self.pass_ids[of]
        first = np.full(codes.size, np.iinfo(np.int64).max)
        last = np.full(codes.size, np.iinfo(np.int64).min)
        milliseconds = self.ticks[of] * self.tick // 1_000_000
        np.minimum.at(first, place[of], milliseconds)
        np.maximum.at(last, place[of], milliseconds)
        return found, first, last

    def season(self, seen: _Places) -> _Floats:
        """Return cosine and sine of one turn a year from 1 January of the reference epoch's year.

        Parameters
        ----------
        seen : ndarray of int
            Places of the points.

        Returns
        -------
        ndarray, shape (2, seen)
        """
        epoch = self.config.reference_epoch or "1970-01-01"
        january = pd.Timestamp(parse_instant(epoch).year, 1, 1).as_unit("ns").value
        nanoseconds = np.ascontiguousarray(self.ticks.take(seen) * self.tick)
        return seasons(nanoseconds, january, int(NANOSECONDS_PER_YEAR))


@dataclass(frozen=True, eq=False)
class Cells:
    """Points sorted by rows of cells, then by cells, so that those around a post lie together in memory.

    Cell (i, j) is the square from (i, j) · size to (i + 1, j + 1) · size, whatever the tile and the points.  Only rows
    and cells that hold a point are listed, so that memory does not grow with the extent.

    Attributes
    ----------
    order : ndarray, shape (points,)
        Places in the table; the points of a cell keep their order.
    x, y : ndarray, shape (points,)
        Metres.
    rows : ndarray, shape (points, 4)
        x, y (m), years from the reference epoch, elevation (m).
    passes : ndarray, shape (points,)
        Codes of passes.
    row_y : ndarray, shape (rows,)
        j of each row, ascending.
    row_start : ndarray, shape (rows + 1,)
        First cell of each row, and the number of cells.
    cell_x : ndarray, shape (cells,)
        i of each cell, ascending within a row.
    cell_start : ndarray, shape (cells + 1,)
        First point of each cell, and the number of points.
    """

    order: npt.NDArray[np.int32]
    x: _Floats
    y: _Floats
    rows: _Floats
    passes: npt.NDArray[np.int32]
    row_y: _Integers
    row_start: _Integers
    cell_x: _Integers
    cell_start: _Integers


def take_inputs(points: pd.DataFrame, config: FitConfig) -> Inputs:
    """Return the columns of a DataFrame that every fit needs.

    Parameters
    ----------
    points : DataFrame
        As of :func:`cryotile.fit_posts`.
    config : FitConfig
        Settings of the fit.

    Raises
    ------
    InvalidValue
        A column is missing or has invalid values.
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
    pass_ids = join_passes(points)
    passes, pass_total = _number_passes(pass_ids)
    for name in config.column_terms:
        passes = np.where(np.isfinite(_known_floats(points[name])), passes, -1)
    x, y, elevation = (
        np.ascontiguousarray(_floats(points[name])) for name in ("x", "y", "elevation")
    )
    tick = _NANOSECONDS[unit]
    return Inputs(points, config, x, y, elevation, ticks, tick, passes, pass_total, pass_ids)


def make_kernel(inputs: Inputs, x: _Floats, y: _Floats, radius: float) -> tuple[Kernel, Cells]:
    """Return a kernel that holds the points posts can see and the settings of the fit.

    Parameters
    ----------
    inputs : Inputs
        All points.
    x, y : ndarray, shapes (nx,), (ny,)
        Posts, m.
    radius : float
        Search radius, m.

    Returns
    -------
    (Kernel, Cells)
        The kernel, and its points.

    Raises
    ------
    InvalidValue
        An elevation is a fill value, platforms mix, or a point has no weight.
    """
    config = inputs.config
    cells = _sort_into_cells(inputs, x, y, radius)
    modes = _number_categories(inputs.points, cells.order, "mode", MODES)
    # Without the term, there is one platform.
    offset = "platform_offset" in config.terms
    platforms = (
        _number_categories(inputs.points, cells.order, "platform", config.platforms)
        if offset
        else None
    )
    categories = {"mode": _distinct(modes), "platform": _distinct(platforms)}
    terms = terms_for_kernel(config.kernel_terms, categories, config.prior_sizes)
    kernel = Kernel(
        cells.x,
        cells.y,
        cells.rows,
        cells.passes,
        cells.row_y,
        cells.row_start,
        cells.cell_x,
        cells.cell_start,
        extras=extra_columns(config.kernel_terms, inputs, cells.order),
        weights=_weights(inputs, cells.order),
        modes=modes,
        platforms=platforms,
        terms=terms,
        slots=sum(len(term.outputs) for term in config.kernel_terms),
        pass_total=inputs.pass_total,
        mode_total=categories["mode"],
        radius=radius,
        min_span=config.min_span_days / _DAYS_PER_YEAR,
        min_tolerance=config.min_tolerance,
        max_rate=config.max_rate,
        distance_scale=config.distance_scale if "distance" in config.weights else 0.0,
        min_points=config.min_points,
        min_passes=config.min_passes,
        max_ci95=config.max_ci95,
        student=_student(inputs.pass_total),
        plain=config.recipe == "plane",
        majority_mode=TermFlag.MAJORITY_MODE.value,
        level=_LEVEL,
    )
    return kernel, cells


def kernel_intervals(config: FitConfig) -> tuple[_Floats, _Floats]:
    """Return starts and ends of windows, shape (n, 2), and edges of bins, in years from the reference epoch."""
    none = np.empty((0, 2), "datetime64[ms]")
    windows, bins = (config.intervals.get(name, none) for name in ("time", "height_time"))
    return _years(windows, config), _years(np.append(bins[:, 0], bins[-1:, 1]), config)


def _years(instants: npt.NDArray[np.datetime64], config: FitConfig) -> _Floats:
    since = instants.astype("datetime64[ns]").astype(np.int64) - config.epoch
    return since / NANOSECONDS_PER_YEAR


def _sort_into_cells(inputs: Inputs, x: _Floats, y: _Floats, radius: float) -> Cells:
    config = inputs.config
    extreme, columns = sort_points(
        inputs.x,
        inputs.y,
        inputs.elevation,
        inputs.ticks,
        inputs.passes,
        post_x=np.sort(x),
        post_y=np.sort(y),
        radius=radius,
        period=_period_in_ticks(config, inputs.tick),
        tick=inputs.tick,
        epoch=config.epoch,
        year=NANOSECONDS_PER_YEAR,
    )
    cells = Cells(*columns)
    if "platform_offset" not in config.terms:
        _refuse_mixed_platforms(inputs.points, cells.order)
    if abs(extreme) > MAX_ELEVATION:
        raise InvalidValue(
            f"column 'elevation' holds {extreme:g} m, which is beyond ±{MAX_ELEVATION:g} m; leave fill values out"
        )
    return cells


def _student(passes: int) -> _Floats:
    """Return t of a 95 % interval by degrees of freedom, and t beyond which a pass is bad by number of passes."""
    # A table of a power of two serves many tiles.
    return np.ascontiguousarray(_student_up_to(1 << (passes + 2).bit_length())[:, : passes + 2])


@lru_cache(maxsize=4)
def _student_up_to(size: int) -> _Floats:
    from scipy.special import stdtrit  # takes longer to import than a tile to fit

    number = np.arange(size, dtype=np.float64)
    table = np.full((2, size), np.nan)
    table[0, 1:] = stdtrit(number[1:], 0.975)
    table[1, :4] = np.inf
    # P(|T| > t) · L = 0.005 with L - 3 degrees of freedom.
    table[1, 4:] = stdtrit(number[4:] - 3, 1 - 0.0025 / number[4:])
    return table


def _number_categories(
    points: pd.DataFrame, seen: _Places, name: str, known: Sequence[str]
) -> npt.NDArray[np.uint8] | None:
    """Number the mode or platform of each point by its place in their list; an unknown one comes after the last."""
    if name not in points.columns:
        return None
    categories, codes = _categories(points[name], seen)
    unknown = [value for value in categories if value not in known]
    if unknown:
        raise InvalidValue(
            f"{name} {unknown[0]!r} is unknown; correct the points, which may have {', '.join(known)}"
            + (", or name it in other_platforms" if name == "platform" else "")
        )
    numbers = np.array([*(known.index(value) for value in categories), len(known)], np.uint8)
    return numbers.take(codes)


def _categories(column: pd.Series, seen: _Places) -> tuple[list[str], npt.NDArray[Any]]:
    """Return the possible texts of some points of a column, and the place of each point's, -1 if it has none."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        # Taking codes costs a tenth of taking points.
        return list(map(str, column.cat.categories)), column.cat.codes.to_numpy().take(seen)
    values = column.take(seen).astype("category").cat
    return list(map(str, values.categories)), values.codes.to_numpy()


def _distinct(numbers: npt.NDArray[np.uint8] | None) -> int:
    return 1 if numbers is None else max(1, int(np.count_nonzero(np.bincount(numbers))))


def _weights(inputs: Inputs, seen: _Places) -> _Floats | None:
    """Return the weight of each point by its uncertainty; None if all are 1."""
    config = inputs.config
    if "uncertainty" not in config.weights:
        return None
    if "uncertainty" not in inputs.points.columns:
        raise InvalidValue(
            "points have no column 'uncertainty' to weight by; leave that weight out"
        )
    uncertainty = inputs.column("uncertainty").take(seen)
    bad = np.flatnonzero(~((uncertainty >= 0) & (uncertainty < np.inf)))
    if bad.size:
        raise InvalidValue(
            f"column 'uncertainty' is {uncertainty[bad[0]]:g} for {bad.size} of {seen.size} points, and a weight"
            ' needs a finite one; select points by where="uncertainty >= 0", or leave that weight out'
        )
    return 1 / (uncertainty**2 + config.uncertainty_floor**2)


def _known_floats(column: pd.Series) -> _Floats:
    values = _floats(column)
    if values.size and not np.isfinite(values).any():
        raise InvalidValue(
            f"column {column.name!r} has no finite value, so it cannot be a term; leave it out of terms"
        )
    return values


def _number_passes(ids: npt.NDArray[Any]) -> tuple[_Integers, int]:
    """Return codes of passes in the order of their ids, negative where a point has no id, and their number."""
    if ids.dtype.kind != "i" or not ids.size:
        codes, distinct = pd.factorize(ids, sort=True)
        return codes.astype(np.int64, copy=False), len(distinct)
    # Points mostly come pass by pass: the first point of each run of equal ids is enough.
    heads = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    codes, distinct = pd.factorize(ids[heads], sort=True)
    numbers = np.repeat(codes.astype(np.int64, copy=False), np.diff(heads, append=ids.size))
    return numbers, len(distinct)


def _ticks(column: pd.Series) -> tuple[_Integers, str]:
    """Return times as numbers and their unit."""
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise InvalidValue(
            f"column 'time' is {column.dtype}, which has no unit and epoch;"
            " give datetime64 (UTC), e.g. by pandas.to_datetime"
        )
    # A time zone changes only how an instant is shown.
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
    if config.period is None:  # there are no times
        return 0, 0
    start, end = (parse_instant(text).value for text in config.period)
    return -(-start // tick), -(-end // tick)


def _refuse_mixed_platforms(points: pd.DataFrame, seen: _Places) -> None:
    if "platform" not in points.columns:
        return
    categories, codes = _categories(points["platform"], seen)
    if not codes.size or codes.min() == codes.max():
        return
    names = sorted(categories[code] for code in np.unique(codes) if code >= 0)
    if len(names) > 1:
        raise InvalidValue(
            f"points mix the platforms {', '.join(names)}, and the step between them would become elevation change;"
            f" select one, e.g. where=\"platform == '{names[0]}'\", or fit the step with the term platform_offset of"
            " the recipe passes"
        )
