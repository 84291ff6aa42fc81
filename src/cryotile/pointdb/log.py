"""The log of a point DB: numbered commits, each a directory that appears whole by a rename.

Renaming onto a directory that is not empty fails on every file system, so any number of writers on any number of nodes
agree on who has a number without a server, a lock or a hard link.  What no commit names does not exist.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from cryotile import __version__
from cryotile.errors import DamagedFile, InvalidValue
from cryotile.files import fsync_directory, read_sealed, write_durably, write_sealed, writing
from cryotile.pointdb.squares import add_up
from cryotile.pointdb.state import State, apply

__all__ = ["Change", "Log", "NumberTaken"]

CHECKPOINT_INTERVAL = 64
"""Every commit whose number is a multiple of this carries the whole state, so that opening reads few entries."""

VISIBILITY_LIMIT = 10.0
"""Seconds after which an entry that a file server says is there must be visible."""


class NumberTaken(Exception):
    """Another writer has committed under this number; read the log and take the next."""


@dataclass(frozen=True, eq=False)
class Change:
    """What a commit does.

    Attributes
    ----------
    granules, fragments : sequence of mapping
        Added; rows of :data:`cryotile.pointdb.state.GRANULES` (without ``snapshot``) and
        ``FRAGMENTS``.
    squares : pyarrow.Table
        What it changes of each square, as :data:`cryotile.pointdb.squares.SQUARES`.
    removed_granules : sequence of int
        Numbers.
    removed_fragments : sequence of str
        Paths.
    id : str
        Tells this commit from any other.
    """

    granules: Sequence[Mapping[str, Any]]
    fragments: Sequence[Mapping[str, Any]]
    squares: pa.Table
    removed_granules: Sequence[int] = ()
    removed_fragments: Sequence[str] = ()
    id: str = field(default_factory=lambda: uuid4().hex)


class Log:
    """The log of one point DB.

    Parameters
    ----------
    directory : Path
        ``log`` in the point DB.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, number: int | None = None) -> State:
        """Read the state after a commit.

        Parameters
        ----------
        number : int or None
            The commit; None: the newest.

        Returns
        -------
        State
            From one checkpoint and the commits since.

        Raises
        ------
        InvalidValue
            There is no such commit.
        DamagedFile
            A commit is missing or altered; it is named.
        """
        newest = self._newest()
        if number is not None and not 0 <= number <= newest:
            raise InvalidValue(
                f"snapshot {number} does not exist: {self.directory.parent} has 0 to {newest}; give one of them"
            )
        later: list[dict[str, Any]] = []
        for at in range(newest if number is None else number, 0, -1):
            try:
                entry = self._read(at)
            except FileNotFoundError:
                raise self._missing(at) from None
            if entry["checkpoint"]:
                return apply(self._checkpoint(at, entry["checkpoint"]), reversed(later))
            later.append(entry)
        return apply(State(), reversed(later))

    def follow(self, state: State, *, at_least: int = 0) -> State:
        """Read the commits after a state.

        Parameters
        ----------
        state : State
            Where to go on.
        at_least : int
            A commit that is known to be there, although a file server may not show it yet.

        Returns
        -------
        State
            The newest, or ``state`` itself.

        Raises
        ------
        DamagedFile
            The commit that must be there cannot be read.
        """
        entries: list[dict[str, Any]] = []
        while (number := state.number + len(entries) + 1) <= at_least:
            entries.append(self._read_patiently(number))
        try:
            while True:
                entries.append(self._read(state.number + len(entries) + 1))
        except FileNotFoundError:
            return apply(state, entries) if entries else state

    def squares(self, state: State) -> pa.Table:
        """Add up what all commits to a state say of the squares.

        Parameters
        ----------
        state : State
            Of this log.

        Returns
        -------
        pyarrow.Table
            As :data:`cryotile.pointdb.squares.SQUARES`.
        """
        at = state.checkpoint
        tables = [self._table(at, "all-squares", self._read(at)["checkpoint"])] if at else []
        for number in range(at + 1, state.number + 1):
            tables.append(self._table(number, "squares", self._read(number)))
        return add_up(tables)

    def commit(self, state: State, change: Change) -> State:
        """Make a change the next commit.

        Parameters
        ----------
        state : State
            The newest that the caller knows.
        change : Change
            Its fragments must be on the disk.

        Returns
        -------
        State
            After it; it is on the disk.

        Raises
        ------
        NumberTaken
            Another writer was faster; nothing was done.
        UnwritablePath
            A full disk, …; nothing was done.
        """
        number = state.number + 1
        content = _content(number, change)
        after = apply(state, [content])
        temporary = self.directory / f".{number:08d}.{change.id}.tmp"
        with writing(self.directory):
            try:
                temporary.mkdir()
                content["squares"] = _write_table(temporary / "squares.parquet", change.squares)
                if number % CHECKPOINT_INTERVAL == 0:
                    squares = add_up([self.squares(state), change.squares])
                    content["checkpoint"] = _write_checkpoint(temporary, after, squares)
                    after = replace(after, checkpoint=number)
                write_sealed(temporary / "commit.json", content)
                fsync_directory(temporary)
                self._publish(temporary, number, change)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            fsync_directory(self.directory)
        return after

    def holds(self, number: int, change: Change) -> bool:
        """Tell whether the commit of this number is this change."""
        try:
            return bool(self._read(number)["id"] == change.id)
        except FileNotFoundError:
            return False

    def _publish(self, temporary: Path, number: int, change: Change) -> None:
        try:
            temporary.rename(self._entry(number))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
                raise
            # A file server can do the rename, lose the reply, and fail when it is asked again.
            if self._read_patiently(number)["id"] != change.id:
                raise NumberTaken(number) from error

    def _newest(self) -> int:
        try:
            names = [path.name for path in self.directory.iterdir()]
        except FileNotFoundError:
            raise DamagedFile(f"{self.directory} is missing; put it back from a copy") from None
        numbers = sorted(int(name) for name in names if re.fullmatch(r"\d{8}", name))
        # A rename replaces an empty directory, so it is no commit, just the place of one.
        if numbers and not any(self._entry(numbers[-1]).iterdir()):
            numbers.pop()
        for earlier, later in pairwise(numbers):
            if later != earlier + 1:
                raise self._missing(earlier + 1)
        return numbers[-1] if numbers else 0

    def _entry(self, number: int) -> Path:
        return self.directory / f"{number:08d}"

    def _missing(self, number: int) -> DamagedFile:
        return DamagedFile(
            f"{self._entry(number)} is missing or has no commit.json, and later commits rest on it;"
            " put it back from a copy"
        )

    def _read(self, number: int) -> dict[str, Any]:
        path = self._entry(number) / "commit.json"
        content = read_sealed(path)
        if content["number"] != number:
            raise DamagedFile(
                f"{path} is that of commit {content['number']}; put back the right one from a copy"
            )
        return content

    def _read_patiently(self, number: int) -> dict[str, Any]:
        """Read an entry that is there, although a file server may not show it yet."""
        patience = time.monotonic() + VISIBILITY_LIMIT
        while time.monotonic() < patience:
            try:
                return self._read(number)
            except FileNotFoundError:
                time.sleep(0.05)
        raise self._missing(number)

    def _table(self, number: int, name: str, checksums: Mapping[str, str]) -> pa.Table:
        path = self._entry(number) / f"{name}.parquet"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        if hashlib.sha256(content).hexdigest() != checksums[name]:
            raise DamagedFile(
                f"{path} is missing or not what was written: its checksum differs; put it back from a copy"
            )
        return pq.read_table(pa.BufferReader(content))

    def _checkpoint(self, number: int, checksums: Mapping[str, str]) -> State:
        granules = self._table(number, "all-granules", checksums)
        return State(number, number, granules, self._table(number, "all-fragments", checksums))


def _content(number: int, change: Change) -> dict[str, Any]:
    return {
        "id": change.id,
        "number": number,
        "cryotile": __version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "granules": {"added": list(change.granules), "removed": list(change.removed_granules)},
        "fragments": {"added": list(change.fragments), "removed": list(change.removed_fragments)},
        "checkpoint": None,
    }


def _write_checkpoint(directory: Path, state: State, squares: pa.Table) -> dict[str, str]:
    tables = {
        "all-granules": state.granules,
        "all-fragments": state.fragments,
        "all-squares": squares,
    }
    return {n: _write_table(directory / f"{n}.parquet", table) for n, table in tables.items()}


def _write_table(path: Path, table: pa.Table) -> str:
    """Write a Parquet file and return its checksum."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_durably(path, content)
    return hashlib.sha256(content).hexdigest()
