"""The product of a run: its tiles side by side, with metadata."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from cryotile.errors import Unfinished
from cryotile.fit.variables import fit_variables
from cryotile.maps.mosaic import mosaic
from cryotile.maps.product import write_product
from cryotile.runs.progress import bar
from cryotile.runs.run import Run
from cryotile.runs.xarray_engine import open_map

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
        The map, opened lazily: memory does not grow with its size.

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
    settings, grid = run.settings, run.settings.map_grid
    saved = {(t.ix, t.iy): t for index, t in enumerate(run.tiles) if index not in missing}
    empty = {(t.ix, t.iy): t for t in run.empty_tiles()}

    def rows(part: slice) -> xr.Dataset:
        band = grid.part(grid.rows[part], grid.columns)
        across, up = band.cuts(settings.tile_size)
        places = [(ix, iy) for iy in up for ix in across]
        return mosaic(
            run.store,
            band,
            tiles=(saved[place] for place in places if place in saved),
            empty=(empty[place] for place in places if place in empty),
            variables=fit_variables(settings.fit),
            mask=settings.mask,
        )

    with bar("assemble", grid.shape[0], shown=progress) as advance:
        write_product(
            rows,
            output,
            grid=grid,
            config=settings.fit,
            where=settings.where,
            mask=settings.mask,
            advance=advance,
        )
    return open_map(output if output.suffix.lower() == ".nc" else run.path)
