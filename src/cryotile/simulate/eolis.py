"""Granules of the Cryo-TEMPO EOLIS point product: points of a month in tiles of 100 km, swath and POCA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pandas as pd

from cryotile.files import atomic_path
from cryotile.simulate.headers import SIMULATED
from cryotile.simulate.mission import Flyover, pass_error
from cryotile.simulate.world import FLOATING, GROUNDED, World

__all__ = ["write"]

TILE = 100_000  # m
BEYOND = (1.4, 1.8)
"""Positions of swath points, as multiples of the distance from nadir to the POCA."""

SWATH = 7  # part of the key of their random stream; no beam has this number
NOISE = 0.8  # of a swath point, m
UNITS = "Seconds from 1970 in the UTC timezone."
PROJ4 = {
    "EPSG:3413": "+proj=stere +lat_0=90 +lat_ts=70 +lon_0=-45 +x_0=0 +y_0=0 +datum=WGS84 +units=m",
    "EPSG:3031": "+proj=stere +lat_0=-90 +lat_ts=-71 +lon_0=0 +x_0=0 +y_0=0 +datum=WGS84 +units=m",
}


def write(directory: Path, flyovers: Sequence[Flyover]) -> list[Path]:
    """Write a month as one granule for each tile with points on ice.

    Parameters
    ----------
    directory : Path
        Where to.
    flyovers : sequence of Flyover
        Of CryoSat-2, in order of time.

    Returns
    -------
    list of Path
        The granules, by tile.
    """
    world = flyovers[0].mission.world
    points = pd.concat([_points(flyover) for flyover in flyovers], ignore_index=True)
    corner = np.floor(points[["x", "y"]].to_numpy() / TILE).astype(int) * TILE
    return [
        _write_tile(directory, world, (x, y), points[(corner == (x, y)).all(axis=1)])
        for x, y in np.unique(corner, axis=0).tolist()
    ]


def _points(flyover: Flyover) -> pd.DataFrame:
    """Return POCA points as measured, and swath points farther from nadir."""
    (echoes,) = flyover.beams
    world = flyover.mission.world
    poca = echoes[~(echoes["lost"] | echoes["ambiguous"])]
    poca = poca.assign(isSwath=0, inputfileid=flyover.number)
    nadir = world.to_xy(poca["nadir_longitude"].to_numpy(), poca["nadir_latitude"].to_numpy())
    parts = [poca]
    for factor in BEYOND:
        x, y = (n + factor * (poca[c].to_numpy() - n) for c, n in zip("xy", nadir, strict=True))
        parts.append(_swath_points(flyover, poca.assign(x=x, y=y, isSwath=1), round(10 * factor)))
    points = pd.concat(parts, ignore_index=True)
    kinds = world.surface_type(points["x"].to_numpy(), points["y"].to_numpy())
    return points[np.isin(kinds, (GROUNDED, FLOATING))].sort_values("time", kind="stable")


def _swath_points(flyover: Flyover, echoes: pd.DataFrame, key: int) -> pd.DataFrame:
    """Return points at other positions than the POCA, with the error of their pass and independent noise."""
    mission, count = flyover.mission, len(echoes)
    stream = np.random.SeedSequence(mission.seed, spawn_key=(flyover.number, SWATH, key))
    up, down = (pass_error(mission, flyover.number, ascending=leg) for leg in (True, False))
    truth = mission.world.elevation(*(echoes[name].to_numpy() for name in ("x", "y", "time")))
    noise = np.random.default_rng(stream).normal(0, NOISE, count)
    shared = np.where(echoes["ascending"], up, down)
    return echoes.assign(elevation=truth + shared + noise, uncertainty=NOISE)


def _write_tile(directory: Path, world: World, corner: tuple[int, int], tile: pd.DataFrame) -> Path:
    (x, y), first = corner, tile["time"].iloc[0]
    region = "GREENLAND" if world.crs == "EPSG:3413" else "ANTARCTICA"
    name = f"CS_OFFL_THEM_POINT_{region}_{first:%Y_%m}_{x}___{y}___V002.nc"
    projection = PROJ4.get(world.crs, world.crs)
    attributes = {
        "Conventions": "CF-1.7",
        "geospatial_x_min": x,
        "geospatial_x_max": x + TILE,
        "geospatial_y_min": y,
        "geospatial_y_max": y + TILE,
        "geospatial_projection": projection,
        "fileids": str({int(number): f"orbit {number}" for number in tile["inputfileid"].unique()}),
        "simulated": SIMULATED,
    }
    with atomic_path(directory / name) as temporary, netCDF4.Dataset(temporary, "w") as file:
        file.setncatts(attributes)
        file.createDimension("row", None)
        for variable, values in _variables(tile).items():
            stored = file.createVariable(variable, values.dtype, ("row",), compression="zlib")
            if variable in ("x", "y", "elevation", "uncertainty"):
                stored.units = "metres"
            elif variable == "time":
                stored.units = UNITS
            stored[:] = values
    return directory / name


def _variables(tile: pd.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    whole = {
        "time": np.rint(tile["time"].to_numpy().astype("datetime64[us]").astype("int64") / 1e6),
        "isSwath": tile["isSwath"].to_numpy(),
        "inputfileid": tile["inputfileid"].to_numpy(),
    }
    lengths = ("x", "y", "elevation", "uncertainty")
    return {name: tile[name].to_numpy("float32") for name in lengths} | {
        name: values.astype("int32") for name, values in whole.items()
    }
