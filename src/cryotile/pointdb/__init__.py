"""The point DB: projected points of many granules, chunked, on disk.

The format, which other programs can read, is described with :mod:`cryotile.pointdb.layout` (directories),
:mod:`~cryotile.pointdb.encoding` (columns), :mod:`~cryotile.pointdb.commits` (commits),
:mod:`~cryotile.pointdb.state` (granules and fragments) and :mod:`~cryotile.pointdb.squares` (counts and digests).
"""

from cryotile.pointdb.append import Appended
from cryotile.pointdb.compact import Compacted
from cryotile.pointdb.db import PointDB
from cryotile.pointdb.layout import SQUARE_SIZE
from cryotile.pointdb.remove import Removed
from cryotile.pointdb.verify import Damage

__all__ = ["SQUARE_SIZE", "Appended", "Compacted", "Damage", "PointDB", "Removed"]
