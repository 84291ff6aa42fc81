"""Measurements of an altimeter on its passes over a world: positions, times, and errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryotile.simulate.orbit import Orbit
from cryotile.simulate.world import FLOATING, GROUNDED, SURVEYED, World

__all__ = ["Crossing", "Flyover", "Mission", "Noise", "crossings", "fly", "pass_error"]

Floats = NDArray[np.float64]

COARSE = 1 / 1500  # of a revolution: 27 km on the ground
MARGIN = 30e3  # distance by which a coarse step may miss the bounds, m
FEWEST = 20  # echoes in a granule: one second


@dataclass(frozen=True)
class Noise:
    """Errors of the measurements.

    Attributes
    ----------
    white : float
        Standard deviation of each echo on flat ice, m; it doubles on a slope of 2 %.
    along_pass : float
        Standard deviation of the error shared by a pass, m.
    outlier_share, outlier_error : float
        Share of echoes on ice that are wrong but not flagged, and the standard deviation of their error, m.
    bad_share, bad_error : float
        Share of passes that are wrong as a whole, and the size of their error (up or down), m.
    lost_share : float
        Share of echoes whose height the product marks as invalid.
    ambiguous_share : float
        Share of SARIn echoes on ice placed on the wrong side of the track; their heights err by tens of metres.
    offset : float
        Standard deviation of the distance of echoes across the track, m.
    """

    white: float = 0.2
    along_pass: float = 0.08
    outlier_share: float = 0.005
    outlier_error: float = 5.0
    bad_share: float = 0.004
    bad_error: float = 5.0
    lost_share: float = 0.05
    ambiguous_share: float = 0.025
    offset: float = 1000.0


@dataclass(frozen=True)
class Crossing:
    """The part of an orbit over a world: its first and last phase, in fractions of a revolution."""

    number: int
    first: float
    last: float


@dataclass(frozen=True)
class Mission:
    """A satellite, its instrument, and the world below.

    Attributes
    ----------
    world : World
        The world below the satellite.
    orbit : Orbit
        Of the satellite.
    noise : Noise
        Of the instrument.
    seed : int
        Seed of all noise; not negative.
    lateral : tuple of float
        Distance of each laser beam left of the track, m; empty for a radar, whose echoes come from varying distances.
    """

    world: World
    orbit: Orbit
    noise: Noise
    seed: int = 0
    lateral: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Flyover:
    """The measurements of one crossing.

    Attributes
    ----------
    mission : Mission
        The mission of the crossing.
    number : int
        Of the orbit.
    beams : tuple of DataFrame
        One for a radar, six for ICESat-2; a row for each echo in order of time, with ``time`` (UTC);
        ``nadir_longitude``, ``nadir_latitude``, ``longitude``, ``latitude`` (degrees); ``x``, ``y`` (m); ``across`` (m,
        left of the track positive); ``azimuth`` (of flight, degrees from north); ``ascending``; ``surface_type`` (index
        into SURFACE_TYPES); ``reference`` (elevation by an old survey, m); ``elevation`` (as measured, m);
        ``uncertainty`` (m); ``lost``, ``ambiguous``, ``outlier`` (bool); ``power`` (dB).
    """

    mission: Mission
    number: int
    beams: tuple[pd.DataFrame, ...]


def crossings(mission: Mission, start: np.datetime64, stop: np.datetime64) -> list[Crossing]:
    """Return the crossings of the world that begin between two times, in order of time.

    All orbits are computed at once, but only at phases within the latitudes of the world: three years of CryoSat-2 over
    200 km take 0.1 s.

    Parameters
    ----------
    mission : Mission
        Satellite and world.
    start, stop : datetime64
        UTC; the second is excluded.

    Returns
    -------
    list of Crossing
        Their phases extend past the bounds by up to a coarse step.
    """
    world, orbit = mission.world, mission.orbit
    phases, leg = _near(world, orbit)
    numbers = np.arange(orbit.number(start), orbit.number(stop) + 1)
    inside = _within(world, *world.to_xy(*orbit.ground_track(numbers[:, None], phases)), MARGIN)
    # A crossing is a sequence of phases inside; it also ends at the end of the leg.
    goes_on = inside[:, 1:] & inside[:, :-1] & (leg[1:] == leg[:-1])
    begins, ends = inside.copy(), inside.copy()
    begins[:, 1:] &= ~goes_on
    ends[:, :-1] &= ~goes_on
    rows, firsts = np.nonzero(begins)
    lasts = np.nonzero(ends)[1]
    found = (
        Crossing(int(numbers[row]), phases[first] - COARSE, phases[last] + COARSE)
        for row, first, last in zip(rows, firsts, lasts, strict=True)
    )
    return [c for c in found if start <= orbit.time(c.number, np.array(c.first)) < stop]


def fly(mission: Mission, crossing: Crossing) -> Flyover | None:
    """Measure along one crossing; the noise of a pass depends on seed, orbit and direction alone.

    Parameters
    ----------
    mission : Mission
        Satellite and world.
    crossing : Crossing
        From :func:`crossings`.

    Returns
    -------
    Flyover or None
        None if fewer than 20 echoes are within the world's bounds.
    """
    track = _track(mission.world, mission.orbit, crossing)
    if len(track) < FEWEST:
        return None
    ascending = track["ascending"].to_numpy()
    down, up = (pass_error(mission, crossing.number, ascending=leg) for leg in (False, True))
    shared = np.where(ascending, up, down)
    beams = []
    for beam in range(max(1, len(mission.lateral))):
        random = _stream(mission.seed, crossing.number, int(ascending[0]), beam)
        if mission.lateral:
            echoes = _displace(mission.world, track, mission.lateral[beam], 0.0)
        else:
            echoes = _displace(mission.world, track, *_wander(random, len(track), mission.noise))
        beams.append(_measure(mission, echoes, shared, random))
    return Flyover(mission, crossing.number, tuple(beams))


def pass_error(mission: Mission, number: int, *, ascending: bool) -> float:
    """Return the error shared by all points of a pass.

    Parameters
    ----------
    mission : Mission
        Its noise gives the size of the error and the share of bad passes.
    number : int
        Of the orbit.
    ascending : bool
        Which of the two passes of the orbit.

    Returns
    -------
    float
        Metres, added to every elevation.
    """
    # Streams of echoes have one number more in their key, so this stream differs from them.
    random = _stream(mission.seed, number, int(ascending))
    error = random.normal(0, mission.noise.along_pass)
    if random.random() < mission.noise.bad_share:
        error += random.choice((-1.0, 1.0)) * mission.noise.bad_error
    return float(error)


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _near(world: World, orbit: Orbit) -> tuple[Floats, NDArray[np.int64]]:
    """Return coarse phases within the latitudes of the world, and the leg (unbroken sequence) of each."""
    x_min, y_min, x_max, y_max = world.bounds
    grid = np.meshgrid(np.linspace(x_min, x_max, 33), np.linspace(y_min, y_max, 33))
    _, latitudes = world.to_degrees(*grid)
    phases = np.arange(0, 1, COARSE)
    _, latitude = orbit.ground_track(0, phases)
    near = (latitude > latitudes.min() - 0.5) & (latitude < latitudes.max() + 0.5)
    return phases[near], np.cumsum(np.diff(np.flatnonzero(near), prepend=-2) != 1)


def _within(world: World, x: Floats, y: Floats, margin: float) -> NDArray[np.bool_]:
    x_min, y_min, x_max, y_max = world.bounds
    return (x > x_min - margin) & (x < x_max + margin) & (y > y_min - margin) & (y < y_max + margin)


def _track(world: World, orbit: Orbit, crossing: Crossing) -> pd.DataFrame:
    """Return nadir at every measurement within the bounds; measurements are counted from the node."""
    step = orbit.interval / orbit.period
    records = np.arange(int(crossing.first / step), int(crossing.last / step) + 1)
    phase = records.astype(np.float64) * step
    longitude, latitude = orbit.ground_track(crossing.number, phase)
    x, y = world.to_xy(longitude, latitude)
    track = pd.DataFrame(
        {
            "time": orbit.time(crossing.number, phase),
            "nadir_longitude": longitude,
            "nadir_latitude": latitude,
            "x": x,
            "y": y,
            "azimuth": _azimuth(longitude, latitude),
            "ascending": np.cos(2 * np.pi * phase) > 0,
        }
    )
    inside = np.flatnonzero(_within(world, x, y, 0.0))
    return track.iloc[inside[0] : inside[-1] + 1] if len(inside) else track.iloc[:0]


def _azimuth(longitude: Floats, latitude: Floats) -> Floats:
    """Return the direction of flight, degrees clockwise from north."""
    east = np.diff(np.unwrap(longitude, period=360)) * np.cos(np.radians(latitude[1:]))
    azimuth = np.degrees(np.arctan2(east, np.diff(latitude)))
    return np.append(azimuth, azimuth[-1])


def _wander(random: np.random.Generator, count: int, noise: Noise) -> tuple[Floats, Floats]:
    """Draw the distances of echoes left of and along the track, m; those across are smooth along the track."""
    smooth = np.convolve(random.normal(size=count + 20), np.hanning(23)[1:-1], mode="valid")
    spread = np.sqrt(np.sum(np.hanning(23) ** 2))
    return noise.offset * smooth / spread, random.normal(0, noise.offset / 10, count)


def _displace(
    world: World, track: pd.DataFrame, across: Floats | float, ahead: Floats | float
) -> pd.DataFrame:
    """Move positions from nadir to those of the echoes."""
    x, y = track["x"].to_numpy(), track["y"].to_numpy()
    forward = np.gradient(x) + 1j * np.gradient(y)
    forward /= np.abs(forward)
    place = x + 1j * y + forward * (ahead + 1j * np.asarray(across))
    longitude, latitude = world.to_degrees(place.real, place.imag)
    return track.assign(
        x=place.real, y=place.imag, longitude=longitude, latitude=latitude, across=across
    )


def _measure(
    mission: Mission, echoes: pd.DataFrame, shared: Floats, random: np.random.Generator
) -> pd.DataFrame:
    """Draw the measurement of each echo."""
    world, noise = mission.world, mission.noise
    count = len(echoes)
    x, y, time = (echoes[name].to_numpy() for name in ("x", "y", "time"))
    kind = world.surface_type(x, y)
    ice = np.isin(kind, (GROUNDED, FLOATING))
    white = noise.white * (1 + world.slope(x, y) / 0.02)
    outlier = ice & (random.random(count) < noise.outlier_share)
    # Nearly all echoes from a calm sea are ambiguous, as in the real product.
    at_sea = 0.95 if noise.ambiguous_share else 0.0
    ambiguous = random.random(count) < np.where(ice, noise.ambiguous_share, at_sea)
    lost = random.random(count) < noise.lost_share
    error = shared + random.normal(size=count) * white
    error += outlier * random.normal(0, noise.outlier_error, count)
    error += ambiguous * random.choice((-1, 1), count) * random.uniform(55, 150, count)
    error += lost * random.normal(0, 30, count)
    return echoes.assign(
        surface_type=kind,
        reference=world.elevation(x, y, SURVEYED),
        elevation=world.elevation(x, y, time) + error,
        uncertainty=np.hypot(white, noise.along_pass),
        lost=lost,
        ambiguous=ambiguous,
        outlier=outlier,
        power=random.normal(6, 4, count),
    )
