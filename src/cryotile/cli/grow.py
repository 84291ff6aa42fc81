"""The command ``farm grow``."""

from __future__ import annotations

import re
from pathlib import Path

import click

from cryotile.cli.screen import RUN
from cryotile.errors import InvalidValue

__all__ = ["grow"]


@click.command(context_settings={"ignore_unknown_options": True})
@RUN
@click.option(
    "--scheduler",
    type=click.Choice(["slurm", "pbs", "sge"]),
    required=True,
    help="Scheduler of the cluster.",
)
@click.option(
    "--workers",
    default="1..100",
    show_default=True,
    metavar="LEAST..MOST",
    help="Jobs to keep in the queue.",
)
@click.option(
    "--every",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--once", is_flag=True, help="Look once, as from cron.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- SCHEDULER_OPTIONS]")
def grow(
    run_directory: Path,
    scheduler: str,
    workers: str,
    every: float,
    once: bool,
    options: tuple[str, ...],
) -> None:
    """Keep as many jobs in the queue as the work left in RUN is worth, until it is done.

    It may run in a terminal, from cron (--once), or inside a job; where several are started, one does it and another
    takes over when that one is gone.  Options after -- go to the command of the scheduler.

    \b
    Example:
      cryotile farm grow run/ --scheduler slurm --workers 2..200 -- --partition=short
    """
    from cryotile.runs.grow import Grower
    from cryotile.runs.grow import grow as keep_growing
    from cryotile.runs.work import load_tasks

    limits = re.fullmatch(r"(\d+)\.\.(\d+)", workers)
    if limits is None:
        raise InvalidValue(f"--workers {workers} must be a range of integers; give e.g. 2..200")
    run = load_tasks(run_directory)
    grower = Grower(run, scheduler, int(limits[1]), int(limits[2]), options, tell=click.echo)
    if not keep_growing(grower, every=every, once=once) or once:
        return
    failed = len(run.failed())
    click.echo(f"{run.path}: nothing is left to do" + (f"; {failed} failed" if failed else ""))
