"""Quantiles of Student's t distribution, without scipy.

For a whole number of degrees of freedom the distribution function is a finite sum of cosines (Abramowitz and Stegun,
Handbook of Mathematical Functions, 1964, 26.7.3 and 26.7.4); for many it is nearly normal (26.7.5).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["quantile_975", "quantile_at"]

_Floats = npt.NDArray[np.float64]

_NORMAL_975 = 1.959963984540054  # the same quantile of the normal distribution
_NEARLY_NORMAL = 300  # from here on the series is good to 1e-12


def quantile_975(dof: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Return the 97.5 % quantile: ± quantile · sigma is the 95 % confidence interval.

    Parameters
    ----------
    dof : ndarray of int, any shape
        Degrees of freedom, not negative.

    Returns
    -------
    ndarray, the shape of ``dof``
        Good to 1e-11, relative; NaN where there is no degree of freedom.
    """
    present = np.flatnonzero(np.bincount(dof.ravel()))
    table = np.full(dof.max(initial=0) + 1, np.nan)
    table[present] = [_quantile(int(n)) for n in present]
    quantiles: _Floats = table[dof]
    return quantiles


@cache
def _quantile(dof: int) -> float:
    if dof < 1:
        return math.nan
    if dof < _NEARLY_NORMAL:
        return _solve(dof)
    return float(_series(np.array(dof, float), _NORMAL_975))


def quantile_at(normal: float, dof: _Floats) -> _Floats:
    """Return the quantile at the probability that the normal distribution has at ``normal``, for broken degrees too.

    Parameters
    ----------
    normal : float
        Quantile of the normal distribution, e.g. 1.96 for 97.5 %.
    dof : ndarray, any shape
        Degrees of freedom, as Welch and Satterthwaite's of a difference.

    Returns
    -------
    ndarray, the shape of ``dof``
        For ``normal`` up to 2, good to 1.1e-4 from five degrees on, to 1e-6 from twenty.
    """
    return _series(dof, normal)


def _solve(dof: int) -> float:
    # Newton in θ = arctan(t / √ν), in which the probability is concave: from below the root it cannot overshoot.
    theta = math.atan(_NORMAL_975 / math.sqrt(dof))
    density = 2 / math.sqrt(math.pi) * math.exp(math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2))
    for _ in range(50):
        step = (0.95 - _probability(theta, dof)) / (density * math.cos(theta) ** (dof - 1))
        theta += step
        if abs(step) < 1e-15:
            break
    return math.tan(theta) * math.sqrt(dof)


def _probability(theta: float, dof: int) -> float:
    """P(|T| < t), 26.7.3 for odd and 26.7.4 for even degrees of freedom."""
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = dof % 2
    term = total = (cosine if odd else 1.0) * (dof > 1)
    for k in range(2 + odd, dof - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (theta + sine * total) if odd else sine * total


def _series(dof: _Floats, z: float) -> _Floats:
    """Expansion about the normal quantile z, 26.7.5."""
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    expanded: _Floats = z + g1 / dof + g2 / dof**2 + g3 / dof**3 + g4 / dof**4
    return expanded
