"""Tables of points with a rate, such as those of airborne campaigns: CSV, columns by name or by a mapping."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj

from cryotile.errors import InvalidValue
from cryotile.exchange.reference import Field, Floats, Period, Rate, Reference
from cryotile.exchange.units import rate_unit, sigma_unit, unused_sigmas
from cryotile.geo.projection import projected_crs
from cryotile.readers.tables.mapping import read_mapping
from cryotile.times import TimeUnit, parse_dates

__all__ = ["NAME", "is_table", "read"]

NAME = "table of points"

_NAMES: Mapping[str, tuple[str, ...]] = {
    "longitude": ("longitude", "lon", "long"),
    "latitude": ("latitude", "lat"),
    "x": ("x", "easting"),
    "y": ("y", "northing"),
    "rate": ("dhdt", "dh/dt", "dh_dt", "dzdt", "dz/dt", "sec", "rate", "elevation_change_rate"),
    "sigma": (
        "dhdt_sigma",
        "dh/dt_sigma",
        "dhdt_error",
        "dhdt_uncertainty",
        "sigma",
        "uncertainty",
        "error",
        "sec_uncertainty",
    ),
    "start": ("start", "time_start", "start_time", "date_start", "t1"),
    "end": ("end", "time_end", "end_time", "date_end", "t2"),
}
"""What a column is → names of it, in lower case and without the unit behind them."""

_UNIT_BEHIND = re.compile(r"(.+?)\s*[\[(](.+)[\])]")


def is_table(path: Path) -> bool:
    """Return whether a file is a table by its suffix."""
    return path.suffix.lower() in (".csv", ".txt", ".gz")


def read(
    path: Path, variable: str | None, sigma: str | None, mapping: Path | None = None
) -> Reference:
    """Return the points of a table.

    Parameters
    ----------
    path : Path
        Text with a line of names, comma separated; lines before it may begin with ``#``.
    variable, sigma : str or None
        Columns of the rate and its sigma; None: by their names.
    mapping : Path or None
        TOML or JSON with names of columns (keys ``longitude``, ``latitude`` or ``x``, ``y``; ``rate``, ``sigma``,
        ``start``, ``end``), ``crs`` of x and y, and ``unit`` of the rate.

    Raises
    ------
    InvalidValue
        The table or the mapping cannot be read, a column is missing or holds no number, or no row has a place and a
        rate.
    """
    table, units = _load(path)
    given = _mapping(mapping) | {k: v for k, v in (("rate", variable), ("sigma", sigma)) if v}
    crs_named, unit_named = given.pop("crs", None), given.pop("unit", None)
    columns = {what: _column(path, table, given, what) for what in _NAMES}
    rate = columns["rate"]
    if rate is None:
        raise InvalidValue(
            f'{path} has no column of a rate; name it with variable="NAME", one of {", ".join(units)}'
        )
    x, y, crs = _places(path, table, columns, crs_named)
    unit = rate_unit(unit_named or units[rate], rate, path)
    values, notes = _numbers(path, table, rate) * unit.factor, [unit.note]
    errors: Floats | None = None
    if (error := columns["sigma"]) is not None:
        of = sigma_unit(units[error], error, path, of=unit, rate=True)
        errors = np.abs(_numbers(path, table, error)) ** of.power * of.factor
        notes.append(of.note)
    notes += _doubles(units, columns, given)
    others = {name: _plain(name)[0] for name in units if name not in columns.values()}
    notes += unused_sigmas(others)
    period, said = _period(table, columns)
    known = np.isfinite(values) & np.isfinite(x) & np.isfinite(y)
    if not known.any():
        raise InvalidValue(
            f"{path}: none of its {len(table):,} rows has a place and a rate; give another table"
        )
    dropped = (
        [f"{(~known).sum():,} rows without a place or a rate: dropped"] if not known.all() else []
    )
    notes = [*filter(None, notes), *said, *dropped]
    field = Field(values[known], None if errors is None else errors[known])
    return Reference(
        NAME,
        str(path),
        crs,
        x[known],
        y[known],
        (Rate(period, rate, lambda: field),),
        scattered=True,
        notes=tuple(notes),
    )


def _load(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the table, and the unit behind the name of each column."""
    try:
        # Some agencies write the line of names behind a "#", as the last of the comments.
        table = pd.read_csv(path, comment="#", skipinitialspace=True)
        if not any(_plain(name)[0] in names for names in _NAMES.values() for name in table):
            names = _commented_names(path)
            if len(names) == table.shape[1]:
                table = pd.read_csv(path, comment="#", skipinitialspace=True, names=names)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise InvalidValue(
            f"{path} cannot be read as CSV ({reason}); give another table"
        ) from error
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    return table, {name: _plain(name)[1] for name in table.columns}


