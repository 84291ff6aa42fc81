"""A fit along a line across a thinning glacier, and axes to draw more on."""

import sys

import numpy as np
import pandas as pd

import cryotile

random = np.random.default_rng(3)
passes = np.repeat(np.arange(60), 200)
along = random.uniform(-25e3, 25e3, passes.size)
across = random.normal(random.uniform(-22e3, 22e3, 60)[passes], 2e3)
x, y = np.where(passes % 2, along, across), np.where(passes % 2, across, along)
years = passes / 6
rate = 0.15 - 1.2 * np.exp(-((x - 8e3) ** 2 + (0.5 * y) ** 2) / 6e3**2)
points = pd.DataFrame(
    {
        "x": x,
        "y": y - 1.3e6,
        "time": pd.Timestamp("2011-01-01") + pd.to_timedelta(years * 365.25, "D"),
        "elevation": 1500 + 60 * np.sin(x / 4e3) * np.cos(y / 5e3) - 0.01 * x + rate * years,
        "pass_id": passes,
        "ascending": passes % 2 == 0,
    }
)
points["elevation"] += random.normal(0, 0.3, passes.size)

posts = np.arange(-20e3, 20.1e3, 500.0)
config = cryotile.FitConfig(radius=2e3, recipe="passes")
maps = cryotile.fit_posts(points, posts, posts - 1.3e6, config).assign_attrs(crs="EPSG:3413")

line = (-18e3, -1.3e6, 18e3, -1.3e6)
value, elevation, place = cryotile.plot(maps, line=line, title="Across a thinning glacier")
value.axhline(-0.5, color="#c8553d", linestyle=":", linewidth=1)  # axes are there to draw on
value.figure.savefig(sys.argv[1], dpi=200)
