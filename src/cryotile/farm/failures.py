"""The kind of a failure: its error without what differs from task to task."""

from __future__ import annotations

import hashlib
import re

__all__ = ["folded", "kind_of"]

# Paths first: their digits are part of them.  A scheme is looked for at the start of a word alone: from each of its
# characters, the time would grow with the square of the length of an error.
_PATH = re.compile(r"(?:(?<![\w.+-])[\w.+-]+:/)?(?:~|\.{1,2})?/[^\s'\",;:()]+")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(?:[.,]\d+)*")

# Characters of a folded error.
_LONGEST = 300


def folded(error: str) -> str:
    """Return the last line of an error, with a ``…`` for each path and a ``#`` for each number.

    Parameters
    ----------
    error : str
        Traceback or reason.
    """
    line = error.rstrip().rpartition("\n")[2]
    return _NUMBER.sub("#", _PATH.sub("…", line))[:_LONGEST]


def kind_of(error: str) -> str:
    """Return the digest of a folded error, 16 hexadecimal digits."""
    return hashlib.sha256(folded(error).encode(errors="replace")).hexdigest()[:16]
