"""Time `fit_posts` against two plain ways to fit a plane at each post: `python benchmarks/fit.py`.

A tile of 50 by 50 posts, 1 km apart, at three densities of points.  Every contender starts from the same DataFrame and
is timed within the same round.  `fit_posts` does all of its work, the jackknife and the Dataset included; the plain
ways do the coefficients alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from cryotile import FitConfig, fit_posts

YEAR = np.timedelta64(31_557_600_000, "ms")
POSTS = np.arange(50) * 1000.0
DENSITIES = ((139, 2000.0), (676, 2000.0), (2643, 5000.0))  # points within the radius (m) of a post
MASKED_POSTS = 40  # the mask loop is timed on a few posts: each of its posts costs the same


def make_points(per_post: int, radius: float, *, passes: int = 40) -> pd.DataFrame:
    """Simulate points of ten years on a rising slope, with noise and errors that passes share."""
    generator = np.random.default_rng(per_post)
    low, high = POSTS[0] - radius, POSTS[-1] + radius
    size = round(per_post / (np.pi * radius**2) * (high - low) ** 2)
    x, y = generator.uniform(low, high, (2, size))
    number = np.sort(generator.integers(0, passes, size))
    years = generator.uniform(0, 10, passes)[number]
    errors = generator.normal(0, 0.3, passes)[number] + generator.normal(0, 0.3, size)
    return pd.DataFrame(
        {
            "x": x,
            "y": y,
            "time": np.datetime64("2011-01-01", "ms")
            + (years * YEAR.astype(float)).astype("timedelta64[ms]"),
            "elevation": 2000 + 0.01 * x - 0.004 * y + 0.5 * years + errors,
            "pass_id": number + (1 << 32),
        }
    )


def solve(points: pd.DataFrame, x: float, y: float) -> float:
    design = np.column_stack(
        [points["x"] - x, points["y"] - y, points["years"], np.ones(len(points))]
    )
    return float(np.linalg.lstsq(design, points["elevation"], rcond=None)[0][2])


def with_years(points: pd.DataFrame) -> pd.DataFrame:
    return points.assign(
        years=(points["time"].to_numpy() - np.datetime64("2016-01-01", "ms")) / YEAR
    )


def mask_loop(points: pd.DataFrame, radius: float) -> float:
    points = with_years(points)
    for k in range(MASKED_POSTS):
        x, y = POSTS[k], POSTS[(7 * k) % len(POSTS)]
        square = points[(np.abs(points["x"] - x) < radius) & (np.abs(points["y"] - y) < radius)]
        solve(square[(square["x"] - x) ** 2 + (square["y"] - y) ** 2 < radius**2], x, y)
    return MASKED_POSTS


def tree_loop(points: pd.DataFrame, radius: float) -> float:
    points = with_years(points)
    place, years, elevation = (
        points[["x", "y"]].to_numpy(),
        points["years"].to_numpy(),
        points["elevation"].to_numpy(),
    )
    tree = cKDTree(place)
    for y in POSTS:
        for x in POSTS:
            near = tree.query_ball_point((x, y), radius)
            design = np.column_stack([place[near] - (x, y), years[near], np.ones(len(near))])
            np.linalg.lstsq(design, elevation[near], rcond=None)
    return len(POSTS) ** 2


def kernel(points: pd.DataFrame, radius: float) -> float:
    fit_posts(points, POSTS, POSTS, FitConfig(radius=radius))
    return len(POSTS) ** 2


def rate(
    contender: Callable[[pd.DataFrame, float], float], points: pd.DataFrame, radius: float
) -> float:
    start = time.perf_counter()
    posts = contender(points, radius)
    return posts / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    contenders = {"mask loop": mask_loop, "cKDTree + lstsq": tree_loop, "fit_posts": kernel}
    print(
        f"posts/s, one thread, medians of {rounds} interleaved rounds; ratios are medians of the rounds' own"
    )
    print(
        f"{'points/post':>11} {'radius':>7} "
        + " ".join(f"{name:>16}" for name in contenders)
        + "   / mask   / tree"
    )
    for per_post, radius in DENSITIES:
        points = make_points(per_post, radius)
        rates = [
            {name: rate(c, points, radius) for name, c in contenders.items()} for _ in range(rounds)
        ]
        medians = " ".join(
            f"{statistics.median(r[name] for r in rates):16.0f}" for name in contenders
        )
        ratios = [
            statistics.median(r["fit_posts"] / r[name] for r in rates)
            for name in list(contenders)[:2]
        ]
        print(
            f"{per_post:11} {radius:7.0f} {medians} {ratios[0]:8.0f} {ratios[1]:8.1f}", flush=True
        )


if __name__ == "__main__":
    main()
