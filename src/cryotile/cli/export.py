"""``cryotile export``: a product in the layout of another one, or points for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cryotile.cli.screen import FORCE, OUTPUT, PATH, check_free, counted, to_stderr, words
from cryotile.errors import InvalidValue
from cryotile.exchange.export import FORMATS
from cryotile.pointdb import PointDB
from cryotile.runs import comparison

__all__ = ["export"]


POINTS = "geoparquet"
"""The format of points."""


@click.command()
@click.argument("source", type=PATH)
@click.option(
    "--as", "layout", required=True, type=click.Choice([*FORMATS, POINTS]), help="Layout to write."
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=OUTPUT,
    metavar="PATH",
    help="File to write; or a directory, in which files get the layout's names and replace those of the same name.",
)
@click.option(
    "--bounds",
    nargs=4,
    type=float,
    metavar="X_MIN Y_MIN X_MAX Y_MAX",
    help="Only points within these bounds, metres.",
)
@click.option(
    "--where", metavar="EXPR", help="Only points that satisfy this, e.g. \"platform == 'icesat2'\"."
)
@click.option(
    "--time",
    nargs=2,
    metavar="START END",
    help="Only points from the first instant to before the second, UTC.",
)
@click.option(
    "--columns",
    metavar="A,B",
    help="Columns of the points.  [default: the core columns; the geometry holds x and y]",
)
@FORCE
def export(
    source: Path, layout: str, output: Path, columns: str | None, force: bool, **selection: Any
) -> None:
    """Write SOURCE, a product or a run, in the layout of another product; or the points of a point DB.

    \b
      atl15       ICESat-2 ATL15: rates in groups by lag, heights
      cci-sec     ESA CCI+ Antarctica SEC: a rate a file
      eolis       CryoTEMPO EOLIS gridded: elevations of a time a file
      geoparquet  points of a point DB, as GeoParquet 1.1

    What the product does not know is NaN, and the reason is printed and in the file.

    \b
    Example:
      cryotile export dhdt.nc --as atl15 -o atl15.nc
      cryotile export ice.pdb --as geoparquet --bounds -300000 -1500000 -200000 -1400000 -o points.parquet
    """
    asked = {name: value for name, value in selection.items() if value is not None}
    if columns is not None:
        asked["columns"] = words(columns)
    if asked and layout != POINTS:
        raise InvalidValue(
            f"--{next(iter(asked))} selects points, and {layout} is a layout of maps; leave it out"
        )
    if not output.is_dir():
        check_free(output, force=force)
    if layout == POINTS:
        count = PointDB(source).to_geoparquet(output, **asked)
        click.echo(f"{output}: {counted(count, 'point')}")
        return
    found = comparison.export(source, layout, output)
    for file in found.files:
        click.echo(f"{file}")
    for note in found.notes:
        to_stderr(f"  {note}")
