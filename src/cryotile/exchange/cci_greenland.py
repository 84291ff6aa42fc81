"""ESA CCI Greenland surface elevation change, versions 1.2 and 3: rates of windows, time last.

Layout by the product user guide of the project, and by the list of variables in its catalogue (version 1.2).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from cryotile.exchange.grid_file import GridFile, named, stated_instant, text_of
from cryotile.exchange.reference import Period, Reference
from cryotile.exchange.windows import rates_over, starts_and_ends

__all__ = ["NAME", "read", "recognize"]

NAME = "ESA CCI Greenland SEC"
CRS = "EPSG:3413"
TIME_UNIT = "hours since 1990-01-01"


def recognize(file: Any) -> bool:
    """Return whether a file has the variables of the layout."""
    return "SEC" in file.variables


def read(path: Path, file: Any) -> Reference:
    """Return the rates of all windows.

    Parameters
    ----------
    path : Path
        The file.
    file : netCDF4.Dataset
        The same, open.
    """
    grid = GridFile.of(path, file, "SEC", crs=CRS)
    (dim,) = [d for d in file.variables["SEC"].dimensions if d not in grid.dims] or [""]
    count = len(file.dimensions[dim]) if dim else 1
    periods = starts_and_ends(path, file, count, default=TIME_UNIT)
    if periods == [None]:
        periods = [_stated(text_of(file.variables["SEC"], "Time"))]
    rates = rates_over(grid, "SEC", named(file, "SECer", "SEC_error", "SECerr"), dim, periods)
    return Reference(NAME, str(path), grid.crs, grid.x, grid.y, rates, notes=grid.notes)


def _stated(text: str) -> Period | None:
    """Return the period of the attribute ``Time`` of version 1.2, such as "January 2001 - December 2005"."""
    words = re.split(r"\s+-\s+|\s+to\s+", text)
    found = [stated_instant(word) for word in words]
    if len(found) != 2 or found[0] is None or found[1] is None:
        return None
    # The last month belongs to the period.
    last = found[1].astype("datetime64[M]") + np.timedelta64(1, "M")
    return found[0], last.astype("datetime64[ms]")
