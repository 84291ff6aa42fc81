"""Memory and time of a product: ``python benchmarks/product.py COLUMNS ROWS [.nc|.zarr|.tif]`` writes made-up tiles.

The tiles are saved first (:class:`cryotile.maps.tiles.TileStore`), so the measure includes reading them.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

from cryotile.fit.config import FitConfig
from cryotile.fit.variables import VARIABLES, settings_attrs
from cryotile.geo.grid import Grid, Tile
from cryotile.maps.mosaic import mosaic
from cryotile.maps.product import write_product
from cryotile.maps.tiles import TileStore

TILE_SIZE = 100
CONFIG = FitConfig(radius=2000.0, period=("2015-01-01", "2018-01-01"), reference_epoch="2016-07-02")


def fitted(tile: Tile) -> xr.Dataset:
    rng = np.random.default_rng([tile.ix + 2**15, tile.iy + 2**15])
    maps = {}
    for variable in VARIABLES:
        values = variable.empty(tile.shape)
        if variable.dtype == "float64":
            values = rng.normal(size=tile.shape)
        maps[variable.name] = (("y", "x"), values, dict(variable.attrs))
    return xr.Dataset(maps, coords={"y": tile.y, "x": tile.x}, attrs=settings_attrs(CONFIG))


def save(store: TileStore, tiles: list[Tile]) -> None:
    start = time.perf_counter()
    for tile in tiles:
        store.save(tile, fitted(tile), "made-up")
    seconds = time.perf_counter() - start
    size = sum(store.file(tile).stat().st_size for tile in tiles)
    print(f"{len(tiles)} tiles saved in {seconds:.0f} s, {size / 1e6:.0f} MB")


def assemble(store: TileStore, grid: Grid, tiles: list[Tile], path: Path) -> None:
    by_place = {(tile.ix, tile.iy): tile for tile in tiles}

    def rows(part: slice) -> xr.Dataset:
        band = grid.part(grid.rows[part], grid.columns)
        across, up = band.cuts(TILE_SIZE)
        return mosaic(store, band, tiles=[by_place[ix, iy] for iy in up for ix in across])

    start = time.perf_counter()
    write_product(rows, path, grid=grid, config=CONFIG)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    size = sum(f.stat().st_size for f in path.parent.glob(f"{path.stem}*/**/*") if f.is_file())
    size += sum(f.stat().st_size for f in path.parent.glob(f"{path.stem}*") if f.is_file())
    print(
        f"{path.suffix}: {grid.shape[0] * grid.shape[1]:,} posts in {time.perf_counter() - start:.0f} s,"
        f" {size / 1e6:.0f} MB, peak memory of the process {peak:.0f} MB"
    )


def main() -> None:
    columns, rows = (int(word) for word in sys.argv[1:3])
    suffix = sys.argv[3] if len(sys.argv) > 3 else ".nc"
    grid = Grid("EPSG:3031", (0.0, 0.0, (columns - 1) * 1000.0, (rows - 1) * 1000.0), 1000.0)
    with tempfile.TemporaryDirectory() as directory:
        store, tiles = TileStore(directory), grid.tiles(TILE_SIZE)
        save(store, tiles)
        assemble(store, grid, tiles, Path(directory) / f"product{suffix}")


if __name__ == "__main__":
    main()
