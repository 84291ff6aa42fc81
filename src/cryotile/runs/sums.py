"""The sums over the regions of a run, added up from its tiles."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import xarray as xr

from cryotile.fit.region_sums import RegionSums

if TYPE_CHECKING:
    from cryotile.runs.run import Run

__all__ = ["region_sums"]


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
        As of :meth:`cryotile.fit.region_sums.RegionSums.variables`; None if the run has no regions.

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
    stored = run.store.sums_of(tiles)
    parts = [RegionSums.unpacked(lists) for lists in stored if lists is not None]
    return RegionSums.added(parts, len(regions.names)).variables(regions.names, regions.area)
