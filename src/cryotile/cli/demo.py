"""Commands on a mission that is not there: ``simulate``, ``demo``."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from cryotile.cli.screen import track
from cryotile.errors import InvalidValue

__all__ = ["demo", "simulate"]

PRODUCTS = click.Choice(["cryotempo", "l2i", "atl06"])


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--product", type=PRODUCTS, default="cryotempo", show_default=True, help="Format of the granules.")
@click.option("--start", default="2011-01-01", show_default=True, help="First day.")
@click.option("--years", type=float, default=3.0, show_default=True, help="Length of the mission.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other noise.")
def simulate(directory: Path, product: str, start: str, years: float, seed: int) -> None:
    """Write granules of a simulated mission over an ice sheet of known elevation change to DIRECTORY.

    \b
    Example:
      cryotile simulate granules/ --product l2i --years 1
    """
    from cryotile.simulate import simulate as write_granules

    paths = write_granules(directory, product=product, start=start, years=years, seed=seed)
    click.echo(f"{directory}: {len(paths)} granules")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), default=Path("demo"))
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other noise.")
def demo(directory: Path, seed: int) -> None:
    """Go the whole path on a simulated mission: granules, point DB, run, product, map.

    \b
    Example:
      cryotile demo demo/
    """
