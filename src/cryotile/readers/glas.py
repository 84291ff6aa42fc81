"""ICESat GLAH06 and GLAH12 (HDF5): elevations of the laser GLAS, at 40 Hz, in the years 2003 to 2009.

Names and meanings follow the GLAH06 and GLAH12 product data dictionaries (NSIDC) and public readers: nsidc-iceflow,
CPOM's ``cpom_software2``, Grounding-Zones.  Elevations have tides and atmospheric delays removed, not the saturation of
the receiver, and stand above the ellipsoid of TOPEX/Poseidon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryotile.points import MODES, SURFACE_TYPES
from cryotile.readers.base import Identity, ProductReader, Records, find_passes, instants
from cryotile.readers.source import Shape, Source

__all__ = ["GLAH06", "GLAH12", "Glas", "topex_above_wgs84"]

_AT_40 = "Data_40HZ/"
_ELEVATION = _AT_40 + "Elevation_Surfaces/d_elev"
_CORRECTION = _AT_40 + "Elevation_Corrections/d_satElevCorr"
_RECORDS = ("Data_1HZ/Time/i_rec_ndx", _AT_40 + "Time/i_rec_ndx")
_TRACK = "Data_1HZ/Geolocation/i_track"
_NOTE = (
    "elevations are corrected for saturation and moved from the TOPEX/Poseidon to the WGS84 ellipsoid;"
    " biases between campaigns are not removed"
)

# Values of sat_corr_flg: 0 not saturated, 1 inconsequential, 2 applicable, 3 not computed, 4 not applicable.
_APPLICABLE = 2

_WGS84 = 6378137.0, 6356752.314245
_TOPEX = 6378136.3, 6378136.3 * (1.0 - 1.0 / 298.257)
"""Semi-axes of the ellipsoids, metres: NIMA TR8350.2, and the Geophysical Data Records of TOPEX/Poseidon, whose
equatorial radius is 6378136.3 m and whose flattening is 1/298.257."""

_TRACKS = 10_000
"""More than the 1354 tracks of a repeat of 91 days; larger numbers are fill values."""

_FLAGS = "Data_1HZ/Elevation_Flags/"
_SURFACES = {
    "ice_free_land": "surf_ld_flg",
    "ocean": "surf_oc_flg",
    "grounded_ice": "surf_is_flg",
}
"""Surface → flag of GLAH06 at 1 Hz; the masks overlap, and the last that is set counts."""


@dataclass(frozen=True)
class Glas(ProductReader):
    """Reader of GLAH06 or of GLAH12.

    Attributes
    ----------
    product : str
        Name of the product.
    short_name : str
        Its ``ShortName``.
    on_ice : bool
        Whether all its elevations lie in the mask of the ice sheets; otherwise flags tell the surface.
    """

    product: str
    short_name: str
    on_ice: bool
    variables: Mapping[str, tuple[str, str]]
    notes: tuple[str, ...] = (_NOTE,)
    tried: bool = False

    def recognises(self, source: Source) -> bool:
        """Return whether ``ShortName`` is that of the product or, if it is absent, the heights of GLAS are there."""
        stated = source.attribute("ShortName") or source.attribute("short_name")
        if stated is not None:
            return stated == self.short_name
        return self.on_ice == (_FLAGS + "surf_is_flg" not in source) and _ELEVATION in source

    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:
        """Return identity and records of a granule."""
        records = self._records(source, extra)
        identity = Identity(
            product=self.product,
            zone="all",
            start=source.sensing_start(source.attribute("time_coverage_start"), records.time),
            orbit=0,
        )
        return identity, records

    def _records(self, source: Source, extra: Sequence[str]) -> Records:
        elevation = source.values(_ELEVATION)
        shape = elevation.shape
        latitude = source.values(_AT_40 + "Geolocation/d_lat", shape)
        time = instants(
            source, _AT_40 + "DS_UTCTime_40", shape, "seconds since 2000-01-01 12:00:00"
        )
        track = _at_40(source, _TRACK, shape)
        told = ((track >= 0) & (track < _TRACKS)).all()
        orbit = track.astype(np.int64) if told else None
        passes = find_passes("icesat", orbit, None, time, latitude)
        saturation = source.raw(_AT_40 + "Quality/sat_corr_flg", shape)
        correction = source.values(_CORRECTION, shape)
        # Only where the correction is applicable does its absence matter.
        correction[np.isnan(correction) & (saturation < _APPLICABLE)] = 0.0
        return Records(
            platform="icesat",
            longitude=source.values(_AT_40 + "Geolocation/d_lon", shape),
            latitude=latitude,
            time=time,
            elevation=elevation + np.nan_to_num(correction) - topex_above_wgs84(latitude),
            uncertainty=np.full(shape, np.nan),
            pass_id=passes.pass_id,
            ascending=passes.ascending,
            mode=np.full(shape, MODES.index("laser"), np.int8),
            surface_type=self._surface(source, shape),
            rejected={
                "elevation_unusable": source.raw(_AT_40 + "Quality/elev_use_flg", shape) != 0,
                "bad_attitude": source.raw(_AT_40 + "Quality/sigma_att_flg", shape) != 0,
                "saturated": (saturation > _APPLICABLE) | np.isnan(correction),
                "several_peaks": source.raw(_AT_40 + "Waveform/i_numPk", shape) != 1,
            },
            extra={
                name: source.values_or_nan(_AT_40 + self.variables[name][0], shape)
                for name in extra
            },
            notes=passes.notes,
        )

    def _surface(self, source: Source, shape: Shape) -> NDArray[np.int8]:
        start = "grounded_ice" if self.on_ice else "unknown"
        surface = np.full(shape, SURFACE_TYPES.index(start), np.int8)
        for name, flag in () if self.on_ice else _SURFACES.items():
            surface[_at_40(source, _FLAGS + flag, shape) == 1] = SURFACE_TYPES.index(name)
        return surface


def topex_above_wgs84(latitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return heights above the TOPEX/Poseidon ellipsoid less those above WGS84.

    Parameters
    ----------
    latitude : ndarray
        Geodetic, degrees.

    Returns
    -------
    ndarray, shape of ``latitude``
        Metres, from 0.700 at the equator to 0.714 at the poles.  The difference of the semi-axes, weighted with the
        squares of cosine and sine of the latitude, is exact to 0.1 mm (NSIDC, ``idl_ellipsoid``); latitudes on the two
        ellipsoids differ by less than 2 cm.
    """
    phi = np.radians(latitude)
    equatorial, polar = (ours - theirs for ours, theirs in zip(_WGS84, _TOPEX, strict=True))
    above: NDArray[np.float64] = equatorial * np.cos(phi) ** 2 + polar * np.sin(phi) ** 2
    return above


def _at_40(source: Source, name: str, shape: Shape) -> NDArray[np.float64]:
    """Return a variable at 1 Hz for each record at 40 Hz; NaN where unknown."""
    if not all(each in source for each in (name, *_RECORDS)):
        return np.full(shape, np.nan)
    values = source.values(name)
    second, record = source.raw(_RECORDS[0], values.shape), source.raw(_RECORDS[1], shape)
    order = np.argsort(second, kind="stable")
    if not order.size:
        return np.full(shape, np.nan)
    at = order[np.minimum(np.searchsorted(second[order], record), order.size - 1)]
    return np.where(second[at] == record, values[at], np.nan)


_VARIABLES = {
    "reflectivity": ("Reflectivity/d_reflctUC", "1"),
    "gain": ("Waveform/i_gval_rcv", "1"),
    "tide_ocean": ("Geophysical/d_ocElv", "m"),
}

GLAH06 = Glas("icesat_glah06", "GLAH06", on_ice=False, variables=_VARIABLES)
GLAH12 = Glas("icesat_glah12", "GLAH12", on_ice=True, variables=_VARIABLES)
