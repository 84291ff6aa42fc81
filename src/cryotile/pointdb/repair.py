"""Repair a log that is damaged in its middle: set the damage aside so that the commits before it can be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryotile.errors import DamagedFile
from cryotile.files import fsync_directory, writing
from cryotile.pointdb.log import CHECKPOINT_TABLES, Log

__all__ = ["SetAside", "set_damage_aside"]


@dataclass(frozen=True)
class SetAside:
    """Commits that were moved out of a log.

    Attributes
    ----------
    directory : Path
        Their new place.
    numbers : tuple of int
        Their numbers; the first was damaged or missing.
    granules : tuple of str
        File names of the granules that they added, as far as they can be read: to be ingested again.
    """

    directory: Path
    numbers: tuple[int, ...]
    granules: tuple[str, ...]


def set_damage_aside(root: Path) -> SetAside | None:
    """Move the first damaged commit that the newest snapshot rests on, and all later ones, out of the log.

    No other process may write meanwhile.  The point DB is then as it was before that commit; a compaction deletes the
    fragments that no commit names any more.

    Parameters
    ----------
    root : Path
        The point DB.

    Returns
    -------
    SetAside or None
        None: the newest snapshot rests on no damaged commit.
    """
    log = Log(root / "log")
    bad = _first_damaged(log)
    if bad is None:
        return None
    numbers = [number for number in log.numbers() if number >= bad]
    granules = [name for number in numbers for name in _added(log, number)]
    aside = root / "log-set-aside"
    with writing(aside):
        aside.mkdir(exist_ok=True)
        # The newest first: if this is interrupted, the remaining commits are still a log.
        for number in reversed(numbers):
            log.path(number).rename(aside / _free_name(aside, number))
        fsync_directory(aside)
        fsync_directory(log.directory)
    return SetAside(aside, tuple(numbers), tuple(dict.fromkeys(granules)))


def _first_damaged(log: Log) -> int | None:
    """Return the first damaged commit that the newest snapshot rests on."""
    bad = None
    for number in range(max(log.numbers(), default=0), 0, -1):
        try:
            commit = log.read(number)
            log.table(number, "squares", commit)
        except DamagedFile:
            bad = number
            continue
        if commit["checkpoint"] and _is_whole(log, number, commit["checkpoint"]):
            break
    return bad


def _is_whole(log: Log, number: int, checksums: dict[str, str]) -> bool:
    try:
        for name in CHECKPOINT_TABLES:
            log.table(number, name, checksums)
    except DamagedFile:
        return False
    return True


def _added(log: Log, number: int) -> list[str]:
    """Return the file names of the granules that a commit added; none if it cannot be read."""
    try:
        return [row["name"] for row in log.read(number)["granules"]["added"]]
    except DamagedFile:
        return []


def _free_name(aside: Path, number: int) -> str:
    name, again = f"{number:08d}", 0
    while (aside / name).exists():
        again += 1
        name = f"{number:08d}-{again}"
    return name
