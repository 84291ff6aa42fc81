"""What a process has seen of a point DB: its newest state, and one that somebody asked for by number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from cryotile.pointdb.commits import patiently
from cryotile.pointdb.fragments import FragmentGone, damaged_fragment
from cryotile.pointdb.log import Log
from cryotile.pointdb.squares import describe_squares
from cryotile.pointdb.state import State

__all__ = ["Snapshots", "newer_state"]


class Snapshots:
    """States of a point DB.

    Parameters
    ----------
    path : Path
        The point DB.

    Attributes
    ----------
    newest : State
        The newest that was seen.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = Log(path / "log")
        self.newest = self.log.load()
        self._asked_for = self.newest.number, self.newest
        self._counted: tuple[State, pd.DataFrame] | None = None

    def at(self, snapshot: int | None) -> State:
        """Return the state after a commit; None: the newest that was seen."""
        if snapshot is None:
            return self.newest
        if snapshot != self._asked_for[0]:
            known = snapshot == self.newest.number
            self._asked_for = snapshot, self.newest if known else self.log.load(snapshot)
        return self._asked_for[1]

    def squares(self, snapshot: int | None) -> pd.DataFrame:
        """Return what a commit counts, as of :func:`cryotile.pointdb.squares.describe_squares`; added up once."""
        state = self.at(snapshot)
        if self._counted is None or self._counted[0] is not state:
            self._counted = state, describe_squares(self.log.squares(state))
        return self._counted[1]

    def renew(self, snapshot: int | None, gone: FragmentGone) -> None:
        """Look again for a state whose fragment is gone.

        Raises
        ------
        InvalidValue
            A compaction has ended the snapshot, and its points are not those of a newer one.
        DamagedFile
            Nothing newer explains it: the fragment is lost.
        """
        state, log = self.at(snapshot), self.log
        if snapshot is None:
            self.newest = newer_state(self.path, lambda: log.follow(state), state, gone)
        else:
            found = newer_state(self.path, lambda: log.load(snapshot), state, gone)
            self._asked_for = snapshot, found


def newer_state(root: Path, reload: Callable[[], State], state: State, gone: FragmentGone) -> State:
    """Return the state that explains why a fragment is gone, unless a file server shows it after all.

    Parameters
    ----------
    root : Path
        The point DB.
    reload : callable
        Reads the log again.
    state : State
        The one that names the fragment.
    gone : FragmentGone
        Says which.

    Returns
    -------
    State
        A newer one, if there is one.

    Raises
    ------
    DamagedFile
        There is none: the fragment is lost.
    """
    for _ in patiently():
        newer = reload()
        if newer.number > state.number or Path(str(gone)).exists():
            return newer
    raise damaged_fragment(root, Path(str(gone)), "is missing") from gone
