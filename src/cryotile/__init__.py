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
    from cryotile.config import FitConfig
    from cryotile.errors import CryotileError
    from cryotile.fit import fit_posts
    from cryotile.grid import Grid, Tile
    from cryotile.pointdb import PointDB
    from cryotile.readers import read_granule
    from cryotile.run import Run

__version__ = "0.1.0"

# Name → module.  Resolved on first use, so that importing cryotile stays light.
_HOME = {
    "CryotileError": "cryotile.errors",
    "FitConfig": "cryotile.config",
    "Grid": "cryotile.grid",
    "PointDB": "cryotile.pointdb",
    "Run": "cryotile.run",
    "Tile": "cryotile.grid",
    "fit_posts": "cryotile.fit",
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
