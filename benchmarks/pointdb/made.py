"""Make points and point DBs, and measure times, for the parts of this benchmark."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from cryotile.pointdb import PointDB
from cryotile.points import Granule

SWATH = 200.0  # points/km² of swath data

START = np.datetime64("2015-01-01", "ms")


def swath(seed: int, count: int, side: float) -> pd.DataFrame:
    """Return points like those of CryoSat-2's swath mode: lines across a track, 60 points each, every 400 m."""
    random = np.random.default_rng(seed)
    lines = count // 60
    heading = random.uniform(0, np.pi)
    along = np.arange(lines) * 400.0 % side
    track = np.arange(lines) * 400.0 // side
    origin = random.uniform(0, side, int(track.max()) + 1)
    across = np.sort(random.uniform(-7500, 7500, (lines, 60)), axis=1)
    x = (origin[track.astype(int)][:, None] + across * np.sin(heading)) % side
    y = (along[:, None] + across * np.cos(heading) + random.normal(0, 40, (lines, 60))) % side
    days = random.integers(0, 1500, int(track.max()) + 1)[track.astype(int)]
    when = START + days * np.timedelta64(86_400_000, "ms") + (np.arange(lines) * 50) % 86_400_000
    surface = 2000 + 0.003 * x - 0.001 * y + 20 * np.sin(x / 7e3) * np.cos(y / 9e3)
    flat = lines * 60
    return pd.DataFrame(
        {
            "x": x.ravel(),
            "y": y.ravel(),
            "time": np.repeat(when, 60),
            "elevation": (surface + random.normal(0, 2, (lines, 60))).ravel(),
            "uncertainty": np.abs(random.normal(1.5, 0.6, flat)),
            "pass_id": np.repeat((1 << 32) + 2 * (days * 14 + 5000), 60).astype(np.int64),
            "ascending": pd.array(np.zeros(flat, bool), "boolean"),
            "platform": pd.Categorical.from_codes(np.zeros(flat, np.int8), ["cryosat2"]),
            "mode": pd.Categorical.from_codes(np.zeros(flat, np.int8), ["sarin_swath"]),
            "surface_type": pd.Categorical.from_codes(np.zeros(flat, np.int8), ["grounded_ice"]),
        }
    )


def as_granule(number: int, points: pd.DataFrame) -> Granule:
    name = f"swath-{number}"
    return Granule(name, "swath", "D", 1, name, f"{number:064x}", len(points), {}, points)


def side_of(count: int, density: float) -> float:
    """Return the side, m, of the square in which ``count`` points have a density, points/km²."""
    return 1000 * float(np.sqrt(count / density))


def grown(path: Path, count: int, density: float = SWATH) -> PointDB:
    """Return a compacted DB of ``count`` points, in a square that grows with the count."""
    db = PointDB.create(path, "EPSG:3031")
    side, batch = side_of(count, density), 1_000_000
    for number in range(max(1, count // batch)):
        db.append([as_granule(number, swath(number, min(batch, count), side))])
    db.compact()
    return db


def medians(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median time of each contender, s; they take turns, so that other work affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, function in contenders.items():
            gc.collect()
            begin = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def ignore(fraction: float) -> None:
    """Ignore progress."""
