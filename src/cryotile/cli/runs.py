"""Commands on runs: ``plan``, ``run``."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import click

from cryotile.backends.auto import choose
from cryotile.cli.data import run_ingest
from cryotile.cli.farming import BACKEND, LEASE, STALL, work_through
from cryotile.cli.screen import counted, number, size
from cryotile.cli.staleness import beyond_lines, grown_lines
from cryotile.errors import CryotileError, InvalidValue
from cryotile.fit.config import RECIPES, TERMS, WEIGHTS
from cryotile.pointdb import PointDB
from cryotile.points import Bounds
from cryotile.runs.cost import estimate
from cryotile.runs.ingest import Ingest
from cryotile.runs.plan import REGIONS, PlanRequest
from cryotile.runs.run import Run, open_db, plan_run
from cryotile.runs.submit import submitted_tasks
from cryotile.runs.work import load_tasks
from cryotile.selection import Where

__all__ = ["plan", "run"]

STALE_SHOWN = 12
"""Stale tiles that a plan names; of others it tells how many."""

RUN = click.argument(
    "run_directory", metavar="RUN", type=click.Path(path_type=Path, readable=False)
)


@click.command()
@RUN
@click.option(
    "--db", type=click.Path(path_type=Path, readable=False), help="Point DB; needed for a new run."
)
@click.option(
    "--posting", type=float, metavar="METRES", help="Distance between posts.  [default: 1000]"
)
@click.option("--radius", type=float, metavar="METRES", help="Search radius.  [default: 2000]")
@click.option(
    "--bounds",
    type=float,
    nargs=4,
    metavar="X_MIN Y_MIN X_MAX Y_MAX",
    help="Where to put posts, metres.  [default: the points' extent]",
)
@click.option("--region", type=click.Choice(sorted(REGIONS)), help="Bounds by name.")
@click.option(
    "--where", metavar="EXPR", help="Which points to fit, e.g. \"platform == 'icesat2'\"."
)
@click.option(
    "--mask",
    type=click.Path(readable=False),
    metavar="FILE",
    help="Where a map is wanted: inside the polygons of a vector file, or where a GeoTIFF is not 0.  [default: all"
    " posts]",
)
@click.option(
    "--period",
    nargs=2,
    metavar="START END",
    help="First day, and the day after the last, UTC."
    "  [default: whole years that cover the points]",
)
@click.option(
    "--reference-epoch",
    metavar="TIME",
    help="The t = 0 of the fit.  [default: the middle of the period]",
)
@click.option(
    "--tile-size", type=int, metavar="POSTS", help="Posts along a tile's side.  [default: 100]"
)
@click.option(
    "--recipe", type=click.Choice(sorted(RECIPES)), help="What is fitted.  [default: robust]"
)
@click.option(
    "--term",
    "terms",
    multiple=True,
    metavar="TERM",
    help=f"In place of the recipe's terms, once for each: {', '.join(TERMS)}, or a point column.",
)
@click.option(
    "--weight", "weights", multiple=True, type=click.Choice(WEIGHTS), help="Weight points by this."
)
@click.option(
    "--fallback-radius",
    "fallback_radii",
    multiple=True,
    type=float,
    metavar="METRES",
    help="Radius to try where a post fails; several, ascending.",
)
def plan(
    run_directory: Path,
    db: Path | None,
    posting: float | None,
    radius: float | None,
    bounds: Bounds | None,
    region: str | None,
    where: str | None,
    mask: str | None,
    period: tuple[str, str] | None,
    reference_epoch: str | None,
    tile_size: int | None,
    recipe: str | None,
    terms: tuple[str, ...],
    weights: tuple[str, ...],
    fallback_radii: tuple[float, ...],
) -> None:
    """Freeze a run in directory RUN: its grid, its settings and its list of tiles, costliest first.

    On a run that is there already no option is needed; tiles whose points have changed since are listed anew.

    \b
    Example:
      cryotile plan run/ --db greenland.pdb --posting 500 --radius 2000 --where "platform == 'icesat2'"
    """
    points = None if db is None else PointDB(db)
    if region is not None:
        bounds = _region_bounds(region, bounds, points)
    if where is not None:
        where = str(Where.parse(where, columns=points.column_names if points else None))
    request = PlanRequest(
        posting=posting,
        radius=radius,
        recipe=recipe,
        terms=terms or None,
        weights=weights or None,
        fallback_radii=fallback_radii or None,
        bounds=bounds,
        where=where,
        mask=mask,
        period=period,
        reference_epoch=reference_epoch,
        tile_size=tile_size,
    )
    _report_plan(plan_run(run_directory, request, db=points))


def _region_bounds(region: str, bounds: Bounds | None, db: PointDB | None) -> Bounds:
    crs, extent = REGIONS[region]
    if bounds is not None:
        raise InvalidValue(
            f"--region {region} and --bounds both say where the posts are; give one of them"
        )
    if db is not None and db.crs != crs:
        raise InvalidValue(
            f"--region {region} is known in {crs}, and the point DB is in {db.crs_text}; give --bounds"
        )
    return extent


def _report_plan(run: Run) -> None:
    settings, table = run.settings, run.table
    ny, nx = settings.grid.shape
    waiting = run.missing_quick()
    stored = run.store.names() if waiting else set()
    stale = sum(run.names[task.index] in stored for task in waiting)
    expected = estimate(table)
    click.echo(
        f"run          {run.path}, {settings.grid.crs}, reads {run.db_path} as of commit {run.snapshot}"
    )
    click.echo(
        f"posts        {number(nx)} x {number(ny)}, every {settings.grid.posting:g} m;"
        f" radius {settings.fit.radius:g} m, recipe {settings.fit.recipe}"
        + (f" with {', '.join(settings.fit.terms)}" if settings.fit.terms else "")
    )
    assert settings.fit.period is not None
    click.echo(
        f"period       {settings.fit.period[0]} to {settings.fit.period[1]},"
        f" reference epoch {settings.fit.reference_epoch}"
    )
    click.echo(
        f"tiles        {number(len(table))} with points, {number(len(waiting))} to do, of them {number(stale)} stale"
    )
    if stale:
        names = [name for name in (run.names[task.index] for task in waiting) if name in stored]
        more = f" and {number(stale - STALE_SHOWN)} more" if stale > STALE_SHOWN else ""
        click.echo(f"stale        {', '.join(sorted(names)[:STALE_SHOWN])}{more}")
    for line in beyond_lines(run, open_db(run)):
        click.echo(line)
    click.echo(f"points       {number(table['points'].max())} in the fullest tile's window")
    click.echo(
        f"expected     {expected.core_hours:.2g} core-hours, {size(expected.peak_bytes)} peak memory a worker"
    )
    if settings.fit.recipe == "plane":
        click.echo(
            "note         recipe plane gates on neither the share of the period nor six passes"
        )


@click.command()
@RUN
@BACKEND
@click.option(
    "--submission",
    type=int,
    metavar="NUMBER",
    help="Only what 'cryotile submit' listed under this number.",
)
@STALL
@LEASE
def run(
    run_directory: Path,
    backend: str,
    submission: int | None,
    stall: float | None,
    lease: float | None,
) -> None:
    """Work on RUN until nothing is left; interrupted or killed, the same command goes on.

    A run works on the snapshot of the point DB that it was planned on.  When all its tiles are there and the point DB
    has grown since, it is planned again first (backends serial and local; on others 'cryotile plan' does it).

    A member of an array job (backends array and index:K/N) works until its own share of the tiles is there.  An ingest
    that was frozen is worked on likewise: cryotile run ice.pdb/ingests/…

    \b
    Example:
      cryotile run run/ --backend local:8
    """
    frozen = load_tasks(run_directory)
    frozen.check()  # Gone is better said once, now, than by every task.
    if isinstance(frozen, Ingest):
        only = None if submission is None else submitted_tasks(frozen, submission)
        run_ingest(frozen, backend, stall=stall, lease=lease, only=only)
        return
    if submission is None:
        frozen = _planned_again(frozen, backend)
    share = work_through(
        frozen,
        backend,
        stall=stall,
        lease=lease,
        only=None if submission is None else submitted_tasks(frozen, submission),
    )
    if share or not frozen.tasks:
        _report_run(frozen, share)
    # Else another speaks for the farm: this was one of the ranks that rank 0 of an MPI program handed out to.


def _report_run(run: Run, share: Collection[int]) -> None:
    """Say what has become of the tiles that this process answers for, and which command goes on."""
    left = {task.index for task in run.missing_quick() if task.index in share}
    failed = {index: error for index, error in run.failed().items() if index in left}
    if failed:
        index, error = next(iter(failed.items()))
        reason = error.strip().rpartition("\n")[2]
        raise CryotileError(
            f"{number(len(failed))} of {number(len(share))} tiles failed (the first, {run.names[index]}: {reason});"
            f" 'cryotile status {run.path}' says why, 'cryotile retry {run.path}' puts them back"
        )
    if left:
        raise CryotileError(
            f"{number(len(left))} of {number(len(share))} tiles are not there; go on with: cryotile run {run.path}"
        )
    if len(share) < len(run.tasks):
        click.echo(
            f"{run.path}: this member's {number(len(share))} of {number(len(run.tasks))} tiles are there;"
            f" see the others: cryotile status {run.path}"
        )
        return
    click.echo(
        f"{run.path}: all {number(len(run.tasks))} tiles are there;"
        f" go on with: cryotile assemble {run.path} -o dhdt.nc"
    )
    for line in grown_lines(run):
        click.echo(line)


def _planned_again(run: Run, backend: str) -> Run:
    """Plan a finished run again when the point DB has grown, and say so.

    Only where this process is the head of its farm: members that each planned again might do it on different commits.
    """
    spec = choose(os.environ).spec if backend == "auto" else backend
    if spec.partition(":")[0] not in ("serial", "local") or run.missing_quick():
        return run
    again = plan_run(run.path, PlanRequest())
    waiting = len(again.missing_quick())
    if waiting:
        click.echo(
            f"{run.path}: the point DB has grown since commit {run.snapshot}; planned again on commit {again.snapshot}:"
            f" {counted(waiting, 'tile')} of {number(len(again.tasks))} to do"
        )
    return again
