"""Recipes of other programs, written anew from their papers; and least squares with a sigma by clusters.

- ``fit_ols``: least squares of a quadratic terrain and a rate, and the sigma of Liang & Zeger (1986, Biometrika 73, 13)
  with clusters of passes, as statsmodels has it; the interval is that of Student's t with G - 1 degrees of freedom.
  (With season and direction, which have no prior here, six to eight passes do not tell the rate: it errs by metres.)
- ``fit_m_estimator``: the surface fit of captoolkit (Nilsson et al. 2016, The Cryosphere 10, 2953; Nilsson et al. 2022,
  Earth Syst. Sci. Data 14, 3573): quadratic terrain and a rate, by Huber's M-estimator; sigma of a robust regression.
- ``fit_surface``: that of CPOM (McMillan et al. 2014, Geophys. Res. Lett. 41, 3899; Slater et al. 2018, The Cryosphere
  12, 1551): quadratic terrain, a rate and an offset by direction, by least squares that are repeated without the points
  beyond three standard deviations; formal sigma.

The papers give intervals of neither of the two: ± 1.96 sigma is taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import statsmodels.api as sm

Floats = npt.NDArray[np.float64]

EPOCH = np.datetime64("2016-01-01")
YEAR = np.timedelta64(31_557_600, "s")
ROUNDS, OUTLIER = 10, 3.0  # of the surface fit
HUBER = 1.345  # 95 % efficiency with normal errors


def fit_ols(columns: Mapping[str, Floats], z: Floats, passes: npt.ArrayLike) -> tuple[float, float]:
    """Return rate and half width of the 95 % interval by clusters of passes."""
    design = np.column_stack([*terrain(columns), columns["tau"]])
    fit = sm.OLS(z, design).fit(cov_type="cluster", cov_kwds={"groups": passes}, use_t=True)
    return fit.params[-1], float(fit.conf_int()[-1] @ [-0.5, 0.5])


def fit_m_estimator(
    columns: Mapping[str, Floats], z: Floats, _passes: npt.ArrayLike
) -> tuple[float, float]:
    """Return rate and ± 1.96 sigma of an M-estimator with a quadratic terrain."""
    design = np.column_stack([*terrain(columns), columns["tau"]])
    fit = sm.RLM(z, design, M=sm.robust.norms.HuberT(HUBER)).fit(maxiter=20)
    return fit.params[-1], 1.96 * fit.bse[-1]


def fit_surface(
    columns: Mapping[str, Floats], z: Floats, _passes: npt.ArrayLike
) -> tuple[float, float]:
    """Return rate and ± 1.96 sigma of repeated least squares with a direction."""
    design = np.column_stack([*terrain(columns), columns["up"], columns["tau"]])
    kept = np.ones(z.size, bool)
    for _ in range(ROUNDS):
        inverse = np.linalg.pinv(design[kept])
        beta = inverse @ z[kept]
        residuals = z - design @ beta
        freedom = kept.sum() - np.linalg.matrix_rank(design[kept])
        sigma = np.sqrt((residuals[kept] ** 2).sum() / max(freedom, 1))
        inside = np.abs(residuals) <= OUTLIER * sigma
        if (inside == kept).all() or inside.sum() <= design.shape[1]:
            break
        kept = inside
    return beta[-1], 1.96 * sigma * float(np.sqrt((inverse[-1] ** 2).sum()))


PEERS: dict[str, Callable[..., tuple[float, float]]] = {
    "OLS, clusters": fit_ols,
    "M-estimator": fit_m_estimator,
    "surface fit": fit_surface,
}


def terrain(columns: Mapping[str, Floats]) -> list[Floats]:
    """Return the columns of a quadratic surface."""
    u, v = columns["u"], columns["v"]
    return [np.ones(u.size), u, v, u * u, v * v, u * v]


def fit_peers(
    points: pd.DataFrame, x: Floats, y: Floats, radius: float, every: int = 1
) -> pd.DataFrame:
    """Fit the posts of simulated points by each recipe.

    Parameters
    ----------
    points : DataFrame
        With ``post``, the number of the only post that a point is near, row by row.
    x, y : ndarray, shapes (nx,), (ny,)
        The posts, m.
    radius : float
        Search radius, m.
    every : int
        Fit one of so many posts.

    Returns
    -------
    DataFrame
        ``post``, ``recipe``, ``dhdt``, ``ci95`` (m/yr).
    """
    tau = ((points["time"].to_numpy() - EPOCH) / YEAR).astype(float)
    up = np.where(points["ascending"].to_numpy(bool), 0.5, -0.5)
    post, z = points["post"].to_numpy(), points["elevation"].to_numpy()
    columns = {
        "u": (points["x"].to_numpy() - x[post % x.size]) / radius,
        "v": (points["y"].to_numpy() - y[post // x.size]) / radius,
        "tau": tau,
        "up": up,
    }
    labels = points["pass_id"].to_numpy()
    rows = []
    with warnings.catch_warnings():
        # Posts of few points: a sigma of 0, or an estimator that does not settle in 20 rounds.
        warnings.simplefilter("ignore")
        for number, some in points.groupby("post").indices.items():
            if number % every:
                continue
            own = {name: column[some] for name, column in columns.items()}
            mean = z[some].mean()
            for recipe, fit in PEERS.items():
                rows.append((number, recipe, *fit(own, z[some] - mean, labels[some])))
    return pd.DataFrame(rows, columns=["post", "recipe", "dhdt", "ci95"])
