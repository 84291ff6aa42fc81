"""Maps of ice elevation change from satellite altimetry.

>>> import cryotile as ct
>>> db = ct.ingest("greenland.pdb", "granules/ATL06_1.h5", crs="EPSG:3413")   # doctest: +SKIP
>>> run = ct.plan("run/", db, posting=1000, radius=2000)                      # doctest: +SKIP
>>> ct.run(run, backend="local:8", progress=True)                             # doctest: +SKIP
>>> ct.assemble(run, "dhdt.nc")                                               # doctest: +SKIP
>>> ct.plot(ct.open_run(run).dhdt)                                            # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryotile.api import assemble, ingest, open, open_run, plan, plot, run, totals
    from cryotile.errors import CryotileError
    from cryotile.fit.config import FitConfig
    from cryotile.fit.posts import fit_posts
    from cryotile.geo.grid import Grid, Tile
    from cryotile.pointdb import PointDB
    from cryotile.readers import read_granule
    from cryotile.runs.comparison import compare, export
    from cryotile.runs.run import Run
    from cryotile.runs.series import series

__version__ = "0.1.0"

# Name → module, imported on first use, so that importing cryotile is quick.
_HOME = {
    "CryotileError": "cryotile.errors",
    "FitConfig": "cryotile.fit.config",
    "Grid": "cryotile.geo.grid",
    "PointDB": "cryotile.pointdb",
    "Run": "cryotile.runs.run",
    "Tile": "cryotile.geo.grid",
    "assemble": "cryotile.api",
    "compare": "cryotile.runs.comparison",
    "export": "cryotile.runs.comparison",
    "fit_posts": "cryotile.fit.posts",
    "ingest": "cryotile.api",
    "open": "cryotile.api",
    "open_run": "cryotile.api",
    "plan": "cryotile.api",
    "plot": "cryotile.api",
    "read_granule": "cryotile.readers",
    "run": "cryotile.api",
    "series": "cryotile.runs.series",
    "totals": "cryotile.api",
}

__all__ = [
    "CryotileError",
    "FitConfig",
    "Grid",
    "PointDB",
    "Run",
    "Tile",
    "__version__",
    "assemble",
    "compare",
    "export",
    "fit_posts",
    "ingest",
    "open",
    "open_run",
    "plan",
    "plot",
    "read_granule",
    "run",
    "series",
    "totals",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cryotile' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
