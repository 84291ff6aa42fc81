"""Granules of ICESat-2's land-ice heights (ATL06), release 002.

The satellite follows the reference ground track exactly; the six beams stay at fixed distances left and right of it.
Groups without heights are omitted: ``METADATA``, ``quality_assessment`` and the text of the processor's control file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from cryotile.simulate.headers import attach_scale, attributes, header, new_hdf5
from cryotile.simulate.mission import Flyover, Noise
from cryotile.simulate.world import SEA_LEVEL
from cryotile.times import utc_to_gps

__all__ = ["BEAMS", "NOISE", "SDP_EPOCH", "SEGMENT", "granule_region", "write"]

BEAMS = {
    "gt1l": 3287.0,
    "gt1r": 3200.0,
    "gt2l": 56.0,
    "gt2r": -35.0,
    "gt3l": -3178.0,
    "gt3r": -3271.0,
}
"""Beams and their distance left of the reference ground track, m: the satellite flies backward, strong beams left."""

NOISE = Noise(
    white=0.02,
    along_pass=0.05,
    outlier_error=3.0,
    bad_error=1.0,
    ambiguous_share=0.0,
    lost_share=0.02,
)
"""Lost segments are those of lower quality (clouds, blowing snow)."""

SDP_EPOCH = 1198800018.0  # GPS seconds at which delta_time is 0
ORBITS_BEFORE = 201  # orbit_number − 1387 · (cycle − 1) − track in the real granules
SEGMENT = 20.0  # m
WEEK = 604800
SIGMA_GEO = 0.35  # vertical error from pointing, m; 20 on off-pointed segments
POINTED_OFF = 50  # one segment in this many
REGIONS = (  # number, latitudes flown from and to
    (1, 0.0, 27.0), (2, 27.0, 59.5), (3, 59.5, 80.0), (5, 80.0, 59.5), (6, 59.5, 27.0), (7, 27.0, 0.0),
    (8, 0.0, -27.0), (9, -27.0, -50.0), (10, -50.0, -79.0), (12, -79.0, -50.0), (13, -50.0, -27.0), (14, -27.0, 0.0),
)  # fmt: skip


def write(directory: Path, flyover: Flyover) -> list[Path]:
    """Write one flyover as one granule.

    Parameters
    ----------
    directory : Path
        Where to.
    flyover : Flyover
        Of ICESat-2, six beams.

    Returns
    -------
    list of Path
        The granule.
    """
    first = flyover.beams[0].iloc[0]
    cycle, track = flyover.mission.orbit.cycle(flyover.number)
    region = granule_region(first["nadir_latitude"], bool(first["ascending"]))
    name = f"ATL06_{first['time']:%Y%m%d%H%M%S}_{track:04d}{cycle:02d}{region:02d}_002_01.h5"
    table = header("atl06")
    with new_hdf5(directory / name) as file:
        _make_groups(file, table["groups"], _coverage(flyover, name))
        _write_all(file, table["variables"], _orbit_values(flyover, region))
        for beam, segments in zip(BEAMS, flyover.beams, strict=True):
            place = file.create_group(beam)
            _make_groups(place, table["beam_groups"], _beam(beam))
            _write_all(place, table["beam_variables"], _segments(flyover, segments))
    return [directory / name]


def _beam(name: str) -> dict[str, str]:
    """Return the attributes of a beam's group."""
    pair, strong = int(name[2]), name.endswith("l")
    return {
        "atlas_beam_type": "strong" if strong else "weak",
        "atlas_pce": f"pce{pair}",
        "atlas_spot_number": str(2 * pair - strong),
        "atmosphere_profile": f"profile_{pair}",
        "groundtrack_id": name,
        "sc_orientation": "Backward",
    }


