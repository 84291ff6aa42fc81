"""Invented granules for tests that need no file: projected points."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from cryotile.points import CATEGORIES, CORE_COLUMNS, Granule

START = np.datetime64("2015-01-01", "ms")


def points(seed: int, count: int, *, extent: float = 150e3) -> pd.DataFrame:
    """Return random points, with ties in time and place, missing values and all categories."""
    random = np.random.default_rng(seed)
    columns = {
        "x": random.uniform(-extent, extent, count),
        "y": np.repeat(random.uniform(-extent, extent, count // 3 + 1), 3)[:count],
        "time": START + random.integers(0, 10**9, count // 3 + 1).repeat(3)[:count],
        "elevation": random.normal(2000, 300, count),
        "uncertainty": np.where(random.random(count) < 0.1, np.nan, random.random(count)),
        "pass_id": (1 << 32) + random.integers(0, 100, count),
        "ascending": pd.array(random.choice([True, False, None], count), "boolean"),
        "platform": pd.Categorical(random.choice(["icesat2", "cryosat2"], count)),
        "mode": pd.Categorical(random.choice(CATEGORIES["mode"], count)),
        "surface_type": random.choice(["grounded_ice", "unknown"], count),
    }
    return pd.DataFrame(columns)


def granule(seed: int, count: int = 300, *, extent: float = 150e3) -> Granule:
    """Return a granule whose identity, passes and points follow from ``seed``."""
    frame = points(seed, count, extent=extent)
    frame["pass_id"] += 200 * (seed % 5000)
    return Granule(
        id=f"made-up-{seed}",
        product="made_up",
        baseline="D",
        version=1,
        name=f"MADE_UP_{seed}.nc",
        checksum=f"{seed:064x}",
        record_count=count + 2,
        dropped={"no_height": 2},
        points=frame,
        notes=(f"note of {seed}",),
    )


def with_points(original: Granule, frame: pd.DataFrame) -> Granule:
    """Return the same granule with other points."""
    return dataclasses.replace(original, points=frame, record_count=len(frame) + 2)


def as_stored(frame: pd.DataFrame) -> pd.DataFrame:
    """Return points as a point DB stores them: centimetres, millimetres, canonical categories."""
    stored = frame[list(CORE_COLUMNS)].copy()
    for name, scale in {"x": 100, "y": 100, "elevation": 1000, "uncertainty": 1000}.items():
        stored[name] = np.rint(frame[name] * scale) / scale
    for name, texts in CATEGORIES.items():
        stored[name] = pd.Categorical(frame[name].astype(str), categories=list(texts))
    return stored


def sorted_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows sorted by all columns."""
    return frame.sort_values(list(frame.columns), ignore_index=True)
