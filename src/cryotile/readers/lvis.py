"""IceBridge LVIS Level 2 (ILVIS2, text): heights of a laser with a large footprint, under a header with their names.

Names follow the LVIS data structures 1.04 and 2.0.2 (lvis.gsfc.nasa.gov) and nsidc-iceflow.  Times are UTC seconds of
the day that the number of the file (LFID) states: its second to sixth digit are the Modified Julian Date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

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

__all__ = ["LVIS", "Lvis"]

_SAME = {
    "LVIS_LFID": "LFID",
    "LONGITUDE_LOW": "GLON",
    "LATITUDE_LOW": "GLAT",
    "ELEVATION_LOW": "ZG",
}
"""Name in structure 1.04 → name in 2.0.2: the lowest mode of the echo, the ground."""

_NEEDED = ("LFID", "TIME", "GLON", "GLAT", "ZG")
_MJD_EPOCH = np.datetime64("1858-11-17")


class Lvis(ProductReader):
    """Reader of ILVIS2."""

    product = "icebridge_ilvis2"
    variables: Mapping[str, tuple[str, str]] = {}
    notes = NOTES

    def recognises(self, source: Source) -> bool:
        """Return whether the header names the fields of LVIS."""
        return set(_NEEDED) <= set(_names(source))

    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:  # noqa: ARG002 - it has none
        """Return identity and records of a granule."""
        layout = TextLayout("whitespace", "#", _names(source))
        found = numbers_of_rows(source, layout, _NEEDED)
        days = found["LFID"] // 1000 % 100_000
        known = days[np.isfinite(days)]
        if not known.size:
            raise source.lacks("number of the file (LFID), which tells the day,")
        day = str(_MJD_EPOCH + int(known[0]))
        time = instants_of_day(day, found["TIME"], "utc")
        place = (found["GLON"], found["GLAT"], found["ZG"])
        return flight(self.product, "lvis", time, place, source=source, extra={})


def _names(source: Source) -> tuple[str, ...]:
    """Return the fields that the last line of the header names, as structure 2.0.2 does."""
    header = ""
    for line in first_lines(source):
        if not line.startswith("#"):
            break
        header = line.lstrip("# ")
    return tuple(_SAME.get(name, name) for name in header.split())


LVIS = Lvis()
