"""Granules of ICESat-2's land-ice heights along reference tracks (ATL11), in the layout of early releases.

A granule holds all cycles of one reference track over the world.  ``METADATA`` and the crossing tracks are omitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from cryotile.simulate.atl06 import BEAMS, SDP_EPOCH, SEGMENT, granule_region
from cryotile.simulate.headers import attach_scale, attributes, header, new_hdf5
from cryotile.simulate.mission import Flyover
from cryotile.times import utc_to_gps

__all__ = ["write"]

SKIP = 5  # segments of 20 m from one reference point to the next
TERMS = 8  # of the polynomial that describes the surface
SYSTEMATIC = 0.6  # error shared by a pass, m
POOR = 1  # quality_summary of a height that lacks a beam
PER_CYCLE = ("delta_time", "h_corr", "h_corr_sigma", "h_corr_sigma_systematic")


def write(directory: Path, flyovers: Sequence[Flyover]) -> list[Path]:
    """Write the repeats of one reference track as one granule.

    Parameters
    ----------
    directory : Path
        Where to.
    flyovers : sequence of Flyover
        Of ICESat-2, six beams, of one track, in order of time.

    Returns
    -------
    list of Path
        The granule.
    """
    cycles, tracks = zip(*(f.mission.orbit.cycle(f.number) for f in flyovers), strict=True)
    start = flyovers[0].beams[0].iloc[0]
    region = granule_region(start["nadir_latitude"], bool(start["ascending"]))
    span = f"{cycles[0]:02d}{cycles[-1]:02d}"
    path = directory / f"ATL11_{tracks[0]:04d}{region:02d}_{span}_02_v002.h5"
    table = header("atl11")
    with new_hdf5(path) as file:
        for pair in (1, 2, 3):
            place = file.create_group(f"pt{pair}")
            facts = {
                "ReferenceGroundTrack": float(tracks[0]),
                "beam_pair": pair,
                "first_cycle": cycles[0],
                "last_cycle": cycles[-1],
            }
            place.attrs.update(attributes(table["pair"], facts))
            for name, listed in table["groups"].items():
                place.create_group(name).attrs.update(attributes(listed))
            _write_all(place, table["variables"], _pair(flyovers, pair, cycles))
    return [path]


def _pair(
    flyovers: Sequence[Flyover], pair: int, cycles: Sequence[int]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return name → values of a pair of beams: a row for each reference point, a column for each cycle."""
    passes = [_reference_points(flyover, pair) for flyover in flyovers]
    first = pd.concat(passes).groupby(level=0).first()
    points = first.index.to_numpy(float)
    values: dict[str, np.ndarray[Any, Any]] = {
        "corrected_h/longitude": first["longitude"].to_numpy(),
        "corrected_h/latitude": first["latitude"].to_numpy(),
        "ref_surf/rgt_azimuth": first["rgt_azimuth"].to_numpy(),
        "ref_surf/x_atc": points * SEGMENT,
    }
    for group in ("corrected_h", "cycle_stats", "ref_surf"):
        values[f"{group}/ref_pt"] = points
        values[f"{group}/cycle_number"] = np.array(cycles)
    for name in PER_CYCLE:
        values[f"corrected_h/{name}"] = np.column_stack(
            [each[name].reindex(first.index) for each in passes]
        )
    missing = np.isnan(values["corrected_h/h_corr"])
    values["corrected_h/quality_summary"] = np.where(missing, POOR, 0)
    return values


def _reference_points(flyover: Flyover, pair: int) -> pd.DataFrame:
    """Return the height midway between the two beams at each reference point, indexed by segment number."""
    left, right = (flyover.beams[list(BEAMS).index(f"gt{pair}{side}")] for side in "lr")
    node = flyover.mission.orbit.time(flyover.number, np.zeros(1))
    flown = (left["time"].to_numpy() - node) / np.timedelta64(1, "s")
    segment = np.rint(flown / flyover.mission.orbit.interval).astype(int)
    there = segment % SKIP == 0
    left, right = left[there], right[there]
    lost = left["lost"].to_numpy() | right["lost"].to_numpy()
    seconds = utc_to_gps(left["time"].to_numpy()) - SDP_EPOCH

    def middle(name: str) -> np.ndarray[Any, Any]:
        return np.asarray((left[name].to_numpy() + right[name].to_numpy()) / 2)

    return pd.DataFrame(
        {
            "longitude": middle("longitude"),
            "latitude": middle("latitude"),
            "rgt_azimuth": left["azimuth"].to_numpy(),
            "delta_time": np.where(lost, np.nan, seconds),
            "h_corr": np.where(lost, np.nan, middle("elevation")),
            "h_corr_sigma": np.where(lost, np.nan, middle("uncertainty") / np.sqrt(2)),
            "h_corr_sigma_systematic": np.where(lost, np.nan, SYSTEMATIC),
        },
        index=segment[there],
    )


def _write_all(place: h5py.Group, table: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Write the datasets of a pair with their dimension scales; a dataset without data holds 0."""
    sizes = {name: len(data[f"corrected_h/{name}"]) for name in ("ref_pt", "cycle_number")}
    for name, entry in table.items():
        nothing = np.zeros([sizes.get(dimension, TERMS) for dimension in entry["dimensions"]])
        values = np.asarray(entry.get("value", data.get(name, nothing)))
        dataset = place.create_dataset(name, data=values.astype(entry["dtype"]))
        dataset.attrs.update(attributes(entry["attributes"]))
    for name, entry in table.items():
        group = place[name.partition("/")[0]]
        for axis, dimension in enumerate(entry["dimensions"]):
            if dimension in group and dimension != name.rpartition("/")[2]:
                attach_scale(place[name], axis, group[dimension])
