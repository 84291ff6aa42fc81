"""The posts of a product that a total is made of: area, rate and region of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cryotile.errors import InvalidValue, command
from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid
from cryotile.geo.projection import projected_crs
from cryotile.geo.regions import WHOLE, Regions

__all__ = ["PassDeltas", "Posts", "deltas_of"]

Array = npt.NDArray[np.float64]

SAME = 1e-6
"""Largest relative difference between the sum over a map and that of its run: only the order of adding differs."""


@dataclass(frozen=True, eq=False)
class Posts:
    """Area, rate and region of every post of a map.

    Attributes
    ----------
    regions : Regions
        With the grid.
    area : ndarray, shape (ny, nx)
        True area of the square around each post, m².
    rate, sigma : ndarray, shape (ny, nx)
        ``dhdt`` and ``dhdt_sigma``, m yr-1; NaN without a fit.
    wanted : ndarray of bool, shape (ny, nx)
        In a region, and not outside the mask of the run.
    """

    regions: Regions
    area: Array
    rate: Array
    sigma: Array
    wanted: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, product: xr.Dataset, basins: Path, column: str) -> Posts:
        """Return the posts of a product in the regions of a file.

        Parameters
        ----------
        product : Dataset, dimensions (y, x)
            As of :func:`cryotile.open`.
        basins : Path
            Vector file of the regions.
        column : str
            Its column that names them.

        Raises
        ------
        InvalidValue
            The dataset is not a product with rates, or the regions break a rule of :meth:`Regions.read`.
        """
        needed = ("dhdt", "dhdt_sigma", "cell_area", "status")
        missing = [name for name in needed if name not in product]
        if missing or not {"crs", "posting"} <= {*product.attrs}:
            what = f"no {missing[0]}" if missing else "no crs or posting"
            raise InvalidValue(
                f"the map has {what}; give a run, or a product made with: {command('assemble', 'RUN', '-o', 'dhdt.nc')}"
            )
        x, y = (product[name].to_numpy() for name in ("x", "y"))
        bounds = float(x[0]), float(y[0]), float(x[-1]), float(y[-1])
        grid = Grid(str(product.attrs["crs"]), bounds, float(product.attrs["posting"]))
        regions = Regions.read(basins, column, grid)
        rate, sigma, area, status = (product[name].to_numpy() for name in needed)
        return cls(
            regions,
            area.astype(np.float64),
            np.where(status == Status.OK, rate, np.nan),
            np.where(status == Status.OK, sigma, np.nan),
            (regions.number >= 0) & (status != Status.OUTSIDE_MASK),
        )

    @property
    def grid(self) -> Grid:
        """The posts' grid."""
        return self.regions.grid

    @property
    def crs(self) -> pyproj.CRS:
        """CRS of the grid."""
        return projected_crs(self.grid.crs)

    @cached_property
    def fitted(self) -> npt.NDArray[np.bool_]:
        """Which wanted posts have a fit; ndarray of bool, shape (ny, nx)."""
        return self.wanted & np.isfinite(self.rate)

    def positions(self, chosen: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
        """Return x and y of some posts, m; two ndarrays, shape (chosen,)."""
        rows, columns = np.nonzero(chosen)
        return self.grid.x[columns], self.grid.y[rows]

    def sums(self, values: Array) -> Array:
        """Return the sums of a value of each post over the wanted posts of each region, and of all of them.

        Parameters
        ----------
        values : ndarray, shape (ny, nx)
            NaN counts as 0.

        Returns
        -------
        ndarray, shape (regions + 1,)
        """
        number = self.regions.number[self.wanted]
        found = np.nan_to_num(values[self.wanted].astype(np.float64))
        sums = np.bincount(number, found, minlength=len(self.regions.names))
        return np.append(sums, sums.sum())


@dataclass(frozen=True, eq=False)
class PassDeltas:
    """By how much the sum of each region changes when a pass is left out everywhere.

    Attributes
    ----------
    changes : ndarray, shape (regions + 1, passes), or None
        m³ yr-1; in the order of the regions, and of all of them; None: the product does not have them.
    reason : str
        Why it does not; empty if it does.
    """

    changes: Array | None
    reason: str


def deltas_of(product: xr.Dataset, posts: Posts) -> PassDeltas:
    """Return the deltas of a product that was planned with the same regions.

    Parameters
    ----------
    product : Dataset
        With ``region_delta(region, pass)`` and ``region_rate(region)``, if it was planned with regions.
    posts : Posts
        Of the product.

    Raises
    ------
    InvalidValue
        The sums that come with the deltas are not those of the map.
    """
    if "region_delta" not in product:
        return PassDeltas(None, "it was planned without basins")
    if product.attrs.get("regions_digest") != posts.regions.digest:
        return PassDeltas(None, "it was planned with other basins, or with another column of them")
    names = [str(name) for name in product["region"].to_numpy()]
    order = [names.index(name) for name in posts.regions.names]
    sums, own = product["region_rate"].to_numpy()[order], posts.sums(posts.rate * posts.area)[:-1]
    scale = posts.sums(np.abs(posts.rate) * posts.area)[:-1]
    for name, planned, found, size in zip(posts.regions.names, sums, own, scale, strict=True):
        if abs(planned - found) > SAME * size:
            raise InvalidValue(
                f"the rates of {name} add up to {found / 1e9:.9g} km3/yr, and the sums of the run to"
                f" {planned / 1e9:.9g}; the map was changed after assemble: assemble it again"
            )
    values = product["region_delta"].to_numpy()[order].astype(np.float64)
    return PassDeltas(np.vstack([values, values.sum(axis=0)]), "")


def region_names(regions: Regions) -> list[str]:
    """Return the names of the regions and of all of them together, in the order of sums."""
    return [*regions.names, WHOLE]
