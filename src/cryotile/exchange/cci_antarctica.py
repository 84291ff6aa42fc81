"""ESA CCI+ Antarctica surface elevation change, single and multi-mission, and its cumulative grids.

Files of EOCIS and CPOM have the same layout under other names.  Layout by the user guides of the project and by the
public plotting scripts of CPOM, which print the header of a file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyproj

from cryotile.exchange.grid_file import (
    GridFile,
    named,
    read_field,
    stated_instant,
    text_of,
)
from cryotile.exchange.reference import (
    Epoch,
    Field,
    Period,
    Rate,
    Reference,
    difference,
    period_text,
)
from cryotile.exchange.windows import starts_and_ends
from cryotile.exchange.writing import (
    Exported,
    Source,
    add_map,
    add_projection,
    add_vector,
    file_of,
    new_file,
    plain,
)

__all__ = ["NAME", "read", "recognize", "write"]

NAME = "ESA CCI+ Antarctica SEC"
CRS = "EPSG:3031"

SURFACES = "ocean ice_free_land grounded_ice floating_ice lake_vostok"
"""Meanings of the flags 0 to 4 of ``surface_type``."""

UNKNOWN = np.int8(-128)

_MISSIONS = {
    "cryosat2": "CS2",
    "envisat": "ENV",
    "ers1": "ER1",
    "ers2": "ER2",
    "icesat2": "IS2",
    "sentinel3a": "S3A",
    "sentinel3b": "S3B",
}
_CUMULATIVE = ("dh", "dH")
_CUMULATIVE_SIGMA = ("uncertainty", "dh_uncertainty", "dH_uncertainty", "sec_uncertainty")


def recognize(file: Any) -> bool:
    """Return whether a file has the variables of the layout."""
    if "sec" in file.variables:
        return "sec_ok" not in file.variables and "sec_uncert" not in file.variables
    own = named(file, *_CUMULATIVE), named(file, *_CUMULATIVE_SIGMA)
    return all(own) and "dhdt" not in file.variables


def read(path: Path, file: Any) -> Reference:
    """Return the rate of a file, or of a cumulative grid the change over its period as a rate.

    Parameters
    ----------
    path : Path
        The file.
    file : netCDF4.Dataset
        The same, open.

    Raises
    ------
    InvalidValue
        The numbers of its starts, ends and maps differ, or their unit is not one of time.
    """
    value = "sec" if "sec" in file.variables else str(named(file, *_CUMULATIVE))
    rate = value == "sec"
    sigma = "sec_uncertainty" if rate else named(file, *_CUMULATIVE_SIGMA)
    sigma = sigma if sigma in file.variables else None
    grid = GridFile.of(path, file, value, crs=CRS)
    others = [d for d in file.variables[value].dimensions if d not in grid.dims]
    count = len(file.dimensions[others[0]]) if others else 1
    places = [{others[0]: k} if others else {} for k in range(count)]
    given = _periods(path, file, count)
    notes = list(grid.notes)
    if rate:
        found = [
            Rate(period, value, _reader(grid, value, sigma, at, rate=True))
            for period, at in zip(given, places, strict=True)
        ]
    else:
        notes.append(f"{value} is the change since the start of its period: divided by its length")
        found = [
            _since_start(period, _reader(grid, value, sigma, at, rate=False), grid)
            for period, at in zip(given, places, strict=True)
            if period is not None
        ]
    return Reference(NAME, str(path), grid.crs, grid.x, grid.y, tuple(found), notes=tuple(notes))


def _reader(
    grid: GridFile, value: str, sigma: str | None, at: dict[str, int], *, rate: bool
) -> Any:
    return lambda: read_field(grid, value, sigma, at, rate=rate)


def _since_start(period: Period, read: Any, grid: GridFile) -> Rate:
    def nothing() -> Field:
        zero = np.zeros((grid.y.size, grid.x.size))
        return Field(zero, zero)

    return difference(Epoch(period[0], nothing), Epoch(period[1], read))


def _periods(path: Path, file: Any, count: int) -> list[Period | None]:
    """Return the periods: of variables of times, else of attributes, else of the file name."""
    stated = starts_and_ends(path, file, count)
    if None not in stated:
        return stated
    texts = [
        (text_of(file, "time_coverage_start"), text_of(file, "time_coverage_end")),
        (text_of(file, "data_start_time"), text_of(file, "data_end_time")),
    ]
    dates = re.search(r"(?<!\d)(\d{6}|\d{8})[-_](\d{6}|\d{8})(?!\d)", path.name)
    if dates:
        texts.append((dates[1], dates[2]))
    for text in texts:
        start, end = (stated_instant(one) for one in text)
        if start is not None and end is not None and start < end:
            return [(start, end)] * count
    return [None] * count


# --- writing -----------------------------------------------------------------------------------------------------


def write(source: Source, output: Path) -> Exported:
    """Write the rate of the whole period as a file of the layout; into a directory also a file for each window.

    Parameters
    ----------
    source : Source
        The product.
    output : Path
        The file, or a directory.

    Returns
    -------
    Exported
    """
    whole, *windows = source.rates.rates
    single = output.suffix.lower() == ".nc"
    notes = (
        [f"{len(windows)} windows are left out: give a directory for a file of each"]
        if single and windows
        else []
    )
    if source.posting != 5000:
        notes.append(f"the posting is {source.posting:g} m; products of the layout have 5000 m")
    if source.region != "AA":
        notes.append("the layout is one of Antarctica; programs for it may assume EPSG:3031")
    notes += ["surface_type and basin_id are unknown to the product: filled with -128"]
    files = []
    for rate in [whole] if single else [whole, *windows]:
        path = file_of(output, _file_name(source, rate))
        _write_rate(path, source, rate)
        files.append(path)
    return Exported(tuple(files), tuple(notes))


def _file_name(source: Source, rate: Rate) -> str:
    named = [name.strip() for name in str(source.product.attrs.get("platform", "")).split(",")]
    code = (
        _MISSIONS.get(named[0], plain(named[0])) if len(named) == 1 and named[0] else "MULTIMISSION"
    )
    days = "-".join(str(time)[:10].replace("-", "") for time in rate.period or ("unknown",))
    sheet = "AIS" if source.region == "AA" else "GIS"
    return f"CRYOTILE-{sheet}-L3C-SEC-{code}-{source.posting / 1e3:g}KM-{days}-fv1.nc"


def _write_rate(path: Path, source: Source, rate: Rate) -> None:
    grid = source.rates
    field = rate.read()
    dims, mapping = ("y", "x"), "grid_projection"
    with new_file(path) as file:
        file.setncatts(_about(path, source, rate))
        for name, at, word in (("x", grid.x, "easting"), ("y", grid.y, "northing")):
            about = f"Cartesian {name}-coordinate - {word}, of centre of each grid cell"
            told = {
                "units": "m",
                "standard_name": f"projection_{name}_coordinate",
                "long_name": about,
            }
            add_vector(file, name, (name,), at, told)
        add_projection(file, mapping, grid.crs)
        to = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
        positions = to.transform(*np.meshgrid(grid.x, grid.y))
        for name, long_name, at in zip(
            ("lon", "lat"), ("longitude", "latitude"), positions, strict=True
        ):
            unit = "degrees_east" if name == "lon" else "degrees_north"
            told = {
                "units": unit,
                "standard_name": long_name,
                "long_name": f"{long_name} coordinate",
            }
            add_vector(file, name, dims, at, told)
        shared = {"units": "m/yr", "coordinates": "lon lat", "grid_mapping": mapping}
        about = "rate of surface elevation change"
        add_map(file, "sec", dims, [lambda: field.value], {**shared, "long_name": about})
        errors = field.sigma
        sigma = None if errors is None else lambda: errors
        told = {**shared, "long_name": "uncertainty in rate of surface elevation change"}
        reason = "the product has no sigma"
        add_map(file, "sec_uncertainty", dims, [sigma], told, why_empty=reason)
        _add_flags(file, dims, mapping, (grid.y.size, grid.x.size))


def _about(path: Path, source: Source, rate: Rate) -> dict[str, str]:
    start, end = (f"{str(time)[:19]}Z" for time in rate.period or ("unknown", "unknown"))
    return {
        "Conventions": "CF-1.10",
        "title": f"Ice sheet surface elevation change, {period_text(rate.period)}",
        "id": path.name,
        "time_coverage_start": start,
        "time_coverage_end": end,
        "key_variables": "sec, sec_uncertainty",
        "spatial_resolution": f"{source.posting / 1e3:g} km",
        **source.about,
    }


def _add_flags(file: Any, dims: tuple[str, str], mapping: str, shape: tuple[int, int]) -> None:
    kinds = {
        "surface_type": ("surface type from mask", np.arange(5, dtype=np.int8), SURFACES),
        "basin_id": ("Glaciological basin identification number", None, None),
    }
    for name, (long_name, values, meanings) in kinds.items():
        created = file.createVariable(name, np.int8, dims, compression="zlib", fill_value=UNKNOWN)
        flags = {} if values is None else {"flag_values": values, "flag_meanings": meanings}
        created.setncatts(
            {
                "long_name": long_name,
                "coordinates": "lon lat",
                "grid_mapping": mapping,
                **flags,
                "reason": "unknown to the product: all values are missing",
            }
        )
        created[...] = np.full(shape, UNKNOWN)
