"""Status of a task-farm server: progress and rate of its runs, and failures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cryotile.cli.screen import number, range_left, unwrapped_console
from cryotile.errors import CryotileError, command
from cryotile.farm.http import Site
from cryotile.ledgers.http import open_api

__all__ = ["show_server", "watch_server"]

Run = Mapping[str, Any]

_PAUSE = 2.0

# What changes with time alone.
_RESTLESS = {"clock", "rate", "seconds_left", "seen"}

# Number of failures shown for a run.
_FEW = 3


def show_server(address: str, *, as_json: bool) -> None:
    """Show the runs of a task-farm server.

    Parameters
    ----------
    address : str
        Address of the server, see :func:`cryotile.ledgers.http.open_api`.
    as_json : bool
        Whether to print one object per line.
    """
    site = open_api(address, patience=0.0)
    runs = _look(site)
    if as_json:
        for run in runs:
            click.echo(json.dumps(run))
    else:
        unwrapped_console().print(_picture(site, runs))


def watch_server(address: str, *, as_json: bool) -> None:
    """Show the runs of a task-farm server until all are over; without a terminal, print a line for each change.

    Parameters
    ----------
    address : str
        Address of the server, see :func:`cryotile.ledgers.http.open_api`.
    as_json : bool
        Whether to print these lines as objects.

    Raises
    ------
    CryotileError
        Tasks have failed.
    """
    site, console = open_api(address), unwrapped_console()
    last: dict[str, str] = {}
    with Live(console=console, auto_refresh=False, transient=not console.is_terminal) as live:
        while True:
            runs = _look(site)
            if console.is_terminal and not as_json:
                live.update(_picture(site, runs), refresh=True)
            else:
                _print_changes(runs, last, as_json=as_json)
            if not any(run["waiting"] + run["leased"] for run in runs):
                break
            time.sleep(_PAUSE)
    if failed := sum(run["failed"] for run in runs):
        raise CryotileError(
            f"{number(failed)} tasks failed; see why with: {command('status', _without_secret(site))}"
        )


def _look(site: Site) -> list[Run]:
    runs: list[Run] = site.ask("GET", "runs")["runs"]
    return runs


def _picture(site: Site, runs: Sequence[Run]) -> RenderableType:
    """Return one screen."""
    if not runs:
        return Text("no runs")
    titles = ["run", "tasks", "done", "leased", "waiting", "failed", "workers", "a minute", "left"]
    table = Table(*titles, box=None, padding=(0, 3, 0, 0), header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    for run in runs:
        counts = [number(run[state]) for state in ("tasks", "done", "leased", "waiting", "failed")]
        table.add_row(run["name"] or run["key"], *counts, *_pace(run))
    return Group(table, *(line for run in runs if run["failed"] for line in _failures(site, run)))


def _pace(run: Run) -> list[str]:
    """Return the number of workers, tasks per minute, and the time left; a server of an earlier version tells none."""
    rate, left = run.get("rate"), run.get("seconds_left")
    words = range_left(left).removesuffix(" left") if left else ""
    words = "paused" if run.get("paused") else words
    return [number(run.get("workers", 0)), f"{60 * rate:.3g}" if rate else "", words]


def _failures(site: Site, run: Run) -> list[Text]:
    """Return lines with the errors of the first failed tasks of a run."""
    query = {"state": "failed", "limit": _FEW}
    tasks = site.ask("GET", f"runs/{run['run']}/tasks", query=query)["tasks"]
    lines = [Text(f"failed of {run['name'] or run['key']}:")]
    for task in tasks:
        reason = (task["error"] or "").rstrip().rpartition("\n")[2]
        lines.append(Text(f"  task {task['task']} on {task['host']}: {reason}"))
    if (rest := run["failed"] - len(tasks)) > 0:
        lines.append(Text(f"  and {number(rest)} more"))
    return lines


def _print_changes(runs: Sequence[Run], last: dict[str, str], *, as_json: bool) -> None:
    """Print a line for each run that has changed."""
    for run in runs:
        state = {name: value for name, value in run.items() if name not in _RESTLESS}
        line = json.dumps(state)
        if last.get(run["run"]) != line:
            last[run["run"]] = line
            click.echo(line if as_json else _summary(run))


def _summary(run: Run) -> str:
    return (
        f"{run['name'] or run['key']}: {number(run['done'])} of {number(run['tasks'])} tasks done, "
        f"{number(run['leased'])} leased, {number(run['waiting'])} waiting, {number(run['failed'])} failed"
        f"{', paused' if run.get('paused') else ''}"
    )


def _without_secret(site: Site) -> str:
    return site.base.removesuffix("/api/v1/")
