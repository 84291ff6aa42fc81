"""Land ice of the radars of ERS-1, ERS-2, Envisat and Sentinel-3: a table of names for each product.

The names are those of public readers of these products: CPOM's ``cpom_software2`` (datasets of FDR4ALT, REAPER and
Sentinel-3) and RADS (``rads_gen_f4a``, after the FDR4ALT Product User Guide, CLS-ENV-MU-23-0237).  Elevations stand at
the point of closest approach, above WGS84, with the corrections of the product.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cryotile.points import MODES, SURFACE_TYPES
from cryotile.readers.base import (
    Identity,
    ProductReader,
    Records,
    codes,
    find_passes,
    instants,
)
from cryotile.readers.source import Shape, Source

__all__ = ["FDR4ALT", "REAPER", "SENTINEL3", "Radar"]

_TITLES = ("product_name", "title", "mission_name")
"""Attributes in which these products name themselves and their platform."""

_PLATFORMS = {
    "ers1": r"\bERS-?1\b|ER1_F4A|E1_REAP",
    "ers2": r"\bERS-?2\b|ER2_F4A|E2_REAP",
    "envisat": r"\bENVISAT\b|EN1_F4A",
    "sentinel3a": r"\bS3A_|\bSentinel[ -]?3A\b",
    "sentinel3b": r"\bS3B_|\bSentinel[ -]?3B\b",
}
_ONE_KIND = (
    "the product holds ice and does not distinguish floating from grounded ice: all of it counts as"
    " grounded_ice"
)


@dataclass(frozen=True)
class Radar(ProductReader):
    """Reader of a product of a radar altimeter, all of whose variables are in one group.

    Attributes
    ----------
    product : str
        Name of the product.
    title : str
        Pattern in an attribute in which it names itself.
    time, longitude, latitude, nadir : str
        Variables; ``nadir`` is the latitude of the satellite, which tells the direction of flight.
    elevation : tuple of str
        Variables, of which the first that is there is used.
    bad : mapping of str to str
        Reason → flag, which is 0 where a record is good.
    variables : mapping of str to tuple of str
        Extra column → variable and unit.
    group : str
        Group of all variables, with a final slash; "" for the root.
    unit : str or None
        Unit of the time where the file does not state one.
    mode : str
        Measurement mode.
    surfaces : mapping of str to mapping of int to str
        Variable → class → surface type, of which the first that is there is used; empty: all points are grounded ice.
    orbit : str
        Attribute with the number of the orbit or pass.
    notes : tuple of str
        Facts that a user should know about every granule.
    tried : bool
        See :class:`ProductReader`.
    """

    product: str
    title: str
    time: str
    longitude: str
    latitude: str
    nadir: str
    elevation: tuple[str, ...]
    bad: Mapping[str, str]
    variables: Mapping[str, tuple[str, str]]
    group: str = ""
    unit: str | None = None
    mode: str = "lrm"
    surfaces: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    orbit: str = "abs_orbit_number"
    notes: tuple[str, ...] = ()
    tried: bool = False

    def recognises(self, source: Source) -> bool:
        """Return whether the product names itself or, unless it is named otherwise, its place and quality are there."""
        stated = [str(source.attribute(name) or "") for name in _TITLES]
        if any(re.search(self.title, text, re.IGNORECASE) for text in stated):
            return True
        needed = (self.time, self.latitude, self.longitude, *self.bad.values())
        return not stated[0] and all(self.group + name in source for name in needed)

    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:
        """Return identity and records of a granule."""
        platform = _platform(source)
        orbit = source.optional_integer(self.orbit)
        records = self._records(source, platform, orbit, extra)
        name = str(source.attribute("product_name") or "")
        baseline = re.search(r"_(\d{3})(?:\.SEN3)?$", name)
        identity = Identity(
            product=self.product,
            zone=platform,
            start=source.sensing_start(source.attribute("first_meas_time"), records.time),
            orbit=orbit or 0,
            baseline=baseline[1] if baseline else "",
        )
        return identity, records

    def _records(
        self, source: Source, platform: str, orbit: int | None, extra: Sequence[str]
    ) -> Records:
        # REAPER has rows of 20 records a second.
        shape = source.shape(self.group + self.time)
        height = next((name for name in self.elevation if self.group + name in source), None)
        elevation = source.values(self.group + (height or self.elevation[0]), shape).ravel()
        elevation[elevation == 0.0] = np.nan
        latitude = source.values(self.group + self.latitude, shape).ravel()
        time = instants(source, self.group + self.time, shape, self.unit).ravel()
        nadir = source.values_or_nan(self.group + self.nadir, shape).ravel()
        northward = np.gradient(nadir) if nadir.size > 1 else None
        passes = find_passes(platform, orbit, northward, time, latitude)
        return Records(
            platform=platform,
            longitude=source.values(self.group + self.longitude, shape).ravel(),
            latitude=latitude,
            time=time,
            elevation=elevation,
            uncertainty=np.full(time.shape, np.nan),
            pass_id=passes.pass_id,
            ascending=passes.ascending,
            mode=np.full(time.shape, MODES.index(self.mode), np.int8),
            surface_type=self._surface(source, shape).ravel(),
            rejected={
                reason: source.raw(self.group + flag, shape).ravel() != 0
                for reason, flag in self.bad.items()
            },
            extra={
                name: source.values_or_nan(self.group + self.variables[name][0], shape).ravel()
                for name in extra
            },
            notes=passes.notes,
        )

    def _surface(self, source: Source, shape: Shape) -> NDArray[np.int8]:
        if not self.surfaces:
            return np.full(shape, SURFACE_TYPES.index("grounded_ice"), np.int8)
        for name, meanings in self.surfaces.items():
            if self.group + name in source:
                # Where a record has a row of its own, its class may be given once for the row.
                own = source.shape(self.group + name)
                classes = source.raw(self.group + name, shape[:1] if own == shape[:1] else shape)
                rows = codes(classes, meanings, SURFACE_TYPES)
                return rows if rows.shape == shape else np.repeat(rows, shape[1])
        return np.full(shape, SURFACE_TYPES.index("unknown"), np.int8)


def _platform(source: Source) -> str:
    """Return the platform that the file states or, as some do not, the name under which it was delivered."""
    stated = [str(source.attribute(name) or "") for name in _TITLES]
    for text in (*stated, source.path.name, source.path.absolute().parent.name):
        found = [word for word, name in _PLATFORMS.items() if re.search(name, text, re.IGNORECASE)]
        if len(found) == 1:
            return found[0]
    raise source.lacks("platform, in an attribute or in the name under which it was delivered,")


FDR4ALT = Radar(
    product="fdr4alt_land_ice",
    title="F4A_ALT_TDP_LI|FDR4ALT.*land ice",
    group="expert/",
    # Public readers count from 1950 or from 1990, in seconds or days: the file must state its unit.
    time="time",
    longitude="ice_sheet_lon_poca",
    latitude="ice_sheet_lat_poca",
    nadir="latitude",
    elevation=("ice_sheet_elevation_ice1_roemer",),
    bad={
        "retracking_failed": "retracking_ice1_qual",
        "relocation_failed": "ice_sheet_qual_relocation",
    },
    variables={
        "power": ("sigma0_ice1", "dB"),
        "chirp_band": ("chirp_band", "1"),
        "doppler": ("range_cor_doppler", "m"),
        "doppler_slope": ("range_cor_doppler_slope", "m"),
    },
    orbit="pass_number",
    notes=(
        _ONE_KIND,
        "heights are those of the product, without the Doppler corrections that some apply to them: columns doppler, "
        "doppler_slope",
    ),
)
"""FDR4ALT Thematic Data Product, land ice, of ERS-1, ERS-2 and Envisat: slope-corrected heights of retracker ICE-1."""

REAPER = Radar(
    product="reaper_ers",
    title="REAP(ER)?_ERS_ALT_2_|REAPER",
    time="time_20hz",
    unit="seconds since 1990-01-01",
    longitude="offset_lon_20hz",
    latitude="offset_lat_20hz",
    nadir="lat_20hz",
    elevation=("offset_elevation_20hz",),
    bad={"retracking_failed": "ice1_qual_flag_20hz"},
    surfaces={
        "surface_type": {0: "ocean", 1: "lake", 2: "grounded_ice", 3: "ice_free_land"},
    },
    variables={"power": ("ice1_sig0_20hz", "dB")},
)
"""REAPER ERS_ALT_2, the reprocessed Level 2 of ERS-1 and ERS-2."""

SENTINEL3 = Radar(
    product="sentinel3_land_ice",
    title="^S3[AB]_SR_2_LAN_(LI_|___)",
    time="time_20_ku",
    unit="seconds since 2000-01-01",
    longitude="lon_cor_20_ku",
    latitude="lat_cor_20_ku",
    nadir="lat_20_ku",
    elevation=("elevation_ice_sheet_20_ku", "elevation_ocog_20_ku"),
    bad={"poor_waveform": "waveform_qual_ice_20_ku"},
    mode="sar",
    surfaces={
        "surf_class_20_ku": {
            0: "ocean",
            1: "ice_free_land",
            2: "lake",
            3: "ice_free_land",
            4: "grounded_ice",
            5: "floating_ice",
            6: "lake",
        },
        "surf_type_20_ku": {0: "ocean", 1: "lake", 2: "grounded_ice", 3: "ice_free_land"},
    },
    variables={"power": ("sig0_ice_sheet_20_ku", "dB"), "peakiness": ("peakiness_1_20_ku", "1")},
    orbit="absolute_rev_number",
)
"""Sentinel-3 SRAL land Level 2 (SR_2_LAN) and its thematic product of land ice (SR_2_LAN_LI)."""
