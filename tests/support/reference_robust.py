"""A readable, slow robust fit of one post at a time by lstsq, against which the kernel is tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tests.support.reference import YEAR, in_circle

DROP_ORDER = ("annual", "acceleration", "direction", "mode_offset", "platform_offset")


@dataclass
class Fit:
    dhdt: float
    elevation: float
    dhdt_sigma: float
    elevation_sigma: float
    dhdt_sigma_formal: float
    misfit_rms: float
    coefficients: dict[str, np.ndarray]
    kept: pd.DataFrame
    rejected_passes: set[int]


def offset_codes(values: pd.Series) -> np.ndarray:
    categories = sorted(values.cat.codes.unique())
    k = len(categories)
    codes = np.vstack([np.eye(k - 1), -np.ones(k - 1)]) * (0.5 if k == 2 else 1.0)
    return codes[[categories.index(code) for code in values.cat.codes]]


def term_columns(near: pd.DataFrame, x, y, radius, epoch, terms) -> dict[str, np.ndarray]:
    u, v = (near["x"].to_numpy() - x) / radius, (near["y"].to_numpy() - y) / radius
    years = (near["time"].to_numpy() - np.datetime64(epoch, "ms")) / YEAR
    january = np.datetime64(epoch, "Y").astype("datetime64[ms]")
    season = 2 * np.pi * ((near["time"].to_numpy() - january) / YEAR)
    makers = {
        "quadratic": lambda: np.column_stack([u * u, v * v, u * v]),
        "acceleration": lambda: years[:, None] ** 2 / 2,
        "annual": lambda: np.column_stack([np.cos(season), np.sin(season)]),
        "direction": lambda: near["ascending"].to_numpy(float)[:, None] - 0.5,
        "mode_offset": lambda: offset_codes(near["mode"]),
        "platform_offset": lambda: offset_codes(near["platform"]),
    }
    return {
        name: makers[name]()
        if name in makers
        else (near[[name]] - near[[name]].median()).to_numpy(float)
        for name in terms
    }


def tolerance(matrix: np.ndarray, column: int) -> float:
    centred = matrix - matrix.mean(axis=0)
    one, others = centred[:, column], np.delete(centred, column, axis=1)
    if one @ one <= 1e-12 * len(one):
        return 0.0
    rest = one - others @ np.linalg.lstsq(others, one, rcond=None)[0]
    return rest @ rest / (one @ one)


def mean_tolerances(
    columns: dict, years: np.ndarray, passes: np.ndarray, kept: np.ndarray
) -> tuple[float, dict[str, float]]:
    """Tolerance on mean rows of the kept passes: of the rate, and the smallest of each time-like term."""
    names = [name for name in DROP_ORDER if name in columns]
    matrix = np.column_stack([years, *(columns[name] for name in names)])
    means = np.array(
        [matrix[kept & (passes == one)].mean(axis=0) for one in np.unique(passes[kept])]
    )
    rate, *others = (tolerance(means, k) for k in range(means.shape[1]))
    ends = np.cumsum([columns[name].shape[1] for name in names])
    parts = np.split(np.array(others), ends[:-1])
    return rate, {
        name: part.min() for name, part in zip(names, parts, strict=True)
    } if names else {}


def keep_time_like(columns: dict, years: np.ndarray, passes: np.ndarray, kept: np.ndarray) -> dict:
    """Drop time-like terms by the rule of mean rows."""
    columns = dict(columns)
    pass_total = len(np.unique(passes[kept]))
    while True:
        rate, tolerances = mean_tolerances(columns, years, passes, kept)
        failing = [name for name, value in tolerances.items() if value < 0.1]
        if rate < 0.1 or pass_total < 1 + sum(columns[name].shape[1] for name in tolerances) + 5:
            failing = list(tolerances)
        if not failing:
            return columns
        del columns[failing[0]]


def solve(matrix: np.ndarray, heights: np.ndarray, weights: np.ndarray) -> np.ndarray:
    root = np.sqrt(weights)
    return np.linalg.lstsq(matrix * root[:, None], heights * root, rcond=None)[0]


def medians_by_pass(residuals: np.ndarray, passes: np.ndarray, ids: np.ndarray) -> np.ndarray:
    medians = np.array([np.median(residuals[passes == one]) for one in ids])
    return medians - np.median(medians)


def screen(matrix, heights, weights, passes) -> set:
    """Return the rejected passes."""
    ids = pd.unique(passes)
    factors, before = np.ones(len(ids)), np.zeros(len(ids))
    for _ in range(10):
        per_point = dict(zip(ids, factors, strict=True))
        w = weights * np.array([per_point[one] for one in passes])
        residuals = heights - matrix @ solve(matrix, heights, w)
        m = medians_by_pass(residuals, passes, ids)
        if np.max(np.abs(m - before)) <= 0.05:
            break
        before, factors = m, 1 / np.maximum(np.abs(m), 0.1)
    limit = 4 * max(1.4826 * np.median(np.abs(m)), 0.1)
    return {one for one, value in zip(ids, m, strict=True) if abs(value) > limit}


def reject(matrix, heights, weights, candidates) -> np.ndarray:
    """Return which points are kept after at most five rounds; points may come back."""
    kept = candidates.copy()
    for _ in range(5):
        residuals = heights - matrix @ solve(matrix[kept], heights[kept], weights[kept])
        middle = np.median(residuals[kept])
        scale = max(1.4826 * np.median(np.abs(residuals[kept] - middle)), 1e-3)
        now = candidates & (np.abs(residuals - middle) <= 3 * scale)
        if (now == kept).all():
            break
        kept = now
    return kept


def weights_of(near: pd.DataFrame, x, y, *, floor=None, scale=None) -> np.ndarray:
    weights = np.ones(len(near))
    if floor is not None:
        weights /= near["uncertainty"].to_numpy() ** 2 + floor**2
    if scale is not None:
        weights *= np.exp(-np.hypot(near["x"] - x, near["y"] - y).to_numpy() / scale)
    return weights


def fit_robust(points, x, y, radius, epoch, *, terms, floor=None, scale=None, rejects=True) -> Fit:
    near = in_circle(points, x, y, radius).reset_index(drop=True)
    columns = term_columns(near, x, y, radius, epoch, terms)
    years = (near["time"].to_numpy() - np.datetime64(epoch, "ms")) / YEAR
    passes = near["pass_id"].to_numpy()
    centre = near["elevation"].mean()
    heights = near["elevation"].to_numpy() - centre
    weights = weights_of(near, x, y, floor=floor, scale=scale)
    base = np.column_stack(
        [np.ones(len(near)), (near["x"] - x) / radius, (near["y"] - y) / radius, years]
    )
    hiding = ("annual", "direction", "acceleration")
    out: set = set()
    if rejects:
        seen = [c for name, c in columns.items() if name not in hiding]
        out = screen(np.column_stack([base, *seen]), heights, weights, passes)
    candidates = ~np.isin(passes, list(out))
    columns = keep_time_like(columns, years, passes, candidates)
    matrix = np.column_stack([base, *columns.values()])
    kept = reject(matrix, heights, weights, candidates) if rejects else candidates
    matrix, heights, weights, passes = matrix[kept], heights[kept], weights[kept], passes[kept]
    beta = solve(matrix, heights, weights)
    rss = weights @ (heights - matrix @ beta) ** 2
    inverse = np.linalg.inv(matrix.T @ (weights[:, None] * matrix))
    left_out = np.array(
        [
            solve(matrix[passes != one], heights[passes != one], weights[passes != one])
            for one in np.unique(passes)
        ]
    )
    factor = 1 - 1 / len(left_out)
    sigma = np.sqrt(factor * np.sum((left_out - beta) ** 2, axis=0))
    named, at = {}, 4
    for name, block in columns.items():
        named[name] = beta[at : at + block.shape[1]]
        at += block.shape[1]
    return Fit(
        beta[3],
        beta[0] + centre,
        sigma[3],
        sigma[0],
        np.sqrt(rss / (len(heights) - len(beta)) * inverse[3, 3]),
        np.sqrt(rss / weights.sum()),
        named,
        near[kept],
        out,
    )
