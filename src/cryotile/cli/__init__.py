"""The command line: ``cryotile COMMAND …``.

Exit codes: 0 success, 1 something failed (and what remains is said), 2 wrong usage, 130 and 143 on SIGINT and SIGTERM.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from types import FrameType
from typing import Any, NamedTuple

import click

import cryotile
from cryotile.backends import drain
from cryotile.errors import CryotileError, IncompleteIngest

__all__ = ["cli", "main"]


def log_level(count: int) -> int:
    """Return the level of logging that ``-v``, given so often, asks for."""
    return [logging.WARNING, logging.INFO, logging.DEBUG][min(count, 2)]


def _set_level(ctx: click.Context, param: click.Parameter, count: int) -> None:  # noqa: ARG001 - click's signature
    if count:
        logging.getLogger().setLevel(log_level(count))


VERBOSE = click.Option(
    ["-v", "--verbose"],
    count=True,
    expose_value=False,
    callback=_set_level,
    help="Log what happens; twice for more.",
)


class CommandPlace(NamedTuple):
    """Where a command is, and what help says of it before anything of it is imported.

    Attributes
    ----------
    where : str
        ``module:attribute``.
    line : str
        What it does, in at most 55 letters.
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
        Title → command name → where it is; help lists the commands under these titles, in this order.
    """

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, CommandPlace]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections
        self._places = {name: place for some in sections.values() for name, place in some.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order given."""
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
        # After the command is where one adds it to a command that went wrong.
        if VERBOSE not in command.params:
            command.params.append(VERBOSE)
        return command


COMMANDS = {
    "From granules to a map": {
        "ingest": CommandPlace(
            "cryotile.cli.points:ingest", "Read granules and add their points to a point DB"
        ),
        "plan": CommandPlace(
            "cryotile.cli.runs:plan", "Freeze a run: its grid, its settings, its tiles"
        ),
        "run": CommandPlace(
            "cryotile.cli.runs:run", "Work on a run until nothing is left; again: go on"
        ),
        "status": CommandPlace("cryotile.cli.status:status", "Say how far a run, or a server, is"),
        "retry": CommandPlace("cryotile.cli.runs:retry", "Put back what failed"),
        "submit": CommandPlace(
            "cryotile.cli.runs:submit", "Submit what is missing of a run as a job"
        ),
        "assemble": CommandPlace(
            "cryotile.cli.runs:assemble", "Write the runs: all tiles side by side"
        ),
        "plot": CommandPlace("cryotile.cli.runs:plot", "Draw a map of a product"),
    },
    "Looking closer": {
        "info": CommandPlace(
            "cryotile.cli.points:info", "Say what a point DB, run, granule or product is"
        ),
        "explain": CommandPlace("cryotile.cli.checks:explain", "Why one post is what it is"),
        "validate": CommandPlace(
            "cryotile.cli.checks:validate", "Do the halves of your own data agree?"
        ),
    },
    "Looking after a point DB": {
        "remove": CommandPlace("cryotile.cli.points:remove", "Take granules out"),
        "compact": CommandPlace(
            "cryotile.cli.points:compact", "Merge small fragments, delete what is superseded"
        ),
        "verify": CommandPlace("cryotile.cli.points:verify", "Check every file against the log"),
    },
    "A mission of known truth": {
        "demo": CommandPlace(
            "cryotile.cli.demo:demo", "The whole path on a simulated mission, ends with a map"
        ),
        "simulate": CommandPlace(
            "cryotile.cli.demo:simulate", "Write granules of a simulated mission"
        ),
    },
    "A task-farm server": {
        "serve": CommandPlace(
            "cryotile.cli.server:serve", "Serve a task farm to workers on any hosts"
        ),
        "user": CommandPlace("cryotile.cli.server:user", "Add, remove and list its users"),
        "farm": CommandPlace("cryotile.cli.server:farm", "Look after its runs"),
    },
}


@click.group(
    cls=LazyGroup, sections=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(cryotile.__version__)
@click.option("-v", "--verbose", count=True, help="Log what happens; twice for more.")
def cli(verbose: int) -> None:
    """Turn satellite altimetry into maps of ice elevation change.

    \b
    The straight path:
      cryotile ingest ice.pdb GRANULE… --crs EPSG:3031
      cryotile plan run/ --db ice.pdb --posting 1000 --radius 2000
      cryotile run run/
      cryotile assemble run/ -o dhdt.nc
      cryotile plot dhdt.nc -o dhdt.png
    """
    logging.basicConfig(
        level=log_level(verbose), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


class Terminated(BaseException):
    """SIGTERM came; no exception that somebody catches, like KeyboardInterrupt."""


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
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted; what was saved stays, and the same command goes on")
        code = 128 + signal.SIGINT
    except SystemExit as leaving:
        # Whoever read our output has left: click has put something harmless in its place, and calls it a failure.
        left = sys.stdout is not output
        code = 128 + signal.SIGPIPE if left else leaving.code
    except Terminated:
        _complain("terminated; what was saved stays, and the same command goes on")
        code = 128 + signal.SIGTERM
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _complain(f"the system refused{where}: {error.strerror or error}; what was saved stays")
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str) -> None:
    click.echo(f"cryotile: {message}", err=True)


def _drain_or_leave(_number: int, _frame: FrameType | None) -> None:
    # A farm at work lets its tasks end, for a while.  Where there is none, and the second time, the exception unwinds
    # through every `finally`, so that children end and temporary files go.
    if not drain.begin():
        # The third time does not disturb what is on its way out.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated
