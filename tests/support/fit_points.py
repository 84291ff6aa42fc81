"""Points of ten years around one place, whose passes share an error, for tests of the fit."""

from __future__ import annotations

import numpy as np
import pandas as pd

EPOCH = "2016-01-01"
PERIOD = ("2011-01-01", "2021-01-01")
X, Y = 300.0, -200.0
ALL_TERMS = ("acceleration", "mode_offset", "power")


def make_points(size=400, *, seed=0, passes=24, noise=0.3, outliers=0.01):
    """Return points of ten years on a curved surface with a seasonal cycle; the points of a pass share an error."""
    generator = np.random.default_rng(seed)
    lengths = generator.lognormal(0, 0.5, passes)
    number = generator.choice(passes, size, p=lengths / lengths.sum())
    x, y = generator.uniform(-1390, 1390, (2, size))
    days = np.linspace(30, 3620, passes) + generator.uniform(-29, 29, passes)
    time = np.datetime64("2011-01-01", "ms") + (
        days[number] * 86_400_000 + np.arange(size) * 20
    ).astype("timedelta64[ms]")
    years = days[number] / 365.25 - 5
    ascending = generator.random(passes)[number] < 0.5
    swath = generator.random(passes)[number] < 0.4
    power = generator.normal(-150, 5, size)
    elevation = (
        1500 + 0.02 * x - 0.01 * y + 1e-6 * x * x - 5e-7 * x * y + 0.6 * years
        + 0.3 * (np.cos(2 * np.pi * years) + ascending + swath) + 0.01 * power
        + generator.normal(0, 0.2, passes)[number] + generator.normal(0, noise, size)
    )  # fmt: skip
    wrong = generator.random(size) < outliers
    elevation[wrong] += generator.choice([-1, 1], wrong.sum()) * generator.uniform(
        5, 50, wrong.sum()
    )
    return pd.DataFrame(
        {
            "x": x + X,
            "y": y + Y,
            "time": time,
            "elevation": elevation,
            "uncertainty": generator.uniform(0.05, 1.0, size),
            "pass_id": number + 2**32,
            "ascending": pd.array(ascending, dtype="boolean"),
            "mode": pd.Categorical(np.where(swath, "sarin_swath", "sarin_poca"), ["sarin_poca", "sarin_swath"]),
            "platform": "cryosat2",
            "power": power,
        }
    )  # fmt: skip
