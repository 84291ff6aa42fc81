"""A file that says which process does for a run what only one may do, and what others need to know of it.

The process touches the file from time to time.  When it is gone, another one takes its place: at once if it has ended
on the same machine or left in order, else when the file was not touched for long.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryotile.files import atomic_path
from cryotile.processes import is_alive, this_process

__all__ = ["HOSTED", "LOOKS", "Holder", "Place"]

HOSTED = "server.json"
"""File of a run that says where the server is that one of its workers hosts; for its owner alone."""

LOOKS = 3
"""Looks after which a process that did not touch the file counts as gone."""

SETTLED = 1.0
"""Seconds after which a process that has written the file, and no other one since, holds the place."""


@dataclass(frozen=True)
class Holder:
    """What the file says.

    Attributes
    ----------
    process : str
        The process that holds the place, as of :func:`cryotile.processes.this_process`; empty if none does.
    host : str
        Its host.
    pid : int
        Its number there.
    every : float
        Seconds between two of its looks.
    said : dict
        What others need to know.
    """

    process: str
    host: str
    pid: int
    every: float
    said: dict[str, Any]


class Place:
    """The file of a place that one process holds.

    Parameters
    ----------
    path : Path
        The file; its directory exists.
    every : float
        Seconds between two looks of this process.
    private : bool
        Whether the file is for its owner alone.
    """

    def __init__(self, path: Path, every: float, *, private: bool = False) -> None:
        self.path, self.every = path, every
        self._mode = 0o600 if private else 0o666
        self._me = this_process() or secrets.token_hex(8)

    def holder(self) -> Holder | None:
        """Return what the file says; None without a file."""
        try:
            return Holder(**json.loads(self.path.read_text(encoding="utf-8")))
        except (FileNotFoundError, TypeError, ValueError):
            return None

    def is_free(self, holder: Holder | None) -> bool:
        """Return whether no other process holds the place, given what the file says."""
        if holder is None or holder.process in ("", self._me):
            return True
        silent = _age(self.path) > LOOKS * max(self.every, holder.every)
        return silent or is_alive(holder.process) is False

    def take(self, said: Mapping[str, Any]) -> bool:
        """Take the place, which is free; False if another process took it at the same moment."""
        self._write(self._me, said)
        # Of several that found it free, the last to write holds it.
        time.sleep(min(self.every, SETTLED))
        return self.keep(said)

    def keep(self, said: Mapping[str, Any]) -> bool:
        """Say that this process holds the place; False if another has taken over, as this one was silent for long."""
        holder = self.holder()
        if holder is not None and holder.process not in ("", self._me):
            return False
        self._write(self._me, said)
        return True

    def leave(self, said: Mapping[str, Any]) -> None:
        """Leave the place, which this process holds, to others."""
        if self.keep(said):
            self._write("", said)

    def _write(self, process: str, said: Mapping[str, Any]) -> None:
        holder = Holder(process, socket.gethostname(), os.getpid(), self.every, dict(said))
        with atomic_path(self.path) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._mode)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(holder)) + "\n")


def _age(path: Path) -> float:
    """Return how long ago a file was written, s, by the clock of the file server: those of two hosts may differ."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            return os.fstat(file.fileno()).st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
