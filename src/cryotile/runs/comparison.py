"""A product against published maps, and in their layouts: what the calls and commands compare and export do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cryotile.errors import InvalidValue, path_of
from cryotile.geo.grid import Grid
from cryotile.geo.projection import crs_text
from cryotile.maps.unknown import unknowns
from cryotile.runs.xarray_engine import Product, named_maps

if TYPE_CHECKING:
    from cryotile.exchange.compare import Comparison
    from cryotile.exchange.reference import Floats, Reference
    from cryotile.exchange.writing import Exported
    from cryotile.geo.regions import Regions

__all__ = ["compare", "export"]

AnyPath = str | os.PathLike[str]


def compare(
    product: Product,
    reference: AnyPath | Iterable[AnyPath],
    *,
    variable: str | None = None,
    sigma: str | None = None,
    mapping: AnyPath | None = None,
    basins: AnyPath | None = None,
    column: str | None = None,
    report: AnyPath | None = None,
) -> Comparison:
    """Compare a product with a map of elevation change that others published, or with a table of points.

    Parameters
    ----------
    product : Dataset, Run or path
        A product, a run, or a Dataset of either.
    reference : path, or iterable of path
        A file of a layout that cryotile knows, any CF grid, a table in CSV, or another product; several files of one
        layout, or a directory of them, where a layout has a file for each time.
    variable, sigma : str or None
        Names of the rate and its sigma, for a CF grid of no known layout and for a table.
    mapping : path or None
        TOML or JSON that names the columns of a table.
    basins : path or None
        Vector file of regions.
    column : str or None
        Its column that names them.
    report : path or None
        HTML file to write.

    Returns
    -------
    Comparison
        ``maps``, ``table``, and ``notes`` on what was converted, averaged, assumed or dropped.

    Raises
    ------
    InvalidValue
        A file has no known layout, a unit is not one of a rate, or the periods or areas are disjoint.
    """
    from cryotile.exchange.compare import compare_maps
    from cryotile.exchange.layouts import read_reference
    from cryotile.exchange.own import of_product

    if column is not None and basins is None:
        raise InvalidValue(f'column {column!r} is one of basins; give basins="FILE" too')
    page = None if report is None else path_of("report", report)
    if page is not None and page.suffix.lower() not in (".html", ".htm"):
        raise InvalidValue(f"{page} does not end in .html; name the report e.g. {page.stem}.html")
    maps, name = named_maps(product)
    own = of_product(maps, name)
    several = [reference] if isinstance(reference, str | os.PathLike) else reference
    other = read_reference(
        [path_of("reference", one) for one in several],
        variable=variable,
        sigma=sigma,
        mapping=None if mapping is None else path_of("mapping", mapping),
    )
    regions = None if basins is None else _regions(own, path_of("basins", basins), column)
    found = compare_maps(own, other, slope=_slope(maps), regions=regions, unknowns=unknowns(maps))
    if page is not None:
        from cryotile.exchange.report import write_report

        write_report(found, page)
    return found


def export(product: Product, layout: str, output: AnyPath) -> Exported:
    """Write a product in the layout of another one, for programs that read that.

    Parameters
    ----------
    product : Dataset, Run or path
        A product, a run, or a Dataset of either.
    layout : str
        ``atl15``, ``cci-sec`` or ``eolis``.
    output : path
        A ``.nc`` file; or a directory, in which files get the names of the layout.

    Returns
    -------
    Exported
        ``files``, and ``notes`` on what is NaN and why.

    Raises
    ------
    InvalidValue
        The layout is unknown, or has several files and the output is one.
    """
    from cryotile.exchange.export import export_product

    return export_product(*named_maps(product), layout, path_of("output", output))


def _regions(own: Reference, path: Path, column: str | None) -> Regions:
    if column is None:
        raise InvalidValue(f'basins {path} need the column that names them; give column="NAME"')
    from cryotile.geo.regions import Regions

    edges = (float(own.x[0]), float(own.y[0]), float(own.x[-1]), float(own.y[-1]))
    return Regions.read(path, column, Grid(crs_text(own.crs), edges, float(own.x[1] - own.x[0])))


def _slope(product: xr.Dataset) -> Floats | None:
    """Return the slope of the surface, degrees; None if the product has none."""
    if not {"slope_x", "slope_y"} <= product.keys():
        return None
    from cryotile.exchange.own import values_of

    maps = product[["slope_x", "slope_y"]].sortby(["y", "x"])
    steepness = np.hypot(values_of(maps, "slope_x"), values_of(maps, "slope_y"))
    return np.degrees(np.arctan(steepness))
