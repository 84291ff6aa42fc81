"""Calibrate the recipe `passes` against worlds whose truth is known: `python benchmarks/calibration.py`.

Twelve seeds and eleven worlds, none left out; beside it, in the same worlds, the recipe `plane`, least squares with a
sigma by clusters, and the recipes of other programs (`calibration_peers.py`).  The tracks are CryoSat-2's over ten
years; each post keeps some of its passes, so that the number of passes varies from the fewest that are fitted to all
there are; the errors of a pass at one post are drawn anew at the next, so that posts are independent and the coverage
of 1000 of them is known to 0.7 %.  The field of dh/dt is a plane: the rate at a post is the mean over its circle.

Heights are calibrated on the same points, whose surface stands still within each quarter: then its height has a truth.

A second part compares the rms error with those of other programs, on points like those that they were given.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from calibration_peers import PEERS, fit_peers
from calibration_plots import plot_coverage, plot_peers, plot_rms
from calibration_rms import rms_errors
from cryotile import FitConfig, fit_posts
from cryotile.points import SURFACE_TYPES
from cryotile.simulate.mission import Mission, Noise, crossings, fly
from cryotile.simulate.orbit import CRYOSAT2
from cryotile.simulate.world import World

Floats = npt.NDArray[np.float64]

PERIOD = ("2011-01-01", "2021-01-01")
RADIUS = 2000.0
POSTING = 5000.0  # more than two radii: no point is near two posts
CENTRE = (0.0, -1.5e6)  # 76° north, EPSG:3413
STRATA = {"6–8": (6, 8), "9–12": (9, 12), "13–20": (13, 20), "> 20": (21, 10**6)}
# Posts of a stratum; its required coverage, bias, and share of good passes that are freed.
ENOUGH, COVERAGE, MOST_BIAS, MOST_FREED = 1000, (0.93, 0.975), 0.1, 0.03
HEIGHT_COVERAGE = (0.93, 0.98)
MOST_PASSES = 41
EVERY = 3  # One of so many posts is fitted by the recipes of others, which take milliseconds each.
RECIPES = {
    name: FitConfig(radius=RADIUS, period=PERIOD, recipe=name) for name in ("passes", "plane")
}
HEIGHTS = FitConfig(radius=RADIUS, period=PERIOD, heights="3m")
POINTS_OF_SPARSE_PASS = 6

SILENT = Noise(white=0, along_pass=0, outlier_share=0, bad_share=0, lost_share=0, ambiguous_share=0)


@dataclass(frozen=True)
class Kind:
    """Errors of the points of a world.

    Attributes
    ----------
    name : str
        Name in tables and plots.
    white, along_pass : float
        Standard deviation of the error of each point, and of that which the points of a pass share, m.
    outlier_share : float
        Share of points that are off by 5 to 50 m.
    lengths : str
        Points of a pass at a post: ``as flown``, or thinned to ``equal`` or ``lognormal`` numbers.
    off : float
        Error of one pass of each post, m.
    """

    name: str
    white: float = 0.3
    along_pass: float = 0.0
    outlier_share: float = 0.0
    lengths: str = "as flown"
    off: float = 0.0

    @property
    def bad_passes(self) -> int:
        """Passes of each post that are bad."""
        return int(self.off != 0)


KINDS = (
    Kind("white noise"),
    *(Kind(f"passes off by {error:g} m", along_pass=error) for error in (0.2, 0.4, 0.6)),
    Kind("outliers", along_pass=0.1, outlier_share=0.02),
    Kind("sparse, equal lengths", along_pass=0.2, lengths="equal"),
    Kind("sparse, lognormal lengths", along_pass=0.2, lengths="lognormal"),
    Kind("sparse, large errors", along_pass=0.4, outlier_share=0.02, lengths="lognormal"),
    Kind("one pass off by 1.5 m", along_pass=0.1, off=1.5),
    Kind("one pass off by 5 m", along_pass=0.1, off=5.0),
    Kind("one pass off by 50 m", along_pass=0.1, off=50.0),
)


class Tilted(World):
    """Hilly ice everywhere, with rates that change by 2 cm/yr over a kilometre."""

    def dhdt(self, x: Floats | float, y: Floats | float) -> Floats:
        """Return the true rate, m/yr."""
        return np.asarray(-0.5 + 1e-5 * (x - self.centre[0]) - 2e-5 * (y - self.centre[1]))

    def surface_type(self, x: Floats | float, y: Floats | float) -> npt.NDArray[np.int8]:
        """Grounded ice."""
        grounded = SURFACE_TYPES.index("grounded_ice")
        return np.full(np.broadcast(x, y).shape, grounded, np.int8)


def world_of(extent: float) -> Tilted:
    """Return the world whose posts cover a square with sides of ``extent``, m."""
    (x, y), half = CENTRE, extent / 2 + RADIUS
    return Tilted(bounds=(x - half, y - half, x + half, y + half))


def axes_of(extent: float) -> tuple[Floats, Floats]:
    """Return x and y of the posts."""
    steps = np.arange(-(extent // 2 // POSTING), extent // 2 // POSTING + 1) * POSTING
    return CENTRE[0] + steps, CENTRE[1] + steps


def fly_over(seed: int, extent: float) -> pd.DataFrame:
    """Return exact points within the radius of a post, with the numbers of that post and of the pass."""
    mission = Mission(world_of(extent), CRYOSAT2, SILENT, seed=seed)
    found = crossings(mission, *(np.datetime64(day) for day in PERIOD))
    flown = [(c.number, flyover) for c in found if (flyover := fly(mission, c)) is not None]
    points = pd.concat(
        [
            flyover.beams[0][["x", "y", "time", "ascending", "elevation"]].assign(orbit=number)
            for number, flyover in flown
        ],
        ignore_index=True,
    )
    x, y = axes_of(extent)
    i, j = (
        np.rint((points[name] - axis[0]) / POSTING).astype(int)
        for name, axis in (("x", x), ("y", y))
    )
    inside = (i >= 0) & (i < x.size) & (j >= 0) & (j < y.size)
    near = (points["x"] - x[0] - i * POSTING) ** 2 + (points["y"] - y[0] - j * POSTING) ** 2
    points["post"] = j * x.size + i
    points = points[inside & (near < RADIUS**2)].reset_index(drop=True)
    points["pass_id"] = points.groupby(["post", "orbit", "ascending"]).ngroup()
    # By how much the surface has moved since the middle of its quarter, m.
    middle = middle_of_quarter(points["time"])
    world, at = mission.world, (points["x"].to_numpy(), points["y"].to_numpy())
    points["moved"] = world.elevation(*at, points["time"].to_numpy()) - world.elevation(*at, middle)
    return points


def middle_of_quarter(times: pd.Series) -> npt.NDArray[np.datetime64]:
    """Return the middle of the quarter of a year in which each time is."""
    quarters = pd.PeriodIndex(times, freq="Q")
    start = quarters.start_time.to_numpy()
    return start + ((quarters + 1).start_time.to_numpy() - start) / 2


def thin(points: pd.DataFrame, kind: Kind, random: np.random.Generator) -> pd.DataFrame:
    """Keep some passes of each post, and of a sparse world some points of each pass."""
    sparse = kind.lengths != "as flown"
    post = points.groupby("pass_id")["post"].first().to_numpy()
    fewest = np.array([low for low, _ in STRATA.values()])
    stratum = random.integers(0, fewest.size, post.max() + 1)
    wanted = random.integers(fewest[stratum], np.append(fewest[1:], MOST_PASSES)[stratum])
    # In random order, numbered from 0 at each post: pass 0 is the one that may be off.
    points = points.assign(rank=_ranks(post, random)[points["pass_id"]])
    points = points[points["rank"] < wanted[points["post"]]]
    if sparse:
        spread = 0.8 if kind.lengths == "lognormal" else 0.0
        length = np.rint(random.lognormal(np.log(POINTS_OF_SPARSE_PASS), spread, post.size))
        points = points[
            _ranks(points["pass_id"], random) < np.maximum(length, 1)[points["pass_id"]]
        ]
    return points.reset_index(drop=True)


def _ranks(groups: npt.ArrayLike, random: np.random.Generator) -> Floats:
    """Number the members of each group from 0, in random order."""
    order = pd.Series(random.random(np.size(groups)))
    return order.groupby(np.asarray(groups)).rank().to_numpy() - 1


def disturb(points: pd.DataFrame, kind: Kind, random: np.random.Generator) -> pd.DataFrame:
    """Add the errors of a kind of world."""
    size = len(points)
    error = random.normal(0, kind.white, size)
    error += random.normal(0, kind.along_pass, points["pass_id"].max() + 1)[points["pass_id"]]
    wrong = random.random(size) < kind.outlier_share
    error += wrong * random.choice((-1, 1), size) * random.uniform(5, 50, size)
    error += kind.off * (points["rank"] == 0)
    return points.assign(elevation=points["elevation"] + error)


def misses(points: pd.DataFrame, extent: float, config: FitConfig) -> pd.DataFrame:
    """Fit, and return the error of each post, NaN where it has no rate."""
    x, y = axes_of(extent)
    fits = fit_posts(points, x, y, config)
    truth = world_of(extent).dhdt(*np.meshgrid(x, y))
    names = ("dhdt", "dhdt_ci95", "dhdt_sigma_formal", "free_pass_count")
    table = pd.DataFrame({name: fits[name].to_numpy().ravel() for name in names})
    table = table.rename(columns={"dhdt_ci95": "ci95"})
    table["post"] = table.index
    table["passes"] = passes_of(points, table["post"])
    table["error"] = table["dhdt"] - truth.ravel()
    return table


def passes_of(points: pd.DataFrame, posts: pd.Series) -> Floats:
    """Return the number of passes near each of some posts."""
    flown = points.groupby("post")["pass_id"].nunique()
    return flown.reindex(posts, fill_value=0).to_numpy()


def misses_of_peers(points: pd.DataFrame, extent: float) -> pd.DataFrame:
    """Fit some posts by the recipes of others, and return the error of each."""
    x, y = axes_of(extent)
    table = fit_peers(points, x, y, RADIUS, EVERY)
    truth = world_of(extent).dhdt(*np.meshgrid(x, y)).ravel()
    table["passes"] = passes_of(points, table["post"])
    return table.assign(error=table["dhdt"] - truth[table["post"]])


def misses_of_heights(points: pd.DataFrame, extent: float) -> pd.DataFrame:
    """Fit the height of each quarter while the surface stands still within it, and return the error of each."""
    x, y = axes_of(extent)
    still = points.assign(elevation=points["elevation"] - points["moved"])
    fits = fit_posts(still, x, y, HEIGHTS)
    middles = middle_of_quarter(fits["height_time"].to_series())
    world, posts = world_of(extent), np.meshgrid(x, y)
    truth = np.stack([world.elevation(*posts, middle) for middle in middles])
    error = fits["elevation"].to_numpy() + fits["height"].to_numpy() - truth
    number = np.arange(x.size * y.size).reshape(posts[0].shape)
    table = pd.DataFrame(
        {
            "post": np.broadcast_to(number, truth.shape).ravel(),
            "error": error.ravel(),
            "ci95": fits["height_ci95"].to_numpy().ravel(),
        }
    ).dropna(subset=["error", "ci95"], ignore_index=True)
    return table.assign(passes=passes_of(points, table["post"]))


def study_seed(seed: int, extent: float) -> pd.DataFrame:
    """Return all worlds of one seed."""
    flown = fly_over(seed, extent)
    tables = []
    for number, kind in enumerate(KINDS):
        random = np.random.default_rng([seed, number])
        points = disturb(thin(flown, kind, random), kind, random)
        for recipe, config in RECIPES.items():
            table = misses(points, extent, config)
            tables.append(table.assign(world=kind.name, seed=seed, recipe=recipe))
        for table in (
            misses_of_peers(points, extent),
            misses_of_heights(points, extent).assign(recipe="heights"),
        ):
            tables.append(table.assign(world=kind.name, seed=seed))
    return pd.concat(tables, ignore_index=True)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per world and stratum: posts with a rate, coverage, bias, rms error and free passes."""
    rows = []
    for kind in KINDS:
        for stratum, (low, high) in STRATA.items():
            both = table[(table["world"] == kind.name) & table["passes"].between(low, high)]
            asked, heights = (both[both["recipe"] == recipe] for recipe in ("passes", "heights"))
            known = asked.dropna(subset="ci95")
            if known.empty:
                continue
            rms = _rms(known)
            freed = known["free_pass_count"].sum() - kind.bad_passes * len(known)
            rows.append(
                {
                    "world": kind.name,
                    "passes": stratum,
                    "posts": len(known),
                    "with a rate": len(known) / len(asked),
                    "coverage": _share(known, known["ci95"]),
                    "coverage, formal": _share(known, 1.96 * known["dhdt_sigma_formal"]),
                    "half width": float(known["ci95"].median()),
                    "rms": rms,
                    "bias / rms": float(known["error"].mean() / rms),
                    "free passes beyond the bad": float(freed / known["passes"].sum()),
                    "heights": len(heights),
                    "coverage, heights": _share(heights, heights["ci95"]),
                }
            )
    return pd.DataFrame(rows)


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """Return coverage and rms error of each recipe, at posts that `passes` and those of others have fitted."""
    keys = ["world", "seed", "post"]
    rates = table[table["recipe"] != "heights"].dropna(subset="ci95")
    wide = rates.pivot_table(
        index=keys, columns="recipe", values=["error", "ci95"], aggfunc="first"
    )
    recipes = [*RECIPES, *PEERS]
    wide = wide.dropna(subset=[("error", recipe) for recipe in ("passes", *PEERS)])
    passes = rates.drop_duplicates(keys).set_index(keys)["passes"].loc[wide.index]
    rows = []
    for kind in KINDS:
        for stratum, (low, high) in STRATA.items():
            some = wide[passes.between(low, high) & (wide.index.get_level_values(0) == kind.name)]
            if some.empty:
                continue
            row: dict[str, object] = {"world": kind.name, "passes": stratum, "posts": len(some)}
            for recipe in recipes:
                one = pd.DataFrame({n: some[n, recipe] for n in ("error", "ci95")}).dropna()
                row[f"coverage, {recipe}"] = _share(one, one["ci95"])
                row[f"rms, {recipe}"] = _rms(one)
            rows.append(row)
    return pd.DataFrame(rows)


