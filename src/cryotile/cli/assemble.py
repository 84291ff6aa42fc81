"""The command ``assemble``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from cryotile import api
from cryotile.cli.screen import FORCE, OUTPUT, PATH, RUN, check_free, number, words
from cryotile.errors import InvalidValue, command
from cryotile.fit.variables import Status
from cryotile.maps.authorship import check_authorship, lacking, read_authorship
from cryotile.maps.product import is_geotiff
from cryotile.runs.assembly import files_of_product
from cryotile.runs.run import Run
from cryotile.runs.xarray_engine import read_status

__all__ = ["assemble"]

LACKING_SHOWN = 4
"""Number of lacking attributes that are named."""


@click.command()
@RUN
@click.option(
    "-o",
    "--output",
    required=True,
    type=OUTPUT,
    metavar="FILE",
    help="The product: .nc for NetCDF-4 with CF metadata, .zarr for Zarr 3, .tif for cloud-optimised GeoTIFF: the first"
    " variable in FILE, each other one beside it, e.g. dhdt-status.tif.",
)
@click.option(
    "--variables",
    metavar="A,B",
    help="Variables to write; NetCDF and Zarr also get status.  [default: all]",
)
@click.option(
    "--product",
    type=PATH,
    metavar="FILE",
    help="TOML file whose table [product] has creator_name, license, doi and other attributes.",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=VALUE",
    help="One such attribute; repeat it for more.",
)
@click.option(
    "--partial", is_flag=True, help="Accept missing tiles and mark their posts not_computed."
)
@FORCE
def assemble(
    run_directory: Path,
    output: Path,
    variables: str | None,
    product: Path | None,
    attributes: tuple[str, ...],
    partial: bool,
    force: bool,
) -> None:
    """Put the tiles of RUN side by side and write the product, as NetCDF, Zarr or GeoTIFF.

    \b
    Example:
      cryotile assemble run/ -o dhdt.nc
      cryotile assemble run/ -o dhdt.tif --variables dhdt,dhdt_sigma
      cryotile assemble run/ -o dhdt.zarr --product product.toml --attribute license=CC-BY-4.0
    """
    run = Run.load(run_directory)
    names = None if variables is None else words(variables)
    given = {} if product is None else read_authorship(product)
    given |= check_authorship(dict(map(_pair, attributes)))
    files = files_of_product(run, output, names)
    for file in files:
        check_free(file, force=force)
    api.assemble(
        run,
        output,
        variables=names,
        product=given,
        partial=partial,
        progress=sys.stderr.isatty(),
    )
    # A GeoTIFF need not have the status.
    beside = is_geotiff(output)
    status = read_status(run.path if beside else output)
    hint = "" if beside else f"; look at it with: {command('plot', output)}"
    click.echo(
        f"{output}: {number((status == Status.OK).sum())} of {number(status.size)} posts with a fit{hint}"
    )
    for line in _reasons(status):
        click.echo(line)
    for file in files[1:]:
        click.echo(f"{file}")
    if absent := lacking(given):
        shown = ", ".join(absent[:LACKING_SHOWN])
        more = f" and {len(absent) - LACKING_SHOWN} more" if len(absent) > LACKING_SHOWN else ""
        click.echo(
            f"  metadata   without {shown}{more}, which only you know: give them with --product product.toml, or"
            " --attribute NAME=VALUE"
        )


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise InvalidValue(f'--attribute {text!r} has no "="; give e.g. license=CC-BY-4.0')
    return name.strip(), value


def _reasons(status: npt.NDArray[np.int8]) -> Iterator[str]:
    """Yield a line for each reason why posts have no fit, the most frequent first."""
    values, counts = np.unique(status[status != Status.OK], return_counts=True)
    for place in np.argsort(-counts, kind="stable"):
        yield f"  no fit     {number(counts[place]):>10}  {Status(values[place]).name.lower()}"
