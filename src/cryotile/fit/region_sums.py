"""Sums of rates over the posts of each region, and by how much each changes when a pass is left out everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.fit.height_sums import HeightSums
from cryotile.points import join_runs, name_pass

__all__ = ["RegionSums", "joined_passes"]

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RegionSums:
    """Sums over the posts with a rate, by region.

    The delta of pass g is Δ_g = Σ a·δ_g over the posts, where δ_g is the change of the rate of a post when g is left
    out (its jackknife), and a its area.  The sigma of a sum is √ΣΔ_g².

    Attributes
    ----------
    regions : ndarray of int64, shape (k,)
        Numbers of the regions, ascending.
    rates : ndarray, shape (k,)
        Σ area · dhdt, m³ yr-1.
    areas : ndarray, shape (k,)
        Area of the posts with a rate, m².
    passes, first, last : ndarray of int64, shape (m,)
        Pass ids, and the times of the first and last point that was seen, milliseconds since 1970.
    deltas : ndarray, shape (k, m)
        m³ yr-1; not 0 for each pass in some region.
    heights : HeightSums or None
        The same of heights; None: the fit has none.
    """

    regions: _Integers
    rates: _Floats
    areas: _Floats
    passes: _Integers
    first: _Integers
    last: _Integers
    deltas: _Floats
    heights: HeightSums | None = None

    def packed(self) -> dict[str, Any]:
        """Return plain lists and texts, from which :meth:`unpacked` makes the same sums."""
        lists = {
            name: getattr(self, name).ravel().tolist()
            for name in self.__dataclass_fields__
            if name != "heights"
        }
        return lists if self.heights is None else {**lists, "heights": self.heights.packed()}

    @classmethod
    def unpacked(cls, lists: Mapping[str, Any]) -> RegionSums:
        """Return the sums of :meth:`packed`, but for those of heights, which :meth:`HeightSums.unpacked` makes."""
        whole = {
            name: np.array(lists[name], np.int64) for name in ("regions", "passes", "first", "last")
        }
        deltas = np.array(lists["deltas"], np.float64)
        return cls(
            **whole,
            rates=np.array(lists["rates"], np.float64),
            areas=np.array(lists["areas"], np.float64),
            deltas=deltas.reshape(whole["regions"].size, whole["passes"].size),
            heights=None,
        )

    @classmethod
    def added(cls, parts: Sequence[RegionSums], count: int) -> RegionSums:
        """Add sums up in their order, over all of ``count`` regions; a pass that several parts saw is one pass.

        Parameters
        ----------
        parts : sequence of RegionSums
            Of tiles, each post in one of them.
        count : int
            Number of regions.
        """
        first, last = (_listed(parts, name) for name in ("first", "last"))
        joined = np.concatenate([np.empty(0, np.int64), *joined_passes(parts)])
        distinct, place = np.unique(joined, return_inverse=True)
        starts, ends = (
            np.full(distinct.size, np.iinfo(np.int64).max),
            np.full(distinct.size, np.iinfo(np.int64).min),
        )
        np.minimum.at(starts, place, first)
        np.maximum.at(ends, place, last)
        rates, areas, deltas = np.zeros(count), np.zeros(count), np.zeros((count, distinct.size))
        begin = 0
        for part in parts:
            own = place[begin : begin + part.passes.size]
            begin += part.passes.size
            rates[part.regions] += part.rates
            areas[part.regions] += part.areas
            # A tile may see two parts of one pass.
            np.add.at(deltas, (part.regions[:, None], own[None, :]), part.deltas)
        return cls(np.arange(count), rates, areas, distinct, starts, ends, deltas)

    def variables(self, names: Sequence[str], posts: _Floats) -> xr.Dataset:
        """Return the sums as variables of a product.

        Parameters
        ----------
        names : sequence of str
            Of all regions.
        posts : ndarray, shape (regions,)
            Area of all posts of each region, m².
        """
        about = _attrs("1", "pass_id of the points of the pass in the point DB of the run")
        words = [name_pass(number) for number in self.passes.tolist()]
        return xr.Dataset(
            {
                "region_area": ("region", posts, _attrs("m2", "area of all posts of the region")),
                "region_fitted_area": (
                    "region",
                    self.areas,
                    _attrs("m2", "area of the posts of the region with a rate"),
                ),
                "region_rate": (
                    "region",
                    self.rates,
                    _attrs("m3 yr-1", "sum of area times dhdt over the posts of the region"),
                ),
                "region_delta": (
                    ("region", "pass"),
                    self.deltas,
                    _attrs("m3 yr-1", "change of region_rate when a pass is left out everywhere"),
                ),
                "pass_id": ("pass", self.passes, about),
            },
            coords={
                "region": ("region", np.array(names, dtype=object), {"long_name": "region"}),
                "pass": ("pass", np.array(words, dtype=object), {"long_name": "pass"}),
            },
        )


def joined_passes(parts: Sequence[RegionSums]) -> list[_Integers]:
    """Return the pass ids of each part; a pass that several parts saw has one id."""
    ends = np.cumsum([part.passes.size for part in parts])[:-1]
    joined = join_runs(*(_listed(parts, name) for name in ("passes", "first", "last")))
    return np.split(joined, ends)


def _listed(parts: Sequence[RegionSums], name: str) -> _Integers:
    return np.concatenate([np.empty(0, np.int64), *(getattr(part, name) for part in parts)])


def _attrs(units: str, long_name: str) -> dict[str, str]:
    return {"units": units, "long_name": long_name}
