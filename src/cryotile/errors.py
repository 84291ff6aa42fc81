"""Errors that a user can mend.

The text of each is one line that gives the value, the rule it broke and the remedy.  The command line prints that
line and exits with ``exit_code``; a library user catches :class:`CryotileError` or the built-in beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CryotileError",
    "CryotileWarning",
    "DamagedFile",
    "Drained",
    "FailedTasks",
    "GranuleError",
    "IncompleteIngest",
    "InvalidValue",
    "MissingDependency",
    "Unfinished",
    "UnwritablePath",
]


class CryotileError(Exception):
    """Something went wrong that the user can mend; the base of all errors of cryotile."""

    exit_code = 1


class CryotileWarning(UserWarning):
    """A call succeeded, and its result will not be what the user hopes for."""


class InvalidValue(CryotileError, ValueError):
    """An argument, option or setting breaks a rule; nothing was done."""

    exit_code = 2


class GranuleError(CryotileError):
    """A granule cannot be read; the other granules of the same call are not affected."""


class IncompleteIngest(CryotileError):
    """Some granules of an ingest are not in the point DB; the others are.

    Parameters
    ----------
    summary : str
        One line.
    problems : sequence of str
        One line for each granule that is not in the point DB.
    """

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        super().__init__(summary, problems)
        self.summary, self.problems = summary, tuple(problems)

    def __str__(self) -> str:
        if not self.problems:
            return self.summary
        more = f" (and {len(self.problems) - 1:,} more)" if len(self.problems) > 1 else ""
        return f"{self.summary}; {self.problems[0]}{more}"


class DamagedFile(CryotileError):
    """A file of a point DB or run is truncated, altered or not what its name says."""


class UnwritablePath(CryotileError, OSError):
    """A file or directory cannot be written (permissions, a full disk, a foreign directory)."""


class MissingDependency(CryotileError, ImportError):
    """An optional library is not installed; the text names the extra that brings it."""


class Unfinished(CryotileError):
    """A farm stopped while tasks were left; none of them was charged an attempt, and the same command goes on."""


class FailedTasks(CryotileError):
    """Some tasks failed after their last attempt; they stay failed until they are put back (``retry``)."""


class Drained(Unfinished):
    """A farm was asked to stop (SIGTERM) and did, in good order."""

    exit_code = 143
