"""Messages over MPI between rank 0 and the other ranks; they survive the loss of a rank if the MPI library does.

No call blocks inside MPI: its blocking calls use a whole core, and wait for lost ranks without end.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from cryotile.backends.mpi import messages
from cryotile.errors import CryotileError

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = ["START_LIMIT", "Transport"]

START_LIMIT = 600.0
"""Seconds that MPI may take to start: it waits for all ranks, and without end for one that is lost meanwhile."""

# MPI has tags of at least 15 bits.  Each farm of a program has its own tag, so that no late message reaches the next
# farm.
_FIRST_TAG, _TAGS = 17_000, 8_192

# Bytes.  Only long tracebacks need a larger buffer.
_BUFFER_SIZE = 1 << 16

# Seconds for which rank 0 waits until the others have left: they may have to end children, or may still be starting.
_PATIENCE = 10.0

# Seconds between polls for messages at the end.
_PAUSE = 0.005


class Transport:
    """The messages of one farm: rank 0 exchanges messages with all other ranks, which do so only with rank 0.

    Every rank opens its transports in the same order.  A rank that leaves the program says so on the tag of the next
    transport.  Therefore the loss of a rank that raises an exception is noticed at once, and no rank waits for a rank 0
    that is gone.

    Attributes
    ----------
    rank, size : int
        The number of this rank, and of all ranks.
    whole : bool
        Whether no rank was lost when rank 0 last told.

    Raises
    ------
    ImportError
        mpi4py is not installed.
    RuntimeError
        No MPI library is installed.
    """

    _opened = 0
    _finalizes = False
    _written_off: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        import mpi4py

        if "mpi4py.MPI" not in sys.modules:
            # _leave decides at exit whether MPI is finalised.
            mpi4py.rc.finalize = False
            Transport._finalizes = True
        # The import starts MPI.
        with _limited():
            from mpi4py import MPI

        self._mpi = MPI
        # Not a duplicate: making one waits for all ranks, and one may never come.
        self._comm = MPI.COMM_WORLD
        # mpi4py's own default; in some versions, fault tolerance brings back Open MPI's, which ends all ranks.
        self._comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.rank, self.size = self._comm.rank, self._comm.size
        self._source = 0 if self.rank else MPI.ANY_SOURCE
        self._status = MPI.Status()
        self._buffer = memoryview(bytearray(_BUFFER_SIZE))
        self._sent: deque[MPI.Request] = deque()
        self._failed: set[int] = set()
        self._left: set[int] = set()
        self.whole = True
        self._tag = _FIRST_TAG + Transport._opened % _TAGS
        if Transport._opened:
            atexit.unregister(_leave)
        Transport._opened += 1
        atexit.register(_leave, self)

    @property
    def library(self) -> str:
        """Name and version of the MPI library."""
        return self._mpi.Get_library_version().partition(",")[0].splitlines()[0].strip()

    def send(self, rank: int, message: bytes) -> None:
        """Send a message without waiting for its receipt."""
        try:
            self._sent.append(self._comm.Isend((message, self._mpi.BYTE), rank, self._tag))
        except self._mpi.Exception as error:
            self._tolerate(error)
        # Test two for each one sent, so that messages to a rank that hangs do not hold up the others.
        for _ in range(min(2, len(self._sent))):
            request = self._sent.popleft()
            if not self._is_sent(request):
                self._sent.append(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Return the next message and its source rank; None if there is none now."""
        try:
            if not self._comm.Iprobe(self._source, self._tag, self._status):
                return None
            source, size = self._status.source, self._status.count
            buffer = self._buffer if size <= _BUFFER_SIZE else memoryview(bytearray(size))
            self._comm.Recv((buffer, size, self._mpi.BYTE), source, self._tag)
        except self._mpi.Exception as error:
            self._tolerate(error)
            return None
        message = bytes(buffer[:size])
        if message[0] == messages.LEFT:
            self._left.add(source)
        elif message == messages.ABANDON:
            self.whole = False
        return source, message

    def failed(self) -> set[int]:
        """Return the ranks that MPI knows to be lost; none if the library does not detect losses."""
        try:
            # Otherwise a lost rank makes every probe for messages from any rank fail.
            self._comm.Ack_failed()
            group = self._comm.Get_failed()
        except NotImplementedError:
            return set()
        if group.size > len(self._failed):
            ranks = self._mpi.Group.Translate_ranks(group, None, self._comm.group)
            self._failed.update(ranks)
        return self._failed

    def write_off(self, rank: int) -> None:
        """Note a lost rank that MPI does not know of: at the end, MPI would wait for it."""
        Transport._written_off.add(rank)

    def end(self) -> None:
        """Tell all workers, also late and lost ones, that the farm is over, and wait until they have left."""
        workers = set(range(1, self.size))
        self.whole = not (Transport._written_off or self.failed())
        for rank in workers - self.failed():
            self.send(rank, messages.STOP if self.whole else messages.ABANDON)
        deadline = time.monotonic() + _PATIENCE
        while workers - self._left - Transport._written_off - self.failed():
            if self.receive() is None:
                if time.monotonic() >= deadline:
                    break
                time.sleep(_PAUSE)
        self.flush()

    def flush(self) -> None:
        """Wait for a limited time until all messages are on their way."""
        deadline = time.monotonic() + _PATIENCE
        while self._sent and time.monotonic() < deadline:
            self._sent = deque(each for each in self._sent if not self._is_sent(each))
            time.sleep(_PAUSE)

    def leave(self) -> None:
        """Leave the program: tell the other ranks on the tag of the next transport, and wait for their answer.

        No message may be on its way when MPI is finalised, and finalising uses a whole core while it waits.
        """
        old, self._tag = self._tag, self._tag + 1
        self._left.clear()
        if self.rank == 0:
            self.end()
        else:
            self.send(0, messages.report(messages.LEFT, text="left the program"))
            self.flush()
            while 0 not in self.failed():
                if (message := self.receive()) and message[1] in (messages.STOP, messages.ABANDON):
                    break
                time.sleep(_PAUSE)
        self._tag = old
        while self.receive():
            pass

    def _is_sent(self, request: MPI.Request) -> bool:
        try:
            return bool(request.Test())
        except self._mpi.Exception as error:
            self._tolerate(error)
            return True

    def _tolerate(self, error: MPI.Exception) -> None:
        """Raise an error, unless it means that a rank is lost."""
        lost = (self._mpi.ERR_PROC_FAILED, self._mpi.ERR_PROC_FAILED_PENDING)
        if error.Get_error_class() not in lost:
            raise CryotileError(
                f"MPI ({self.library}) failed: {error}; run again to go on"
            ) from error
        self.failed()


@contextmanager
def _limited() -> Iterator[None]:
    """End this process if the block takes longer than :data:`START_LIMIT`; inside MPI no Python code could do that."""
    faulthandler.dump_traceback_later(START_LIMIT, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _leave(last: Transport) -> None:
    """Leave the program so that no rank waits for a lost one."""
    mpi = last._mpi
    if mpi.Is_finalized():
        return
    last.leave()
    if Transport._written_off:
        # mpirun waits for all processes, but a rank that was written off may hang without end.
        sys.stdout.flush()
        mpi.COMM_WORLD.Abort(0)
    if not last.whole and os.environ.get("OMPI_MCA_mpi_ft_enable") == "1":  # noqa: SIM112 - Open MPI's spelling
        # With fault tolerance, Open MPI may wait for lost ranks when it is finalised, but not if it is not finalised.
        return
    if Transport._finalizes:
        mpi.Finalize()
