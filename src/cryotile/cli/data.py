"""Commands on granules and point DBs: ``ingest``, ``info``."""

from __future__ import annotations

from pathlib import Path

import click

from cryotile.cli.describe import describe, dropped_lines
from cryotile.cli.screen import number, track
from cryotile.errors import CryotileError, InvalidValue
from cryotile.pointdb import PointDB
from cryotile.where import Where
from cryotile.work import Reading, append_batches

__all__ = ["info", "ingest"]

SURFACES = click.Choice(
    ["grounded_ice", "floating_ice", "ice_free_land", "ocean", "lake", "unknown"]
)


@click.command()
@click.argument("db", type=click.Path(path_type=Path))
@click.argument("granules", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--crs", help="Projected CRS in metres, e.g. EPSG:3031; needed when the point DB is created."
)
@click.option(
    "--surface",
    "surfaces",
    multiple=True,
    type=SURFACES,
    default=["grounded_ice"],
    show_default=True,
    help="Surface to keep; may be repeated.",
)
@click.option(
    "--where", metavar="EXPR", help='Keep only points that satisfy this, e.g. "uncertainty < 1".'
)
@click.option(
    "--columns",
    default="",
    metavar="A,B",
    help="Further columns to store, e.g. power,coherence; fixed when the point DB is created.",
)
@click.option(
    "--chunk-size",
    type=float,
    default=None,
    metavar="METRES",
    help="Side of a chunk; fixed when the point DB is created.  [default: 100000]",
)
def ingest(
    db: Path,
    granules: tuple[Path, ...],
    crs: str | None,
    surfaces: tuple[str, ...],
    where: str | None,
    columns: str,
    chunk_size: float | None,
) -> None:
    """Read GRANULES, project their points and add them to the point DB.

    A granule that is there already changes nothing; one that cannot be read is named, and the others go in.

    \b
    Example:
      cryotile ingest antarctica.pdb granules/CS_OFFL_SIR_TDP_LI_ANTARC_*.nc --crs EPSG:3031
    """
    names = tuple(name.strip() for name in columns.split(",") if name.strip())
    points = _open_or_create(db, crs, names, chunk_size)
    criterion = None if where is None else Where.parse(where, columns=points.column_names)
    batches = append_batches(granules, points, surface_types=surfaces, where=criterion)
    *_, reading = track(batches, "ingest", len(granules) + 1)
    _report(reading, points)
    if reading.problems:
        raise CryotileError(
            f"{len(reading.problems)} of {len(granules)} granules did not go in; the others did: mend or leave them"
            " out, then give the same command"
        )


def _open_or_create(
    path: Path, crs: str | None, columns: tuple[str, ...], chunk_size: float | None
) -> PointDB:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        if crs is None:
            raise InvalidValue(
                f"point DB {path} does not exist yet; to create it, name its CRS, e.g. --crs EPSG:3031"
            )
        return PointDB.create(path, crs, columns=columns, chunk_size=chunk_size or 100_000.0)
    db = PointDB(path)
    db.check_matches(crs=crs, columns=columns or None, chunk_size=chunk_size)
    return db


def _report(reading: Reading, db: PointDB) -> None:
    for problem in reading.problems:
        click.echo(f"cryotile: {problem}", err=True)
    for note in reading.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(
        f"{db.path}: {reading.added} granules added, {reading.unchanged} there already;"
        f" {number(reading.rows)} of {number(reading.records)} points kept"
    )
    for line in dropped_lines(reading.dropped):
        click.echo(line)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
def info(path: Path) -> None:
    """Say in words what PATH is: a point DB, a run, a granule or a product.

    \b
    Example:
      cryotile info greenland.pdb
    """
    for line in describe(path):
        click.echo(line)
