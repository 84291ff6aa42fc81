"""Cryo-TEMPO land ice (ESA, CryoSat-2) in NetCDF-4, Baselines B and C.

The product has removed bad records itself: what has an elevation is valid.  Its times are UTC already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryotile.points import MODES, SURFACE_TYPES, Granule
from cryotile.readers.base import Identity, Records, build_granule, codes, pass_ids
from cryotile.readers.source import Source
from cryotile.times import utc_instants

__all__ = ["LAND_ICE", "CryotempoLandIce"]

_MODES = {1: "lrm", 2: "sar", 3: "sarin_poca"}
# 4 is land beside Greenland, iced or not.
_SURFACES = {0: "ocean", 1: "grounded_ice", 2: "floating_ice", 3: "ice_free_land", 4: "unknown"}
_VARIABLES = {
    "power": ("backscatter", "dB"),
    "reference_dem": ("reference_dem", "m"),
    "basin": ("basin_id", "1"),
}
_FINGERPRINT = ("elevation", "backscatter", "surface_type", "instrument_mode", "reference_dem")


@dataclass(frozen=True)
class CryotempoLandIce:
    """Reader of the Cryo-TEMPO land ice product."""

    product: str = "cryotempo_land_ice"

    @property
    def columns(self) -> Mapping[str, str]:
        """Further columns offered → unit."""
        return {name: unit for name, (_, unit) in _VARIABLES.items()}

    def recognises(self, source: Source) -> bool:
        """Whether the title says so or, where it is absent, the variables are those of the product."""
        title = source.attribute("title")
        if title is None:
            return all(name in source for name in _FINGERPRINT)
        return str(title).casefold().startswith("cryo-tempo land ice thematic")

    def read(
        self, source: Source, *, surface_types: Sequence[str], columns: Sequence[str]
    ) -> Granule:
        """Read the valid points, see :meth:`cryotile.readers.base.Reader.read`."""
        orbit = source.integer("abs_orbit_number")
        records = _records(source, orbit, [name for name in columns if name in _VARIABLES])
        stated = source.attribute("product_version") is not None
        identity = Identity(
            product=self.product,
            zone=str(source.attribute("zone") or "unknown"),
            start=source.sensing_start(source.attribute("time_coverage_start"), records.time),
            orbit=orbit,
            baseline=str(source.attribute("product_baseline") or ""),
            version=source.integer("product_version") if stated else 0,
        )
        return build_granule(
            source, identity, records, surface_types=surface_types, columns=columns
        )


def _records(source: Source, orbit: int, extra: Sequence[str]) -> Records:
    seconds = source.values("time")
    shape = seconds.shape
    ascending = _ascending(source, seconds.size)
    return Records(
        platform="cryosat2",
        longitude=source.values("longitude", shape),
        latitude=source.values("latitude", shape),
        time=utc_instants(seconds, "2000-01-01"),
        elevation=source.values("elevation", shape),
        uncertainty=source.values("uncertainty", shape),
        pass_id=pass_ids("cryosat2", orbit, ascending),
        ascending=ascending,
        mode=codes(source.raw("instrument_mode", shape), _MODES, MODES),
        surface_type=codes(source.raw("surface_type", shape), _SURFACES, SURFACE_TYPES),
        extra={name: source.values_or_nan(_VARIABLES[name][0], shape) for name in extra},
    )


def _ascending(source: Source, count: int) -> NDArray[np.bool_]:
    """Whether the satellite flies north, from the records at which it begins to fly north or south."""
    north = _start_record(source, "ascending_start_record")
    south = _start_record(source, "descending_start_record")
    if north is None and south is None:
        raise source.lacks("attribute ascending_start_record")
    if south is None:
        south = math.inf
    if north is None:
        # Unless it flies south from the first record on, it flew north before.
        north = math.inf if south == 0 else 0.0
    record = np.arange(count)
    # The later of the two starts that lie behind a record holds; before both, the one that is still to come does not.
    turned_south = (south <= record) & (south > north)
    return (north <= record) & ~turned_south


def _start_record(source: Source, name: str) -> float | None:
    """Index in the attribute ``name``; infinity where it is the text 'None', that is never; None where it is absent."""
    value = source.attribute(name)
    if value is None:
        return None
    return math.inf if value == "None" else source.integer(name)


LAND_ICE = CryotempoLandIce()
