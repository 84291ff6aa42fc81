"""C3S Greenland surface elevation change, version 6: rates of windows.

Layout by the product user guide of the Copernicus Climate Change Service.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryotile.exchange.grid_file import GridFile, named
from cryotile.exchange.reference import Reference
from cryotile.exchange.windows import rates_over, starts_and_ends

__all__ = ["NAME", "read", "recognize"]

NAME = "C3S Greenland SEC"
CRS = "EPSG:3413"


def recognize(file: Any) -> bool:
    """Return whether a file has the variables of the layout."""
    return "dhdt" in file.variables and named(file, "dhdt_ok", "dhdt_uncert") is not None


def read(path: Path, file: Any) -> Reference:
    """Return the rates of all windows.

    Parameters
    ----------
    path : Path
        The file.
    file : netCDF4.Dataset
        The same, open.
    """
    grid = GridFile.of(path, file, "dhdt", crs=CRS)
    (dim,) = [d for d in file.variables["dhdt"].dimensions if d not in grid.dims] or [""]
    periods = starts_and_ends(path, file, len(file.dimensions[dim]) if dim else 1)
    good = ("dhdt_ok", (1,)) if "dhdt_ok" in file.variables else None
    rates = rates_over(grid, "dhdt", named(file, "dhdt_uncert"), dim, periods, good=good)
    return Reference(NAME, str(path), grid.crs, grid.x, grid.y, rates, notes=grid.notes)
