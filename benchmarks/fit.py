"""Time `fit_posts` and its kernel against other ways to fit at each post: `python benchmarks/fit.py`.

A tile of posts, 1 km apart, at several densities of points and of passes.  Every contender starts from the same
DataFrame and is timed within the same round.  `fit_posts` does all of its work, the jackknife and the Dataset included;
the plain ways and the numba kernels of `numba_kernels.py` compute the coefficients, and the numba ones the formal sigma
too.  The kernel alone is timed with windows, with heights and with outliers, and, with `--before`, against the recipe
`robust` of a checkout that had it.  Processor time of one thread is measured, because other work on the machine affects
it least.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from cryotile import FitConfig, fit_posts
from cryotile.fit import inputs as fit_inputs
from cryotile.fit import simd_level
from numba_kernels import best_plane, cell_list, plane, robust

Contender = Callable[[pd.DataFrame, float], float]

YEAR = np.timedelta64(31_557_600_000, "ms")
POSTS = np.arange(50) * 1000.0
WORKS = (  # points within the radius (m) of a post, passes
    (140, 17, 2000.0),
    (701, 22, 2000.0),
    (2672, 40, 5000.0),
    (296, 33, 2000.0),
    (1483, 168, 5000.0),
    (5955, 249, 5000.0),
)
MASKED_POSTS = 40  # slow ways are timed on a few posts, because each costs the same
TREE_ROWS = 5
KERNEL_ROUNDS = 3  # of the kernel alone, for each round of the others
PERIOD = ("2011-01-01", "2021-01-01")
WITH_WINDOWS = ("2007-01-01", "2022-01-01")  # 121 windows of 5 years
WITH_HEIGHTS = ("2007-01-01", "2021-01-01")


def make_points(
    per_post: int, passes: int, radius: float, *, outliers: float = 0.0
) -> pd.DataFrame:
    """Simulate points of ten years on a rising slope, with noise and errors that passes share."""
    generator = np.random.default_rng(per_post)
    low, high = POSTS[0] - radius, POSTS[-1] + radius
    size = round(per_post / (np.pi * radius**2) * (high - low) ** 2)
    x, y = generator.uniform(low, high, (2, size))
    number = np.sort(generator.integers(0, passes, size))
    years = generator.uniform(0, 10, passes)[number]
    errors = generator.normal(0, 0.3, passes)[number] + generator.normal(0, 0.3, size)
    errors += (generator.random(size) < outliers) * generator.normal(0, 20, size)
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
    """Return the rate of a plane at one post by least squares, m/yr."""
    design = np.column_stack(
        [points["x"] - x, points["y"] - y, points["years"], np.ones(len(points))]
    )
    return float(np.linalg.lstsq(design, points["elevation"], rcond=None)[0][2])


def with_years(points: pd.DataFrame) -> pd.DataFrame:
    """Add the time in years since the reference epoch."""
    return points.assign(
        years=(points["time"].to_numpy() - np.datetime64("2016-01-01", "ms")) / YEAR
    )


def mask_loop(points: pd.DataFrame, radius: float) -> float:
    """Find the points of each post by masks over all points; return the number of posts."""
    points = with_years(points)
    for k in range(MASKED_POSTS):
        x, y = POSTS[k % len(POSTS)], POSTS[(7 * k) % len(POSTS)]
        square = points[(np.abs(points["x"] - x) < radius) & (np.abs(points["y"] - y) < radius)]
        solve(square[(square["x"] - x) ** 2 + (square["y"] - y) ** 2 < radius**2], x, y)
    return MASKED_POSTS


def tree_loop(points: pd.DataFrame, radius: float) -> float:
    """Find the points of each post by a tree; return the number of posts."""
    points = with_years(points)
    place, years, elevation = (
        points[["x", "y"]].to_numpy(),
        points["years"].to_numpy(),
        points["elevation"].to_numpy(),
    )
    tree = cKDTree(place)
    for y in POSTS[:TREE_ROWS]:
        for x in POSTS:
            near = tree.query_ball_point((x, y), radius)
            design = np.column_stack([place[near] - (x, y), years[near], np.ones(len(near))])
            np.linalg.lstsq(design, elevation[near], rcond=None)
    return TREE_ROWS * len(POSTS)


def numba_loop(kernel: Callable[..., None], *, direction: bool = False) -> Contender:
    """Return a contender that fits all posts by a kernel of numba, with the direction of passes if it takes it."""

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


def fitted(recipe: str) -> Contender:
    """Return a contender that fits all posts by a recipe of cryotile."""

    def contender(points: pd.DataFrame, radius: float) -> float:
        fit_posts(points, POSTS, POSTS, FitConfig(radius=radius, recipe=recipe, period=PERIOD))
        return len(POSTS) ** 2

    return contender


CONTENDERS: dict[str, Contender] = {
    "mask loop": mask_loop,
    "cKDTree + lstsq": tree_loop,
    "numba plane": numba_loop(plane),
    "best numba plane": numba_loop(best_plane),
    "fit_posts plane": fitted("plane"),
    "numba robust": numba_loop(robust, direction=True),
    "fit_posts passes": fitted("passes"),
}
# Goals: speed of one over speed of the other; None: no goal.
RATIOS: dict[tuple[str, str], float | None] = {
    ("fit_posts plane", "mask loop"): None,
    ("fit_posts plane", "cKDTree + lstsq"): None,
    ("fit_posts plane", "best numba plane"): 1.2,
    ("fit_posts passes", "numba robust"): None,
}
THREADS = 1.7  # goal: speed of two threads over one
# Goals: time of the kernel of `passes` over that of another kernel.
KERNEL_GOALS = {
    ("passes", "robust before"): 1.0,
    ("outliers", "robust before, outliers"): 0.9,
    ("windows", "passes"): 3.0,
    ("heights", "passes"): 2.0,
}


def import_before(path: Path) -> Callable[[pd.DataFrame, float], Callable[[], object]]:
    """Import the built checkout whose `src` this is beside the one in use; return what makes a call of its kernel."""
    mine = {name: module for name, module in sys.modules.items() if name.startswith("cryotile")}
    for name in mine:
        del sys.modules[name]
    sys.path.insert(0, str(path))
    try:
        fit = importlib.import_module("cryotile.fit")
        old_layout = hasattr(fit, "take_sample")  # `fit` was one module
        config = importlib.import_module("cryotile.config" if old_layout else "cryotile.fit.config")
        inputs = fit if old_layout else importlib.import_module("cryotile.fit.inputs")
    finally:
        sys.path.remove(str(path))
        for name in [name for name in sys.modules if name.startswith("cryotile")]:
            del sys.modules[name]
        sys.modules.update(mine)

    def make_call(points: pd.DataFrame, radius: float) -> Callable[[], object]:
        settings = config.FitConfig(radius=radius, recipe="robust", period=PERIOD)
        if not old_layout:
            return kernel_call(inputs, points, settings)
        sample = inputs.take_sample(points, settings)
        cells = inputs.sort_into_cells(sample, POSTS, POSTS, radius)
        kernel, _ = vars(inputs)["_kernel"](sample, cells, radius)
        wanted = np.ones((len(POSTS), len(POSTS)), np.uint8)
        return lambda: kernel.fit(POSTS, POSTS, wanted, cells.order.size)

    return make_call


def kernel_call(module: Any, points: pd.DataFrame, config: Any) -> Callable[[], object]:
    """Return a call that fits all posts by the kernel alone."""
    inputs = module.take_inputs(points, config)
    kernel, cells = module.make_kernel(inputs, POSTS, POSTS, config.radius)
    wanted = np.ones((len(POSTS), len(POSTS)), np.uint8)
    if not hasattr(module, "kernel_intervals"):
        return lambda: kernel.fit(POSTS, POSTS, wanted, cells.order.size)
    windows, bins = module.kernel_intervals(inputs.config)
    return lambda: kernel.fit(POSTS, POSTS, wanted, cells.order.size, windows=windows, bins=bins)


def time_kernels(
    per_post: int, passes: int, radius: float, before: Path | None, rounds: int
) -> pd.DataFrame:
    """Return microseconds a post of each kernel, one row a round."""
    clean, dirty = (make_points(per_post, passes, radius, outliers=k) for k in (0, 0.02))
    config = {"radius": radius, "period": PERIOD}
    calls = {
        name: kernel_call(fit_inputs, points, FitConfig(**(config | more)))
        for name, points, more in (
            ("passes", clean, {}),
            ("outliers", dirty, {}),
            ("windows", clean, {"windows": ("5y", "1m"), "period": WITH_WINDOWS}),
            ("heights", clean, {"heights": "1m", "period": WITH_HEIGHTS}),
        )
    }
    if before is not None:
        make_call = import_before(before)
        calls["robust before"] = make_call(clean, radius)
        calls["robust before, outliers"] = make_call(dirty, radius)
    times = []
    for _ in range(rounds):
        row = {}
        for name, call in calls.items():
            start = time.process_time()
            call()
            row[name] = (time.process_time() - start) / len(POSTS) ** 2 * 1e6
        times.append(row)
    return pd.DataFrame(times)


def rate(contender: Contender, points: pd.DataFrame, radius: float) -> float:
    """Return posts a second of one call."""
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
    config = FitConfig(radius=radius, recipe=recipe, period=PERIOD)
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


def judge(ratio: float, goal: float | None, *, most: bool = False) -> str:
    """Write a ratio beside its goal, the least or the most that it should be."""
    if goal is None:
        return f"{ratio:.3g}"
    met = ratio <= goal if most else ratio >= goal
    return f"{ratio:.3g} ({'' if met else 'missed, '}{'≤' if most else '≥'} {goal:g})"


def table(columns: dict[str, dict[str, str]], rounds: int) -> str:
    """Make the page's table: a column for each work."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    lines += [
        f"| {name} | {' | '.join(column.get(name, '') for column in columns.values())} |"
        for name in names
    ]
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    note = (
        f"Medians of {rounds} interleaved rounds; {simd_level()}; load average at the end {load}."
    )
    return "\n".join([*lines, "", note, ""])


