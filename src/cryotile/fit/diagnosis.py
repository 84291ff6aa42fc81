"""Why a post has the terms and the status that it has: the rules of the fit, each with its value.

This explains what :mod:`cryotile.fit.posts` decided and decides nothing.  The columns are those of the kernel,
tolerances are found by least squares, one post at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cryotile.fit.config import TERMS, FitConfig
from cryotile.fit.terms import annual_columns, point_weights
from cryotile.fit.variables import Status
from cryotile.times import SECONDS_PER_YEAR, parse_instant

__all__ = [
    "LEAST_TIME_LIKE",
    "SPARE_PASSES",
    "Gate",
    "TermVerdict",
    "explain_gates",
    "explain_terms",
]

LEAST_TIME_LIKE, SPARE_PASSES = 0.1, 5
"""Tolerance on mean rows of passes, and passes left over, without which a time-like term is dropped; the kernel's."""

# A column whose rms spread is under 1e-6 of its scale (radius, year, 1) is constant to rounding; the kernel's.
_LEAST_VARIANCE = 1e-12

# What elimination leaves of a column that follows from others; the kernel's.
_LEAST_PIVOT = 1e-10

_OFFSETS = ("mode_offset", "platform_offset")
_TIME_LIKE = tuple(name for name in TERMS if name != "quadratic")

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gate:
    """A gate that a fit has to pass.

    Attributes
    ----------
    name : str
        What it looks at.
    value : float
        What the post has; NaN where it was not reached.
    threshold : float
        What is asked.
    units : str
        Of both.
    passed : bool or None
        None where it was not reached.
    """

    name: str
    value: float
    threshold: float
    units: str
    passed: bool | None


@dataclass(frozen=True)
class TermVerdict:
    """What has become of a term.

    Attributes
    ----------
    name : str
        Of the term.
    fitted : bool or None
        None where it was not decided, because a gate failed before.
    reason : str
        Why, with the value and the threshold.
    """

    name: str
    fitted: bool | None
    reason: str


def explain_gates(
    fit: xr.Dataset, config: FitConfig, tolerances: Sequence[float] | None
) -> list[Gate]:
    """Set what a post has beside what each gate asks, in the order in which they are tried.

    Parameters
    ----------
    fit : Dataset
        Of one post, without dimensions.
    config : FitConfig
        With its period.
    tolerances : sequence of float or None
        Of u, v and τ, where the fit came so far.

    Returns
    -------
    list of Gate
        Counts are those of points and passes that are kept.
    """
    assert config.period is not None
    start, end = (parse_instant(text) for text in config.period)
    period = (end - start).total_seconds() / 86_400
    span = (fit["time_end"].to_numpy() - fit["time_start"].to_numpy()) / np.timedelta64(1, "D")
    count, passes = int(fit["data_count"]), int(fit["pass_count"])
    asked = max(config.min_span_days, config.min_span_share * period)
    least = np.nan if tolerances is None else min(tolerances)
    rows = [
        ("points", count, config.min_points, "", Status.TOO_FEW_POINTS),
        ("time span", float(span) if count else np.nan, asked, "days", Status.TOO_SHORT_SPAN),
        ("passes", passes, config.min_passes, "", Status.TOO_FEW_PASSES),
        ("tolerance of u, v and time", least, config.min_tolerance, "", Status.SINGULAR),
        ("|dh/dt|", abs(float(fit["dhdt"])), config.max_rate, "m/yr", Status.RATE_OUT_OF_BOUNDS),
    ]
    status = Status(int(fit["status"]))
    order = [gate for *_, gate in rows]
    failed = len(order) if status in (Status.OK, Status.NOT_CONVERGED) else 0
    failed = order.index(status) if status in order else failed
    return [
        Gate(name, float(value), float(threshold), units, None if k > failed else k != failed)
        for k, (name, value, threshold, units, _) in enumerate(rows)
    ]


