"""Commands on a simulated mission: ``simulate``, ``demo``."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import numpy.typing as npt

from cryotile.cli.screen import PATH, number
from cryotile.errors import InvalidValue, command
from cryotile.files import write_text
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
@click.argument("directory", type=PATH)
@click.option(
    "--product",
    type=PRODUCTS,
    default="cryotempo",
    show_default=True,
    help="Format of the granules.",
)
@click.option(
    "--start",
    metavar="DATE",
    help="First day.  [default: 2011-01-01; of atl06 and atl11: 2019-01-01]",
)
@click.option(
    "--years",
    type=float,
    metavar="YEARS",
    default=3.0,
    show_default=True,
    help="Length of the mission.",
)
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
@click.argument("directory", type=PATH, default=Path("demo"))
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise.")
def demo(directory: Path, seed: int) -> None:
    """Run the whole path on a simulated mission: granules, point DB, run, product, map, totals and a series of basins.

    \b
    Example:
      cryotile demo demo/
    """
    from cryotile.simulate import World

    world = World()
    granules, db, run, product, picture, basins, table, series = (directory / n for n in MADE)
    _check_content(directory)
    _step("simulate", granules, "--seed", seed)
    _step("ingest", db, granules, "--crs", world.crs)
    grid = ("--posting", 1000, "--radius", 2000, "--tile-size", 50)
    named: tuple[object, ...] = ()
    heights: tuple[object, ...] = ()
    if _reads_polygons():
        _write_basins(basins, world)
        named = ("--basins", basins, "--column", "basin")
        heights = ("--heights", "6m")
    _step("plan", run, "--db", db, *grid, *named, *heights)
    _step("run", run, "--backend", "local")
    _step("assemble", run, "-o", product, "--force")
    _step("plot", product, "-o", picture, "--force")
    if named:
        _step("totals", product, *named, "--fill", "neighbours", "-o", table, "--force")
        _step("series", product, "--basin", BASINS[0], "-o", series, "--force")
        _compare_totals(table, product, world)
        _compare_series(product, world)
    else:
        click.echo(
            "totals and series of basins are left out: they need the extra geo, pip install 'cryotile[geo]'"
        )
    bias, rms, posts = _compare(product, world)
    click.echo(
        f"recovered dh/dt minus truth: bias {bias:+.4f} m/yr, rms {rms:.4f} m/yr"
        f" over {number(posts)} posts on grounded ice"
    )
    click.echo(f"map: {picture} (and {product}){f', series: {series}' if named else ''}")


MADE = (
    *("granules", "ice.pdb", "run", "dhdt.nc", "dhdt.png"),
    *("basins.geojson", "totals.csv", "series.png"),
)

BASINS = ("north-east", "north-west", "south-west", "south-east")
"""Quadrants of a disc on the ice cap: of those of the map, not of the compass."""

BASIN_RADIUS = 0.85
"""Radius of the disc, as a share of that of the cap, whose margin varies by less."""


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


def _reads_polygons() -> bool:
    return all(find_spec(name) is not None for name in ("pyogrio", "shapely"))


def _write_basins(path: Path, world: World) -> None:
    """Write the basins as GeoJSON that names the CRS of the world."""
    middle = _middle(world)
    features = []
    for k, name in enumerate(BASINS):
        angles = np.linspace(k, k + 1, 46) * np.pi / 2
        arc = BASIN_RADIUS * world.radius * np.column_stack([np.cos(angles), np.sin(angles)])
        ring = [middle.tolist(), *(arc + middle).tolist(), middle.tolist()]
        shape = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"basin": name}, "geometry": shape})
    crs = {"type": "name", "properties": {"name": world.crs}}
    write_text(path, json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))


def _middle(world: World) -> npt.NDArray[np.float64]:
    # Half a posting from a post, so that no post lies on the edge of two basins.
    return np.add(world.centre, 500.0)


def _compare_totals(table: Path, product: Path, world: World) -> None:
    """Print the true change of volume of each basin beside the distance of the total from it."""
    import pandas as pd
    import xarray as xr

    with xr.open_dataset(product) as dataset:
        x, y = np.meshgrid(dataset["x"], dataset["y"])
        area = dataset["cell_area"].to_numpy()
    volume, quadrant = area * world.dhdt(x, y) / 1e9, _quadrants(x, y, world)
    truth = {name: float(volume[quadrant == k].sum()) for k, name in enumerate(BASINS)}
    truth["all"] = sum(truth.values())
    found = pd.read_csv(table)
    for row in found[found["term"] == found["term"].iloc[-1]].to_dict("records"):
        error = row["volume_km3_yr"] - truth[row["region"]]
        click.echo(
            f"{row['region']:10} total minus truth: {error:+.4f} km3/yr, truth {truth[row['region']]:+.4f} km3/yr"
        )


def _quadrants(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], world: World
) -> npt.NDArray[np.int64]:
    """Return the number of the basin of each place, -1 outside of them."""
    east, north = x - _middle(world)[0], y - _middle(world)[1]
    quadrant = np.floor(np.arctan2(north, east) % (2 * np.pi) / (np.pi / 2)).astype(np.int64)
    return np.where(np.hypot(east, north) < BASIN_RADIUS * world.radius, quadrant, -1)


def _compare_series(product: Path, world: World) -> None:
    """Print how far the series of the first basin is from the truth over its fitted posts."""
    import cryotile

    found = cryotile.series(product, basins=BASINS[0]).isel(region=0)
    with cryotile.open(product) as maps:
        fitted = np.isfinite(maps["dhdt"].to_numpy())
        x, y = np.meshgrid(maps["x"], maps["y"])
        area = np.where(fitted & (_quadrants(x, y, world) == 0), maps["cell_area"].to_numpy(), 0.0)
    rate = float((area * world.dhdt(x, y)).sum()) / 1e9
    days = (found["height_time"] - found["height_time"][0]) / np.timedelta64(1, "D")
    truth = rate * days.to_numpy() / 365.25
    error = found["volume"].to_numpy()[1:] - truth[1:]
    within = np.abs(error) <= (found["volume_upper"] - found["volume"]).to_numpy()[1:]
    click.echo(
        f"{BASINS[0]:10} series minus truth: rms {np.sqrt(np.mean(error**2)):.4f} km3, last bin {error[-1]:+.4f} km3 of"
        f" {truth[-1]:+.4f} km3; {within.sum()} of {within.size} bins within the 95 % interval"
    )


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
