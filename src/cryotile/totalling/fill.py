"""Rates for the posts without a fit, and what the sum of them knows.

Each fill is a weighted mean of the rates of fitted posts.  So the error of a filled sum is a weighted sum of rates
whose weights add up to 0, and its variance follows from the variogram of the rates alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from cryotile.errors import InvalidValue
from cryotile.geo.dem import Dem
from cryotile.totalling.posts import Posts
from cryotile.totalling.sigma import Estimate, Variogram, pooled

__all__ = ["FILLS", "Filled", "fill"]

FILLS = ("none", "hypsometric", "neighbours")

BAND = 100.0
"""Height of a band, m."""

FEWEST = 5
"""Fitted posts of a band, below which the band nearest in height is taken."""

NEIGHBOURS = 16
"""Fitted posts whose rates are averaged with weights 1/d²."""

FEWEST_OF_A_VARIOGRAM = 30
"""Fitted posts of a region, below which it has no variogram of its own."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Filled:
    """Rates of all posts that have one, and the variance of the filled part of each region's sum.

    Attributes
    ----------
    by : str
        One of :data:`FILLS`.
    rate : ndarray, shape (ny, nx)
        m yr-1: fitted, or filled; NaN where neither.
    filled : ndarray of bool, shape (ny, nx)
        Which are filled.
    estimates : tuple of Estimate, length regions + 1
        Of the sum over the filled posts of each region, m⁶ yr-2; the last of all regions.
    notes : tuple of str
        What was assumed, in sentences.
    """

    by: str
    rate: Array
    filled: npt.NDArray[np.bool_]
    estimates: tuple[Estimate, ...]
    notes: tuple[str, ...]


def fill(posts: Posts, by: str, dem: Path | None = None) -> Filled:
    """Fill the wanted posts that have no fit.

    Parameters
    ----------
    posts : Posts
        The map.
    by : str
        ``none``; ``hypsometric``, the median rate of the region's fitted posts in bands of 100 m of height; or
        ``neighbours``, the mean of the nearest 16 fitted posts with weights 1/d².
    dem : Path or None
        Elevation model, for ``hypsometric``.

    Raises
    ------
    InvalidValue
        The fill is unknown, needs a DEM, or has one that it does not use.
    """
    if by not in FILLS:
        raise InvalidValue(f"fill {by!r} is unknown; choose one of {', '.join(FILLS)}")
    if by == "hypsometric" and dem is None:
        raise InvalidValue(
            'fill="hypsometric" needs the height of posts without a fit, and these have none in the map;'
            ' give an elevation model: dem="FILE"'
        )
    if by != "hypsometric" and dem is not None:
        raise InvalidValue(f'dem="{dem}" serves fill="hypsometric" alone, not {by}; leave it out')
    if by == "none" or not posts.fitted.any():
        exact = (Estimate(0.0),) * (len(posts.regions.names) + 1)
        return Filled(by, posts.rate, np.zeros(posts.rate.shape, bool), exact, ())
    gaps = posts.wanted & ~posts.fitted
    if by == "neighbours":
        return _neighbours(posts, gaps)
    assert dem is not None
    return _hypsometric(posts, gaps, dem)


def _hypsometric(posts: Posts, gaps: npt.NDArray[np.bool_], path: Path) -> Filled:
    height = np.full(posts.rate.shape, np.nan)
    height[posts.wanted] = Dem(path, posts.crs).heights(*posts.positions(posts.wanted))
    rate, residual = posts.rate.copy(), np.full(posts.rate.shape, np.nan)
    # The area that takes the rate of each fitted post, less the area of each filled one.
    weights, other_band, offs = np.zeros(posts.rate.shape), 0.0, []
    for own in _each_region(posts):
        # Of the region alone: indexing the whole map for each band of each region takes minutes.
        places = np.flatnonzero(own & np.isfinite(height))
        z, fitted = height.flat[places], posts.fitted.flat[places]
        source, bands = _bands(z, fitted)
        known = places[fitted]
        lag = height.flat[known] - height.flat[known].mean() if len(known) else np.empty(0)
        slope = _slope(lag, posts.rate.flat[known])
        residual.flat[known] = posts.rate.flat[known] - slope * lag
        off = 0.0
        for level in np.unique(source[source >= 0]):
            given, taken = places[fitted & (bands == level)], places[~fitted & (source == level)]
            rates, area = posts.rate.flat[given], posts.area.flat[taken]
            rate.flat[taken] = median = np.median(rates)
            weights.flat[taken], weights.flat[given] = -area, area.sum() / len(given)
            above = height.flat[taken] - height.flat[given].mean()
            off += float((area * (median - rates.mean() - slope * above)).sum())
        offs.append(off)
        far = ~fitted & (source >= 0) & (source != bands)
        other_band += float(posts.area.flat[places[far]].sum())
    filled = gaps & np.isfinite(rate)
    notes = []
    if other_band:
        notes.append(
            f"{other_band / 1e6:,.0f} km2 lie in bands of height with fewer than {FEWEST} fitted posts, and take the"
            " median of the nearest band"
        )
    left = float(posts.area[gaps & ~filled].sum())
    if left:
        notes.append(
            f"{left / 1e6:,.0f} km2 are not filled: the DEM has no height there, or their basin no fit"
        )
    spread = _Spread(posts, residual, lost=2)
    regions = [spread.of(own, np.where(own, weights, 0.0)) for own in _each_region(posts)]
    estimates = tuple(
        Estimate(one.variance + off**2, one.dof)
        for one, off in zip(spread.with_all(regions, weights), [*offs, sum(offs)], strict=True)
    )
    return Filled("hypsometric", rate, filled, estimates, tuple(notes))


