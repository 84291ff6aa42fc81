"""Any grid by the CF conventions: a rate, or heights over time, by the name of its variable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cryotile.errors import InvalidValue
from cryotile.exchange.grid_file import (
    GridFile,
    instants,
    named,
    read_field,
    stated_instant,
    text_of,
)
from cryotile.exchange.reference import Epoch, Field, Period, Reference
from cryotile.exchange.units import height_unit, unused_sigmas
from cryotile.exchange.windows import rates_over

__all__ = ["NAME", "read"]

NAME = "CF grid"


def read(path: Path, file: Any, variable: str | None, sigma: str | None) -> Reference:
    """Return the rates of a variable, or its heights at each time.

    Parameters
    ----------
    path : Path
        The file.
    file : netCDF4.Dataset
        The same, open.
    variable, sigma : str or None
        Names, ``group/name`` in a group.

    Raises
    ------
    InvalidValue
        A variable is not named or does not exist, or is neither a rate nor heights over time.
    """
    node, value = _find(path, file, variable, "variable")
    error = None if sigma is None else _find(path, node, sigma, "sigma")[1]
    grid = GridFile.of(path, node, value)
    notes = (*grid.notes, *unused_sigmas(_beside(node, value, error)))
    over = [d for d in node.variables[value].dimensions if d not in grid.dims]
    dim = over[0] if over else ""
    count = _length(node, value, dim)
    if over and _is_height(path, node, value):
        times = None if dim not in node.variables else instants(node.variables[dim])
        if times is None:
            raise InvalidValue(
                f"{path}: {value} is a height over {dim}, which has no unit of time; give its coordinate one, such as"
                " days since 2000-01-01"
            )
        epochs = tuple(_epoch(grid, value, error, dim, k, time) for k, time in enumerate(times))
        return Reference(NAME, str(path), grid.crs, grid.x, grid.y, epochs=epochs, notes=notes)
    rates = rates_over(grid, value, error, dim, _periods(file, node, dim, count))
    return Reference(NAME, str(path), grid.crs, grid.x, grid.y, rates, notes=notes)


def _epoch(
    grid: GridFile, value: str, sigma: str | None, dim: str, place: int, time: np.datetime64
) -> Epoch:
    def read() -> Field:
        return read_field(grid, value, sigma, {dim: place}, rate=False)

    return Epoch(time, read)


def _find(path: Path, node: Any, name: str | None, option: str) -> tuple[Any, str]:
    maps = list(_maps(node))
    if name is None:
        raise InvalidValue(
            f'{path} is of no layout that cryotile knows; name its rate with {option}="NAME", one of'
            f" {', '.join(maps) or 'none: it has no map'}"
        )
    group, _, last = name.strip("/").rpartition("/")
    for part in filter(None, group.split("/")):
        node = node.groups.get(part) if node is not None else None
    if node is None or last not in node.variables:
        raise InvalidValue(
            f"{path} has no variable {name!r}; choose one of {', '.join(maps) or 'none: it has no map'}"
        )
    return node, last


def _maps(node: Any) -> Iterator[str]:
    prefix = "" if node.path == "/" else f"{node.path.strip('/')}/"
    for name, variable in node.variables.items():
        if variable.ndim >= 2 and variable.dtype != str and variable.dtype.kind == "f":
            yield f"{prefix}{name}"
    for group in node.groups.values():
        yield from _maps(group)


def _beside(node: Any, value: str, sigma: str | None) -> dict[str, str]:
    """Return the other maps on the dimensions of a variable, and how each is described."""
    dims = set(node.variables[value].dimensions)
    return {
        name: f"{name} {text_of(variable, 'long_name', 'standard_name')}"
        for name, variable in node.variables.items()
        if name not in (value, sigma) and variable.ndim >= 2 and dims >= {*variable.dimensions}
    }


def _length(node: Any, value: str, dim: str) -> int:
    variable = node.variables[value]
    return int(variable.shape[variable.dimensions.index(dim)]) if dim else 1


def _is_height(path: Path, node: Any, value: str) -> bool:
    units = text_of(node.variables[value], "units")
    if not units:
        return False
    try:
        height_unit(units, value, path)
    except InvalidValue:
        return False
    return True


def _periods(file: Any, node: Any, dim: str, count: int) -> list[Period | None]:
    """Return the periods: of the bounds of times, else of the attributes of the file for a single map."""
    if dim in node.variables:
        bounds = named(node, text_of(node.variables[dim], "bounds") or f"{dim}_bnds")
        if bounds is not None:
            unit = text_of(node.variables[dim], "units")
            ends = instants(node.variables[bounds], default=unit)
            if ends is not None and ends.shape == (count, 2):
                return [(start, end) for start, end in ends]
    start, end = (stated_instant(text_of(file, f"time_coverage_{end}")) for end in ("start", "end"))
    stated = (start, end) if count == 1 and start is not None and end is not None else None
    return [stated] * count
