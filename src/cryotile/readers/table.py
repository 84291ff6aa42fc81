"""Tables of points: CSV, Parquet, HDF5 and NetCDF, by a column mapping or under cryotile's own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from cryotile.errors import GranuleError
from cryotile.points import CATEGORIES, PLATFORM_CODES, Granule
from cryotile.projection import projected_crs
from cryotile.readers import passes
from cryotile.readers.base import Identity, Records, build_granule
from cryotile.readers.columns import open_columns
from cryotile.readers.mapping import OWN_NAMES, REQUIRED, Column, ColumnMapping
from cryotile.readers.source import Source
from cryotile.readers.times import TimeUnit

__all__ = ["TABLE", "TableReader"]

_NOTE = "the table does not say what its surfaces are: all counts as grounded_ice"
_MOST_ORBITS = 2**31


@dataclass(frozen=True)
class TableReader:
    """Reader of tables.

    Attributes
    ----------
    mapping : ColumnMapping
        Where the columns of points are.
    """

    mapping: ColumnMapping = OWN_NAMES

    @property
    def product(self) -> str:
        """Name of the product, as the mapping has it."""
        return self.mapping.product

    @property
    def columns(self) -> Mapping[str, str]:
        """Further columns offered → unit."""
        return {name: column.unit or "1" for name, column in self.mapping.further.items()}

    def recognises(self, source: Source) -> bool:
        """Whether it is a table with all columns that are needed under cryotile's own names."""
        if source.file is not None:
            return all(name in source for name in REQUIRED)
        try:
            names = open_columns(source, self.mapping.layout).names
        except GranuleError:
            return False
        return set(REQUIRED) <= set(names)

    def read(
        self, source: Source, *, surface_types: Sequence[str], columns: Sequence[str]
    ) -> Granule:
        """Read the valid points, see :meth:`cryotile.readers.base.Reader.read`."""
        table = _Table.read(source, self.mapping, columns)
        records = table.records()
        notes = [] if table.has("orbit") else [passes.NOTE]
        return build_granule(
            source,
            _identity(source, self.mapping, records),
            records,
            surface_types=surface_types,
            columns=columns,
            notes=(*notes, *([] if table.has("surface_type") else [_NOTE])),
        )


@dataclass(frozen=True)
class _Table:
    """The columns of a table that a mapping asks for, and how to make points of them."""

    source: Source
    mapping: ColumnMapping
    places: Mapping[str, Column]
    series: Mapping[str, pd.Series[Any]]
    units: Mapping[str, str]

    @classmethod
    def read(cls, source: Source, mapping: ColumnMapping, further: Sequence[str]) -> _Table:
        columns = open_columns(source, mapping.layout)
        asked = {name: mapping.further[name] for name in further if name in mapping.further}
        places = {**mapping.columns, **asked}
        if mapping is OWN_NAMES:
            places = {name: place for name, place in places.items() if place.name in columns.names}
        series = columns.read([place.name for place in places.values()])
        return cls(source, mapping, places, series, columns.units)

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(next(iter(self.series.values())))

    def has(self, name: str) -> bool:
        """Whether the table or its mapping gives ``name``."""
        return name in self.places or name in self.mapping.constants

    def records(self) -> Records:
        """All rows, none dropped."""
        longitude, latitude = self._positions()
        platform = self._codes("platform", 0)
        time = self._time()
        orbit, ascending, lacking = self._passes(platform, time, latitude)
        # The codes of pass ids are those of PLATFORM_CODES; where the platform is unknown the row is dropped.
        high = np.array(list(PLATFORM_CODES.values()))[platform] << 32
        north = ascending.to_numpy(dtype=bool, na_value=False)
        grounded = CATEGORIES["surface_type"].index("grounded_ice")
        return Records(
            platform=platform,
            longitude=longitude,
            latitude=latitude,
            time=time,
            elevation=self._numbers("elevation"),
            uncertainty=self._numbers("uncertainty"),
            pass_id=high + 2 * orbit + north,
            ascending=ascending,
            mode=self._codes("mode", 0),
            surface_type=self._codes("surface_type", grounded),
            rejected={"no_orbit": lacking},
            further={
                name: self._numbers(name) for name in self.mapping.further if name in self.places
            },
        )

    def _positions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.mapping.crs is None:
            return self._numbers("longitude"), self._numbers("latitude")
        crs = projected_crs(self.mapping.crs)
        to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        longitude, latitude = to_degrees.transform(
            self._numbers("x"), self._numbers("y"), errcheck=False
        )
        return longitude, latitude

    def _passes(
        self,
        platform: NDArray[np.int8],
        time: NDArray[np.datetime64],
        latitude: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], pd.arrays.BooleanArray, NDArray[np.bool_]]:
        """Orbit and direction of each row, and the rows that lack their orbit."""
        group = platform.astype(np.int64)
        lacking = np.zeros(self.length, dtype=bool)
        stated = np.zeros(self.length, dtype=np.int64)
        if "orbit" in self.places:
            numbers = self._numbers("orbit")
            lacking = np.isnan(numbers)
            whole = lacking | ((numbers >= 0) & (numbers < _MOST_ORBITS) & (numbers % 1 == 0))
            self._require(whole, "orbit", "is no whole number from 0 to 2³¹")
            stated = np.where(lacking, 0, numbers).astype(np.int64)
            # Of one orbit there may be two passes, one north and one south.
            group = group * _MOST_ORBITS + stated
        inferred, ascending = passes.infer_passes(group, time, latitude)
        if "ascending" in self.places:
            ascending = self._flags("ascending")
        return (stated if "orbit" in self.places else inferred), ascending, lacking

    def _time(self) -> NDArray[np.datetime64]:
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
            f"granule {self.source.path}: column {column!r} has {value!r} in row {row + 1}, which {rule}; mend the"
            " file, or the mapping"
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


def _identity(source: Source, mapping: ColumnMapping, records: Records) -> Identity:
    """By the earliest record: tables have no orbit or zone, and rarely share when and where they begin."""
    usable = ~np.isnat(records.time) & np.isfinite(records.longitude + records.latitude)
    if not usable.any():
        raise GranuleError(
            f"granule {source.path} has no row with a time and a position; check the mapping, or leave it out"
        )
    rows = np.flatnonzero(usable & (records.time == records.time[usable].min()))
    row = rows[np.lexsort((records.latitude[rows], records.longitude[rows]))[0]]
    return Identity(
        product=mapping.product,
        zone=f"{records.longitude[row]:.4f}_{records.latitude[row]:.4f}",
        start=records.time[row],
        orbit=0,
        version=mapping.version,
    )


TABLE = TableReader()
