"""The product of a run: which tiles and variables go into it, and what its maker says of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import xarray as xr

from cryotile.errors import Unfinished, command
from cryotile.fit.variables import fit_variables
from cryotile.maps.metadata import CELL_AREA
from cryotile.maps.mosaic import mosaic
from cryotile.maps.product import chosen, is_geotiff, product_files, write_product
from cryotile.runs.origin import about
from cryotile.runs.run import Run
from cryotile.runs.sums import region_sums

__all__ = ["assemble_run", "files_of_product"]


def assemble_run(
    run: Run,
    path: Path,
    *,
    variables: Collection[str] | None = None,
    authorship: Mapping[str, str],
    partial: bool,
    advance: Callable[[int], object],
) -> None:
    """Write the product of a run, whole or not at all.

    Parameters
    ----------
    run : Run
        The run.
    path : Path
        As of :func:`cryotile.maps.product.write_product`.
    variables : collection of str or None
        Names of the variables; None: all.  In NetCDF and Zarr ``status`` is always one of them: it says why a post
        has NaN.
    authorship : mapping of str to str
        Global attributes, see :func:`cryotile.maps.authorship.check_authorship`.
    partial : bool
        Whether to accept missing tiles.
    advance : callable
        Told the number of rows written.

    Raises
    ------
    Unfinished
        Tiles are missing.
    InvalidValue
        There is no such variable, or the suffix of the path is unknown.
    """
    missing = {task.index for task in run.missing()}
    if missing and not partial:
        raise Unfinished(
            f"{len(missing)} of {len(run.tasks)} tiles of {run.path} are missing (or damaged);"
            f" assemble the present ones with partial=True, or make the others: {command('run', run.path)}"
        )
    settings, grid = run.settings, run.settings.map_grid
    sums = region_sums(run, missing)
    names = _names(run, path, variables, sums)
    saved = {(t.ix, t.iy): t for index, t in enumerate(run.tiles) if index not in missing}
    empty = {(t.ix, t.iy): t for t in run.empty_tiles()}
    maps = [v for v in fit_variables(settings.fit) if v.name in names or v.name == "status"]

    def rows(part: slice) -> xr.Dataset:
        band = grid.part(grid.rows[part], grid.columns)
        across, up = band.cuts(settings.tile_size)
        places = [(ix, iy) for iy in up for ix in across]
        found = mosaic(
            run.store,
            band,
            tiles=(saved[place] for place in places if place in saved),
            empty=(empty[place] for place in places if place in empty),
            variables=maps,
            mask=settings.mask,
        )
        return found if "status" in names else found.drop_vars("status")

    write_product(
        rows,
        path,
        grid=grid,
        config=settings.fit,
        about={**about(run), **authorship},
        sums=None if sums is None else sums[[str(n) for n in sums.data_vars if n in names]],
        with_area=CELL_AREA.name in names,
        advance=advance,
    )


def files_of_product(run: Run, path: Path, variables: Collection[str] | None) -> list[Path]:
    """Return the files that :func:`assemble_run` writes."""
    return product_files(path, _names(run, path, variables, None) if is_geotiff(path) else [])


def _names(
    run: Run, path: Path, variables: Collection[str] | None, sums: xr.Dataset | None
) -> list[str]:
    """Return the names of the variables of the product, in its order."""
    there = [v.name for v in fit_variables(run.settings.fit)] + [CELL_AREA.name]
    if not is_geotiff(path):
        there += [] if sums is None else map(str, sums.data_vars)
    names = chosen(there, variables)
    return names if is_geotiff(path) or "status" in names else [*names, "status"]
