"""Why a post has the points, passes and status that it has, as the kernel reports it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cryotile._fit import Kernel
from cryotile.fit.config import RECIPES, FitConfig
from cryotile.fit.inputs import Cells, Inputs, make_kernel, take_inputs
from cryotile.fit.posts import check_axis
from cryotile.fit.terms import TermFlag
from cryotile.fit.variables import Status
from cryotile.points import MODES, join_passes

__all__ = ["Diagnosis", "Gate", "Reason", "explain_gates", "explain_post"]

_DECIDED = (Status.OK, Status.SINGULAR, Status.RATE_OUT_OF_BOUNDS)
"""Statuses of posts whose tolerances are known."""


class Reason(StrEnum):
    """What became of a point within the radius of a post."""

    KEPT = "kept"
    FREE_PASS = "free_pass"
    POINT_REJECTED = "point_rejected"
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
    is_upper : bool
        Whether the limit is the largest value that passes.
    """

    name: str
    value: float
    threshold: float
    units: str
    passed: bool | None
    is_upper: bool = False


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the fit at one post made of its points and passes.

    Attributes
    ----------
    points : DataFrame, one row per point within the radius and the period, in the order of the given points
        ``index`` (place in the given points), ``pass_id`` (as of :func:`cryotile.points.join_passes`), ``reason`` (of
        :class:`Reason`; ``free_pass``: kept, in a pass of unknown offset; ``other_kind``: a mode or platform that is
        not the most frequent), ``residual`` (m, elevation less the fit, whether the point is kept or not; NaN where
        there was no fit) and ``pass_offset`` (m, of its pass).
    passes : DataFrame, one row per pass of these points, in the order of their first points
        ``pass_id``, ``offset`` (m, of the pass from the fit; NaN without one), ``t`` (its test as a bad pass; NaN if
        it was not tested), ``free`` (whether its offset is unknown) and ``delta`` (m/yr, dh/dt without the pass less
        dh/dt; NaN if it is free or there is no sigma).
    likelihood : DataFrame
        ``ratio`` (variance of pass offsets over that of points) and ``loglik``, less its largest value; empty where
        the fit was not reached.
    status : Status
        Of the post.
    radius : float
        Search radius of the fit, m.
    tolerances : (float, float, float)
        Of u, v and τ in a fit of the recipe ``plane``; NaN where a column does not vary.
    point_limit : float
        A point is rejected further than this from the offset of its pass, m; NaN if no point was screened.
    """

    points: pd.DataFrame
    passes: pd.DataFrame
    likelihood: pd.DataFrame
    status: Status
    radius: float
    tolerances: tuple[float, float, float]
    point_limit: float


def explain_post(points: pd.DataFrame, x: float, y: float, config: FitConfig) -> Diagnosis:
    """Fit one post and report what the kernel decided about its points and passes.

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
    kernel, cells = make_kernel(inputs, x, y, radius)
    if inputs.config.recipe == "passes":
        found = _report_passes(kernel, x[0], y[0])
    else:
        found = _report_plane(inputs, kernel, cells, (x[0], y[0], radius))
    passes, ids = found.passes, join_passes(inputs.points)
    of_point = passes.loc[np.repeat(passes.index, passes["points"])]
    kept = np.where(of_point["free"], Reason.FREE_PASS, Reason.KEPT)
    told = pd.DataFrame(
        {
            "reason": np.where(found.kept, kept, Reason.POINT_REJECTED),
            "residual": found.residuals,
            "pass_offset": of_point["offset"].to_numpy(),
        },
        index=cells.order[found.order],
    )
    first = told.index[np.cumsum(passes["points"]) - passes["points"]]
    told = told.reindex(np.sort(cells.order[found.seen]))
    told["reason"] = told["reason"].fillna(Reason.OTHER_KIND.value).astype(str)
    told.insert(0, "pass_id", ids[told.index])
    return Diagnosis(
        points=told.rename_axis("index").reset_index(),
        passes=passes.assign(pass_id=ids[first])[["pass_id", "offset", "t", "free", "delta"]],
        likelihood=found.likelihood,
        status=Status(int(found.post["status"])),
        radius=radius,
        tolerances=found.tolerances,
        point_limit=3 * found.sigma,
    )


@dataclass(frozen=True, eq=False)
class _Report:
    """What the kernel tells of a post under any recipe, as ``cryotile._fit.Kernel.explain`` gives it."""

    post: np.void
    seen: npt.NDArray[np.int64]
    order: npt.NDArray[np.int32]
    residuals: npt.NDArray[np.float64]
    kept: npt.NDArray[np.bool_]
    passes: pd.DataFrame
    likelihood: pd.DataFrame
    tolerances: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    sigma: float = math.nan


