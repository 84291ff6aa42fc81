"""Options that several commands take, checks of their values, and texts that they print."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryotile.errors import InvalidValue

if TYPE_CHECKING:
    from rich.console import Console

    from cryotile.runs.ingest_batch import IngestReport

__all__ = [
    "BACKEND",
    "FORCE",
    "LEASE",
    "OUTPUT",
    "PATH",
    "RUN",
    "STALL",
    "OutputPath",
    "as_json_value",
    "check_free",
    "check_suffix",
    "clock",
    "counted",
    "dropped_lines",
    "number",
    "print_report",
    "range_left",
    "size",
    "span",
    "to_stderr",
    "unwrapped_console",
    "words",
]


PATH = click.Path(path_type=Path, readable=False)
"""Type of a path; what is wrong with it is said by what opens it."""


class OutputPath(click.Path):
    """Type of a file to write, refused before any work if its directory does not exist."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path.

        Raises
        ------
        InvalidValue
            There is no such directory; one that was made here would hide a mistyped path.
        """
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            raise InvalidValue(
                f"{path} cannot be written: its directory does not exist; create it or choose another one"
            )
        return path


OUTPUT = OutputPath(path_type=Path, readable=False)

RUN = click.argument("run_directory", metavar="RUN", type=PATH)

BACKEND = click.option(
    "--backend",
    default="auto",
    show_default=True,
    metavar="SPEC",
    help="Where tasks are done: serial, local, local:8, mpi, array, index:3/100, dir, sqlite:///FILE,"
    " postgresql://HOST/NAME, http://HOST:5000, dask:tcp://HOST:8786; auto chooses.",
)

STALL = click.option(
    "--stall",
    type=float,
    metavar="SECONDS",
    help="End a task that makes no progress for this long; it costs an attempt.  [default: 900]",
)

LEASE = click.option(
    "--lease",
    type=float,
    metavar="SECONDS",
    help="Time after the last sign of life of a worker when others take over its tasks; for backends whose workers"
    " come and go (dir, mpi, a database, a server).  [default: 300]",
)


FORCE = click.option("--force", is_flag=True, help="Overwrite a file that exists.")


def check_free(path: Path | None, *, force: bool) -> None:
    """Refuse to overwrite a file unless the user wants it.

    Raises
    ------
    InvalidValue
        It exists.
    """
    if path is not None and not force and path.exists():
        raise InvalidValue(f"{path} exists; give --force to overwrite it, or name another file")


def check_suffix(path: Path | None, suffixes: Sequence[str], example: str) -> None:
    """Refuse an output whose name does not say its format.

    Raises
    ------
    InvalidValue
        It ends in none of the suffixes.
    """
    if path is not None and path.suffix.lower() not in suffixes:
        raise InvalidValue(f"{path} ends in none of {', '.join(suffixes)}; name it e.g. {example}")


def words(text: str) -> list[str]:
    """Return the words of a list that commas separate."""
    return [word.strip() for word in text.split(",") if word.strip()]


def as_json_value(value: Any) -> Any:
    """Return a value as JSON has it: null for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def unwrapped_console() -> Console:
    """Return a console whose lines are not wrapped where other programs read them."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 1000
    return console


def to_stderr(line: str) -> None:
    """Print a line on standard error."""
    click.echo(line, err=True)


def print_report(report: IngestReport | None) -> None:
    """Print what an ingest did.

    Parameters
    ----------
    report : IngestReport or None
        None: another rank of an MPI program speaks for all.

    Raises
    ------
    IncompleteIngest
        Some granules are not in the point DB.
    """
    if report is None:
        return
    for note, names in report.notes.items():
        others = f" and {counted(len(names) - 1, 'other')}" if len(names) > 1 else ""
        to_stderr(f"note: {names[0]}{others}: {note}")
    click.echo(
        f"{report.path}: {counted(len(report.added), 'granule')} added, {number(report.present)} there already;"
        f" {number(report.points)} of {number(report.records)} points kept"
    )
    for what, (count, meaning) in report.events.items():
        click.echo(f"  {what:<11}{number(count):>10}  {meaning}")
    for line in dropped_lines(report.dropped):
        click.echo(line)
    report.check()


def dropped_lines(dropped: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each reason why points were dropped, the most frequent first."""
    from cryotile.geo.projection import OUTSIDE_PROJECTION
    from cryotile.pointdb.overlap import ALREADY_THERE
    from cryotile.readers import REASONS
    from cryotile.runs.ingest_batch import FAR_FROM_DEM, NOT_SELECTED

    sentences = {
        **REASONS,
        OUTSIDE_PROJECTION: "has no place in the CRS; is it in the other hemisphere?",
        ALREADY_THERE: "another granule of the product has the same record, which counts once",
        NOT_SELECTED: "left out by --where",
        FAR_FROM_DEM: "too far above or below the DEM",
    }
    for reason, count in sorted(dropped.items(), key=lambda item: -item[1]):
        if count:
            yield f"  dropped    {number(count):>10}  {reason}: {sentences.get(reason, 'says its reader')}"


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


def clock(seconds: float) -> str:
    """Write an elapsed time: ``0:34``, ``12:05``, ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def range_left(seconds: Sequence[float]) -> str:
    """Write the least and the most time that is left: ``21 to 35 min left``."""
    least, most = map(span, seconds)
    number, _, unit = least.partition(" ")
    if least == most:
        return f"about {most} left"
    return f"{number if most.endswith(f' {unit}') else least} to {most} left"


def span(seconds: float) -> str:
    """Write an approximate duration: ``40 s``, ``21 min``, ``3.5 h``, ``2.1 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
