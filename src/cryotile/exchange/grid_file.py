"""A NetCDF file with maps: its coordinates, CRS, times and values, whatever the layout.

Coordinates are trusted, not a ``GeoTransform`` beside them: in published files it often contradicts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import pyproj
from pyproj.exceptions import CRSError

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.exchange.reference import Field, Floats
from cryotile.exchange.units import Unit, height_unit, rate_unit, sigma_unit
from cryotile.geo.dem import METRES
from cryotile.geo.projection import crs_text, projected_crs
from cryotile.geo.values import VALUE_ATTRIBUTES, physical_values
from cryotile.times import TimeUnit, parse_date

__all__ = [
    "GridFile",
    "attributes",
    "instants",
    "named",
    "opened",
    "read_field",
    "stated_instant",
    "text_of",
]

FASTEST, HIGHEST = 1000.0, 9000.0
"""Largest believable rate, m/yr, and height, m: stand-ins such as -9999 lie beyond them."""

_AXES = {
    "x": ("x", "easting", "xc", "projection_x_coordinate"),
    "y": ("y", "northing", "yc", "projection_y_coordinate"),
}

_FALLING = re.compile(r"thinning|lowering|elevation loss|height loss|surface loss")
_AXIS_IN_KM = 1e5
"""Metres; no body is smaller, so a smaller semi-major axis is in kilometres."""


@contextmanager
def opened(path: Path) -> Iterator[netCDF4.Dataset]:
    """Open a NetCDF file for reading raw numbers.

    Raises
    ------
    InvalidValue
        It does not exist, or is not NetCDF.
    DamagedFile
        It is damaged.
    """
    if not path.is_file():
        raise InvalidValue(f"{path} does not exist or is not a file; give a NetCDF file or a table")
    try:
        with netCDF4.Dataset(path) as file:
            file.set_auto_maskandscale(False)
            yield file
    except (OSError, RuntimeError) as error:
        raise DamagedFile(
            f"{path} cannot be read as NetCDF ({' '.join(str(error).split())}); fetch it again"
        ) from error


def named(node: Any, *names: str) -> str | None:
    """Return the first of some names that is a variable of a group; None if none is."""
    return next((name for name in names if name in node.variables), None)


def attributes(node: Any) -> dict[str, Any]:
    """Return the attributes of a file, group or variable."""
    return {name: node.getncattr(name) for name in node.ncattrs()}


def text_of(node: Any, *names: str) -> str:
    """Return the first of some attributes that is there, as text; empty if none is."""
    given = attributes(node)
    return next((" ".join(str(given[name]).split()) for name in names if name in given), "")


@dataclass(frozen=True, eq=False)
class GridFile:
    """Where the maps of one group of a file lie.

    Attributes
    ----------
    path : Path
        The file.
    group : str
        Name of the group; empty: the file itself.
    crs : pyproj.CRS
        Of x and y.
    x, y : ndarray, shapes (nx,), (ny,)
        Ascending, metres.
    dims : (str, str)
        Names of the dimensions of y and x.
    flips : (bool, bool)
        Whether y and x descend in the file.
    notes : tuple of str
        What was assumed.
    """

    path: Path
    group: str
    crs: pyproj.CRS
    x: Floats
    y: Floats
    dims: tuple[str, str]
    flips: tuple[bool, bool]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, node: Any, variable: str, *, crs: str | None = None) -> GridFile:
        """Return the grid of a variable.

        Parameters
        ----------
        path : Path
            The file.
        node : netCDF4.Dataset or netCDF4.Group
            The open group.
        variable : str
            Name of a map.
        crs : str or None
            CRS of the layout, if the file names none.

        Raises
        ------
        InvalidValue
            The map has no projected coordinates x and y, they are not evenly spaced, or the CRS is unknown.
        """
        values = node.variables[variable]
        axes = {name: _axis(path, node, values, name) for name in ("y", "x")}
        found, said = _crs(path, node, values, crs)
        notes = [note for _, _, note in axes.values() if note] + said
        ends = {name: at for name, (at, _, _) in axes.items()}
        notes += _transform_notes(node, values, ends["x"], ends["y"])
        notes += _position_notes(node, ends, tuple(dim for _, dim, _ in axes.values()), found)
        return cls(
            path,
            node.path.strip("/"),
            found,
            np.sort(ends["x"]),
            np.sort(ends["y"]),
            (axes["y"][1], axes["x"][1]),
            (_descends(ends["y"]), _descends(ends["x"])),
            tuple(notes),
        )

    def array(self, node: Any, variable: str, at: dict[str, int]) -> Floats:
        """Return physical values of a map, y and x ascending; shape (ny, nx).

        Parameters
        ----------
        node : netCDF4.Dataset or netCDF4.Group
            The open group.
        variable : str
            Its name.
        at : dict of str to int
            Place along each other dimension; of length 1 they may be left out.
        """
        values = node.variables[variable]
        others = [dim for dim in values.dimensions if dim not in self.dims]
        key = tuple(slice(None) if d in self.dims else at.get(d, 0) for d in values.dimensions)
        for dim in others:
            if dim not in at and values.shape[values.dimensions.index(dim)] != 1:
                raise InvalidValue(
                    f"{self.path}: {variable} has a dimension {dim} that is neither x, y nor time; select one of it"
                    " first"
                )
        given = attributes(values)
        numbers = physical_values(
            np.asarray(values[key]), {n: given[n] for n in VALUE_ATTRIBUTES if n in given}
        )
        kept = [dim for dim in values.dimensions if dim in self.dims]
        numbers = numbers if kept == list(self.dims) else numbers.T
        return numbers[:: -1 if self.flips[0] else 1, :: -1 if self.flips[1] else 1]


def read_field(
    grid: GridFile,
    value: str,
    sigma: str | None,
    at: dict[str, int],
    *,
    rate: bool,
    good: tuple[str, Sequence[int]] | None = None,
) -> Field:
    """Read a map of rates or heights, and of their sigmas, in metres and years.

    Parameters
    ----------
    grid : GridFile
        Where it is.
    value, sigma : str, str or None
        Names of the variables.
    at : dict of str to int
        As of :meth:`GridFile.array`.
    rate : bool
        Whether it is a rate, not a height.
    good : (str, sequence of int) or None
        Variable of flags, and those whose values are kept.
    """
    with opened(grid.path) as file:
        node = file[grid.group] if grid.group else file
        unit, sigma_of = _units(grid.path, node, value, sigma, rate)
        values = grid.array(node, value, at)
        errors = None if sigma is None else grid.array(node, sigma, at)
        flags = None if good is None else grid.array(node, good[0], at)
        falling = rate and _is_falling(value, node.variables[value])
    notes = [u.note for u in (unit, sigma_of) if u is not None and u.note]
    values = values * (-unit.factor if falling else unit.factor)
    if falling:
        notes.append(f"{value} counts loss as positive: its sign is changed")
    wild = np.abs(values) > (FASTEST if rate else HIGHEST)
    if wild.any():
        limit = f"{FASTEST:g} m/yr" if rate else f"{HIGHEST:g} m"
        notes.append(
            f"{wild.sum():,} values of {value} beyond {limit} are no measurements: dropped"
        )
        values = np.where(wild, np.nan, values)
    if flags is not None and good is not None:
        bad = np.isfinite(values) & ~np.isin(flags, good[1])
        if bad.any():
            notes.append(f"{bad.sum():,} values whose {good[0]} is not {_or(good[1])}: dropped")
        values = np.where(bad, np.nan, values)
    if errors is not None and sigma_of is not None:
        errors, said = _errors(errors, sigma_of, str(sigma))
        notes += said
    return Field(values, errors, tuple(notes))


def _errors(errors: Floats, unit: Unit, name: str) -> tuple[Floats, list[str]]:
    known = errors >= 0
    negative = int((errors < 0).sum())
    said = [f"{negative:,} negative values of {name}: taken as unknown"] if negative else []
    return np.where(known, errors, np.nan) ** unit.power * unit.factor, said


def _units(
    path: Path, node: Any, value: str, sigma: str | None, rate: bool
) -> tuple[Unit, Unit | None]:
    of = (rate_unit if rate else height_unit)(text_of(node.variables[value], "units"), value, path)
    if sigma is None:
        return of, None
    variable = node.variables[sigma]
    described = text_of(variable, "long_name", "description", "standard_name")
    units = text_of(variable, "units")
    return of, sigma_unit(units, sigma, path, of=of, rate=rate, described=described)


def _is_falling(name: str, variable: Any) -> bool:
    described = f"{name} {text_of(variable, 'long_name')} {text_of(variable, 'standard_name')}"
    down = text_of(variable, "positive").lower() == "down"
    return down or _FALLING.search(described.replace("_", " ").lower()) is not None


def _or(values: Sequence[int]) -> str:
    return " or ".join(map(str, values))


# --- coordinates -------------------------------------------------------------------------------------------------


def _axis(path: Path, node: Any, values: Any, name: str) -> tuple[Floats, str, str]:
    """Return the coordinate of an axis as stored, metres; its dimension; and what was converted."""
    variable = _coordinate(node, values, name)
    if variable is None:
        raise InvalidValue(
            f"{path}: {values.name} has no projected coordinate {name} over {', '.join(values.dimensions)}; give a grid"
            " with x and y in metres"
        )
    units = text_of(variable, "units").lower()
    if "degree" in units:
        raise InvalidValue(
            f"{path}: {variable.name} is in {units}; give a grid in projected metres, e.g. reprojected to EPSG:3031"
        )
    at = np.asarray(variable[:], np.float64) * METRES.get(units, 1.0)
    steps = np.diff(at)
    if at.size < 2 or not np.isfinite(at).all() or steps[0] == 0:
        raise InvalidValue(
            f"{path}: {variable.name} has {at.size} values; a grid needs 2 or more of each axis"
        )
    # Coordinates of float32 are rounded to a quarter of a metre at 4 000 km.
    if np.abs(steps - steps.mean()).max() > 1e-3 * abs(steps.mean()) + 0.5:
        raise InvalidValue(
            f"{path}: the steps of {variable.name} range from {steps.min():g} to {steps.max():g} m; give an evenly"
            " spaced grid"
        )
    note = "" if METRES.get(units, 1.0) == 1.0 else f"{variable.name} converted from {units} to m"
    return np.linspace(at[0], at[-1], at.size), str(variable.dimensions[0]), note


def _coordinate(node: Any, values: Any, name: str) -> Any:
    """Return the variable with the coordinates of an axis; in ESA's files its dimension has another name."""
    where: Any = node
    while where is not None:
        for variable in where.variables.values():
            if variable.ndim != 1 or variable.dimensions[0] not in values.dimensions:
                continue
            standard = text_of(variable, "standard_name")
            if variable.name.lower() in _AXES[name] or standard in _AXES[name]:
                return variable
        where = where.parent
    return None


