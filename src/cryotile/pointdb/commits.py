"""Entries of the log: numbered directories, each of which appears whole by a rename.

Renaming onto a directory that is not empty fails on every file system, so any number of writers on any number of nodes
agree on who has a number without a server, a lock or a hard link.
"""

from __future__ import annotations

import errno
import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cryotile.errors import DamagedFile
from cryotile.files import read_sealed, write_durably

__all__ = ["Entries", "NumberTaken", "patiently", "write_table"]

VISIBILITY_LIMIT = 10.0
"""Seconds after which what a file server says is there must be visible."""

_REMEDY = (
    "put it back from a copy, or let 'cryotile remove DB --damaged' set it and all later ones aside"
)

CHECKPOINT_INTERVAL = 64
"""Every commit whose number is a multiple of this carries the whole state, so that opening reads few entries."""


_BEFORE_COMPACTION = {"compaction": False, "history": {"oldest": 0, "kept": []}, "fenced": []}
"""What the commits of the first point DBs do not say."""


class NumberTaken(Exception):
    """Another writer has committed under this number; read the log and take the next."""


class Entries:
    """The directories of a log.

    Parameters
    ----------
    directory : Path
        ``log`` in the point DB.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, number: int) -> Path:
        """Directory of an entry."""
        return self.directory / f"{number:08d}"

    def newest(self) -> int:
        """Return the number of the newest entry, 0 where there is none.

        Raises
        ------
        DamagedFile
            One before it is missing, and no checkpoint later than that stands in for it.
        """
        try:
            names = [path.name for path in self.directory.iterdir()]
        except FileNotFoundError:
            raise DamagedFile(f"{self.directory} is missing; put it back from a copy") from None
        numbers = sorted(int(name) for name in names if re.fullmatch(r"\d{8}", name))
        # A rename replaces an empty directory, so it is no commit, just the place of one.
        if numbers and not any(self.path(numbers[-1]).iterdir()):
            numbers.pop()
        checkpoint = numbers[-1] // CHECKPOINT_INTERVAL * CHECKPOINT_INTERVAL if numbers else 0
        for earlier, later in pairwise([0, *numbers]):
            if later != earlier + 1 and later > checkpoint:
                raise self.missing(earlier + 1)
        return numbers[-1] if numbers else 0

    def read(self, number: int) -> dict[str, Any]:
        """Read what a commit says.

        Raises
        ------
        DamagedFile
            It is not what was written, or is that of another commit.
        FileNotFoundError
            There is none.
        """
        path = self.path(number) / "commit.json"
        try:
            content = read_sealed(path)
        except DamagedFile as error:
            raise DamagedFile(
                f"{path} is not what was written: its checksum differs; {_REMEDY}"
            ) from error
        if content["number"] != number:
            raise DamagedFile(f"{path} is that of commit {content['number']}; {_REMEDY}")
        return _BEFORE_COMPACTION | content

    def read_patiently(self, number: int) -> dict[str, Any]:
        """Read an entry that is there, although a file server may not show it yet."""
        for _ in patiently():
            with suppress(FileNotFoundError):
                return self.read(number)
        raise self.missing(number)

    def table(self, number: int, name: str, checksums: Mapping[str, str]) -> pa.Table:
        """Read one of the Parquet files of an entry.

        Raises
        ------
        DamagedFile
            It is missing or altered.
        """
        path = self.path(number) / f"{name}.parquet"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        if hashlib.sha256(content).hexdigest() != checksums[name]:
            raise DamagedFile(
                f"{path} is missing or not what was written: its checksum differs; {_REMEDY}"
            )
        return pq.read_table(pa.BufferReader(content))

    def publish(self, temporary: Path, number: int, change: str) -> None:
        """Rename a directory to an entry.

        Parameters
        ----------
        temporary : Path
            All that the entry holds, on the disk.
        number : int
            Its number.
        change : str
            Id of the change that it is.

        Raises
        ------
        NumberTaken
            Another writer has it.
        """
        try:
            temporary.rename(self.path(number))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
                raise
            # A file server can do the rename, lose the reply, and fail when it is asked again.
            if self.read_patiently(number)["id"] != change:
                raise NumberTaken(number) from error

    def missing(self, number: int) -> DamagedFile:
        """Return the error that an entry is not there."""
        return DamagedFile(
            f"{self.path(number)} is missing or has no commit.json, and later commits rest on it; {_REMEDY}"
        )


def patiently() -> Iterator[None]:
    """Yield until what a file server says is there must be visible."""
    patience = time.monotonic() + VISIBILITY_LIMIT
    while True:
        yield
        if time.monotonic() > patience:
            return
        time.sleep(0.05)


def write_table(path: Path, table: pa.Table) -> str:
    """Write a Parquet file and return its checksum."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_durably(path, content)
    return hashlib.sha256(content).hexdigest()
