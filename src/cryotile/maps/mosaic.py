"""The mosaic: all tiles of a run side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from cryotile.fit.variables import VARIABLES, Status, Variable
from cryotile.geo.grid import Grid, Tile
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
    """Return the tiles side by side over the whole grid.

    Parameters
    ----------
    store : TileStore
        Holds the tiles.
    grid : Grid
        The posts.
    tiles : iterable of Tile
        Saved tiles of the grid; iterated once.
    empty : iterable of Tile
        Tiles of the grid without a point in their windows: their posts get status ``no_points``.
    variables : sequence of Variable
        Variables of the tiles, as of :func:`cryotile.fit.variables.fit_variables`.
    mask : Mask or None
        The posts where a map is wanted; None: all.

    Returns
    -------
    Dataset, dimensions (y, x)
        All variables.  Posts of other tiles and posts outside the mask have status ``not_computed``.

    Raises
    ------
    DamagedFile
        A tile is absent or damaged.
    """
    arrays = {variable.name: variable.empty(grid.shape) for variable in variables}
    for tile in tiles:
        for name, values in store.arrays(tile, [*arrays]).items():
            arrays[name][_place(grid, tile)] = values
    for tile in empty:
        arrays["status"][_place(grid, tile)] = np.int8(Status.NO_POINTS)
    if mask is not None:
        arrays["status"][~mask.inside] = np.int8(Status.NOT_COMPUTED)
    attributes = {variable.name: variable.attrs for variable in variables}
    return xr.Dataset(
        {name: (("y", "x"), array, attributes[name]) for name, array in arrays.items()},
        coords={"y": grid.y, "x": grid.x},
    )


def _place(grid: Grid, tile: Tile) -> tuple[slice, slice]:
    row, column = grid.rows.start, grid.columns.start
    return (
        slice(tile.rows.start - row, tile.rows.stop - row),
        slice(tile.columns.start - column, tile.columns.stop - column),
    )
