"""The point DB: projected points of many granules, chunked, on disk.

The format, which other programs can read, is described with :mod:`cryotile.pointdb.layout` (directories),
:mod:`~cryotile.pointdb.encoding` (columns), :mod:`~cryotile.pointdb.log` (commits),
:mod:`~cryotile.pointdb.state` (granules and fragments) and :mod:`~cryotile.pointdb.squares` (counts and digests).
"""

from cryotile.pointdb.append import Appended
from cryotile.pointdb.db import PointDB
from cryotile.pointdb.layout import SQUARE_SIZE

__all__ = ["SQUARE_SIZE", "Appended", "PointDB"]
