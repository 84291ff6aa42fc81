"""ICESat-2 ATL15: gridded heights and rates of land ice, in groups by the lag of the rate.

Layout by the list of variables of NSIDC, ``ATL15_output_attrs.csv``, and the writer in SmithB/ATL1415.
"""

from __future__ import annotations

import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from cryotile.errors import InvalidValue
from cryotile.exchange.grid_file import GridFile, instants, read_field
from cryotile.exchange.reference import (
    Epoch,
    Field,
    Floats,
    Period,
    Rate,
    Reference,
    period_text,
    years_of,
)
from cryotile.exchange.writing import (
    Exported,
    Source,
    add_map,
    add_projection,
    add_vector,
    file_of,
    new_file,
)
from cryotile.fit.variables import Status
from cryotile.times import SECONDS_PER_YEAR

__all__ = ["NAME", "read", "recognize", "write"]

NAME = "ATL15"

QUARTER = 0.25
"""Years; the lag of a group is a number of these."""

LAGS = (1, 4, 8, 12, 16, 20, 24)
"""Lags of the groups that every file has, quarters."""

DATUM = np.datetime64("2020-01-01", "ms")
"""Heights are relative to the surface at this time."""

_WORDS = {
    1: "quarterly",
    4: "annual",
    8: "biennial",
    12: "triennial",
    16: "quadrennial",
    20: "pentennial",
    24: "hexennial",
}
_MAPPING = "Polar_Stereographic"

_FIT = (("data_count", "counts"), ("misfit_rms", "meters"), ("misfit_scaled_rms", "counts"))

_Empty = dict[str, list[str]]
"""Why variables are NaN → which."""

_LAG = re.compile(r"dhdt_(?:lag(\d+)|(\d+)mo)")
_TIME_UNIT = "days since 2018-01-01"


def recognize(file: Any) -> bool:
    """Return whether a file has the groups of ATL15."""
    return any(_LAG.fullmatch(name) for name in file.groups) or (
        "delta_h" in file.groups and _value(file.groups["delta_h"], "delta_h") is not None
    )


def read(path: Path, file: Any) -> Reference:
    """Return the rates of all lags, and the heights.

    Parameters
    ----------
    path : Path
        The file.
    file : netCDF4.Dataset
        The same, open.

    Raises
    ------
    InvalidValue
        A group has no map.
    """
    rates: list[Rate] = []
    epochs: list[Epoch] = []
    grid: GridFile | None = None
    for name, group in sorted(file.groups.items()):
        lag = _LAG.fullmatch(name)
        value = _value(group, "dhdt" if lag else "delta_h") if lag or name == "delta_h" else None
        if value is None:
            continue
        grid = GridFile.of(path, group, value)
        times = (
            instants(group.variables["time"], default=_TIME_UNIT)
            if "time" in group.variables
            else None
        )
        if times is None:
            raise InvalidValue(f"{path}: group {name} has no time; fetch the file again")
        if lag:
            years = int(lag[1]) * QUARTER if lag[1] else int(lag[2]) / 12
            rates += [_rate(grid, value, k, time, years, name) for k, time in enumerate(times)]
        else:
            epochs = [_epoch(grid, value, k, time) for k, time in enumerate(times)]
    if grid is None:
        raise InvalidValue(f"{path}: no group of ATL15 has dhdt or delta_h; fetch the file again")
    return Reference(
        NAME, str(path), grid.crs, grid.x, grid.y, tuple(rates), tuple(epochs), notes=grid.notes
    )


def _value(group: Any, stem: str) -> str | None:
    """Return the name of a value: averages over 10, 20 and 40 km have a suffix."""
    pattern = re.compile(rf"{stem}(_lag\d+)?(_\d+km)?")
    return next((name for name in group.variables if pattern.fullmatch(name)), None)


def _sigma(value: str) -> str:
    return re.sub(r"(_\d+km)?$", r"_sigma\1", value, count=1)


def _rate(
    grid: GridFile, value: str, place: int, middle: np.datetime64, years: float, group: str
) -> Rate:
    half = np.timedelta64(round(years * SECONDS_PER_YEAR * 500), "ms")

    def read() -> Field:
        return read_field(grid, value, _sigma(value), {"time": place}, rate=True)

    return Rate((middle - half, middle + half), f"{group}, {str(middle)[:10]}", read)


def _epoch(grid: GridFile, value: str, place: int, time: np.datetime64) -> Epoch:
    return Epoch(time, lambda: read_field(grid, value, _sigma(value), {"time": place}, rate=False))


