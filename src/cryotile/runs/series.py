"""Heights and volume over time: what the call and the command series do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cryotile.errors import InvalidValue, path_of
from cryotile.files import atomic_path, write_text
from cryotile.fit.variables import Status
from cryotile.geo.places import Places, from_degrees, read_line, read_points
from cryotile.maps.heights import heights_along, heights_at
from cryotile.maps.netcdf import write_dataset
from cryotile.maps.unknown import unknowns
from cryotile.runs.xarray_engine import Product, named_maps

__all__ = ["as_table", "series", "write_series"]

AnyPath = str | os.PathLike[str]
Pair = tuple[float, float]


def series(
    product: Product,
    *,
    at: Pair | Iterable[Pair] | None = None,
    points: AnyPath | None = None,
    column: str | None = None,
    line: tuple[float, float, float, float] | None = None,
    along: AnyPath | None = None,
    lonlat: bool = False,
    basins: str | Iterable[str] | None = None,
    density: float | None = None,
    relative_to: str | None = None,
) -> xr.Dataset:
    """Return heights of posts or along a line, or the volume of basins, over time.

    Parameters
    ----------
    product : Dataset, Run or path
        A run that was planned with heights, its product, or the Dataset of either.
    at : (float, float), or iterable of these, or None
        Places, x and y in metres; the nearest posts are taken.
    points : path or None
        CSV or vector file of places.
    column : str or None
        Column of ``points`` that names them.
    line : (float, float, float, float) or None
        x, y of the start and of the end of a straight line, metres.
    along : path or None
        Vector file with one line, or CSV file of its vertices.
    lonlat : bool
        Whether ``at`` and ``line`` are longitude and latitude, degrees.
    basins : str, or iterable of str, or None
        Names of basins that the run was planned with, or ``all`` for their union.  Without any place, all of them.
    density : float or None
        Density for the mass of basins, kg m-3; None: no mass.
    relative_to : str or None
        A date that the volume of basins is relative to; None: the first bin with a height.

    Returns
    -------
    Dataset
        Of places (post, height_time): ``height``, ``height_sigma``, ``height_lower``, ``height_upper`` (ends of the
        95 % interval), metres, relative to ``elevation``.  Of a line the same over (distance, height_time).  Of basins
        (region, height_time): ``volume`` (km3) relative to one date, and with a density ``mass`` (Gt), each with the
        standard error and interval of the difference from that date.  ``attrs["notes"]`` has a line for each thing that
        is missing, assumed or not known.

    Raises
    ------
    InvalidValue
        The product has no heights or no basins, no place has a height, or a value breaks a rule.
    """
    chosen = _kind(at, points, line, along, basins)
    maps, name = named_maps(product)
    if chosen != "basins" and (density is not None or relative_to is not None):
        what = "density" if density is not None else "relative_to"
        raise InvalidValue(
            f"{what} is of the volume of basins, and a height of a post is relative to its elevation; leave {what} out"
        )
    if column is not None and points is None:
        raise InvalidValue(f'column {column!r} is one of points; give points="FILE" too')
    if lonlat and at is None and line is None:
        raise InvalidValue("lonlat is of places and a line that are given as numbers; leave it out")
    if chosen == "basins":
        from cryotile.totalling.series import volumes

        wanted = [basins] if isinstance(basins, str) else list(basins or ())
        found, notes = volumes(maps, wanted, density=density, relative_to=relative_to, name=name)
    elif chosen == "places":
        found, notes = heights_at(maps, _places(maps, at, points, column, lonlat), name)
    else:
        found, notes = heights_along(maps, _line(maps, line, along, lonlat), name)
    notes += [f"not known: {sentence}" for sentence in unknowns(maps)]
    return found.assign_attrs(title=_TITLES[chosen], notes="\n".join(notes))


_TITLES = {
    "basins": "Volume of basins over time",
    "places": "Height of posts over time",
    "line": "Height along a line over time",
}


def _kind(at: object, points: object, line: object, along: object, basins: object) -> str:
    given = {
        name: kind
        for name, kind, value in (
            ("at", "places", at),
            ("points", "places", points),
            ("line", "line", line),
            ("along", "line", along),
            ("basins", "basins", basins),
        )
        if value is not None
    }
    if len(given) > 1:
        raise InvalidValue(f"{' and '.join(given)} exclude each other; give one of them")
    return next(iter(given.values()), "basins")


def _places(
    maps: xr.Dataset,
    at: Pair | Iterable[Pair] | None,
    points: AnyPath | None,
    column: str | None,
    lonlat: bool,
) -> Places:
    crs = str(maps.attrs["crs"])
    if points is not None:
        return read_points(path_of("points", points), crs, column)
    try:
        pairs = np.atleast_2d(np.array(at if isinstance(at, tuple) else list(at or ()), float))
    except (TypeError, ValueError):
        pairs = np.empty(0)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.isfinite(pairs).all():
        raise InvalidValue(
            f"at {at!r} must be x and y of one or more places; give e.g. (0.0, -1e6)"
        )
    x, y = from_degrees(pairs[:, 0], pairs[:, 1], crs) if lonlat else pairs.T
    return Places(tuple(str(k) for k in range(1, len(x) + 1)), x, y)


def _line(
    maps: xr.Dataset,
    line: tuple[float, float, float, float] | None,
    along: AnyPath | None,
    lonlat: bool,
) -> npt.NDArray[np.float64]:
    crs = str(maps.attrs["crs"])
    if along is not None:
        return read_line(path_of("along", along), crs)
    try:
        ends = np.reshape(np.array(line, float), (2, 2))
    except (TypeError, ValueError):
        ends = np.array([np.nan])
    if not np.isfinite(ends).all():
        raise InvalidValue(
            f"line {line!r} must be x, y of its start and of its end; give four numbers"
        )
    return np.column_stack(from_degrees(ends[:, 0], ends[:, 1], crs)) if lonlat else ends


def as_table(found: xr.Dataset) -> pd.DataFrame:
    """Return a series as a table with a row for each place and bin.

    Parameters
    ----------
    found : Dataset
        As of :func:`series`.

    Returns
    -------
    DataFrame
        The place, ``start`` and ``end`` of the bin, and the variables of the Dataset; ``status`` in words.
    """
    starts, ends = found["height_time_bnds"].to_numpy().T
    plain = found.drop_vars("height_time_bnds").assign_coords(
        start=("height_time", starts), end=("height_time", ends)
    )
    along = str(found["volume" if "volume" in found else "height"].dims[0])
    table = plain.to_dataframe(dim_order=[along, "height_time"]).reset_index()
    if "status" in table:
        table["status"] = [Status(state).name.lower() for state in table["status"]]
    first = [along, *(n for n in ("x", "y", "longitude", "latitude") if n in table), "start", "end"]
    return table[[*first, *(n for n in table if n not in (*first, "height_time"))]]


def write_series(found: xr.Dataset, path: Path) -> None:
    """Write a series as a table (``.csv``), a NetCDF file (``.nc``) or a picture, by the suffix of the path.

    Parameters
    ----------
    found : Dataset
        As of :func:`series`.
    path : Path
        ``.csv``, ``.nc``, ``.png``, ``.pdf`` or ``.svg``.

    Raises
    ------
    InvalidValue
        The suffix is another one.
    UnwritablePath
        The file cannot be written.
    MissingDependency
        It is a picture, and matplotlib is not installed.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        write_text(path, as_table(found).to_csv(index=False))
    elif suffix == ".nc":
        with atomic_path(path) as temporary:
            write_dataset(temporary, found, lambda _: {}, lambda _: None)
    else:
        from cryotile.plotting.kinds import save

        save(found, path)
