"""Why a post has the points, terms and status that it has, as the kernel reports it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cryotile.fit.config import FitConfig
from cryotile.fit.inputs import Inputs, make_kernel, take_inputs
from cryotile.fit.posts import check_axis
from cryotile.fit.terms import Cause
from cryotile.fit.variables import Status
from cryotile.times import parse_instant

__all__ = ["Diagnosis", "Gate", "Limits", "Reason", "TermVerdict", "explain_gates", "explain_post"]

_DECIDED = (Status.OK, Status.SINGULAR, Status.RATE_OUT_OF_BOUNDS, Status.NOT_CONVERGED)
"""Statuses of posts whose terms were decided."""

_BECAUSE = {
    Cause.FITTED: "its tolerance is {value:.2g}",
    Cause.FITTED_ON_MEANS: "its tolerance is {value:.2g} on mean rows of passes",
    Cause.ONE_CATEGORY: "all points are of one {category}",
    Cause.UNKNOWN_VALUES: "unknown for {value:.0f} of {threshold:.0f} points",
    Cause.FEW_PASSES: "{value:.0f} passes, at least {threshold:.0f} are needed for {parameters} parameters of time",
    Cause.RATE_ON_MEANS: "with it the tolerance of the rate is {value:.2g}, at least {threshold:g} is needed",
    Cause.TERM_ON_MEANS: "its tolerance is {value:.2g}, at least {threshold:g} is needed",
    Cause.TOLERANCE: "with it the tolerance of a column is {value:.2g}, at least {threshold:g} is needed",
}

_FITTED = (Cause.FITTED, Cause.FITTED_ON_MEANS)


class Reason(StrEnum):
    """Why a point within the radius of a post is in its fit or not."""

    KEPT = "kept"
    POINT_REJECTED = "point_rejected"
    PASS_REJECTED = "pass_rejected"
    OTHER_KIND = "other_kind"


@dataclass(frozen=True)
class Gate:
    """A gate that a fit must pass.

    Attributes
    ----------
    name : str
        The quantity.
    value : float
        Its value at the post; NaN if the gate was not reached.
    threshold : float
        The limit.
    units : str
        Of both.
    passed : bool or None
        None if the gate was not reached.
    """

    name: str
    value: float
    threshold: float
    units: str
    passed: bool | None


@dataclass(frozen=True)
class TermVerdict:
    """Whether a term is in the fit of a post.

    Attributes
    ----------
    name : str
        Of the term.
    fitted : bool or None
        None if it was not decided, because a gate failed before.
    reason : str
        With the value and the threshold.
    """

    name: str
    fitted: bool | None
    reason: str


@dataclass(frozen=True)
class Limits:
    """Limits of the rejection at a post, metres; NaN if nothing was screened.

    Attributes
    ----------
    of_pass : float
        A pass is rejected if its offset exceeds ± this.
    middle : float
        Median residual of the kept points.
    of_point : float
        A point is rejected if its residual differs from ``middle`` by more.
    """

    of_pass: float
    middle: float
    of_point: float


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the fit at one post made of its points and terms.

    Attributes
    ----------
    points : DataFrame, one row per point within the radius and the period, in the order of the given points
        ``index`` (place in the given points), ``pass_id``, ``reason`` (of :class:`Reason`; ``other_kind``: a mode or
        platform that is not the most frequent), ``residual`` (m, elevation less the fit, whether the point is kept or
        not; NaN where there was no fit) and ``pass_offset`` (m, the median residual of its pass about that of all
        passes when whole passes were screened; NaN where they were not).
    status : Status
        Of the post.
    radius : float
        Search radius of the fit, m.
    terms : list of TermVerdict
        In the order of the config.
    tolerances : (float, float, float)
        Of u, v and τ beside the terms that are fitted; NaN if they were not reached.
    limits : Limits
        Of the rejection.
    """

    points: pd.DataFrame
    status: Status
    radius: float
    terms: list[TermVerdict]
    tolerances: tuple[float, float, float]
    limits: Limits


def explain_post(points: pd.DataFrame, x: float, y: float, config: FitConfig) -> Diagnosis:
    """Fit one post and report what the kernel decided about its points, passes and terms.

    Parameters
    ----------
    points : DataFrame
        As of :func:`cryotile.fit_posts`.
    x, y : float
        The post, m.
    config : FitConfig
        As of :func:`cryotile.fit_posts`; of several radii, the one whose fit the post has is explained.

    Raises
    ------
    InvalidValue
        As of :func:`cryotile.fit_posts`.
    """
    post = check_axis([x], "x", config.radius), check_axis([y], "y", config.radius)
    inputs = take_inputs(points, config)
    found = [_explain(inputs, *post, radius) for radius in (config.radius, *config.fallback_radii)]
    return next((one for one in found if one.status == Status.OK), found[0])


def _explain(
    inputs: Inputs, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], radius: float
) -> Diagnosis:
    kernel, cells = make_kernel(inputs, x, y, radius, plain=False)
    report = kernel.explain(x[0], y[0])
    passes = np.repeat(report["passes"], report["passes"]["points"])
    rejected = np.where(passes["kept"], Reason.POINT_REJECTED, Reason.PASS_REJECTED)
    told = pd.DataFrame(
        {
            "reason": np.where(report["kept"], Reason.KEPT, rejected),
            "residual": report["residuals"],
            "pass_offset": passes["offset"],
        },
        index=cells.order[report["order"]],
    )
    told = told.reindex(np.sort(cells.order[report["seen"]]))
    told["reason"] = told["reason"].fillna(Reason.OTHER_KIND.value).astype(str)
    told.insert(0, "pass_id", inputs.points["pass_id"].to_numpy()[told.index])
    status = Status(int(report["post"]["status"]))
    return Diagnosis(
        points=told.rename_axis("index").reset_index(),
        status=status,
        radius=radius,
        terms=_judge_terms(inputs.config, report["terms"], status),
        tolerances=report["tolerances"],
        limits=Limits(report["pass_limit"], report["point_middle"], report["point_limit"]),
    )


def _judge_terms(
    config: FitConfig, verdicts: npt.NDArray[np.void], status: Status
) -> list[TermVerdict]:
    """Put the verdicts of the kernel into words."""
    if status not in _DECIDED:
        reason = f"not reached: {status.name.lower()}"
        return [TermVerdict(name, None, reason) for name in config.terms]
    judged = {}
    for term, verdict in zip(config.kernel_terms, verdicts, strict=True):
        cause = Cause(int(verdict["cause"]))
        reason = _BECAUSE[cause].format(
            value=verdict["value"],
            threshold=verdict["threshold"],
            parameters=verdict["parameters"],
            category=term.category,
        )
        judged[term.name] = TermVerdict(term.name, cause in _FITTED, reason)
    return [judged[name] for name in config.terms]


def explain_gates(fit: xr.Dataset, config: FitConfig, tolerances: Sequence[float]) -> list[Gate]:
    """Return the value and the threshold of each gate, in the order in which they are tried.

    Parameters
    ----------
    fit : Dataset
        Of one post, without dimensions.
    config : FitConfig
        With its period.
    tolerances : sequence of float
        Of u, v and τ, as of :class:`Diagnosis`.

    Returns
    -------
    list of Gate
        Counts are those of kept points and passes.
    """
    assert config.period is not None
    start, end = (parse_instant(text) for text in config.period)
    period = (end - start).total_seconds() / 86_400
    span = (fit["time_end"].to_numpy() - fit["time_start"].to_numpy()) / np.timedelta64(1, "D")
    count, passes = int(fit["data_count"]), int(fit["pass_count"])
    least_span = max(config.min_span_days, config.min_span_share * period)
    status = Status(int(fit["status"]))
    least = min(tolerances) if status in _DECIDED else math.nan
    rows = [
        ("points", count, config.min_points, "", Status.TOO_FEW_POINTS),
        ("time span", float(span) if count else np.nan, least_span, "days", Status.TOO_SHORT_SPAN),
        ("passes", passes, config.min_passes, "", Status.TOO_FEW_PASSES),
        ("tolerance of u, v and time", least, config.min_tolerance, "", Status.SINGULAR),
        ("|dh/dt|", abs(float(fit["dhdt"])), config.max_rate, "m/yr", Status.RATE_OUT_OF_BOUNDS),
    ]
    order = [gate for *_, gate in rows]
    failed = len(order) if status in (Status.OK, Status.NOT_CONVERGED) else 0
    failed = order.index(status) if status in order else failed
    return [
        Gate(name, float(value), float(threshold), units, None if k > failed else k != failed)
        for k, (name, value, threshold, units, _) in enumerate(rows)
    ]
