"""Errors that a user can mend.

The text of each is one line that gives the value, the rule it broke and the remedy.  The command line prints that
line and exits with ``exit_code``; a library user catches :class:`CryotileError` or the built-in beside it.
"""

from __future__ import annotations

__all__ = [
    "CryotileError",
    "DamagedFile",
    "Drained",
    "GranuleError",
    "InvalidValue",
    "MissingDependency",
    "Unfinished",
    "UnwritablePath",
]


class CryotileError(Exception):
    """Something went wrong that the user can mend; the base of all errors of cryotile."""

    exit_code = 1


class InvalidValue(CryotileError, ValueError):
    """An argument, option or setting breaks a rule; nothing was done."""

    exit_code = 2


class GranuleError(CryotileError):
    """A granule cannot be read; the other granules of the same call are not affected."""


class DamagedFile(CryotileError):
    """A file of a point DB or run is truncated, altered or not what its name says."""


class UnwritablePath(CryotileError, OSError):
    """A file or directory cannot be written (permissions, a full disk, a foreign directory)."""


class MissingDependency(CryotileError, ImportError):
    """An optional library is not installed; the text names the extra that brings it."""


class Unfinished(CryotileError):
    """A farm stopped while tasks were left; none of them was charged an attempt, and the same command goes on."""


class Drained(Unfinished):
    """A farm was asked to stop (SIGTERM) and did, in good order."""

    exit_code = 143
