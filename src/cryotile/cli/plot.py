"""The command ``plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cryotile.cli.describe import lead_on
from cryotile.cli.screen import FORCE, OUTPUT, PATH, check_free
from cryotile.errors import InvalidValue

__all__ = ["plot"]


@click.command()
@click.argument("product", metavar="RUN|PRODUCT", type=PATH)
@click.argument("variable", required=False)
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    metavar="FILE",
    help="PNG, PDF, SVG, or GIF: an animation of all windows.  [default: beside the product]",
)
@click.option(
    "--kind",
    metavar="KIND",
    help="map, uncertainty, histogram, status, section, windows or film.  [default: section with --line, windows of a"
    " variable over time, else map]",
)
@click.option("--line", type=(float,) * 4, metavar="X Y X Y", help="Start and end of a section, m.")
@click.option("--lonlat", is_flag=True, help="--line is longitude and latitude, degrees.")
@click.option(
    "--range",
    "limits",
    type=(float, float),
    metavar="LOW HIGH",
    help="Values at the ends of the colours.",
)
@click.option(
    "--colour-map", metavar="NAME", help="A colour map of matplotlib or Crameri, e.g. cmc.vik_r."
)
@click.option(
    "--bounds", type=(float,) * 4, metavar="X_MIN Y_MIN X_MAX Y_MAX", help="Part to show, m."
)
@click.option("--title", metavar="TEXT", help="Text above the picture.")
@click.option(
    "--size", type=float, metavar="INCHES", help="Longer side of a map.  [default: 6 of one map]"
)
@click.option(
    "--dpi", type=click.IntRange(30, 1200), default=200, show_default=True, help="Of a PNG."
)
@click.option("--hatch", is_flag=True, help="Hatch where dhdt_ci95 exceeds the rate.")
@FORCE
def plot(
    product: Path,
    variable: str | None,
    output: Path | None,
    kind: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Draw VARIABLE (default: dhdt) of a run or product.

    \b
    Example:
      cryotile plot dhdt.nc -o dhdt.png
      cryotile plot run/ --kind uncertainty
      cryotile plot dhdt.nc --lonlat --line -49.5 69.1 -48.0 69.4
      cryotile plot dhdt.nc window_dhdt -o windows.gif
    """
    from cryotile.api import open as open_maps
    from cryotile.plotting.kinds import save

    if (elsewhere := lead_on(product)) is not None:
        raise InvalidValue(elsewhere)
    if options["lonlat"] and options["line"] is None:
        raise InvalidValue(
            "--lonlat is for --line, which is missing; add --line X Y X Y, or leave --lonlat out"
        )
    output = output or _beside(product, variable, kind or ("section" if options["line"] else None))
    check_free(output, force=force)
    save(open_maps(product), output, variable, kind, **options)
    click.echo(f"{output}")


def _beside(product: Path, variable: str | None, kind: str | None) -> Path:
    """Return a path for the picture, another one for each variable and kind."""
    place = product.resolve() if product.is_dir() else product
    words = [place.stem, variable, kind if kind != "map" else None]
    return place.with_name(f"{'-'.join(filter(None, words))}.png")
