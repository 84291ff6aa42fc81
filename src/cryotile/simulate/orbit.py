"""Ground tracks of satellites: a circular orbit over a rotating Earth that repeats after a cycle.

After `revolutions` orbits the Earth has turned `rotations` times under the orbit plane, so each node is
``360° · rotations / revolutions`` west of the one before.  Real orbits differ by their eccentricity (about 15 km along
the track) and by manoeuvres; neither changes how tracks cover an ice sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CRYOSAT2", "ICESAT2", "Orbit"]

EARTH_GM = 3.986004418e14  # m³ s⁻²
EARTH_RADIUS = 6378137.0  # m
EARTH_J2 = 1.08263e-3
EARTH_SPIN = 7.2921159e-5  # rad s⁻¹
FLATTENING = 1 / 298.257223563
ECCENTRICITY2 = FLATTENING * (2 - FLATTENING)

Degrees = NDArray[np.float64]


@dataclass(frozen=True)
class Orbit:
    """A circular orbit whose ground track repeats.

    Orbits have the numbers of their agency, each from its ascending node; a phase is a fraction of a revolution.

    Attributes
    ----------
    inclination : float
        Degrees.
    revolutions, rotations : int
        Orbits in a repeat cycle, and turns of the Earth under the orbit plane in it.
    altitude : float
        Height above the equator, m.
    node : int
        An orbit whose ascending node is known.
    node_time : datetime64
        Time of that node, UTC.
    node_longitude : float
        Longitude of that node, degrees east.
    first : int
        Number of the first orbit of cycle 1.
    interval : float
        Time between two measurements, s.
    """

    inclination: float
    revolutions: int
    rotations: int
    altitude: float
    node: int
    node_time: np.datetime64
    node_longitude: float
    first: int
    interval: float

    @property
    def period(self) -> float:
        """Time between two ascending nodes, s.

        The plane precesses at −3/2 · J₂ · √(GM/a³) · (R/a)² · cos i (Kaula 1966), so the Earth turns once under
        it in slightly more or less than a sidereal day.
        """
        axis = EARTH_RADIUS + self.altitude
        motion = np.sqrt(EARTH_GM / axis**3)
        flattening = -1.5 * EARTH_J2 * (EARTH_RADIUS / axis) ** 2
        precession = flattening * motion * np.cos(np.radians(self.inclination))
        turn = 2 * np.pi / (EARTH_SPIN - precession)
        return float(self.rotations * turn / self.revolutions)

    def time(self, number: int, phase: NDArray[np.float64]) -> NDArray[np.datetime64]:
        """Return the time at a phase of an orbit.

        Parameters
        ----------
        number : int
            Orbit.
        phase : ndarray
            Fractions of a revolution after the ascending node.

        Returns
        -------
        ndarray of datetime64[us], shape of `phase`
            UTC; leap seconds since the known node are ignored.
        """
        seconds = (number - self.node + phase) * self.period
        return self.node_time + np.rint(1e6 * seconds).astype("timedelta64[us]")

    def number(self, time: np.datetime64) -> int:
        """Return the number of the orbit on which the satellite is at a time (UTC)."""
        seconds = (time - self.node_time) / np.timedelta64(1, "s")
        return self.node + int(np.floor(seconds / self.period))

    def cycle(self, number: int) -> tuple[int, int]:
        """Return the repeat cycle of an orbit and its number in the cycle, both counted from 1."""
        cycle, relative = divmod(number - self.first, self.revolutions)
        return cycle + 1, relative + 1

    def ground_track(
        self, number: NDArray[np.int64] | int, phase: NDArray[np.float64]
    ) -> tuple[Degrees, Degrees]:
        """Return nadir on the WGS84 ellipsoid.

        Parameters
        ----------
        number : int or ndarray of int
            Orbits; broadcast against `phase`.
        phase : ndarray
            Fractions of a revolution after the ascending node.

        Returns
        -------
        longitude, latitude : ndarray
            Degrees; longitude in [−180, 180).
        """
        angle = 2 * np.pi * phase
        tilt = np.radians(self.inclination)
        geocentric = np.arcsin(np.sin(tilt) * np.sin(angle))
        ahead = np.degrees(np.arctan2(np.cos(tilt) * np.sin(angle), np.cos(angle)))
        # Whole revolutions are reduced modulo the cycle in integers, so that a repeat is exact.
        turns = (np.asarray(number) - self.node) * self.rotations % self.revolutions
        behind = 360 / self.revolutions * (turns + self.rotations * phase)
        longitude = (self.node_longitude + ahead - behind + 180) % 360 - 180
        # tan(geocentric) = tan(geodetic) · (1 − e² N/(N + h)) of a point at height h above nadir, with N ≈ R.
        squeeze = 1 - ECCENTRICITY2 * EARTH_RADIUS / (EARTH_RADIUS + self.altitude)
        latitude = np.degrees(np.arctan(np.tan(geocentric) / squeeze))
        return np.broadcast_arrays(longitude, latitude)  # type: ignore[return-value]

    def height(self, latitude: Degrees) -> NDArray[np.float64]:
        """Return the height of the satellite above the ellipsoid, m, at the `latitude` of nadir, degrees."""
        return self.altitude + EARTH_RADIUS * FLATTENING * np.sin(np.radians(latitude)) ** 2


CRYOSAT2 = Orbit(
    inclination=92.0,
    revolutions=5344,
    rotations=369,
    altitude=717e3,
    node=48078,
    node_time=np.datetime64("2019-05-04T11:18:32.077230", "us"),
    node_longitude=-23.247818,
    first=-6956,
    interval=0.0463,
)
"""CryoSat-2 before its manoeuvres of 2020: 369 turns of the Earth are 368.24 days, nodes 7.5 km apart at the equator.

All modes have the interval of SARIn.  Cycle and relative orbit number agree with the granules of 2015; later cycle
numbers of the agency do not follow whole repeats.
"""

ICESAT2 = Orbit(
    inclination=92.0,
    revolutions=1387,
    rotations=91,
    altitude=496e3,
    node=2 * 1387 + 1161,
    node_time=np.datetime64("2019-06-13T06:35:37.602250", "us"),
    node_longitude=-38.541331,
    first=1,
    interval=20.0 / 7074.0,
)
"""ICESat-2: 1387 reference ground tracks in 91 turns of the Earth, a segment every 20 m.

An orbit's number is 1387 · (cycle − 1) + reference ground track.
"""