# --- writing -----------------------------------------------------------------------------------------------------


def write(source: Source, output: Path) -> Exported:
    """Write a product as ATL15 has it: heights, and rates in groups by their lag.

    A rate goes into the group of the lag that is nearest to the length of its period; a lag that no rate of the product
    has is NaN, and says so.

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
    path = file_of(output, _file_name(source))
    empty: _Empty = {}
    with new_file(path) as file:
        file.setncatts(
            {
                "Conventions": "CF-1.6",
                "GDAL_AREA_OR_POINT": "Area",
                "title": "Height change of land ice in the layout of ATL15",
                **source.about,
            }
        )
        notes = _write_heights(file.createGroup("delta_h"), source, empty)
        by_lag, said = _by_lag(source)
        for lag, rates in sorted(by_lag.items()):
            _write_lag(file.createGroup(f"dhdt_lag{lag}"), source, lag, rates, empty)
    told = [f"NaN, because {why}: {', '.join(names)}" for why, names in empty.items()]
    return Exported((path,), (*notes, *said, *told))


def _file_name(source: Source) -> str:
    start, end = (str(time)[:10].replace("-", "") for time in _whole(source))
    return f"cryotile_ATL15_{source.region}_{start}-{end}_{source.posting / 1e3:02g}km.nc"


def _whole(source: Source) -> Period:
    period = source.rates.rates[0].period
    if period is None:
        raise InvalidValue(f"{source.rates.name} does not say its period; assemble it again")
    return period


def _suffix(source: Source) -> str:
    """Return what averages over 10, 20 and 40 km have behind their names."""
    kilometres = source.posting / 1e3
    return f"_{kilometres:g}km" if kilometres in (10, 20, 40) else ""


def _by_lag(source: Source) -> tuple[dict[int, list[Rate]], list[str]]:
    """Return the rates of each lag in order of time; those of ATL15 are there, empty or not."""
    found: dict[int, list[Rate]] = {lag: [] for lag in LAGS}
    notes = []
    # The windows first: the rate of the whole period may be that of one of them.
    whole, *windows = source.rates.rates
    for rate in (*windows, whole):
        if rate.period is None:
            continue
        years = years_of(rate.period)
        lag = max(round(years / QUARTER), 1)
        middles = [_middle(other.period) for other in found.get(lag, []) if other.period]
        if rate is whole and _middle(rate.period) in middles:
            continue
        if rate is whole and abs(years - lag * QUARTER) > 0.02:
            notes.append(f"dhdt_lag{lag} has the rate of the whole period, {years:.2f} years")
        if lag not in LAGS and lag not in found:
            notes.append(f"dhdt_lag{lag} is no group of ATL15: no lag of it has {years:.2f} years")
        found.setdefault(lag, []).append(rate)
    return {lag: sorted(rates, key=_key) for lag, rates in found.items()}, notes


def _key(rate: Rate) -> np.datetime64:
    return _middle(rate.period) if rate.period else np.datetime64("NaT")


def _middle(period: Period) -> np.datetime64:
    return period[0] + (period[1] - period[0]) / 2


def _write_lag(group: Any, source: Source, lag: int, rates: list[Rate], empty: _Empty) -> None:
    suffix, word = _suffix(source), _WORDS.get(lag, f"{lag * QUARTER:g}-year")
    middles = [_key(rate) for rate in rates] or [_middle(_whole(source))]
    _write_axes(group, source, np.array(middles), f"{word} dh/dt time")
    group.description = f"Rates of height change over {lag * QUARTER:g} years."
    if rates:
        group.periods = "; ".join(period_text(rate.period) for rate in rates)
    add = partial(_add, group, empty)
    area, why = _ice_area(source)
    add(f"ice_area{suffix}", [area] * len(middles), "meters^2", why, "ice-covered area")
    values = [_part(rate, "value") for rate in rates] or [None]
    sigmas = [_part(rate, "sigma") for rate in rates] or [None]
    why, unit = "no rate of the product has a period of this lag", "meters years^-1"
    long_name = f"{word} height-change rate"
    add(f"dhdt{suffix}", values, unit, why, long_name)
    add(f"dhdt_sigma{suffix}", sigmas, unit, why, f"{long_name} uncertainty")


def _part(rate: Rate | Epoch, name: str) -> Any:
    def read() -> Floats:
        field = rate.read()
        found = getattr(field, name)
        return np.full_like(field.value, np.nan) if found is None else found

    return read


def _write_heights(group: Any, source: Source, empty: _Empty) -> list[str]:
    suffix, epochs = _suffix(source), source.rates.epochs
    times = np.array([epoch.time for epoch in epochs] or [_middle(_whole(source))])
    _write_axes(group, source, times, "h(t) time")
    group.description = "Height change of the surface."
    shift, notes, relative = _datum(source)
    group.datum = relative
    add, count = partial(_add, group, empty), len(times)
    area, why = _ice_area(source)
    add(f"ice_area{suffix}", [area] * count, "meters^2", why, "ice-covered area")
    why = "the product has no heights (plan the run with heights, e.g. --heights 3m)"
    values = [_shifted(epoch, shift) for epoch in epochs] or [None]
    add(f"delta_h{suffix}", values, "meters", why, f"height change relative to {relative}")
    sigmas = [_part(epoch, "sigma") for epoch in epochs] or [None]
    add(f"delta_h_sigma{suffix}", sigmas, "meters", why, "height change uncertainty")
    if not suffix:
        why = "the product knows it of the whole fit, not of a time"
        for name, units in _FIT:
            add(name, [None] * count, units, why, name.replace("_", " "))
    return notes


def _datum(source: Source) -> tuple[Any, list[str], str]:
    """Return what heights are reduced by, and what they are then relative to: the surface at the datum if known."""
    epochs = source.rates.epochs
    before = [epoch for epoch in epochs if epoch.time <= DATUM]
    after = [epoch for epoch in epochs if epoch.time >= DATUM]
    if before and after:
        first, last = before[-1], after[0]
        span = float((last.time - first.time) / np.timedelta64(1, "ms")) or 1.0
        share = float((DATUM - first.time) / np.timedelta64(1, "ms")) / span

        @cache
        def at_datum() -> Floats:
            one, other = first.read().value, last.read().value
            return one + share * (other - one)

        return at_datum, [], "the surface on 2020-01-01"
    relative = f"the surface at the reference epoch, {source.product.attrs.get('reference_epoch', 'unknown')}"
    said = (
        [f"delta_h is relative to {relative}: 2020-01-01 is not within the heights"]
        if epochs
        else []
    )
    return None, said, relative


def _shifted(epoch: Epoch, shift: Any) -> Any:
    def read() -> Floats:
        values = epoch.read().value
        return values if shift is None else values - shift()

    return read


def _ice_area(source: Source) -> tuple[Any, str]:
    """Return the area of ice of each post; only a mask tells it."""
    if "mask" not in source.product.attrs or "cell_area" not in source.product:
        return None, "the run has no mask of ice"

    @cache
    def read() -> Floats:
        outside = source.values("status") == Status.OUTSIDE_MASK
        return np.where(outside, np.nan, source.values("cell_area"))

    return read, ""


def _write_axes(group: Any, source: Source, times: np.ndarray, about: str) -> None:
    days = (times - np.datetime64("2018-01-01", "ms")) / np.timedelta64(1, "ms") / 86_400_000.0
    told = {
        "dimensions": "time",
        "datatype": "float64",
        "coordinates": "time",
        "description": "Time of each map, in days since 2018-01-01:T00.00.00 UTC",
        "long_name": about,
        "units": _TIME_UNIT,
    }
    add_vector(group, "time", ("time",), days, told)
    kilometres = source.posting / 1e3
    for name, at in (("x", source.rates.x), ("y", source.rates.y)):
        described = (
            f"{name} coordinate of the {kilometres:g}-km cell centers, in projected coordinates"
        )
        told = {
            "units": "meters",
            "dimensions": name,
            "datatype": "float64",
            "coordinates": name,
            "description": described,
            "long_name": f"polar stereographic {name} at {kilometres:g} km",
            "standard_name": f"projection_{name}_coordinate",
            "grid_mapping": _MAPPING,
        }
        add_vector(group, name, (name,), at, told)
    add_projection(group, _MAPPING, source.rates.crs)


def _add(
    group: Any,
    empty: _Empty,
    name: str,
    maps: list[Any],
    units: str,
    why_empty: str,
    long_name: str,
) -> None:
    told = {
        "units": units,
        "dimensions": "time,y,x",
        "datatype": "float32",
        "coordinates": "time y x",
        "description": long_name[0].upper() + long_name[1:],
        "long_name": long_name,
        "source": "cryotile",
        "grid_mapping": _MAPPING,
    }
    # The sigma of a map that is NaN needs no word of its own.
    if add_map(group, name, ("time", "y", "x"), maps, told, why_empty=why_empty) and (
        "sigma" not in name
    ):
        empty.setdefault(why_empty, []).append(f"{group.name}/{name}")
