"""Names for processes, by which another process on the same machine can tell whether they have ended."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

__all__ = ["is_alive", "this_process"]


def this_process() -> str:
    """Name this process.

    By the boot of the machine and the namespace of its process numbers (containers share host names), by its number,
    and by when it began (numbers come again).

    Returns
    -------
    str
        Empty where a system does not say.
    """
    return _name(os.getpid()) if _machine() else ""


def is_alive(process: str) -> bool | None:
    """Tell whether a process is there.

    Parameters
    ----------
    process : str
        As of :func:`this_process`.

    Returns
    -------
    bool or None
        None when it is on another machine, or has no name, so that nothing is known.
    """
    machine, _, rest = process.partition(":")
    if not machine or machine != _machine():
        return None
    return _name(int(rest.partition(":")[0])) == process


def _name(number: int) -> str:
    return f"{_machine()}:{number}:{_birth(number)}"


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _birth(number: int) -> str:
    """When a process began, in ticks since the boot; "none" without one, or when it only waits to be reaped."""
    try:
        # What comes before, the program's name, may hold blanks and parentheses.
        fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return "none"
    return "none" if fields[0] in (b"Z", b"X") else fields[19].decode()
