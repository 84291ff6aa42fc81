"""Commands on granules and point DBs: ``ingest``, ``info``, ``remove``, ``compact``, ``verify``."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from cryotile.cli import saying_what_is_saved
from cryotile.cli.describe import describe, facts
from cryotile.cli.screen import (
    BACKEND,
    LEASE,
    PATH,
    STALL,
    counted,
    number,
    print_report,
    size,
    to_stderr,
    words,
)
from cryotile.errors import DamagedFile, InvalidValue, command
from cryotile.pointdb import PointDB
from cryotile.pointdb.repair import set_damage_aside
from cryotile.points import SURFACE_TYPES
from cryotile.readers import ColumnMapping, find_granules
from cryotile.runs.ingest import prepare_ingest
from cryotile.runs.ingest_batch import Criteria, memory_of
from cryotile.runs.progress import Advance, bar
from cryotile.runs.work import complete_ingest

__all__ = ["compact", "info", "ingest", "remove", "verify"]

STDIN = Path("-")

SURFACES = click.Choice(SURFACE_TYPES)

DB = click.argument("db", type=PATH)

MAPPING = click.option(
    "--mapping",
    type=PATH,
    metavar="FILE",
    help="The files are tables (CSV, Parquet, HDF5, NetCDF), and this TOML or JSON file names their columns.",
)


@click.command()
@DB
@click.argument("granules", nargs=-1, type=PATH)
@click.option(
    "--files-from",
    "lists",
    multiple=True,
    type=PATH,
    metavar="LIST",
    help="Also read the paths in this file, one a line; - is standard input.",
)
@click.option(
    "--crs",
    metavar="CRS",
    help="Projected CRS in metres, e.g. EPSG:3031; required for a new point DB.",
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
    help="Extra columns to store, e.g. power,coherence; fixed when the point DB is created.",
)
@MAPPING
@click.option(
    "--chunk-size",
    type=float,
    default=None,
    metavar="METRES",
    help="Side of a chunk; fixed when the point DB is created.  [default: 100000]",
)
@click.option(
    "--dem",
    type=PATH,
    help="Elevation model (GeoTIFF or NetCDF) that points are compared with; points where it has no value stay.",
)
@click.option(
    "--max-dem-difference",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    metavar="METRES",
    help="With --dem: points farther above or below it are dropped.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    default="2GB",
    show_default=True,
    help="Memory of a worker, e.g. 800MB: it commits when it holds as many points as that allows.",
)
@BACKEND
@STALL
@LEASE
@click.option(
    "--freeze",
    is_flag=True,
    help="Only freeze the batches, for 'cryotile submit' or 'cryotile run'.",
)
def ingest(
    db: Path,
    granules: tuple[Path, ...],
    lists: tuple[Path, ...],
    crs: str | None,
    surfaces: tuple[str, ...],
    where: str | None,
    columns: str,
    mapping: Path | None,
    chunk_size: float | None,
    dem: Path | None,
    max_dem_difference: float,
    memory: str,
    backend: str,
    stall: float | None,
    lease: float | None,
    freeze: bool,
) -> None:
    """Read GRANULES, project their points and add them to the point DB.

    A directory stands for the files below it, except those whose names are not of granules.

    A granule that is there already changes nothing; one that cannot be read is named, and the others go in.  Any number
    of processes on any number of hosts may work on it, as on a run; interrupted or killed, the same command goes on.

    \b
    Example:
      cryotile ingest antarctica.pdb granules/CS_OFFL_SIR_TDP_LI_ANTARC_*.nc --crs EPSG:3031 --backend local:8
      find /archive -newer last -name 'ATL06_*.h5' | cryotile ingest greenland.pdb --files-from -
    """
    listed = [path for each in lists for path in _listed(each)]
    files = _files(granules, listed)
    frozen = prepare_ingest(
        db,
        files,
        Criteria(surfaces, where, mapping, dem, max_dem_difference, memory_of(memory)),
        crs=crs,
        columns=words(columns),
        chunk_size=chunk_size,
        backend=backend,
    )
    if freeze:
        click.echo(
            f"{frozen.path}: {counted(len(files), 'granule')} in {number(len(frozen.tasks))} batches;"
            f" go on with: {command('submit', frozen.path)}, or: {command('run', frozen.path)}"
        )
        return
    with saying_what_is_saved(frozen):
        report = complete_ingest(
            frozen,
            backend,
            stall=stall,
            lease=lease,
            progress=sys.stderr.isatty(),
            tell=to_stderr,
            shown=files,
        )
    print_report(report)


def _files(named: Sequence[Path], listed: Sequence[Path]) -> list[Path]:
    """Return the files that paths mean; say on standard error what is left out, and how much of a list is missing."""
    paths = [*named, *listed]
    with bar("look at paths", len(paths), shown=sys.stderr.isatty()) as advance:
        found = find_granules(_each(paths, advance))
    if found.strays:
        first = shlex.quote(str(found.strays[0]))
        count = counted(len(found.strays), "file")
        to_stderr(f"note: {count} left out, no granules by name (the first: {first})")
    # The report names them, too, but for a long list only hours later.
    if missing := set(listed).intersection(found.missing):
        first = shlex.quote(str(min(missing)))
        total = counted(len(listed), "listed path")
        to_stderr(f"note: {number(len(missing))} of {total} do not exist (the first: {first})")
    return found.files


def _each(paths: Sequence[Path], advance: Advance) -> Iterator[Path]:
    for path in paths:
        yield path
        advance()


def _listed(source: Path) -> list[Path]:
    """Return the paths in a list, one a line."""
    try:
        text = sys.stdin.buffer.read() if source == STDIN else source.read_bytes()
    except OSError as error:
        raise InvalidValue(
            f"the list {source} cannot be read: {error.strerror}; give a file with one path a line, or - for standard"
            " input"
        ) from error
    # File names need not be UTF-8.
    paths = [Path(os.fsdecode(line.rstrip(b"\r"))) for line in text.split(b"\n") if line.strip()]
    if not paths:
        name = "standard input" if source == STDIN else f"the list {source}"
        raise InvalidValue(f"{name} names no granule; give one path a line")
    return paths


@click.command()
@click.argument("path", type=PATH)
@MAPPING
@click.option("--json", "as_json", is_flag=True, help="Print JSON; of a product or a run.")
def info(path: Path, mapping: Path | None, as_json: bool) -> None:
    """Describe PATH: a point DB, a run, a granule, a product, or a directory of them.

    \b
    Example:
      cryotile info greenland.pdb
    """
    if as_json:
        click.echo(json.dumps(facts(path), indent=1))
        return
    for line in describe(path, mapping=None if mapping is None else ColumnMapping.load(mapping)):
        click.echo(line)


@click.command()
@DB
@click.argument("granules", nargs=-1)
@click.option(
    "--damaged",
    is_flag=True,
    help="Remove granules with points in damaged fragments, and name them.  A damaged commit of the log that the newest"
    " state depends on is set aside with all later ones; no other process may write meanwhile.",
)
def remove(db: Path, granules: tuple[str, ...], damaged: bool) -> None:
    """Remove the points of GRANULES, given by id, file name or checksum, from the point DB.

    If they had records in common with granules that stay, those are named: ingest them again.

    \b
    Example:
      cryotile remove greenland.pdb ATL06_20190504213219_05500306_006_02.h5
    """
    if damaged:
        _set_aside(db)
    points = PointDB(db)
    names = [Path(granule).name for granule in granules]
    if damaged:
        names += [name for damage in points.verify() for name in damage.granules]
    elif not names:
        raise InvalidValue("no granule was named; give ids or file names, or --damaged")
    removed = points.remove(list(dict.fromkeys(names)))
    for name in removed.granules:
        click.echo(name)
    click.echo(
        f"{db}: {counted(len(removed.granules), 'granule')} removed, {number(removed.rows)} points; snapshot"
        f" {removed.snapshot}"
    )
    if removed.incomplete:
        click.echo(
            "granules that lack the records they had in common with it, to be ingested again:"
        )
        for name in removed.incomplete:
            click.echo(f"  {name}")


def _set_aside(db: Path) -> None:
    """Set damaged commits of the log aside, and print which granules to ingest again."""
    aside = set_damage_aside(db)
    if aside is None:
        return
    for name in aside.granules:
        click.echo(name)
    moved = ", ".join(map(str, aside.numbers))
    click.echo(
        f"{db}: commits {moved} are in {aside.directory} now; ingest their granules again: those"
        f" named above, and those of commits that cannot be read; 'cryotile run' on each directory of"
        f" {db / 'ingests'} does so"
    )


@click.command()
@DB
@click.option(
    "--keep",
    multiple=True,
    type=int,
    metavar="N",
    help="Earlier snapshot to keep; may be repeated.  All others end.",
)
def compact(db: Path, keep: tuple[int, ...]) -> None:
    """Merge small fragments of the point DB and delete superseded files.

    Other processes may read and write meanwhile; no point changes, and no tile becomes stale.

    \b
    Example:
      cryotile compact antarctica.pdb --keep 12
    """
    done = PointDB(db).compact(keep=keep)
    click.echo(
        f"{db}: {number(done.merged)} fragments merged into {number(done.written)}, {number(done.deleted)} files"
        f" deleted ({size(done.freed)}); snapshot {done.snapshot}"
    )


@click.command()
@DB
def verify(db: Path) -> None:
    """Compare every file of the point DB with its log.

    Print each damaged file, and the granules to ingest again.

    \b
    Example:
      cryotile verify antarctica.pdb
    """
    points = PointDB(db)
    found, granules = 0, dict[str, None]()
    for damage in points.verify():
        found += 1
        granules |= dict.fromkeys(damage.granules)
        click.echo(f"{damage.path}: {damage.reason}")
    if granules:
        click.echo("granules to ingest again:")
        for name in granules:
            click.echo(f"  {name}")
    if found:
        remedy = f", or ingest the granules named above again after: {command('remove', db, '--damaged')}"
        raise DamagedFile(
            f"{found} files of {db} are damaged: put them back from a copy{remedy if granules else ''}"
        )
    rows = points.granules["rows"].sum()
    click.echo(
        f"{db}: {number(len(points.granules))} granules with {number(rows)} points agree with the log, snapshot"
        f" {points.snapshot}"
    )
