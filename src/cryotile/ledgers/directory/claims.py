"""Claims of a directory ledger: the files by which tasks are claimed, and the state of tasks that follows from them.

A unit has two sequences of claims.  Those named 0, 1, 2, … cover tasks that were never claimed; the newest one says
which tasks are left.  Those named r0, r1, r2, … cover tasks that were handed back, or whose holder is gone.  A claim is
created exclusively by its holder; only the holder appends to it, one line at a time: a checksum of the name of the
file and the rest of the line, a blank, and JSON:

====================================  ================================================================
``{"host", "process", "tasks", …}``   the first line: the holder and the length of its lease; the offsets that the claim
                                      covers, the attempts made of each so far (``charges``), and the claims whose
                                      holders were found gone; the offset after which no task was claimed (``next``),
                                      and the offsets before it that were left out (``skipped``)
``{"started": [offset, …]}``          from here on a lost worker costs these tasks an attempt
``{"done": [offset, …]}``             settled
``{"failed": {offset: error, …}}``    an attempt failed: settled if it was the last one
``{"released": [offset, …]}``         handed back, without a charge
====================================  ================================================================

The newest claim that covers a task determines its state.  So what a worker writes after its lease was lost has no
effect, whenever it writes it, and no other worker has to notice.

A line whose checksum differs was not written.  Without its first line a claim says nothing, as if its holder had died
before; a task that no claim names any more, although a later claim follows it, waits again.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryotile.farm.task import ATTEMPTS
from cryotile.files import make_way
from cryotile.ledgers.directory.layout import Unit

__all__ = [
    "GONE",
    "Chain",
    "Claim",
    "append",
    "create",
    "read_claim",
    "read_lines",
    "remove",
    "touch",
]

# Errors of a path whose file is gone, because its unit is settled or something else is in its place.
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ESTALE})

Signature = tuple[int, int]
"""What changes whenever a claim is touched or appended to: its mtime (of the file server's clock) and its size."""


@dataclass(frozen=True)
class Claim:
    """One claim, as read from its file.

    Attributes
    ----------
    path : str
        The file.
    name : str
        Its name in the unit.
    signature : tuple of int
        Modification time (nanoseconds) and size when it was read.
    lines : list of dict
        What its holder wrote; empty if the holder has not written the first line yet.
    """

    path: str
    name: str
    signature: Signature
    lines: list[dict[str, Any]]

    @property
    def host(self) -> str:
        """Host of the holder; empty if unknown."""
        return str(self.lines[0]["host"]) if self.lines else ""

    @property
    def lease(self) -> float:
        """Seconds for which it is valid without a change; for a claim with lines."""
        return float(self.lines[0]["lease"])

    @property
    def process(self) -> str:
        """Process of the holder, as of :func:`cryotile.processes.this_process`."""
        return str(self.lines[0]["process"]) if self.lines else ""


@dataclass
class Chain:
    """The state of the tasks of a unit that were claimed, from all its claims.

    Attributes
    ----------
    unit : Unit
        The unit.
    claims : list of Claim
        In their order: those of tasks that were never claimed, then the others.
    names : list of str
        Names of all claims, those included that were given up before they said anything.
    next : str
        Name of the next claim of returned tasks.
    holder : dict of int to str or None
        Name of the claim that holds a task, by offset; None if it waits again or is settled.
    charges : dict of int to int
        Attempts made of each task, without the one that may be running.
    started : set of int
        Offsets of held tasks that were started.
    settled : dict of int to (str, str or None)
        Host that settled each task, and its error if it failed for good.
    failures : dict of int to str
        Host of the last failed attempt at tasks that are not settled.
    """

    unit: Unit
    claims: list[Claim]
    holder: dict[int, str | None] = field(default_factory=dict)
    charges: dict[int, int] = field(default_factory=dict)
    started: set[int] = field(default_factory=set)
    settled: dict[int, tuple[str, str | None]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = [claim.name for claim in self.claims]
        self.next = f"r{sum(name.startswith('r') for name in self.names)}"
        # Replaying a claim may remove another one from the list.
        for claim in list(self.claims):
            if claim.lines:
                self._replay(claim)

    @property
    def blocked(self) -> bool:
        """Whether no returned task can be claimed now, because a claim of such tasks says nothing yet."""
        return any(not claim.lines for claim in self.claims if claim.name.startswith("r"))

    def returned(self) -> list[int]:
        """Return the offsets of the tasks that were claimed and wait again."""
        waiting = {o for o, name in self.holder.items() if name is None and o not in self.settled}
        return sorted(waiting | self._lost())

    def _lost(self) -> set[int]:
        """Return the offsets of the tasks that were claimed by claims that are lost."""
        if not self.claims or not all(claim.lines for claim in self.claims):
            return set()
        first = [claim.lines[0] for claim in self.claims if "next" in claim.lines[0]]
        claimed = set(range(first[-1]["next"])) - set(first[-1]["skipped"]) if first else set()
        return claimed - self.holder.keys()

    def holders(self) -> list[Claim]:
        """Return the claims that hold tasks, or may hold some."""
        held = set(self.holder.values())
        return [claim for claim in self.claims if claim.name in held or not claim.lines]

    def expire(self, claim: Claim) -> None:
        """Take its tasks from a holder that is gone; those it had started are charged an attempt."""
        for offset in [o for o, name in self.holder.items() if name == claim.name]:
            self.holder[offset] = None
            if offset in self.started:
                self._charge(offset)
        if not claim.lines:
            self.claims.remove(claim)

    def _replay(self, claim: Claim) -> None:
        first = claim.lines[0]
        gone = set(first["gone"])
        for earlier in [c for c in self.claims if c.name in gone]:
            self.expire(earlier)
        self.charges |= {int(offset): n for offset, n in first["charges"].items()}
        for offset in first["tasks"]:
            self.holder[offset] = claim.name
            self.started.discard(offset)
            self.settled.pop(offset, None)
        for line in claim.lines[1:]:
            self._apply(claim, line)

    def _apply(self, claim: Claim, line: Mapping[str, Any]) -> None:
        """Apply a line to those of its tasks that the claim still holds."""
        for offset in line.get("started", ()):
            if self.holder.get(offset) == claim.name:
                self.started.add(offset)
        for offset in line.get("released", ()):
            self._let_go(claim, offset)
        for offset in line.get("done", ()):
            if self._let_go(claim, offset):
                self.settled[offset] = (claim.host, None)
        for text, error in line.get("failed", {}).items():
            if self._let_go(claim, offset := int(text)):
                self.failures[offset] = claim.host
                self._charge(offset)
                if self.charges[offset] >= ATTEMPTS:
                    self.settled[offset] = (claim.host, error)

    def _let_go(self, claim: Claim, offset: int) -> bool:
        if self.holder.get(offset) != claim.name:
            return False
        self.holder[offset] = None
        self.started.discard(offset)
        return True

    def _charge(self, offset: int) -> None:
        self.charges[offset] = self.charges.get(offset, 0) + 1
        self.started.discard(offset)


def create(path: str, line: Mapping[str, Any]) -> bool:
    """Create a claim exclusively, with its first line; return False if it exists, or the list is gone."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except OSError as error:
        if error.errno == errno.EEXIST or error.errno in GONE:
            return False
        raise
    try:
        _write(descriptor, path, line)
    except OSError:
        # A claim without its first line would block its unit for a whole lease.
        remove(path)
        raise
    return True


def append(path: str, line: Mapping[str, Any]) -> bool:
    """Append a line to one's own claim; return False if the claim is gone, because its unit is settled."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        if error.errno in GONE:
            return False
        raise
    _write(descriptor, path, line)
    return True


def remove(path: str) -> None:
    """Remove a file that another worker may have removed; set a directory in its place aside."""
    try:
        os.unlink(path)
    except OSError as error:
        make_way(Path(path))
        if error.errno not in GONE:
            raise


def touch(path: str) -> bool:
    """Set the time of a file to the file server's; return False if it is gone."""
    try:
        os.utime(path)
    except OSError as error:
        if error.errno in GONE:
            return False
        raise
    return True


def _write(descriptor: int, path: str, line: Mapping[str, Any]) -> None:
    text = json.dumps(line, separators=(",", ":")).encode()
    # It starts with a newline: a full disk may have cut the last line short.  Closing sends it to a file server.
    content = b"\n%s %s\n" % (_checksum(path, text), text)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


def read_claim(path: str, name: str, known: Claim | None = None) -> Claim | None:
    """Read a claim.

    Parameters
    ----------
    path : str
        The file.
    name : str
        Its name in the unit.
    known : Claim, optional
        The claim as it was read before; returned if the file is unchanged.

    Returns
    -------
    Claim or None
        None if there is none.
    """
    try:
        state = os.stat(path)
        signature = (state.st_mtime_ns, state.st_size)
        if known is not None and known.signature == signature:
            return known
        with open(path, "rb") as file:
            content = file.read()
    except IsADirectoryError:
        content = b""
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    lines = read_lines(path, content)
    if lines and "host" not in lines[0]:
        lines = []
    return Claim(path, name, signature, lines)


def read_lines(path: str, content: bytes) -> list[dict[str, Any]]:
    """Return the lines of a file, given its content, that are as they were written to this file."""
    lines = []
    for line in content.splitlines():
        checksum, _, text = line.partition(b" ")
        if text and checksum == _checksum(path, text):
            lines.append(json.loads(text))
    return lines


def _checksum(path: str, text: bytes) -> bytes:
    # With the name in the list, so that a file that was renamed or copied says nothing.
    name = "/".join(path.rsplit("/", 2)[1:])
    return b"%08x" % zlib.crc32(text, zlib.crc32(name.encode()))
