"""A farm of MPI ranks as a backend of the test process, and the program that mpirun starts for it."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

from cryotile.backends import Context, drain
from cryotile.backends.base import STALL
from cryotile.backends.mpi import MPIBackend, coordinator, worker
from cryotile.errors import CryotileError
from cryotile.farm.task import Outcome, Task, Work

if TYPE_CHECKING:
    # Each rank runs this file, and needs no pytest.
    from tests.support.services.mpi import MPI

# Orders to rank 0.
DRAIN, CLOSE = b"d", b"c"

# Seconds to load libraries and end a farm on a busy machine.
PATIENCE = 240


@dataclass
class MPIFarm:
    """Start an MPI program for each run and pass on its outcomes.

    Attributes
    ----------
    mpi : MPI
        The MPI library.
    workers : int
        Ranks besides rank 0.
    stall : float
        As for all backends.
    options : sequence of str
        Options of mpirun.
    silence : float
        Seconds after which rank 0 writes a silent worker off.
    messages : str
        Standard error of the program, after its end.
    """

    mpi: MPI
    workers: int = 2
    stall: float = STALL
    options: Sequence[str] = ()
    silence: float = coordinator.SILENCE
    messages: str = ""

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Run the tasks under mpirun."""
        with TemporaryDirectory(dir="/tmp") as scratch:
            orders = Path(scratch, "orders")
            try:
                orders.write_bytes(pickle.dumps((tasks, work, self.stall, self.silence)))
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                # Only this proxy must pickle the work here; another test checks that ranks refuse such work.
                raise CryotileError(f"work cannot be pickled: {error}") from error
            with Path(scratch, "messages").open("w+b") as messages:
                program = self.mpi.start(
                    self.workers + 1,
                    [__file__, orders],
                    options=self.options,
                    stderr=messages,
                )
                try:
                    yield from _outcomes(program)
                finally:
                    _close(program)
                    messages.seek(0)
                    self.messages = messages.read().decode(errors="replace")
                    sys.stderr.write(self.messages)


def _outcomes(program: subprocess.Popen[bytes]) -> Iterator[Outcome]:
    with drain.listening():
        for line in _lines(program):
            said = pickle.loads(base64.b64decode(line))
            if said is None:
                return
            if isinstance(said, BaseException):
                raise said
            yield said
    raise RuntimeError("the MPI program ended before its farm did")


def _lines(program: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Yield the lines of rank 0, and pass on a request to drain."""
    assert program.stdout is not None
    assert program.stdin is not None
    said, asked = b"", False
    while True:
        if drain.begun() and not asked:
            program.stdin.write(DRAIN)
            asked = True
        if select.select([program.stdout], [], [], 0.2)[0]:
            news = os.read(program.stdout.fileno(), 1 << 16)
            if not news:
                return
            *lines, said = (said + news).split(b"\n")
            yield from lines


def _close(program: subprocess.Popen[bytes]) -> None:
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        with suppress(BrokenPipeError), program.stdin as stdin:
            # Open MPI does not pass on the end of the input.
            stdin.write(CLOSE)
        program.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        # mpirun ends its processes on SIGTERM, but not on SIGKILL.
        program.terminate()
        program.wait(PATIENCE)
        raise
    finally:
        program.stdout.close()


class _Closed(BaseException):
    """The iterator of outcomes was closed."""


def _say(what: object) -> None:
    os.write(1, base64.b64encode(pickle.dumps(what)) + b"\n")


def _obey_input() -> None:
    # Not through sys.stdin: this thread would hold its lock when the interpreter ends.
    while os.read(0, 1) == DRAIN:
        drain.begin()
    signal.raise_signal(signal.SIGUSR1)


def _be_closed(number: int, frame: FrameType | None) -> None:
    raise _Closed


def _raise(number: int, frame: FrameType | None) -> None:
    raise RuntimeError("this rank raises")


def _leave_unseen(number: int, frame: FrameType | None) -> None:
    os._exit(1)


def main(orders: str) -> None:
    """Run one rank."""
    logging.basicConfig()
    tasks, work, stall, silence = pickle.loads(Path(orders).read_bytes())
    coordinator.SILENCE, worker.BEAT = silence, min(worker.BEAT, silence / 4)
    signal.signal(signal.SIGUSR1, _raise)
    signal.signal(signal.SIGUSR2, _leave_unseen)
    outcomes = MPIBackend("", Context(stall=stall)).run(tasks, work)
    if int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0"))):
        list(outcomes)
        return
    signal.signal(signal.SIGUSR1, _be_closed)
    threading.Thread(target=_obey_input, daemon=True).start()
    try:
        for outcome in outcomes:
            _say(outcome)
        _say(None)
    except CryotileError as error:
        _say(error)
    except _Closed:
        return
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


if __name__ == "__main__":
    main(*sys.argv[1:])
