"""Heights over time at two places of a glacier whose tongue thins faster and faster; a year without a pass."""

import sys

import numpy as np
import pandas as pd

import cryotile

random = np.random.default_rng(4)
passes = np.repeat(np.arange(96), 150)
along = random.uniform(-18e3, 18e3, passes.size)
across = random.normal(random.uniform(-16e3, 16e3, 96)[passes], 2e3)
x, y = np.where(passes % 2, along, across), np.where(passes % 2, across, along)
years = passes / 8
thinning = np.exp(-(x**2 + (0.6 * y) ** 2) / 5e3**2)
points = pd.DataFrame(
    {
        "x": x,
        "y": y - 1.3e6,
        "time": pd.Timestamp("2011-01-01") + pd.to_timedelta(years * 365.25, "D"),
        "elevation": 1500 - 0.01 * x + (0.1 - 0.08 * thinning * years) * years,
        "pass_id": passes,
        "ascending": passes % 2 == 0,
    }
)
points["elevation"] += random.normal(0, 0.2, passes.size)
points = points[(years < 5) | (years > 6)]

posts = np.arange(-12e3, 12.1e3, 1e3)
config = cryotile.FitConfig(
    radius=3e3, recipe="passes", period=("2011-01-01", "2023-01-01"), heights="6m"
)
maps = cryotile.fit_posts(points, posts, posts - 1.3e6, config).assign_attrs(crs="EPSG:3413")
series = cryotile.series(maps, at=[(10e3, -1.305e6), (0.0, -1.3e6)])
series = series.assign_coords(post=["plateau", "tongue"])
axes = cryotile.plot(series)
axes.figure.savefig(sys.argv[1], dpi=200)
