"""Start the processes of a contender, and gather their reports."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import Contender

__all__ = ["Lost", "Report", "launch", "mpirun"]

PART = Path(__file__).with_name("part.py")

# Allow root and more ranks than cores; each variable is for one library.
MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


class Lost(Exception):
    """A contender did not finish; the message is its own."""


@dataclass(frozen=True)
class Report:
    """The times at which a contender was launched, each task was known to have ended, and all processes had ended."""

    launched: float
    ends: list[float]
    over: float


def mpirun(ranks: int) -> list[str] | None:
    """Return the command that starts an MPI program; None if there is no launcher."""
    beside = Path(sys.executable).with_name("mpirun")
    program = str(beside) if beside.exists() else shutil.which("mpirun")
    return None if program is None else [program, "-n", str(ranks), sys.executable]


def launch(contender: Contender, order: dict[str, Any], *, members: int, limit: float) -> Report:
    """Let a contender carry out an order.

    Parameters
    ----------
    contender : Contender
        The contender.
    order : dict
        See ``part.py``; ``workers`` is the number of all workers.
    members : int
        Number of processes that share the workers.
    limit : float
        Seconds after which it is killed.

    Raises
    ------
    Lost
        A process failed, or took too long.
    """
    home, workers = Path(order["home"]), order["workers"]
    home.mkdir(parents=True, exist_ok=True)
    path = home / "order.json"
    words = {"contender": contender.name, "all_workers": workers, "members": members}
    words |= {
        "share": contender.form == "pull",
        "workers": workers // members,
        "url": contender.url,
    }
    path.write_text(json.dumps(order | words))
    start = mpirun(workers + 1) if contender.form == "ranks" else [sys.executable]
    if start is None:
        raise Lost("mpirun is not installed")
    launched = time.monotonic()
    _run([[*start, str(PART), str(path), str(member)] for member in range(members)], home, limit)
    over = time.monotonic()
    ends = [end for report in home.glob("*.report") for end in json.loads(report.read_text())]
    return Report(launched, sorted(ends), over)


def _run(commands: Sequence[Sequence[str]], home: Path, limit: float) -> None:
    """Run processes side by side until all have ended."""
    deadline = time.monotonic() + limit
    with ExitStack() as stack:
        processes = []
        for number, command in enumerate(commands):
            output = stack.enter_context((home / f"{number}.output").open("wb"))
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env=os.environ | MPI_ENVIRONMENT,
                start_new_session=True,
            )
            stack.callback(_clear_away, process)
            processes.append(process)
        for number, process in enumerate(processes):
            try:
                code = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise Lost(f"it did not finish within {limit:g} s") from None
            if code:
                raise Lost(_reason(home / f"{number}.output") or f"it ended with code {code}")


def _reason(output: Path) -> str:
    lines = [line for line in output.read_text(errors="replace").split("\n") if line.strip()]
    # The last line of a traceback, or the line of mpirun that tells how a rank ended.
    telling = [
        line for line in lines if re.match(r"[\w.]+(Error|Pool)\b", line) or "EXIT STRING" in line
    ]
    return (telling or lines or [""])[-1]


def _clear_away(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, as far as they still run."""
    if process.poll() is None:
        # mpirun ends its ranks on SIGTERM, but not on SIGKILL.
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
