"""The command line: ``cryotile COMMAND …``.

Exit codes: 0 success, 1 a failure (the message says what remains), 2 wrong usage, 130 and 143 on SIGINT and SIGTERM.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import cryotile
from cryotile.backends import drain
from cryotile.errors import CryotileError, IncompleteIngest

if TYPE_CHECKING:
    from cryotile.runs.tasklist import TaskList

__all__ = ["cli", "main", "saying_what_is_saved", "with_options"]


def with_options(message: str) -> str:
    """Return a message of the library, which names a setting as a keyword, with the option in its place."""

    def option(keyword: re.Match[str]) -> str:
        return f"--{keyword[1].replace('_', '-')}{'' if keyword[2] else ' '}"

    return re.sub(r'(?<=[ (])([a-z_]+)=(?:(True)\b|(?="))', option, message)


# Those of libraries, such as matplotlib's, tell a user nothing.
_OWN_LOGGERS = logging.getLogger("cryotile")


def log_level(count: int) -> int:
    """Return the level of logging for the number of ``-v``."""
    return [logging.WARNING, logging.INFO, logging.DEBUG][min(count, 2)]


def _set_level(ctx: click.Context, param: click.Parameter, count: int) -> None:  # noqa: ARG001 - click's signature
    if count:
        _OWN_LOGGERS.setLevel(log_level(count))


VERBOSE = click.Option(
    ["-v", "--verbose"],
    count=True,
    expose_value=False,
    callback=_set_level,
    help="Log more; twice for debugging.",
)


class CommandPlace(NamedTuple):
    """Module of a command, and its line of help, which is shown without importing it.

    Attributes
    ----------
    where : str
        ``module:attribute``.
    line : str
        Description in at most 55 letters.
    """

    where: str
    line: str


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called.

    Parameters
    ----------
    *args, **kwargs
        As for :class:`click.Group`.
    sections : mapping of str to mapping of str to CommandPlace
        Title → command name → place; help lists the commands under these titles, in this order.
    """

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, CommandPlace]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections
        self._places = {name: place for some in sections.values() for name, place in some.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in order."""
        return list(self._places)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write a line for each command."""
        for title, places in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, place.line) for name, place in places.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import and return one command."""
        if cmd_name not in self._places:
            return None
        module, _, attribute = self._places[cmd_name].where.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        # Users add -v at the end of a command that went wrong.
        if VERBOSE not in command.params:
            command.params.append(VERBOSE)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that words name; name commands that are spelt alike if there is none."""
        near = get_close_matches(args[0], self._places)
        if args[0] not in self._places and near:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(near)}?")
        return super().resolve_command(ctx, args)