def _report_passes(kernel: Kernel, x: float, y: float) -> _Report:
    told = kernel.explain(x, y)
    loglik = told["likelihood"]
    return _Report(
        *(told["post"], told["seen"], told["order"], told["residuals"], told["kept"]),
        passes=pd.DataFrame(told["passes"]),
        likelihood=pd.DataFrame({"ratio": told["thetas"], "loglik": loglik - loglik.max()}),
        sigma=told["screen_sigma"],
    )


def _report_plane(
    inputs: Inputs, kernel: Kernel, cells: Cells, circle: tuple[float, float, float]
) -> _Report:
    """Return what a plane at a post says: every point is kept, and no pass has an offset."""
    x, y, radius = circle
    one = np.ones((1, 1), np.uint8)
    post = kernel.fit(np.array([x]), np.array([y]), one, cells.order.size)[0][0, 0]
    seen = np.flatnonzero((cells.x - x) ** 2 + (cells.y - y) ** 2 < radius**2)
    order = seen.astype(np.int32)
    if post["terms"] & TermFlag.MAJORITY_MODE:
        names = inputs.points["mode"].to_numpy()[cells.order[order]]
        modes = pd.Categorical(names, MODES).codes % (len(MODES) + 1)
        order = order[modes == np.bincount(modes).argmax()]
    order = order[np.argsort(cells.passes[order], kind="stable")]
    u, v = (cells.x[order] - x) / radius, (cells.y[order] - y) / radius
    tau = cells.rows[order, 2]
    surface = post["elevation"] + post["c0"] * u + post["c1"] * v + post["dhdt"] * tau
    _, counts = np.unique(cells.passes[order], return_counts=True)
    passes = pd.DataFrame({"points": counts})
    return _Report(
        *(post, seen, order, cells.rows[order, 3] - surface, np.ones(order.size, bool)),
        passes=passes.assign(offset=math.nan, t=math.nan, free=False, delta=math.nan),
        likelihood=pd.DataFrame({"ratio": [], "loglik": []}),
        tolerances=_tolerances(np.stack([u, v, tau])),
    )


def _tolerances(columns: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return 1 - R² of each of three columns against the others; NaN where one does not vary."""
    if columns.shape[1] < 2 or not np.ptp(columns, axis=1).all():
        return math.nan, math.nan, math.nan
    correlation = np.corrcoef(columns)
    if np.linalg.cond(correlation) > 1e12:
        return 0.0, 0.0, 0.0
    u, v, tau = 1 / np.diag(np.linalg.inv(correlation))
    return float(u), float(v), float(tau)


def explain_gates(
    fit: xr.Dataset, config: FitConfig, diagnosis: Diagnosis, ungated: xr.Dataset
) -> list[Gate]:
    """Return the value and the threshold of each gate, in the order in which they are tried.

    Parameters
    ----------
    fit : Dataset
        Of one post, without dimensions.
    config : FitConfig
        With its period.
    diagnosis : Diagnosis
        Of the post.
    ungated : Dataset
        As ``fit``, without limits of the rate and its interval.

    Returns
    -------
    list of Gate
        Counts are those of kept points and of passes that are not free.
    """
    span = (fit["time_end"].to_numpy() - fit["time_start"].to_numpy()) / np.timedelta64(1, "D")
    count, status = int(fit["data_count"]), Status(int(fit["status"]))
    least = min(diagnosis.tolerances) if status in _DECIDED else math.nan
    rate, interval = abs(float(ungated["dhdt"])), float(ungated["dhdt_ci95"])
    rows: Sequence[tuple[str, float, float, str, Status, str]] = [
        ("points", count, config.min_points, "", Status.TOO_FEW_POINTS, "min_points"),
        (
            *("time span", float(span) if count else math.nan),
            *(config.min_span_days, "days", Status.TOO_SHORT_SPAN, "min_span_days"),
        ),
        (
            *("passes", int(fit["pass_count"]), config.min_passes, ""),
            *(Status.TOO_FEW_PASSES, "min_passes"),
        ),
        (
            *("tolerance of u, v and time", least, config.min_tolerance, ""),
            *(Status.SINGULAR, "min_tolerance"),
        ),
        ("|dh/dt|", rate, config.max_rate, "m/yr", Status.RATE_OUT_OF_BOUNDS, "max_rate"),
        ("95 % interval", interval, config.max_ci95, "m/yr", Status.TOO_UNCERTAIN, "max_ci95"),
    ]
    rows = [row for row in rows if row[-1] in RECIPES[config.recipe]]
    order = [row[4] for row in rows]
    failed: float = len(order)
    if status in order:
        failed = order.index(status)
    elif status == Status.NO_POINTS:
        failed = 0
    elif (
        status == Status.SINGULAR
    ):  # no gate of the recipe passes: it comes between passes and rate
        failed = order.index(Status.RATE_OUT_OF_BOUNDS) - 0.5
    return [
        Gate(
            *(name, float(value), float(threshold), units),
            passed=None if k > failed else k != failed,
            is_upper=option.startswith("max"),
        )
        for k, (name, value, threshold, units, _, option) in enumerate(rows)
    ]
