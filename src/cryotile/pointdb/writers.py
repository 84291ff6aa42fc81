"""Who is writing to a point DB: a sign of life per change, so that a compaction leaves living writers' files alone.

Nothing rests on these signs but efficiency.  A compaction that takes a writer for dead *fences* its change in the same
commit, before it deletes anything: commits are exclusive, so the writer, if it lives, has either committed before, and
its fragments are named, or finds itself fenced when it reads the log on, and writes its fragments again under a new
id.  No clock and no delay can make that go wrong.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cryotile.pointdb.state import new_id
from cryotile.processes import is_alive, this_process

__all__ = ["Writer"]

SILENCE = 600.0
"""Seconds, by the file server's clock, after which a writer of another machine that gave no sign is taken for dead."""


class Writer:
    """The writer of one change; while it is entered, its marker in ``writers/`` shows that it lives.

    Parameters
    ----------
    root : Path
        The point DB.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.id = new_id()
        self._marker = root / "writers" / self.id
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._begun:
            # Where that is refused, the marker is a dead writer's before long.
            with suppress(OSError):
                self._marker.unlink()

    def beat(self) -> None:
        """Give a sign of life; due before each fragment."""
        self._begun = True
        try:
            os.utime(self._marker)
        except FileNotFoundError:
            self._marker.parent.mkdir(exist_ok=True)
            self._marker.write_text(this_process(), encoding="ascii")

    def others(self) -> tuple[set[str], set[str]]:
        """Return the ids of changes whose writers are taken to be alive, its own among them, and of those left dead."""
        self.beat()
        # The marker's own time, because the file server's clock need not agree with this machine's.
        now = self._marker.stat().st_mtime
        signs = {path.name: _lives(path, now) for path in self._marker.parent.iterdir()}
        living = {name for name, alive in signs.items() if alive} | {self.id}
        return living, signs.keys() - living

    def bury(self, dead: set[str]) -> None:
        """Delete the markers of dead writers."""
        for name in dead:
            self._marker.with_name(name).unlink(missing_ok=True)


def _lives(marker: Path, now: float) -> bool:
    with suppress(FileNotFoundError):
        alive = is_alive(marker.read_text(encoding="ascii"))
        return abs(now - marker.stat().st_mtime) < SILENCE if alive is None else alive
    return False
