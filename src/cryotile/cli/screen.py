"""What the command line shows: progress bars on a terminal, plain numbers everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["SIZE", "bar", "clock", "counted", "number", "size", "span", "track"]

T = TypeVar("T")


def bar() -> Progress:
    """Return a progress display on standard error that is silent where that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Pass items on while a bar counts them.

    Parameters
    ----------
    items : iterable
        What comes.
    title : str
        What the bar says.
    total : int
        How many will come.

    Yields
    ------
    item
        Each in turn.
    """
    with bar() as progress:
        task = progress.add_task(title, total=total, note="")
        for item in items:
            yield item
            progress.advance(task)


def number(value: float) -> str:
    """Write a count with groups: ``12,345``."""
    return f"{value:,.0f}"


def counted(count: int, noun: str) -> str:
    """Write a count of things: ``1 tile``, ``12,345 tiles``."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Write a number of bytes: ``1.3 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


class _Size(click.ParamType[float]):
    """A number of bytes as users write it: ``800MB``, ``2 GB``."""

    name = "size"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return bytes."""
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"([0-9.]+)\s*([kMGT]?)i?B?", value.strip(), re.IGNORECASE)
        try:
            number = float(match[1]) if match else 0.0
        except ValueError:
            number = 0.0
        if match is None or not number > 0:
            self.fail(f"{value!r} is no size; write e.g. 800MB or 2GB", param, ctx)
        return number * 1000.0 ** " kmgt".index(match[2].lower() or " ")


SIZE = _Size()


def clock(seconds: float) -> str:
    """Write a time that runs: ``0:34``, ``12:05``, ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def span(seconds: float) -> str:
    """Write about how long: ``40 s``, ``21 min``, ``3.5 h``, ``2.1 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
