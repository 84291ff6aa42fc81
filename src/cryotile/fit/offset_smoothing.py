"""Offsets of platforms and modes that vary slowly in space, from the noisy offsets of the posts of a run.

Each post of a run with the term ``platform_offset`` or ``mode_offset`` has offsets of its own, with sigmas.  The field
is their mean under Gaussian weights of distance, each post weighted by 1 / (σ² + τ²), where τ² is the variance by which
posts differ from the field beyond their sigmas (as between studies in a meta-analysis, DerSimonian and Laird 1986, but
from medians, which a few bad posts do not move).  Twice the mean less that of the double variance of distances does not
flatten the field to second order (a kernel of fourth order).  A second run takes the field from its points, and ties
what is left of the offsets by a prior of that size: empirical Bayes, without a matrix over posts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.fit.config import FitConfig
from cryotile.fit.offset_field import OffsetField
from cryotile.fit.variables import Status
from cryotile.points import MODES

__all__ = ["smooth_offsets"]

RADII = 3.0
"""Scale of the Gaussian weights, search radii: most posts within it share no point, and steps between missions vary
over longer distances."""

CELLS_PER_SCALE = 4
"""Cells of the field along that scale."""

LEAST_SIZE = 1e-3
"""Metres; the least size of the prior on what is left of an offset."""

_Floats = npt.NDArray[np.float64]


def smooth_offsets(maps: xr.Dataset, config: FitConfig, source: str) -> OffsetField:
    """Return the smooth field of the offsets of a run.

    Parameters
    ----------
    maps : Dataset, dimensions (y, x)
        Maps of a run with the term ``platform_offset`` or ``mode_offset``.
    config : FitConfig
        Settings of its fit.
    source : str
        Path of the run, as the user named it.

    Raises
    ------
    InvalidValue
        No post tells an offset.
    """
    x, y, radius = maps["x"].to_numpy(), maps["y"].to_numpy(), config.radius
    posting = float(x[1] - x[0]) if x.size > 1 else radius
    step = max(RADII * radius / CELLS_PER_SCALE, posting)
    nodes_y, nodes_x = (np.arange(axis[0] - step, axis[-1] + 2 * step, step) for axis in (y, x))
    rows, columns = (
        np.rint((axis - nodes[0]) / step).astype(int)
        for axis, nodes in ((y, nodes_y), (x, nodes_x))
    )
    # Circles of neighbouring posts overlap, so that they tell less than as many posts apart.
    overlap = max(1.0, math.pi * radius**2 / posting**2)
    values, sizes = dict[tuple[str, str], _Floats](), dict[str, float]()
    fitted = (maps["status"] == Status.OK).to_numpy()
    at = tuple(place[fitted] for place in np.meshgrid(rows, columns, indexing="ij", copy=False))
    for term, (column, words) in _categories(config).items():
        known = _known(maps, term, words, fitted)
        for word, base in _steps(known):
            sums = _Sums(at, (nodes_y.size, nodes_x.size), RADII * radius / step)
            field, size = sums.smooth(*_differences(known[word], known[base]), overlap)
            values[column, word] = field + values.get((column, base), 0.0)
            sizes[term] = max(size, sizes.get(term, LEAST_SIZE))
    if not values:
        raise InvalidValue(
            f"no post of {source} tells an offset of platforms or modes; plan it with the term platform_offset, on"
            " points of two missions"
        )
    return OffsetField(nodes_x, nodes_y, values, sizes, source)


def _categories(config: FitConfig) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return term → column of points, and its words."""
    known = {"platform_offset": ("platform", config.platforms), "mode_offset": ("mode", MODES)}
    return {term: known[term] for term in config.terms if term in known}


_Known = tuple[_Floats, _Floats]
"""Offsets and their sigmas at fitted posts; NaN where unknown."""


