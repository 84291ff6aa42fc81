"""The log of a point DB: numbered commits.  What no commit names does not exist."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from cryotile import __version__
from cryotile.errors import DamagedFile, InvalidValue
from cryotile.files import fsync_directory, write_sealed, writing
from cryotile.pointdb.commits import CHECKPOINT_INTERVAL, Entries, NumberTaken, write_table
from cryotile.pointdb.squares import add_up
from cryotile.pointdb.state import GRANULES, Change, State, apply

__all__ = ["CHECKPOINT_INTERVAL", "CHECKPOINT_TABLES", "Log"]

CHECKPOINT_TABLES = ("all-granules", "all-fragments", "all-squares")


class Log:
    """The log of one point DB.

    Parameters
    ----------
    directory : Path
        ``log`` in the point DB.
    """

    def __init__(self, directory: Path) -> None:
        self.entries = Entries(directory)

    def load(self, number: int | None = None) -> State:
        """Read the state after a commit.

        Parameters
        ----------
        number : int or None
            The commit; None: the newest.

        Returns
        -------
        State
            From one checkpoint and the commits since.  Where compactions follow the commit at once, it is the state
            after them: the same points, in files that are still there.

        Raises
        ------
        InvalidValue
            There is no such commit, or a compaction has ended the history before it.
        DamagedFile
            A commit is missing or altered; it is named.
        """
        while True:
            newest = self.entries.newest()
            try:
                return self._state(newest if number is None else self._alike(number, newest))
            except DamagedFile:
                # A compaction deletes checkpoints that nobody needs any more; then there are newer commits.
                if self.entries.newest() == newest:
                    raise

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
        later: list[dict[str, Any]] = []
        while (number := state.number + len(later) + 1) <= at_least:
            later.append(self.entries.read_patiently(number))
        try:
            while True:
                later.append(self.entries.read(state.number + len(later) + 1))
        except FileNotFoundError:
            return apply(state, later) if later else state

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
        at, read, table = state.checkpoint, self.entries.read, self.entries.table
        tables = [table(at, "all-squares", read(at)["checkpoint"])] if at else []
        for number in range(at + 1, state.number + 1):
            tables.append(table(number, "squares", read(number)))
        return add_up(tables)

    def history(self, newest: int) -> Iterator[dict[str, Any]]:
        """Yield what commits say, from one back to the first."""
        for number in range(newest, 0, -1):
            try:
                yield self.entries.read(number)
            except FileNotFoundError:
                raise self.entries.missing(number) from None

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
        content = _content(state, change)
        after = apply(state, [content])
        temporary = self.entries.directory / f".{number:08d}.{change.id}.tmp"
        with writing(self.entries.directory):
            try:
                temporary.mkdir()
                content["squares"] = write_table(temporary / "squares.parquet", change.squares)
                if number % CHECKPOINT_INTERVAL == 0:
                    squares = add_up([self.squares(state), change.squares])
                    content["checkpoint"] = _write_checkpoint(temporary, after, squares)
                    after = replace(after, checkpoint=number)
                write_sealed(temporary / "commit.json", content)
                fsync_directory(temporary)
                self.entries.publish(temporary, number, change.id)
            except (FileNotFoundError, DamagedFile) as error:
                # Swept away by a compaction that took this writer for dead, or whose checkpoint this one looked for.
                if self._is_of_another(number, change):
                    raise NumberTaken(number) from error
                raise
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            fsync_directory(self.entries.directory)
        return after

    def holds(self, number: int, change: Change) -> bool:
        """Tell whether the commit of this number is this change."""
        try:
            return bool(self.entries.read(number)["id"] == change.id)
        except FileNotFoundError:
            return False

    def _is_of_another(self, number: int, change: Change) -> bool:
        return (self.entries.path(number) / "commit.json").exists() and not self.holds(
            number, change
        )

    def _alike(self, number: int, newest: int) -> int:
        """Return the last of the commits after which the points are those of a snapshot that is still there."""
        db = self.entries.directory.parent
        if not 0 <= number <= newest:
            raise InvalidValue(
                f"snapshot {number} does not exist: {db} has 0 to {newest}; give one of them"
            )
        if number == newest:
            return number
        history = self._read(newest)["history"]
        last = number
        while last < newest and self._read(last + 1)["compaction"]:
            last += 1
        if last < history["oldest"] and number not in history["kept"]:
            there = ", ".join([*map(str, history["kept"]), f"{history['oldest']} to {newest}"])
            raise InvalidValue(
                f"snapshot {number} of {db} was ended by the compaction {history['oldest']}: there are {there};"
                f" plan again from the newest, and next time keep it with 'cryotile compact {db} --keep {number}'"
            )
        return last

    def _read(self, number: int) -> dict[str, Any]:
        try:
            return self.entries.read(number)
        except FileNotFoundError:
            raise self.entries.missing(number) from None

    def _state(self, number: int) -> State:
        later: list[dict[str, Any]] = []
        begin = State()
        for entry in self.history(number):
            if entry["checkpoint"]:
                # What a damaged one held follows from the entries before it, too.
                with suppress(DamagedFile):
                    begin = self._checkpoint(entry)
                    break
            later.append(entry)
        return replace(apply(begin, reversed(later)), checkpoint=begin.checkpoint)

    def _checkpoint(self, entry: Mapping[str, Any]) -> State:
        number, checksums = entry["number"], entry["checkpoint"]
        granules, fragments = (
            self.entries.table(number, name, checksums) for name in CHECKPOINT_TABLES[:2]
        )
        # The first point DBs did not know the passes of a granule.
        granules = pa.concat_tables([GRANULES.empty_table(), granules], promote_options="default")
        history = entry["history"]
        return State(number, number, granules, fragments, history["oldest"], tuple(history["kept"]))


def _content(state: State, change: Change) -> dict[str, Any]:
    number = state.number + 1
    oldest, kept = (
        (state.oldest, state.kept) if change.kept is None else (number, sorted(change.kept))
    )
    return {
        "id": change.id,
        "number": number,
        "cryotile": __version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "granules": {"added": list(change.granules), "removed": list(change.removed_granules)},
        "fragments": {"added": list(change.fragments), "removed": list(change.removed_fragments)},
        "compaction": change.kept is not None,
        "history": {"oldest": oldest, "kept": list(kept)},
        "fenced": list(change.fenced),
        "checkpoint": None,
    }


def _write_checkpoint(directory: Path, state: State, squares: pa.Table) -> dict[str, str]:
    tables = dict(zip(CHECKPOINT_TABLES, (state.granules, state.fragments, squares), strict=True))
    return {n: write_table(directory / f"{n}.parquet", table) for n, table in tables.items()}
