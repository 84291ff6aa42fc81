"""Granules of ESA's CryoSat-2 Level-2 products in SARIn and LRM: in-depth (L2I, Baselines E and D) and plain (L2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryotile.simulate.headers import attributes, header, write_netcdf
from cryotile.simulate.mission import Flyover, Mission
from cryotile.simulate.orbit import Orbit
from cryotile.simulate.world import SEA_LEVEL, World
from cryotile.times import leap_seconds, utc_to_tai

__all__ = ["write", "write_baseline_d", "write_l2"]

Arrays = dict[str, np.ndarray[Any, Any]]

BLOCK = 20  # records in a 1 Hz block
ALWAYS = 1 | 2  # swh_error and alt_wind_error are set on every record of the real granules
XTRACK_ANGLE_ERROR = 16
HEIGHT_ERROR = {1: 4096, 2: 2048, 3: 1024}
STATUS = {4096: 16777216, 2048: 8388608, 1024: 4194304, 16: 2048}
"""Error bit of L2I → bit of the same error in ``flag_prod_status_20_ku`` of L2."""

SURFACES = np.array([0, 2, 2, 3])  # ocean, grounded and floating ice, land in surf_type_20_ku
HEIGHTS_APPLIED = {"lrm": 479_171_616, "sarin": 210_690_624}
"""Corrections listed in ``flag_height_20_ku``, as in the real granules."""

CORRECTIONS = {
    "mod_dry_tropo_cor_01": -1.75,
    "mod_wet_tropo_cor_01": -0.012,
    "iono_cor_01": -0.007,
    "iono_cor_gim_01": -0.007,
    "inv_bar_cor_01": 0.2,
    "hf_fluct_total_cor_01": -0.15,
    "load_tide_01": -0.002,
    "solid_earth_tide_01": 0.05,
    "ocean_tide_eq_01": -0.01,
}
"""Typical values, m; the heights include them."""

CODES = {"lrm": "LRMI2_", "sarin": "SINI2_"}
RENAMED = ("radar_freeboard_20_ku", "freeboard_20_ku")  # from Baseline D to E
NEW_IN_E = ("snow_depth_cor_20_ku", "flag_sea_ice_type_20_ku")
LONGER_IN_E = ("flag_cor_err_20_ku", "flag_cor_status_20_ku")  # by the flag of sea-ice type


def write(directory: Path, flyover: Flyover) -> list[Path]:
    """Write one flyover as a granule for each stretch in one mode.

    Parameters
    ----------
    directory : Path
        Where to.
    flyover : Flyover
        Of CryoSat-2.

    Returns
    -------
    list of Path
        The granules, in order of time.
    """
    return _write(directory, flyover, header("l2i"), CODES)


def write_l2(directory: Path, flyover: Flyover) -> list[Path]:
    """Write one flyover as :func:`write` does, but in the plain Level-2 product, Baseline E."""
    codes = {"lrm": "LRM_2_", "sarin": "SIN_2_"}
    return _write(directory, flyover, header("l2"), codes)


def write_baseline_d(directory: Path, flyover: Flyover) -> list[Path]:
    """Write the granules of :func:`write` in Baseline D, which has fewer variables and does not compress them."""
    table = header("l2i")
    new, old = RENAMED
    variables = {
        name: _with_fewer_flags(entry) if name in LONGER_IN_E else entry
        for name, entry in table["variables"].items()
        if name not in NEW_IN_E
    }
    entry = variables.pop(new)
    names = {"long_name": "sea-ice freeboard", "standard_name": "sea_ice_freeboard"}
    variables[old] = {**entry, "attributes": dict(sorted((entry["attributes"] | names).items()))}
    variables = dict(sorted(variables.items()))
    return _write(directory, flyover, {**table, "variables": variables}, CODES, baseline="D")


def _with_fewer_flags(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a variable of flags without its last flag."""
    own = entry["attributes"]
    dtype, masks = own["flag_masks"]
    words = own["flag_meanings"].rpartition(" ")[0]
    fewer = {"flag_masks": [dtype, masks[:-1]], "flag_meanings": words}
    return {**entry, "attributes": {**own, **fewer}}


