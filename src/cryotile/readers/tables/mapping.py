"""Column mappings: which column of a table is which column of a point, read from a small TOML or JSON file."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryotile.errors import InvalidValue
from cryotile.points import (
    CATEGORIES,
    CORE_COLUMNS,
    LASERS,
    MODES,
    platform_code,
)
from cryotile.times import CLOCKS, TimeUnit, duration

__all__ = [
    "ANGLES",
    "LENGTHS",
    "OWN_NAMES",
    "REQUIRED",
    "STATED_ANGLES",
    "STATED_LENGTHS",
    "ColumnMapping",
    "ColumnSpec",
    "TextLayout",
    "read_mapping",
]

_POSITIONS = ({"longitude", "latitude"}, {"x", "y"})
_NEEDED = ("time", "elevation", "platform", "mode")
_OPTIONAL = ("uncertainty", "orbit", "cycle", "track", "ascending", "surface_type")
_POINT_COLUMNS = ("longitude", "latitude", "x", "y", *_NEEDED, *_OPTIONAL)
_LENGTHS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "km": 1000.0}
_PREFIXES = {"": 1.0, "centi": 0.01, "milli": 0.001, "kilo": 1000.0}

LENGTHS = ("elevation", "uncertainty", "x", "y")
ANGLES = ("longitude", "latitude")

STATED_LENGTHS = _LENGTHS | {
    prefix + metre: factor
    for prefix, factor in _PREFIXES.items()
    for metre in ("metre", "metres", "meter", "meters")
}
"""Unit of a length in a file → metres; a unit that is not here counts as metres."""

STATED_ANGLES = dict.fromkeys(("rad", "radian", "radians"), 180.0 / math.pi)
"""Unit of an angle in a file → degrees; a unit that is not here counts as degrees."""

_WORDS = {**CATEGORIES, "ascending": ("true", "false")}
"""Allowed values of columns of classes."""

_EXAMPLE = 'e.g. elevation = "h" under [columns]; docs/formats has a complete mapping'


@dataclass(frozen=True)
class ColumnSpec:
    """A column of a table, and how to read it.

    Attributes
    ----------
    name : str
        Name in the table; in HDF5 and NetCDF a path such as ``"data/h"``.  A sum or difference of columns, such as
        ``"h - d_ellip + sat_corr"``, has blanks around its signs; of a date and a time of day, it is a time.
    unit : str or None
        For heights ``"m"``, ``"cm"``, ``"mm"`` or ``"km"`` (default: the unit that the file states, or metres); for
        time such as ``"days since 2000-01-01"``, or ``"decimal year"`` (default: the unit that the file states, or
        dates as text); for a sum of a date and a time of day, ``"hours"``, ``"seconds"`` (default) or another unit of
        the time of day; for extra columns any text.
    clock : str
        Clock of time: ``"utc"``, ``"tai"`` or ``"gps"``.
    meanings : mapping of str to str
        Class in the table → cryotile's word, such as ``{"1": "lrm"}``; empty if the table has cryotile's words.
    """

    name: str
    unit: str | None = None
    clock: str = "utc"
    meanings: Mapping[str, str] = field(default_factory=dict)

    @property
    def factor(self) -> float:
        """Metres per unit of a height; 1 for other quantities."""
        return _LENGTHS.get(self.unit or "m", 1.0)

    @property
    def seconds(self) -> float | None:
        """Seconds per unit of a time of day that is added to a date; None if the unit says that numbers are times."""
        return 1.0 if self.unit is None else duration(self.unit)


@dataclass(frozen=True)
class TextLayout:
    """The layout of a text file.

    Attributes
    ----------
    delimiter : str
        Character between columns; ``"whitespace"`` for any number of blanks.
    comment : str or None
        Character that begins a comment.
    names : tuple of str
        Names of all columns, if the file has no header line.
    """

    delimiter: str = ","
    comment: str | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnMapping:
    """The conversion of a table to points.

    Attributes
    ----------
    columns : mapping of str to ColumnSpec
        ``longitude, latitude`` (or ``x, y`` and ``crs``), ``time``, ``elevation``, ``platform``, ``mode``; optionally
        ``uncertainty``, ``orbit`` (or ``cycle`` and ``track``), ``ascending``, ``surface_type``.
    constants : mapping of str to str
        Values common to all points, in place of a column: ``platform``, ``mode``, ``surface_type``.  ``mode`` may be
        left out beside a known laser.
    extra : mapping of str to ColumnSpec
        Extra column → column of the table, with its unit.
    product : str
        Name of the product in the point DB.
    version : int
        Increase it to replace a table that the point DB already has.
    crs : str or None
        CRS of ``x, y``.
    missing : tuple of float
        Numbers that stand for a missing value.
    layout : TextLayout
        Layout of text files.
    """

    columns: Mapping[str, ColumnSpec]
    constants: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, ColumnSpec] = field(default_factory=dict)
    product: str = "table"
    version: int = 0
    crs: str | None = None
    missing: tuple[float, ...] = ()
    layout: TextLayout = TextLayout()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ColumnMapping:
        """Read a mapping from a TOML file, or from JSON of the same structure.

        Raises
        ------
        InvalidValue
            The file cannot be read, or the mapping is invalid.
        """
        return cls.parse(read_mapping(Path(path)), source=str(path))

    @classmethod
    def parse(cls, table: Mapping[str, Any], *, source: str = "given") -> ColumnMapping:
        """Make a mapping from the content of a TOML file; ``source`` names the file in errors.

        Raises
        ------
        InvalidValue
            The mapping is invalid.
        """
        return _MappingParser(source).mapping(table)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the entries of a TOML file, or of JSON of the same structure.

    Raises
    ------
    InvalidValue
        The file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        # A TOML file cannot begin with a brace.
        table: dict[str, Any] = (
            json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
        )
    except OSError as error:
        raise InvalidValue(
            f"mapping {path} cannot be opened: {error.strerror}; check the path"
        ) from error
    except ValueError as error:  # raised by JSON, TOML and UTF-8 decoders
        reason = " ".join(str(error).split())
        raise InvalidValue(f"mapping {path} is neither TOML nor JSON: {reason}") from error
    return table


@dataclass(frozen=True)
class _MappingParser:
    """Converts tables of TOML; every error names the file, the entry, the rule and the remedy."""

    source: str

    def mapping(self, table: Mapping[str, Any]) -> ColumnMapping:
        known = {"columns", "constants", "extra", "product", "version", "crs", "missing", "text"}
        self._require_known("entry", table, known)
        crs = table.get("crs")
        columns = {
            name: self._column(name, given)
            for name, given in self._positions(self._table(table, "columns"), crs).items()
        }
        extra = {
            name: self._column(name, given, extra=True)
            for name, given in self._table(table, "extra").items()
        }
        constants = {name: str(value) for name, value in self._table(table, "constants").items()}
        if constants.get("platform") in LASERS and "mode" not in columns:
            constants.setdefault("mode", "laser")
        self._check(columns, constants, extra)
        if ("x" in columns) != (crs is not None):
            raise self._wrong(
                "crs and x, y need each other", "give both, or longitude and latitude"
            )
        return ColumnMapping(
            columns=columns,
            constants=constants,
            extra=extra,
            product=self._product(table.get("product", "table")),
            version=self._whole(table.get("version", 0)),
            crs=crs,
            missing=self._numbers(table.get("missing", [])),
            layout=self._layout(self._table(table, "text")),
        )

    def _positions(self, columns: Mapping[str, Any], crs: object) -> Mapping[str, Any]:
        """Return the columns with coordinates in place of a geometry."""
        if "geometry" not in columns:
            return columns
        others = {name: given for name, given in columns.items() if name != "geometry"}
        names = ("longitude", "latitude") if crs is None else ("x", "y")
        geometry = columns["geometry"]
        if not isinstance(geometry, str) or set(others) & set().union(*_POSITIONS):
            raise self._wrong(
                f"geometry is {geometry!r}",
                "name the column of points, and no longitude, latitude, x and y beside it",
            )
        return {
            **{name: f"{geometry}.{axis}" for name, axis in zip(names, "xy", strict=True)},
            **others,
        }

    def _check(
        self,
        columns: Mapping[str, ColumnSpec],
        constants: Mapping[str, str],
        extra: Mapping[str, ColumnSpec],
    ) -> None:
        self._require_known("column", columns, _POINT_COLUMNS)
        self._require_known("constant", constants, CATEGORIES)
        for name, value in constants.items():
            self._check_word(name, value)
        if set(columns) & {"longitude", "latitude", "x", "y"} not in _POSITIONS:
            raise self._wrong(
                "a point needs longitude and latitude, or x and y", f"name both, {_EXAMPLE}"
            )
        for name in _NEEDED:
            if name not in columns and name not in constants:
                also = ", or its value under [constants]" if name in CATEGORIES else ""
                also += f": laser, or {', '.join(MODES[:-1])} of a radar" if name == "mode" else ""
                raise self._wrong(f"{name} is missing", f"name its column, {_EXAMPLE}{also}")
        orbits = set(columns) & {"orbit", "cycle", "track"}
        if orbits not in (set(), {"orbit"}, {"cycle", "track"}):
            raise self._wrong(
                f"{' and '.join(sorted(orbits))} do not name a pass",
                "give the orbit, or the cycle and the track",
            )
        for name in set(columns) & set(constants):
            raise self._wrong(f"{name} is both a column and a constant", "leave one of them out")
        for name in extra:
            if name in CORE_COLUMNS or name in _POINT_COLUMNS or not name.isidentifier():
                raise self._wrong(
                    f"extra column {name!r} is a column of every point, or not a valid name",
                    "choose another name",
                )

    def _column(self, name: str, given: object, *, extra: bool = False) -> ColumnSpec:
        if isinstance(given, str):
            given = {"name": given}
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise self._wrong(f"{name} is {given!r}", f"name a column of the table, {_EXAMPLE}")
        self._require_known(f"part of {name}", given, {"name", "unit", "clock", "values"})
        values = {str(key): _word(value) for key, value in given.get("values", {}).items()}
        column = ColumnSpec(given["name"], given.get("unit"), given.get("clock", "utc"), values)
        if not extra:
            self._check_column(name, column)
        return column

    def _check_column(self, name: str, column: ColumnSpec) -> None:
        if column.clock not in CLOCKS:
            raise self._wrong(
                f"clock of {name} is {column.clock!r}", f"choose from {', '.join(CLOCKS)}"
            )
        if name == "time":
            self._check_time_unit(column.unit)
        elif name in LENGTHS:
            if column.unit not in (None, *_LENGTHS):
                raise self._wrong(
                    f"unit of {name} is {column.unit!r}", f"choose from {', '.join(_LENGTHS)}"
                )
        elif column.unit not in (None, "degrees"):
            raise self._wrong(f"unit of {name} is {column.unit!r}", "leave it out")
        for word in column.meanings.values():
            self._check_word(name, word)

    def _check_word(self, name: str, word: str) -> None:
        """Check a value of a column of classes."""
        if name == "platform":
            try:
                platform_code(word)
            except InvalidValue as error:
                raise InvalidValue(f"mapping {self.source}: {error}") from None
        elif word not in _WORDS.get(name, ()):
            allowed = ", ".join(_WORDS.get(name, ("none",)))
            raise self._wrong(f"{name} is {word!r}", f"choose from {allowed}")

    def _check_time_unit(self, unit: object) -> None:
        if unit is None or duration(str(unit)) is not None:
            return
        try:
            TimeUnit.parse(str(unit))
        except ValueError:
            raise self._wrong(
                f"unit of time is {unit!r}",
                "write it as 'days since 2000-01-01' (or hours, minutes, seconds, ms, us, ns), or 'decimal year'",
            ) from None

    def _layout(self, table: Mapping[str, Any]) -> TextLayout:
        self._require_known("part of text", table, {"delimiter", "comment", "names"})
        layout = TextLayout(
            delimiter=str(table.get("delimiter", ",")),
            comment=table.get("comment"),
            names=tuple(map(str, table.get("names", ()))),
        )
        for what, sign in (("delimiter", layout.delimiter), ("comment", layout.comment)):
            if sign not in (None, "whitespace") and len(str(sign)) != 1:
                raise self._wrong(f"{what} of text is {sign!r}", "give one character")
        return layout

    def _table(self, table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        found = table.get(name, {})
        if not isinstance(found, dict):
            raise self._wrong(f"{name} is {found!r}", f"make it a table, [{name}]")
        return found

    def _product(self, name: object) -> str:
        text = str(name)
        if not text.isidentifier():
            raise self._wrong(
                f"product is {text!r}", "give a name of letters, digits and underscores"
            )
        return text

    def _whole(self, number: object) -> int:
        if type(number) is not int or number < 0:
            raise self._wrong(f"version is {number!r}", "give an integer of 0 or more")
        return number

    def _numbers(self, given: object) -> tuple[float, ...]:
        numbers: list[Any] = given if isinstance(given, list) else [given]
        if any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
            raise self._wrong(f"missing is {given!r}", "give numbers, e.g. missing = [-9999]")
        return tuple(float(number) for number in numbers)

    def _require_known(self, what: str, given: Iterable[str], known: Iterable[str]) -> None:
        for name in given:
            if name not in known:
                raise self._wrong(
                    f"{what} {name!r} does not exist", f"choose from {', '.join(sorted(known))}"
                )

    def _wrong(self, what: str, remedy: str) -> InvalidValue:
        return InvalidValue(f"mapping {self.source}: {what}; {remedy}")


def _word(value: object) -> str:
    """Return a class as text: true and false are spelt as in TOML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


REQUIRED = ("longitude", "latitude", *_NEEDED)
"""Columns that a table must have to be recognised without a mapping."""

OWN_NAMES = ColumnMapping(
    columns={
        name: ColumnSpec(name)
        for name in ("longitude", "latitude", *_NEEDED, *_OPTIONAL)
        if name not in ("cycle", "track")  # of whose words a file may mean other things
    },
    extra={
        "power": ColumnSpec("power", "dB"),
        "coherence": ColumnSpec("coherence", "1"),
        "reference_dem": ColumnSpec("reference_dem", "m"),
    },
)
"""Mapping of a table under cryotile's own names; columns other than :data:`REQUIRED` may be absent."""
