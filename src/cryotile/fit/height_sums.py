"""Sums of heights over the posts of each region, by bin, and by how much each changes without a pass."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

if TYPE_CHECKING:
    from cryotile.fit.region_sums import RegionSums

__all__ = ["HeightSums", "RegionHeights", "packed_pairs"]

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]

_TYPES = {"row_region": "<i8", "row_pass": "<i8", "lost_row": "<i8", "lost_bin": "<i8"}

LEAST_REST = 1e-9
"""Share of the area with a height that other passes must have seen; below it lies what rounding leaves of 0."""


@dataclass(frozen=True, eq=False)
class HeightSums:
    """Sums over the posts of a rectangle that have a height in a bin.

    The departure of a post in a bin is its height less the straight line of its fit at the time of the height.

    Attributes
    ----------
    departures : ndarray, shape (k, bins)
        Σ area · departure of each region, m³.
    areas : ndarray, shape (k, bins)
        Σ area, m².
    row_region, row_pass : ndarray of int64, shape (rows,)
        Places, in the lists of :class:`RegionSums`, of the region and the pass that a row of ``changes`` is of.
    changes : ndarray, shape (rows, bins)
        Change of ``departures`` when the pass is left out everywhere, m³; a post that loses its only pass of a bin
        loses its departure.
    lost_row, lost_bin : ndarray of int64, shape (lost,)
        The row and the bin in which posts lose their departure.
    lost_area : ndarray, shape (lost,)
        Their area, m².
    """

    departures: _Floats
    areas: _Floats
    row_region: _Integers
    row_pass: _Integers
    changes: _Floats
    lost_row: _Integers
    lost_bin: _Integers
    lost_area: _Floats

    def packed(self) -> dict[str, str]:
        """Return texts, from which :meth:`unpacked` makes the same sums."""
        return {
            name: base64.b64encode(
                np.ascontiguousarray(getattr(self, name), _TYPES.get(name, "<f8")).tobytes()
            ).decode()
            for name in self.__dataclass_fields__
        }

    @classmethod
    def unpacked(cls, texts: Mapping[str, str], bins: int) -> HeightSums:
        """Return the sums of :meth:`packed`."""
        found: dict[str, npt.NDArray[Any]] = {
            name: np.frombuffer(base64.b64decode(text), _TYPES.get(name, "<f8"))
            for name, text in texts.items()
        }
        for name in ("departures", "areas", "changes"):
            found[name] = found[name].reshape(-1, bins)
        return cls(**found)


def packed_pairs(texts: Mapping[str, str]) -> tuple[_Integers, _Integers]:
    """Return ``row_region`` and ``row_pass`` of sums that are packed, without the others."""
    region, one = (
        np.frombuffer(base64.b64decode(texts[n]), "<i8") for n in ("row_region", "row_pass")
    )
    return region, one


class RegionHeights:
    """Heights of regions in bins, added up from tiles, with what they change by when a pass is left out everywhere.

    Parameters
    ----------
    sums : RegionSums
        Of all tiles.
    pairs : ndarray of int64
        Region times number of passes plus pass, of each row of a tile; in any order, and any number of times.
    middles : ndarray, shape (bins,)
        Years from the reference epoch.

    Notes
    -----
    The height of a region relative to the reference epoch is that of all its fitted posts,

        H_w = τ_w Σ a ḣ + (A / A_w) Σ_w a r_w,

    where τ_w is the middle of the bin w, ḣ the rate of a post, a its area, A = Σ a, and r_w = h_w − z − ḣ t_w the
    departure of its height at the time t_w of its passes from the straight line of its fit; Σ_w and A_w are over the
    posts with a height in w.  So a post whose passes are all at the start of a bin does not stand for its middle, and a
    post without a height has its own straight line and the mean departure of the others.

    Without the pass g the same formula holds with what is left.  Its change D_gw has the factor √(A_w(g) / A_w) in the
    mean departure, for the reason for which the change of a mean of n values by leaving out one has √(1 − 1/n): their
    squares then add up to the variance of the mean.  The covariance is Σ_g D_gw D_gx.  A bin has no height where one
    pass alone has seen it, because no other tells its error.
    """

    def __init__(self, sums: RegionSums, pairs: _Integers, middles: _Floats) -> None:
        self._sums, self._middles = sums, middles
        self._pairs = np.unique(pairs)
        count, bins = len(sums.rates), middles.size
        self._departures, self._areas = np.zeros((count, bins)), np.zeros((count, bins))
        self._changes = np.zeros((self._pairs.size, bins))
        self._lost: list[tuple[_Integers, _Integers, _Floats]] = []

    def add(self, part: HeightSums, regions: _Integers, passes: _Integers) -> None:
        """Add the sums of a tile, whose regions and passes have these numbers here."""
        self._departures[regions] += part.departures
        self._areas[regions] += part.areas
        pairs = regions[part.row_region] * self._sums.passes.size + passes[part.row_pass]
        rows = np.searchsorted(self._pairs, pairs)
        # A tile may see two parts of one pass.
        np.add.at(self._changes, rows, part.changes)
        self._lost.append((rows[part.lost_row], part.lost_bin, part.lost_area))

    def variables(self) -> xr.Dataset:
        """Return the heights as variables of a product."""
        count, bins = self._areas.shape
        total = self._sums.passes.size
        lost_row, lost_bin, lost_area = (
            np.concatenate([np.empty(0), *some]) for some in zip(*self._lost, strict=True)
        )
        lost_row, lost_bin = lost_row.astype(np.int64), lost_bin.astype(np.int64)
        heights = np.full((count, bins), np.nan)
        covariance, dof = np.full((count, bins, bins), np.nan), np.full((count, bins, bins), np.nan)
        whole, all_known = np.zeros((total, bins)), np.ones(bins, bool)
        edges = np.searchsorted(self._pairs, np.arange(count + 1) * total)
        for k, (start, end) in enumerate(pairwise(edges)):
            own = (lost_row >= start) & (lost_row < end)
            lost = np.zeros((end - start, bins))
            np.add.at(lost, (lost_row[own] - start, lost_bin[own]), lost_area[own])
            passes = self._pairs[start:end] - k * total
            changes, known = self._changes_of(k, passes, self._changes[start:end], lost)
            heights[k] = np.where(known, self._heights_of(k), np.nan)
            covariance[k], dof[k] = _products(np.where(known, changes, np.nan))
            whole[passes] += changes
            all_known &= known | (self._sums.areas[k] == 0)
        fitted = self._sums.areas > 0
        all_known &= fitted.any()
        whole_height = np.where(all_known, heights[fitted].sum(axis=0), np.nan)
        shared = _products(np.where(all_known, whole, np.nan))
        return _named((heights, covariance, dof), (whole_height, *shared), self._areas)

    def _heights_of(self, region: int) -> _Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self._departures[region] / self._areas[region]
        height: _Floats = self._middles * self._sums.rates[region] + self._sums.areas[region] * mean
        return height

    def _changes_of(
        self, region: int, passes: _Integers, changes: _Floats, lost: _Floats
    ) -> tuple[_Floats, npt.NDArray[np.bool_]]:
        """Return D, shape (passes, bins), and the bins that more than one pass tells."""
        area = self._areas[region]
        rest = area - lost
        known = (area > 0) & (rest > LEAST_REST * area).all(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self._departures[region] / area
            of_mean = (changes + mean * lost) / np.sqrt(area * rest)
        line = self._middles * self._sums.deltas[region, passes][:, None]
        found = line + self._sums.areas[region] * np.where(known, of_mean, 0.0)
        return found, known


def _products(changes: _Floats) -> tuple[_Floats, _Floats]:
    """Return Σ D_i D_j over the passes, and the degrees of freedom of the difference of i and j, on the diagonal of i.

    Sums of squares of which each has one degree of freedom have (Σ D²)² / Σ D⁴ (Satterthwaite 1946, Biometrics
    Bulletin 2, 110).
    """
    bins = changes.shape[1]
    covariance, dof = np.empty((bins, bins)), np.empty((bins, bins))
    for k in range(bins):
        own = changes[:, k : k + 1]
        # Row by row, and no product of matrices: its sums depend on the machine and its threads.
        covariance[k] = (own * changes).sum(axis=0)
        squares = np.square(changes - own)
        squares[:, k] = np.square(changes[:, k])
        with np.errstate(invalid="ignore"):
            dof[k] = squares.sum(axis=0) ** 2 / np.square(squares).sum(axis=0)
    return covariance, dof


def _named(regions: Sequence[_Floats], whole: Sequence[_Floats], areas: _Floats) -> xr.Dataset:
    relative = (
        "at the middle of the bin, of all fitted posts relative to their elevation at the reference epoch; a post"
        " without a height in the bin has its own straight line and the mean departure of the others from theirs;"
        " NaN where fewer than two passes saw the bin"
    )
    apart = "of the difference of two bins; on the diagonal of a height"
    # Both are symmetric; CF has further dimensions to the left of time.
    square = ("height_time_2", "height_time")
    about = {
        "height": ("m3", "sum of area times height change", relative),
        "height_covariance": (
            "m6",
            "covariance of heights",
            "sum over passes of the products of changes when a pass is left out everywhere; height_time_2 is"
            " height_time again",
        ),
        "height_dof": ("1", "degrees of freedom", apart),
    }
    made: dict[str, tuple[tuple[str, ...], _Floats, dict[str, str]]] = {}
    for first, of, arrays in (
        ("region", "over the posts of the region", regions),
        ("whole", "over the posts of all regions", whole),
    ):
        for (name, (units, text, comment)), values in zip(about.items(), arrays, strict=True):
            dims = square if name != "height" else square[1:]
            attrs = {"units": units, "long_name": f"{text} {of}", "comment": comment}
            made[f"{first}_{name}"] = (
                (*(("region",) if first == "region" else ()), *dims),
                values,
                attrs,
            )
    of_area = {"units": "m2", "long_name": "area of the posts of the region with a height in a bin"}
    made["region_height_area"] = (("region", "height_time"), areas, of_area)
    return xr.Dataset(made)
