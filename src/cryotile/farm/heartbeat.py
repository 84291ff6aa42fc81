"""Signs of life of the processes that run farms: how status learns that a whole host is gone.

Each keeps a file beside the journals of its workers, ``<process>.heartbeat``, and touches it from time to time,
whatever its workers do.  The clock of the file server alone tells its age, so hosts may disagree about the time.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cryotile.processes import this_process

__all__ = ["FAINT", "Heartbeat", "heartbeat_ages"]

INTERVAL = 15.0
"""Seconds between two signs of life."""

FAINT = 120.0
"""Seconds after which a process that gave none is taken for lost; NFS may show a change a minute late."""

# A file server that hangs keeps a process that leaves for so many seconds.
_PATIENCE = 15.0

_SUFFIX = ".heartbeat"

logger = logging.getLogger(__name__)


class Heartbeat:
    """Gives signs of life of this process within a ``with`` block, from a thread: the work may be silent for long.

    Where the file cannot be written there are none, and it costs nothing else.

    Parameters
    ----------
    directory : Path
        Of the journals; made when it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"{this_process()}{_SUFFIX}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(_PATIENCE)
        with suppress(OSError):
            # It leaves in good order: nobody needs to wait to be sure that it is gone.
            os.utime(self._path, (0, 0))

    def _beat(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                self._path.touch()
                if self._over.wait(INTERVAL):
                    return
        except OSError as error:
            logger.info("%s: no signs of life (%s)", self._path, error.strerror)


def heartbeat_ages(directory: Path, processes: Collection[str]) -> dict[str, float]:
    """Tell how long ago processes have given a sign of life.

    Parameters
    ----------
    directory : Path
        Of the journals.
    processes : collection of str
        As of :func:`cryotile.processes.this_process`.

    Returns
    -------
    dict of str to float
        Seconds, for those that give any.
    """
    signs: dict[str, float] = {}
    for process in processes:
        with suppress(OSError):
            signs[process] = (directory / f"{process}{_SUFFIX}").stat().st_mtime
    if not signs:
        return {}
    try:
        # Never seen by anybody: only its time counts, which is the file server's.
        with tempfile.TemporaryFile(dir=directory) as file:
            now = os.fstat(file.fileno()).st_mtime
    except OSError:
        # Who may only read compares them with each other.
        now = max(signs.values())
    return {process: now - sign for process, sign in signs.items()}
