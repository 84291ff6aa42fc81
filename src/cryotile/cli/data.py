"""Commands on granules and point DBs: ``ingest``, ``info``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import click

from cryotile.backends.auto import choose
from cryotile.backends.pool import pool_size
from cryotile.cli.describe import describe
from cryotile.cli.farming import BACKEND, LEASE, STALL, work_through
from cryotile.cli.ingest import report
from cryotile.cli.screen import SIZE, counted, number
from cryotile.errors import CryotileError, InvalidValue
from cryotile.farm.task import Task
from cryotile.geo.dem import Dem
from cryotile.geo.projection import projected_crs
from cryotile.pointdb import PointDB
from cryotile.points import CORE_COLUMNS
from cryotile.readers import ColumnMapping, extra_columns, find_reader, table_reader
from cryotile.readers.source import open_source
from cryotile.runs.ingest import Ingest, freeze_ingest
from cryotile.runs.ingest_batch import Criteria, points_within
from cryotile.selection import Where

__all__ = ["info", "ingest", "run_ingest"]

UNKNOWN_WORKERS = 16
"""Workers that batches are made for where nobody knows how many will come."""

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
@click.option(
    "--dem",
    type=click.Path(path_type=Path, readable=False),
    help="Elevation model (GeoTIFF or NetCDF) that points are compared with; where it has no value, they stay.",
)
@click.option(
    "--max-dem-difference",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    metavar="METRES",
    help="With --dem: points farther above or below it are left out.",
)
@click.option(
    "--memory",
    type=SIZE,
    default="2GB",
    show_default=True,
    help="What a worker may take, e.g. 800MB: it commits when it holds as many points as that allows.",
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
    crs: str | None,
    surfaces: tuple[str, ...],
    where: str | None,
    columns: str,
    mapping_path: Path | None,
    chunk_size: float | None,
    dem: Path | None,
    max_dem_difference: float,
    memory: float,
    backend: str,
    stall: float | None,
    lease: float | None,
    freeze: bool,
) -> None:
    """Read GRANULES, project their points and add them to the point DB.

    A granule that is there already changes nothing; one that cannot be read is named, and the others go in.  Any number
    of processes on any number of hosts may work on it, as on a run; interrupted or killed, the same command goes on.

    \b
    Example:
      cryotile ingest antarctica.pdb granules/CS_OFFL_SIR_TDP_LI_ANTARC_*.nc --crs EPSG:3031 --backend local:8
    """
    names = tuple(name.strip() for name in columns.split(",") if name.strip())
    mapping = None if mapping_path is None else ColumnMapping.load(mapping_path)
    points_within(memory)
    if _is_new(db):
        if dem is not None and crs is not None:
            Dem(dem, projected_crs(crs))
        _check_before_creating(granules, names, where, mapping)
    points = _open_or_create(db, crs, names, chunk_size)
    if dem is not None:
        Dem(dem, points.crs)
    if where is not None:
        where = str(Where.parse(where, columns=points.column_names))
    criteria = Criteria(surfaces, where, mapping_path, dem, max_dem_difference, memory)
    frozen = freeze_ingest(points, granules, criteria, workers=_workers(backend))
    if freeze:
        click.echo(
            f"{frozen.path}: {counted(len(granules), 'granule')} in {number(len(frozen.tasks))} batches;"
            f" go on with: cryotile submit {frozen.path}, or cryotile run {frozen.path}"
        )
        return
    if backend == "auto" and len(frozen.tasks) == 1 and choose(os.environ).spec.startswith("local"):
        # One batch needs no farm.
        backend = "serial"
    run_ingest(frozen, backend, stall=stall, lease=lease, shown=granules)


def _workers(backend: str) -> int:
    """Return how many workers a backend will have, as far as can be known when batches are made."""
    spec = choose(os.environ).spec if backend == "auto" else backend
    scheme, _, argument = spec.partition(":")
    if scheme in ("serial", "local"):
        return 1 if scheme == "serial" else pool_size(scheme, argument)
    return UNKNOWN_WORKERS


def run_ingest(
    frozen: Ingest,
    backend: str,
    *,
    stall: float | None,
    lease: float | None,
    only: Sequence[Task] | None = None,
    shown: Sequence[Path] = (),
) -> None:
    """Work on an ingest, and say what came of it.

    Parameters
    ----------
    frozen : Ingest
        Its batches.
    backend : str
        Who works.
    stall, lease : float or None
        Seconds.
    only : sequence of Task or None
        Some of the batches; None: all.
    shown : sequence of Path
        The granules as the user wrote them.

    Raises
    ------
    CryotileError
        Some granule did not go in; each is named.
    """
    before = set(PointDB(frozen.db_path).checksums().values())
    share = work_through(frozen, backend, stall=stall, lease=lease, sizes=frozen.sizes, only=only)
    if share:
        report(frozen, share, before, {str(path.absolute()): str(path) for path in shown})
    # Else another speaks for the farm: this was one of the ranks that rank 0 of an MPI program handed out to.


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
    offered = sorted(extra_columns(mapping))
    unknown = sorted(set(columns).difference(offered))
    if unknown:
        raise InvalidValue(
            f"extra column {unknown[0]!r} is offered by no reader; choose of {', '.join(offered)}"
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
            with open_source(granule) as source:
                table_reader(mapping).check(source)
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