COMMANDS = {
    "From granules to a map": {
        "ingest": CommandPlace(
            "cryotile.cli.points:ingest", "Read granules and add their points to a point DB"
        ),
        "plan": CommandPlace(
            "cryotile.cli.runs:plan", "Freeze a run: its grid, its settings, its tiles"
        ),
        "run": CommandPlace(
            "cryotile.cli.runs:run", "Work on a run until nothing is left, or go on with it"
        ),
        "status": CommandPlace(
            "cryotile.cli.status:status", "Show the status of a run, or of a server"
        ),
        "retry": CommandPlace("cryotile.cli.runs:retry", "Put failed tasks back"),
        "submit": CommandPlace(
            "cryotile.cli.runs:submit", "Submit the missing tasks of a run as a job"
        ),
        "assemble": CommandPlace(
            "cryotile.cli.assemble:assemble", "Write the product: all tiles side by side"
        ),
        "plot": CommandPlace(
            "cryotile.cli.plot:plot", "Draw maps and other pictures of a run or product"
        ),
    },
    "From a map to numbers": {
        "totals": CommandPlace("cryotile.cli.totals:totals", "Add up volume and mass by basin"),
        "series": CommandPlace(
            "cryotile.cli.series:series", "Heights of posts, volume of basins, over time"
        ),
        "compare": CommandPlace(
            "cryotile.cli.compare:compare", "Compare a product with one of others, or with points"
        ),
        "export": CommandPlace(
            "cryotile.cli.export:export", "Write a product as ATL15, CCI SEC or EOLIS"
        ),
    },
    "Inspection": {
        "info": CommandPlace(
            "cryotile.cli.points:info", "Describe a point DB, run, granule, product or folder"
        ),
        "explain": CommandPlace("cryotile.cli.checks:explain", "Explain one post of a run"),
        "validate": CommandPlace(
            "cryotile.cli.checks:validate", "Compare two halves of your own data"
        ),
        "penetration": CommandPlace(
            "cryotile.cli.penetration:penetration", "Compare the rates of radars and lasers"
        ),
        "doctor": CommandPlace(
            "cryotile.cli.doctor:doctor", "Say what is missing for which feature"
        ),
    },
    "Maintenance of a point DB": {
        "remove": CommandPlace("cryotile.cli.points:remove", "Remove granules"),
        "compact": CommandPlace(
            "cryotile.cli.points:compact", "Merge small fragments, delete superseded files"
        ),
        "verify": CommandPlace("cryotile.cli.points:verify", "Check every file against the log"),
    },
    "Simulated missions": {
        "demo": CommandPlace("cryotile.cli.demo:demo", "Run the whole path on a simulated mission"),
        "simulate": CommandPlace(
            "cryotile.cli.demo:simulate", "Write granules of a simulated mission"
        ),
    },
    "A task-farm server": {
        "serve": CommandPlace(
            "cryotile.cli.server:serve", "Serve a task farm to workers on any hosts"
        ),
        "user": CommandPlace(
            "cryotile.cli.server:user", "Add, remove and list the users of a server"
        ),
        "farm": CommandPlace("cryotile.cli.server:farm", "Manage the runs of a server"),
    },
}


@click.group(
    cls=LazyGroup, sections=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(cryotile.__version__)
@click.option("-v", "--verbose", count=True, help="Log more; twice for debugging.")
def cli(verbose: int) -> None:
    """Turn satellite altimetry into maps of ice elevation change.

    \b
    From granules to a map:
      cryotile ingest ice.pdb GRANULE… --crs EPSG:3031
      cryotile plan run/ --db ice.pdb --posting 1000 --radius 2000
      cryotile run run/
      cryotile assemble run/ -o dhdt.nc
      cryotile plot dhdt.nc -o dhdt.png
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _OWN_LOGGERS.setLevel(log_level(verbose))


SAVED = "saved results stay, and the same command goes on"


class Terminated(BaseException):
    """SIGTERM was received; like KeyboardInterrupt not an Exception, so that nothing catches it by accident."""


@contextmanager
def saying_what_is_saved(tasks: TaskList) -> Iterator[None]:
    """Let an interruption of the work on a task list say what of it is saved."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as end:
        raise type(end)(tasks.saved()) from end


def main() -> None:
    """Run the command line and turn every error into one line and an exit code."""
    signal.signal(signal.SIGTERM, _drain_or_leave)
    output = sys.stdout
    try:
        code = cli.main(prog_name="cryotile", standalone_mode=False)
    except IncompleteIngest as error:
        for line in (*error.problems, error.summary):
            _complain(line)
        code = error.exit_code
    except CryotileError as error:
        _complain(str(error))
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        # Click puts its own error in place of the interruption, whose text says what is saved.
        _complain(f"interrupted; {str(error.__cause__ or error) or SAVED}")
        code = 128 + signal.SIGINT
    except SystemExit as leaving:
        if sys.stdout is not output:
            # The reader of the output is gone: click replaces stdout and exits with a failure.  Threads of Arrow may
            # still be starting, of which an orderly exit aborts one in a hundred times.
            os._exit(128 + signal.SIGPIPE)
        code = leaving.code
    except Terminated as error:
        _complain(f"terminated; {str(error) or SAVED}")
        code = 128 + signal.SIGTERM
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _complain(f"the system refused{where}: {error.strerror or error}; saved results stay")
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str) -> None:
    click.echo(f"cryotile: {with_options(message)}", err=True)


def _drain_or_leave(_number: int, _frame: FrameType | None) -> None:
    # A farm at work lets its tasks end, for a limited time.  Without a farm, and the second time, the exception unwinds
    # through every `finally`, so that children end and temporary files are removed.
    if not drain.begin():
        # A third signal does not disturb the cleanup.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated
