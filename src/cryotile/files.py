"""Whole files or none: the one way in which cryotile writes a file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryotile.errors import CryotileError, DamagedFile, UnwritablePath

__all__ = [
    "atomic_path",
    "fsync",
    "fsync_directory",
    "make_directory",
    "read_sealed",
    "sweep",
    "write_durably",
    "write_sealed",
    "write_text",
    "writing",
]

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk, then give the same command again",
    errno.EDQUOT: "free some of your quota or choose another disk, then give the same command again",
    errno.EROFS: "the file system is mounted read-only; choose another one",
    errno.EACCES: "ask for permission or choose another directory",
    errno.EPERM: "ask for permission or choose another directory",
    errno.EISDIR: "it is a directory; give the name of a file",
    errno.ENOENT: "its directory does not exist; make it or choose another",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system refuses while ``path`` is written into one line that a user can act on.

    Parameters
    ----------
    path : Path
        The file or directory that the error names.

    Raises
    ------
    UnwritablePath
        In place of any ``OSError`` of the body.
    """
    try:
        yield
    except CryotileError:
        # Whoever raised it knew more; some of them are an OSError, too.
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "choose another directory")
        raise UnwritablePath(
            f"{path} cannot be written ({error.strerror or error}); {remedy}"
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it becomes ``path``, on failure it is gone.

    The file is fsynced before it is renamed and the directory after, so that after a crash ``path`` is absent, old or
    whole, never partial.

    Parameters
    ----------
    path : Path
        The file to appear.

    Yields
    ------
    Path
        Where to write; named ``.<name>.<random>.tmp`` so that nothing takes it for the file itself.

    Raises
    ------
    UnwritablePath
        A full disk, a missing permission: in place of any ``OSError`` of the body.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with writing(path):
        try:
            yield temporary
            fsync(temporary)
            # Beside the file, so on its file system, where a rename is whole or not at all.
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_directory(path.parent)


def sweep(directory: Path, *, age: float = 3600.0) -> None:
    """Remove temporary files that their writers left behind when they were killed.

    Parameters
    ----------
    directory : Path
        Where :func:`atomic_path` was used; others may be writing there.
    age : float
        What was written to in the last so many seconds stays: its writer may live.
    """
    # The clocks of hosts and file servers differ, but hardly by an hour.
    youngest = time.time() - age
    for path in directory.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < youngest:
                path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file and force it to the disk, not its directory's entry.

    For files that nothing names yet: a crash may leave part of one, so whoever makes them visible (by a rename of the
    directory, by a commit) does so last.

    Parameters
    ----------
    path : Path
        The file; must not exist.
    content : bytes
        All of it.
    """
    # Exclusively: what is there already belongs to somebody else.
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def make_directory(path: Path) -> None:
    """Create a directory and those above it, so that they survive a crash; one that exists is left alone."""
    missing = [p for p in (path, *path.parents) if not p.is_dir()]
    for directory in reversed(missing):
        # Another process may make it at the same moment.
        directory.mkdir(exist_ok=True)
        fsync_directory(directory.parent)


def fsync_directory(path: Path) -> None:
    """Force the entries of a directory to the disk, so that a rename survives a crash."""
    fsync(path)


def fsync(path: Path) -> None:
    """Force a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_SEAL = '{{"checksum": "{}", '
_SEAL_LENGTH = len(_SEAL.format("0" * 64))


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whose first member is the SHA-256 of all the bytes that follow it.

    Parameters
    ----------
    path : Path
        The file; must not exist (see :func:`write_durably`).
    content : mapping
        At least one member; what :mod:`json` can write.
    """
    body = json.dumps(content, allow_nan=False)[1:].encode()
    write_durably(path, _SEAL.format(hashlib.sha256(body).hexdigest()).encode() + body)


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what :func:`write_sealed` wrote.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        The content, with ``checksum``.

    Raises
    ------
    DamagedFile
        The bytes are not those that were written.
    FileNotFoundError
        There is none.
    """
    # By its bytes, before anything is parsed: damage may look like anything.
    raw = path.read_bytes()
    body = raw[_SEAL_LENGTH:]
    if raw[:_SEAL_LENGTH] != _SEAL.format(hashlib.sha256(body).hexdigest()).encode():
        raise DamagedFile(
            f"{path} is not what was written: its checksum differs; put it back from a copy"
        )
    content: dict[str, Any] = json.loads(raw)
    return content