def explain_terms(
    points: pd.DataFrame, place: tuple[float, float], config: FitConfig
) -> tuple[list[TermVerdict], list[float]]:
    """Say which terms the points of a post determine, by the rules of the kernel, and why not the others.

    Parameters
    ----------
    points : DataFrame
        Those in the circle of the post, of passes that are not rejected; cut to one mode where the fit did that.
    place : (float, float)
        x and y of the post, m.
    config : FitConfig
        With period, reference epoch and the radius of the fit.

    Returns
    -------
    (list of TermVerdict, list of float)
        One for each term of the config; and the tolerances of u, v and τ beside the terms that are fitted.
    """
    base, weights = _base(points, place, config), _weights(points, place, config)
    blocks = {name: _columns(points, base, config, name) for name in _in_order(config)}
    dropped = {
        name: reason for name, block in blocks.items() if (reason := _without_rule(name, block))
    }
    passes = points["pass_id"].to_numpy()
    fitted = {name: block for name, block in blocks.items() if name not in dropped}
    while found := _next_time_like(base[:, 2:], fitted, _Means(passes, weights)):
        dropped |= found
        fitted = {name: block for name, block in fitted.items() if name not in dropped}
    while found := _next_undetermined(base, fitted, weights, config.min_tolerance):
        dropped |= found
        fitted = {name: block for name, block in fitted.items() if name not in dropped}
    kept = _tolerances(np.hstack([base, *fitted.values()]), weights)
    reasons = dropped | _margins(base[:, 2:], fitted, kept[3:], _Means(passes, weights))
    verdicts = [TermVerdict(name, name in fitted, reasons[name]) for name in config.terms]
    return verdicts, kept[:3].tolist()


@dataclass(frozen=True, eq=False)
class _Means:
    """One mean row per pass."""

    passes: npt.NDArray[np.int64]
    weights: _Floats

    def of(self, rows: _Floats) -> _Floats:
        frame = pd.DataFrame(rows * self.weights[:, None]).groupby(self.passes).sum()
        return (
            frame.to_numpy()
            / pd.Series(self.weights).groupby(self.passes).sum().to_numpy()[:, None]
        )


def _in_order(config: FitConfig) -> list[str]:
    """Terms in the order in which they are dropped: time-like ones, quadratic, point columns."""
    return [*(name for name in TERMS if name in config.terms), *config.column_terms]


def _base(points: pd.DataFrame, place: tuple[float, float], config: FitConfig) -> _Floats:
    """u, v and τ."""
    assert config.reference_epoch is not None
    since = points["time"].to_numpy() - parse_instant(config.reference_epoch).to_datetime64()
    u, v = (
        (points[name].to_numpy() - post) / config.radius
        for name, post in zip(("x", "y"), place, strict=True)
    )
    return np.column_stack([u, v, since / np.timedelta64(1, "ns") / (SECONDS_PER_YEAR * 1e9)])


def _weights(points: pd.DataFrame, place: tuple[float, float], config: FitConfig) -> _Floats:
    weights = point_weights(points, np.arange(len(points)), config)
    weights = np.ones(len(points)) if weights is None else weights
    if "distance" in config.weights:
        x, y = points["x"].to_numpy(), points["y"].to_numpy()
        away = np.hypot(x - place[0], y - place[1])
        weights = weights * np.exp(-away / config.distance_scale)
    return weights


def _columns(points: pd.DataFrame, base: _Floats, config: FitConfig, name: str) -> _Floats:
    """Columns of a term, shape (points, columns); NaN where they are not known."""
    if name == "quadratic":
        u, v = base[:, 0], base[:, 1]
        return np.column_stack([u * u, v * v, u * v])
    if name == "acceleration":
        return base[:, 2:] ** 2 / 2
    if name == "annual":
        instants = points["time"].to_numpy().astype("datetime64[ns]").astype(np.int64)
        return np.column_stack(annual_columns(instants, str(config.reference_epoch)))
    if name == "direction":
        return points[["ascending"]].to_numpy(np.float64, na_value=np.nan) - 0.5
    if name in _OFFSETS:
        codes = points[name.removesuffix("_offset")].astype("category").cat.codes
        seen = np.unique(codes)
        # Sums to zero; the last one is less all others.
        rows = np.vstack([np.eye(seen.size - 1), -np.ones((1, seen.size - 1))])
        return rows[np.searchsorted(seen, codes)]
    return points[[name]].to_numpy(np.float64)


