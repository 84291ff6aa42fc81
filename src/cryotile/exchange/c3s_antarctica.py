"""C3S Antarctica surface elevation change, version 4: rates of five-year windows.

Layout by the product user guide of the Copernicus Climate Change Service (version 4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryotile.exchange.grid_file import GridFile, named
from cryotile.exchange.reference import Reference
from cryotile.exchange.windows import bounds_of, rates_over

__all__ = ["NAME", "read", "recognize"]

NAME = "C3S Antarctica SEC"
CRS = "EPSG:3031"
WINDOW = 5.0
"""Years of a window, by the user guide."""


def recognize(file: Any) -> bool:
    """Return whether a file has the variables of the layout."""
    return "sec" in file.variables and named(file, "sec_ok", "sec_uncert") is not None


def read(path: Path, file: Any) -> Reference:
    """Return the rates of all windows.

    Parameters
    ----------
    path : Path
        The file.
    file : netCDF4.Dataset
        The same, open.
    """
    grid = GridFile.of(path, file, "sec", crs=CRS)
    periods, notes = bounds_of(path, file, "time", WINDOW)
    good = ("sec_ok", (1,)) if "sec_ok" in file.variables else None
    rates = rates_over(
        grid, "sec", named(file, "sec_uncert", "sec_uncertainty"), "time", periods, good=good
    )
    return Reference(NAME, str(path), grid.crs, grid.x, grid.y, rates, notes=(*grid.notes, *notes))
