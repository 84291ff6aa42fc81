"""``cryotile export``: a product in the layout of another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import click

from cryotile.cli.screen import FORCE, check_free, to_stderr
from cryotile.runs import comparison

__all__ = ["export"]


def _write_layout(source: Path, output: Path, layout: str) -> None:
    found = comparison.export(source, layout, output)
    for file in found.files:
        click.echo(f"{file}")
    for note in found.notes:
        to_stderr(f"  {note}")


FORMATS: Mapping[str, Callable[[Path, Path, str], None]] = {
    "atl15": _write_layout,
    "cci-sec": _write_layout,
    "eolis": _write_layout,
}
"""Name → what writes a source to an output and prints what it wrote."""


@click.command()
@click.argument("source", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--as", "layout", required=True, type=click.Choice(list(FORMATS)), help="Layout to write."
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, readable=False),
    metavar="PATH",
    help="File to write; or a directory, in which files get the layout's names and replace those of the same name.",
)
@FORCE
def export(source: Path, layout: str, output: Path, force: bool) -> None:
    """Write SOURCE, a product or a run, in the layout of another product.

    \b
      atl15    ICESat-2 ATL15: rates in groups by lag, heights
      cci-sec  ESA CCI+ Antarctica SEC: a rate a file
      eolis    CryoTEMPO EOLIS gridded: elevations of a time a file

    What the product does not know is NaN, and the reason is printed and in the file.

    \b
    Example:
      cryotile export dhdt.nc --as atl15 -o atl15.nc
    """
    if not output.is_dir():
        check_free(output, force=force)
    FORMATS[layout](source, output, layout)
