"""``cryotile series``: heights of posts or along a line, or the volume of basins, over time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr

from cryotile.cli.screen import (
    FORCE,
    OUTPUT,
    PATH,
    as_json_value,
    check_free,
    check_suffix,
    to_stderr,
)
from cryotile.runs.series import as_table, write_series
from cryotile.runs.series import series as make_series

__all__ = ["series"]

SUFFIXES = (".csv", ".nc", ".png", ".pdf", ".svg")

SHOWN = 5
"""Places or basins that have a column on the screen."""


@click.command()
@click.argument("product", metavar="RUN|PRODUCT", type=PATH)
@click.option(
    "--at", type=(float, float), multiple=True, metavar="X Y", help="Place, m; may be repeated."
)
@click.option(
    "--points", type=PATH, metavar="FILE", help="Places of a CSV file or of a vector file."
)
@click.option("--column", metavar="NAME", help="Column of --points that names them.")
@click.option(
    "--line", type=(float,) * 4, metavar="X Y X Y", help="Start and end of a straight line, m."
)
@click.option("--along", type=PATH, metavar="FILE", help="Line of a vector file, e.g. a flowline.")
@click.option("--lonlat", is_flag=True, help="--at and --line are longitude and latitude, degrees.")
@click.option(
    "--basin",
    "basins",
    multiple=True,
    metavar="NAME",
    help="Basin of the run, or all; may be repeated.  [default: all basins, unless there is a place or a line]",
)
@click.option("--density", metavar="KG_M3", help="Density for the mass of basins, e.g. 917.")
@click.option(
    "--relative-to",
    metavar="DATE",
    help="Date that the volume is relative to.  [default: the first bin with a height]",
)
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    metavar="FILE",
    help="Table, .csv; NetCDF, .nc; or picture, .png, .pdf or .svg.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@FORCE
def series(product: Path, output: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Give heights or volume over time, with their 95 % intervals, of a run that was planned with --heights.

    A place has the heights of the post nearest to it, and a line those of posts along it, relative to the elevation of
    the map.  Basins, which need a run that was planned with --basins, too, have the change of their volume (km3) since
    one date, with the standard error of that difference, and with a density the change of their mass (Gt).

    \b
    Example:
      cryotile series run/ --lonlat --at -44.9 77.9
      cryotile series dhdt.nc --along flowline.gpkg -o flowline.png
      cryotile series dhdt.nc --basin NW --basin CW --density 917 -o series.csv
    """
    check_suffix(output, SUFFIXES, "series.csv")
    check_free(output, force=force)
    # click has an empty tuple for an option that is not there.
    at, basins = (options.pop(name) or None for name in ("at", "basins"))
    found = make_series(product, at=at, basins=basins, **options)
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=1))
    else:
        for line in _lines(found):
            click.echo(line)
        for note in filter(None, found.attrs["notes"].split("\n")):
            to_stderr(f"note: {note}")
    if output is not None:
        write_series(found, output)
        if not as_json:
            click.echo(f"{output}")


def _lines(found: xr.Dataset) -> Iterator[str]:
    """Yield a table with a row for each bin."""
    if "distance" in found.dims:
        yield from _line_lines(found)
        return
    name = next(name for name in ("mass", "volume", "height") if name in found)
    along = str(next(dim for dim in found[name].dims if dim != "height_time"))
    units = found[name].attrs.get("units", "")
    shown = found.isel({along: slice(SHOWN)})
    labels = [str(label) for label in shown[along].to_numpy()]
    yield f"{name}, {units}, ± half of the 95 % interval"
    if along == "post":
        for k, label in enumerate(labels):
            own = shown.isel(post=k)
            yield (
                f"  {label}: post x {float(own['x']):.10g} m, y {float(own['y']):.10g} m (longitude"
                f" {float(own['longitude']):.5f}, latitude {float(own['latitude']):.5f})"
            )
    cells = [_cells(shown.isel({along: k}), name) for k in range(len(labels))]
    widths = [max(map(len, (label, *cell))) for label, cell in zip(labels, cells, strict=True)]
    heads = [f"{label:>{width}}" for label, width in zip(labels, widths, strict=True)]
    yield f"{'bin':24}  {'  '.join(heads)}"
    for k, (start, end) in enumerate(_days(found)):
        row = (f"{cell[k]:>{width}}" for cell, width in zip(cells, widths, strict=True))
        yield f"{start} to {end}  {'  '.join(row)}"
    if left_out := found.sizes[along] - len(labels):
        yield f"and {left_out} more: -o series.csv has all"


def _cells(one: xr.Dataset, name: str) -> list[str]:
    """Return the values of a series with half of their intervals, to two digits of these."""
    value = one[name].to_numpy().astype(float)
    half = one[f"{name}_upper"].to_numpy() - value
    known = half[np.isfinite(half) & (half > 0)]
    digits = max(0, 1 - math.floor(math.log10(np.median(known)))) if known.size else 3
    return [
        "-"
        if math.isnan(v)
        else f"{v + 0.0:,.{digits}f} ± {'-' if math.isnan(h) else f'{h:,.{digits}f}'}"
        for v, h in zip(value, half, strict=True)
    ]


def _line_lines(found: xr.Dataset) -> Iterator[str]:
    """Yield a table of the heights along a line: how many, and their range."""
    height = found["height"].transpose("height_time", "distance").to_numpy()
    length = float(found["distance"][-1]) / 1e3
    yield f"line of {length:,.1f} km, {found.sizes['distance']:,} places; height, m"
    yield f"{'bin':24}  {'places':>8}  {'lowest':>9}  {'median':>9}  {'highest':>9}"
    for (start, end), row in zip(_days(found), height, strict=True):
        known = row[np.isfinite(row)]
        numbers = np.percentile(known, [0, 50, 100]) if known.size else [math.nan] * 3
        cells = (f"{'-' if math.isnan(n) else f'{n:+.3f}':>9}" for n in numbers)
        yield f"{start} to {end}  {known.size:>8,}  {'  '.join(cells)}"


def _days(found: xr.Dataset) -> list[tuple[str, str]]:
    bounds = found["height_time_bnds"].to_numpy().astype("datetime64[D]")
    return [(str(start), str(end)) for start, end in bounds]


def _as_json(found: xr.Dataset) -> dict[str, Any]:
    table = as_table(found)
    for name in table.select_dtypes("datetime"):
        table[name] = table[name].astype(str)
    rows = [
        {name: as_json_value(value) for name, value in row.items()}
        for row in table.to_dict("records")
    ]
    return {"notes": found.attrs["notes"].split("\n"), "rows": rows}
