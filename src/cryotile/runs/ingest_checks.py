"""What is checked before the point DB of an ingest is created, so that a mistake leaves none behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cryotile.errors import CryotileError, GranuleError, IncompleteIngest, InvalidValue
from cryotile.geo.projection import in_area_of_use, projected_crs
from cryotile.points import CORE_COLUMNS
from cryotile.readers import (
    ColumnMapping,
    extra_columns,
    find_reader,
    read_granule,
    table_reader,
)
from cryotile.readers.source import open_source
from cryotile.selection import Where

if TYPE_CHECKING:
    from cryotile.runs.ingest_batch import Criteria

__all__ = ["check_area_of_use", "check_granules", "spread_out"]

MOST_LOOKED_AT = 200
"""Most granules that are read to see whether a CRS suits them; usually the first one tells."""

LARGE = 500e6
"""Bytes of a granule that takes too long to read for that."""


def check_granules(granules: Sequence[Path], columns: Sequence[str], criteria: Criteria) -> None:
    """Check that granules, extra columns and criteria can serve.

    Parameters
    ----------
    granules : sequence of Path
        Files, of which the first ones are looked at until one can be read.
    columns : sequence of str
        Extra columns.
    criteria : Criteria
        Which points go in.

    Raises
    ------
    InvalidValue
        No reader offers an extra column, or an expression or a mapping is not valid.
    IncompleteIngest
        None of the granules can be read.
    """
    mapping = None if criteria.mapping is None else ColumnMapping.load(criteria.mapping)
    offered = sorted(extra_columns(mapping))
    unknown = sorted(set(columns).difference(offered))
    if unknown:
        raise InvalidValue(
            f"extra column {unknown[0]!r} is offered by no reader; choose from {', '.join(offered)}"
        )
    if criteria.where is not None:
        Where.parse(criteria.where, columns=[*CORE_COLUMNS, *columns])
    problems = list(takewhile(bool, (_problem(granule, mapping) for granule in granules)))
    if len(problems) == len(granules):
        raise IncompleteIngest(
            f"none of {len(granules):,} granule{'s' * (len(granules) != 1)} can be read; no point DB was made",
            problems,
        )


def _problem(granule: Path, mapping: ColumnMapping | None) -> str:
    """Return why a file is not a granule of a known product, or not such a table; empty if it is."""
    try:
        if mapping is None:
            find_reader(granule)
        else:
            with open_source(granule) as source:
                table_reader(mapping).check(source)
    except CryotileError as error:
        return str(error)
    return ""


def check_area_of_use(granules: Sequence[Path], crs: str, criteria: Criteria) -> None:
    """Refuse a CRS that is meant for another part of the Earth than the points, because a point DB keeps it for ever.

    Parameters
    ----------
    granules : sequence of Path
        Files; some of them are read until one has a point where the CRS is meant to be used.
    crs : str
        Projected CRS.
    criteria : Criteria
        Which points go in.

    Raises
    ------
    InvalidValue
        There are points, and none of them lies there.
    """
    wanted = projected_crs(crs)
    points, looked_at, latitudes = 0, 0, list[float]()
    for granule in _points_of(spread_out(granules, MOST_LOOKED_AT), criteria):
        if in_area_of_use(granule, wanted).any():
            return
        looked_at += 1
        points += len(granule)
        latitudes += [granule["latitude"].min(), granule["latitude"].max()]
    area = wanted.area_of_use
    if points and area is not None:
        better = "EPSG:3031" if np.mean(latitudes) < 0 else "EPSG:3413"
        raise InvalidValue(
            f"none of the {points:,} points of {looked_at:,} granule{'s' * (looked_at != 1)} lies where {crs} is meant"
            f" to be used (longitude {area.west:g} to {area.east:g}, latitude {area.south:g} to {area.north:g}): they"
            f" lie at latitudes {min(latitudes):.2f} to {max(latitudes):.2f}; give the CRS of their region, e.g."
            f" {better}"
        )


def spread_out(granules: Sequence[Path], most: int) -> list[Path]:
    """Return some granules from first to last, because neighbours are alike."""
    chosen = np.unique(np.linspace(0, len(granules) - 1, most).astype(np.int64))
    return [granules[at] for at in chosen]


def _points_of(granules: Iterable[Path], criteria: Criteria) -> Iterator[pd.DataFrame]:
    """Yield the points of granules that can be read, are not large and have points."""
    mapping = None if criteria.mapping is None else ColumnMapping.load(criteria.mapping)
    for granule in granules:
        with suppress(GranuleError, OSError):
            if granule.stat().st_size < LARGE:
                read = read_granule(granule, surface_types=criteria.surface_types, mapping=mapping)
                if len(read.points):
                    yield read.points
