"""Reader of tables: CSV, Parquet, HDF5 and NetCDF, by a column mapping or under cryotile's own names.

A table that memory holds is read whole.  A longer one is read twice, in pieces: first for what only all of its rows
together tell (its identity and its passes), then for its points.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from cryotile.errors import GranuleError, InvalidValue
from cryotile.geo.projection import projected_crs
from cryotile.geo.values import has_utc_calendar
from cryotile.points import (
    CATEGORIES,
    LASERS,
    MODES,
    MOST_STATED,
    PLATFORM_CODES,
    Granule,
    empty_points,
    platform_code,
    platform_words,
)
from cryotile.readers import pass_inference
from cryotile.readers.base import Identity, Records, build_granule, outermost
from cryotile.readers.icesat2 import orbit_number
from cryotile.readers.source import Source, open_source
from cryotile.readers.tables.columns import Columns, open_columns
from cryotile.readers.tables.mapping import (
    ANGLES,
    LENGTHS,
    OWN_NAMES,
    REQUIRED,
    STATED_ANGLES,
    STATED_LENGTHS,
    ColumnMapping,
    ColumnSpec,
)
from cryotile.times import TimeUnit, parse_dates

__all__ = ["TABLE", "TablePieces", "TableReader"]

CHECKED_ROWS = 10_000
"""Rows that :meth:`TableReader.check` reads."""

_SURVEYED = ("longitude", "latitude", "x", "y", "time", "platform", "orbit", "cycle", "track")
"""Columns from which identity and passes of a table follow."""

_MOST_ORBITS = 2**31

_STAND_INS = (-9999.0, -99999.0, -32768.0)

_NOTE = "the table does not name its surface types: every point counts as grounded_ice"


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
        """Name of the product, from the mapping."""
        return self.mapping.product

    @property
    def columns(self) -> Mapping[str, str]:
        """Extra columns offered → unit."""
        return {name: spec.unit or "1" for name, spec in self.mapping.extra.items()}

    def recognises(self, source: Source) -> bool:
        """Return whether the file is a table with all required columns under cryotile's own names."""
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
        """Read the valid points; see :meth:`cryotile.readers.base.Reader.read`."""
        (rows,) = _Rows.pieces(source, self.mapping, self._specs(source, columns))
        survey = _TableSurvey()
        survey.add(rows)
        return self._granule(rows, survey, source.checksum(), surface_types, columns)

    def check(self, source: Source) -> None:
        """Read the first rows, so that an error in the mapping shows before a point DB is created.

        Raises
        ------
        GranuleError
            As :meth:`read`.
        """
        pieces = _Rows.pieces(source, self.mapping, self._specs(source, ()), CHECKED_ROWS)
        with closing(pieces):
            survey = _TableSurvey()
            for rows in islice(pieces, 1):
                survey.add(rows)
                rows.records(survey.passes)
            if next(pieces, None) is None:
                survey.identity(source, self.mapping)

    def read_pieces(
        self,
        path: Path,
        *,
        rows: int,
        surface_types: Sequence[str],
        columns: Sequence[str],
        seen: Callable[[], None],
    ) -> TablePieces:
        """Read a table once, so that its points can then be read in pieces; together they are those of :meth:`read`.

        Parameters
        ----------
        path : Path
            The table.
        rows : int
            Rows of a piece.
        surface_types, columns : sequence of str
            As of :func:`cryotile.readers.read_granule`.
        seen : callable
            Called after each piece, because all of them may take hours.

        Returns
        -------
        TablePieces
            The pieces, none of them read yet.

        Raises
        ------
        GranuleError
            The table cannot be read, or has no row with a time and a position.
        """
        survey = _TableSurvey()
        with open_source(path) as source:
            specs = {n: spec for n, spec in self._specs(source, ()).items() if n in _SURVEYED}
            for piece in _Rows.pieces(source, self.mapping, specs, rows):
                survey.add(piece)
                seen()
            identity, checksum = survey.identity(source, self.mapping), source.checksum()
            simulated = open_columns(source, self.mapping.layout).simulated
        granule = Granule(
            id=identity.id,
            product=identity.product,
            baseline=identity.baseline,
            version=identity.version,
            name=path.name,
            checksum=checksum,
            record_count=0,
            dropped={},
            points=empty_points(projected=False),
            simulated=simulated,
            extent=survey.extent,
        )

        def pieces() -> Iterator[Granule]:
            with open_source(path) as source:
                specs = self._specs(source, columns)
                for piece in _Rows.pieces(source, self.mapping, specs, rows):
                    yield self._granule(piece, survey, checksum, surface_types, columns)

        return TablePieces(granule, pieces)

    def _specs(self, source: Source, extra: Sequence[str]) -> dict[str, ColumnSpec]:
        """Return the columns to read, by their names in cryotile."""
        asked = {name: self.mapping.extra[name] for name in extra if name in self.mapping.extra}
        specs = {**self.mapping.columns, **asked}
        if self.mapping is OWN_NAMES:
            present = open_columns(source, self.mapping.layout).names
            specs = {name: spec for name, spec in specs.items() if spec.name in present}
        return specs

    def _granule(
        self,
        rows: _Rows,
        survey: _TableSurvey,
        checksum: str,
        surface_types: Sequence[str],
        columns: Sequence[str],
    ) -> Granule:
        notes = [] if rows.states_orbits else [pass_inference.NOTE]
        return build_granule(
            rows.source,
            survey.identity(rows.source, self.mapping),
            rows.records(survey.passes),
            surface_types=surface_types,
            columns=columns,
            notes=(*notes, *([] if rows.has("surface_type") else [_NOTE])),
            checksum=checksum,
            simulated=rows.columns.simulated,
            extent=survey.extent,
        )