def _commented_names(path: Path) -> list[str]:
    import gzip

    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as lines:
        comments = [line for line in (next(lines, "") for _ in range(200)) if line.startswith("#")]
    return [word.strip() for word in comments[-1].lstrip("# ").split(",")] if comments else []


def _plain(name: object) -> tuple[str, str]:
    """Return a column's name in lower case, and the unit in brackets behind it."""
    text = str(name).strip()
    match = _UNIT_BEHIND.fullmatch(text)
    stem, unit = (match[1], match[2]) if match else (text, "")
    return stem.lower().replace(" ", "_"), unit


def _mapping(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    given = read_mapping(path)
    known = {*_NAMES, "crs", "unit"}
    if unknown := given.keys() - known:
        raise InvalidValue(
            f"mapping {path} has a key {min(unknown)!r}; choose of {', '.join(sorted(known))}"
        )
    return {name: str(value) for name, value in given.items()}


def _column(path: Path, table: pd.DataFrame, given: Mapping[str, str], what: str) -> str | None:
    if what in given:
        if given[what] not in table:
            raise InvalidValue(
                f"{path} has no column {given[what]!r}; choose one of {', '.join(map(str, table))}"
            )
        return given[what]
    found = [n for n in table if _plain(n)[0] in _NAMES[what]]
    return str(found[0]) if found else None


def _doubles(
    names: Iterable[str], columns: Mapping[str, str | None], given: Mapping[str, str]
) -> list[str]:
    """Return notes on columns that mean the same by their names, of which the first is used."""
    found = {
        what: [name for name in names if _plain(name)[0] in words]
        for what, words in _NAMES.items()
        if what not in given
    }
    return [
        f"columns {', '.join(same)} are all a {what} by name: {columns[what]} is used"
        for what, same in found.items()
        if len(same) > 1
    ]


def _places(
    path: Path, table: pd.DataFrame, columns: Mapping[str, str | None], named: str | None
) -> tuple[Floats, Floats, pyproj.CRS]:
    longitude, latitude, x, y = (columns[name] for name in ("longitude", "latitude", "x", "y"))
    if longitude is not None and latitude is not None:
        lon, lat = (_numbers(path, table, name) for name in (longitude, latitude))
        southern = np.count_nonzero(lat < 0) > np.count_nonzero(lat >= 0)
        crs = projected_crs("EPSG:3031" if southern else "EPSG:3413")
        to = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        projected = to.transform(lon, lat, errcheck=False)
        return projected[0], projected[1], crs
    if x is None or y is None:
        raise InvalidValue(
            f"{path} has neither longitude and latitude nor x and y; name them in a mapping"
        )
    if named is None:
        raise InvalidValue(
            f"{path} has x and y of an unknown CRS; name it in a mapping: crs = 'EPSG:3413'"
        )
    return _numbers(path, table, x), _numbers(path, table, y), projected_crs(named)


def _numbers(path: Path, table: pd.DataFrame, name: str) -> Floats:
    numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    if len(numbers) and np.isnan(numbers).all():
        raise InvalidValue(f"{path}: column {name!r} holds no number; name another column")
    return np.where(np.isin(numbers, (-9999.0, 9999.0, -99999.0)), np.nan, numbers)


def _period(
    table: pd.DataFrame, columns: Mapping[str, str | None]
) -> tuple[Period | None, list[str]]:
    start, end = columns["start"], columns["end"]
    if start is None or end is None:
        return None, []
    ends = [_instants(table[name]) for name in (start, end)]
    if any(np.isnat(times).all() for times in ends):
        return None, [f"{start} and {end} are no dates: the period is unknown"]
    first, last = (np.sort(times[~np.isnat(times)]) for times in ends)
    said = []
    if first[0] != first[-1] or last[0] != last[-1]:
        said = ["periods differ between rows: that of the median start and end is stated"]
    return (first[first.size // 2], last[last.size // 2]), said


def _instants(column: pd.Series[Any]) -> npt.NDArray[np.datetime64]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    if np.isfinite(numbers).any() and np.nanmax(numbers) < 3000:
        return TimeUnit.parse("decimal year").to_utc(numbers)
    dates: npt.NDArray[np.datetime64] = (
        parse_dates(column.astype(str)).dt.tz_localize(None).to_numpy("datetime64[ms]")
    )
    return dates
