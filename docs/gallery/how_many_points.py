"""Number of points in each square of a point DB, counted without reading a point."""

import sys
import tempfile
from pathlib import Path

import cmcrameri.cm  # noqa: F401  (registers its colour maps)
import matplotlib.pyplot as plt

import cryotile
from cryotile.geo.projection import project_granule
from cryotile.simulate import simulate

plt.style.use("cryotile.plotting.style")

with tempfile.TemporaryDirectory() as scratch:
    db = cryotile.PointDB.create(Path(scratch) / "ice.pdb", "EPSG:3413")
    paths = simulate(Path(scratch) / "granules", years=0.25)
    db.append([project_granule(cryotile.read_granule(path), db.crs) for path in paths])
    squares = db.squares(where="mode == 'sarin_poca'")

count = squares.pivot_table(index="y_min", columns="x_min", values="count", aggfunc="sum")
figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
x, y = count.columns / 1e3 + 2.5, count.index / 1e3 + 2.5
image = axis.pcolormesh(x, y, count, cmap="cmc.batlow")
axis.set(xlabel="x (km)", ylabel="y (km)", aspect="equal", title=f"{count.sum().sum():,.0f} points")
figure.colorbar(image, label="points in a square of 5 km")
figure.savefig(sys.argv[1])
