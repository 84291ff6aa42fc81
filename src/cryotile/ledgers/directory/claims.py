"""The files by which tasks are claimed in a directory ledger, and what they say when they are read in turn.

The first claim of a node is the file of its name, and covers the whole node.  Each later one has the next number (its
*epoch*) and says in its first line which tasks it covers: those that were handed back, or whose holder is gone.
A file is created exclusively, by its holder, who alone appends to it, a line of JSON at a time:

====================================  ================================================================
``{"host", "process", "tasks", …}``   the first line: who holds it and for how long, which offsets (null: all), the
                                      attempts made of each so far, and the epochs whose holders were found gone
``{"started": [offset, …]}``          from here on a lost worker costs these tasks an attempt
``{"done": [offset, …]}``             settled
``{"failed": {offset: error, …}}``    an attempt failed: settled if it was the last one
``{"released": [offset, …]}``         handed back, without a charge
====================================  ================================================================

A task is in the state that the newest claim which covers it gives it.  So what a worker writes after its lease was lost
says nothing any more, whenever it writes it, and nobody needs to have noticed.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cryotile.farm.task import ATTEMPTS
from cryotile.ledgers.directory.layout import Node

__all__ = [
    "GONE",
    "Chain",
    "Claim",
    "append",
    "create",
    "read_claim",
    "remove",
    "touch",
]

# A path that leads nowhere: what was there is gone, because all of it is settled.
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
    epoch : int
        Its number, 0 for the first claim of a node.
    signature : tuple of int
        Modification time (nanoseconds) and size when it was read.
    lines : list of dict
        What its holder wrote; empty when the holder has not come to that.
    """

    path: str
    epoch: int
    signature: Signature
    lines: list[dict[str, Any]]

    @property
    def host(self) -> str:
        """Host of the holder; empty when unknown."""
        return str(self.lines[0]["host"]) if self.lines else ""

    @property
    def lease(self) -> float:
        """Seconds for which it is good without a change; of a claim with lines."""
        return float(self.lines[0]["lease"])

    @property
    def process(self) -> str:
        """Process of the holder, as of :func:`cryotile.processes.this_process`."""
        return str(self.lines[0]["process"]) if self.lines else ""


@dataclass
class Chain:
    """The state of a node that was claimed, from all its claims.

    Attributes
    ----------
    node : Node
        The node.
    claims : list of Claim
        In the order of their epochs.
    holder : dict of int to int
        Epoch of the claim that holds a task, by offset; a task that is neither held nor settled waits.
    charges : dict of int to int
        Attempts made of each task, but for the one that may be going on.
    started : set of int
        Offsets of held tasks that were started.
    settled : dict of int to (str, str or None)
        Host that settled each, and its error if it failed for good.
    failures : dict of int to str
        Host of the last failed attempt at tasks that are not settled.
    """

    node: Node
    claims: list[Claim]
    holder: dict[int, int] = field(default_factory=dict)
    charges: dict[int, int] = field(default_factory=dict)
    started: set[int] = field(default_factory=set)
    settled: dict[int, tuple[str, str | None]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Replaying one may remove another from the list.
        for claim in list(self.claims):
            self._replay(claim)

    def waiting(self) -> list[int]:
        """Return the offsets of the tasks that can be claimed.

        While the holder of the newest claim has not said what that covers, this is none.
        """
        if any(claim.epoch and not claim.lines for claim in self.claims):
            return []
        return [
            offset
            for offset in range(self.node.count)
            if offset not in self.holder and offset not in self.settled
        ]

    def holders(self) -> list[Claim]:
        """Return the claims that still hold tasks, or may."""
        held = set(self.holder.values())
        return [c for c in self.claims if c.epoch in held or (c.epoch and not c.lines)]

    def expire(self, claim: Claim) -> None:
        """Take its tasks from a holder that is gone; those it had started are charged an attempt."""
        for offset in [o for o, epoch in self.holder.items() if epoch == claim.epoch]:
            del self.holder[offset]
            if offset in self.started:
                self._charge(offset)
        if not claim.lines:
            self.claims.remove(claim)

    def is_settled(self) -> bool:
        """Tell whether every task is settled."""
        return len(self.settled) == self.node.count

    def _replay(self, claim: Claim) -> None:
        covered: Iterable[int] = () if claim.epoch else range(self.node.count)
        if claim.lines:
            first = claim.lines[0]
            gone = set(first.get("gone", ()))
            for earlier in [c for c in self.claims if c.epoch in gone]:
                self.expire(earlier)
            covered = range(self.node.count) if first["tasks"] is None else first["tasks"]
            self.charges |= {int(o): n for o, n in first.get("charges", {}).items()}
        for offset in covered:
            self.holder[offset] = claim.epoch
            self.started.discard(offset)
            self.settled.pop(offset, None)
        for line in claim.lines[1:]:
            self._apply(claim, line)

    def _apply(self, claim: Claim, line: Mapping[str, Any]) -> None:
        """Let a line take effect on those of its tasks that the claim still holds."""
        for offset in line.get("started", ()):
            if self.holder.get(offset) == claim.epoch:
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
        if self.holder.get(offset) != claim.epoch:
            return False
        del self.holder[offset]
        self.started.discard(offset)
        return True

    def _charge(self, offset: int) -> None:
        self.charges[offset] = self.charges.get(offset, 0) + 1
        self.started.discard(offset)


def create(path: str, line: Mapping[str, Any]) -> bool:
    """Create a claim exclusively, with its first line; False when it, or a directory of its name, is there.

    Also when the directory it was to be in is gone, because all of that is settled.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except OSError as error:
        if error.errno == errno.EEXIST or error.errno in GONE:
            return False
        raise
    try:
        _write(descriptor, line)
    except OSError:
        # A claim without its line is nobody's, and would keep everybody off for a whole lease.
        remove(path)
        raise
    return True


def append(path: str, line: Mapping[str, Any]) -> bool:
    """Append a line to one's own claim; False when the claim is gone, because all of its node is settled."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        if error.errno in GONE:
            return False
        raise
    _write(descriptor, line)
    return True


def remove(path: str) -> None:
    """Remove a file that others may have removed, or a file server may still hold."""
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        os.unlink(path)


def touch(path: str) -> bool:
    """Change the time of a file to the file server's; False when it is gone."""
    try:
        os.utime(path)
    except OSError as error:
        if error.errno in GONE:
            return False
        raise
    return True


def _write(descriptor: int, line: Mapping[str, Any]) -> None:
    # It begins a line of its own even after one that a full disk cut short.  Closing hands it to a file server.
    content = b"\n" + json.dumps(line, separators=(",", ":")).encode() + b"\n"
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


def read_claim(path: str, epoch: int, known: Claim | None = None) -> Claim | None:
    """Read a claim.

    Parameters
    ----------
    path : str
        The file.
    epoch : int
        Its number.
    known : Claim, optional
        As read before; given back if the file is unchanged.

    Returns
    -------
    Claim or None
        None when it is gone.
    """
    try:
        state = os.stat(path)
        signature = (state.st_mtime_ns, state.st_size)
        if known is not None and known.signature == signature:
            return known
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    lines = [parsed for line in content.splitlines() if (parsed := _parse(line)) is not None]
    if lines and "host" not in lines[0]:
        lines = []
    return Claim(path, epoch, signature, lines)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Read a line; None for one that was cut short."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
