"""Errors that a user can correct.

The message of each error is one line with the value, the rule that it breaks and the remedy.  A remedy names a setting
as a keyword, e.g. ``crs="EPSG:3031"``.  The command line prints this line, with options in place of keywords, and exits
with ``exit_code``; a library user catches :class:`CryotileError` or the built-in base class.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import SupportsFloat

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
    "command",
    "number_of",
    "path_of",
]


def command(*words: object) -> str:
    """Return a command of ``cryotile`` for a message, quoted so that it can be pasted into a shell."""
    return " ".join(["cryotile", *(_quoted(str(word)) for word in words)])


def _quoted(word: str) -> str:
    # shlex writes each single quote, of which conditions have many, with five characters.
    easy = "'" in word and not set(word) & set('"$`\\!')
    return f'"{word}"' if easy else shlex.quote(word)


def path_of(name: str, value: object, remedy: str = "give a path") -> Path:
    """Return an argument that must be a path; raise InvalidValue if it is of another type."""
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise InvalidValue(f"{name} must be a path, not of type {type(value).__name__}; {remedy}")


def number_of(name: str, value: object) -> float:
    """Return an argument that must be a number; raise InvalidValue if it is of another type."""
    if isinstance(value, SupportsFloat) and not isinstance(value, str):
        return float(value)
    raise InvalidValue(f"{name} must be a number, not of type {type(value).__name__}; give one")


class CryotileError(Exception):
    """The base of all errors of cryotile; a user can correct the cause."""

    exit_code = 1


class CryotileWarning(UserWarning):
    """A call succeeded, but its result is probably not what the user wants."""


class InvalidValue(CryotileError, ValueError):
    """An argument, option or setting breaks a rule; nothing was done."""

    exit_code = 2


class GranuleError(CryotileError):
    """A granule cannot be read; other granules of the same call are not affected."""


class IncompleteIngest(CryotileError):
    """Some granules of an ingest are not in the point DB; the others are.

    Parameters
    ----------
    summary : str
        Summary in one line.
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
    """A file of a point DB or run is truncated, altered or of another kind than its name says."""


class UnwritablePath(CryotileError, OSError):
    """A file or directory cannot be written, e.g. for lack of permission or space, or because it is not ours."""


class MissingDependency(CryotileError, ImportError):
    """An optional library is not installed; the message names the extra that installs it."""


class Unfinished(CryotileError):
    """A farm stopped before all tasks were done; the rest was charged no attempt, and the same command continues."""


class FailedTasks(CryotileError):
    """The last attempt of some tasks failed; they stay failed until they are put back (``retry``)."""


class Drained(Unfinished):
    """A farm was asked to stop (SIGTERM) and has released its tasks."""

    exit_code = 143
