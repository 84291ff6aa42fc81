"""The log of a point DB: numbered commits, and the snapshot after each.  A file that no commit names does not exist.

A commit is a directory that appears whole by a rename to its number.  Renaming onto a directory that is not empty fails
on every file system, so any number of writers on any number of nodes agree on the owner of a number without a server, a
lock or a hard link.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cryotile.errors import DamagedFile, InvalidValue, command
from cryotile.files import (
    atomic_path,
    fsync,
    make_way,
    read_sealed,
    write_durably,
    write_sealed,
    writing,
)
from cryotile.pointdb.snapshot import FRAGMENTS, GRANULES, Commit, Snapshot
from cryotile.pointdb.squares import SquareChanges, add_up

__all__ = [
    "CHECKPOINT_INTERVAL",
    "CHECKPOINT_TABLES",
    "Log",
    "NumberTaken",
    "patiently",
    "write_checkpoint",
]

CHECKPOINT_INTERVAL = 64
"""Every commit whose number is a multiple of this holds a checkpoint, the whole snapshot, so that opening reads few
commits."""

CHECKPOINT_TABLES = ("all-granules", "all-fragments", "all-squares")

VISIBILITY_LIMIT = 10.0
"""Seconds after which a file that a file server has reported must be visible."""

_REMEDY = (
    "put it back from a copy, or let 'cryotile remove DB --damaged' set it and all later ones aside"
)

_BEFORE_COMPACTION = {"compaction": False, "history": {"oldest": 0, "kept": []}, "fenced": []}
"""Keys that the commits of the first point DBs lack."""


class NumberTaken(Exception):
    """Another writer has committed under this number; read the log and take the next."""


class Log:
    """The log of one point DB.

    Parameters
    ----------
    directory : Path
        ``log`` in the point DB.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, number: int | None = None) -> Snapshot:
        """Read a snapshot.

        Parameters
        ----------
        number : int or None
            Number of its commit; None: the newest.

        Returns
        -------
        Snapshot
            From one checkpoint and the commits since.  If compactions follow the commit at once, it is the snapshot
            after them: the same points, in files that still exist.

        Raises
        ------
        InvalidValue
            The commit does not exist, or a compaction has ended its snapshot.
        DamagedFile
            A commit is missing or altered; the message names it.
        """
        while True:
            newest = self.newest()
            try:
                return self._snapshot(newest if number is None else self._alike(number, newest))
            except DamagedFile:
                # A compaction deletes checkpoints that no snapshot needs; then there are newer commits.
                if self.newest() == newest:
                    raise

    def follow(self, snapshot: Snapshot, *, at_least: int = 0) -> Snapshot:
        """Read the commits after a snapshot.

        Parameters
        ----------
        snapshot : Snapshot
            Where to start.
        at_least : int
            A commit that is known to exist, although a file server may not show it yet.

        Returns
        -------
        Snapshot
            The newest, or ``snapshot`` itself.

        Raises
        ------
        DamagedFile
            The commit that must exist cannot be read.
        """
        later: list[dict[str, Any]] = []
        while (number := snapshot.number + len(later) + 1) <= at_least:
            later.append(self._read_patiently(number))
        while (commit := self.find(snapshot.number + len(later) + 1)) is not None:
            later.append(commit)
        return snapshot.after(later) if later else snapshot

    def squares(self, snapshot: Snapshot) -> pa.Table:
        """Sum the changes of squares of all commits up to a snapshot.

        Parameters
        ----------
        snapshot : Snapshot
            Of this log.

        Returns
        -------
        pyarrow.Table
            As :data:`cryotile.pointdb.encoding.SQUARES`.
        """
        changes, begin = SquareChanges(), 0
        for at, checksums in self._checkpoints(snapshot.number):
            with suppress(DamagedFile):
                changes.add(self.table(at, "all-squares", checksums))
                begin = at
                break
        for number in range(begin + 1, snapshot.number + 1):
            changes.add(self.table(number, "squares", self.read(number)))
        return changes.total()

    def history(self, newest: int) -> Iterator[dict[str, Any]]:
        """Yield the contents of commits, from ``newest`` back to the first."""
        yield from map(self.read, range(newest, 0, -1))

    def commit(self, before: Snapshot, commit: Commit) -> Snapshot:
        """Write the next commit.

        Parameters
        ----------
        before : Snapshot
            The newest that the caller knows.
        commit : Commit
            Its fragments must be on the disk.

        Returns
        -------
        Snapshot
            After it; it is on the disk.

        Raises
        ------
        NumberTaken
            Another writer was faster; nothing was changed.
        UnwritablePath
            The disk is full or another error of the file system; nothing was changed.
        """
        content = commit.content(before)
        number, after = content["number"], before.after([content])
        temporary = self.directory / f".{number:08d}.{commit.id}.tmp"
        with writing(self.directory):
            try:
                temporary.mkdir()
                content["squares"] = _write_table(temporary / "squares.parquet", commit.squares)
                if number % CHECKPOINT_INTERVAL == 0:
                    squares = add_up([self.squares(before), commit.squares])
                    content["checkpoint"] = write_checkpoint(temporary, after, squares)
                write_sealed(temporary / "commit.json", content)
                fsync(temporary)
                self._publish(temporary, number, commit.id)
            except (FileNotFoundError, DamagedFile) as error:
                # A compaction may have fenced this writer and swept its directory, or deleted the checkpoint.
                if (self.path(number) / "commit.json").exists() and not self.holds(number, commit):
                    raise NumberTaken(number) from error
                raise
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            fsync(self.directory)
        return after

    def holds(self, number: int, commit: Commit) -> bool:
        """Tell whether a number is that of this commit."""
        return self.id(number) == commit.id

    def id(self, number: int) -> str:
        """Return the id of a commit; empty if there is no such commit."""
        content = self.find(number)
        return "" if content is None else str(content["id"])

    def path(self, number: int) -> Path:
        """Return the directory of a commit."""
        return self.directory / f"{number:08d}"

    def table_path(self, number: int, name: str) -> Path:
        """Return the path of one of the Parquet files of a commit."""
        return self.path(number) / f"{name}.parquet"

    def spare_files(self, newest: Snapshot, kept: Sequence[Snapshot]) -> Iterator[Path]:
        """Yield the paths of the tables that no remaining snapshot rests on; a compaction deletes them.

        Parameters
        ----------
        newest : Snapshot
            The newest; all since its newest compaction remain.
        kept : sequence of Snapshot
            Earlier ones that remain.
        """
        base = self.base(newest)
        needed = {base} | {_last_checkpoint(snapshot.number) for snapshot in kept}
        summed = {n for s in kept for n in range(_last_checkpoint(s.number) + 1, s.number + 1)}
        for number in range(1, base + 1):
            if number % CHECKPOINT_INTERVAL == 0 and number not in needed:
                yield from (self.table_path(number, name) for name in CHECKPOINT_TABLES)
            if number not in summed:
                yield self.table_path(number, "squares")

    def base(self, snapshot: Snapshot) -> int:
        """Return the number of the checkpoint that the oldest snapshot since the newest compaction rests on, or 0."""
        # Of the snapshot before the compaction: a writer that does not know the compaction yet may look for it.
        return max(0, _last_checkpoint(snapshot.oldest - 1))

    def has_checkpoint(self, number: int) -> bool:
        """Tell whether a commit has a checkpoint that is not damaged."""
        try:
            checksums = self.read(number)["checkpoint"] or {}
            for name in CHECKPOINT_TABLES:
                self.table(number, name, checksums)
        except (DamagedFile, KeyError):
            return False
        return True

    def replace_squares(self, number: int, squares: pa.Table) -> None:
        """Write the sums of squares of a checkpoint anew; no other process may write to the log meanwhile."""
        content = self.read(number)
        del content["checksum"]
        path = self.table_path(number, "all-squares")
        make_way(path)
        with atomic_path(path) as temporary:
            content["checkpoint"]["all-squares"] = _write_table(temporary, squares)
        with atomic_path(self.path(number) / "commit.json") as temporary:
            write_sealed(temporary, content)

    def _checkpoints(self, number: int) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield number and checksums of each checkpoint up to a commit, the newest first; leave out damaged commits."""
        for at in range(_last_checkpoint(number), 0, -CHECKPOINT_INTERVAL):
            with suppress(DamagedFile):
                if checksums := self.read(at)["checkpoint"]:
                    yield at, checksums

    def numbers(self) -> list[int]:
        """Return the numbers of the directories of commits, in order."""
        names = (path.name for path in self.directory.iterdir())
        return sorted(int(name) for name in names if re.fullmatch(r"\d{8}", name))

    def newest(self) -> int:
        """Return the number of the newest commit, 0 if there is none.

        Raises
        ------
        DamagedFile
            A commit before it is missing, and no later checkpoint replaces it.
        """
        try:
            numbers = self.numbers()
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedFile(f"{self.directory} is missing; put it back from a copy") from None
        # A rename replaces an empty directory, so an empty one is not a commit.
        if (
            numbers
            and self.path(numbers[-1]).is_dir()
            and not any(self.path(numbers[-1]).iterdir())
        ):
            numbers.pop()
        checkpoint = _last_checkpoint(numbers[-1]) if numbers else 0
        for earlier, later in pairwise([0, *numbers]):
            if later != earlier + 1 and later > checkpoint:
                raise self._missing(earlier + 1)
        return numbers[-1] if numbers else 0

    def find(self, number: int) -> dict[str, Any] | None:
        """Read the content of a commit; return None if there is no such commit.

        Raises
        ------
        DamagedFile
            Its bytes have changed since they were written, or it is a copy of another commit.
        """
        path = self.path(number) / "commit.json"
        try:
            content = read_sealed(path)
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            raise DamagedFile(
                f"{path} is not what was written: its checksum differs; {_REMEDY}"
            ) from error
        if content["number"] != number:
            raise DamagedFile(f"{path} is that of commit {content['number']}; {_REMEDY}")
        return _BEFORE_COMPACTION | content

    def read(self, number: int) -> dict[str, Any]:
        """Read the content of a commit.

        Raises
        ------
        DamagedFile
            It is missing or altered.
        """
        content = self.find(number)
        if content is None:
            raise self._missing(number)
        return content

    def table(self, number: int, name: str, checksums: Mapping[str, str]) -> pa.Table:
        """Read one of the Parquet files of a commit.

        Raises
        ------
        DamagedFile
            It is missing or altered.
        """
        path = self.table_path(number, name)
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() != checksums[name]:
            raise DamagedFile(
                f"{path} is missing or not what was written: its checksum differs; {_REMEDY}"
            )
        return pq.read_table(pa.BufferReader(content))

    def _read_patiently(self, number: int) -> dict[str, Any]:
        """Read a commit that exists, although a file server may not show it yet."""
        for _ in patiently():
            if (content := self.find(number)) is not None:
                return content
        raise self._missing(number)

    def _publish(self, temporary: Path, number: int, id_: str) -> None:
        """Rename a complete directory, which is on the disk, to its number."""
        try:
            temporary.rename(self.path(number))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
                raise
            # A file server may do the rename, lose the reply, and fail when it is asked again.
            if self._read_patiently(number)["id"] != id_:
                raise NumberTaken(number) from error

    def _missing(self, number: int) -> DamagedFile:
        return DamagedFile(
            f"{self.path(number)} is missing or has no commit.json, and later commits rest on it; {_REMEDY}"
        )

    def _alike(self, number: int, newest: int) -> int:
        """Return the last commit after which the points are those of the snapshot and can be read."""
        db = self.directory.parent
        if not 0 <= number <= newest:
            raise InvalidValue(
                f"snapshot {number} does not exist: {db} has 0 to {newest}; give one of them"
            )
        if number == newest:
            return number
        history = self.read(newest)["history"]
        last = number
        while last < newest and self.read(last + 1)["compaction"]:
            last += 1
        if last < history["oldest"] and number not in history["kept"]:
            there = ", ".join([*map(str, history["kept"]), f"{history['oldest']} to {newest}"])
            raise InvalidValue(
                f"snapshot {number} of {db} was ended by the compaction {history['oldest']}: there are {there};"
                f" plan again from the newest, and next time keep it with: {command('compact', db, '--keep', number)}"
            )
        return last

    def _snapshot(self, number: int) -> Snapshot:
        begin = Snapshot()
        for at, checksums in self._checkpoints(number):
            # The content of a damaged or deleted checkpoint also follows from the commits before it.
            with suppress(DamagedFile):
                begin = self._checkpoint(at, checksums)
                break
        # One after another, because their content may not fit in memory.
        return begin.after(map(self.read, range(begin.number + 1, number + 1)))

    def _checkpoint(self, number: int, checksums: Mapping[str, str]) -> Snapshot:
        # The first point DBs recorded neither the passes of a granule nor the footer of a fragment.
        granules, fragments = (
            pa.concat_tables(
                [form.empty_table(), self.table(number, name, checksums)], promote_options="default"
            )
            for form, name in zip((GRANULES, FRAGMENTS), CHECKPOINT_TABLES[:2], strict=True)
        )
        history = self.read(number)["history"]
        return Snapshot(number, granules, fragments, history["oldest"], tuple(history["kept"]))


def _last_checkpoint(number: int) -> int:
    """Return the number of the last commit up to one that holds a checkpoint; 0 or less if there is none."""
    return number // CHECKPOINT_INTERVAL * CHECKPOINT_INTERVAL


def patiently() -> Iterator[None]:
    """Yield until a file that a file server has reported must be visible."""
    patience = time.monotonic() + VISIBILITY_LIMIT
    while True:
        yield
        if time.monotonic() > patience:
            return
        time.sleep(0.05)


def write_checkpoint(directory: Path, snapshot: Snapshot, squares: pa.Table) -> dict[str, str]:
    """Write a snapshot and the sums of its squares as Parquet files; return name → checksum."""
    tables = (snapshot.granules, snapshot.fragments, squares)
    named = zip(CHECKPOINT_TABLES, tables, strict=True)
    return {name: _write_table(directory / f"{name}.parquet", table) for name, table in named}


def _write_table(path: Path, table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_durably(path, content)
    return hashlib.sha256(content).hexdigest()
