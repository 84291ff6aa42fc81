"""What a worker does with one task: fit a tile of a run, or take a batch of granules into a point DB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from cryotile.farm.task import Progress, Task, Work
from cryotile.fit.posts import fit_posts
from cryotile.fit.variables import without
from cryotile.geo.grid import Tile
from cryotile.pointdb import PointDB
from cryotile.points import CORE_COLUMNS, Bounds
from cryotile.runs.ingest import FILE_NAME as INGEST_FILE
from cryotile.runs.ingest import Ingest
from cryotile.runs.ingest_batch import take_in
from cryotile.runs.run import Run, open_db

__all__ = [
    "FitTile",
    "IngestBatch",
    "fit_tile",
    "fit_wanted",
    "load_tasks",
    "opened_run",
    "read_window",
    "work_on",
]


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
    config = run.settings.fit
    points = read_window(run, db, tile.window(config.reach), columns=config.point_columns)
    progress(0.3)
    fitted = fit_wanted(run, points, tile)
    progress(0.9)
    run.store.save(tile, fitted, run.fingerprint(task.index))


def fit_wanted(run: Run, points: pd.DataFrame, tile: Tile) -> xr.Dataset:
    """Fit the posts of a tile where the run wants a map.

    Parameters
    ----------
    run : Run
        Settings.
    points : DataFrame
        In the tile's window.
    tile : Tile
        Which posts; those outside of the run's mask are ``not_computed``.
    """
    fitted = fit_posts(points, tile.x, tile.y, run.settings.fit)
    if run.settings.mask is None:
        return fitted
    return without(fitted, ~run.settings.mask.of(tile), run.settings.fit)


def read_window(
    run: Run, db: PointDB, window: Bounds, *, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read the points that a run selects, as of its snapshot.

    Parameters
    ----------
    run : Run
        Settings and snapshot.
    db : PointDB
        The points.
    window : Bounds
        What some posts see: their bounds and the largest radius around, m.
    columns : sequence of str or None
        Of the points; None: core columns and those that are terms.
    """
    config = run.settings.fit
    assert config.period is not None
    return db.read(
        window,
        columns=(*CORE_COLUMNS, *config.column_terms) if columns is None else columns,
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


@dataclass(frozen=True)
class IngestBatch:
    """The work of an ingest: take the files of a batch into the point DB.

    Attributes
    ----------
    ingest : Path
        The directory of the ingest.
    """

    ingest: Path

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in a worker, and open the point DB at once, see :class:`FitTile`."""
        self.__dict__.update(state)
        self._open()

    def __call__(self, task: Task, progress: Progress) -> None:
        """Take a batch in, and note what became of it."""
        ingest, db = self._open()
        ingest.save(task.index, take_in(ingest.files(task.index), db, ingest.criteria, progress))

    def _open(self) -> tuple[Ingest, PointDB]:
        # A point DB that was made anew in the same place is another one, with ingests of other names.
        ingest = Ingest.load(self.ingest)
        return ingest, _opened_db(ingest.db_path, ingest.uuid)


@lru_cache(maxsize=1)
def _opened_db(path: Path, _ingest: str) -> PointDB:
    return PointDB(path)


def load_tasks(path: Path) -> Run | Ingest:
    """Open the directory of a run, or of an ingest.

    Raises
    ------
    InvalidValue
        It is neither.
    """
    return Ingest.load(path) if (path / INGEST_FILE).exists() else Run.load(path)


def work_on(tasks: Run | Ingest) -> Work:
    """Return the work that the tasks of a run or an ingest are."""
    if isinstance(tasks, Ingest):
        return IngestBatch(tasks.path.resolve())
    return FitTile(tasks.path.resolve(), tasks.generation)
