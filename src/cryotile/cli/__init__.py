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
from cryotile.cli.lazy import LazyGroup, log_level
from cryotile.errors import CryotileError

__all__ = ["cli", "main"]

COMMANDS = {
    "demo": "cryotile.cli.demo:demo",
    "simulate": "cryotile.cli.demo:simulate",
    "ingest": "cryotile.cli.data:ingest",
    "info": "cryotile.cli.data:info",
    "remove": "cryotile.cli.store:remove",
    "compact": "cryotile.cli.store:compact",
    "verify": "cryotile.cli.store:verify",
    "plan": "cryotile.cli.runs:plan",
    "run": "cryotile.cli.runs:run",
    "retry": "cryotile.cli.status:retry",
    "status": "cryotile.cli.status:status",
    "submit": "cryotile.cli.submit:submit",
    "assemble": "cryotile.cli.product:assemble",
    "plot": "cryotile.cli.product:plot",
    "explain": "cryotile.cli.explain:explain",
    "validate": "cryotile.cli.validate:validate",
    "serve": "cryotile.cli.server:serve",
    "user": "cryotile.cli.server:user",
    "farm": "cryotile.cli.farm:farm",
}


@click.group(
    cls=LazyGroup, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
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