def compare(
    per_post: int, passes: int, radius: float, before: Path | None, rounds: int
) -> tuple[pd.Series, dict[str, str]]:
    """Return posts a second of the contenders at one work, and what the table says of it."""
    points = make_points(per_post, passes, radius)
    rates = measure(points, radius, rounds)
    medians = rates.median()
    shown = {f"{name}, posts/s": f"{value:,.0f}" for name, value in medians.items()}
    for (one, other), goal in RATIOS.items():
        shown[f"{one} / {other}"] = judge((rates[one] / rates[other]).median(), goal)
    for recipe in ("plane", "passes"):
        gain = speed_up(points, radius, recipe, rounds)
        shown[f"fit_posts {recipe}, two threads / one"] = judge(gain, THREADS)
    kernels = time_kernels(per_post, passes, radius, before, KERNEL_ROUNDS * rounds)
    shown |= {
        f"kernel, {name}, µs a post": f"{value:.1f}" for name, value in kernels.median().items()
    }
    for (one, other), goal in KERNEL_GOALS.items():
        if other in kernels:
            ratio = judge((kernels[one] / kernels[other]).median(), goal, most=True)
            shown[f"kernel, time of {one} / {other}"] = ratio
    return medians, shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="Where to save the plot.")
    parser.add_argument("--table", type=Path, help="Where to save the table.")
    parser.add_argument(
        "--before", type=Path, help="src of a built checkout that has the recipe robust."
    )
    options = parser.parse_args()
    medians: dict[str, pd.Series] = {}
    columns: dict[str, dict[str, str]] = {}
    print(f"one thread, medians of {options.rounds} interleaved rounds, {simd_level()}")
    for per_post, passes, radius in WORKS:
        name = f"{per_post} points, {passes} passes"
        medians[name], columns[name] = compare(
            per_post, passes, radius, options.before, options.rounds
        )
        print(f"\n{name}")
        for what, value in columns[name].items():
            print(f"  {what:48} {value}", flush=True)
    if options.plot:
        plot(pd.DataFrame(medians).T, options.plot)
    if options.table:
        options.table.write_text(table(columns, options.rounds))


if __name__ == "__main__":
    main()
