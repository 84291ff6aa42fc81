"""CryoTEMPO EOLIS gridded product: a map of elevations for each month, a file each.

Layout by the product page of CryoTEMPO-EOLIS (cryotempo-eolis.org, gridded product).
"""

from __future__ import annotations

import re
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
from cryotile.exchange.reference import Epoch, Floats, Reference
from cryotile.exchange.writing import (
    Exported,
    Source,
    add_map,
    add_projection,
    add_vector,
    file_of,
    new_file,
)
from cryotile.times import parse_instant

__all__ = ["NAME", "read", "recognize", "write"]

NAME = "CryoTEMPO EOLIS gridded"
TIME_UNIT = "seconds since 1970-01-01"


def recognize(file: Any) -> bool:
    """Return whether a file has the variables of the layout, and is no grid of another one."""
    if not {"elevation", "uncertainty"} <= file.variables.keys():
        return False
    return file.variables["elevation"].ndim >= 2 and "dhdt" not in file.variables


def read(path: Path, file: Any) -> Reference:
    """Return the elevations of the months of a file; a rate needs two months.

    Parameters
    ----------
    path : Path
        The file.
    file : netCDF4.Dataset
        The same, open.

    Raises
    ------
    InvalidValue
        The file tells no time.
    """
    grid = GridFile.of(path, file, "elevation")
    times = _times(path, file)
    over = "time" in file.variables["elevation"].dimensions
    epochs = tuple(_epoch(grid, {"time": k} if over else {}, time) for k, time in enumerate(times))
    return Reference(NAME, str(path), grid.crs, grid.x, grid.y, epochs=epochs, notes=grid.notes)


def _epoch(grid: GridFile, at: dict[str, int], time: np.datetime64) -> Epoch:
    return Epoch(time, lambda: read_field(grid, "elevation", "uncertainty", at, rate=False))


def _times(path: Path, file: Any) -> list[np.datetime64]:
    name = named(file, "time")
    times = None if name is None else instants(file.variables[name], default=TIME_UNIT)
    if times is not None and not np.isnat(times).any():
        return list(np.atleast_1d(times))
    ends = [
        stated_instant(text_of(file, f"time_coverage_{end}", f"geospatial_time_coverage_{end}"))
        for end in ("start", "end")
    ]
    if ends[0] is not None and ends[1] is not None:
        return [ends[0] + (ends[1] - ends[0]) / 2]
    month = re.search(r"(?<!\d)(\d{4})[-_]?(\d{2})(?!\d)", path.stem)
    instant = stated_instant(f"{month[1]}{month[2]}15") if month else None
    if instant is None:
        raise InvalidValue(f"{path} tells no time, in it or in its name; fetch the file again")
    return [instant]


# --- writing -----------------------------------------------------------------------------------------------------


def write(source: Source, output: Path) -> Exported:
    """Write the elevation of each bin of heights, or of the reference epoch if there are no heights.

    Parameters
    ----------
    source : Source
        The product.
    output : Path
        A directory; or, of a single time, the file.

    Returns
    -------
    Exported

    Raises
    ------
    InvalidValue
        There are several times and the output is a file, or the product has no elevations.
    """
    if "elevation" not in source.product:
        raise InvalidValue(f"{source.rates.name} has no elevation; assemble the run again")
    epochs = source.rates.epochs
    single = output.suffix.lower() == ".nc"
    if single and len(epochs) > 1:
        raise InvalidValue(
            f"{source.rates.name} has heights of {len(epochs)} times, and the layout has a file for each; give a"
            f" directory instead of {output.name}"
        )
    notes = (
        [] if source.posting == 2000 else [f"the posting is {source.posting:g} m; EOLIS has 2000 m"]
    )
    if not epochs:
        notes.append(
            "the product has no heights over time: the elevation at its reference epoch is written"
        )
    files = []
    for time, values, sigma in _elevations(source):
        path = file_of(output, f"cryotile_EOLIS_GRIDDED_{source.region}_{str(time)[:10]}.nc")
        _write_epoch(path, source, time, values, sigma)
        files.append(path)
    return Exported(tuple(files), tuple(notes))


def _elevations(source: Source) -> Iterator[tuple[np.datetime64, Floats, Floats]]:
    surface = source.values("elevation")
    if not source.rates.epochs:
        epoch = source.product.attrs.get("reference_epoch")
        if epoch is None:
            raise InvalidValue(
                f"{source.rates.name} does not say its reference epoch; assemble it again"
            )
        time = parse_instant(str(epoch)).to_datetime64().astype("datetime64[ms]")
        yield time, surface, source.values("elevation_sigma")
    for one in source.rates.epochs:
        field = one.read()
        sigma = np.full_like(surface, np.nan) if field.sigma is None else field.sigma
        yield one.time, surface + field.value, sigma


def _write_epoch(
    path: Path, source: Source, time: np.datetime64, values: Floats, sigma: Floats
) -> None:
    seconds = (time - np.datetime64("1970-01-01", "ms")) / np.timedelta64(1, "ms") / 1e3
    half, mapping = source.posting / 2, "projection"
    with new_file(path) as file:
        file.setncatts(
            {
                "Conventions": "CF-1.8",
                "title": f"Elevation of land ice on {str(time)[:10]} in the layout of EOLIS",
                **source.about,
            }
        )
        told = {"units": TIME_UNIT, "standard_name": "time", "calendar": "proleptic_gregorian"}
        add_vector(file, "time", (), seconds, told)
        for name, at in (("x", source.rates.x), ("y", source.rates.y)):
            told = {
                "units": "m",
                "standard_name": f"projection_{name}_coordinate",
                "bounds": f"{name}_bnds",
            }
            add_vector(file, name, (name,), at, told)
            edges = np.column_stack([at - half, at + half])
            add_vector(file, f"{name}_bnds", (name, "nv"), edges, {"units": "m"})
        add_projection(file, mapping, source.rates.crs)
        shared = {"units": "m", "grid_mapping": mapping, "coordinates": "time"}
        about = {"long_name": "elevation above the WGS84 ellipsoid"}
        add_map(file, "elevation", ("y", "x"), [lambda: values], {**shared, **about})
        about = {"long_name": "uncertainty of elevation"}
        add_map(file, "uncertainty", ("y", "x"), [lambda: sigma], {**shared, **about})
