"""The command ``status``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cryotile.cli.screen import (
    OUTPUT,
    clock,
    counted,
    number,
    range_left,
    to_stderr,
    unwrapped_console,
)
from cryotile.errors import CryotileError, InvalidValue, command
from cryotile.files import atomic_path
from cryotile.runs.ingest import Ingest
from cryotile.runs.run import Run
from cryotile.runs.status import Observer, RunStatus, State
from cryotile.runs.tasklist import TaskList
from cryotile.runs.work import load_tasks

__all__ = ["status"]

# Seconds between two looks, and the largest share of the time that looks may take on a file server.
_PAUSE = 1.0
_SHARE = 0.2

_BAR_WIDTH = 60

# Lines of the screen that the map leaves to the rest, and the fewest lines of a map.
_REST, _LEAST = 18, 3

# Character, style and meaning of a cell of the map.
_CELLS = (
    (" ", "", ""),
    ("·", "dim", "waiting"),
    ("▒", "green", "more than half done"),
    ("█", "green", "done"),
    ("○", "bold yellow", "running"),
    ("x", "bold red", "failed"),
)


@click.command()
@click.argument("place", metavar="RUN|ADDRESS")
@click.option("--watch", is_flag=True, help="Update until the run is over.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
@click.option(
    "--html",
    type=OUTPUT,
    metavar="FILE",
    help="Write the page about RUN as one file, for any browser.",
)
def status(place: str, watch: bool, as_json: bool, html: Path | None) -> None:
    """Show the status of RUN: tasks done, running and failed, the rate and the time left.

    A tile counts as done if its file ends with a valid trailer; 'cryotile run' and 'assemble' check every byte.  For a
    task-farm server at ADDRESS, show the status of its runs; credentials are in the address, or in $CRYOTILE_TOKEN.

    \b
    Example:
      cryotile status run/ --watch
      cryotile status run/ --html status.html
      cryotile status https://token@farm.example --watch
    """
    if html is not None:
        _write_page(place, html, alone=not (watch or as_json))
        return
    if place.startswith(("http://", "https://")):
        from cryotile.cli.server_status import show_server, watch_server

        (watch_server if watch else show_server)(place, as_json=as_json)
        return
    tasks = load_tasks(Path(place))
    observer = Observer(tasks)
    console = unwrapped_console()
    if watch:
        with _shown(console, observer, tasks, as_json) as show:
            seen = _until_over(observer, show)
        if seen.failed:
            raise CryotileError(
                f"{number(len(seen.failed))} of {number(seen.tiles)} {tasks.nouns} failed; put them back with:"
                f" {command('retry', tasks.path)}"
            )
    elif as_json:
        click.echo(json.dumps(asdict(observer.look())))
    else:
        console.print(_picture(observer.look(), observer, tasks, console, watching=False))


def _write_page(place: str, file: Path, *, alone: bool) -> None:
    """Write the page about a run."""
    # Imported here: the page and its thumbnails are not needed otherwise.
    from cryotile.runs.status_page import status_page

    if not alone:
        raise InvalidValue("--html writes one file; leave --watch and --json out")
    if place.startswith(("http://", "https://")):
        raise InvalidValue(f"the server at {place} has a page; open it in a browser")
    tasks = load_tasks(Path(place))
    if not isinstance(tasks, Run):
        raise InvalidValue(f"{place} is an ingest, which has no map; leave --html out")
    with atomic_path(file) as temporary:
        temporary.write_text(status_page(tasks, to_stderr), encoding="utf-8")
    to_stderr(f"wrote {file}; open it in a browser")


def _until_over(observer: Observer, show: Callable[[RunStatus], None]) -> RunStatus:
    while True:
        begin = time.monotonic()
        seen = observer.look()
        show(seen)
        if seen.over:
            return seen
        time.sleep(max(_PAUSE, (time.monotonic() - begin) / _SHARE))


@contextmanager
def _shown(
    console: Console, observer: Observer, run: TaskList, as_json: bool
) -> Iterator[Callable[[RunStatus], None]]:
    """Yield a function that shows a status: on a terminal in place of the last one, else as a line if it changed."""
    if console.is_terminal and not as_json:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda seen: live.update(
                _picture(seen, observer, run, console, watching=True), refresh=True
            )
        return
    last = ""

    def show(seen: RunStatus) -> None:
        nonlocal last
        line = json.dumps(asdict(seen)) if as_json else _summary(seen, run)
        if line != last:
            click.echo(line)
        last = line

    yield show


def _picture(
    seen: RunStatus, observer: Observer, run: TaskList, console: Console, *, watching: bool
) -> RenderableType:
    """Return one screen."""
    parts: list[RenderableType] = [Text(_summary(seen, run), style="bold")]
    if console.is_terminal and seen.tiles:
        parts.append(_bar(seen))
        if isinstance(run, Run) and (room := (console.height - _REST) // 2) >= _LEAST:
            parts += ["", _map(observer.states, run, console.width, room)]
    if not seen.over:
        parts += ["", _pace(seen, run)]
    if seen.lost:
        places = ", ".join(f"{lost.tile} on {lost.host}" for lost in seen.lost[:3])
        more = " and others" if len(seen.lost) > 3 else ""
        parts.append(
            Text(f"{counted(len(seen.lost), 'worker')} lost at {places}{more}; these wait again")
        )
    room = max(3, (console.height - 14) // 4) if console.is_terminal else max(3, seen.tiles)
    if seen.running:
        parts += ["", _running(seen, room)]
    if seen.failed:
        parts += ["", _failed(seen, room)]
    parts += ["", Text(_next(seen, run, watching))]
    return Group(*parts)


def _summary(seen: RunStatus, run: TaskList) -> str:
    return (
        f"{run.path}: {number(seen.done)} of {number(seen.tiles)} {run.nouns} done,"
        f" {number(len(seen.running))} running, {number(seen.waiting)} waiting, {number(len(seen.failed))} failed"
    )


def _bar(seen: RunStatus) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=seen.tiles, completed=seen.done, width=_BAR_WIDTH)
    # Rounded down: 100 % means that nothing is left.
    grid.add_row(bar, Text(f"{100 * seen.done // seen.tiles} %"))
    return grid


def _map(states: npt.NDArray[np.uint8], run: Run, width: int, height: int) -> RenderableType:
    """Return a coarse map of the tiles, north or y up; a character stands for twice as many rows as columns."""
    ix, iy = (run.table[name].to_numpy() for name in ("ix", "iy"))
    step = max(1, -(-int(np.ptp(ix) + 1) // width), -(-int(np.ptp(iy) + 1) // (2 * height)))
    columns, rows = (ix - ix.min()) // step, (iy.max() - iy) // (2 * step)
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    count = {}
    for state in State:
        count[state] = np.zeros(shape, int)
        np.add.at(count[state], (rows, columns), states == state)
    of = sum(count.values())
    # The last one that holds counts.
    cells = np.full(shape, 0)
    for place, where in enumerate((
        of > 0, 2 * count[State.DONE] > of, (count[State.DONE] == of) & (of > 0),
        count[State.RUNNING] > 0, count[State.FAILED] > 0,
    ), 1):  # fmt: skip
        cells[where] = place
    text = Text()
    for row in cells:
        for cell, group in groupby(row.tolist()):
            symbol, style, _ = _CELLS[cell]
            text.append(symbol * len(list(group)), style)
        text.append("\n")
    for symbol, style, meaning in _CELLS[1:]:
        text.append(symbol, style).append(f" {meaning}   ")
    return text


def _pace(seen: RunStatus, run: TaskList) -> Text:
    """Return a line with the workers and their rate."""
    if not seen.hosts:
        return Text("no worker is running", style="yellow")
    workers = counted(sum(seen.hosts.values()), "worker")
    hosts = ", ".join(seen.hosts) if len(seen.hosts) <= 4 else counted(len(seen.hosts), "host")
    words = [f"{workers} on {hosts}"]
    if seen.tiles_per_minute:
        words.append(f"{seen.tiles_per_minute:.3g} {run.nouns} a minute")
    if seen.seconds_left is not None:
        words.append(range_left(seen.seconds_left))
    return Text(", ".join(words))


def _running(seen: RunStatus, room: int) -> Table:
    table = _table("running", "on", "process", "for", "done")
    for attempt in seen.running[:room]:
        fraction = f"{100 * attempt.fraction:.0f} %" if attempt.fraction else ""
        time = clock(attempt.seconds)
        table.add_row(attempt.tile, attempt.host, str(attempt.pid), time, fraction)
    for column in table.columns[2:]:
        column.justify = "right"
    return _with_rest(table, len(seen.running) - room)


def _failed(seen: RunStatus, room: int) -> Table:
    table = _table("failed", "why")
    for tile, error in list(seen.failed.items())[:room]:
        table.add_row(tile, Text(error.strip().rpartition("\n")[2]))
    return _with_rest(table, len(seen.failed) - room)


def _table(*titles: str) -> Table:
    table = Table(*titles, box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.columns[0].no_wrap = True
    return table


def _with_rest(table: Table, rest: int) -> Table:
    if rest > 0:
        table.add_row(f"and {number(rest)} more")
    return table


def _next(seen: RunStatus, run: TaskList, watching: bool) -> str:
    if seen.hosts and not seen.over:
        return (
            "Ctrl-C ends this view; the run goes on"
            if watching
            else f"watch it with: {command('status', run.path, '--watch')}"
        )
    if not seen.over:
        return f"go on with: {command('run', run.path)}"
    if seen.failed:
        return f"put the failed ones back with: {command('retry', run.path)}"
    if isinstance(run, Ingest):
        return f"see what is in the point DB: {command('info', run.db_path)}"
    return f"go on with: {command('assemble', run.path, '-o', 'dhdt.nc')}"
