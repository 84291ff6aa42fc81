"""ITS_LIVE and NSIDC-0782 elevation change of Antarctica: heights relative to an epoch, no rates.

Layout by the user guide of NSIDC-0782.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryotile.errors import InvalidValue
from cryotile.exchange.grid_file import GridFile, instants, named, read_field
from cryotile.exchange.reference import Epoch, Reference

__all__ = ["NAME", "read", "recognize"]

NAME = "ITS_LIVE elevation change"
CRS = "EPSG:3031"
TIME_UNIT = "days since 1950-01-01"

POLE_HOLE = 3
"""Flag of posts that are filled with a constant, not measured."""

_HEIGHTS = ("dh", "height_change", "dh_all")


def recognize(file: Any) -> bool:
    """Return whether a file has heights over time and the errors or flags of the layout."""
    heights = named(file, *_HEIGHTS)
    return (
        heights is not None
        and "time" in file.variables[heights].dimensions
        and named(file, "rms", "rmse", "quality_flag") is not None
    )


def read(path: Path, file: Any) -> Reference:
    """Return the heights of all epochs.

    Parameters
    ----------
    path : Path
        The file.
    file : netCDF4.Dataset
        The same, open.

    Raises
    ------
    InvalidValue
        The time has no unit of time.
    """
    value = str(named(file, *_HEIGHTS))
    sigma = named(file, "rmse", "rms")
    grid = GridFile.of(path, file, value, crs=CRS)
    times = instants(file.variables["time"], default=TIME_UNIT)
    if times is None:
        raise InvalidValue(f"{path}: the unit of time is not one of time; fetch the file again")
    flags = file.variables.get("quality_flag")
    kept = None if flags is None else [f for f in np.unique(flags[:]).tolist() if f != POLE_HOLE]
    good = None if kept is None else ("quality_flag", kept)
    epochs = tuple(_epoch(grid, value, sigma, k, time, good) for k, time in enumerate(times))
    return Reference(NAME, str(path), grid.crs, grid.x, grid.y, epochs=epochs, notes=grid.notes)


def _epoch(
    grid: GridFile, value: str, sigma: str | None, place: int, time: np.datetime64, good: Any
) -> Epoch:
    at = {"time": place}
    return Epoch(time, lambda: read_field(grid, value, sigma, at, rate=False, good=good))
