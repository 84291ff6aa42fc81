"""A granule that memory does not hold, read in pieces: a table, of however many rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryotile.points import Granule, empty_points
from cryotile.readers.source import open_source
from cryotile.readers.tables.rows import Survey
from cryotile.readers.tables.table import TableReader

__all__ = ["Pieces", "survey_table"]


@dataclass(frozen=True, eq=False)
class Pieces:
    """A table that has been looked through once, and whose points can be gone through piece by piece, again and again.

    Attributes
    ----------
    granule : Granule
        What it is, without a record.
    path : Path
        The table.
    reader : TableReader
        Reads it.
    survey : Survey
        What only all of its rows together tell.
    rows : int
        Of a piece.
    surface_types, columns : sequence of str
        As of :func:`cryotile.readers.read_granule`.
    """

    granule: Granule
    path: Path
    reader: TableReader
    survey: Survey
    rows: int
    surface_types: Sequence[str]
    columns: Sequence[str]

    def __iter__(self) -> Iterator[Granule]:
        """Yield the same granule again and again, each time with the records and points of the next piece."""
        with open_source(self.path) as source:
            yield from self.reader.read_pieces(
                source,
                self.survey,
                self.granule.checksum,
                rows=self.rows,
                surface_types=self.surface_types,
                columns=self.columns,
            )


def survey_table(
    path: Path,
    reader: TableReader,
    *,
    rows: int,
    surface_types: Sequence[str],
    columns: Sequence[str],
    seen: Callable[[], None],
) -> Pieces:
    """Look through a table, so that it can be read in pieces.

    Parameters
    ----------
    path : Path
        The table.
    reader : TableReader
        With its mapping.
    rows : int
        Of a piece.
    surface_types, columns : sequence of str
        As of :func:`cryotile.readers.read_granule`.
    seen : callable
        Called after each piece: all of them may take hours.

    Raises
    ------
    GranuleError
        It cannot be read, or has no row with a time and a position.
    """
    with open_source(path) as source:
        survey = reader.survey(source, rows=rows, seen=seen)
        identity, checksum = survey.identity(source, reader.mapping), source.checksum()
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
    )
    return Pieces(granule, path, reader, survey, rows, surface_types, columns)
