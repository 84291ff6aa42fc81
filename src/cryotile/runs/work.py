"""Work of runs and ingests: the work of one task in a worker, and working through a whole list on a backend."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from cryotile.backends import open_backend, resolved, share_of
from cryotile.backends.auto import choose
from cryotile.errors import FailedTasks, Unfinished, command
from cryotile.farm.heartbeat import Heartbeat
from cryotile.farm.journal import Journaled
from cryotile.farm.task import Progress, Task, Work
from cryotile.fit.posts import fit_posts, fit_with_sums
from cryotile.fit.variables import without
from cryotile.geo.grid import Tile
from cryotile.maps.metadata import cell_area
from cryotile.pointdb.db import PointDB
from cryotile.points import CORE_COLUMNS, Bounds
from cryotile.runs.ingest import FILE_NAME as INGEST_FILE
from cryotile.runs.ingest import Ingest, report_of
from cryotile.runs.ingest_batch import IngestReport, take_in
from cryotile.runs.obstacles import scattered
from cryotile.runs.progress import Tell, follow
from cryotile.runs.run import Run, open_db, plan_run
from cryotile.runs.task_map import task_map, thumbnail
from cryotile.runs.tasklist import last_line

__all__ = [
    "FitTile",
    "IngestBatch",
    "check_finished",
    "complete_ingest",
    "complete_run",
    "fit_tile",
    "fit_wanted",
    "load_tasks",
    "opened_run",
    "read_window",
    "replanned",
    "work_on",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitTile:
    """Work of a run: read the points of a tile, fit its posts, save it.

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
        """Restore the work in a worker, and open the run at once.

        An error that concerns all tiles (another version of cryotile, a point DB out of reach) ends the farm in one
        line here; otherwise it would fail each tile three times.
        """
        self.__dict__.update(state)
        opened_run(self.run, self.generation)

    def __call__(self, task: Task, progress: Progress) -> bytes | None:
        """Fit and save the tile of a task, unless it is up to date; return a thumbnail of it."""
        run, db = opened_run(self.run, self.generation)
        tile = run.tile(task.index)
        if run.store.is_current(tile, run.fingerprint(task.index)):
            return None
        return thumbnail(tile, run.settings.tile_size, fit_tile(run, db, task, progress))


def fit_tile(run: Run, db: PointDB, task: Task, progress: Progress) -> xr.Dataset:
    """Read the points in a tile's window, fit its posts, save the tile and return it.

    Parameters
    ----------
    run : Run
        Settings and tile store.
    db : PointDB
        The points, read as of the run's snapshot.
    task : Task
        Which tile.
    progress : Progress
        Called with the fraction done.
    """
    tile = run.tile(task.index)
    config = run.settings.fit
    points = read_window(run, db, tile.window(config.reach), columns=config.point_columns)
    progress(0.3)
    regions, grid = run.settings.regions, run.settings.grid
    maps, sums = fit_with_sums(
        points,
        tile.x,
        tile.y,
        config,
        regions=None if regions is None else regions.of(tile),
        areas=None if regions is None else cell_area(grid.part(tile.rows, tile.columns)),
    )
    fitted = _masked(run, maps, tile)
    progress(0.9)
    packed = None if sums is None else sums.packed()
    run.store.save(tile, fitted, run.fingerprint(task.index), packed)
    return fitted


def fit_wanted(run: Run, points: pd.DataFrame, tile: Tile) -> xr.Dataset:
    """Fit the wanted posts of a tile.

    Parameters
    ----------
    run : Run
        Settings.
    points : DataFrame
        In the tile's window.
    tile : Tile
        The tile; posts outside the mask of the run are ``outside_mask``.
    """
    return _masked(run, fit_posts(points, tile.x, tile.y, run.settings.fit), tile)


def _masked(run: Run, fitted: xr.Dataset, tile: Tile) -> xr.Dataset:
    if run.settings.mask is None:
        return fitted
    return without(fitted, ~run.settings.mask.of(tile), run.settings.fit)


