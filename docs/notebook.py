# %% [markdown]
# # From granules to a map
#
# The path of `cryotile demo`, by calls. Run it as a script, or cell by cell in a notebook.

# %%
import sys
from pathlib import Path

import numpy as np

import cryotile as ct
from cryotile.points import SURFACE_TYPES
from cryotile.simulate import World, simulate

directory = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")

# %% [markdown]
# Three years of a radar mission over an ice sheet whose change is known; or granules that are there already.

# %%
world = World()
granules = sorted((directory / "granules").glob("*.nc")) or simulate(directory / "granules")

# %% [markdown]
# Their points, projected, in a point DB. The report says what was dropped, and why.

# %%
db = ct.ingest(directory / "ice.pdb", granules, crs=world.crs)
db.last_ingest

# %% [markdown]
# A plan freezes everything that a number in the map depends on. Each setting of `ct.FitConfig` is a keyword.

# %%
run = ct.plan(directory / "run", db, posting=1000, radius=2000, tile_size=50)
run

# %% [markdown]
# Every core works. The call may be interrupted at any moment; the same call goes on.

# %%
ct.run(run, backend="local", progress=True)

# %% [markdown]
# The maps, lazily: one dask chunk per tile, if dask is installed. Before the run is done, missing tiles are empty.

# %%
maps = ct.open_run(run)
maps

# %%
ct.assemble(run, directory / "dhdt.nc")
ct.plot(maps).figure.savefig(directory / "dhdt.png", dpi=200)

# %% [markdown]
# How far is the map from the truth?

# %%
x, y = np.meshgrid(maps.x, maps.y)
error = maps.dhdt - world.dhdt(x, y)
error = error.where(world.surface_type(x, y) == SURFACE_TYPES.index("grounded_ice"))
bias, rms = float(error.mean()), float(np.sqrt((error**2).mean()))
sys.stdout.write(f"bias {bias:+.4f} m/yr, rms {rms:.4f} m/yr over {int(error.count()):,} posts\n")
