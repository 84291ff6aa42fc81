"""The mosaic: all tiles of a run side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from cryotile.fit.variables import VARIABLES, Status, Variable
from cryotile.geo.grid import Grid, Tile, shared, within
from cryotile.geo.mask import Mask
from cryotile.maps.tiles import TileStore

__all__ = ["mosaic"]


def mosaic(
    store: TileStore,
    grid: Grid,
    *,
    tiles: Iterable[Tile],
    empty: Iterable[Tile] = (),
    variables: Sequence[Variable] = VARIABLES,
    mask: Mask | None = None,
) -> xr.Dataset:
    """Return the tiles side by side over a grid, or the part of them that is within it.

    Parameters
    ----------
    store : TileStore
        Holds the tiles.
    grid : Grid
        The posts.
    tiles : iterable of Tile
        Saved tiles, each with a post of the grid; iterated once.
    empty : iterable of Tile
        Tiles without a point in their windows: their posts get status ``no_points``.
    variables : sequence of Variable
        Variables of the tiles, as of :func:`cryotile.fit.variables.fit_variables`.
    mask : Mask or None
        The posts where a map is wanted, of this grid or one that contains it; None: all.

    Returns
    -------
    Dataset, dimensions (y, x)
        All variables.  Posts of other tiles have status ``not_computed``, posts outside the mask ``outside_mask``.

    Raises
    ------
    DamagedFile
        A tile is absent or damaged.
    """
    arrays = {variable.name: variable.empty(grid.shape) for variable in variables}
    for tile in tiles:
        inside, place = _overlap(grid, tile)
        for name, values in store.arrays(tile, [*arrays]).items():
            arrays[name][(..., *place)] = values[(..., *inside)]
    for tile in empty:
        arrays["status"][_overlap(grid, tile)[1]] = np.int8(Status.NO_POINTS)
    if mask is not None:
        arrays["status"][~mask.of(grid)] = np.int8(Status.OUTSIDE_MASK)
    return xr.Dataset(
        {v.name: (v.dims, arrays[v.name], v.attrs) for v in variables},
        coords={"y": grid.y, "x": grid.x},
    )


def _overlap(grid: Grid, tile: Tile) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the posts that a grid and a tile share, as rows and columns of the tile, then of the grid."""
    rows, columns = shared(grid.rows, tile.rows), shared(grid.columns, tile.columns)
    return (
        (within(rows, tile.rows), within(columns, tile.columns)),
        (within(rows, grid.rows), within(columns, grid.columns)),
    )
