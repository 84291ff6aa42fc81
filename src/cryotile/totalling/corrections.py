"""Grids that a user gives with a total: bedrock uplift, change of firn air, density."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cryotile.errors import InvalidValue, number_of, path_of
from cryotile.exchange.units import rate_unit, sigma_unit
from cryotile.geo.mask import Mask
from cryotile.geo.raster import (
    Raster,
    is_netcdf,
    maps_of,
    open_band,
    open_netcdf,
    open_variable,
    overlaps,
)
from cryotile.totalling.posts import Posts

__all__ = ["Correction", "Density", "density_of", "read_correction", "uniform_density"]

Array = npt.NDArray[np.float64]

LIGHTEST, HEAVIEST = 100.0, 1000.0
"""Densities of snow and ice lie between, kg m-3."""

FIRN, ICE = 350.0, 917.0
"""Densities inside and outside a firn mask, kg m-3."""

_SIGMA = re.compile(
    r"(^|_)(sigma|sd|std|stdev|stddev|uncert\w*|err|error|se|rmse|var|variance)($|_)"
)

_DENSITY_UNITS = {"kg m-3": 1.0, "kg m^-3": 1.0, "kg/m3": 1.0, "kg/m^3": 1.0, "kg m**-3": 1.0}
_DENSITY_UNITS |= {"g cm-3": 1000.0, "g/cm3": 1000.0, "g cm^-3": 1000.0, "g/cm^3": 1000.0}


@dataclass(frozen=True, eq=False)
class Correction:
    """A rate of height that is not a change of the ice, at each post.

    Attributes
    ----------
    rate : ndarray, shape (ny, nx)
        m yr-1; NaN where the grid has none.
    sigma : ndarray, shape (ny, nx), or None
        Its standard error, m yr-1; None: the grid has none.
    notes : tuple of str
        What was converted, in sentences.
    """

    rate: Array
    sigma: Array | None
    notes: tuple[str, ...]


def read_correction(posts: Posts, noun: str, source: Path) -> Correction:
    """Interpolate a grid of rates at the wanted posts, bilinearly.

    Parameters
    ----------
    posts : Posts
        The map.
    noun : str
        What messages call it.
    source : Path
        A NetCDF file of any CRS with one map of a rate and, optionally, one of its standard error; units in its
        attributes, e.g. ``mm yr-1``.  ``FILE:NAME`` names the rate of a file with several maps.

    Raises
    ------
    InvalidValue
        The file is absent or is not NetCDF; its rate is not named; its unit is not stated or is not that of a rate; its
        error is a variance by its name and not by its unit; or it has no value at a wanted post.
    """
    path, wanted = _parted(source, noun)
    if not is_netcdf(path):
        raise InvalidValue(
            f"{noun} {path} is not a NetCDF file, whose attributes state the unit of the rate; give one"
        )
    with open_netcdf(path, noun) as file:
        maps = {str(name): variable for name, variable in maps_of(file).items()}
        errors = [name for name in maps if _is_error(maps[name])]
        name = _chosen(path, noun, wanted, [name for name in maps if name not in errors])
        error = _error_of(path, noun, name, errors)
        stated = str(getattr(maps[name], "units", "")).strip()
    if stated in ("", "1"):
        raise InvalidValue(
            f"{noun} {path}: {name} states no unit; set its attribute units, e.g. to m yr-1 or mm yr-1"
        )
    raster = open_variable(path, noun, lambda file: file[name]).closed()
    unit = rate_unit(stated, name, path)
    notes = [unit.note] if unit.note else []
    rate = _at_posts(posts, raster, noun, path) * unit.factor
    sigma = None
    if error is not None:
        found = open_variable(path, noun, lambda file: file[error]).closed()
        described = str(found.attributes.get("long_name", ""))
        of = sigma_unit(found.units, error, path, of=unit, rate=True, described=described)
        notes += [of.note] if of.note else []
        with np.errstate(invalid="ignore"):
            sigma = _at_posts(posts, found, noun, path) ** of.power * of.factor
    return Correction(rate, sigma, tuple(f"{noun}: {note}" for note in notes))


def _parted(source: Path, noun: str) -> tuple[Path, str | None]:
    """Return the path and the name of ``FILE`` or ``FILE:NAME``."""
    if source.is_file():
        return source, None
    path, separator, name = str(source).rpartition(":")
    if separator and Path(path).is_file():
        return Path(path), name
    raise InvalidValue(f"{noun} {source} does not exist or is not a file; give a file")


def _is_error(variable: Any) -> bool:
    return _SIGMA.search(str(variable.name).casefold()) is not None


def _error_of(path: Path, noun: str, name: str, errors: Sequence[str]) -> str | None:
    """Return the error of a variable: the one that begins with its name, or the only one of the file."""
    found = [error for error in errors if error.startswith(name)] or errors
    if len(found) > 1:
        raise InvalidValue(
            f"{noun} {path} has {len(found)} maps of errors ({', '.join(found)}); leave one in the file"
        )
    return found[0] if found else None


def _chosen(path: Path, noun: str, wanted: str | None, maps: Sequence[str]) -> str:
    listed = ", ".join(maps) or "none"
    if wanted is not None:
        if wanted not in maps:
            raise InvalidValue(f"{noun} {path} has no map {wanted!r}; choose one of {listed}")
        return wanted
    if len(maps) != 1:
        raise InvalidValue(
            f"{noun} {path} has {len(maps)} maps ({listed}); name the rate: {path}:NAME"
        )
    return maps[0]


def _at_posts(posts: Posts, raster: Raster, noun: str, path: Path) -> Array:
    if not overlaps(raster, posts.crs):
        raise InvalidValue(
            f"{noun} {path} ({raster.crs.name}) covers no place of the map's CRS ({posts.crs.name}); give the grid of"
            " that part of the Earth"
        )
    found = np.full(posts.rate.shape, np.nan)
    found[posts.wanted] = raster.at(*posts.positions(posts.wanted), posts.crs)
    if not np.isfinite(found).any():
        raise InvalidValue(
            f"{noun} {path} has no value at any of the {int(posts.wanted.sum()):,} posts of the basins; give a grid of"
            " their region"
        )
    return found


@dataclass(frozen=True, eq=False)
class Density:
    """The density of what is gained or lost, at each post.

    Attributes
    ----------
    at_posts : ndarray, shape (ny, nx)
        kg m-3; NaN where unknown.
    note : str
        Where it comes from, in a sentence.
    """

    at_posts: Array
    note: str


def density_of(posts: Posts, density: object, firn_mask: Path | None = None) -> Density:
    """Return the density at each wanted post.

    Parameters
    ----------
    posts : Posts
        The map.
    density : number or path
        kg m-3; or a GeoTIFF or NetCDF file of densities in any CRS.
    firn_mask : Path or None
        A mask as of :class:`cryotile.geo.mask.Mask`, instead of a density: 350 kg m-3 inside, 917 outside.

    Raises
    ------
    InvalidValue
        Both are given; a density is not between 100 and 1000 kg m-3; or the grid has no value at a wanted post.
    """
    if firn_mask is not None:
        if density is not None:
            raise InvalidValue(
                f"density {density} and a firn mask, which is {FIRN:g} kg m-3 inside and {ICE:g} outside, exclude each"
                " other; give one of them"
            )
        inside = Mask.read(firn_mask, posts.grid).inside
        return Density(
            np.where(inside, FIRN, ICE),
            f"density {FIRN:g} kg m-3 where {firn_mask.name} has firn and {ICE:g} elsewhere",
        )
    number = _number(density)
    if number is None:
        return _density_grid(posts, path_of("density", density, "give kg m-3, e.g. 917, or a file"))
    _check_range(f"density {number:g}", number, number)
    return Density(np.full(posts.rate.shape, number), f"density {number:g} kg m-3 everywhere")


def uniform_density(density: object) -> float:
    """Return a density that is one number, kg m-3.

    Raises
    ------
    InvalidValue
        It is a grid, or not between 100 and 1000 kg m-3.
    """
    number = _number(density)
    if number is None:
        raise InvalidValue(
            f"density {density} must be a number, because a series has the volume of a basin and not of its posts; give"
            " kg m-3, e.g. 917"
        )
    _check_range(f"density {number:g}", number, number)
    return number


def _number(density: object) -> float | None:
    if isinstance(density, str | Path):
        try:
            return float(str(density))
        except ValueError:
            return None
    return None if hasattr(density, "__fspath__") else number_of("density", density)


def _density_grid(posts: Posts, source: Path) -> Density:
    path, wanted = _parted(source, "density")
    if is_netcdf(path):
        with open_netcdf(path, "density") as file:
            maps = [str(name) for name, v in maps_of(file).items() if not _is_error(v)]
        name = _chosen(path, "density", wanted, maps)
        raster = open_variable(path, "density", lambda file: file[name])
    else:
        raster = open_band(path, "density", lambda _: 1)
    factor = _DENSITY_UNITS.get(raster.units.strip())
    if factor is None:
        stated = f"unit {raster.units!r}" if raster.units else "no unit"
        raise InvalidValue(f"density {path} has {stated}; state its unit as kg m-3")
    values = _at_posts(posts, raster.closed(), "density", path) * factor
    _check_range(f"density {path}", float(np.nanmin(values)), float(np.nanmax(values)))
    converted = "" if factor == 1.0 else f", converted from {raster.units}"
    return Density(values, f"density of {path.name}{converted}")


def _check_range(what: str, low: float, high: float) -> None:
    if not (low >= LIGHTEST and high <= HEAVIEST):
        found = f" of {low:g} to {high:g}" if math.isfinite(low) and low != high else ""
        raise InvalidValue(
            f"{what}{found} is not between {LIGHTEST:g} and {HEAVIEST:g} kg m-3; ice has {ICE:g}"
        )
