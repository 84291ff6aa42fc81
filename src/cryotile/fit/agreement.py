"""Halves of a data set, and how much their fits differ relative to their sigmas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cryotile.fit.variables import VARIABLES, Status, Variable, student_quantile
from cryotile.points import join_passes

__all__ = ["SPLITS", "Agreement", "agreement", "compare", "halves", "variables"]

SPLITS: Mapping[str, tuple[str, str]] = {
    "odd-even": ("odd", "even"),
    "ascending-descending": ("ascending", "descending"),
}
"""Name → names of its two halves."""

FEWEST_POSTS = 2
"""Smallest number of posts that has a spread."""

STRATA = (
    ("all", 0, math.inf),
    ("2 to 5", 2, 5),
    ("6 to 8", 6, 8),
    ("9 to 12", 9, 12),
    ("13 to 20", 13, 20),
    ("21 and more", 21, math.inf),
)
"""Name, and range of the number of passes of the half that has fewer."""

MAD_TO_SIGMA = 1.482602218505602
"""Standard deviation of normal values per median absolute deviation."""

_Floats = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


def halves(points: pd.DataFrame, split: str) -> tuple[_Flags, _Flags]:
    """Return which points are in each half.

    The id of a pass contains its orbit number, or its start if the orbit is unknown.  Odd and even orbits have
    equal numbers of ascending and descending passes, and alternate throughout a mission.

    Parameters
    ----------
    points : DataFrame
        With ``pass_id``, ``time`` and ``ascending``.
    split : str
        One of :data:`SPLITS`.

    Returns
    -------
    (ndarray of bool, ndarray of bool), shape (points,)
        No point is in both; by direction, a point whose direction is unknown is in neither.
    """
    if split == "odd-even":
        # cryotile.points.pass_id: the last bit is the direction, the next one the parity of the orbit.
        odd = (join_passes(points) >> 1) % 2 == 1
        return odd, ~odd
    ascending = points["ascending"]
    return (
        ascending.fillna(False).to_numpy(bool),
        (~ascending.fillna(True)).to_numpy(bool),
    )


def compare(one: xr.Dataset, other: xr.Dataset, names: tuple[str, str]) -> xr.Dataset:
    """Return the difference of two independent fits of the same posts.

    Parameters
    ----------
    one, other : Dataset, dimensions (y, x)
        As of :func:`cryotile.fit_posts`.
    names : (str, str)
        Their names.

    Returns
    -------
    Dataset, dimensions (y, x)
        The variables of :func:`variables`; differences are NaN if either fit lacks a rate or a sigma.  The degrees
        of freedom of a difference are those of Welch (1947) and Satterthwaite (1946):
        (σa² + σb²)² / (σa⁴/νa + σb⁴/νb).
    """
    va, vb = (fit["dhdt_sigma"].to_numpy() ** 2 for fit in (one, other))
    both = np.isfinite(va) & np.isfinite(vb) & (va + vb > 0)
    da, db = (np.where(both, fit["dhdt_dof"].to_numpy(), 1) for fit in (one, other))
    va, vb = (np.where(both, variance, np.nan) for variance in (va, vb))
    difference = one["dhdt"].to_numpy() - other["dhdt"].to_numpy()
    sigma, dof = np.sqrt(va + vb), (va + vb) ** 2 / (va**2 / da + vb**2 / db)
    times = [fit[name].to_numpy() for fit in (one, other) for name in ("time_start", "time_end")]
    values = {
        "dhdt_difference": np.where(both, difference, np.nan),
        "dhdt_difference_sigma": sigma,
        "dhdt_difference_dof": dof,
        "dhdt_difference_ci95": sigma * student_quantile(0.975, dof),
        "dhdt_difference_ratio": difference / sigma,
        "status": np.where(
            one["status"] != Status.OK, one["status"].to_numpy(), other["status"].to_numpy()
        ),
        # fmin and fmax ignore NaT.
        "time_start": np.fmin(times[0], times[2]),
        "time_end": np.fmax(times[1], times[3]),
    }
    for name, fit in zip(names, (one, other), strict=True):
        for variable in _OF_HALF:
            values[f"{variable}_{name}"] = fit[variable].to_numpy()
    return xr.Dataset(
        {
            v.name: (("y", "x"), values[v.name].astype(v.dtype), dict(v.attrs))
            for v in variables(names)
        },
        coords={"y": one["y"], "x": one["x"]},
    )


_OF_HALF = ("dhdt", "dhdt_sigma", "pass_count", "status")
"""Variables of the fit of each half that stand beside the difference."""


def variables(names: tuple[str, str]) -> tuple[Variable, ...]:
    """Return the variables of a comparison.

    Parameters
    ----------
    names : (str, str)
        Names of the halves.
    """
    one, other = names
    minus = f"rate of {one} passes less that of {other} ones"
    shared = {variable.name: variable for variable in VARIABLES}
    real = [
        ("dhdt_difference", "m yr-1", minus),
        ("dhdt_difference_sigma", "m yr-1", f"standard error of {minus}"),
        ("dhdt_difference_dof", "1", "degrees of freedom of dhdt_difference_sigma"),
        ("dhdt_difference_ci95", "m yr-1", f"half width of the 95 % interval of {minus}"),
        ("dhdt_difference_ratio", "1", f"{minus}, over its standard error"),
    ]
    return (
        *(
            Variable(name, "float64", np.nan, {"units": units, "long_name": text})
            for name, units, text in real
        ),
        *(
            Variable(
                f"{name}_{half}",
                shared[name].dtype,
                shared[name].fill,
                {
                    **shared[name].attrs,
                    "long_name": f"{shared[name].attrs['long_name']}, {half} passes",
                },
            )
            for half in names
            for name in _OF_HALF
        ),
        *(shared[name] for name in ("time_start", "time_end", "status")),
    )


@dataclass(frozen=True)
class Agreement:
    """Spread of the differences at some posts, divided by their standard errors.

    Attributes
    ----------
    passes : str
        Number of passes of the half that has fewer: ``all``, or a range.
    posts : int
        Number of compared posts.
    plain, robust : float
        Root mean square of the ratio, and 1.4826 times the median of its absolute value.
    plain_expected, robust_expected : float
        Their values for Student's t with these degrees of freedom; 1 for many.  The first is infinite if a post has two
        or fewer.
    within_ci95 : float
        Share of posts whose difference is within ± its 95 % interval; 0.95 is expected.
    """

    passes: str
    posts: int
    plain: float
    plain_expected: float
    robust: float
    robust_expected: float
    within_ci95: float


def agreement(differences: xr.Dataset, names: tuple[str, str]) -> list[Agreement]:
    """Return the spread of differences over all posts, and by the number of passes of the half that has fewer.

    Parameters
    ----------
    differences : Dataset
        With the variables of :func:`variables`.
    names : (str, str)
        Names of the halves.

    Returns
    -------
    list of Agreement
        All posts first; strata of fewer than two posts are left out, so the list may be empty.
    """
    ratio, dof = (
        differences[f"dhdt_difference_{name}"].to_numpy().ravel() for name in ("ratio", "dof")
    )
    passes = np.minimum(*(differences[f"pass_count_{name}"].to_numpy().ravel() for name in names))
    known = np.isfinite(ratio)
    ratio, dof, passes = ratio[known], dof[known], passes[known]
    found = []
    for text, low, high in STRATA:
        some = (passes >= low) & (passes <= high)
        if some.sum() >= FEWEST_POSTS:
            found.append(_spread(text, ratio[some], dof[some]))
    return found


def _spread(passes: str, ratio: _Floats, dof: _Floats) -> Agreement:
    size = np.abs(ratio)
    few = bool((dof <= 2).any())
    return Agreement(
        passes=passes,
        posts=ratio.size,
        plain=float(np.sqrt(np.mean(ratio**2))),
        # The variance of Student's t is ν / (ν − 2).
        plain_expected=math.inf if few else float(np.sqrt(np.mean(dof / (dof - 2)))),
        robust=float(MAD_TO_SIGMA * np.median(size)),
        robust_expected=float(MAD_TO_SIGMA * np.median(student_quantile(0.75, dof))),
        within_ci95=float(np.mean(size <= student_quantile(0.975, dof))),
    )
