"""Names for processes, by which another process on the same machine can tell whether they have ended."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["is_alive", "parent_process", "this_process"]


def this_process() -> str:
    """Name this process.

    By the boot of the machine and the namespace of its process numbers (containers share host names), by its number,
    and by when it began (numbers come again).

    Returns
    -------
    str
        Empty where a system does not say.
    """
    return _name(os.getpid())


def parent_process() -> str:
    """Name the process that started this one, likewise; another one if that has ended."""
    return _name(os.getppid())


def is_alive(process: str) -> bool | None:
    """Tell whether a process is there.

    Parameters
    ----------
    process : str
        As of :func:`this_process`.

    Returns
    -------
    bool or None
        None when nothing is known: it is on another machine, or hidden, or has no name.
    """
    machine, _, rest = process.partition(":")
    number, _, birth = rest.partition(":")
    if not machine or machine != _machine():
        return None
    try:
        # Another user's, which may not be signalled, is there.
        with suppress(PermissionError):
            os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    seen = _birth(int(number))
    return None if seen is None else seen == birth


def _name(number: int) -> str:
    return f"{_machine()}:{number}:{_birth(number)}" if _machine() else ""


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _birth(number: int) -> str | None:
    """When a process began, in ticks since the boot; "ended" if it only waits for its parent, None if it is hidden."""
    try:
        # What comes before, the program's name, may hold blanks and parentheses.
        fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()
