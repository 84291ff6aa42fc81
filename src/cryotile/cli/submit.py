"""The command ``submit``: what is missing of a run, as a job of a scheduler."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from cryotile.cli.screen import number
from cryotile.cli.staleness import grown_lines
from cryotile.runs.run import Run
from cryotile.runs.schedulers import SCHEDULERS
from cryotile.runs.submit import BACKENDS, make_job
from cryotile.runs.submit import submit as hand_in
from cryotile.runs.work import load_tasks

__all__ = ["submit"]


@click.command()
@click.argument("run_directory", metavar="RUN", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--scheduler", type=click.Choice(list(SCHEDULERS)), required=True, help="Whose job it is."
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="array",
    show_default=True,
    help="How they work.",
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
    """Write a job script that does what is missing of RUN, and submit it; again later, it covers what is missing then.

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
    run.check()  # Gone is better said once, now, than by every member.
    if isinstance(run, Run):
        # Its own list is what a job works on; a script that is shown stays fit for a pipe.
        for line in grown_lines(run):
            click.echo(line, err=True)
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
    click.echo(f"see how far it is: cryotile status {run_directory}")
