"""What a worker does: fit one tile of a run; read, project and append one batch of granules."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from cryotile.errors import CryotileError
from cryotile.fit import fit_posts
from cryotile.grid import Tile
from cryotile.pointdb import Appended, PointDB
from cryotile.points import CORE_COLUMNS, Granule
from cryotile.projection import project_granule
from cryotile.readers import ColumnMapping, read_granule
from cryotile.run import Run, open_db
from cryotile.task import Progress, Task
from cryotile.where import Where

__all__ = [
    "FitTile",
    "Reading",
    "append_batches",
    "fit_tile",
    "opened_run",
    "prepare",
    "read_window",
]

log = logging.getLogger(__name__)

BATCH_POINTS = 2_000_000
"""Points gathered before they are committed: some 300 MB in memory, and fragments that are not too small."""

BATCH_GRANULES = 500
"""Granules gathered before they are committed, so that an interrupted ingest has lost little."""


NOT_SELECTED = "not_selected"
"""Reason of points that the user's ``where`` leaves out."""


@dataclass(frozen=True)
class FitTile:
    """The work of a run: read a tile's points, fit its posts, save it.

    Attributes
    ----------
    run : Path
        The run directory.
    generation : int
        The task list that task indices refer to.
    """

    run: Path
    generation: int

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in a worker, and open the run at once.

        What is wrong with all tiles alike (another version of cryotile, a point DB that is out of reach) ends the
        farm in one line here; found tile by tile, it would fail each of them three times.
        """
        self.__dict__.update(state)
        opened_run(self.run, self.generation)

    def __call__(self, task: Task, progress: Progress) -> None:
        """Fit and save the tile of a task, unless it is there already."""
        run, db = opened_run(self.run, self.generation)
        if not run.store.is_current(run.tile(task.index), run.fingerprint(task.index)):
            fit_tile(run, db, task, progress)


def fit_tile(run: Run, db: PointDB, task: Task, progress: Progress) -> None:
    """Read the points in a tile's window, fit its posts and save the tile.

    Parameters
    ----------
    run : Run
        Settings and tile store.
    db : PointDB
        The points, read as of the run's snapshot.
    task : Task
        Which tile.
    progress : Progress
        Told the fraction done.
    """
    tile = run.tile(task.index)
    points = read_window(run, db, tile)
    progress(0.3)
    fitted = fit_posts(points, tile.x, tile.y, run.settings.fit)
    progress(0.9)
    run.store.save(tile, fitted, run.fingerprint(task.index))


def read_window(run: Run, db: PointDB, tile: Tile) -> pd.DataFrame:
    """Read the points that the posts of a tile may see: those that the run selects, as of its snapshot.

    Parameters
    ----------
    run : Run
        Settings and snapshot.
    db : PointDB
        The points.
    tile : Tile
        Which posts.
    """
    config = run.settings.fit
    assert config.period is not None
    return db.read(
        tile.window(config.reach),
        columns=(*CORE_COLUMNS, *config.column_terms),
        where=run.settings.where,
        time=config.period,
        snapshot=run.snapshot,
    )


@lru_cache(maxsize=1)
def opened_run(path: Path, generation: int) -> tuple[Run, PointDB]:
    """Open a run and its point DB; a worker does many tiles of one, and what it needs of them is read once.

    Parameters
    ----------
    path : Path
        The run directory.
    generation : int
        The task list.
    """
    run = Run.load(path, generation=generation)
    return run, open_db(run)


@dataclass
class Reading:
    """What an ingest has come to so far.

    Attributes
    ----------
    added, unchanged : int
        Granules that are new, and that were there already.
    rows : int
        Points stored.
    records : int
        Points in the files before any was dropped.
    dropped : dict of str to int
        Reason → points dropped.
    problems : list of str
        One line for each granule that did not go in.
    notes : dict of str to list of str
        What a user should know → names of the granules that it is true of.
    """

    added: int = 0
    unchanged: int = 0
    rows: int = 0
    records: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def count(self, batch: Sequence[Granule], appended: Appended) -> None:
        """Add what one commit brought."""
        self.added += len(appended.added)
        self.unchanged += len(appended.unchanged)
        self.rows += appended.rows
        self.problems += appended.refused.values()
        for note, names in appended.notes.items():
            self.notes.setdefault(note, []).extend(names)
        for name in appended.replaced:
            self.notes.setdefault("made way for a newer delivery", []).append(name)
        # The same granule may be in a batch twice, and went in once.
        granules = {granule.id: granule for granule in reversed(batch)}
        for granule in (granules[id] for id in appended.added):
            self.records += granule.record_count
            for note in granule.notes:
                self.notes.setdefault(note, []).append(granule.name)
            for reason, number in granule.dropped.items():
                self.dropped[reason] = self.dropped.get(reason, 0) + number


def prepare(
    path: Path,
    db: PointDB,
    *,
    surface_types: Sequence[str],
    where: Where | None,
    mapping: ColumnMapping | None = None,
) -> Granule:
    """Read and project one granule and keep the points that ``where`` selects.

    Parameters
    ----------
    path : Path
        The granule.
    db : PointDB
        Gives the CRS and the further columns.
    surface_types : sequence of str
        Surfaces to keep.
    where : Where or None
        Further criterion.
    mapping : ColumnMapping or None
        The granule is a table with these columns; None: its content says what it is.

    Returns
    -------
    Granule
        With points in ``x, y``.

    Raises
    ------
    GranuleError
        It cannot be read.
    """
    granule = read_granule(
        path, surface_types=tuple(surface_types), columns=db.columns, mapping=mapping
    )
    granule = project_granule(granule, db.crs)
    if where is None:
        return granule
    keep = where.mask(granule.points)
    dropped = {**granule.dropped, NOT_SELECTED: int((~keep).sum())}
    return replace(granule, points=granule.points[keep].reset_index(drop=True), dropped=dropped)


def append_batches(
    paths: Sequence[Path],
    db: PointDB,
    *,
    surface_types: Sequence[str],
    where: Where | None,
    mapping: ColumnMapping | None = None,
) -> Iterator[Reading]:
    """Read granules and commit them in batches; what is committed stays, whatever comes after.

    Parameters
    ----------
    paths : sequence of Path
        Granules, in any order.
    db : PointDB
        Where they go.
    surface_types : sequence of str
        Surfaces to keep.
    where : Where or None
        Further criterion.
    mapping : ColumnMapping or None
        As of :func:`prepare`.

    Yields
    ------
    Reading
        The same object after each granule, grown; a granule that cannot be read is one of its ``problems``.
    """
    reading, batch = Reading(), list[Granule]()
    for path in paths:
        try:
            batch.append(
                prepare(path, db, surface_types=surface_types, where=where, mapping=mapping)
            )
        except CryotileError as error:
            log.debug("granule %s failed", path, exc_info=True)
            reading.problems.append(str(error))
        if len(batch) >= BATCH_GRANULES or sum(len(g.points) for g in batch) >= BATCH_POINTS:
            reading.count(batch, db.append(batch))
            batch = []
        yield reading
    if batch:
        reading.count(batch, db.append(batch))
    yield reading
