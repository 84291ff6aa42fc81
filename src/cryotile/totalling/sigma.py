"""Standard errors of totals: passes deleted everywhere at once, filled areas, and their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, optimize, stats

__all__ = ["Estimate", "Variogram", "interval", "of_deltas", "pooled"]

Array = npt.NDArray[np.float64]

SAMPLE = 1000
"""Posts from which a variogram is estimated: half a million pairs."""

LAGS, RANGES = 16, 40
"""Classes of distance, and candidate ranges."""

CELLS = 512
"""Cells along a side of the lattice on which filled areas are correlated; smaller areas keep their posts."""


@dataclass(frozen=True)
class Estimate:
    """The variance of an estimate, and how well it is known.

    Attributes
    ----------
    variance : float
        NaN: unknown.
    dof : float
        Degrees of freedom; inf: taken as exact.
    """

    variance: float
    dof: float = np.inf


def of_deltas(deltas: Array) -> Estimate:
    """Return the variance of a sum from its changes when each pass is left out.

    Parameters
    ----------
    deltas : ndarray, shape (passes,)
        Changes; 0 for a pass that the sum does not know.

    Returns
    -------
    Estimate
        ΣΔ², with (ΣΔ²)²/ΣΔ⁴ degrees of freedom (Satterthwaite's for terms of one degree each).
    """
    squares = deltas**2
    total = float(squares.sum())
    if total == 0.0:
        return Estimate(np.nan)
    return Estimate(total, total**2 / float((squares**2).sum()))


def pooled(parts: list[Estimate]) -> Estimate:
    """Return the variance of a sum of independent parts, with Satterthwaite's degrees of freedom (1946)."""
    variance = sum(part.variance for part in parts)
    if not variance > 0:
        return Estimate(variance)
    share = sum(part.variance**2 / part.dof for part in parts)
    return Estimate(variance, variance**2 / share if share else np.inf)


def interval(estimate: Estimate) -> float:
    """Return the half width of the 95 % interval: t(0.975; dof) times the standard error."""
    if np.isnan(estimate.variance):
        return np.nan
    return float(stats.t.ppf(0.975, estimate.dof) * np.sqrt(estimate.variance))


@dataclass(frozen=True)
class Variogram:
    """How the rates of two places differ with their distance d: γ(d) = nugget + sill·(1 − exp(−d/reach)).

    The exponential model is valid in the plane (Chilès and Delfiner 2012, Geostatistics, section 2.5.1), so that no
    combination of places has a negative variance.

    Attributes
    ----------
    nugget, sill : float
        m² yr-2.
    reach : float
        m.
    """

    nugget: float
    sill: float
    reach: float

    @classmethod
    def fit(cls, x: Array, y: Array, values: Array, posting: float) -> Variogram:
        """Fit the model to half the mean squared difference by classes of distance (Matheron's estimator).

        Parameters
        ----------
        x, y : ndarray, shape (posts,)
            m.
        values : ndarray, shape (posts,)
            m yr-1.
        posting : float
            Distance between neighbouring posts, m.

        Returns
        -------
        Variogram
            Classes count by pairs over squared distance, because short distances tell the reach (the default of gstat,
            Pebesma 2004); the same posts give the same variogram.
        """
        if len(values) > SAMPLE:
            chosen = np.random.default_rng(0).choice(len(values), SAMPLE, replace=False)
            x, y, values = x[chosen], y[chosen], values[chosen]
        first, second = np.triu_indices(len(values), 1)
        distance = np.hypot(x[first] - x[second], y[first] - y[second])
        squared = (values[first] - values[second]) ** 2 / 2
        edges = np.geomspace(posting * 0.99, max(distance.max(), 2 * posting) * 1.01, LAGS + 1)
        edges[0] = 0.0
        place = np.digitize(distance, edges) - 1
        pairs = np.bincount(place, minlength=LAGS)
        used = pairs > 0
        gamma = np.bincount(place, squared, minlength=LAGS)[used] / pairs[used]
        lag = np.bincount(place, distance, minlength=LAGS)[used] / pairs[used]
        weight = np.sqrt(pairs[used]) / lag
        best = (np.inf, np.zeros(2), posting)
        for reach in np.geomspace(posting / 2, edges[-1], RANGES):
            model = np.column_stack([np.ones_like(lag), 1 - np.exp(-lag / reach)])
            found, left = optimize.nnls(model * weight[:, None], gamma * weight)
            if left < best[0]:
                best = (left, found, float(reach))
        _, (nugget, sill), reach = best
        return cls(float(nugget), float(sill), reach)

    def estimate(self, weights: Array, posting: float, area: float, lost: int) -> Estimate:
        """Return the variance of a weighted sum of the rates of posts whose weights add up to 0.

        Parameters
        ----------
        weights : ndarray, shape (ny, nx)
            m²; those of filled posts are minus their areas, those of fitted posts the area that takes their rate.
        posting : float
            m.
        area : float
            Area from which the variogram was estimated, m².
        lost : int
            Number of coefficients that were fitted to the values before.

        Returns
        -------
        Estimate
            m⁶ yr-2: −Σ Σ w_p w_q γ(d_pq), which is nugget·Σw² + sill·Σ Σ w_p w_q exp(−d_pq/reach).  The variance of a
            correlated field is known as well as from n = area / ∫ρ² independent places, and ∫ρ² = π·reach²/2: n − 1 −
            lost degrees of freedom, at least 2.  Residuals of a regression are too small by (n - lost)/n.
        """
        independent = area / max(np.pi * self.reach**2 / 2, posting**2)
        dof = max(2.0, independent - 1 - lost)
        return Estimate(self._variance(weights, posting) * (1 + lost / (dof + 1)), dof)

    def _variance(self, weights: Array, posting: float) -> float:
        used = np.nonzero(weights)
        if not len(used[0]):
            return 0.0
        rows, columns = (slice(place.min(), place.max() + 1) for place in used)
        lattice, size = _coarse(weights[rows, columns])
        shape = [fft.next_fast_len(2 * n, real=True) for n in lattice.shape]
        spectrum = fft.rfft2(lattice, shape)
        products = fft.irfft2(np.abs(spectrum) ** 2, shape)
        lags = [posting * size * np.minimum(np.arange(n), n - np.arange(n)) for n in shape]
        correlation = np.exp(-np.hypot(lags[0][:, None], lags[1]) / self.reach)
        correlated = max(0.0, float((products * correlation).sum()))
        return self.nugget * float((weights**2).sum()) + self.sill * correlated


def _coarse(weights: Array) -> tuple[Array, int]:
    """Return sums of weights over squares of posts, of which there are at most :data:`CELLS` along a side."""
    size = -(-max(weights.shape) // CELLS)
    padded = np.pad(weights, [(0, -n % size) for n in weights.shape])
    ny, nx = padded.shape
    return padded.reshape(ny // size, size, nx // size, size).sum(axis=(1, 3)), size