def _known(
    maps: xr.Dataset, term: str, words: Sequence[str], fitted: npt.NDArray[np.bool_]
) -> dict[str, _Known]:
    """Return the offsets of each word that some fitted post tells; one variable of the maps is read at a time."""
    known = {}
    for word in words:
        name = f"{term}_{word.replace('-', '_')}"
        value, sigma = (maps[name + end].to_numpy()[fitted] for end in ("", "_sigma"))
        good = np.isfinite(value) & (sigma > 0)
        if good.any():
            known[word] = np.where(good, value, np.nan), np.where(good, sigma, np.nan)
    return known


def _steps(known: Mapping[str, _Known]) -> list[tuple[str, str]]:
    """Return pairs of a word and one that comes before it, with which it shares the most posts.

    A word need not share a post with the most frequent one, to which the pairs lead.  Words that share no post with it
    by any way lead to the most frequent one of their own.
    """
    there = {word: np.isfinite(value) for word, (value, _) in known.items()}
    rest = sorted(known, key=lambda word: -np.count_nonzero(there[word]))
    shared = {(a, b): np.count_nonzero(there[a] & there[b]) for a in known for b in known}
    before, steps = list[str](), list[tuple[str, str]]()
    while rest:
        pairs = [(word, base) for word in rest for base in before if shared[word, base]]
        word = rest[0]
        if pairs:
            word, base = max(pairs, key=lambda pair: shared[pair])
            steps.append((word, base))
        before.append(word)
        rest.remove(word)
    return steps


def _differences(of: _Known, base: _Known) -> _Known:
    """Return the offsets of one word relative to another, and their sigmas."""
    # Codes of two categories are opposite: the sigma of their difference is the sum.  Of more it is at most that.
    return of[0] - base[0], of[1] + base[1]


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over posts near each node, under Gaussian weights of distance.

    Attributes
    ----------
    places : sequence of two ndarrays, shape (posts,)
        Row and column of the node nearest to each fitted post.
    shape : (int, int)
        Of the nodes.
    scale : float
        Of the weights, in nodes.
    """

    places: Sequence[npt.NDArray[np.int64]]
    shape: tuple[int, int]
    scale: float

    def near(self, at: tuple[npt.NDArray[np.int64], ...], terms: _Floats, scale: float) -> _Floats:
        """Return the sum at each node; a post at the node counts fully."""
        from scipy.ndimage import gaussian_filter

        sums = np.zeros(self.shape)
        np.add.at(sums, at, terms)
        filtered: _Floats = gaussian_filter(sums, scale, mode="constant", truncate=6)
        return 2 * math.pi * scale**2 * filtered

    def mean(
        self, at: tuple[npt.NDArray[np.int64], ...], value: _Floats, weight: _Floats, scale: float
    ) -> tuple[_Floats, _Floats]:
        """Return the mean at each node, and its sum of weights."""
        near, product = self.near(at, weight, scale), self.near(at, weight * value, scale)
        # Far from all posts, the mean of all holds.
        whole, least = float(weight @ value / weight.sum()), 1e-3 * float(np.median(near[at]))
        return (product + least * whole) / (near + least), near

    def smooth(self, value: _Floats, sigma: _Floats, overlap: float) -> tuple[_Floats, float]:
        """Return the field of one category, and the size of what is left of it at a post."""
        good = np.isfinite(value)
        at = tuple(place[good] for place in self.places)
        value, variance, extra = value[good], sigma[good] ** 2, 0.0
        # A sigma from few passes is itself uncertain: no post weighs more than four typical ones.
        usual = float(np.median(variance))
        variance = np.maximum(variance, usual / 4)
        for _ in range(3):
            weight = 1 / (variance + extra)
            narrow, near = self.mean(at, value, weight, self.scale)
            wide, _ = self.mean(at, value, weight, math.sqrt(2) * self.scale)
            field = 2 * narrow - wide
            left = value - field[at]
            extra = max(0.0, (1.4826 * float(np.median(np.abs(left)))) ** 2 - usual)
        # Its variance is some twice that of the narrow mean, and twice that again since passes cross many posts.
        return field, math.sqrt(extra + float(np.median(4 * overlap / near[at])))
