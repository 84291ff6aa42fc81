"""The command line: ``cryotile COMMAND …``.

Exit codes: 0 success, 1 something failed (and what remains is said), 2 wrong usage, 130 and 143 on SIGINT and SIGTERM.
"""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

import click

import cryotile
from cryotile.backends import drain
from cryotile.cli.lazy import LazyGroup, Place, log_level
from cryotile.errors import CryotileError

__all__ = ["cli", "main"]

COMMANDS = {
    "From granules to a map": {
        "ingest": Place(
            "cryotile.cli.data:ingest", "Read granules and add their points to a point DB"
        ),
        "plan": Place("cryotile.cli.runs:plan", "Freeze a run: its grid, its settings, its tiles"),
        "run": Place("cryotile.cli.runs:run", "Work on a run until nothing is left; again: go on"),
        "status": Place("cryotile.cli.status:status", "Say how far a run, or a server, is"),
        "retry": Place("cryotile.cli.status:retry", "Put back what failed"),
        "submit": Place("cryotile.cli.submit:submit", "Submit what is missing of a run as a job"),
        "assemble": Place(
            "cryotile.cli.product:assemble", "Write the product: all tiles side by side"
        ),
        "plot": Place("cryotile.cli.product:plot", "Draw a map of a product"),
    },
    "Looking closer": {
        "info": Place("cryotile.cli.data:info", "Say what a point DB, run, granule or product is"),
        "explain": Place("cryotile.cli.explain:explain", "Why one post is what it is"),
        "validate": Place(
            "cryotile.cli.validate:validate", "Do the halves of your own data agree?"
        ),
    },
    "Looking after a point DB": {
        "remove": Place("cryotile.cli.store:remove", "Take granules out"),
        "compact": Place(
            "cryotile.cli.store:compact", "Merge small fragments, delete what is superseded"
        ),
        "verify": Place("cryotile.cli.store:verify", "Check every file against the log"),
    },
    "A mission of known truth": {
        "demo": Place(
            "cryotile.cli.demo:demo", "The whole path on a simulated mission, ends with a map"
        ),
        "simulate": Place("cryotile.cli.demo:simulate", "Write granules of a simulated mission"),
    },
    "A task-farm server": {
        "serve": Place("cryotile.cli.server:serve", "Serve a task farm to workers on any hosts"),
        "user": Place("cryotile.cli.server:user", "Add, remove and list its users"),
        "farm": Place("cryotile.cli.farm:farm", "Look after its runs"),
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
