"""Commands from tiles to a map: ``assemble``, ``plot``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from cryotile.cli.screen import number, track
from cryotile.errors import CryotileError
from cryotile.fit.variables import Status, fit_variables
from cryotile.maps.mosaic import mosaic
from cryotile.maps.product import write_product
from cryotile.runs.run import Run

__all__ = ["assemble", "plot"]


@click.command()
@click.argument("run_directory", metavar="RUN", type=click.Path(path_type=Path, readable=False))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, readable=False),
    help="The product, e.g. dhdt.nc.",
)
@click.option("--partial", is_flag=True, help="Take what is there and mark the rest not_computed.")
def assemble(run_directory: Path, output: Path, partial: bool) -> None:
    """Put the tiles of RUN side by side and write the product, NetCDF-4 with CF metadata.

    \b
    Example:
      cryotile assemble run/ -o dhdt.nc
    """
    run = Run.load(run_directory)
    missing = {task.index for task in run.missing()}
    tiles = [tile for index, tile in enumerate(run.tiles) if index not in missing]
    if missing and not partial:
        raise CryotileError(
            f"{len(missing)} of {len(run.tasks)} tiles of {run_directory} are missing (or damaged);"
            f" make them with 'cryotile run {run_directory}', or take what is there with --partial"
        )
    product = mosaic(
        run.store,
        run.settings.grid,
        tiles=track(tiles, "assemble", len(tiles)),
        empty=run.empty_tiles(),
        variables=fit_variables(run.settings.fit),
        mask=run.settings.mask,
    )
    write_product(
        product,
        output,
        grid=run.settings.grid,
        config=run.settings.fit,
        where=run.settings.where,
        mask=run.settings.mask,
    )
    fitted = int((product["status"] == Status.OK).sum())
    hint = f"; look at it with: cryotile plot {output}" if output.suffix == ".nc" else ""
    click.echo(
        f"{output}: {number(fitted)} of {number(product['status'].size)} posts with a fit{hint}"
    )
    for line in _reasons(product["status"].to_numpy()):
        click.echo(line)


def _reasons(status: npt.NDArray[np.int8]) -> Iterator[str]:
    """Yield a line per reason for which posts have no fit, the most frequent first."""
    values, counts = np.unique(status[status != Status.OK], return_counts=True)
    for place in np.argsort(-counts, kind="stable"):
        yield f"  no fit     {number(counts[place]):>10}  {Status(values[place]).name.lower()}"


@click.command()
@click.argument("product", type=click.Path(path_type=Path, readable=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
    help="PNG, PDF or SVG.  [default: beside the product]",
)
@click.option("--variable", default="dhdt", show_default=True, help="What to show.")
def plot(product: Path, output: Path | None, variable: str) -> None:
    """Draw a map of a product.

    \b
    Example:
      cryotile plot dhdt.nc -o dhdt.png
    """
    from cryotile.plotting.map import plot_product

    output = output or product.with_suffix(".png")
    plot_product(product, output, variable=variable)
    click.echo(f"{output}")
