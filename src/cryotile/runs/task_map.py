"""What a page draws of a run: where its tiles lie, an outline around them, and a thumbnail of each fitted tile."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cryotile.fit.variables import Status
from cryotile.geo.grid import Tile
from cryotile.geo.mask import Mask
from cryotile.plotting.coast import coast_lines

if TYPE_CHECKING:
    from cryotile.runs.run import Run

__all__ = ["VARIABLES", "task_map", "thumbnail", "thumbnail_values"]

VARIABLES: dict[str, dict[str, Any]] = {
    "dhdt": {"units": "m yr-1", "range": [-2.0, 2.0]},
    "dhdt_sigma": {"units": "m yr-1", "range": [0.0, 1.0]},
    "status": {"flags": {status.name.lower(): int(status) for status in Status}},
}
"""Variables of a thumbnail, in their order, as the map describes them."""

# Cells along a side of a thumbnail: three variables of 18 x 18 bytes are less than 1 kB even if they do not compress.
_SIDE = 18

# Cells along the longer side of a mask whose outline is drawn, and points of an outline.
_MASK_CELLS, _OUTLINE = 400, 20_000


def task_map(run: Run) -> dict[str, Any]:
    """Return where the tiles of a run lie, as the call ``PUT /map`` of a task-farm server takes it.

    Parameters
    ----------
    run : Run
        Any run.

    Returns
    -------
    dict of str to value
        ``crs``, ``tile_size`` and ``origin`` (m), ``columns`` and ``rows`` of the tile of each task, ``outline`` (rings
        of the mask, or lines of the coast nearby; m), ``thumbnail_shape`` and ``variables``.
    """
    grid, size = run.settings.grid, run.settings.tile_size
    columns, rows = (run.table[name].tolist() for name in ("ix", "iy"))
    mask = run.settings.mask
    side = _edges(size).size
    return {
        "crs": grid.crs,
        "tile_size": size * grid.posting,
        # A post stands in the middle of its cell.
        "origin": [-grid.posting / 2, -grid.posting / 2],
        "columns": columns,
        "rows": rows,
        "outline": _coast(run) if mask is None else _around(mask),
        "thumbnail_shape": [side, side],
        "variables": VARIABLES,
    }


def thumbnail(tile: Tile, tile_size: int, fitted: xr.Dataset) -> bytes:
    """Return a picture of a fitted tile of at most 1 kB: the values of :func:`thumbnail_values`, compressed by zlib."""
    return zlib.compress(thumbnail_values(tile, tile_size, fitted).tobytes(), 9)


def thumbnail_values(tile: Tile, tile_size: int, fitted: xr.Dataset) -> npt.NDArray[np.uint8]:
    """Return the values of the thumbnail of a tile.

    Parameters
    ----------
    tile : Tile
        The posts.
    tile_size : int
        Posts along a side of a whole tile; at the edges of the grid a tile has fewer.
    fitted : Dataset
        Its fit; a variable that it lacks has no data.

    Returns
    -------
    ndarray of uint8, shape (variables, rows, columns)
        0 where there is no data.  Rates: the mean of the posts of a cell, from 1 to 255 over the range in
        :data:`VARIABLES`.  Status: 1 more than that of the post in the middle of the cell.
    """
    edges = _edges(tile_size)
    middles = (edges + np.append(edges[1:], tile_size)) // 2
    whole = np.full((tile_size, tile_size), np.nan)
    y, x = tile.rows.start - tile.iy * tile_size, tile.columns.start - tile.ix * tile_size
    place = slice(y, y + len(tile.rows)), slice(x, x + len(tile.columns))
    found = np.zeros((len(VARIABLES), len(edges), len(edges)), "u1")
    for cells, (name, about) in zip(found, VARIABLES.items(), strict=True):
        if name not in fitted:
            continue
        whole[place] = fitted[name].to_numpy()
        if "flags" in about:
            status = whole[np.ix_(middles, middles)]
            cells[...] = np.where(np.isnan(status), 0, status + 1)
        else:
            cells[...] = _scaled(_means(whole, edges), *about["range"])
    return found


def _edges(tile_size: int) -> npt.NDArray[np.intp]:
    """Return the first post of each cell along a side."""
    side = -(-tile_size // -(-tile_size // _SIDE))
    return np.arange(side) * tile_size // side


def _means(values: npt.NDArray[np.float64], edges: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Return the mean of the values of each cell that are not NaN."""
    known = np.isfinite(values)
    total, count = (
        np.add.reduceat(np.add.reduceat(each, edges, axis=0), edges, axis=1)
        for each in (np.where(known, values, 0.0), known.astype(float))
    )
    means = np.full(total.shape, np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def _scaled(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    scaled = 1 + np.rint(254 * np.clip((values - low) / (high - low), 0.0, 1.0))
    return np.where(np.isnan(values), 0.0, scaled)


def _coast(run: Run) -> list[list[tuple[float, float]]]:
    """Return the lines of the coast within one width of the tiles around them."""
    size = run.settings.tile_size * run.settings.grid.posting
    x, y = (run.table[name].to_numpy() * size for name in ("ix", "iy"))
    if not len(x):
        return []
    margin = max(np.ptp(x), np.ptp(y)) + size
    to_map = pyproj.Transformer.from_crs("EPSG:4326", run.settings.grid.crs, always_xy=True)
    lines = []
    for line in coast_lines():
        across, up = to_map.transform(*line.T)
        near = (np.abs(across - x.mean()) < margin) & (np.abs(up - y.mean()) < margin)
        if near.any() and np.isfinite(across).all() and np.isfinite(up).all():
            lines.append(np.column_stack([across, up]))
    return _rounded(lines)


def _around(mask: Mask) -> list[list[tuple[float, float]]]:
    """Return the rings around the posts inside a mask, on squares of some posts if there are many."""
    grid = mask.grid
    step = max(1, -(-max(grid.shape) // _MASK_CELLS))
    ny, nx = (-(-length // step) * step for length in grid.shape)
    inside = np.zeros((ny, nx), bool)
    inside[: grid.shape[0], : grid.shape[1]] = mask.inside
    coarse = inside.reshape(ny // step, step, nx // step, step).mean(axis=(1, 3)) >= 0.5
    corner = np.array([grid.columns[0], grid.rows[0]]) - 0.5
    return _rounded((corner + step * np.array(ring)) * grid.posting for ring in _rings(coarse))


def _rings(inside: npt.NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Return the rings (x, y) around the cells that are inside, each with its inside on the left."""
    padded = np.pad(inside, 1)
    core = padded[1:-1, 1:-1]
    # Sides of cells between inside and outside, from one corner to the next.
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for neighbour, (x0, y0), (x1, y1) in sides:
        for row, column in np.argwhere(core & ~neighbour).tolist():
            start, stop = (column + x0, row + y0), (column + x1, row + y1)
            following.setdefault(start, []).append(stop)
    rings = []
    while following:
        start = place = next(iter(following))
        ring = [start]
        while place in following:
            after = following[place].pop()
            if not following[place]:
                del following[place]
            # A corner on a straight line is left out.
            if len(ring) > 1 and _is_straight(ring[-2], ring[-1], after):
                ring.pop()
            ring.append(after)
            place = after
        rings.append(ring)
    return rings


def _is_straight(one: tuple[int, int], two: tuple[int, int], three: tuple[int, int]) -> bool:
    return (two[0] - one[0]) * (three[1] - two[1]) == (two[1] - one[1]) * (three[0] - two[0])


def _rounded(lines: Iterable[npt.NDArray[np.float64]]) -> list[list[tuple[float, float]]]:
    """Return lines in whole metres, with fewer points if there are too many."""
    lines = list(lines)
    step = -(-sum(map(len, lines)) // _OUTLINE) or 1
    return [
        [(round(x), round(y)) for x, y in np.concatenate([line[:-1:step], line[-1:]]).tolist()]
        for line in lines
    ]
