"""Rows of a table and what a column mapping makes of them; what only all of the rows together tell."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from cryotile.errors import GranuleError
from cryotile.geo.projection import projected_crs
from cryotile.points import CATEGORIES, PLATFORM_CODES
from cryotile.readers import passes
from cryotile.readers.base import Identity, Records
from cryotile.readers.source import Source
from cryotile.readers.tables.columns import open_columns
from cryotile.readers.tables.mapping import Column, ColumnMapping
from cryotile.times import TimeUnit

__all__ = ["SURVEYED", "Rows", "Survey"]

_MOST_ORBITS = 2**31

SURVEYED = ("longitude", "latitude", "x", "y", "time", "platform", "orbit")
"""Columns that identity and passes of a table follow from."""


class Survey:
    """What is known of a table only when all of it has been seen: its passes, and its earliest point."""

    def __init__(self) -> None:
        self.passes = passes.PassSurvey()
        self._first: tuple[np.datetime64, float, float] | None = None

    def add(self, table: Rows) -> None:
        """Look at a piece."""
        longitude, latitude = table.positions
        time = table.time
        self.passes.add(table.groups, time, latitude)
        usable = ~np.isnat(time) & np.isfinite(longitude + latitude)
        if not usable.any():
            return
        rows = np.flatnonzero(usable & (time == time[usable].min()))
        row = rows[np.lexsort((latitude[rows], longitude[rows]))[0]]
        first = (time[row], float(longitude[row]), float(latitude[row]))
        self._first = first if self._first is None else min(self._first, first)

    def identity(self, source: Source, mapping: ColumnMapping) -> Identity:
        """By the earliest record: tables have no orbit or zone, and rarely share when and where they begin.

        Raises
        ------
        GranuleError
            There is none.
        """
        if self._first is None:
            raise GranuleError(
                f"granule {source.path} has no row with a time and a position; check the mapping, or leave it out"
            )
        start, longitude, latitude = self._first
        return Identity(
            product=mapping.product,
            zone=f"{longitude:.4f}_{latitude:.4f}",
            start=start,
            orbit=0,
            version=mapping.version,
        )


@dataclass(frozen=True)
class Rows:
    """Rows of a table, all or a piece of them, and how to make points of them.

    Attributes
    ----------
    source : Source
        The table.
    mapping : ColumnMapping
        Where the columns of points are.
    places : mapping of str to Column
        Those that were read.
    series : mapping of str to Series
        Column of the table → its values.
    units : mapping of str to str
        What the file says that they count.
    first_row : int
        How many rows of the table stand before these.
    """

    source: Source
    mapping: ColumnMapping
    places: Mapping[str, Column]
    series: Mapping[str, pd.Series[Any]]
    units: Mapping[str, str]
    first_row: int = 0

    @classmethod
    def pieces(
        cls,
        source: Source,
        mapping: ColumnMapping,
        places: Mapping[str, Column],
        rows: int | None = None,
    ) -> Generator[Rows]:
        """Read columns of a table, in pieces of so many rows; None: all rows in one."""
        columns = open_columns(source, mapping.layout)
        first_row = 0
        for series in columns.read([place.name for place in places.values()], rows=rows):
            table = cls(source, mapping, places, series, columns.units, first_row)
            first_row += table.length
            yield table

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(next(iter(self.series.values())))

    def has(self, name: str) -> bool:
        """Whether the table or its mapping gives ``name``."""
        return name in self.places or name in self.mapping.constants

    def records(self, survey: passes.PassSurvey) -> Records:
        """All rows, none dropped; of passes that the survey knows."""
        longitude, latitude = self.positions
        platform, (orbit, lacking) = self._platform, self._orbits
        inferred, ascending = survey.of(self.groups, self.time)
        if "orbit" not in self.places:
            orbit = inferred
        if "ascending" in self.places:
            ascending = self._flags("ascending")
        # The codes of pass ids are those of PLATFORM_CODES; where the platform is unknown the row is dropped.
        high = np.array(list(PLATFORM_CODES.values()))[platform] << 32
        north = ascending.to_numpy(dtype=bool, na_value=False)
        grounded = CATEGORIES["surface_type"].index("grounded_ice")
        return Records(
            platform=platform,
            longitude=longitude,
            latitude=latitude,
            time=self.time,
            elevation=self._numbers("elevation"),
            uncertainty=self._numbers("uncertainty"),
            pass_id=high + 2 * orbit + north,
            ascending=ascending,
            mode=self._codes("mode", 0),
            surface_type=self._codes("surface_type", grounded),
            rejected={"no_orbit": lacking},
            extra={name: self._numbers(name) for name in self.mapping.extra if name in self.places},
        )

    @cached_property
    def positions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude, degrees."""
        if self.mapping.crs is None:
            return self._numbers("longitude"), self._numbers("latitude")
        crs = projected_crs(self.mapping.crs)
        to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        longitude, latitude = to_degrees.transform(
            self._numbers("x"), self._numbers("y"), errcheck=False
        )
        return longitude, latitude

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """A number for each platform, or each orbit of one, within which passes are told apart by gaps.

        Of one orbit there may be two passes, one north and one south.
        """
        platform = self._platform.astype(np.int64)
        return platform * _MOST_ORBITS + self._orbits[0] if "orbit" in self.places else platform

    @cached_property
    def _platform(self) -> NDArray[np.int8]:
        return self._codes("platform", 0)

    @cached_property
    def _orbits(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Number of the orbit of each row as the table states it, and the rows that lack one."""
        if "orbit" not in self.places:
            return np.zeros(self.length, np.int64), np.zeros(self.length, bool)
        numbers = self._numbers("orbit")
        lacking = np.isnan(numbers)
        whole = lacking | ((numbers >= 0) & (numbers < _MOST_ORBITS) & (numbers % 1 == 0))
        self._require(whole, "orbit", "is no whole number from 0 to 2³¹")
        return np.where(lacking, 0, numbers).astype(np.int64), lacking

    @cached_property
    def time(self) -> NDArray[np.datetime64]:
        """UTC, datetime64[ms]."""
        column = self.places["time"]
        series = self.series[column.name]
        if pd.api.types.is_numeric_dtype(series.dtype):
            return self._unit(column).to_utc(self._numbers("time"))
        instants = pd.to_datetime(series, format="ISO8601", utc=True, errors="coerce")
        self._require(
            instants.notna().to_numpy() | _blank(series),
            "time",
            "is no date in ISO 8601, e.g. 2019-05-04T11:18:32",
        )
        # Kept to the microsecond until the clock is set right.
        since = (instants - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        return TimeUnit(1.0, "1970-01-01", column.clock).to_utc(np.asarray(since, np.float64))

    def _unit(self, column: Column) -> TimeUnit:
        stated = column.unit or self.units.get(column.name)
        try:
            return TimeUnit.parse(stated or "", column.clock)
        except ValueError:
            said = f"the file says {stated!r}" if stated else "the file does not say"
            raise GranuleError(
                f"granule {self.source.path}: column {column.name!r} holds numbers of time, and {said} what they count;"
                f" give it in a mapping: time = {{name = {column.name!r}, unit = 'days since 2000-01-01'}}"
            ) from None

    def _numbers(self, name: str) -> NDArray[np.float64]:
        """Column ``name`` in metres, degrees or whatever its unit is; NaN where missing, or throughout if not there."""
        if name not in self.places:
            return np.full(self.length, np.nan)
        column = self.places[name]
        series = self.series[column.name]
        numbers = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        self._require(~np.isnan(numbers) | _blank(series), name, "is no number")
        numbers = np.where(np.isin(numbers, self.mapping.missing), np.nan, numbers)
        return numbers * column.factor if name in self.mapping.columns else numbers

    def _codes(self, name: str, default: int) -> NDArray[np.int8]:
        """Positions of classes in :data:`cryotile.points.CATEGORIES`; of those unknown −1, or that of "unknown"."""
        words = CATEGORIES[name]
        unknown = words.index("unknown") if "unknown" in words else -1
        if name in self.mapping.constants:
            default = words.index(self.mapping.constants[name])
        if name not in self.places:
            return np.full(self.length, default, dtype=np.int8)
        position = {word: code for code, word in enumerate(words)}
        return self._translated(name, position, unknown)

    def _flags(self, name: str) -> pd.arrays.BooleanArray:
        flags = self._translated(name, {"true": 1, "1": 1, "false": 0, "0": 0}, -1)
        return pd.arrays.BooleanArray(flags == 1, flags == -1)

    def _translated(self, name: str, numbers: Mapping[str, int], unknown: int) -> NDArray[np.int8]:
        """Numbers of the words in a column of classes, which the mapping may put in cryotile's terms."""
        column = self.places[name]
        # A class is one of few, however many rows there are; a missing one has the last place.
        places, found = pd.factorize(self.series[column.name])
        words: list[str | None] = [_spelt(value) for value in found]
        if column.meanings:
            words = [column.meanings.get(str(word)) for word in words]
        known = [numbers.get(str(word), unknown) for word in words]
        return np.array([*known, unknown], dtype=np.int8)[places]

    def _require(self, good: NDArray[np.bool_], name: str, rule: str) -> None:
        if good.all():
            return
        row = int(np.argmin(good))
        column = self.places[name].name
        value = self.series[column].iloc[row]
        raise GranuleError(
            f"granule {self.source.path}: column {column!r} has {value!r} in row {self.first_row + row + 1}, which"
            f" {rule}; mend the file, or the mapping"
        )


def _blank(series: pd.Series[Any]) -> NDArray[np.bool_]:
    return series.isna().to_numpy(bool)


def _spelt(value: object) -> str:
    """A class as a mapping spells it: 1 for 1.0, true for True."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()
