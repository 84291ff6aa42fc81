"""Commands on runs: ``plan``, ``run``, ``retry``, ``submit``."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from cryotile import api
from cryotile.cli import saying_what_is_saved, with_options
from cryotile.cli.screen import (
    BACKEND,
    LEASE,
    PATH,
    RUN,
    STALL,
    counted,
    number,
    print_report,
    size,
    to_stderr,
)
from cryotile.errors import CryotileWarning, InvalidValue, command
from cryotile.fit.config import OFFERED_TERMS, RECIPES, WEIGHTS
from cryotile.pointdb import PointDB
from cryotile.runs.cost import estimate
from cryotile.runs.hosting import served
from cryotile.runs.ingest import Ingest
from cryotile.runs.origin import FLAGS
from cryotile.runs.plan import REGIONS, SETTINGS
from cryotile.runs.run import Run, open_db
from cryotile.runs.staleness import beyond_bounds, beyond_period, changed_tiles
from cryotile.runs.submit import BACKENDS, SCHEDULERS, make_job, submitted_tasks
from cryotile.runs.submit import submit as hand_in
from cryotile.runs.work import complete_ingest, complete_run, load_tasks, replanned

__all__ = ["plan", "retry", "run", "submit"]

STALE_SHOWN = 12
"""Number of stale tiles that a plan names; it counts the others."""


# --- plan ---------------------------------------------------------------------------------------------------------

_KINDS: dict[str, dict[str, Any]] = {
    "float": {"type": float},
    "int": {"type": int},
    "str": {},
    "tuple[str, ...]": {"multiple": True},
    "tuple[float, ...]": {"multiple": True, "type": float},
    "tuple[str, str]": {"nargs": 2},
    "Bounds": {"nargs": 4, "type": float},
    "OffsetField": {"type": PATH},
}
"""Type of a setting → how its option is read."""

_OPTIONS: dict[str, tuple[str | None, str]] = {
    "posting": ("METRES", "Distance between posts.  [default: 1000]"),
    "radius": ("METRES", "Search radius.  [default: 2000]"),
    "bounds": (
        "X_MIN Y_MIN X_MAX Y_MAX",
        "Where to put posts, metres.  [default: the points' extent]",
    ),
    "region": (None, "Bounds by name."),
    "where": ("EXPR", "Which points to fit, e.g. \"platform == 'icesat2'\"."),
    "mask": (
        "FILE",
        "Where a map is wanted: inside the polygons of a vector file, or where a GeoTIFF is not 0."
        "  [default: all posts]",
    ),
    "offsets": (
        "RUN",
        "Take from points the offsets of platforms and modes that this finished run found, smooth in space.",
    ),
    "basins": (
        "FILE",
        "Also make the sums over the polygons of a vector file that totals with a sigma need; with --column.",
    ),
    "column": ("NAME", "Column of --basins that names them."),
    "period": (
        "START END",
        "First day, and the day after the last, UTC.  [default: whole years that cover the points]",
    ),
    "reference_epoch": ("TIME", "The t = 0 of the fit.  [default: the middle of the period]"),
    "tile_size": ("POSTS", "Posts along a side of a tile.  [default: 100]"),
    "recipe": (None, "Recipe of the fit.  [default: passes]"),
    "terms": (
        "TERM",
        f"Fit this, too; may be repeated: {', '.join(OFFERED_TERMS)}, or a point column.  Recipe passes.",
    ),
    "priors": (
        "NAME=SIZE",
        "Plausible size of the coefficient of a --term of the recipe passes; may be repeated.",
    ),
    "weights": (None, "Weight points by this; may be repeated."),
    "uncertainty_floor": (
        "METRES",
        "With --weight uncertainty: added in quadrature.  [default: 0.1]",
    ),
    "distance_scale": (
        "METRES",
        "With --weight distance: weights fall by e over this.  [default: 1000]",
    ),
    "fallback_radii": (
        "METRES",
        "Radius to try where a gate fails; may be repeated, ascending.",
    ),
    "other_platforms": (
        "WORD",
        "With --term platform_offset: a platform, beside the known ones, whose points are still to come; may be"
        " repeated.",
    ),
    "min_points": ("POINTS", "Gate: fewest points of a fit.  [default: the recipe's]"),
    "min_passes": ("PASSES", "Gate: fewest passes of a fit.  [default: the recipe's]"),
    "min_span_days": (
        "DAYS",
        "Gate of the recipe plane: shortest time from the first to the last point.  [default: 30]",
    ),
    "max_rate": ("M/YR", "Gate: largest rate, up or down.  [default: the recipe's]"),
    "max_ci95": (
        "M/YR",
        "Gate of the recipe passes: widest 95 % interval, half width.  [default: 1]",
    ),
    "heights": ("SPAN", "Heights in bins of this width, e.g. 1m, 3m or 1y; recipe passes."),
    "min_tolerance": (
        "NUMBER",
        "Gate of the recipe plane: least tolerance (1 - R²) of a column.  [default: 0.0001]",
    ),
}
"""Setting → metavar and help of its option."""

_WINDOW = "Rates of windows of this length, e.g. 5y, beside that of the period; recipe passes."
_STEP = "With --window: one begins every step, e.g. 1m."

_CHOICES = {"region": sorted(REGIONS), "recipe": sorted(RECIPES), "weights": list(WEIGHTS)}

_Command = Callable[..., None]


def _settings(command: _Command) -> _Command:
    """Give a command an option for each setting."""
    # Decorators are applied from the last to the first.
    for name in reversed(SETTINGS):
        if name == "windows":
            command = click.option("--step", metavar="SPAN", help=_STEP)(command)
            command = click.option("--window", metavar="SPAN", help=_WINDOW)(command)
            continue
        metavar, text = _OPTIONS[name]
        kind = _KINDS[SETTINGS[name]]
        if name in _CHOICES:
            kind = {**kind, "type": click.Choice(_CHOICES[name])}
        flag = FLAGS.get(name, "--" + name.replace("_", "-"))
        command = click.option(flag, name, metavar=metavar, help=text, **kind)(command)
    return command


def _windows(window: str | None, step: str | None) -> tuple[str, str] | None:
    """Return length and step of windows."""
    if window is None and step is None:
        return None
    if window is None or step is None:
        raise InvalidValue(
            f"--window {window} --step {step} gives one of two spans; give both, e.g. --window 5y --step 1m"
        )
    return window, step


@click.command()
@RUN
@click.option(
    "--db",
    type=PATH,
    help="Point DB; required for a new run, and for one whose point DB was moved.",
)
@_settings
def plan(
    run_directory: Path, db: Path | None, window: str | None, step: str | None, **asked: Any
) -> None:
    """Freeze a run in directory RUN: its grid, its settings and its list of tiles, costliest first.

    On a run that exists no option is needed; tiles whose points have changed since are listed anew.  If no post can
    have a fit, the plan says so and why.

    \b
    Example:
      cryotile plan run/ --db greenland.pdb --posting 500 --radius 2000 --where "platform == 'icesat2'"
    """
    # An option that may be repeated and was not given is an empty tuple.
    given = {name: None if value == () else value for name, value in asked.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CryotileWarning)
        planned = api.plan(run_directory, db, windows=_windows(window, step), **given)
    _print_plan(planned)
    for warning in caught:
        click.echo(f"warning      {with_options(str(warning.message))}")


def _print_plan(run: Run) -> None:
    settings, table = run.settings, run.table
    ny, nx = settings.grid.shape
    waiting = run.missing_quick()
    stored = run.store.names() if waiting else set()
    stale = sorted(name for name in (run.names[task.index] for task in waiting) if name in stored)
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
        f"tiles        {number(len(table))} with points, {number(len(waiting))} to do,"
        f" of them {number(len(stale))} stale"
    )
    if stale:
        more = len(stale) - STALE_SHOWN
        names = ", ".join(stale[:STALE_SHOWN])
        click.echo(f"stale        {names}{f' and {number(more)} more' if more > 0 else ''}")
    for line in _beyond_lines(run, open_db(run)):
        click.echo(line)
    click.echo(f"points       {number(table['points'].max())} in the fullest tile's window")
    click.echo(
        f"expected     {expected.core_hours:.2g} core-hours, {size(expected.peak_bytes)} peak memory a worker"
    )
    for name, intervals in settings.fit.intervals.items():
        what = "windows     " if name == "time" else "heights     "
        days = intervals.astype("datetime64[D]")
        click.echo(f"{what} {number(len(days))}, from {days[0, 0]} to {days[-1, 1]}")
    if settings.regions is not None:
        basins = settings.regions.names
        rest = len(basins) - STALE_SHOWN
        others = f" and {number(rest)} more" if rest > 0 else ""
        click.echo(f"basins       {number(len(basins))}: {', '.join(basins[:STALE_SHOWN])}{others}")
    if settings.fit.recipe == "plane":
        click.echo(
            "note         recipe plane asks for 30 days and two passes only, and rejects nothing"
        )


def grown_lines(run: Run) -> list[str]:
    """Return lines that say which command takes in new points; empty if no tile is stale.

    Parameters
    ----------
    run : Run
        With its newest task list.
    """
    db = open_db(run)
    changed = changed_tiles(run, db)
    if not changed:
        return []
    return [
        f"{run.path}: the point DB has grown since commit {run.snapshot} (it is at {db.snapshot}), and"
        f" {counted(len(changed), 'tile')} {'is' if len(changed) == 1 else 'are'} stale; list them with:"
        f" {command('plan', run.path)}",
        *_beyond_lines(run, db),
    ]


def _beyond_lines(run: Run, db: PointDB) -> Iterator[str]:
    """Yield lines about new points that the run never reads, because its bounds and its period are frozen."""
    beyond, span = beyond_bounds(run, db), beyond_period(run, db)
    if beyond is not None:
        where = " ".join(f"{edge:.0f}" for edge in beyond.extent)
        yield (
            f"beyond       {number(beyond.count)} new points lie beyond the bounds of the run, within {where}"
            " (x_min y_min x_max y_max); a new run takes them in"
        )
    if span is not None:
        yield (
            f"beyond       new points lie beyond the period of the run: there are some from {span[0]:%Y-%m-%d} to"
            f" {span[1]:%Y-%m-%d} now; a new run takes them in"
        )


# --- run ----------------------------------------------------------------------------------------------------------


@click.command()
@RUN
@BACKEND
@click.option(
    "--submission",
    type=int,
    metavar="NUMBER",
    help="Only the tasks that 'cryotile submit' listed under this number.",
)
@STALL
@LEASE
@click.option(
    "--serve",
    is_flag=True,
    help="With --backend http: the workers of RUN host the server themselves, one of them at a time.",
)
def run(
    run_directory: Path,
    backend: str,
    submission: int | None,
    stall: float | None,
    lease: float | None,
    serve: bool,
) -> None:
    """Work on RUN until nothing is left; interrupted or killed, the same command goes on.

    A run works on the snapshot of the point DB that it was planned on.  When all its tiles are there and the point DB
    has grown since, it is planned again first (backends serial and local; for others, give 'cryotile plan').

    A member of an array job (backends array and index:K/N) works until its own share of the tiles is there.  RUN may
    be a frozen ingest, too: cryotile run ice.pdb/ingests/…

    \b
    Example:
      cryotile run run/ --backend local:8
    """
    tasks = load_tasks(run_directory)
    tasks.check()  # If the point DB is gone, one line says so here, in place of one for each task.
    only = None if submission is None else submitted_tasks(tasks, submission)
    options: dict[str, Any] = {
        "stall": stall,
        "lease": lease,
        "only": only,
        "progress": sys.stderr.isatty(),
        "tell": to_stderr,
    }
    if isinstance(tasks, Ingest):
        with served(tasks, backend, serve, to_stderr), saying_what_is_saved(tasks):
            report = complete_ingest(tasks, backend, **options)
        print_report(report)
        return
    now = replanned(tasks, backend) if only is None else tasks
    if now is not tasks and (waiting := len(now.missing_quick())):
        click.echo(
            f"{now.path}: the point DB has grown since commit {tasks.snapshot}; planned again on commit {now.snapshot}:"
            f" {counted(waiting, 'tile')} of {number(len(now.tasks))} to do"
        )
    with served(now, backend, serve, to_stderr), saying_what_is_saved(now):
        share = complete_run(now, backend, **options)
    # An empty share: this is one of the ranks of an MPI program, and rank 0 speaks for all.
    if share or not now.tasks:
        _print_finished(now, len(share))


def _print_finished(run: Run, share: int) -> None:
    if share < len(run.tasks):
        click.echo(
            f"{run.path}: this member's {number(share)} of {number(len(run.tasks))} tiles are there;"
            f" see the others: {command('status', run.path)}"
        )
        return
    click.echo(
        f"{run.path}: all {number(len(run.tasks))} tiles are there;"
        f" go on with: {command('assemble', run.path, '-o', 'dhdt.nc')}"
    )
    for line in grown_lines(run):
        click.echo(line)


@click.command()
@RUN
def retry(run_directory: Path) -> None:
    """Put the failed tiles of RUN, or batches of an ingest, back, so that the next 'cryotile run' tries them again.

    \b
    Example:
      cryotile retry run/
    """
    tasks = load_tasks(run_directory)
    count = tasks.retry()
    click.echo(f"{run_directory}: {number(count)} failed {tasks.nouns} put back")
    if count:
        click.echo(f"go on with: {command('run', run_directory)}")


@click.command()
@RUN
@click.option(
    "--scheduler",
    type=click.Choice(list(SCHEDULERS)),
    required=True,
    help="Scheduler of the cluster.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="array",
    show_default=True,
    help="How the members of the job share the tasks.",
)
@click.option(
    "--members",
    type=click.IntRange(min=1),
    required=True,
    help="Members of the array, or MPI ranks.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show the job script and the command; submit nothing."
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- SCHEDULER_OPTIONS]")
def submit(
    run_directory: Path,
    scheduler: str,
    backend: str,
    members: int,
    dry_run: bool,
    options: tuple[str, ...],
) -> None:
    """Write a job script for the missing tasks of RUN, and submit it; submitting again covers those still missing.

    Lines like 'module load python' or 'source env/bin/activate' that a job needs go into run.toml, of an ingest into
    ingest.toml:

    \b
      [submit]
      setup = ["module load python", "source ~/ice/bin/activate"]

    Time and memory follow from the plan, with a margin: twice the expected time and ten minutes, one and a half times
    the expected memory and 300 MB.  Options behind -- go to the scheduler's own command and win over the script's.

    \b
    Example:
      cryotile submit run/ --scheduler slurm --members 100 -- --account=ice --time=4:00:00
    """
    run = load_tasks(run_directory)
    run.check()  # If the point DB is gone, one line says so here, in place of one for each member.
    if isinstance(run, Run):
        # On standard error: the job works on its own list, and a script that is shown can be piped.
        for line in grown_lines(run):
            to_stderr(line)
    job = make_job(run, scheduler, backend=backend, members=members, options=options)
    if dry_run:
        click.echo(job.script, nl=False)
        click.echo(f"# submitted by: {shlex.join([*job.command, 'job.sh'])}  (in {job.directory})")
        return
    name = hand_in(job)
    click.echo(
        f"{run_directory}: {number(len(job.tasks))} {run.nouns} submitted as {scheduler} job {name}; its script and"
        f" what it prints are in {job.directory}"
    )
    click.echo(f"see how far it is: {command('status', run_directory)}")
