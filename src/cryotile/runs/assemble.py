"""The product of a run: its tiles side by side, with metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import xarray as xr

from cryotile.errors import Unfinished
from cryotile.fit.variables import fit_variables
from cryotile.geo.grid import Tile
from cryotile.maps.mosaic import mosaic
from cryotile.maps.product import write_product
from cryotile.runs.progress import bar
from cryotile.runs.run import Run

__all__ = ["assemble_run"]


def assemble_run(
    run: Run, output: Path, *, partial: bool = False, progress: bool = False
) -> xr.Dataset:
    """Write the product of a run.

    Parameters
    ----------
    run : Run
        The run.
    output : Path
        NetCDF-4 (``.nc``) or GeoTIFF (``.tif``).
    partial : bool
        Whether to accept missing tiles; their posts are ``not_computed``.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Dataset, dimensions (y, x)
        The mosaic, in memory.

    Raises
    ------
    Unfinished
        Tiles are missing.
    """
    missing = {task.index for task in run.missing()}
    if missing and not partial:
        raise Unfinished(
            f"{len(missing)} of {len(run.tasks)} tiles of {run.path} are missing (or damaged);"
            f" make them with 'cryotile run {run.path}', or take what is there with --partial"
        )
    settings = run.settings
    there = [tile for index, tile in enumerate(run.tiles) if index not in missing]
    maps = mosaic(
        run.store,
        settings.grid,
        tiles=_counted(there, progress),
        empty=run.empty_tiles(),
        variables=fit_variables(settings.fit),
        mask=settings.mask,
    )
    write_product(
        maps,
        output,
        grid=settings.grid,
        config=settings.fit,
        where=settings.where,
        mask=settings.mask,
    )
    return maps


def _counted(tiles: Sequence[Tile], progress: bool) -> Iterator[Tile]:
    with bar("assemble", len(tiles), shown=progress) as advance:
        for tile in tiles:
            yield tile
            advance()
