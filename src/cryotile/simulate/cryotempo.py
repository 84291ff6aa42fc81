"""Granules of ESA's Cryo-TEMPO land-ice product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryotile.simulate.headers import attributes, header, write_netcdf
from cryotile.simulate.mission import Flyover
from cryotile.simulate.world import FLOATING, GROUNDED
from cryotile.times import seconds_since

__all__ = ["write"]

SARIN = 3
SUBCYCLE = 435  # orbits in 30 days
NO_UNCERTAINTY = 40  # one echo in this many has an elevation but no uncertainty


def write(directory: Path, flyover: Flyover) -> list[Path]:
    """Write one flyover as one granule.

    Lost and ambiguous echoes have no elevation (NaN) and the position of nadir; all echoes are SARIn.

    Parameters
    ----------
    directory : Path
        Where to.
    flyover : Flyover
        Of CryoSat-2.

    Returns
    -------
    list of Path
        The granule.
    """
    (echoes,) = flyover.beams
    greenland = echoes["latitude"].iloc[0] > 0
    start, stop = (pd.Timestamp(t) for t in (echoes["time"].iloc[0], echoes["time"].iloc[-1]))
    cycle, relative = flyover.mission.orbit.cycle(flyover.number)
    span = f"{start:%Y%m%dT%H%M%S}_{stop:%Y%m%dT%H%M%S}"
    name = f"CS_OFFL_SIR_TDP_LI_{'GREENL' if greenland else 'ANTARC'}_{span}_{cycle:02d}_{relative:05d}_C001.nc"
    table = header("cryotempo")
    data = _variables(echoes)
    facts = {
        "zone": "Greenland" if greenland else "Antarctica",
        "instrument_mode": "SARIN",
        "date_created": f"{stop + pd.Timedelta(days=30):%d-%m-%Y %H:%M:%S}",
        "time_coverage_start": f"{start:%Y-%m-%d %H:%M:%S.%f}",
        "time_coverage_end": f"{stop:%Y-%m-%d %H:%M:%S.%f}",
        "cycle_number": cycle,
        "rel_orbit_number": relative,
        "abs_orbit_number": flyover.number,
        "product_version": 1,
        "cnes_subcycle": flyover.number // SUBCYCLE + 1,
        "cnes_track": flyover.number % SUBCYCLE + 1,
        "ascending_start_record": _first(echoes["ascending"]),
        "descending_start_record": _first(~echoes["ascending"]),
    } | _extent(data)
    path = directory / name
    write_netcdf(
        path,
        table["variables"],
        data,
        header=attributes(table["attributes"], facts),
        compressed=False,
    )
    return [path]


def _variables(echoes: pd.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    valid = ~(echoes["lost"] | echoes["ambiguous"]).to_numpy()
    known = valid & (np.arange(len(echoes)) % NO_UNCERTAINTY > 0)
    kind = echoes["surface_type"].to_numpy()
    ice = np.isin(kind, (GROUNDED, FLOATING))
    # Quadrants of longitude stand in for the basins of Zwally and Rignot.
    basin = np.where(ice, 1 + (echoes["longitude"].to_numpy() // 90 % 4), 0).astype("int8")
    column = {name: echoes[name].to_numpy() for name in echoes}
    return {
        "time": seconds_since(column["time"], "2000-01-01"),
        "latitude": np.where(valid, column["latitude"], column["nadir_latitude"]),
        "longitude": np.where(valid, column["longitude"], column["nadir_longitude"]),
        "instrument_mode": np.full(len(echoes), SARIN, "int8"),
        "elevation": np.where(valid, column["elevation"], np.nan),
        "backscatter": np.where(valid, column["power"], np.nan),
        "surface_type": kind,  # the product's codes are positions in SURFACE_TYPES
        "reference_dem": np.where(ice, column["reference"], np.nan),
        "basin_id": basin,
        "basin_id2": basin,
        "uncertainty": np.where(known, column["uncertainty"], np.nan),
    }


def _first(which: pd.Series[bool]) -> int | str:
    """Return the index of the first record of a direction, or "None" as the product writes it."""
    return int(which.to_numpy().argmax()) if which.any() else "None"


def _extent(data: dict[str, np.ndarray[Any, Any]]) -> dict[str, str]:
    names = {"lat": "latitude", "lon": "longitude", "vertical": "elevation"}
    ends = {"min": np.nanmin, "max": np.nanmax}
    return {
        f"geospatial_{short}_{end}": f"{of(data[name]):.4f}"
        for short, name in names.items()
        for end, of in ends.items()
        if np.isfinite(data[name]).any()
    }
