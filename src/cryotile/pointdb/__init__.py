"""The point DB: projected points of many granules, in square chunks, on disk.

Other programs can read its format: see :mod:`cryotile.pointdb.sort_order` (squares, chunks, directories),
:mod:`~cryotile.pointdb.encoding` (columns), :mod:`~cryotile.pointdb.snapshot` (granules, fragments),
:mod:`~cryotile.pointdb.log` (commits) and :mod:`~cryotile.pointdb.squares` (counts and digests).
"""

from cryotile.pointdb.compact import Compacted
from cryotile.pointdb.db import PointDB
from cryotile.pointdb.rewrite import Removed
from cryotile.pointdb.sort_order import SQUARE_SIZE
from cryotile.pointdb.verify import Damage
from cryotile.pointdb.write import Appended

__all__ = ["SQUARE_SIZE", "Appended", "Compacted", "Damage", "PointDB", "Removed"]
