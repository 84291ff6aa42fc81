"""Cryo-TEMPO land ice (ESA, CryoSat-2) in NetCDF-4, Baselines B and C.

The product has no elevation where a record is bad, so every record with an elevation is valid.  Its times are UTC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cryotile.points import MODES, SURFACE_TYPES
from cryotile.readers.base import Identity, ProductReader, Records, codes, find_passes
from cryotile.readers.source import Shape, Source
from cryotile.times import utc_instants

__all__ = ["LAND_ICE", "CryotempoLandIce"]

_MODES = {1: "lrm", 2: "sar", 3: "sarin_poca"}
_STATED_MODES = {"lrm": "lrm", "sar": "sar", "sarin": "sarin_poca"}
# 4 is land around Greenland, with or without ice.
_SURFACES = {0: "ocean", 1: "grounded_ice", 2: "floating_ice", 3: "ice_free_land", 4: "unknown"}
_FINGERPRINT = ("elevation", "instrument_mode", "latitude", "longitude", "time")


class CryotempoLandIce(ProductReader):
    """Reader of the Cryo-TEMPO land-ice product."""

    product = "cryotempo_land_ice"
    variables: Mapping[str, tuple[str, str]] = {
        "power": ("backscatter", "dB"),
        "reference_dem": ("reference_dem", "m"),
        "basin": ("basin_id", "1"),
    }
    notes = ()

    def recognises(self, source: Source) -> bool:
        """Return whether the title names the product or, if it is absent, the product's variables are there."""
        title = source.attribute("title")
        if title is None:
            return all(name in source for name in _FINGERPRINT)
        return str(title).casefold().startswith("cryo-tempo land ice thematic")

    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:
        """Return identity and records of a granule."""
        orbit = source.optional_integer("abs_orbit_number")
        records = _records(source, orbit, {name: self.variables[name][0] for name in extra})
        baseline, version = delivery(source)
        identity = Identity(
            product=self.product,
            zone=str(source.attribute("zone") or "unknown"),
            start=source.sensing_start(source.attribute("time_coverage_start"), records.time),
            orbit=orbit or 0,
            baseline=baseline,
            version=version,
        )
        return identity, records


def delivery(source: Source) -> tuple[str, int]:
    """Return baseline and version of a Cryo-TEMPO granule; "" and 0 if it does not state them."""
    baseline = str(source.attribute("product_baseline") or "")
    return baseline, source.optional_integer("product_version") or 0


def _records(source: Source, orbit: int | None, extra: Mapping[str, str]) -> Records:
    seconds = source.values("time")
    shape = seconds.shape
    latitude = source.values("latitude", shape)
    time = utc_instants(seconds, "2000-01-01")
    passes = find_passes("cryosat2", orbit, _northward(source, seconds.size), time, latitude)
    return Records(
        platform="cryosat2",
        longitude=source.values("longitude", shape),
        latitude=latitude,
        time=time,
        elevation=source.values("elevation", shape),
        uncertainty=source.values_or_nan("uncertainty", shape),
        pass_id=passes.pass_id,
        ascending=passes.ascending,
        mode=_modes(source, shape),
        surface_type=codes(source.raw_or("surface_type", shape, 4), _SURFACES, SURFACE_TYPES),
        extra={name: source.values_or_nan(stored, shape) for name, stored in extra.items()},
        notes=passes.notes,
    )


def _modes(source: Source, shape: Shape) -> NDArray[np.int8]:
    """Return the mode of each record, from the attribute of the file if it lacks the variable."""
    stated = str(source.attribute("instrument_mode")).casefold()
    if "instrument_mode" not in source and stated in _STATED_MODES:
        return np.full(shape, MODES.index(_STATED_MODES[stated]), np.int8)
    return codes(source.raw("instrument_mode", shape), _MODES, MODES)


def _northward(source: Source, count: int) -> NDArray[np.float64] | None:
    """Return 1 where the satellite flies north and -1 elsewhere, from the records at which it starts to do so."""
    north = _start_record(source, "ascending_start_record")
    south = _start_record(source, "descending_start_record")
    if north is None and south is None:
        return None
    if south is None:
        south = math.inf
    if north is None:
        # If it does not fly south from the first record on, it flew north before.
        north = math.inf if south == 0 else 0.0
    record = np.arange(count)
    # The later of the starts before a record decides; before both, the satellite flies opposite to the first start.
    turned_south = (south <= record) & (south > north)
    return np.where((north <= record) & ~turned_south, 1.0, -1.0)


def _start_record(source: Source, name: str) -> float | None:
    """Return the index in the attribute ``name``; infinity (never) if it is the text 'None'; None if it is absent."""
    value = source.attribute(name)
    if value is None:
        return None
    return math.inf if value == "None" else source.integer(name)


LAND_ICE = CryotempoLandIce()