@dataclass(frozen=True, eq=False)
class TablePieces:
    """A table whose points are read piece by piece, as often as needed.

    Attributes
    ----------
    granule : Granule
        The identity of the table, without records.
    pieces : callable
        Reads the pieces; each is a granule with the identity of the whole table and the counts and points of the piece.
    """

    granule: Granule
    pieces: Callable[[], Iterator[Granule]]

    def __iter__(self) -> Iterator[Granule]:
        return self.pieces()


class _TableSurvey:
    """What only all rows of a table together tell: its passes, its earliest point, and how far it reaches."""

    def __init__(self) -> None:
        self.passes = pass_inference.PassSurvey()
        self.extent = np.empty((0, 3))
        self._first: tuple[np.datetime64, float, float] | None = None

    def add(self, rows: _Rows) -> None:
        """Add a piece of the table."""
        longitude, latitude = rows.positions
        time = rows.time
        self.passes.add(rows.groups, time, latitude)
        known = self.extent[:, 2].astype(np.int64).astype("datetime64[ms]")
        self.extent = outermost(
            np.concatenate([self.extent[:, 0], longitude]),
            np.concatenate([self.extent[:, 1], latitude]),
            np.concatenate([known, time]),
        )
        usable = ~np.isnat(time) & np.isfinite(longitude + latitude)
        if not usable.any():
            return
        earliest = np.flatnonzero(usable & (time == time[usable].min()))
        row = earliest[np.lexsort((latitude[earliest], longitude[earliest]))[0]]
        first = (time[row], float(longitude[row]), float(latitude[row]))
        self._first = first if self._first is None else min(self._first, first)

    def identity(self, source: Source, mapping: ColumnMapping) -> Identity:
        """Return the identity that follows from the earliest point.

        Tables have no orbit and no zone, and two of them rarely begin at the same time and place.

        Raises
        ------
        GranuleError
            No row has a time and a position.
        """
        if self._first is None:
            raise GranuleError(
                f"granule {source.path} has no row with a time and a position; correct the mapping"
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
class _Rows:
    """Rows of a table, all or a piece of them, and their conversion to records.

    Attributes
    ----------
    source : Source
        The table.
    mapping : ColumnMapping
        Where the columns of points are.
    specs : mapping of str to ColumnSpec
        The columns that were read.
    series : mapping of str to Series
        Column of the table → its values.
    columns : Columns
        The table: it states units and calendars.
    first_row : int
        Number of rows of the table before these.
    """

    source: Source
    mapping: ColumnMapping
    specs: Mapping[str, ColumnSpec]
    series: Mapping[str, pd.Series[Any]]
    columns: Columns
    first_row: int = 0

    @classmethod
    def pieces(
        cls,
        source: Source,
        mapping: ColumnMapping,
        specs: Mapping[str, ColumnSpec],
        rows: int | None = None,
    ) -> Generator[_Rows]:
        """Read columns of a table in pieces of ``rows`` rows; None: in one piece."""
        columns = open_columns(source, mapping.layout)
        first_row = 0
        time = specs["time"]
        for series in columns.read(
            [spec.name for spec in specs.values()],
            rows=rows,
            missing=mapping.missing,
            dated={} if time.seconds is None else {time.name: time.seconds},
        ):
            piece = cls(source, mapping, specs, series, columns, first_row)
            first_row += piece.length
            yield piece

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(next(iter(self.series.values())))

    def has(self, name: str) -> bool:
        """Return whether the table or its mapping gives ``name``."""
        return name in self.specs or name in self.mapping.constants

    @property
    def states_orbits(self) -> bool:
        """Whether the table gives orbits, or cycles and tracks."""
        return "orbit" in self.specs or {"cycle", "track"} <= self.specs.keys()

    def records(self, survey: pass_inference.PassSurvey) -> Records:
        """Return all rows as records, none dropped; the survey must have seen all their passes."""
        longitude, latitude = self.positions
        platform, (orbit, lacking) = self._platforms, self._orbits
        inferred, ascending = survey.of(self.groups, self.time)
        if not self.states_orbits:
            orbit = inferred
        # A direction that this file alone suggests is no part of a pass: another part of it may suggest another.
        north = np.zeros(self.length, bool)
        if "ascending" in self.specs:
            ascending = self._flags("ascending")
            north = ascending.to_numpy(dtype=bool, na_value=False)
        grounded = CATEGORIES["surface_type"].index("grounded_ice")
        return Records(
            platform=platform,
            longitude=longitude,
            latitude=latitude,
            time=self.time,
            elevation=self._numbers("elevation"),
            uncertainty=self._numbers("uncertainty"),
            pass_id=(platform << 32) + 2 * orbit + north,
            ascending=ascending,
            mode=self._modes,
            surface_type=self._codes("surface_type", grounded),
            rejected={"no_orbit": lacking},
            extra={name: self._numbers(name) for name in self.mapping.extra if name in self.specs},
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
        """A number for each platform, or for each orbit of a platform, whose passes are divided by gaps in time.

        One orbit may hold two passes, one north and one south.
        """
        platform = self._platforms
        return platform * _MOST_ORBITS + self._orbits[0] if self.states_orbits else platform

    @cached_property
    def time(self) -> NDArray[np.datetime64]:
        """UTC, datetime64[ms]."""
        spec = self.specs["time"]
        series = self.series[spec.name]
        if pd.api.types.is_numeric_dtype(series.dtype):
            return self._unit(spec).to_utc(self._numbers("time"))
        instants = parse_dates(series)
        self._require(
            instants.notna().to_numpy() | _blank(series),
            "time",
            "is not a date in ISO 8601, e.g. 2019-05-04T11:18:32",
        )
        # Microseconds are kept until the clock is converted to UTC.
        since = (instants - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        return TimeUnit(1.0, "1970-01-01", spec.clock).to_utc(np.asarray(since, np.float64))

    @cached_property
    def _platforms(self) -> NDArray[np.int64]:
        """Number of the platform of each row; −1 where unknown."""
        if "platform" not in self.specs:
            word = self.mapping.constants["platform"]
            return np.full(self.length, platform_code(word), np.int64)
        return self._translated("platform", _platform_or)

    @cached_property
    def _modes(self) -> NDArray[np.int8]:
        """Mode of each row, −1 where unknown."""
        codes = self._codes("mode", 0)
        known, lasers = (
            np.isin(self._platforms, [platform_code(word) for word in words])
            for words in (PLATFORM_CODES, LASERS)
        )
        wrong = known & (codes >= 0) & ((codes == MODES.index("laser")) != lasers)
        if wrong.any():
            row = int(np.argmax(wrong))
            kind = "laser" if lasers[row] else "radar"
            raise GranuleError(
                f"granule {self.source.path}: row {self.first_row + row + 1} has mode {MODES[codes[row]]!r}, but its"
                f" platform {platform_words(self._platforms[row : row + 1])[0]!r} is a {kind}; correct the file or the"
                " mapping"
            )
        return codes

    @cached_property
    def _orbits(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Orbit number of each row as the table states it, and the rows that lack one."""
        if not self.states_orbits:
            return np.zeros(self.length, np.int64), np.zeros(self.length, bool)
        if "orbit" in self.specs:
            numbers = self._integers("orbit")
        else:
            # Numbers of far cycles repeat: gaps in time part their passes.
            numbers = orbit_number(self._integers("cycle"), self._integers("track")) % MOST_STATED
        lacking = np.isnan(numbers)
        return np.where(lacking, 0, numbers).astype(np.int64), lacking

    def _integers(self, name: str) -> NDArray[np.float64]:
        numbers = self._numbers(name)
        good = np.isnan(numbers) | ((numbers >= 0) & (numbers < _MOST_ORBITS) & (numbers % 1 == 0))
        self._require(good, name, "is not an integer from 0 to 2³¹")
        return numbers

    def _unit(self, spec: ColumnSpec) -> TimeUnit:
        calendar = self.columns.calendars.get(spec.name)
        if not has_utc_calendar(calendar):
            raise GranuleError(
                f"granule {self.source.path}: column {spec.name!r} counts time in the calendar {calendar!r}, which is"
                " not that of UTC; write the times in the calendar 'standard'"
            )
        stated = spec.unit or self.columns.units.get(spec.name)
        try:
            return TimeUnit.parse(stated or "", spec.clock)
        except ValueError:
            said = f"states the unit {stated!r}" if stated else "states no unit of them"
            raise GranuleError(
                f"granule {self.source.path}: column {spec.name!r} holds times as numbers, and the file {said};"
                f" give it in a mapping: time = {{name = {spec.name!r}, unit = 'days since 2000-01-01'}}"
            ) from None

    def _numbers(self, name: str) -> NDArray[np.float64]:
        """Return column ``name`` in metres, degrees or its own unit; NaN where missing, or throughout if absent."""
        if name not in self.specs:
            return np.full(self.length, np.nan)
        spec = self.specs[name]
        series = self.series[spec.name]
        numbers = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        self._require(~np.isnan(numbers) | _blank(series), name, "is not a number")
        numbers = np.where(np.isin(numbers, self.mapping.missing), np.nan, numbers)
        factor = self._factor(name)
        if name == "elevation" and factor != 1.0:
            # In metres no ice lies there, but -9999 mm is a height: only its repetition tells.
            for stand_in in _STAND_INS:
                if np.count_nonzero(numbers == stand_in) > 1:
                    numbers[numbers == stand_in] = np.nan
        return numbers * factor

    def _factor(self, name: str) -> float:
        """Return metres or degrees per unit of a column, as the mapping or else the file states it."""
        unit, stated = self.specs[name].unit, self.columns.units_of(self.specs[name].name)
        known = STATED_LENGTHS if name in LENGTHS else STATED_ANGLES if name in ANGLES else {}
        if not known or unit is not None:
            return self.specs[name].factor if name in LENGTHS else 1.0
        factors = {known.get(_first_word(one), 1.0) for one in stated}
        if len(factors) > 1:
            raise GranuleError(
                f"granule {self.source.path}: {name} is a sum of columns in {' and '.join(sorted(stated))}; write them"
                " in one unit"
            )
        return factors.pop() if factors else 1.0

    def _codes(self, name: str, default: int) -> NDArray[np.int8]:
        """Return positions in :data:`cryotile.points.CATEGORIES`; unknown classes give −1, or that of "unknown"."""
        words = CATEGORIES[name]
        unknown = words.index("unknown") if "unknown" in words else -1
        if name in self.mapping.constants:
            default = words.index(self.mapping.constants[name])
        if name not in self.specs:
            return np.full(self.length, default, dtype=np.int8)
        position = {word: code for code, word in enumerate(words)}
        found = self._translated(name, position.get, unknown)
        return found.astype(np.int8)

    def _flags(self, name: str) -> pd.arrays.BooleanArray:
        flags = self._translated(name, {"true": 1, "1": 1, "false": 0, "0": 0}.get)
        return pd.arrays.BooleanArray(flags == 1, flags == -1)

    def _translated(
        self, name: str, number: Callable[[str, int], int], unknown: int = -1
    ) -> NDArray[np.int64]:
        """Return the numbers of the classes in a column, translated by the mapping if it lists meanings."""
        spec = self.specs[name]
        # Each distinct class is translated once; factorize gives a missing class position -1, the last element.
        positions, found = pd.factorize(self.series[spec.name])
        words: list[str | None] = [_spelt(value) for value in found]
        if spec.meanings:
            words = [spec.meanings.get(str(word)) for word in words]
        known = [unknown if word is None else number(word, unknown) for word in words]
        return np.array([*known, unknown], dtype=np.int64)[positions]

    def _require(self, good: NDArray[np.bool_], name: str, rule: str) -> None:
        if good.all():
            return
        row = int(np.argmin(good))
        column = self.specs[name].name
        value = self.series[column].iloc[row]
        raise GranuleError(
            f"granule {self.source.path}: column {column!r} has {value!r} in row {self.first_row + row + 1}, which"
            f" {rule}; correct the file or the mapping"
        )


def _platform_or(word: str, unknown: int) -> int:
    try:
        return platform_code(word)
    except InvalidValue:
        return unknown


def _blank(series: pd.Series[Any]) -> NDArray[np.bool_]:
    return series.isna().to_numpy(bool)


def _first_word(unit: str) -> str:
    """Return the first word of a unit: that of "metres above the ellipsoid" is "metres"."""
    return (unit.casefold().split() or [""])[0]


def _spelt(value: object) -> str:
    """Return a class as a mapping spells it: 1 for 1.0, true for True."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


TABLE = TableReader()
