"""What a user chooses of a picture, and the part of the data that it shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyproj
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.geo.grid import check_bounds
from cryotile.maps.along import edges
from cryotile.plotting.colours import Shading
from cryotile.points import Bounds

__all__ = ["Look", "crs_of", "uncertainties", "within"]


@dataclass(frozen=True)
class Look:
    """What a user can choose of a picture; None: chosen from the data.

    Attributes
    ----------
    limits : (float, float) or None
        Values at the ends of the colour bar or axis.
    title : str or None
        Text above the picture.
    colour_map : str or None
        Name of a colour map of matplotlib or Crameri.
    bounds : Bounds or None
        Part to show, metres.
    size : float or None
        Longer side of a map or plot, inches.
    hatch : bool
        Whether to hatch where ``dhdt_ci95`` exceeds the rate.
    line : (float, float, float, float) or None
        x and y of the start and of the end of a section, m.
    lonlat : bool
        Whether the line is in degrees: longitude, latitude.
    """

    limits: tuple[float, float] | None = None
    title: str | None = None
    colour_map: str | None = None
    bounds: Bounds | None = None
    size: float | None = None
    hatch: bool = False
    line: tuple[float, float, float, float] | None = None
    lonlat: bool = False

    def __post_init__(self) -> None:
        import matplotlib as mpl

        if self.colour_map is not None and self.colour_map not in mpl.colormaps:
            raise InvalidValue(
                f"colour map {self.colour_map!r} is unknown; give one of matplotlib or Crameri, e.g. cmc.vik_r"
            )

        if self.limits is not None and not -math.inf < self.limits[0] < self.limits[1] < math.inf:
            raise InvalidValue(
                f"range {self.limits[0]:g} {self.limits[1]:g} is not two numbers, the lower one first; give e.g. -1 1"
            )
        if self.size is not None and not 1.0 <= self.size <= 40.0:
            raise InvalidValue(
                f"size {self.size:g} is not between 1 and 40 inches; 6 suits most maps"
            )

    @property
    def shading(self) -> Shading:
        """What it says of the colours."""
        return Shading(self.limits, self.colour_map)


def uncertainties(variable: str) -> tuple[str, str]:
    """Return the names that an uncertainty of a variable has, the best first."""
    return f"{variable}_ci95", f"{variable}_sigma"


def within(product: xr.Dataset, bounds: Bounds | None) -> xr.Dataset:
    """Return the posts within bounds.

    Raises
    ------
    InvalidValue
        There are none.
    """
    if bounds is None:
        return product
    check_bounds(bounds)
    part = product.sel(x=slice(bounds[0], bounds[2]), y=slice(bounds[1], bounds[3]))
    if not (part.sizes["x"] and part.sizes["y"]):
        raise InvalidValue(
            f"bounds {' '.join(f'{edge:g}' for edge in bounds)} contain no post; the posts are within"
            f" {edges(product)} m"
        )
    return part


def crs_of(product: xr.Dataset, variable: str) -> pyproj.CRS | None:
    """Return the CRS that the grid mapping or the attribute ``crs`` names; None if neither does."""
    attrs = product[variable].attrs | product[variable].encoding
    mapping = attrs.get("grid_mapping")
    if mapping in product.variables:
        return pyproj.CRS.from_cf(dict(product[mapping].attrs))
    named = attrs.get("crs", product.attrs.get("crs"))
    return None if named is None else pyproj.CRS.from_user_input(named)
