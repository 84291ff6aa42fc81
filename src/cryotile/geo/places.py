"""Points and lines that users name: in degrees, in a table, or in a vector file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj

from cryotile.errors import InvalidValue, MissingDependency
from cryotile.geo.polygons import LINE, POINT, Layer, VectorFile, is_vector
from cryotile.geo.projection import REACH

__all__ = ["Places", "from_degrees", "read_line", "read_points"]

Array = npt.NDArray[np.float64]

_REMEDY = "give a CSV file with columns longitude, latitude or x, y, or a vector file of points"
_LINE_REMEDY = "give a vector file with one line, or a CSV file of its vertices in order"

_COLUMNS = (("longitude", "latitude"), ("lon", "lat"), ("x", "y"))
"""Columns of a table that hold places: degrees, or metres in the CRS of the map."""

STEP = 100.0
"""Distance of the vertices of a line that is moved to another CRS, metres: a straight line becomes a curve."""


class Places(NamedTuple):
    """Named places.

    Attributes
    ----------
    names : tuple of str
        Distinct.
    x, y : ndarray, shape (places,)
        Metres in the CRS of the map.
    """

    names: tuple[str, ...]
    x: Array
    y: Array

    def part(self, chosen: npt.NDArray[np.bool_]) -> Places:
        """Return some of the places."""
        names = tuple(name for name, wanted in zip(self.names, chosen, strict=True) if wanted)
        return Places(names, self.x[chosen], self.y[chosen])


def from_degrees(longitude: Array, latitude: Array, crs: str) -> tuple[Array, Array]:
    """Return x and y of places in degrees.

    Parameters
    ----------
    longitude, latitude : ndarray, shape (places,)
        Degrees.
    crs : str
        Projected, metres.

    Raises
    ------
    InvalidValue
        A value is not one of degrees, or a place has no place in the projection.
    """
    valid = (longitude >= -180) & (longitude <= 360) & (np.abs(latitude) <= 90)
    if not valid.all():
        k = int(np.flatnonzero(~valid)[0])
        raise InvalidValue(
            f"longitude {longitude[k]:g}, latitude {latitude[k]:g} are not in degrees; give longitude, then latitude,"
            " or metres without lonlat=True"
        )
    to_metres = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_metres.transform(longitude, latitude, errcheck=False)
    lost = ~((np.abs(x) <= REACH) & (np.abs(y) <= REACH))
    if lost.any():
        k = int(np.flatnonzero(lost)[0])
        raise InvalidValue(
            f"longitude {longitude[k]:g}, latitude {latitude[k]:g} have no place in {crs}; give a place of the map"
        )
    return x, y


def read_points(path: Path, crs: str, column: str | None = None) -> Places:
    """Read points from a table or vector file.

    Parameters
    ----------
    path : Path
        CSV with columns ``longitude, latitude`` (or ``lon, lat``; degrees) or ``x, y`` (metres in ``crs``); or a
        GeoPackage, shapefile, GeoJSON, FlatGeobuf or GeoParquet file in any CRS.
    crs : str
        Projected, metres.
    column : str or None
        Column that names the points; None: their numbers, from 1 on.

    Raises
    ------
    InvalidValue
        The file is absent or unreadable, or has no point; a name is missing or not the only one.
    MissingDependency
        The file is a vector file, and pyogrio or shapely is not installed.
    """
    if not path.is_file():
        raise InvalidValue(f"points {path} do not exist or are not a file; {_REMEDY}")
    if is_vector(path):
        names, x, y = _of_vector(path, crs, column)
    else:
        names, x, y = _of_table(path, crs, column)
    if not len(x):
        raise InvalidValue(f"points {path} contain no point; {_REMEDY}")
    if names is None:
        return Places(tuple(str(k) for k in range(1, len(x) + 1)), x, y)
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1 or not name]:
        raise InvalidValue(
            f"points {path} have the name {twice[0]!r} {names.count(twice[0])} times in {column}; name each point once,"
            " or leave column out"
        )
    return Places(tuple(names), x, y)


def read_line(path: Path, crs: str) -> Array:
    """Read one line from a vector file, or its vertices from a table.

    Parameters
    ----------
    path : Path
        As of :func:`read_points`, with one line in place of points.
    crs : str
        Projected, metres.

    Returns
    -------
    ndarray, shape (vertices, 2)
        x, y, metres.

    Raises
    ------
    InvalidValue
        The file is absent or unreadable, or does not hold one line.
    MissingDependency
        The file is a vector file, and pyogrio or shapely is not installed.
    """
    if not path.is_file():
        raise InvalidValue(f"line {path} does not exist or is not a file; {_LINE_REMEDY}")
    if not is_vector(path):
        return np.column_stack(read_points(path, crs)[1:])
    layers = _layers(VectorFile(path, "line", _LINE_REMEDY), None, LINE)
    import shapely

    # Pieces that meet are one line.
    merged = [
        (layer, shapely.get_parts(shapely.line_merge(shapely.multilinestrings(layer.shapes))))
        for layer in layers
        if len(layer.shapes)
    ]
    count = sum(len(lines) for _, lines in merged)
    if count != 1:
        raise InvalidValue(f"line {path} holds {count or 'no'} lines; {_LINE_REMEDY}")
    layer, lines = merged[0]
    return layer.mover(crs, STEP)(shapely.get_coordinates(lines[0]))


def _layers(file: VectorFile, column: str | None, kind: int) -> list[Layer]:
    try:
        return file.layers(column, kind)
    except ImportError as error:
        raise MissingDependency(
            f"{file.noun} {file.path} need {error.name}: pip install 'cryotile[geo]'"
        ) from error


def _of_vector(path: Path, crs: str, column: str | None) -> tuple[list[str] | None, Array, Array]:
    layers = _layers(VectorFile(path, "points", _REMEDY), column, POINT)
    import shapely

    names: list[str] = []
    places = [np.empty((0, 2))]
    for layer in layers:
        # One by one: they are no line, along which there would be vertices between them.
        move = layer.mover(crs, np.inf)
        moved = [move(shapely.get_coordinates(point)) for point in layer.shapes]
        if any(not len(place) for place in moved):
            raise InvalidValue(f"points {path}: one has no place in {crs}; give points of the map")
        places += moved
        of_features = layer.values  # noqa: PD011 - no pandas
        if of_features is not None:
            names += [_text(of_features[k]) for k in layer.features]
    x, y = np.concatenate(places).T
    return None if column is None else names, x, y


def _of_table(path: Path, crs: str, column: str | None) -> tuple[list[str] | None, Array, Array]:
    try:
        with warnings.catch_warnings():
            # Rows with more values than names: pandas would drop some, or shift them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, comment="#", skipinitialspace=True, dtype=str, index_col=False
            )
    except (OSError, ValueError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise InvalidValue(f"points {path} cannot be read as CSV ({reason}); {_REMEDY}") from error
    own = {str(name).strip().lower(): str(name) for name in table}
    pair = next((pair for pair in _COLUMNS if set(pair) <= own.keys()), None)
    if pair is None:
        raise InvalidValue(
            f"points {path} have the columns {', '.join(map(str, table)) or 'none'}; {_REMEDY}"
        )
    if column is not None and column not in table:
        raise InvalidValue(
            f"points {path} have no column {column!r}; choose one of {', '.join(map(str, table))}"
        )
    first, second = (_numbers(path, table, own[name]) for name in pair)
    x, y = (first, second) if pair == ("x", "y") else from_degrees(first, second, crs)
    return None if column is None else [_text(name) for name in table[column]], x, y


def _numbers(path: Path, table: pd.DataFrame, name: str) -> Array:
    numbers: Array = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise InvalidValue(
            f"points {path}: {name} of row {row + 1} is {table[name].iloc[row]}, not a number; correct it or remove the"
            " row"
        )
    return numbers


def _text(name: object) -> str:
    return "" if pd.isna(name) else str(name).strip()  # type: ignore[call-overload]
