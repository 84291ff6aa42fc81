"""An invented ice cap whose elevation change is known everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyproj
from numpy.typing import NDArray

from cryotile.errors import InvalidValue
from cryotile.points import SURFACE_TYPES, Bounds
from cryotile.times import SECONDS_PER_YEAR

__all__ = ["World"]

Floats = NDArray[np.float64]

OCEAN, GROUNDED, FLOATING, LAND = map(
    SURFACE_TYPES.index, ("ocean", "grounded_ice", "floating_ice", "ice_free_land")
)

SURVEYED = np.datetime64("2012-07-01T00:00:00", "us")
"""Time of the reference elevation, at which the accumulated change is 0."""

SEA_LEVEL = 28.0  # m above the ellipsoid
FREEBOARD = 20.0  # height of floating ice above the sea, m
LAND_HEIGHT = 55.0  # height of ice-free land above the sea, m
ICE_FRONT = 60.0  # height of grounded ice at its margin above the sea, m
SLOPE = 0.011  # rise of the dome over its radius, m/m
UNDULATIONS = ((4.0, 31e3, 20.0), (3.0, 26e3, 95.0), (3.5, 37e3, 150.0))  # m, wavelength m, degrees

THICKENING = 0.15  # rate of the interior, m/yr
MARGIN_THINNING = -0.30  # along the whole margin, m/yr


class Outlet(NamedTuple):
    """A glacier that drains the cap; lengths in radii of the cap."""

    azimuth: float  # degrees anticlockwise from x
    rate: float  # m/yr at its front
    width: float
    head: float  # distance from the centre to the upper end of its thinning


OUTLETS = (
    Outlet(35.0, -2.8, 0.13, 0.62),
    Outlet(78.0, -0.8, 0.09, 0.80),
    Outlet(125.0, -1.3, 0.16, 0.72),
    Outlet(200.0, -1.9, 0.11, 0.66),
    Outlet(262.0, -1.0, 0.20, 0.75),
    Outlet(322.0, -1.6, 0.10, 0.70),
)


@dataclass(frozen=True)
class World:
    """An ice cap in a sea, with thinning glaciers at its margin, and its true elevation.

    The cap fills `bounds` except for a rim of ocean, some ice-free land and one floating tongue; its size follows
    `bounds`.  Within a search radius of 2 km its surface departs from its tangent plane by about half a metre.

    Attributes
    ----------
    crs : str
        A projected CRS in metres, near a pole.
    bounds : tuple of float
        Edges of the world, ``(x_min, y_min, x_max, y_max)``, m.
    seasonal : float
        Amplitude of a yearly cycle of all ice surfaces about their trend, highest on 1 January, m.
    lrm_radius : float
        The altimeter is in LRM within this distance of the cap's centre, in SARIn elsewhere, m.  Small caps are
        wholly in the SARIn mask, hence 0.

    Raises
    ------
    InvalidValue
        If `bounds` are reversed or not finite.
    """

    crs: str = "EPSG:3413"
    bounds: Bounds = (-90e3, -1440e3, 90e3, -1260e3)
    seasonal: float = 0.0
    lrm_radius: float = 0.0

    def __post_init__(self) -> None:
        x_min, y_min, x_max, y_max = self.bounds
        if not (np.isfinite(self.bounds).all() and x_min < x_max and y_min < y_max):
            raise InvalidValue(
                f"bounds of the world {self.bounds} are not x_min < x_max, y_min < y_max in metres: "
                "give them as x_min, y_min, x_max, y_max"
            )

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the cap: x and y, m."""
        x_min, y_min, x_max, y_max = self.bounds
        return (x_min + x_max) / 2, (y_min + y_max) / 2

    @property
    def radius(self) -> float:
        """Mean distance of the margin from the centre, m."""
        x_min, y_min, x_max, y_max = self.bounds
        return 0.44 * min(x_max - x_min, y_max - y_min)

    def dhdt(self, x: Floats | float, y: Floats | float) -> Floats:
        """Return the true rate of elevation change.

        Parameters
        ----------
        x, y : ndarray
            Projected, m; any shape.

        Returns
        -------
        ndarray, shape of `x`
            m/yr (of 31 557 600 s); 0 on ocean and land, and a tenth of the change of thickness where ice floats.
        """
        position = self._relative(x, y)
        rate = THICKENING + (MARGIN_THINNING - THICKENING) * np.minimum(_level(position), 1.5) ** 2
        for outlet in OUTLETS:
            along, across = _axes(position, outlet)
            reached = 1 / (1 + np.exp((outlet.head - along) / 0.07))
            rate += outlet.rate * reached * np.exp(-((across / outlet.width) ** 2))
        moves: Floats = np.array([0.0, 1.0, 0.1, 0.0])[self.surface_type(x, y)]
        return rate * moves

    def elevation(
        self, x: Floats | float, y: Floats | float, time: NDArray[np.datetime64] | np.datetime64
    ) -> Floats:
        """Return the true elevation of the surface.

        Parameters
        ----------
        x, y : ndarray
            Projected, m; any shape.
        time : datetime64 or ndarray of datetime64
            UTC; broadcast against `x`.

        Returns
        -------
        ndarray, shape of `x`
            m above the WGS84 ellipsoid.
        """
        kind = self.surface_type(x, y)
        heights = np.array([0.0, ICE_FRONT, FREEBOARD, LAND_HEIGHT])
        years = (time - SURVEYED) / np.timedelta64(1, "s") / SECONDS_PER_YEAR
        season = (
            self.seasonal * np.cos(2 * np.pi * (years + 0.5)) * np.isin(kind, (GROUNDED, FLOATING))
        )
        dome = np.where(kind == GROUNDED, self._dome(x, y), 0.0)
        return SEA_LEVEL + heights[kind] + dome + self.dhdt(x, y) * years + season

    def slope(self, x: Floats | float, y: Floats | float) -> Floats:
        """Return the slope of grounded ice, m/m, from differences over 100 m; outside the cap, that of its formula."""
        step = 50.0
        right, left = self._dome(x + step, y), self._dome(x - step, y)
        up, down = self._dome(x, y + step), self._dome(x, y - step)
        return np.hypot(right - left, up - down) / (2 * step)

    def surface_type(self, x: Floats | float, y: Floats | float) -> NDArray[np.int8]:
        """Return the surface type, as a position in :data:`cryotile.points.SURFACE_TYPES`.

        Parameters
        ----------
        x, y : ndarray
            Projected, m; any shape.

        Returns
        -------
        ndarray of int8, shape of `x`
            Ocean, grounded ice, floating ice or ice-free land.
        """
        position = self._relative(x, y)
        level = _level(position)
        along, across = _axes(position, OUTLETS[0])
        tongue = (level < 1.25) & (along > 0) & (np.abs(across) < OUTLETS[0].width)
        inland, _ = _axes(position, Outlet(azimuth=155.0, rate=0.0, width=0.0, head=0.0))
        shore = (level < 1.2) & (inland > 0.75 * np.abs(position))
        kinds = np.select([level < 1, tongue, shore], [GROUNDED, FLOATING, LAND], OCEAN)
        return kinds.astype("int8")

    def low_resolution(self, x: Floats | float, y: Floats | float) -> NDArray[np.bool_]:
        """Return where the altimeter is in LRM rather than SARIn."""
        return np.asarray(np.abs(self._relative(x, y)) * self.radius < self.lrm_radius)

    def to_xy(self, longitude: Floats | float, latitude: Floats | float) -> tuple[Floats, Floats]:
        """Project degrees to metres."""
        x, y = _transformer(self.crs).transform(longitude, latitude)
        return x, y

    def to_degrees(self, x: Floats | float, y: Floats | float) -> tuple[Floats, Floats]:
        """Return longitude and latitude of projected metres."""
        longitude, latitude = _transformer(self.crs).transform(x, y, direction="INVERSE")
        return longitude, latitude

    def _relative(self, x: Floats | float, y: Floats | float) -> NDArray[np.complex128]:
        """Return the position relative to the centre, in radii of the cap, as a complex number."""
        right, up = np.asarray(x) - self.centre[0], np.asarray(y) - self.centre[1]
        return np.asarray((right + 1j * up) / self.radius)

    def _dome(self, x: Floats | float, y: Floats | float) -> Floats:
        """Return the height above the ice front, m: a parabola over the lobed margin, and long undulations."""
        height = SLOPE * self.radius * (1 - _level(self._relative(x, y)))
        for amplitude, wavelength, azimuth in UNDULATIONS:
            angle = np.radians(azimuth)
            along = (x - self.centre[0]) * np.cos(angle) + (y - self.centre[1]) * np.sin(angle)
            height = height + amplitude * np.sin(2 * np.pi * along / wavelength)
        return height


def _level(position: NDArray[np.complex128]) -> Floats:
    """Return 0 at the summit, 1 on the margin; harmonics make lobes without a kink at the centre."""
    lobes = 0.08 * np.exp(0.4j) * position**3 + 0.03 * np.exp(1j) * position**5
    return np.asarray(np.abs(position) ** 2 + lobes.real)


def _axes(position: NDArray[np.complex128], outlet: Outlet) -> tuple[Floats, Floats]:
    """Return the distances along and across an outlet's axis, radii."""
    turned = position * np.exp(-1j * np.radians(outlet.azimuth))
    return turned.real, turned.imag


@lru_cache(maxsize=8)
def _transformer(crs: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
