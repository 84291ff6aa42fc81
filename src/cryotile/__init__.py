"""Maps of ice elevation change from satellite altimetry.

>>> import cryotile
>>> db = cryotile.PointDB("greenland.pdb")                       # doctest: +SKIP
>>> points = db.read((-2e5, -2.3e6, -1e5, -2.2e6))               # doctest: +SKIP
>>> cryotile.fit_posts(points, post_x, post_y, cryotile.FitConfig(radius=2000.0))   # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryotile.errors import CryotileError
    from cryotile.fit.config import FitConfig
    from cryotile.fit.posts import fit_posts
    from cryotile.geo.grid import Grid, Tile
    from cryotile.pointdb import PointDB
    from cryotile.readers import read_granule
    from cryotile.runs.run import Run

__version__ = "0.1.0"

# Name → module.  Resolved on first use, so that importing cryotile stays light.
_HOME = {
    "CryotileError": "cryotile.errors",
    "FitConfig": "cryotile.fit.config",
    "Grid": "cryotile.geo.grid",
    "PointDB": "cryotile.pointdb",
    "Run": "cryotile.runs.run",
    "Tile": "cryotile.geo.grid",
    "fit_posts": "cryotile.fit.posts",
    "read_granule": "cryotile.readers",
}

__all__ = [
    "CryotileError",
    "FitConfig",
    "Grid",
    "PointDB",
    "Run",
    "Tile",
    "__version__",
    "fit_posts",
    "read_granule",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cryotile' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