def _descends(at: Floats) -> bool:
    return bool(at[0] > at[-1])


def _mapping(node: Any, values: Any) -> Any:
    """Return the variable that describes the projection; None if there is none."""
    wanted = text_of(values, "grid_mapping").partition(":")[0]
    where: Any = node
    while where is not None:
        if wanted in where.variables:
            return where.variables[wanted]
        for variable in where.variables.values():
            if "grid_mapping_name" in variable.ncattrs():
                return variable
        where = where.parent
    return None


def _crs(path: Path, node: Any, values: Any, default: str | None) -> tuple[pyproj.CRS, list[str]]:
    """Return the CRS: by its WKT, else its EPSG code, else its CF parameters, else that of the layout."""
    mapping = _mapping(node, values)
    root = node
    while root.parent is not None:
        root = root.parent
    texts = (
        []
        if mapping is None
        else [
            text_of(mapping, "crs_wkt"),
            text_of(mapping, "spatial_ref"),
            _epsg(text_of(mapping, "spatial_epsg", "crs", "epsg_code", "EPSG")),
        ]
    )
    for text in filter(None, [*texts, _epsg(text_of(root, "crs", "epsg_code", "projection"))]):
        try:
            return projected_crs(pyproj.CRS.from_user_input(text)), []
        except CRSError:
            continue
    if mapping is not None and (crs := _by_parameters(attributes(mapping))) is not None:
        return crs
    if default is None:
        raise InvalidValue(
            f"{path}: {values.name} names no CRS that PROJ knows; add a grid mapping with crs_wkt to the file"
        )
    return projected_crs(default), [f"the file names no CRS: {default} assumed, as of its layout"]


