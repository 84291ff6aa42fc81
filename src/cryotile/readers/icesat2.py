"""Common parts of the ICESat-2 products: their clock, their passes, and the release of a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryotile.readers.source import Source
from cryotile.times import gps_to_utc

__all__ = ["NOTE", "delivery", "flies_north", "orbit_number", "region", "utc_times"]

TRACKS_PER_CYCLE = 1387
"""Reference ground tracks flown in the 91 days of a cycle."""

SDP_EPOCH = 1198800018.0
"""GPS seconds of 2018-01-01 00:00:00 UTC, from which ``delta_time`` counts unless the file states another epoch."""

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


def orbit_number(cycle: int, track: int) -> int:
    """Return the orbit number, counted from the first track of cycle 1.

    The files' own ``orbit_number`` counts from launch; this number follows from cycle and track, which ATL06 and ATL11
    both state, so that their points of one overflight share a pass.
    """
    return TRACKS_PER_CYCLE * (cycle - 1) + track


def flies_north(azimuth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether a track of that azimuth (degrees from north) leads north."""
    return np.abs(azimuth) < 90.0


def delivery(source: Source) -> tuple[str, int]:
    """Return release and version in ``/ancillary_data``; "" and 0 if the file does not state them."""
    version = source.text("ancillary_data/version") or ""
    return source.text("ancillary_data/release") or "", int(version) if version.isdecimal() else 0


def region(source: Source) -> str:
    """Return the granule region in ``/ancillary_data``, e.g. ``"region03"``."""
    stated = "ancillary_data/start_region"
    return f"region{source.first(stated):02d}" if stated in source else "unknown"
