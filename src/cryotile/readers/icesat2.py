"""Common parts of the ICESat-2 products: their clock, their passes, and the release of a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cryotile.points import TRACKS_PER_CYCLE
from cryotile.readers.source import Source
from cryotile.times import gps_to_utc

__all__ = ["NOTE", "Delivery", "delivery", "northward", "orbit_number", "utc_times"]

SDP_EPOCH = 1198800018.0
"""GPS seconds of 2018-01-01 00:00:00 UTC, from which ``delta_time`` counts unless the file states another epoch."""

_NAMES = {
    "ATL06": r"ATL06_(?P<start>\d{14})_(?P<track>\d{4})(?P<cycle>\d{2})(?P<region>\d{2})",
    "ATL11": r"ATL11_(?P<track>\d{4})(?P<region>\d{2})_\d{4}",
}
_RELEASE = r"(?:_(?P<release>\d{3})_(?P<version>\d{2}))?"

NOTE = "the product does not distinguish kinds of land ice: all points off the ocean count as grounded_ice"


def utc_times(source: Source, delta_time: NDArray[np.float64]) -> NDArray[np.datetime64]:
    """Return UTC of ``delta_time``, GPS seconds since the epoch of the ATLAS standard data products.

    Parameters
    ----------
    source : Source
        May state the epoch in ``/ancillary_data/atlas_sdp_gps_epoch``.
    delta_time : ndarray
        Seconds; NaN and fill values give NaT.

    Returns
    -------
    ndarray of datetime64[ms], shape of ``delta_time``
        UTC.
    """
    stated = "ancillary_data/atlas_sdp_gps_epoch"
    epoch = float(source.values(stated).ravel()[0]) if stated in source else SDP_EPOCH
    return gps_to_utc(delta_time + epoch)


_Number = TypeVar("_Number", int, NDArray[np.float64])


def orbit_number(cycle: _Number, track: _Number) -> _Number:
    """Return the orbit number, counted from the first track of cycle 1.

    The files' own ``orbit_number`` counts from launch; this number follows from cycle and track, which ATL06 and ATL11
    both state, so that their points of one overflight share a pass.
    """
    return TRACKS_PER_CYCLE * (cycle - 1) + track


def northward(azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a number that is positive where a track of that azimuth (degrees) leads north; NaN if unknown."""
    return 90.0 - np.abs(azimuth)


@dataclass(frozen=True)
class Delivery:
    """What a granule states about its place in the mission and about its release; None or "" where unknown.

    Attributes
    ----------
    cycle, track : int or None
        Cycle of 91 days (None for ATL11, which holds many) and reference ground track.
    region : str
        Granule region, e.g. ``"region03"``; ``"unknown"`` if not stated.
    release : str
        Release, e.g. ``"006"``.
    version : int
        Version within the release.
    start : str
        Sensing start in the name of an ATL06 granule.
    """

    cycle: int | None
    track: int | None
    region: str
    release: str
    version: int
    start: str

    @property
    def orbit(self) -> int | None:
        """Orbit number as of :func:`orbit_number`; None if unknown."""
        if self.cycle is None or self.track is None:
            return None
        return orbit_number(self.cycle, self.track)


def delivery(source: Source, product: str) -> Delivery:
    """Return what the variables of a granule state or, as subsets lack them, the name under which it was delivered.

    Parameters
    ----------
    source : Source
        The granule.
    product : str
        ``"ATL06"`` or ``"ATL11"``.
    """
    stated = str(source.attribute("fileName", of="METADATA/DatasetIdentification") or "")
    pattern = re.compile(_NAMES[product] + _RELEASE)
    delivered = pattern.search(stated)
    name = delivered.groupdict() if delivered else {}
    # A file may be renamed, so its own name gives the pass if nothing else does, and never region or release.
    own = delivered or pattern.search(source.path.name)
    numbers = {} if own is None else own.groupdict()

    def number(variable: str, text: str | None) -> int | None:
        if variable in source:
            return source.first(variable)
        return int(text) if text else None

    region = number("ancillary_data/start_region", name.get("region"))
    version = source.text("ancillary_data/version") or name.get("version") or ""
    return Delivery(
        cycle=number("orbit_info/cycle_number", numbers.get("cycle")),
        track=number("orbit_info/rgt", numbers.get("track")),
        region="unknown" if region is None else f"region{region:02d}",
        release=source.text("ancillary_data/release") or name.get("release") or "",
        version=int(version) if version.isdecimal() else 0,
        start=name.get("start") or "",
    )
