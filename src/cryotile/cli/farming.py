"""Working through a task list on a farm, for the commands that do."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from cryotile.backends import open_backend, share_of
from cryotile.backends.auto import choose
from cryotile.cli.screen import bar
from cryotile.farm.heartbeat import Heartbeat
from cryotile.farm.journal import Journaled
from cryotile.farm.task import Task
from cryotile.runs.ingest import Ingest
from cryotile.runs.run import Run
from cryotile.runs.work import work_on

__all__ = ["BACKEND", "LEASE", "STALL", "work_through"]

BACKEND = click.option(
    "--backend",
    default="auto",
    show_default=True,
    metavar="SPEC",
    help="Who works: serial, local, local:8, mpi, array, index:3/100, dir, sqlite:///FILE, postgresql://HOST/NAME,"
    " http://HOST:5000, dask:tcp://HOST:8786; auto chooses.",
)

STALL = click.option(
    "--stall",
    type=float,
    metavar="SECONDS",
    help="End a task that makes no progress for so long; it costs an attempt.  [default: 900]",
)

LEASE = click.option(
    "--lease",
    type=float,
    metavar="SECONDS",
    help="So long after the last sign of life of a worker others take over its tasks; for backends whose workers come"
    " and go (dir, mpi, a database, a server).  [default: 300]",
)


def work_through(
    frozen: Run | Ingest,
    backend: str,
    *,
    stall: float | None,
    lease: float | None,
    sizes: Sequence[int] | None = None,
    only: Sequence[Task] | None = None,
) -> set[int]:
    """Work on what is pending of a task list until nothing is left.

    Parameters
    ----------
    frozen : Run or Ingest
        The task list.
    backend : str
        Who works.
    stall, lease : float or None
        Seconds.
    sizes : sequence of int or None
        How many things each task is about, for the bar; None: one each.
    only : sequence of Task or None
        The part of the list that is meant; None: all.

    Returns
    -------
    set of int
        The tasks that this process answers for; empty where another speaks for the farm.
    """
    farm = open_backend(backend, home=frozen.path, key=frozen.key, stall=stall, lease=lease)
    if backend == "auto" and (choice := choose(os.environ)).reason:
        click.echo(f"backend {choice.spec} ({choice.reason})", err=True)
    share = share_of(farm, frozen.tasks if only is None else only)
    tasks = frozen.pending(share)
    journal = frozen.journal.resolve()
    outcomes = frozen.record(farm.run(tasks, Journaled(work_on(frozen), journal)))
    failed = 0
    with Heartbeat(journal), bar() as progress:
        total = len(tasks) if sizes is None else sum(sizes[task.index] for task in tasks)
        shown = progress.add_task("fit" if sizes is None else "ingest", total=total, note="")
        for outcome in outcomes:
            failed += outcome.error is not None
            advance = 1 if sizes is None else sizes[outcome.task.index]
            progress.update(shown, advance=advance, note=f"{failed} failed" if failed else "")
    return {task.index for task in share}