def _rms(table: pd.DataFrame) -> float:
    return float(np.sqrt(np.mean(table["error"] ** 2)))


def _share(table: pd.DataFrame, limit: pd.Series) -> float:
    return float((table["error"].abs() <= limit).mean())


def study(seeds: Sequence[int], extent: float, processes: int) -> pd.DataFrame:
    """Return the posts of all seeds and worlds."""
    work = partial(study_seed, extent=extent)
    if processes == 1:
        return pd.concat(map(work, seeds), ignore_index=True)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return pd.concat(pool.map(work, seeds), ignore_index=True)


def verdict(coverage: pd.DataFrame) -> list[str]:
    """Name the strata with enough posts that are not calibrated."""
    enough = coverage[coverage["posts"] >= ENOUGH]
    known = enough[enough["heights"] >= ENOUGH]
    heights = known[~known["coverage, heights"].between(*HEIGHT_COVERAGE)]
    covered = enough["coverage"].between(*COVERAGE)
    biased = enough["bias / rms"].abs() >= MOST_BIAS
    freed = enough["free passes beyond the bad"] > MOST_FREED
    return [
        f"{row['world']}, {row['passes']} passes: covers {row['coverage']:.1%}, bias / rms {row['bias / rms']:.3f},"
        f" frees {row['free passes beyond the bad']:.1%} of the good passes"
        for _, row in enough[~covered | biased | freed].iterrows()
    ] + [
        f"{row['world']}, {row['passes']} passes: covers {row['coverage, heights']:.1%} of the heights"
        for _, row in heights.iterrows()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=12, help="Worlds of each kind.")
    parser.add_argument("--extent", type=float, default=120e3, help="Side of a world, m.")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path("docs/_static"), help="Directory of tables and plots."
    )
    options = parser.parse_args()
    seeds = range(options.seeds)
    table = study(seeds, options.extent, options.processes)
    coverage = summarize(table)
    peers = compare(table)
    rms = rms_errors(range(min(options.seeds, 8)))
    for name, summary in (("coverage", coverage), ("peers", peers), ("rms", rms)):
        print(f"{summary.round(4).to_string()}\n")
        summary.to_csv(
            options.out / f"calibration-{name}.csv", float_format="%.3g", index=name == "rms"
        )
    plot_coverage(coverage, options.out / "calibration-coverage.svg")
    plot_peers(peers, options.out / "calibration-peers.svg")
    plot_rms(rms, options.out / "calibration-rms.svg")
    print("\n".join(verdict(coverage)) or "calibrated in every stratum")


if __name__ == "__main__":
    main()
