"""Repair a log that is damaged in its middle: set the damage aside so that the commits before it can be read."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryotile.errors import DamagedFile
from cryotile.files import fsync, writing
from cryotile.pointdb.fragments import load_fragment
from cryotile.pointdb.log import Log
from cryotile.pointdb.snapshot import Snapshot, rows_of
from cryotile.pointdb.squares import SquareChanges, count_squares, negated
from cryotile.pointdb.store import Store

__all__ = ["SetAside", "set_damage_aside"]

_logger = logging.getLogger(__name__)


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
    fragments that no commit names any more.  Sums of squares that no other file has are counted again from the points.

    Parameters
    ----------
    root : Path
        The point DB.

    Returns
    -------
    SetAside or None
        None: the newest snapshot rests on no damaged commit.
    """
    store = Store.open(root)
    log = store.log
    bad = _first_damaged(log)
    if bad is None:
        _count_again(store)
        return None
    numbers = [number for number in log.numbers() if number >= bad]
    granules = [name for number in numbers for name in _added(log, number)]
    aside = root / "log-set-aside"
    with writing(aside):
        aside.mkdir(exist_ok=True)
        # The newest first: if this is interrupted, the remaining commits are still a log.
        for number in reversed(numbers):
            log.path(number).rename(aside / _free_name(aside, number))
        fsync(aside)
        fsync(log.directory)
    _count_again(store)
    return SetAside(aside, tuple(numbers), tuple(dict.fromkeys(granules)))


def _first_damaged(log: Log) -> int | None:
    """Return the first damaged commit that the newest snapshot rests on."""
    bad, oldest = None, 0
    for number in range(max(log.numbers(), default=0), 0, -1):
        try:
            commit = log.read(number)
            oldest = max(oldest, commit["history"]["oldest"])
            # A compaction deletes the squares of the commits before its base.
            if number > log.base(Snapshot(oldest=oldest)):
                log.table(number, "squares", commit)
        except DamagedFile:
            bad = number
            continue
        if commit["checkpoint"] and log.has_checkpoint(number):
            break
    return bad


def _count_again(store: Store) -> None:
    """Restore the sums of squares of the oldest checkpoint from the points, if a compaction has deleted all others."""
    snapshot = store.log.load()
    with suppress(DamagedFile):
        store.log.squares(snapshot)
        return
    base, changes = store.log.base(snapshot), SquareChanges()
    for entry in rows_of(snapshot.fragments):
        changes.add(count_squares(load_fragment(store.root, entry, store.description.schema)))
    for number in range(base + 1, snapshot.number + 1):
        changes.add(negated(store.log.table(number, "squares", store.log.read(number))))
    store.log.replace_squares(base, changes.total())
    _logger.warning("the squares of point DB %s were damaged and are counted again", store.root)


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
