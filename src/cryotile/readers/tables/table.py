"""Tables of points: CSV, Parquet, HDF5 and NetCDF, by a column mapping or under cryotile's own names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from cryotile.errors import GranuleError
from cryotile.points import Granule
from cryotile.readers import passes
from cryotile.readers.base import build_granule
from cryotile.readers.source import Source
from cryotile.readers.tables.columns import open_columns
from cryotile.readers.tables.mapping import OWN_NAMES, REQUIRED, Column, ColumnMapping
from cryotile.readers.tables.rows import SURVEYED, Rows, Survey

__all__ = ["TABLE", "TableReader"]

CHECKED = 10_000
"""Rows that are looked at before a point DB is made for them."""

_NOTE = "the table does not say what its surfaces are: all counts as grounded_ice"


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
        return {name: column.unit or "1" for name, column in self.mapping.extra.items()}

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
        (table,) = Rows.pieces(source, self.mapping, self._places(source, columns))
        survey = Survey()
        survey.add(table)
        return self._granule(table, survey, source.checksum(), surface_types, columns)

    def check(self, source: Source) -> None:
        """Make points of the first rows, as far as a slip in the mapping shows in them.

        Raises
        ------
        GranuleError
            As :meth:`read`.
        """
        pieces = Rows.pieces(source, self.mapping, self._places(source, ()), CHECKED)
        with closing(pieces):
            survey = Survey()
            for table in islice(pieces, 1):
                survey.add(table)
                table.records(survey.passes)
            if next(pieces, None) is None:
                survey.identity(source, self.mapping)

    def survey(self, source: Source, *, rows: int, seen: Callable[[], None]) -> Survey:
        """Look through a table that memory does not hold for what no piece of it knows.

        Parameters
        ----------
        source : Source
            The table.
        rows : int
            Of a piece.
        seen : callable
            Called after each.

        Raises
        ------
        GranuleError
            As :meth:`read`.
        """
        survey = Survey()
        places = {n: p for n, p in self._places(source, ()).items() if n in SURVEYED}
        for table in Rows.pieces(source, self.mapping, places, rows):
            survey.add(table)
            seen()
        return survey

    def read_pieces(
        self,
        source: Source,
        survey: Survey,
        checksum: str,
        *,
        rows: int,
        surface_types: Sequence[str],
        columns: Sequence[str],
    ) -> Iterator[Granule]:
        """Read the valid points of the pieces of a table, one after the other; together they are what is :meth:`read`.

        Parameters
        ----------
        source : Source
            The table.
        survey : Survey
            Of all of it.
        checksum : str
            Of it.
        rows : int
            Of a piece.
        surface_types, columns : sequence of str
            As :meth:`read`.

        Yields
        ------
        Granule
            The identity is that of the whole table; counts and points are the piece's.
        """
        for table in Rows.pieces(source, self.mapping, self._places(source, columns), rows):
            yield self._granule(table, survey, checksum, surface_types, columns)

    def _places(self, source: Source, extra: Sequence[str]) -> dict[str, Column]:
        asked = {name: self.mapping.extra[name] for name in extra if name in self.mapping.extra}
        places = {**self.mapping.columns, **asked}
        if self.mapping is OWN_NAMES:
            there = open_columns(source, self.mapping.layout).names
            places = {name: place for name, place in places.items() if place.name in there}
        return places

    def _granule(
        self,
        table: Rows,
        survey: Survey,
        checksum: str,
        surface_types: Sequence[str],
        columns: Sequence[str],
    ) -> Granule:
        notes = [] if table.has("orbit") else [passes.NOTE]
        return build_granule(
            table.source,
            survey.identity(table.source, self.mapping),
            table.records(survey.passes),
            surface_types=surface_types,
            columns=columns,
            notes=(*notes, *([] if table.has("surface_type") else [_NOTE])),
            checksum=checksum,
        )


TABLE = TableReader()
