"""Commands on a simulated mission: ``simulate``, ``demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from cryotile.cli.screen import number
from cryotile.errors import InvalidValue, command
from cryotile.pointdb import PointDB
from cryotile.points import SURFACE_TYPES
from cryotile.runs.progress import bar

if TYPE_CHECKING:
    from cryotile.simulate import World

__all__ = ["demo", "simulate"]

PRODUCTS = click.Choice(
    [
        "cryotempo",
        "l2i",
        "l2",
        "l2i-d",
        "atl06",
        "atl11",
        "eolis",
        "csv",
        "parquet",
        "hdf5",
        "netcdf",
    ]
)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--product",
    type=PRODUCTS,
    default="cryotempo",
    show_default=True,
    help="Format of the granules.",
)
@click.option("--start", help="First day.  [default: 2011-01-01; of atl06 and atl11: 2019-01-01]")
@click.option("--years", type=float, default=3.0, show_default=True, help="Length of the mission.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise.")
def simulate(directory: Path, product: str, start: str | None, years: float, seed: int) -> None:
    """Write granules of a simulated mission over an ice sheet of known elevation change to DIRECTORY.

    \b
    Example:
      cryotile simulate granules/ --product l2i --years 1
    """
    from cryotile.simulate import simulate as write_granules

    done = 0.0
    with bar("simulate", 100, shown=sys.stderr.isatty()) as advance:

        def show(fraction: float) -> None:
            nonlocal done
            done, before = round(100 * fraction), done
            advance(done - before)

        paths = write_granules(
            directory, product=product, start=start, years=years, seed=seed, progress=show
        )
    click.echo(f"{directory}: {len(paths)} granules")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, readable=False), default=Path("demo"))
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise.")
def demo(directory: Path, seed: int) -> None:
    """Run the whole path on a simulated mission: granules, point DB, run, product, map.

    \b
    Example:
      cryotile demo demo/
    """
    from cryotile.simulate import World

    world = World()
    granules, db, run, product, picture = (directory / name for name in MADE)
    _check_content(directory)
    _step("simulate", granules, "--seed", seed)
    _step("ingest", db, granules, "--crs", world.crs)
    _step("plan", run, "--db", db, "--posting", 1000, "--radius", 2000, "--tile-size", 50)
    _step("run", run, "--backend", "local")
    _step("assemble", run, "-o", product, "--force")
    _step("plot", product, "-o", picture, "--force")
    bias, rms, posts = _compare(product, world)
    click.echo(
        f"recovered dh/dt minus truth: bias {bias:+.4f} m/yr, rms {rms:.4f} m/yr"
        f" over {number(posts)} posts on grounded ice"
    )
    click.echo(f"map: {picture} (and {product})")


MADE = ("granules", "ice.pdb", "run", "dhdt.nc", "dhdt.png")


def _check_content(directory: Path) -> None:
    """Refuse a directory with anything but an earlier demo, which this one overwrites."""
    found = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    # The granules come first, and 'simulate' refuses any that are real.
    strange = [name for name in found if name not in MADE or MADE[0] not in found]
    if not strange and (directory / MADE[1]).exists():
        db = PointDB(directory / MADE[1])
        strange = [MADE[1]] if len(db.granules) and db.simulated() < 1.0 else []
    if strange:
        raise InvalidValue(
            f"{directory} holds {strange[0]}, which no demo made; give an empty directory, or that of an earlier demo"
        )


def _step(*words: object) -> None:
    """Print a command as a user would type it, and run it."""
    from cryotile.cli import cli

    click.echo(click.style(f"$ {command(*words)}", bold=True))
    cli.main([str(word) for word in words], standalone_mode=False)


def _compare(product: Path, world: World) -> tuple[float, float, int]:
    """Return bias and rms of dh/dt against those of the world, m/yr, and the number of posts with a fit."""
    import xarray as xr

    with xr.open_dataset(product) as dataset:
        x, y = np.meshgrid(dataset["x"], dataset["y"])
        error = dataset["dhdt"].to_numpy() - world.dhdt(x, y)
    # At the margin, circles also cover rock and water, where the product has no points.
    grounded = world.surface_type(x, y) == SURFACE_TYPES.index("grounded_ice")
    error = error[np.isfinite(error) & grounded]
    return float(error.mean()), float(np.sqrt(np.mean(error**2))), error.size
