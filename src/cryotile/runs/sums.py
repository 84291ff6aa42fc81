"""The sums over the regions of a run, added up from its tiles."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cryotile.fit.height_sums import HeightSums, RegionHeights, packed_pairs
from cryotile.fit.inputs import kernel_intervals
from cryotile.fit.region_sums import RegionSums, joined_passes
from cryotile.points import platform_code
from cryotile.runs.origin import origin_of

if TYPE_CHECKING:
    from cryotile.geo.grid import Tile
    from cryotile.runs.run import Run

__all__ = ["region_sums"]

_AT_ONCE = 64
"""Tiles whose sums are in memory at once."""


def region_sums(run: Run, missing: Collection[int] = ()) -> xr.Dataset | None:
    """Return the sums over the regions of a run as variables of its product.

    Parameters
    ----------
    run : Run
        Any run.
    missing : collection of int
        Tasks whose tiles are not there, which add nothing.

    Returns
    -------
    Dataset or None
        As of :meth:`cryotile.fit.region_sums.RegionSums.variables` and, with heights, of
        :meth:`cryotile.fit.height_sums.RegionHeights.variables`; None if the run has no regions.

    Raises
    ------
    DamagedFile
        A tile is damaged.
    """
    regions = run.settings.regions
    if regions is None:
        return None
    # The order of tiles on the grid: that of tasks follows their cost, which new points change.
    tiles = sorted(
        (tile for index, tile in enumerate(run.tiles) if index not in missing),
        key=lambda tile: (tile.iy, tile.ix),
    )
    origin = origin_of(run.table)
    for word in [] if origin is None else origin.platforms:
        # A process knows the word of a platform's number once it has met the word.
        platform_code(word)
    parts, rows = [], []
    for lists in _stored(run, tiles):
        parts.append(RegionSums.unpacked(lists))
        rows.append(packed_pairs(lists["heights"]) if "heights" in lists else None)
    total = RegionSums.added(parts, len(regions.names))
    found = total.variables(regions.names, regions.area)
    # An earlier cryotile saved tiles without heights of regions.
    if "height_time" not in run.settings.fit.intervals or not rows or None in rows:
        return found
    places = [np.searchsorted(total.passes, ids) for ids in joined_passes(parts)]
    pairs = [
        part.regions[of[0]] * total.passes.size + place[of[1]]
        for part, of, place in zip(parts, rows, places, strict=True)
        if of is not None
    ]
    edges = kernel_intervals(run.settings.fit)[1]
    heights = RegionHeights(total, np.concatenate(pairs), (edges[:-1] + edges[1:]) / 2)
    # Read again, because those of all tiles may be too large for the memory.
    for part, place, lists in zip(parts, places, _stored(run, tiles), strict=True):
        own = HeightSums.unpacked(lists["heights"], edges.size - 1)
        heights.add(own, part.regions, place)
    return found.merge(heights.variables())


def _stored(run: Run, tiles: Sequence[Tile]) -> Iterator[dict[str, Any]]:
    """Yield the sums of the tiles that have any, a few tiles at a time."""
    for start in range(0, len(tiles), _AT_ONCE):
        for lists in run.store.sums_of(tiles[start : start + _AT_ONCE]):
            if lists is not None:
                yield lists
