"""A log that is damaged in its middle: what is set aside so that the rest can be read, and what that had brought."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryotile.errors import DamagedFile
from cryotile.files import fsync_directory, writing
from cryotile.pointdb.commits import Entries
from cryotile.pointdb.log import CHECKPOINT_TABLES

__all__ = ["SetAside", "set_damage_aside"]


@dataclass(frozen=True)
class SetAside:
    """Entries that were taken out of a log.

    Attributes
    ----------
    directory : Path
        Where they are now.
    numbers : tuple of int
        Of the entries; the first was damaged or missing.
    granules : tuple of str
        File names of the granules that they brought, as far as they can be read: to be ingested again.
    """

    directory: Path
    numbers: tuple[int, ...]
    granules: tuple[str, ...]


def set_damage_aside(root: Path) -> SetAside | None:
    """Move the first damaged entry that the newest state rests on, and all later ones, out of the log.

    Nobody may write meanwhile.  The point DB is as it was before that entry; fragments that nothing names any more are
    swept up by a compaction.

    Parameters
    ----------
    root : Path
        The point DB.

    Returns
    -------
    SetAside or None
        None: the newest state rests on no damaged entry.
    """
    entries = Entries(root / "log")
    bad = next(_damaged(entries), None)
    if bad is None:
        return None
    numbers = [number for number in _numbers(entries) if number >= bad]
    granules = [name for number in numbers for name in _brought(entries, number)]
    aside = root / "log-set-aside"
    with writing(aside):
        aside.mkdir(exist_ok=True)
        # The newest first: whenever this is interrupted, what stays is a log.
        for number in reversed(numbers):
            entries.path(number).rename(aside / _free_name(aside, number))
        fsync_directory(aside)
        fsync_directory(entries.directory)
    return SetAside(aside, tuple(numbers), tuple(dict.fromkeys(granules)))


def _numbers(entries: Entries) -> list[int]:
    names = (path.name for path in entries.directory.iterdir())
    return sorted(int(name) for name in names if re.fullmatch(r"\d{8}", name))


def _damaged(entries: Entries) -> Iterator[int]:
    """Yield the damaged entries that the newest state rests on, the first of them first."""
    bad = []
    for number in range(max(_numbers(entries), default=0), 0, -1):
        try:
            entry = entries.read(number)
            entries.table(number, "squares", entry)
        except (DamagedFile, FileNotFoundError):
            bad.append(number)
            continue
        if entry["checkpoint"] and _is_whole(entries, number, entry["checkpoint"]):
            break
    yield from reversed(bad)


def _is_whole(entries: Entries, number: int, checksums: dict[str, str]) -> bool:
    try:
        for name in CHECKPOINT_TABLES:
            entries.table(number, name, checksums)
    except DamagedFile:
        return False
    return True


def _brought(entries: Entries, number: int) -> list[str]:
    try:
        return [row["name"] for row in entries.read(number)["granules"]["added"]]
    except (DamagedFile, FileNotFoundError):
        return []


def _free_name(aside: Path, number: int) -> str:
    name, again = f"{number:08d}", 0
    while (aside / name).exists():
        again += 1
        name = f"{number:08d}-{again}"
    return name
