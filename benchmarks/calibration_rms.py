"""The rms error of dh/dt beside those of other programs, on points of the same kind.

The programs' errors were measured once, in one run, over a tile of 50 km with posts every kilometre.  The points here
are like theirs as far as two fits can tell that both were given: the plane by least squares, and the plane by Huber's
M-estimator of statsmodels, have the same errors here and there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile import FitConfig, fit_posts

Floats = npt.NDArray[np.float64]

DENSITIES = ((139, 2000.0), (676, 2000.0), (2643, 5000.0))  # points in a circle, radius (m)
POSTS = np.arange(50) * 1000.0
PERIOD = ("2011-01-01", "2021-01-01")
PASSES = 40
WHITE, OUTLIER_SHARE, OUTLIERS = 1.35, 0.01, (5.0, 50.0)  # m
HILLS = ((11.0, 20e3, 0.3), (10.0, 23e3, 1.9), (140.0, 60e3, 1.0))  # m, wavelength m, direction rad
HUBER_POSTS = slice(3, None, 7)  # along either axis: one fit takes milliseconds

CONFIGS = {
    "plane (cryotile)": FitConfig(recipe="plane", period=PERIOD),
    "passes (cryotile)": FitConfig(recipe="passes", period=PERIOD),
}

# m/yr, at the three densities.
MEASURED = {
    "plane, least squares": (0.112, 0.042, 0.042),
    "plane, Huber (statsmodels)": (0.051, 0.024, 0.0375),
    "captoolkit, robust quadratic": (0.046, 0.019, 0.0125),
    "CPOM surface_fit, robust quadratic + direction": (0.065, 0.025, 0.0155),
    "numba, robust 8 terms": (0.048, 0.018, 0.0114),
}


def make_points(per_post: int, radius: float, seed: int) -> pd.DataFrame:
    """Simulate points over the tile, on hills that sink by half a metre a year, with outliers."""
    random = np.random.default_rng([seed, per_post])
    low, high = POSTS[0] - radius, POSTS[-1] + radius
    size = round(per_post / (np.pi * radius**2) * (high - low) ** 2)
    x, y = random.uniform(low, high, (2, size))
    number = random.integers(0, PASSES, size)
    days = random.uniform(0, 3652, PASSES)[number]
    elevation = 2000 + 0.01 * x - 0.004 * y + truth(x, y) * (days / 365.25 - 5)
    for height, wavelength, direction in HILLS:
        along = x * np.cos(direction) + y * np.sin(direction)
        elevation += height * np.sin(2 * np.pi * along / wavelength)
    wrong = random.random(size) < OUTLIER_SHARE
    elevation += wrong * random.choice((-1, 1), size) * random.uniform(*OUTLIERS, size)
    return pd.DataFrame(
        {
            "x": x,
            "y": y,
            "time": np.datetime64(PERIOD[0], "ms") + (days * 86_400_000).astype("timedelta64[ms]"),
            "elevation": elevation + random.normal(0, WHITE, size),
            "pass_id": number,
            "ascending": number % 2 == 0,
        }
    )


def truth(x: Floats, y: Floats) -> Floats:
    return -0.5 + 2e-6 * x - 1e-6 * y


def rms_errors(seeds: range) -> pd.DataFrame:
    """Return rms errors of dh/dt, m/yr: a row per fit, those measured elsewhere first; a column per density."""
    rows = {}
    expected = truth(*np.meshgrid(POSTS, POSTS))
    for per_post, radius in DENSITIES:
        worlds = [make_points(per_post, radius, seed) for seed in seeds]
        column = {
            f"{name}, here": _rms([fitted(points, radius, config) - expected for points in worlds])
            for name, config in CONFIGS.items()
        }
        some = expected[HUBER_POSTS, HUBER_POSTS]
        column["plane, Huber (statsmodels), here"] = _rms(
            [huber_plane(points, radius) - some for points in worlds]
        )
        rows[f"{per_post} points, {radius / 1000:g} km"] = column
    here = pd.DataFrame(rows)
    measured = pd.DataFrame(MEASURED, index=here.columns).T
    return pd.concat([measured, here]).rename_axis("m/yr")


def fitted(points: pd.DataFrame, radius: float, config: FitConfig) -> Floats:
    return fit_posts(points, POSTS, POSTS, replace(config, radius=radius))["dhdt"].to_numpy()


def huber_plane(points: pd.DataFrame, radius: float) -> Floats:
    """Fit a plane at some posts by statsmodels, independently of cryotile."""
    import statsmodels.api as sm

    columns = [points[name].to_numpy() for name in ("x", "y", "elevation")]
    years = (points["time"].to_numpy() - np.datetime64("2016-01-01")) / np.timedelta64(
        31_557_600, "s"
    )
    some = POSTS[HUBER_POSTS]
    rates = np.empty((some.size, some.size))
    for j, y in enumerate(some):
        for i, x in enumerate(some):
            u, v = (columns[0] - x) / radius, (columns[1] - y) / radius
            near = u * u + v * v < 1
            design = np.column_stack([np.ones(near.sum()), u[near], v[near], years[near]])
            rates[j, i] = sm.RLM(columns[2][near], design).fit().params[3]
    return rates


def _rms(errors: list[Floats]) -> float:
    return float(np.sqrt(np.nanmean(np.square(errors))))
