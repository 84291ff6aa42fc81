"""Commands on granules and point DBs: ``ingest``, ``info``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import click

from cryotile.cli.describe import describe, dropped_lines
from cryotile.cli.screen import bar, counted, number
from cryotile.errors import CryotileError, InvalidValue
from cryotile.pointdb import PointDB
from cryotile.points import CORE_COLUMNS
from cryotile.readers import ColumnMapping, find_reader, further_columns, read_granule
from cryotile.where import Where
from cryotile.work import Reading, append_batches

__all__ = ["info", "ingest"]

SURFACES = click.Choice(
    ["grounded_ice", "floating_ice", "ice_free_land", "ocean", "lake", "unknown"]
)

MAPPING = click.option(
    "--mapping",
    "mapping_path",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="The files are tables (CSV, Parquet, HDF5, NetCDF), and this TOML or JSON file names their columns.",
)


@click.command()
@click.argument("db", type=click.Path(path_type=Path, readable=False))
@click.argument(
    "granules", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False)
)
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
@MAPPING
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
    mapping_path: Path | None,
    chunk_size: float | None,
) -> None:
    """Read GRANULES, project their points and add them to the point DB.

    A granule that is there already changes nothing; one that cannot be read is named, and the others go in.

    \b
    Example:
      cryotile ingest antarctica.pdb granules/CS_OFFL_SIR_TDP_LI_ANTARC_*.nc --crs EPSG:3031
    """
    names = tuple(name.strip() for name in columns.split(",") if name.strip())
    mapping = None if mapping_path is None else ColumnMapping.load(mapping_path)
    if _is_new(db):
        _check_before_creating(granules, names, where, mapping)
    points = _open_or_create(db, crs, names, chunk_size)
    criterion = None if where is None else Where.parse(where, columns=points.column_names)
    batches = append_batches(
        granules, points, surface_types=surfaces, where=criterion, mapping=mapping
    )
    reading = _ingest(granules, batches)
    _report(reading, points)
    if reading.problems:
        raise CryotileError(
            f"{len(reading.problems)} of {counted(len(granules), 'granule')} did not go in: mend or leave out what is"
            " named above, then give the same command"
        )


def _ingest(granules: Sequence[Path], batches: Iterator[Reading]) -> Reading:
    """Show how far it is, and each problem as it comes."""
    reading, told = Reading(), 0
    with bar() as progress:
        shown = progress.add_task("ingest", total=len(granules), note="")
        for done, reading in enumerate(batches, start=1):
            progress.update(shown, completed=min(done, len(granules)))
            for problem in reading.problems[told:]:
                progress.console.print(
                    f"cryotile: {problem}", soft_wrap=True, markup=False, highlight=False
                )
            told = len(reading.problems)
    return reading


def _is_new(path: Path) -> bool:
    """Tell whether a point DB would be created there: nothing is, or an empty directory."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _check_before_creating(
    granules: Sequence[Path],
    columns: Sequence[str],
    where: str | None,
    mapping: ColumnMapping | None,
) -> None:
    """Refuse what cannot succeed, so that a slip leaves no empty point DB with a CRS that is fixed."""
    offered = sorted(further_columns(mapping))
    unknown = sorted(set(columns).difference(offered))
    if unknown:
        raise InvalidValue(
            f"further column {unknown[0]!r} is offered by no reader; choose of {', '.join(offered)}"
        )
    if where is not None:
        Where.parse(where, columns=[*CORE_COLUMNS, *columns])
    problems = list(takewhile(bool, (_problem(granule, mapping) for granule in granules)))
    if len(problems) == len(granules):
        click.echo("\n".join(problems), err=True)
        raise CryotileError(
            f"none of {counted(len(granules), 'granule')} can be read; no point DB was made"
        )


def _problem(granule: Path, mapping: ColumnMapping | None) -> str:
    """Say why a file is no granule of a product that is known, or no such table; nothing when it is."""
    try:
        if mapping is None:
            find_reader(granule)
        else:
            read_granule(granule, mapping=mapping)
    except CryotileError as error:
        return f"cryotile: {error}"
    return ""


def _open_or_create(
    path: Path, crs: str | None, columns: tuple[str, ...], chunk_size: float | None
) -> PointDB:
    if _is_new(path):
        if crs is None:
            raise InvalidValue(
                f"point DB {path} does not exist yet; to create it, name its CRS, e.g. --crs EPSG:3031"
            )
        return PointDB.create(path, crs, columns=columns, chunk_size=chunk_size or 100_000.0)
    db = PointDB(path)
    db.check_matches(crs=crs, columns=columns or None, chunk_size=chunk_size)
    return db


def _report(reading: Reading, db: PointDB) -> None:
    for note, names in reading.notes.items():
        others = f" and {counted(len(names) - 1, 'other')}" if len(names) > 1 else ""
        click.echo(f"note: {names[0]}{others}: {note}", err=True)
    click.echo(
        f"{db.path}: {counted(reading.added, 'granule')} added, {number(reading.unchanged)} there already;"
        f" {number(reading.rows)} of {number(reading.records)} points kept"
    )
    for line in dropped_lines(reading.dropped):
        click.echo(line)


@click.command()
@click.argument("path", type=click.Path(path_type=Path, readable=False))
@MAPPING
def info(path: Path, mapping_path: Path | None) -> None:
    """Say in words what PATH is: a point DB, a run, a granule or a product.

    \b
    Example:
      cryotile info greenland.pdb
    """
    mapping = None if mapping_path is None else ColumnMapping.load(mapping_path)
    for line in describe(path, mapping=mapping):
        click.echo(line)
