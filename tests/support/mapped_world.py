"""Maps of rates over eight basins whose errors come from passes, with their deltas, as runs with basins have them.

No point is fitted: the rate of a post is the slope of a straight line through the offsets of the passes that cross its
circle, and leaving out a pass fits that line again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import shapely
import xarray as xr
from scipy import ndimage

from cryotile.fit.config import FitConfig
from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid
from cryotile.geo.regions import Regions
from cryotile.maps.metadata import CELL_AREA, cell_area, described
from tests.support.maps import vector_file

GRID = Grid("EPSG:3413", (-60_000.0, -1_410_000.0, 60_000.0, -1_290_000.0), 2000.0)
X, Y = np.meshgrid(GRID.x, GRID.y)
CONFIG = FitConfig(radius=2000.0, period=("2011-01-01", "2021-01-01"), reference_epoch="2016-01-01")
NAMES = tuple(f"b{k}" for k in range(8))


def eight_basins(
    path: Path,
    names: Sequence[str] = NAMES,
    *,
    centre: tuple[float, float] = (0.0, -1_350e3),
    radius: float = 58e3,
) -> Path:
    """Write eight sectors of a disc, in EPSG:3413."""
    shapes = []
    for low, high in pairwise(np.linspace(0.3, 0.3 + 2 * np.pi, 9)):
        arc = np.linspace(low, high, 20)
        ring = np.vstack([[0.0, 0.0], radius * np.column_stack([np.cos(arc), np.sin(arc)])])
        shapes.append(shapely.Polygon(ring + np.array(centre)))
    return vector_file(path, *shapes, crs="EPSG:3413", NAME=list(names))


@dataclass(frozen=True)
class World:
    """Truth, height and the passes of one draw."""

    truth: np.ndarray
    height: np.ndarray
    product: xr.Dataset


def height() -> np.ndarray:
    """Return the height of a dome, m."""
    return 200.0 + 1200.0 * (1.0 - np.hypot(X, Y + 1_350e3) / 85e3)


def world(
    basins: Path,
    seed: int = 0,
    *,
    pass_error: float = 0.4,
    passes: int = 480,
    gaps: float = 0.25,
    reach: float = 12e3,
) -> World:
    """Draw a world and the map of it.

    Parameters
    ----------
    basins : Path
        As of :func:`eight_basins`.
    seed : int
        Of everything.
    pass_error : float
        Standard deviation of the offsets of passes, m.
    passes : int
        Number of passes, in the directions and lanes of a repeating orbit.
    gaps : float
        Share of posts without a fit, in patches of some kilometres.
    reach : float
        Distance over which the true rate varies, m.
    """
    random = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(random.normal(size=X.shape), reach / GRID.posting / 2)
    truth = -0.8 + 0.0006 * height() + 0.25 * rough / rough.std()
    regions = Regions.read(basins, "NAME", GRID)
    tau, seen = _passes(random, passes)
    error, delta = _slopes(tau, seen, random.normal(0, pass_error, passes))
    error += 0.01 * random.normal(size=error.shape)
    patches = ndimage.gaussian_filter(random.normal(size=X.shape), 1.5)
    lost = (patches < np.quantile(patches, gaps)) | ~np.isfinite(error).reshape(X.shape)
    rate = np.where(lost, np.nan, truth + error.reshape(X.shape))
    area = cell_area(GRID)
    sums = np.zeros((len(regions.names), passes))
    own = (regions.number >= 0) & ~lost
    np.add.at(sums, regions.number[own], delta[own.ravel()] * area[own][:, None])
    sigma = np.sqrt((delta**2).sum(axis=1)).reshape(X.shape)
    return World(truth, height(), with_deltas(rate, sigma, area, regions, sums))


def _passes(random: np.random.Generator, passes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of passes, years from the middle, and which posts see which."""
    tau = random.uniform(-5, 5, passes)
    angle = np.where(np.arange(passes) % 2, 0.5, 2.4) + random.normal(0, 0.01, passes)
    lane = (random.integers(0, 30, passes) - 14.5) * 5_500.0 + random.normal(0, 300.0, passes)
    x, y = X.ravel()[:, None], (Y.ravel() + 1_350e3)[:, None]
    seen = np.abs(-np.sin(angle) * x + np.cos(angle) * y - lane) < 3_500.0
    return tau, seen


def _slopes(tau: np.ndarray, seen: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slopes of lines through offsets at the posts, and their changes without each pass."""
    count = seen.sum(axis=1)
    enough = count >= 5
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = seen @ tau / count
        lag = np.where(seen, tau - middle[:, None], 0.0)
        spread = (lag**2).sum(axis=1)
        slope = lag @ offset / spread
        level = seen @ offset / count
        left = np.where(seen, offset - level[:, None] - slope[:, None] * lag, 0.0)
        leverage = 1 / count[:, None] + lag**2 / spread[:, None]
        delta = -lag / spread[:, None] * left / (1 - leverage)
    return np.where(enough, slope, np.nan), np.where(enough[:, None] & seen, delta, 0.0)


def with_deltas(
    rate: np.ndarray,
    sigma: np.ndarray,
    area: np.ndarray,
    regions: Regions,
    deltas: np.ndarray,
    config: FitConfig = CONFIG,
) -> xr.Dataset:
    """Return a product that was planned with regions, of rates and deltas (regions, passes)."""
    has_fit, grid, on_posts = np.isfinite(rate), regions.grid, ("y", "x")
    maps = xr.Dataset(
        {
            "dhdt": (on_posts, rate, {"units": "m yr-1"}),
            "dhdt_sigma": (on_posts, np.where(has_fit, sigma, np.nan), {"units": "m yr-1"}),
            "status": (on_posts, np.where(has_fit, Status.OK, Status.SINGULAR).astype("int8")),
            CELL_AREA.name: (on_posts, area, dict(CELL_AREA.attrs)),
        },
        coords={"y": grid.y, "x": grid.x},
    )
    product = described(maps, grid=grid, config=config)
    number = np.where(has_fit, regions.number, -1)
    sums = [float((rate * area)[number == k].sum()) for k in range(len(regions.names))]
    return (
        product.assign(
            region_rate=("region", [*sums, sum(sums)]),
            region_delta=(("region", "pass"), np.vstack([deltas, deltas.sum(axis=0)])),
        )
        .assign_coords(region=[*regions.names, "all"])
        .assign_attrs(regions_digest=regions.digest)
    )
