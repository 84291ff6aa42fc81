"""IceBridge ATM, a scanning laser: planes fitted to its spots (ILATM2, BLATM2) and the spots (ILATM1B, BLATM1B).

Layouts follow the readers of T. Sutterley (read-ATM2-icessn, read-ATM1b-QFIT-binary), CReSIS and nsidc-iceflow.
The rows have the time of a day, so the name of the file must tell the day.  The text with commas counts UTC; the text
with blanks, the binary format QFIT and HDF5 count GPS time.  Heights stand above WGS84.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cryotile.errors import GranuleError
from cryotile.readers.airborne import (
    NOTES,
    first_lines,
    flight,
    instants_of_day,
    numbers_of_rows,
)
from cryotile.readers.base import Identity, ProductReader, Records
from cryotile.readers.source import Source
from cryotile.readers.tables.mapping import TextLayout

__all__ = ["ILATM1B", "ILATM2", "AtmPlanes", "AtmSpots"]

# Years of two digits begin in 1990; ATM has flown since 1993.
_DAY = re.compile(r"(?<!\d)(19|20)?(\d\d)(\d\d)(\d\d)(?:atm\w?)?_\d{6}", re.IGNORECASE)
_SCANNER = re.compile(r"(?<![a-z])atm\d[a-z0-9]*", re.IGNORECASE)

_PLANE = (
    "UTC_Seconds_Of_Day",
    "Latitude(deg)",
    "Longitude(deg)",
    "WGS84_Ellipsoid_Height(m)",
    "RMS_Fit(cm)",
)
_WORDS = (
    *_PLANE[:4],
    "South-to-North_Slope",
    "West-to-East_Slope",
    "RMS_Fit(cm)",
    "used",
    "removed",
    "distance",
    "track",
)
"""Columns of the text without a header."""

_ROW = re.compile(r"\s*\d+\.\d+(\s+-?\d*\.\d+){5}\s+\d*\.\d+\s+\d+\s+\d+\s+-?\d+\.?\s+\d+\s*")
"""A row of it: seconds, place, height and slopes, fit, two counts, distance, track."""

_TIME = "instrument_parameters/time_hhmmss"
_LENGTHS = (40, 48, 56)
"""Bytes of a record of QFIT: 10, 12 or 14 words, of which the first four are used and the last."""


class AtmPlanes(ProductReader):
    """Reader of ILATM2 and BLATM2, text with commas or with blanks."""

    product = "icebridge_ilatm2"
    variables: Mapping[str, tuple[str, str]] = {"rms": ("RMS_Fit(cm)", "m")}
    notes = NOTES
    tried = False

    def recognises(self, source: Source) -> bool:
        """Return whether a header names the columns, or the first row looks as they do without one."""
        return _layout(first_lines(source)) is not None

    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:
        """Return identity and records of a granule."""
        layout = _layout(first_lines(source))
        assert layout is not None
        found = numbers_of_rows(source, layout, _PLANE)
        seconds, latitude, longitude, elevation, rms = (found[name] for name in _PLANE)
        time = instants_of_day(_day(source), seconds, "utc" if layout.comment else "gps")
        return flight(
            self.product,
            "atm",
            time,
            (longitude, latitude, elevation),
            source=source,
            extra=dict.fromkeys(extra, rms / 100.0),
        )


class AtmSpots(ProductReader):
    """Reader of ILATM1B and BLATM1B, HDF5 or QFIT."""

    product = "icebridge_ilatm1b"
    variables: Mapping[str, tuple[str, str]] = {}
    notes = NOTES
    tried = False

    def recognises(self, source: Source) -> bool:
        """Return whether the packed times of ATM are there, or the first words are those of QFIT."""
        return _TIME in source or _qfit_words(source) is not None

    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:  # noqa: ARG002 - it has none
        """Return identity and records of a granule."""
        if source.file is None:
            latitude, longitude, elevation, packed = _qfit(source)
        else:
            packed = source.values(_TIME)
            latitude, longitude, elevation = (
                source.values(name, packed.shape) for name in ("latitude", "longitude", "elevation")
            )
        # 153320.1 is 15:33:20.1.
        seconds = packed // 10_000 * 3600 + packed // 100 % 100 * 60 + packed % 100
        time = instants_of_day(_day(source), seconds, "gps")
        # Two scanners of an aircraft may begin at the same second.
        scanner = _SCANNER.search(source.path.name)
        return flight(
            self.product,
            "atm",
            time,
            (longitude, latitude, elevation),
            source=source,
            zone=scanner[0] if scanner else "all",
            extra={},
        )


def _layout(lines: Sequence[str]) -> TextLayout | None:
    """Return the layout of a text of planes; None if it is another text."""
    header = next((line for line in lines if _PLANE[0] in line), None)
    if header is not None:
        names = tuple(name.strip("# ") for name in header.split(","))
        return TextLayout(",", "#", names) if set(_PLANE) <= set(names) else None
    if lines and _ROW.fullmatch(lines[0]):
        return TextLayout("whitespace", None, _WORDS)
    return None


def _day(source: Source) -> str:
    """Return the day in the name of the file, ISO 8601."""
    found = _DAY.search(source.path.name)
    if found is None:
        raise GranuleError(
            f"granule {source.path} has times of a day, and its name does not tell the day; keep the name under which"
            " it was delivered, such as ILATM2_20110331_180518_smooth_nadir3seg_50pt.csv"
        )
    century, year, month, day = found.groups()
    century = century or ("19" if int(year) >= 90 else "20")
    iso = f"{century}{year}-{month}-{day}"
    try:
        np.datetime64(iso)
    except ValueError as error:
        raise GranuleError(
            f"granule {source.path} has the day {iso} in its name, which does not exist; correct the name"
        ) from error
    return iso


def _qfit_words(source: Source) -> tuple[str, int] | None:
    """Return type and number of the words of a record of QFIT, whose first word is its length; None if it is none."""
    if source.file is not None:
        return None
    with source.path.open("rb") as stream:
        first = stream.read(4)
    size = source.path.stat().st_size
    for order in (">", "<"):
        length = int.from_bytes(first, "big" if order == ">" else "little")
        if length in _LENGTHS and size % length == 0 and size > length:
            return f"{order}i4", length // 4
    return None


def _qfit(source: Source) -> tuple[NDArray[np.float64], ...]:
    """Return latitude and longitude, degrees, elevation, metres, and packed time of the spots in QFIT."""
    words = _qfit_words(source)
    assert words is not None
    records = np.fromfile(source.path, words[0]).reshape(-1, words[1])[1:]
    # Text stands in records whose first word is negative.
    spots = records[np.argmax(records[:, 0] >= 0) :] if (records[:, 0] >= 0).any() else records[:0]
    latitude, longitude, elevation, packed = (
        spots[:, column].astype(np.float64) * scale
        for column, scale in ((1, 1e-6), (2, 1e-6), (3, 1e-3), (-1, 1e-3))
    )
    # Records of passive brightness alone have no place.
    return np.where(latitude == 0.0, np.nan, latitude), longitude, elevation, packed


ILATM2, ILATM1B = AtmPlanes(), AtmSpots()