def _bands(
    height: Array, fitted: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the band whose median each post takes, -1 if there is none, and its own band; counted from the lowest."""
    if not len(height):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    own = np.floor(height / BAND).astype(np.int64)
    own -= own.min()
    count = np.bincount(own[fitted], minlength=own.max() + 1)
    levels = np.flatnonzero(count >= FEWEST)
    if not len(levels):
        return np.full(len(own), -1), own
    nearest = levels[np.abs(np.arange(len(count))[:, None] - levels).argmin(axis=1)]
    return nearest[own], own


def _slope(lag: Array, rate: Array) -> float:
    """Return the change of the rate with height above the mean, by least squares; 0 for a single height."""
    spread = float((lag**2).sum())
    return float((lag * rate).sum()) / spread if spread else 0.0


def _neighbours(posts: Posts, gaps: npt.NDArray[np.bool_]) -> Filled:
    # Fits of other basins and beside all basins are neighbours, too.
    fitted = np.isfinite(posts.rate)
    given, rates = np.column_stack(posts.positions(fitted)), posts.rate[fitted]
    tree, count = cKDTree(given), min(NEIGHBOURS, len(given))
    rate, weights, farthest = posts.rate.copy(), np.zeros(posts.rate.shape), 0.0
    spread, regions = _Spread(posts, posts.rate), []
    for own in _each_region(posts):
        taken, carried = gaps & own, np.zeros(posts.rate.shape)
        if taken.any():
            places = np.column_stack(posts.positions(taken))
            distance, nearest = tree.query(places, k=range(1, count + 1))
            farthest = max(farthest, float(distance[:, 0].max()))
            share = distance**-2.0
            share /= share.sum(axis=1, keepdims=True)
            rate[taken] = (share * rates[nearest]).sum(axis=1)
            area = (share * posts.area[taken][:, None]).ravel()
            carried[fitted] = np.bincount(nearest.ravel(), area, minlength=len(given))
            carried[taken] = -posts.area[taken]
        weights += carried
        regions.append(spread.of(own, carried))
    note = f"the farthest filled post is {farthest / 1e3:,.1f} km from a fitted one"
    estimates = spread.with_all(regions, weights)
    return Filled("neighbours", rate, gaps, estimates, (note,) if farthest else ())


class _Spread:
    """How rates differ over a map, and what that means for sums of filled rates.

    The variance of a region follows from its own variogram, or from that of the map where that is larger: a region with
    few independent places underestimates its own variability.

    Parameters
    ----------
    posts : Posts
        The map.
    values : ndarray, shape (ny, nx)
        Rates, or residuals of them, m yr-1; NaN where there is none.
    lost : int
        Number of coefficients that were fitted to the values before.
    """

    def __init__(self, posts: Posts, values: Array, lost: int = 0) -> None:
        self._posts, self._values, self._lost = posts, values, lost
        self._whole = self._variogram(posts.wanted)

    def of(self, own: npt.NDArray[np.bool_], weights: Array) -> Estimate:
        """Return the variance of the weighted sum of the rates of a region."""
        if self._whole is None:
            return Estimate(np.nan)
        posting = self._posts.grid.posting
        return max(
            (
                variogram.estimate(weights, posting, area, self._lost)
                for variogram, area in (self._variogram(own) or self._whole, self._whole)
            ),
            key=lambda one: one.variance,
        )

    def with_all(self, regions: Sequence[Estimate], weights: Array) -> tuple[Estimate, ...]:
        """Return the variances of the regions and that of all, which is at least their sum.

        One variogram for all knows less of an uneven map, and those of the regions nothing of a gap across several.
        """
        whole = [self.of(self._posts.wanted, weights), pooled([*regions])]
        return (*regions, max(whole, key=lambda one: one.variance))

    def _variogram(self, own: npt.NDArray[np.bool_]) -> tuple[Variogram, float] | None:
        known = own & np.isfinite(self._values)
        if known.sum() < FEWEST_OF_A_VARIOGRAM:
            return None
        x, y = self._posts.positions(known)
        variogram = Variogram.fit(x, y, self._values[known], self._posts.grid.posting)
        return variogram, float(self._posts.area[known].sum())


def _each_region(posts: Posts) -> Iterator[npt.NDArray[np.bool_]]:
    for k in range(len(posts.regions.names)):
        yield posts.wanted & (posts.regions.number == k)
