"""Heartbeats of the processes that run farms: they tell ``status`` that a whole host is gone.

Each process keeps a file beside the journals of its workers, ``<process>.heartbeat``, and touches it regularly,
whatever its workers do.  The clock of the file server alone determines its age, so the clocks of hosts may differ.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Self

from cryotile.processes import this_process

__all__ = ["FAINT", "Heartbeat", "heartbeat_ages"]

INTERVAL = 15.0
"""Seconds between two heartbeats."""

FAINT = 120.0
"""Seconds without a heartbeat after which a process counts as lost; NFS may show a change a minute late."""

# Seconds for which a process that ends waits for a file server that hangs.
_PATIENCE = 15.0

_SUFFIX = ".heartbeat"

logger = logging.getLogger(__name__)


class Heartbeat:
    """Heartbeats of this process within a ``with`` block, from a thread of their own.

    If the file cannot be written, there are no heartbeats, and nothing else changes.

    Parameters
    ----------
    directory : Path
        Directory of the journals; created if it does not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"{this_process()}{_SUFFIX}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(_PATIENCE)
        with suppress(OSError):
            # The process ends in good order, so status need not wait to be sure that it is gone.
            os.utime(self._path, (0, 0))

    def _beat(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                self._path.touch()
                if self._over.wait(INTERVAL):
                    return
        except OSError as error:
            logger.info("%s: no heartbeats (%s)", self._path, error.strerror)


def heartbeat_ages(directory: Path, processes: Collection[str]) -> dict[str, float]:
    """Return the seconds since the last heartbeats of processes.

    Parameters
    ----------
    directory : Path
        Directory of the journals.
    processes : collection of str
        Names of processes, from :func:`cryotile.processes.this_process`.

    Returns
    -------
    dict of str to float
        Seconds, for the processes that have heartbeats.
    """
    signs: dict[str, float] = {}
    for process in processes:
        with suppress(OSError):
            signs[process] = (directory / f"{process}{_SUFFIX}").stat().st_mtime
    if not signs:
        return {}
    try:
        # Only the time of this file is needed, which is the file server's.
        with tempfile.TemporaryFile(dir=directory) as file:
            now = os.fstat(file.fileno()).st_mtime
    except OSError:
        # Without permission to write, the heartbeats are compared with each other.
        now = max(signs.values())
    return {process: now - sign for process, sign in signs.items()}