def _without_rule(name: str, block: _Floats) -> str:
    if name in _OFFSETS and block.shape[1] == 0:
        return f"all points are of one {name.removesuffix('_offset')}"
    unknown = int(np.isnan(block).any(axis=1).sum())
    return f"unknown for {unknown} of {len(block)} points" if unknown else ""


def _next_time_like(years: _Floats, blocks: dict[str, _Floats], means: _Means) -> dict[str, str]:
    """Name the next time-like term to drop, and why; nothing when the others may stay."""
    names = [name for name in blocks if name in _TIME_LIKE]
    if not names:
        return {}
    rows = means.of(np.hstack([years, *(blocks[name] for name in names)]))
    needed = rows.shape[1] + SPARE_PASSES
    if len(rows) < needed:
        return {
            names[
                0
            ]: f"{len(rows)} passes, {needed} are asked for {rows.shape[1]} parameters of time"
        }
    least = _tolerances(rows, np.ones(len(rows)))
    if least[0] < LEAST_TIME_LIKE:
        return {
            names[
                0
            ]: f"beside it the tolerance of the rate is {least[0]:.2g}, {LEAST_TIME_LIKE:g} is asked"
        }
    for name, part in zip(names, _parts(least[1:], blocks, names), strict=True):
        if part < LEAST_TIME_LIKE:
            return {name: f"its tolerance is {part:.2g}, {LEAST_TIME_LIKE:g} is asked"}
    return {}


def _next_undetermined(
    base: _Floats, blocks: dict[str, _Floats], weights: _Floats, asked: float
) -> dict[str, str]:
    """Name the least determined term while a column has not its tolerance."""
    least = _tolerances(np.hstack([base, *blocks.values()]), weights)
    if not blocks or least.min() >= asked:
        return {}
    parts = dict(zip(blocks, _parts(least[3:], blocks, list(blocks)), strict=True))
    worst = min(parts, key=lambda name: parts[name])
    return {worst: f"a column's tolerance is {least.min():.2g} with it, {asked:g} is asked"}


def _margins(
    years: _Floats, blocks: dict[str, _Floats], least: _Floats, means: _Means
) -> dict[str, str]:
    """Say of each term that is fitted how well it is determined."""
    names = [name for name in blocks if name in _TIME_LIKE]
    rows = means.of(np.hstack([years, *(blocks[name] for name in names)]))
    on_means = _tolerances(rows, np.ones(len(rows)))[1:]
    found = dict(zip(blocks, _parts(least, blocks, list(blocks)), strict=True))
    found |= dict(zip(names, _parts(on_means, blocks, names), strict=True))
    return {
        name: f"its tolerance is {value:.2g}" + (" on mean rows of passes" if name in names else "")
        for name, value in found.items()
    }


def _parts(least: _Floats, blocks: dict[str, _Floats], names: list[str]) -> list[float]:
    """Least tolerance of each term's columns."""
    ends = np.cumsum([blocks[name].shape[1] for name in names])
    return [float(part.min()) for part in np.split(least, ends[:-1])] if names else []


def _tolerances(rows: _Floats, weights: _Floats) -> _Floats:
    """1 − R² of each column against the others, on columns centred and weighted.

    As in the kernel, a column that follows from those before it takes all the blame.
    """
    centred = (rows - np.average(rows, axis=0, weights=weights)) * np.sqrt(weights)[:, None]
    constant = (centred**2).sum(axis=0) <= _LEAST_VARIANCE * weights.sum()
    for k in range(rows.shape[1]):
        if constant[k] or _unexplained(centred[:, k], centred[:, :k]) <= _LEAST_PIVOT:
            return np.where(np.arange(rows.shape[1]) == k, 0.0, 1.0)
    return np.array(
        [_unexplained(centred[:, k], np.delete(centred, k, axis=1)) for k in range(rows.shape[1])]
    )


def _unexplained(column: _Floats, others: _Floats) -> float:
    rest = column - others @ np.linalg.lstsq(others, column, rcond=None)[0]
    return float(rest @ rest / (column @ column))
