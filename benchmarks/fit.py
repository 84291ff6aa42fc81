"""Time `fit_posts` against other ways to fit at each post: `python benchmarks/fit.py`.

A tile of 50 by 50 posts, 1 km apart, at three densities of points.  Every contender starts from the same DataFrame and
is timed within the same round.  `fit_posts` does all of its work, the jackknife and the Dataset included; the plain
ways and the numba kernels of `numba_kernels.py` compute the coefficients, and the numba ones the formal sigma too.
Processor time of one thread is measured, because other work on the machine affects it least.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from cryotile import FitConfig, fit_posts
from cryotile.fit import simd_level
from numba_kernels import best_plane, cell_list, plane, robust

Contender = Callable[[pd.DataFrame, float], float]

YEAR = np.timedelta64(31_557_600_000, "ms")
POSTS = np.arange(50) * 1000.0
DENSITIES = ((139, 2000.0), (676, 2000.0), (2643, 5000.0))  # points within the radius (m) of a post
MASKED_POSTS = 40  # the mask loop is timed on a few posts, because each costs the same


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
            "ascending": number % 2 == 0,
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


def numba_loop(kernel: Callable[..., None], *, direction: bool = False) -> Contender:
    def contender(points: pd.DataFrame, radius: float) -> float:
        points = with_years(points)
        names = ("x", "y", "years", "elevation", *(("ascending",) if direction else ()))
        columns = [points[name].to_numpy(np.float64) for name in names]
        size = radius / 2
        order, *cells = cell_list(columns[0], columns[1], size)
        columns = [column[order] for column in columns]
        out = np.empty((len(POSTS), len(POSTS), 4))
        kernel(*columns, *cells, size, POSTS, POSTS, radius, out)
        return len(POSTS) ** 2

    return contender


def fitted(recipe: str, *terms: str) -> Contender:
    def contender(points: pd.DataFrame, radius: float) -> float:
        fit_posts(points, POSTS, POSTS, FitConfig(radius=radius, recipe=recipe, terms=terms))
        return len(POSTS) ** 2

    return contender


CONTENDERS: dict[str, Contender] = {
    "mask loop": mask_loop,
    "cKDTree + lstsq": tree_loop,
    "numba plane": numba_loop(plane),
    "best numba plane": numba_loop(best_plane),
    "fit_posts plane": fitted("plane"),
    "numba robust": numba_loop(robust, direction=True),
    "fit_posts robust": fitted("robust", "quadratic", "direction"),
}
# Goal: speed of one over speed of the other, at each density; NaN: no goal.
RATIOS = {
    ("fit_posts plane", "mask loop"): (np.nan, 500.0, np.nan),
    ("fit_posts plane", "cKDTree + lstsq"): (np.nan, np.nan, np.nan),
    ("fit_posts plane", "numba plane"): (2.0, 3.0, 4.0),
    ("fit_posts plane", "best numba plane"): (1.0, 1.0, 1.0),
    ("fit_posts robust", "numba robust"): (3.0, 3.0, 3.0),
}
THREADS = 1.8  # goal: speed of two threads over one


def rate(contender: Contender, points: pd.DataFrame, radius: float) -> float:
    start = time.process_time()
    posts = contender(points, radius)
    return posts / (time.process_time() - start)


def measure(points: pd.DataFrame, radius: float, rounds: int) -> pd.DataFrame:
    """Return posts a second, one row a round; a round before them compiles and is not counted."""
    rows = [
        {name: rate(contender, points, radius) for name, contender in CONTENDERS.items()}
        for _ in range(rounds + 1)
    ]
    return pd.DataFrame(rows[1:])


def speed_up(points: pd.DataFrame, radius: float, recipe: str, rounds: int) -> float:
    """Return the speed-up of two threads over one: the median of ratios of elapsed times."""
    config = FitConfig(radius=radius, recipe=recipe, terms=("quadratic",) * (recipe == "robust"))
    ratios = []
    for _ in range(rounds):
        elapsed = []
        for threads in (1, 2):
            start = time.perf_counter()
            fit_posts(points, POSTS, POSTS, config, threads=threads)
            elapsed.append(time.perf_counter() - start)
        ratios.append(elapsed[0] / elapsed[1])
    return float(np.median(ratios))


def plot(medians: pd.DataFrame, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    axes = medians.T.plot.barh(figsize=(8, 5), logx=True, width=0.8)
    axes.set_xlabel("posts a second, one thread")
    axes.legend(title="points a post")
    axes.figure.tight_layout()
    axes.figure.savefig(path)


def judge(ratio: float, goal: float) -> str:
    """Write a ratio beside its goal."""
    if np.isnan(goal):
        return f"{ratio:.3g}"
    return f"{ratio:.3g} ({'' if ratio >= goal else 'missed, '}≥ {goal:g})"


def table(medians: dict[int, pd.Series], ratios: dict[str, list[str]], rounds: int) -> str:
    """Make the page's table: posts a second, then ratios."""
    heads = [f"{count} points, {radius / 1000:g} km" for count, radius in DENSITIES]
    lines = [f"| | {' | '.join(heads)} |", "| --- | ---: | ---: | ---: |"]
    for name in CONTENDERS:
        figures = [f"{each[name]:,.0f}" for each in medians.values()]
        lines.append(f"| {name}, posts/s | {' | '.join(figures)} |")
    lines += [f"| {what} | {' | '.join(shown)} |" for what, shown in ratios.items()]
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    note = (
        f"Medians of {rounds} interleaved rounds; {simd_level()}; load average at the end {load}."
    )
    return "\n".join([*lines, "", note, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="Where to save the plot.")
    parser.add_argument("--table", type=Path, help="Where to save the table.")
    options = parser.parse_args()
    medians: dict[int, pd.Series] = {}
    ratios: dict[str, list[str]] = {}
    print(f"posts/s, one thread, medians of {options.rounds} interleaved rounds, {simd_level()}")
    for number, (per_post, radius) in enumerate(DENSITIES):
        points = make_points(per_post, radius)
        rates = measure(points, radius, options.rounds)
        medians[per_post] = rates.median()
        print(f"\n{per_post} points a post, radius {radius:g} m")
        for name, value in medians[per_post].items():
            print(f"  {name:18} {value:10.0f}")
        found = {
            f"{one} / {other}": ((rates[one] / rates[other]).median(), goals[number])
            for (one, other), goals in RATIOS.items()
        }
        for recipe in ("plane", "robust"):
            gain = speed_up(points, radius, recipe, options.rounds)
            found[f"fit_posts {recipe}, two threads / one"] = gain, THREADS
        for what, (ratio, goal) in found.items():
            ratios.setdefault(what, []).append(judge(ratio, goal))
            print(f"  {what}: {ratios[what][-1]}", flush=True)
    if options.plot:
        plot(pd.DataFrame(medians).T, options.plot)
    if options.table:
        options.table.write_text(table(medians, ratios, options.rounds))


if __name__ == "__main__":
    main()