def _make_groups(place: h5py.Group, table: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Create the groups of a table; the entry without a name is `place` itself, which gets the facts as attributes."""
    for name, listed in table.items():
        _describe(place.require_group(name) if name else place, listed, {} if name else facts)


def _describe(place: h5py.HLObject, table: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in attributes(table, values).items():
        place.attrs[name] = np.bytes_(value) if isinstance(value, str) else value


def _write_all(place: h5py.Group, table: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Write the datasets of a table with their dimension scales; a dataset without data holds its fill value."""
    length = len(next(iter(data.values())))
    for name, entry in table.items():
        values = data.get(name, entry.get("value", np.full(length, entry.get("fill", 0))))
        growing = {"maxshape": (None,), "chunks": (entry["chunk"],)} if "chunk" in entry else {}
        dataset = place.create_dataset(
            name,
            data=np.asarray(values).astype(entry["dtype"]),
            fillvalue=entry.get("fill"),
            compression=entry.get("gzip"),
            shuffle=entry.get("shuffle"),
            **growing,
        )
        _describe(dataset, entry["attributes"], {})
    for name, entry in table.items():
        if "along" in entry:
            attach_scale(place[name], 0, place[f"{name.split('/')[0]}/{entry['along']}"])


def _segments(flyover: Flyover, beam: pd.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    """Return path within a beam → values."""
    column = {name: beam[name].to_numpy() for name in beam}
    count = np.arange(len(beam))
    node = flyover.mission.orbit.time(flyover.number, np.zeros(1))
    flown = (column["time"] - node) / np.timedelta64(1, "s") / flyover.mission.orbit.interval
    segment = np.rint(flown).astype(int)
    poor = column["lost"]
    geo = np.where(count % POINTED_OFF == 0, 20.0, SIGMA_GEO)
    values = {
        "latitude": column["latitude"],
        "longitude": column["longitude"],
        "delta_time": utc_to_gps(column["time"]) - SDP_EPOCH,
        "h_li": column["elevation"],
        "h_li_sigma": column["uncertainty"],
        "sigma_geo_h": geo,
        "segment_id": segment,
        "atl06_quality_summary": poor,
        "dem/dem_h": column["reference"],
        "dem/geoid_h": np.full(len(beam), SEA_LEVEL),
        "dem/dem_flag": np.ones(len(beam)),
        "fit_statistics/h_mean": column["elevation"],
        "fit_statistics/dh_fit_dx": np.gradient(column["reference"]) / SEGMENT,
        "fit_statistics/h_robust_sprd": np.where(poor, 2.0, 0.2),
        "fit_statistics/n_fit_photons": np.where(poor, 20, 400),
        "fit_statistics/snr_significance": np.where(poor, 0.5, 0.0),
        "ground_track/seg_azimuth": column["azimuth"],
        "ground_track/ref_azimuth": column["azimuth"] + 90.0,
        "ground_track/sigma_geo_at": np.full(len(beam), 5.0),
        "ground_track/sigma_geo_xt": np.full(len(beam), 5.0),
        "ground_track/x_atc": segment * SEGMENT,
        "ground_track/y_atc": column["across"],
        "geophysical/cloud_flg_asr": np.where(poor, 4, 0),
    }
    return {f"land_ice_segments/{name}": value for name, value in values.items()}


def _orbit_values(flyover: Flyover, region: int) -> dict[str, Any]:
    """Return the values of ``orbit_info`` and ``ancillary_data``."""
    orbit, number = flyover.mission.orbit, flyover.number
    cycle, track = orbit.cycle(number)
    node = np.zeros(1)
    crossing = utc_to_gps(orbit.time(number, node)) - SDP_EPOCH
    values: dict[str, Any] = {
        "orbit_info/crossing_time": crossing,
        "orbit_info/cycle_number": [cycle],
        "orbit_info/lan": orbit.ground_track(number, node)[0],
        "orbit_info/orbit_number": [number + ORBITS_BEFORE],
        "orbit_info/rgt": [track],
        "orbit_info/sc_orient": [0],
        "orbit_info/sc_orient_time": crossing,
        "ancillary_data/release": [b"002".ljust(80)],
        "ancillary_data/version": [b"01".ljust(80)],
    }
    for end, row in (("start", 0), ("end", -1)):
        time = flyover.beams[0]["time"].to_numpy()[[row]]
        gps = utc_to_gps(time)
        text = [f"{np.datetime_as_string(time[0], unit='us')}Z".encode()]
        values |= {
            f"ancillary_data/data_{end}_utc": text,
            f"ancillary_data/granule_{end}_utc": text,
            f"ancillary_data/{end}_cycle": [cycle],
            f"ancillary_data/{end}_delta_time": gps - SDP_EPOCH,
            f"ancillary_data/{end}_gpssow": gps % WEEK,
            f"ancillary_data/{end}_gpsweek": gps // WEEK,
            f"ancillary_data/{end}_orbit": [number + ORBITS_BEFORE],
            f"ancillary_data/{end}_region": [region],
            f"ancillary_data/{end}_rgt": [track],
        }
    return values


def _coverage(flyover: Flyover, name: str) -> dict[str, Any]:
    """Return the attributes of the granule."""
    segments = pd.concat(flyover.beams)
    start, end = segments["time"].min(), segments["time"].max()
    return {
        "time_coverage_start": f"{start:%Y-%m-%dT%H:%M:%S.%fZ}",
        "time_coverage_end": f"{end:%Y-%m-%dT%H:%M:%S.%fZ}",
        "time_coverage_duration": (end - start).total_seconds(),
        "date_created": f"{end + pd.Timedelta(days=30):%Y-%m-%dT%H:%M:%S.%fZ}",
        "geospatial_lat_min": segments["latitude"].min(),
        "geospatial_lat_max": segments["latitude"].max(),
        "geospatial_lon_min": segments["longitude"].min(),
        "geospatial_lon_max": segments["longitude"].max(),
        "identifier_file_uuid": name,
    }


def granule_region(latitude: float, ascending: bool) -> int:
    """Return the number of the granule region of a segment; 4 and 11 surround the poles."""
    for number, begin, end in REGIONS:
        if (end > begin) == ascending and min(begin, end) <= latitude <= max(begin, end):
            return number
    return 4 if latitude > 0 else 11
