"""Commands on runs: ``plan``, ``run``, ``retry``, ``status``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cryotile.backends import open_backend
from cryotile.backends.auto import AutoBackend
from cryotile.cli.screen import bar, number, size
from cryotile.cost import estimate
from cryotile.errors import CryotileError, InvalidValue
from cryotile.plan import REGIONS, PlanRequest
from cryotile.pointdb import PointDB
from cryotile.points import Bounds
from cryotile.run import Run, open_db, plan_run
from cryotile.submit import submitted_tasks
from cryotile.where import Where
from cryotile.work import FitTile

__all__ = ["plan", "retry", "run", "status"]

RUN = click.argument("run_directory", metavar="RUN", type=click.Path(path_type=Path))


@click.command()
@RUN
@click.option("--db", type=click.Path(path_type=Path), help="Point DB; needed for a new run.")
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
@click.option("--recipe", type=click.Choice(["plane"]), help="What is fitted.  [default: plane]")
def plan(
    run_directory: Path,
    db: Path | None,
    posting: float | None,
    radius: float | None,
    bounds: Bounds | None,
    region: str | None,
    where: str | None,
    period: tuple[str, str] | None,
    reference_epoch: str | None,
    tile_size: int | None,
    recipe: str | None,
) -> None:
    """Freeze a run in directory RUN: its grid, its settings and its list of tiles, dearest first.

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
        bounds=bounds,
        where=where,
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
    waiting = len(run.missing())
    stored = sum(run.store.file(tile).exists() for tile in run.tiles)
    stale = waiting - (len(table) - stored)
    expected = estimate(table)
    click.echo(
        f"run          {run.path}, {settings.grid.crs}, reads {run.db_path} as of commit {run.snapshot}"
    )
    click.echo(
        f"posts        {number(nx)} x {number(ny)}, every {settings.grid.posting:g} m;"
        f" radius {settings.fit.radius:g} m, recipe {settings.fit.recipe}"
    )
    assert settings.fit.period is not None
    click.echo(
        f"period       {settings.fit.period[0]} to {settings.fit.period[1]},"
        f" reference epoch {settings.fit.reference_epoch}"
    )
    click.echo(
        f"tiles        {number(len(table))} with points, {number(waiting)} to do, of them {number(stale)} stale"
    )
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
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    metavar="SPEC",
    help="Who works: serial, local, local:8, mpi, array, index:3/100, dir, dask:tcp://HOST:8786; auto chooses.",
)
@click.option(
    "--submission",
    type=int,
    metavar="NUMBER",
    help="Only what 'cryotile submit' listed under this number.",
)
def run(run_directory: Path, backend: str, submission: int | None) -> None:
    """Work on RUN until nothing is left; interrupted or killed, the same command goes on.

    A member of an array job (backends array and index:K/N) works until its own share of the tiles is there.

    \b
    Example:
      cryotile run run/ --backend local:8
    """
    frozen = Run.load(run_directory)
    open_db(frozen)  # Gone is better said once, now, than by every tile.
    tasks = frozen.pending(None if submission is None else submitted_tasks(frozen, submission))
    farm = open_backend(backend, home=frozen.path, key=f"{frozen.uuid}/{frozen.generation}")
    if isinstance(farm, AutoBackend) and farm.choice.reason:
        click.echo(f"backend {farm.choice.spec} ({farm.choice.reason})", err=True)
    outcomes = frozen.record(farm.run(tasks, FitTile(frozen.path.resolve(), frozen.generation)))
    # Known only now: a member of an array has taken its share.
    share = {task.index for task in tasks.share}
    failed = {index: error for index, error in frozen.failed().items() if index in share}
    with bar() as progress:
        shown = progress.add_task("fit", total=len(tasks), note="")
        for outcome in outcomes:
            if outcome.error is not None:
                failed[outcome.task.index] = outcome.error
            progress.update(shown, advance=1, note=f"{len(failed)} failed" if failed else "")
    if failed:
        first = next(iter(failed.values())).strip().splitlines()[-1]
        raise CryotileError(
            f"{len(failed)} of {len(share)} tiles failed (the first: {first}); 'cryotile status {run_directory}'"
            f" says why, 'cryotile retry {run_directory}' puts them back"
        )
    if frozen.tasks and not share:
        # Another speaks for the farm: this was one of the ranks that rank 0 of an MPI program handed out to.
        return
    if len(share) < len(frozen.tasks):
        click.echo(
            f"{run_directory}: this member's {number(len(share))} of {number(len(frozen.tasks))} tiles are there;"
            f" see the others: cryotile status {run_directory}"
        )
        return
    click.echo(
        f"{run_directory}: all {number(len(frozen.tasks))} tiles are there;"
        f" go on with: cryotile assemble {run_directory} -o dhdt.nc"
    )


@click.command()
@RUN
def retry(run_directory: Path) -> None:
    """Put the failed tiles of RUN back, so that the next 'cryotile run' tries them again.

    \b
    Example:
      cryotile retry run/
    """
    count = Run.load(run_directory).retry()
    click.echo(f"{run_directory}: {number(count)} failed tiles put back")


@click.command()
@RUN
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(run_directory: Path, as_json: bool) -> None:
    """Say how far RUN has come.

    \b
    Example:
      cryotile status run/
    """
    frozen = Run.load(run_directory)
    missing = {task.index for task in frozen.missing()}
    failed = {index: error for index, error in frozen.failed().items() if index in missing}
    total, done, waiting = (
        len(frozen.tasks),
        len(frozen.tasks) - len(missing),
        len(missing) - len(failed),
    )
    if as_json:
        errors = {frozen.tiles[index].name: error for index, error in failed.items()}
        click.echo(json.dumps({"tiles": total, "done": done, "waiting": waiting, "failed": errors}))
        return
    click.echo(
        f"{run_directory}: {number(done)} of {number(total)} tiles done, {number(waiting)} waiting,"
        f" {number(len(failed))} failed"
    )
    for index, error in failed.items():
        click.echo(f"  {frozen.tiles[index].name}: {error.strip().splitlines()[-1]}")
    if waiting:
        click.echo(f"go on with: cryotile run {run_directory}")
    elif failed:
        click.echo(f"put the failed ones back with: cryotile retry {run_directory}")
    else:
        click.echo(f"go on with: cryotile assemble {run_directory} -o dhdt.nc")
