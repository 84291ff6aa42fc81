"""Which file systems several machines may have mounted, where the locks of an embedded database cannot be trusted."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["network_file_system"]

# As the kernel calls them.
_NETWORK = {
    *(
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
    ),
    *(
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
    ),
    *("vboxsf", "virtiofs", "weka", "wekafs"),
}

# Of what runs in user space, these are local.
_LOCAL_FUSE = {"fuseblk", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.mergerfs", "fuse.ntfs-3g"}

_MOUNTS = Path("/proc/self/mountinfo")


def network_file_system(path: Path) -> str | None:
    """Name the network file system on which a path lies.

    Parameters
    ----------
    path : Path
        Need not exist.

    Returns
    -------
    str or None
        E.g. ``nfs4``; None when it is a local one, or the system does not say.
    """
    kind = _file_system(path)
    if kind in _NETWORK or (kind.startswith("fuse") and kind not in _LOCAL_FUSE):
        return kind
    return None


def _file_system(path: Path) -> str:
    """Type of the file system of a path: of the last mount on the deepest mount point above it."""
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
    """Give a mount point its blanks and backslashes back, which the kernel writes in octal."""
    for code in (b"\\040", b"\\011", b"\\012", b"\\134"):
        point = point.replace(code, bytes([int(code[1:], 8)]))
    return point
