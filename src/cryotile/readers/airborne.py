"""Common parts of the lasers of aircraft: rows of numbers in text, times of a day, and the records of a flight."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryotile.errors import GranuleError
from cryotile.points import MODES, SURFACE_TYPES
from cryotile.readers.base import Identity, Records, find_passes
from cryotile.readers.source import Source
from cryotile.readers.tables.columns import open_columns
from cryotile.readers.tables.mapping import TextLayout
from cryotile.times import TimeUnit

__all__ = ["NOTES", "first_lines", "flight", "instants_of_day", "numbers_of_rows"]

NOTES = ("the product does not tell kinds of surface: every point counts as grounded_ice",)
HEAD = 8192
_HALF, _DAY = 43_200.0, 86_400.0


def first_lines(source: Source) -> list[str]:
    """Return the first whole lines of a text file; none if it is not text."""
    if source.file is not None:
        return []
    with source.path.open("rb") as stream:
        head = stream.read(HEAD)
    if b"\0" in head or not head.isascii():
        return []
    lines = head.decode("ascii").splitlines()
    return lines if len(head) < HEAD else lines[:-1]


def numbers_of_rows(
    source: Source, layout: TextLayout, wanted: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return columns of a text of numbers; NaN where a field is empty or is filled with stars.

    Parameters
    ----------
    source : Source
        The file.
    layout : TextLayout
        Its layout, with the names of all columns.
    wanted : sequence of str
        Columns to read.

    Raises
    ------
    GranuleError
        A row has more fields than columns, or a field is not a number.
    """
    (rows,) = open_columns(source, layout).read(wanted)
    numbers = {}
    for name in wanted:
        column = rows[name]
        found = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        for row in np.flatnonzero(np.isnan(found) & column.notna().to_numpy(bool)):
            if not re.fullmatch(r"\*+", str(column.iloc[row]).strip()):
                raise GranuleError(
                    f"granule {source.path}: column {name!r} has {column.iloc[row]!r} in row {row + 1}, which is not a"
                    " number; correct the file or download it again"
                )
        numbers[name] = found
    return numbers


def instants_of_day(day: str, seconds: NDArray[np.float64], clock: str) -> NDArray[np.datetime64]:
    """Return the instants of seconds of a day; a flight may last beyond midnight.

    Parameters
    ----------
    day : str
        ISO 8601, the day on which the file begins.
    seconds : ndarray
        Since its beginning, or since that of the next day where they fall back by more than half a day.
    clock : str
        ``"utc"`` or ``"gps"``.

    Returns
    -------
    ndarray of datetime64[ms]
        UTC.
    """
    known = seconds[np.isfinite(seconds)]
    late = seconds + _DAY * (seconds < known[0] - _HALF) if known.size else seconds
    return TimeUnit(1.0, day, clock).to_utc(late)


def flight(
    product: str,
    platform: str,
    time: NDArray[np.datetime64],
    place: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    *,
    source: Source,
    zone: str = "all",
    extra: Mapping[str, NDArray[np.float64]],
) -> tuple[Identity, Records]:
    """Return the identity and the records of a file of a flight.

    Parameters
    ----------
    product, platform : str
        Their names.
    time : ndarray of datetime64[ms], shape (records,)
        UTC.
    place : tuple of ndarray, shape (records,)
        Longitude and latitude, degrees, and elevation, metres.
    source : Source
        The file.
    zone : str
        What tells files apart that begin at the same second.
    extra : mapping of str to ndarray
        Extra column → values.
    """
    longitude, latitude, elevation = place
    passes = find_passes(platform, None, None, time, latitude)
    records = Records(
        platform=platform,
        longitude=longitude,
        latitude=latitude,
        time=time,
        elevation=np.where(elevation == 0.0, np.nan, elevation),
        uncertainty=np.full(time.shape, np.nan),
        pass_id=passes.pass_id,
        ascending=passes.ascending,
        mode=np.full(time.shape, MODES.index("laser"), np.int8),
        surface_type=np.full(time.shape, SURFACE_TYPES.index("grounded_ice"), np.int8),
        extra=extra,
        notes=passes.notes,
    )
    return Identity(product, zone, source.sensing_start(None, time), orbit=0), records
