"""Rates of windows in files of agencies: their periods, and a rate for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryotile.errors import InvalidValue
from cryotile.exchange.grid_file import GridFile, instants, named, read_field, text_of
from cryotile.exchange.reference import Field, Period, Rate
from cryotile.times import SECONDS_PER_YEAR

__all__ = ["bounds_of", "rates_over", "starts_and_ends"]


def rates_over(
    grid: GridFile,
    value: str,
    sigma: str | None,
    dim: str,
    periods: Sequence[Period | None],
    *,
    good: tuple[str, Sequence[int]] | None = None,
) -> tuple[Rate, ...]:
    """Return a rate for each period.

    Parameters
    ----------
    grid : GridFile
        Where the maps lie.
    value, sigma : str, str or None
        Names of the variables.
    dim : str
        Dimension of the periods; empty: there is none.
    periods : sequence
        In order of the dimension.
    good : (str, sequence of int) or None
        As of :func:`cryotile.exchange.grid_file.read_field`.
    """

    def rate(place: int, period: Period | None) -> Rate:
        def read() -> Field:
            at = {dim: place} if dim else {}
            return read_field(grid, value, sigma, at, rate=True, good=good)

        return Rate(period, value, read)

    return tuple(rate(place, period) for place, period in enumerate(periods))


def starts_and_ends(path: Path, file: Any, count: int, *, default: str = "") -> list[Period | None]:
    """Return the periods of variables of starts and ends; None for each if there are none.

    Parameters
    ----------
    path : Path
        The file, for messages.
    file : netCDF4.Dataset
        The same, open.
    count : int
        Number of periods.
    default : str
        Unit of times, if they state none.

    Raises
    ------
    InvalidValue
        Their numbers differ from each other or from ``count``, or their unit is not one of time.
    """
    names = named(file, "start_time", "Start_time"), named(file, "end_time", "End_time")
    if names[0] is None or names[1] is None:
        return [None] * count
    found = [instants(file.variables[str(name)], default=default) for name in names]
    if found[0] is None or found[1] is None:
        unit = text_of(file.variables[names[0]], "units")
        raise InvalidValue(f"{path}: unit {unit!r} of {names[0]} is not one of time; correct it")
    if not found[0].size == found[1].size == count:
        raise InvalidValue(
            f"{path} has {found[0].size} values of {names[0]}, {found[1].size} of {names[1]} and {count} maps;"
            " fetch the file again"
        )
    return list(zip(found[0].ravel(), found[1].ravel(), strict=True))


def bounds_of(
    path: Path, file: Any, name: str, years: float
) -> tuple[list[Period | None], list[str]]:
    """Return the periods of a coordinate of times, by its bounds, else of a fixed length around it.

    Parameters
    ----------
    path : Path
        The file, for messages.
    file : netCDF4.Dataset
        The same, open.
    name : str
        Name of the coordinate.
    years : float
        Length of the periods, if there are no bounds.

    Returns
    -------
    (list, list of str)
        The periods, and what was assumed.
    """
    if name not in file.variables:
        return starts_and_ends(path, file, 1), []
    variable = file.variables[name]
    unit = text_of(variable, "units")
    middle = instants(variable)
    if middle is None:
        raise InvalidValue(f"{path}: unit {unit!r} of {name} is not one of time; correct it")
    bounds = named(file, text_of(variable, "bounds") or f"{name}_bounds", f"{name}_bnds")
    if bounds is not None and file.variables[bounds].shape == (middle.size, 2):
        ends = instants(file.variables[bounds], default=unit)
        if ends is not None:
            return [(start, end) for start, end in ends], []
    half = np.timedelta64(round(years * SECONDS_PER_YEAR * 500), "ms")
    notes = [f"{name} has no bounds: windows of {years:g} years around it assumed"]
    return [(one - half, one + half) for one in middle], notes