def _write(
    directory: Path,
    flyover: Flyover,
    table: Mapping[str, Any],
    codes: Mapping[str, str],
    *,
    baseline: str = "E",
) -> list[Path]:
    mission = flyover.mission
    paths = []
    for mode, echoes in _stretches(mission.world, flyover.beams[0]):
        data = _variables(table["variables"], mission, mode, echoes)
        start, stop = (pd.Timestamp(t) for t in (echoes["time"].iloc[0], echoes["time"].iloc[-1]))
        name = f"CS_OFFL_SIR_{codes[mode]}_{start:%Y%m%dT%H%M%S}_{stop:%Y%m%dT%H%M%S}_{baseline}001"
        others = {n for of, names in table["only"].items() if of != mode for n in names}
        listed = {n: a for n, a in table["attributes"].items() if n not in others}
        facts = _facts(flyover, mode, echoes, data) | {"product_name": name}
        write_netcdf(
            directory / f"{name}.nc",
            table["variables"],
            data,
            header=attributes(listed, facts),
            compressed=baseline == "E",
        )
        paths.append(directory / f"{name}.nc")
    return paths


def _stretches(world: World, echoes: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Cut a pass where the instrument changes its mode, which depends on the position of nadir."""
    nadir = world.to_xy(echoes["nadir_longitude"].to_numpy(), echoes["nadir_latitude"].to_numpy())
    low = world.low_resolution(*nadir)
    cuts = [0, *(np.flatnonzero(np.diff(low)) + 1), len(echoes)]
    for first, last in pairwise(cuts):
        if last - first >= BLOCK:
            yield ("lrm" if low[first] else "sarin"), echoes.iloc[first:last]


def _variables(
    table: Mapping[str, Any], mission: Mission, mode: str, echoes: pd.DataFrame
) -> Arrays:
    """Return the stored values of all variables; those not simulated are as in a real granule of the mode."""
    sizes = {"time_20_ku": len(echoes), "time_cor_01": -(-len(echoes) // BLOCK), "space_3d": 3}
    column = {str(name): echoes[name].to_numpy() for name in echoes}
    orbit = mission.orbit
    measured = _positions(orbit, column) | _heights(orbit, mode, column) | _counts(sizes, column)
    measured |= {name: np.full(sizes["time_cor_01"], value) for name, value in CORRECTIONS.items()}
    measured |= _flags(mission.world, mode, column)
    data = {}
    for name, entry in table.items():
        _, scale = entry["attributes"].get("scale_factor", (None, 1))
        rest = np.full([sizes[d] for d in entry["dimensions"]], entry[mode], entry["dtype"])
        data[name] = _stored(measured[name] / scale, rest) if name in measured else rest
    return data


def _stored(values: np.ndarray[Any, Any], rest: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    whole = rest.dtype.kind == "i"
    return (np.rint(values) if whole else values).astype(rest.dtype)


def _positions(orbit: Orbit, column: Arrays) -> Arrays:
    """Return the positions of nadir and echo (degrees), and the satellite's altitude (m)."""
    altitude = orbit.height(column["nadir_latitude"])
    return {
        "lat_20_ku": column["nadir_latitude"],
        "lon_20_ku": column["nadir_longitude"],
        "lat_poca_20_ku": column["latitude"],
        "lon_poca_20_ku": column["longitude"],
        "alt_20_ku": altitude,
        "orb_alt_rate_20_ku": np.gradient(altitude) / orbit.interval,
        "geoid_20_ku": np.full(len(altitude), SEA_LEVEL),
        "mean_sea_surf_sea_ice_20_ku": np.full(len(altitude), SEA_LEVEL),
        # L2 has one nadir position per block.
        "lat_01": column["nadir_latitude"][::BLOCK],
        "lon_01": column["nadir_longitude"][::BLOCK],
        "alt_01": altitude[::BLOCK],
        "geoid_01": np.full(len(altitude[::BLOCK]), SEA_LEVEL),
        "mean_sea_surf_sea_ice_01": np.full(len(altitude[::BLOCK]), SEA_LEVEL),
    }


def _heights(orbit: Orbit, mode: str, column: Arrays) -> Arrays:
    """Return heights (m), ranges (m) and backscatter (dB) of the retrackers in use, and variables of SARIn alone."""
    # Retrackers differ by their penetration, so that a reader that takes the wrong one fails its tests.
    biases = {"lrm": {1: -0.9, 2: -0.6, 3: 0.0}, "sarin": {1: 0.0}}[mode]
    altitude = orbit.height(column["nadir_latitude"])
    heights: Arrays = {}
    for retracker, bias in biases.items():
        height = column["elevation"] + bias
        heights[f"height_{retracker}_20_ku"] = height
        heights[f"range_{retracker}_20_ku"] = altitude - height
        heights[f"sig0_{retracker}_20_ku"] = column["power"]
    if mode == "sarin":
        heights["coherence_20_ku"] = np.where(column["lost"], 0.4, 0.94)
        heights["across_track_angle_20_ku"] = column["across"] / altitude
        heights["dem_height_20_ku"] = column["reference"]
    return heights


def _counts(sizes: Mapping[str, int], column: Arrays) -> Arrays:
    """Return times (TAI) and indices."""
    record = np.arange(sizes["time_20_ku"])
    time = utc_to_tai(column["time"], epoch="2000-01-01")
    return {
        "time_20_ku": time,
        "time_cor_01": time[::BLOCK],
        "ind_meas_1hz_20_ku": record // BLOCK,
        "ind_first_meas_20hz_01": record[::BLOCK],
        "rec_count_20_ku": record + 1,
        "seq_count_20_ku": record % 2**14,
        "num_valid_01": np.minimum(BLOCK, len(record) - record[::BLOCK]),
        "space_3d": np.arange(3),
    }


def _flags(world: World, mode: str, column: Arrays) -> Arrays:
    """Return the error bits (their heights stay finite), and the surface type at nadir."""
    nadir = world.surface_type(*world.to_xy(column["nadir_longitude"], column["nadir_latitude"]))
    record = np.arange(len(nadir))
    lost, ambiguous = column["lost"], column["ambiguous"]
    if mode == "sarin":
        quality = ALWAYS | XTRACK_ANGLE_ERROR * ambiguous | HEIGHT_ERROR[1] * lost
    else:
        # LRM has no phase that could be ambiguous; the ocean and land-ice retrackers fail more often.
        ambiguous, lost = np.zeros_like(ambiguous), lost | ambiguous
        quality = ALWAYS | HEIGHT_ERROR[3] * lost
        quality |= HEIGHT_ERROR[1] * (lost | (record % 15 == 0))
        quality |= HEIGHT_ERROR[2] * (lost | (record % 22 == 0))
    status = sum(bit * (quality & error > 0) for error, bit in STATUS.items())
    return {
        "flag_quality_20_ku": quality,
        "flag_prod_status_20_ku": np.asarray(status),
        "flag_sarin_ambiguity_warning_20_ku": ambiguous,
        "flag_height_20_ku": np.full(len(nadir), HEIGHTS_APPLIED[mode]),
        "flag_surf_type_class_20_ku": np.full(len(nadir), {"lrm": 4, "sarin": 48}[mode]),
        "surf_type_20_ku": SURFACES[nadir],
    }


def _facts(flyover: Flyover, mode: str, echoes: pd.DataFrame, data: Arrays) -> dict[str, Any]:
    """Return the global attributes of one granule."""
    orbit, number = flyover.mission.orbit, flyover.number
    cycle, relative = orbit.cycle(number)
    node_time = orbit.time(number, np.zeros(1))
    node_longitude = orbit.ground_track(number, np.zeros(1))[0][0]
    facts: dict[str, Any] = {
        "processing_stage": "OFFL",
        "cycle_number": cycle,
        "rel_orbit_number": relative,
        "abs_orbit_number": number,
        "abs_orbit_start": number,
        "abs_orbit_stop": number,
        "equator_cross_time": f"UTC={_iso(node_time[0])}",
        "equator_cross_long": round(1e6 * node_longitude),
        "ascending_flag": "A" if echoes["ascending"].iloc[0] else "D",
        "sir_op_mode": {"lrm": "LRM", "sarin": "SARIN"}[mode].ljust(10),
        f"{mode}_mode_percent": 10000,
    }
    for code, kind in enumerate(("open_ocean", "close_sea", "continent_ice", "land")):
        facts[f"{kind}_percent"] = round(10000 * np.mean(data["surf_type_20_ku"] == code))
    for row, sensing, record in ((0, "start", "first"), (-1, "stop", "last")):
        time = echoes["time"].to_numpy()[row]
        leaps = np.timedelta64(int(leap_seconds(time)), "s")
        facts[f"sensing_{sensing}"] = f"{pd.Timestamp(time):%d-%b-%Y %H:%M:%S.%f}".upper()
        facts[f"{record}_record_time"] = f"TAI={_iso(time + leaps)}"
        facts[f"{record}_record_lat"] = round(1e6 * echoes["nadir_latitude"].iloc[row])
        facts[f"{record}_record_lon"] = round(1e6 * echoes["nadir_longitude"].iloc[row])
        facts[f"rel_time_acs_node_{sensing}"] = (time - node_time[0]) / np.timedelta64(1, "s")
    return facts


def _iso(time: np.datetime64) -> str:
    return str(np.datetime_as_string(time, unit="us"))
