"""What processes know of each other: whether one has ended, the memory of a family, and the pauses between tries."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["backoff", "family_memory", "is_alive", "parent_process", "this_process"]


def backoff(first: float, longest: float) -> Iterator[float]:
    """Yield the pauses between tries: each about twice as long as the one before, up to a limit, without end.

    Pauses are random within a factor of two, so that processes that failed together do not try again together.

    Parameters
    ----------
    first, longest : float
        Upper limits of the first pause and of all pauses, seconds.

    Yields
    ------
    float
        Seconds to wait before the next try.
    """
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(2 * pause, longest)


def this_process() -> str:
    """Return the name of this process.

    The name holds the boot of the machine and the namespace of its process numbers (containers share host names), the
    process number, and its start time (numbers are reused).

    Returns
    -------
    str
        Empty if the system does not tell.
    """
    return _name(os.getpid())


def parent_process() -> str:
    """Return the name of this process's parent; if the parent has ended, of the process that adopted this one."""
    return _name(os.getppid())


def is_alive(process: str) -> bool | None:
    """Tell whether a process still runs.

    Parameters
    ----------
    process : str
        A name from :func:`this_process`.

    Returns
    -------
    bool or None
        None if it is unknown: the process is on another machine, is hidden, or has no name.
    """
    machine, _, rest = process.partition(":")
    number, _, birth = rest.partition(":")
    if not machine or machine != _machine() or not number.isdecimal():
        return None
    try:
        # A process of another user, which may not be signalled, exists.
        with suppress(PermissionError):
            os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
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
    """Return the start time of a process, ticks since boot; "ended" for a zombie, None if it is hidden."""
    try:
        # The fields before hold the program's name, which may contain blanks and parentheses.
        fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()


def family_memory() -> int | None:
    """Return the memory of this process and its children that no other process shares, bytes; None if unknown."""
    try:
        lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
        children = [number for each in lists for number in each.split()]
        return sum(_own_memory(number) for number in ("self", *children))
    except OSError:
        return None


def _own_memory(number: str) -> int:
    # A child may end at any time.
    with suppress(OSError):
        for line in Path(f"/proc/{number}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    return 0
