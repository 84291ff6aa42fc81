"""A strip of ice that two missions see, a radar and then a laser, with a step between them that varies in space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from cryotile.pointdb import PointDB
from tests.support.made_up import granule, with_points
from tests.support.point_dbs import filled

RATE = -0.2
"""m/yr, of the ice."""

WIDTH, HEIGHT = 120e3, 24e3
"""Metres; posts lie inside."""

EPOCH = "2015-07-01"
PERIOD = ("2010-01-01", "2021-01-01")

SETTINGS = {
    "posting": 4000.0,
    "bounds": (2e3, 2e3, WIDTH - 2e3, HEIGHT - 2e3),
    "period": PERIOD,
    "reference_epoch": EPOCH,
    "where": "platform == 'cryosat2'",
}
"""Settings of a run over the points of the radar."""

WEST, EAST = shapely.box(0.0, 0.0, 60e3, HEIGHT), shapely.box(60e3, 0.0, WIDTH, HEIGHT)
"""Two basins that make up the strip."""


def step_at(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how much higher the radar sees the ice, m: up to 0.5 m, over 100 km."""
    return 0.5 * np.sin(2 * np.pi * x / 100e3)


def _flown(
    random: np.random.Generator,
    platform: str,
    years: tuple[float, float],
    count: int,
    code: int,
    error: float,
) -> pd.DataFrame:
    """Return passes along x, at random times and places, with errors that change every 10 km."""
    x = np.arange(-2e3, WIDTH + 2e3, 400.0)
    time = np.sort(random.uniform(*years, count))
    y = random.uniform(-2e3, HEIGHT + 2e3, count)
    part = ((x - x[0]) // 10e3).astype(int)
    offset = random.normal(0, error, (count, part[-1] + 1))[:, part].ravel()
    at_x, tau = np.tile(x, count), np.repeat(time, x.size)
    at_y = np.repeat(y, x.size) + random.normal(0, 150.0, tau.size)
    points = {
        "x": at_x,
        "y": at_y,
        "time": np.datetime64(EPOCH, "ms") + (tau * 31_557_600e3).astype("timedelta64[ms]"),
        "elevation": 1500 + 0.004 * at_x - 0.002 * at_y + RATE * tau + offset
        + random.normal(0, 1.5 * error, at_x.size),
        "uncertainty": np.full(at_x.size, 0.15),
        "pass_id": (code << 32) + np.repeat(np.arange(count), x.size),
        "ascending": pd.array(np.repeat(np.arange(count) % 2 == 0, x.size), "boolean"),
        "platform": pd.Categorical(np.full(at_x.size, platform)),
        "mode": pd.Categorical(np.full(at_x.size, "laser" if code == 2 else "sarin_poca")),
        "surface_type": np.full(at_x.size, "grounded_ice"),
    }  # fmt: skip
    if code == 1:
        points["elevation"] += step_at(at_x)
    return pd.DataFrame(points)


def two_missions(
    path: Path, seed: int, *, passes: int = 120, change: float = 0.0, error: float = 0.1
) -> PointDB:
    """Create a point DB of both missions, whose passes err by ``error`` m; radars see a rate ``change`` m/yr larger."""
    random = np.random.default_rng(seed)
    radar = _flown(random, "cryosat2", (-5.4, 1.4), passes, 1, error)
    laser = _flown(random, "icesat2", (0.6, 5.4), passes, 2, error)
    since = (radar["time"].to_numpy() - np.datetime64(EPOCH, "ms")) / np.timedelta64(
        31_557_600, "s"
    )
    radar["elevation"] += change * since
    return filled(path, [with_points(granule(1), radar), with_points(granule(2), laser)])
