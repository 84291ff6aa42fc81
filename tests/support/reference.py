"""A readable, slow fit of one post at a time, against which the kernel is tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

YEAR = np.timedelta64(31_557_600_000, "ms")


@dataclass(frozen=True)
class Plane:
    """c0 and c1 in metres per radius, dhdt in m/yr, elevation at the post and misfit."""

    c0: float
    c1: float
    dhdt: float
    elevation: float
    misfit_rms: float


def in_circle(points: pd.DataFrame, x: float, y: float, radius: float) -> pd.DataFrame:
    return points[(points["x"] - x) ** 2 + (points["y"] - y) ** 2 < radius**2]


def design(points: pd.DataFrame, x: float, y: float, radius: float, epoch: str) -> np.ndarray:
    years = (points["time"].to_numpy() - np.datetime64(epoch, "ms")) / YEAR
    return np.column_stack(
        [(points["x"] - x) / radius, (points["y"] - y) / radius, years, np.ones(len(points))]
    )


def fit_plane(points: pd.DataFrame, x: float, y: float, radius: float, epoch: str) -> Plane:
    near = in_circle(points, x, y, radius)
    matrix = design(near, x, y, radius, epoch)
    heights = near["elevation"].to_numpy()
    mean = heights.mean()
    coefficients = np.linalg.lstsq(matrix, heights - mean, rcond=None)[0]
    rss = float(np.sum((heights - mean - matrix @ coefficients) ** 2))
    return Plane(*coefficients[:3], coefficients[3] + mean, np.sqrt(rss / len(near)))


def jackknife(
    points: pd.DataFrame, x: float, y: float, radius: float, epoch: str
) -> tuple[float, float]:
    """Return delete-one-pass standard errors of dhdt and elevation, by leaving out each pass in turn."""
    near = in_circle(points, x, y, radius)
    passes = near["pass_id"].unique()
    whole = fit_plane(near, x, y, radius, epoch)
    parts = [fit_plane(near[near["pass_id"] != one], x, y, radius, epoch) for one in passes]
    factor = (len(passes) - 1) / len(passes)
    return (
        float(np.sqrt(factor * sum((part.dhdt - whole.dhdt) ** 2 for part in parts))),
        float(np.sqrt(factor * sum((part.elevation - whole.elevation) ** 2 for part in parts))),
    )
