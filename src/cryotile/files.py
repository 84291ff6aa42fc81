"""Atomic and durable files, and the type of the file system below them."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryotile.errors import CryotileError, DamagedFile, UnwritablePath

__all__ = [
    "atomic_path",
    "checksum_of_values",
    "file_system",
    "fsync",
    "make_directory",
    "make_way",
    "network_file_system",
    "read_sealed",
    "set_aside",
    "sweep",
    "write_durably",
    "write_sealed",
    "write_text",
    "writing",
]

_logger = logging.getLogger(__name__)

# Types of file systems that several machines may have mounted, as the kernel calls them.
_NETWORK = frozenset(
    [
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "cvfs",
        "fhgfs",
        "gfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lizardfs",
        "lustre",
        "moosefs",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "weka",
        "wekafs",
    ]
)

# File systems in user space that are local.
_LOCAL_FUSE = {"fuseblk", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.mergerfs", "fuse.ntfs-3g"}

_MOUNTS = Path("/proc/self/mountinfo")

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk, then repeat the command",
    errno.EDQUOT: "free some of your quota or choose another disk, then repeat the command",
    errno.EROFS: "the file system is mounted read-only; choose another one",
    errno.EACCES: "ask for permission or choose another directory",
    errno.EPERM: "ask for permission or choose another directory",
    errno.EISDIR: "it is a directory; give the name of a file",
    errno.ENOENT: "its directory does not exist; create it or choose another one",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the system while ``path`` is written into one line with a remedy.

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
        # Errors of cryotile say more already; some of them are OSErrors, too.
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "choose another directory")
        raise UnwritablePath(
            f"{path} cannot be written ({error.strerror or error}); {remedy}"
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success rename it to ``path``, on failure remove it.

    The file is fsynced before it is renamed and the directory after, so that after a crash ``path`` is absent, old or
    whole, never partial.

    Parameters
    ----------
    path : Path
        The file to write.

    Yields
    ------
    Path
        Path to write to, ``.<name>.<random>.tmp``; its name differs from all names that readers look for.

    Raises
    ------
    UnwritablePath
        In place of any ``OSError`` of the body, e.g. for a full disk or a missing permission.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with writing(path):
        try:
            yield temporary
            fsync(temporary)
            # It is on the same file system, where a rename is atomic.
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync(path.parent)


def sweep(directory: Path, *, age: float = 3600.0) -> None:
    """Remove temporary files of killed writers.

    Parameters
    ----------
    directory : Path
        Directory in which :func:`atomic_path` was used; others may write there meanwhile.
    age : float
        Seconds since the last write after which a file is removed; younger files may still be in use.
    """
    # The clocks of hosts and file servers differ, but by less than an hour.
    youngest = time.time() - age
    for path in directory.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < youngest:
                path.unlink()


def set_aside(path: Path, what: str = "is damaged") -> None:
    """Rename a file or directory that cannot be used to ``<name>.damaged-<n>``, and say so in one line.

    For what can be made anew: nothing is deleted, and the name is free again.  Where renaming is not allowed, the path
    stays, and the line says that it is ignored.

    Parameters
    ----------
    path : Path
        The file or directory; another process may set it aside at the same time.
    what : str
        The damage, as the line names it.
    """
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
        number += 1
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        _logger.warning(
            "%s %s and cannot be set aside (%s); it is ignored", path, what, error.strerror
        )
        return
    _logger.warning("%s %s; it is set aside as %s and made anew", path, what, aside.name)


def make_way(path: Path, *, directory: bool = False) -> None:
    """Set aside what is in the place of a file but is a directory, or in the place of a directory but is a file."""
    if path.exists() and path.is_dir() != directory:
        set_aside(path, "is not a directory" if directory else "is a directory")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file and force it to the disk, but not the entry in its directory.

    For files that nothing refers to yet: a crash may leave part of one, so the caller makes it visible afterwards (by a
    rename of the directory, or by a commit).

    Parameters
    ----------
    path : Path
        The file; it must not exist.
    content : bytes
        Its content.
    """
    # Exclusively, because an existing file belongs to another writer.
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def make_directory(path: Path) -> None:
    """Create a directory and its parents, so that they survive a crash; existing ones are not changed."""
    missing = [p for p in (path, *path.parents) if not p.is_dir()]
    for directory in reversed(missing):
        # Another process may create it at the same moment.
        directory.mkdir(exist_ok=True)
        fsync(directory.parent)


def fsync(path: Path) -> None:
    """Force a file, or the entries of a directory, to the disk, so that a write or a rename survives a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_SEAL = '{{"checksum": "{}", '
_SEAL_LENGTH = len(_SEAL.format("0" * 64))


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whose first member is the SHA-256 of all bytes that follow it.

    Parameters
    ----------
    path : Path
        The file; it must not exist (see :func:`write_durably`).
    content : mapping
        At least one member; values that :mod:`json` can write.
    """
    body = json.dumps(content, allow_nan=False)[1:].encode()
    write_durably(path, _SEAL.format(hashlib.sha256(body).hexdigest()).encode() + body)


def checksum_of_values(content: Mapping[str, Any], *, but: Collection[str]) -> str:
    """Return the SHA-256 of the values of a TOML file, however the file writes them, but of those of some keys."""
    kept = {name: value for name, value in content.items() if name not in but}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a file of :func:`write_sealed`.

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
        The checksum differs, or it cannot be read.
    FileNotFoundError
        There is no such file.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedFile(
            f"{path} cannot be read: {error.strerror}; restore it from a copy"
        ) from error
    # Checked before the content is parsed, because a damaged file may have any content.
    body = raw[_SEAL_LENGTH:]
    if raw[:_SEAL_LENGTH] != _SEAL.format(hashlib.sha256(body).hexdigest()).encode():
        raise DamagedFile(f"{path} is damaged: its checksum differs; restore it from a copy")
    content: dict[str, Any] = json.loads(raw)
    return content


def network_file_system(path: Path) -> str | None:
    """Return the type of the network file system that holds a path.

    Parameters
    ----------
    path : Path
        The path; it need not exist.

    Returns
    -------
    str or None
        E.g. ``nfs4``; None if the file system is local, or the system does not say.
    """
    kind = file_system(path)
    if kind in _NETWORK or (kind.startswith("fuse") and kind not in _LOCAL_FUSE):
        return kind
    return None


def file_system(path: Path) -> str:
    """Return the type of the file system of a path: of the last mount on the deepest mount point above it.

    Parameters
    ----------
    path : Path
        The path; it need not exist.

    Returns
    -------
    str
        E.g. ``ext4``; empty if the system does not say.
    """
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return ""
    place, deepest, kind = os.fsencode(path.resolve()), -1, b""
    for line in lines:
        before, _, after = line.partition(b" - ")
        point = _unescape(before.split()[4])
        inside = place == point or place.startswith(point.rstrip(b"/") + b"/")
        if inside and len(point) >= deepest:
            deepest, kind = len(point), after.split()[0]
    return os.fsdecode(kind)


def _unescape(point: bytes) -> bytes:
    """Decode the blanks and backslashes of a mount point, which the kernel writes in octal."""
    for code in (b"\\040", b"\\011", b"\\012", b"\\134"):
        point = point.replace(code, bytes([int(code[1:], 8)]))
    return point
