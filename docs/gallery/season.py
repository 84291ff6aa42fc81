"""One post with a season: its points over time, and the rate with and without the term `annual`."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import cryotile

plt.style.use("cryotile.plotting.style")

random = np.random.default_rng(2)
passes = np.arange(30).repeat(12)
years = np.linspace(0.0, 2.6, 30)[passes]
points = pd.DataFrame(
    {
        "x": random.uniform(-1e3, 1e3, passes.size),
        "y": random.uniform(-1e3, 1e3, passes.size),
        "time": pd.Timestamp("2016-01-01") + pd.to_timedelta(years * 365.25, "D"),
        "elevation": 1500 - 0.3 * years + 0.8 * np.cos(2 * np.pi * (years - 0.3)),
        "pass_id": passes,
    }
)
points["elevation"] += random.normal(0, 0.2, passes.size)

figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
axis.plot(points["time"], points["elevation"], ".", color="0.6", markersize=3)
for recipe, color in (("plane", "#c8553d"), ("passes", "#3b6fb6")):
    config = cryotile.FitConfig(radius=2e3, recipe=recipe, reference_epoch="2017-01-01")
    fit = cryotile.fit_posts(points, [0.0], [0.0], config).squeeze()
    ends = pd.to_datetime(["2016-01-01", "2018-08-08"])
    since = (ends - pd.Timestamp("2017-01-01")).total_seconds() / 31_557_600
    label = f"{recipe}: {fit.dhdt:+.3f} ± {fit.dhdt_ci95:.3f} m/yr"
    axis.plot(ends, fit.elevation.item() + fit.dhdt.item() * since, color=color, label=label)
axis.set_ylabel("elevation (m)")
figure.legend(title="true rate: -0.300 m/yr", loc="outside upper center", ncols=2)
figure.savefig(sys.argv[1])