def _epsg(text: str) -> str:
    code = re.search(r"(?:epsg\s*:?\s*)?(\d{4,5})\b", text.lower())
    return f"EPSG:{code[1]}" if code else ""


def _by_parameters(given: dict[str, Any]) -> tuple[pyproj.CRS, list[str]] | None:
    notes = []
    for name in ("semi_major_axis", "semi_minor_axis"):
        if name in given and float(given[name]) < _AXIS_IN_KM:
            given[name] = float(given[name]) * 1e3
            notes = ["the semi-major axis of its projection is in km: converted to m"]
    try:
        found = pyproj.CRS.from_cf(given)
        return projected_crs(crs_text(found)), notes
    except (CRSError, KeyError, ValueError):
        return None


def _transform_notes(node: Any, values: Any, x: Floats, y: Floats) -> list[str]:
    mapping = _mapping(node, values)
    text = "" if mapping is None else text_of(mapping, "GeoTransform")
    numbers = [float(n) for n in re.findall(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?", text.lower())]
    if len(numbers) != 6:
        return []
    wanted = [(at[0] - (at[1] - at[0]) / 2, at[1] - at[0]) for at in (x, y)]
    stated = [(numbers[0], numbers[1]), (numbers[3], numbers[5])]
    # From the north, as GDAL has it, or in the order of the rows: both are right.
    flipped = (y[-1] - (y[-2] - y[-1]) / 2, y[0] - y[1])
    right = np.allclose(stated[0], wanted[0], rtol=1e-3, atol=1.0) and any(
        np.allclose(stated[1], one, rtol=1e-3, atol=1.0) for one in (wanted[1], flipped)
    )
    return [] if right else ["its GeoTransform contradicts x and y: the coordinates are used"]


def _position_notes(
    node: Any, ends: dict[str, Floats], dims: tuple[str, ...], crs: pyproj.CRS
) -> list[str]:
    """Return a note if latitudes and longitudes of the corners disagree with x, y and the CRS."""
    latitude, longitude = named(node, "lat", "latitude"), named(node, "lon", "longitude")
    if latitude is None or longitude is None or node.variables[latitude].dimensions != dims:
        return []
    rows, columns = np.array([0, -1]), np.array([0, -1])
    lat, lon = (
        np.asarray(node.variables[name][:], np.float64)[np.ix_(rows, columns)]
        for name in (latitude, longitude)
    )
    px, py = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    gx, gy = np.meshgrid(ends["x"][columns], ends["y"][rows])
    distance = np.hypot(px - gx, py - gy)
    distance = distance[np.isfinite(distance)]
    posting = abs(ends["x"][1] - ends["x"][0])
    if not distance.size or distance.max() <= posting:
        return []
    return [
        f"its {latitude} and {longitude} lie up to {distance.max() / 1e3:.0f} km from its x and y: x and y are used"
    ]


# --- times -------------------------------------------------------------------------------------------------------


def instants(variable: Any, *, default: str = "") -> npt.NDArray[np.datetime64] | None:
    """Return the instants of a variable of times; None if its unit is not one of time.

    Parameters
    ----------
    variable : netCDF4.Variable
        Of numbers with units such as ``days since 2018-01-01`` or decimal years.
    default : str
        Unit, if it states none.
    """
    unit = text_of(variable, "units") or default
    unit = "decimal year" if unit.strip().lower() in ("year", "years", "decimal years") else unit
    try:
        return TimeUnit.parse(unit).to_utc(np.asarray(variable[:], np.float64))
    except ValueError:
        return None


def stated_instant(text: str) -> np.datetime64 | None:
    """Return the instant of a text such as ``20100701``, ``201007`` or ``2010-07-01T00:00:00Z``; None if it is none."""
    compact = re.fullmatch(r"(\d{4})(\d{2})(\d{2})?(?:T(\d{6})Z?)?", text.strip())
    if compact:
        text = f"{compact[1]}-{compact[2]}-{compact[3] or '01'}"
    if not re.search(r"\d{4}", text):
        return None
    try:
        parsed = parse_date(text.strip())
    except ValueError:
        return None
    instant: np.datetime64 = parsed.to_datetime64().astype("datetime64[ms]")
    return instant
