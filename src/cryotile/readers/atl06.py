"""ICESat-2 ATL06, land ice height: segments of 40 m every 20 m along each of six beams, each of which may be absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryotile.points import MODES, SURFACE_TYPES
from cryotile.readers import icesat2
from cryotile.readers.base import Identity, ProductReader, Records, find_passes
from cryotile.readers.source import Shape, Source

__all__ = ["ATL06", "Atl06"]

_BEAMS = ("gt1l", "gt1r", "gt2l", "gt2r", "gt3l", "gt3r")
_BEST_QUALITY = 0
_MEAN_SEA_SURFACE = 3
_LARGEST_GEOLOCATION_ERROR = 1.0


class Atl06(ProductReader):
    """Reader of ICESat-2 ATL06."""

    product = "icesat2_atl06"
    variables: Mapping[str, tuple[str, str]] = {
        "uncertainty_systematic": ("sigma_geo_h", "m"),
        "reference_dem": ("dem/dem_h", "m"),
        "tide_ocean": ("geophysical/tide_ocean", "m"),
        "dac": ("geophysical/dac", "m"),
    }
    notes = (icesat2.NOTE,)

    def recognises(self, source: Source) -> bool:
        """Return whether ``short_name`` is ATL06 or, if it is absent, a beam has land-ice segments."""
        short_name = source.attribute("short_name")
        return bool(_beams(source)) if short_name is None else short_name == "ATL06"

    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:
        """Return identity and records of a granule, from all its beams."""
        stated = icesat2.delivery(source, "ATL06")
        records = _records(source, stated.orbit, {name: self.variables[name][0] for name in extra})
        start = source.text("ancillary_data/granule_start_utc") or stated.start
        identity = Identity(
            product=self.product,
            zone=stated.region,
            start=source.sensing_start(start, records.time),
            orbit=stated.orbit or 0,
            baseline=stated.release,
            version=stated.version,
        )
        return identity, records


def _records(source: Source, orbit: int | None, extra: Mapping[str, str]) -> Records:
    beams = {beam: source.shape(f"{beam}/latitude") for beam in _beams(source)}

    def gather(read: Callable[[str, Shape], NDArray[Any]], name: str) -> NDArray[Any]:
        parts = [read(f"{beam}/{name}", shape) for beam, shape in beams.items()]
        return np.concatenate(parts) if parts else np.empty(0)

    latitude = gather(source.values, "latitude")
    time = icesat2.utc_times(source, gather(source.values, "delta_time"))
    azimuth = gather(source.values_or_nan, "ground_track/seg_azimuth")
    passes = find_passes("icesat2", orbit, icesat2.northward(azimuth), time, latitude)
    geolocation_error = gather(source.values, "sigma_geo_h")
    # The product covers land ice; segments whose own DEM is the mean sea surface are at sea.
    at_sea = gather(source.values_or_nan, "dem/dem_flag") == _MEAN_SEA_SURFACE
    surface = np.where(at_sea, SURFACE_TYPES.index("ocean"), SURFACE_TYPES.index("grounded_ice"))
    return Records(
        platform="icesat2",
        longitude=gather(source.values, "longitude"),
        latitude=latitude,
        time=time,
        elevation=gather(source.values, "h_li"),
        uncertainty=gather(source.values_or_nan, "h_li_sigma"),
        pass_id=passes.pass_id,
        ascending=passes.ascending,
        mode=np.full(time.shape, MODES.index("laser"), dtype=np.int8),
        surface_type=surface.astype(np.int8),
        rejected={
            "not_best_quality": gather(source.raw, "atl06_quality_summary") != _BEST_QUALITY,
            "geolocation_uncertain": ~(geolocation_error <= _LARGEST_GEOLOCATION_ERROR),
        },
        extra={name: gather(source.values_or_nan, path) for name, path in extra.items()},
        notes=passes.notes,
    )


def _beams(source: Source) -> list[str]:
    """Return the groups of segments; a beam without segments is absent or has other groups only."""
    return [group for group in (f"{beam}/land_ice_segments" for beam in _BEAMS) if group in source]


ATL06 = Atl06()