def read_window(
    run: Run, db: PointDB, window: Bounds, *, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read the points that a run selects, at its snapshot, without the offsets that the run takes from them.

    Parameters
    ----------
    run : Run
        Settings and snapshot.
    db : PointDB
        The points.
    window : Bounds
        Bounds of the posts with a margin of the largest radius, m.
    columns : sequence of str or None
        Of the points; None: core columns and those that are terms.
    """
    config = run.settings.fit
    assert config.period is not None
    points = db.read(
        window,
        columns=(*CORE_COLUMNS, *config.column_terms) if columns is None else columns,
        where=run.settings.where,
        time=config.period,
        snapshot=run.snapshot,
    )
    offsets = run.settings.offsets
    return points if offsets is None else offsets.correct(points)


@lru_cache(maxsize=1)
def opened_run(path: Path, generation: int) -> tuple[Run, PointDB]:
    """Open a run and its point DB, once for the many tasks that a worker does.

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
    """Work of an ingest: add the files of a batch to the point DB.

    Attributes
    ----------
    ingest : Path
        The directory of the ingest.
    """

    ingest: Path

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the work in a worker, and open the point DB at once; see :class:`FitTile`."""
        self.__dict__.update(state)
        self._open()

    def __call__(self, task: Task, progress: Progress) -> None:
        """Add a batch, and save its result."""
        ingest, db = self._open()
        ingest.save(task.index, take_in(ingest.files(task.index), db, ingest.criteria, progress))

    def _open(self) -> tuple[Ingest, PointDB]:
        # A point DB that is made anew in the same place has ingests with other uuids.
        ingest = Ingest.load(self.ingest)
        return ingest, _opened_db(ingest.db_path, ingest.uuid)


@lru_cache(maxsize=1)
def _opened_db(path: Path, _ingest: str) -> PointDB:
    return PointDB(path)


def load_tasks(path: Path) -> Run | Ingest:
    """Open the directory of a run or of an ingest.

    Raises
    ------
    InvalidValue
        It is neither.
    """
    return Ingest.load(path) if (path / INGEST_FILE).exists() else Run.load(path)


def work_on(tasks: Run | Ingest) -> Work:
    """Return the work of a run or an ingest."""
    if isinstance(tasks, Ingest):
        return IngestBatch(tasks.path.resolve())
    return FitTile(tasks.path.resolve(), tasks.generation)


def complete_run(
    run: Run,
    backend: str = "auto",
    *,
    stall: float | None = None,
    lease: float | None = None,
    only: Sequence[Task] | None = None,
    progress: bool = False,
    tell: Tell = log.info,
) -> set[int]:
    """Work on a run until nothing is left.

    Parameters
    ----------
    run : Run
        Its missing tiles are fitted; failed ones are left out.
    backend : str
        Spec of the backend.
    stall, lease : float or None
        Seconds, as of :func:`cryotile.backends.open_backend`.
    only : sequence of Task or None
        Part of the list to work on; None: all of it.
    progress : bool
        Whether to show a progress bar.
    tell : callable
        Receives a line that names the backend that ``auto`` chose and, without a bar, a line a minute on the progress.

    Returns
    -------
    set of int
        Tasks that this process answers for, all of which are done.  Empty on all ranks of an MPI program but the first.

    Raises
    ------
    FailedTasks
        A tile failed after its last attempt; the others are done.
    Unfinished
        A tile is missing.
    """
    for line in scattered(open_db(run), run.snapshot) if run.missing_quick() else ():
        tell(line)
    share = _work_through(run, backend, stall, lease, only, progress, tell)
    check_finished(run, share)
    return share


def replanned(run: Run, backend: str = "auto") -> Run:
    """Plan a finished run again if its point DB has grown.

    Only where this process is the head of its farm: members that each plan again might do so on different commits.

    Parameters
    ----------
    run : Run
        Any run.
    backend : str
        Spec of the backend that will work on it.

    Returns
    -------
    Run
        With a new task list if planning again made one, else ``run``.
    """
    if resolved(backend).partition(":")[0] not in ("serial", "local") or run.missing_quick():
        return run
    return plan_run(run.path, {})


def check_finished(run: Run, share: Collection[int]) -> None:
    """Raise an error if a task of a share is not done.

    Parameters
    ----------
    run : Run
        The run.
    share : collection of int
        Tasks that this process answers for.

    Raises
    ------
    FailedTasks
        A tile failed after its last attempt.
    Unfinished
        A tile is missing.
    """
    left = {task.index for task in run.missing_quick() if task.index in share}
    failed = {index: error for index, error in run.failed().items() if index in left}
    if failed:
        index, error = next(iter(failed.items()))
        raise FailedTasks(
            f"{len(failed):,} of {len(share):,} tiles failed (the first, {run.names[index]}: {last_line(error)});"
            f" see why with: {command('status', run.path)}, and put them back with: {command('retry', run.path)}"
        )
    if left:
        raise Unfinished(
            f"{len(left):,} of {len(share):,} tiles are not there; go on with: {command('run', run.path)}"
        )


def complete_ingest(
    ingest: Ingest,
    backend: str = "auto",
    *,
    stall: float | None = None,
    lease: float | None = None,
    only: Sequence[Task] | None = None,
    progress: bool = False,
    tell: Tell = log.info,
    shown: Sequence[Path] = (),
) -> IngestReport | None:
    """Work on an ingest until nothing is left.

    Parameters
    ----------
    ingest : Ingest
        Its batches.
    backend, stall, lease, only, progress, tell
        As of :func:`complete_run`.
    shown : sequence of Path
        The granules as the user named them; problems name them so.

    Returns
    -------
    IngestReport or None
        What this process answers for; None on all ranks of an MPI program but the first.
    """
    before = PointDB(ingest.db_path).checksums()
    if backend == "auto" and len(ingest.tasks) == 1:
        # One batch needs no children.
        backend = "serial" if resolved(backend).startswith("local") else backend
    share = _work_through(ingest, backend, stall, lease, only, progress, tell)
    if not share:
        return None
    return report_of(ingest, share, before, {str(path.absolute()): str(path) for path in shown})


def _work_through(
    frozen: Run | Ingest,
    backend: str,
    stall: float | None,
    lease: float | None,
    only: Sequence[Task] | None,
    progress: bool,
    tell: Tell,
) -> set[int]:
    """Work on the pending tasks of a task list; return the tasks that this process is responsible for."""
    farm = open_backend(
        backend, home=frozen.path, key=frozen.key, stall=stall, lease=lease,
        task_map=partial(task_map, frozen) if isinstance(frozen, Run) else None,
    )  # fmt: skip
    if backend == "auto" and (choice := choose(os.environ)).reason:
        tell(f"backend {choice.spec} ({choice.reason})")
    share = share_of(farm, frozen.tasks if only is None else only)
    tasks = frozen.pending(share)
    journal = frozen.journal.resolve()
    running = farm.run(tasks, Journaled(work_on(frozen), journal))
    with (
        # Ended here, so that after an interruption no child saves more while what is saved is counted.
        closing(running) if isinstance(running, Generator) else nullcontext(),
        Heartbeat(journal),
        follow(
            frozen, tasks, verb=frozen.verb, journal=journal, shown=progress, tell=tell
        ) as settle,
    ):
        for outcome in frozen.record(running):
            settle(outcome)
    return {task.index for task in share}
