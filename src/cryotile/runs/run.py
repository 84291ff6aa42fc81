"""A run: a frozen, ordered list of tasks, one per tile with points, and the state of each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile.errors import DamagedFile, InvalidValue, command, path_of
from cryotile.farm.task import Task
from cryotile.files import set_aside, sweep
from cryotile.geo.grid import Tile
from cryotile.maps.tiles import TileStore
from cryotile.pointdb.db import PointDB
from cryotile.points import ReprMixin
from cryotile.runs.cost import estimate, tile_table
from cryotile.runs.directory import (
    Generation,
    frozen_db,
    frozen_settings,
    generation_directory,
    generation_numbers,
    make_run_directory,
    read_frozen,
    read_generation,
    read_tasks,
    repair_db,
    rewrite_tasks,
    write_generation,
)
from cryotile.runs.plan import Asked, Settings, completed, differences, resolve
from cryotile.runs.tasklist import Estimate, TaskList

__all__ = ["Run", "open_db", "plan_run"]


@dataclass(frozen=True, repr=False)
class Run(ReprMixin, TaskList):
    """A frozen run and its newest task list.

    Attributes
    ----------
    path : Path
        The run directory; see :mod:`cryotile.runs.directory` for its layout.
    uuid : str
        Identifies the run, also after it is moved.
    db_path : Path
        The point DB it reads.
    settings : Settings
        Grid, tile size, selection, fit.
    made : Generation
        How the task list was made.
    """

    path: Path
    uuid: str
    db_path: Path
    settings: Settings
    made: Generation
    things: ClassVar[str] = "tiles"
    noun: ClassVar[str] = "tile"
    nouns: ClassVar[str] = "tiles"
    verb: ClassVar[str] = "fit"
    file_name: ClassVar[str] = "run.toml"
    results: ClassVar[str] = "tiles"

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, generation: int | None = None) -> Run:
        """Open a run directory; if its newest task list is damaged, set it aside and make another one.

        Parameters
        ----------
        path : path
            A directory that ``cryotile plan`` made.
        generation : int or None
            Which task list; None: the newest.

        Raises
        ------
        InvalidValue
            It is not a run, or another version of cryotile made it, or a setting breaks its rule.
        DamagedFile
            Its ``run.toml`` or the given task list is not what was written.
        """
        directory = path_of("run", path)
        frozen = read_frozen(directory)
        settings, db_path = frozen_settings(directory, frozen), frozen_db(directory, frozen)
        number = generation or max(generation_numbers(directory), default=0)
        try:
            made = read_generation(directory, number)
        except DamagedFile:
            if generation is not None:
                raise
            made = _made_anew(directory, settings, _db_at(directory, db_path), number)
        return cls(directory, frozen["uuid"], db_path, settings, made)

    @property
    def generation(self) -> int:
        """Number of the task list, counted from 1; planning again after the data set has grown makes a new one."""
        return self.made.number

    @property
    def snapshot(self) -> int:
        """Commit of the point DB that the task list was made from, and that workers read."""
        return self.made.snapshot

    def _facts(self) -> Mapping[str, str]:
        """Return the lines of ``repr``; how many tiles are missing follows from the ends of their files."""
        settings = self.settings
        ny, nx = settings.grid.shape
        terms = f" with {', '.join(settings.fit.terms)}" if settings.fit.terms else ""
        return {
            "path": str(self.path),
            "point DB": f"{self.db_path} at commit {self.snapshot}",
            "selection": settings.where or "all points",
            "posts": f"{nx:,} x {ny:,} every {settings.grid.posting:g} m in {settings.grid.crs}",
            "fit": f"{settings.fit.recipe}{terms}, radius {settings.fit.radius:g} m",
            "period": " to ".join(settings.fit.period or ()),
            "tiles": f"{len(self.tasks):,}: {len(self.missing_quick()):,} missing, {len(self.failed()):,} failed",
        }

    @cached_property
    def store(self) -> TileStore:
        """The tiles of this run."""
        return TileStore(self.path / "tiles")

    @cached_property
    def table(self) -> pd.DataFrame:
        """The frozen task list: row i is task i; columns as of :func:`cryotile.runs.cost.tile_table`."""
        try:
            return read_tasks(self.path, self.made)
        except DamagedFile:
            # It follows from the snapshot.
            table = tile_table(self.settings, open_db(self), snapshot=self.snapshot)
            rewrite_tasks(self.path, self.made, table)
            return table

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks of the list, costliest first."""
        return [Task(index, cost) for index, cost in enumerate(self.table["cost"].tolist())]

    @cached_property
    def tiles(self) -> list[Tile]:
        """The tile of each task, in the order of the tasks."""
        return [self.tile(index) for index in range(len(self.table))]

    @cached_property
    def names(self) -> list[str]:
        """The name of each task's tile."""
        return [tile.name for tile in self.tiles]

    def tile(self, index: int) -> Tile:
        """Return the tile of a task, without making a list of all."""
        columns, rows = self._cuts
        ix, iy = int(self._columns["ix"][index]), int(self._columns["iy"][index])
        return Tile(ix, iy, columns[ix], rows[iy], self.settings.grid.posting)

    def empty_tiles(self) -> list[Tile]:
        """Return the tiles without points in their windows, which have no task."""
        with_points = set(self.names)
        tiles = self.settings.grid.tiles(self.settings.tile_size)
        return [tile for tile in tiles if tile.name not in with_points]

    def fingerprint(self, index: int) -> str:
        """Return a digest of everything that determines a tile: settings, its posts and its points."""
        tile, table = self.tile(index), self._columns
        digest = self._settings_digest.copy()
        # Posts, too: grids cut tiles differently at their edges.
        posts = (tile.columns.start, tile.columns.stop, tile.rows.start, tile.rows.stop)
        digest.update(f"{posts} {table['points'][index]} {table['digest'][index]}".encode())
        if self.settings.mask is not None:
            digest.update(np.packbits(self.settings.mask.of(tile)).tobytes())
        if self.settings.regions is not None:
            digest.update(self.settings.regions.digest.encode())
            digest.update(self.settings.regions.of(tile).tobytes())
        return digest.hexdigest()

    def missing(self, tasks: Sequence[Task] | None = None) -> list[Task]:
        """Return the tasks, of some or all, whose tile is absent, damaged or of other points or settings.

        Every byte of the stored tiles is checked; :meth:`missing_quick` is faster.
        """
        tasks = self.tasks if tasks is None else tasks
        # One listing, not one request for each tile: a file server answers few requests per second.
        stored = self.store.names()
        there = [task for task in tasks if self.tile(task.index).name in stored] if stored else []
        expected = [(self.tile(task.index), self.fingerprint(task.index)) for task in there]
        current = {
            task.index
            for task, good in zip(there, self.store.are_current(expected), strict=True)
            if good
        }
        return [task for task in tasks if task.index not in current]

    def missing_quick(self, tasks: Sequence[Task] | None = None) -> list[Task]:
        """Return what :meth:`missing` does, judged by the trailers of the tiles: only the end of each file is read."""
        tasks = self.tasks if tasks is None else tasks
        everything = len(tasks) == len(self.tasks)
        trailers = self.store.trailers(
            None if everything else {self.names[task.index] for task in tasks}
        )
        if not trailers:
            return list(tasks)
        names, expected = self.names, self._fingerprints
        return [task for task in tasks if trailers.get(names[task.index]) != expected[task.index]]

    def check(self) -> None:
        """Check that the point DB is where it was, and remove what killed workers left among the tiles."""
        open_db(self)
        super().check()
        sweep(self.store.path)

    def saved(self) -> str:
        """Say how many tiles are there."""
        done = len(self.tasks) - len(self.missing_quick())
        return f"{done:,} of {len(self.tasks):,} tiles are there; go on with: {command('run', self.path)}"

    def estimate(self, tasks: Sequence[Task]) -> Estimate:
        """Estimate time and memory of some tasks, to a factor of two."""
        return estimate(self.table.iloc[[task.index for task in tasks]])

    @cached_property
    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        return {str(name): column.to_numpy() for name, column in self.table.items()}

    @cached_property
    def _cuts(self) -> tuple[dict[int, range], dict[int, range]]:
        return self.settings.grid.cuts(self.settings.tile_size)

    @cached_property
    def _fingerprints(self) -> list[str]:
        return [self.fingerprint(index) for index in range(len(self.table))]

    @cached_property
    def _settings_digest(self) -> hashlib._Hash:
        """Digest of the settings of the run; the digest of a tile continues a copy of it."""
        fit = asdict(self.settings.fit)
        if not fit["other_platforms"]:
            # So that tiles keep their digests which an earlier cryotile has computed.
            del fit["other_platforms"]
        common = {
            "fit": fit,
            "crs": self.settings.grid.crs,
            "posting": self.settings.grid.posting,
            "where": self.settings.where,
        }
        if self.settings.offsets is not None:
            common["offsets"] = self.settings.offsets.digest
        return hashlib.sha256(json.dumps(common, sort_keys=True).encode())


def plan_run(path: str | os.PathLike[str], asked: Asked, *, db: PointDB | None = None) -> Run:
    """Freeze a run, or plan an existing one again.

    A new directory gets its settings and its first task list.  An existing run keeps its settings; if the points in the
    window of some tile have changed, it gets a new task list.

    Parameters
    ----------
    path : path
        The run directory; absent or empty for a new run.
    asked : mapping of str to value
        Some of :data:`cryotile.runs.plan.SETTINGS`; for an existing run it may be empty, and must not differ.
    db : PointDB or None
        The points; required for a new run.  If an existing run does not find its point DB where it was, this is its new
        place.

    Returns
    -------
    Run
        With its newest task list.

    Raises
    ------
    InvalidValue
        A value breaks its rule or differs from that of the run, or the directory is not a run.
    UnwritablePath
        The directory cannot be written.
    """
    directory = Path(path)
    asked = completed(asked, db)
    if (directory / "run.toml").exists():
        return _plan_again(Run.load(directory), asked, db)
    if db is None:
        raise InvalidValue(
            f'{directory} is not a run yet, and no point DB was given; give its path, e.g. db="ice.pdb"'
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InvalidValue(
            f"{directory} exists and is not a cryotile run; choose a new directory for the run"
        )
    settings = resolve(asked, db)
    make_run_directory(directory, settings, db, tile_table(settings, db))
    run = Run.load(directory)
    # Another process may have planned first at the same time, with other options.
    _refuse_differences(run, asked, db)
    return run


def open_db(run: Run) -> PointDB:
    """Open the point DB of a run.

    Raises
    ------
    InvalidValue
        It is not where the run expects it, or not the one that the task list was made from.
    """
    db = _db_at(run.path, run.db_path)
    if not _is_of(run, db):
        raise InvalidValue(
            f"commit {run.snapshot} of {db.path} is not the one that {run.path} was planned on, since the point DB is"
            f" another one or was repaired; plan again with: {command('plan', run.path)}"
        )
    return db


def _db_at(run: Path, path: Path) -> PointDB:
    if not path.exists():
        raise InvalidValue(
            f"the point DB {path} of this run is gone; move it back, or name its new place:"
            f" {command('plan', run, '--db', 'DB')}"
        )
    return PointDB(path)


def _is_of(run: Run, db: PointDB) -> bool:
    """Return whether a point DB has the commit that a task list was made from."""
    return db.crs_text == run.settings.grid.crs and db.commit_id(run.snapshot) == run.made.commit


def _made_anew(directory: Path, settings: Settings, db: PointDB, number: int) -> Generation:
    """Set a damaged task list aside and make the next one; its number is not used again, because ledgers have it."""
    if number:
        set_aside(generation_directory(directory, number))
    write_generation(directory, number + 1, tile_table(settings, db), db)
    return read_generation(directory, number + 1)


def _plan_again(run: Run, asked: Asked, db: PointDB | None) -> Run:
    if db is not None and not run.db_path.exists():
        _check_same_points(run, db)
        repair_db(run.path, db)
        run = Run.load(run.path)
    _refuse_differences(run, asked, db)
    db = _db_at(run.path, run.db_path)
    if db.crs_text != run.settings.grid.crs:
        raise InvalidValue(
            f"{db.path} is in {db.crs_text}, and {run.path} was planned in {run.settings.grid.crs}; correct point_db in"
            f" {run.path / 'run.toml'}"
        )
    same = _is_of(run, db)
    if same and db.snapshot == run.snapshot:
        return run
    table = tile_table(run.settings, db)
    # New points that no tile sees make no new list while workers can read the old snapshot.
    if same and table.equals(run.table) and _is_readable(db, run.snapshot):
        return run
    write_generation(run.path, run.generation + 1, table, db)
    return Run.load(run.path)


def _is_readable(db: PointDB, snapshot: int) -> bool:
    """Return whether a snapshot can be read without files that the newest does not rest on, which may be damaged."""
    return db.has_snapshot(snapshot) and {*db.fragments(snapshot=snapshot)} <= {*db.fragments()}


def _check_same_points(run: Run, db: PointDB) -> None:
    """Refuse a point DB that is not the one the run was planned on, as far as CRS, counts and digests tell."""
    same = db.crs_text == run.settings.grid.crs and db.snapshot >= run.snapshot
    if same and db.has_snapshot(run.snapshot):
        same = tile_table(run.settings, db, snapshot=run.snapshot).equals(run.table)
    if not same:
        raise InvalidValue(
            f"{db.path} is not the point DB that {run.path} was planned on: its points at commit {run.snapshot} are"
            " others; name the right one, or plan into a new directory"
        )


def _refuse_differences(run: Run, asked: Asked, db: PointDB | None) -> None:
    found = differences(asked, run.settings)
    if db is not None and db.path.resolve() != run.db_path:
        found.append(f"point DB {str(db.path)!r} (frozen: {str(run.db_path)!r})")
    if found:
        raise InvalidValue(
            f"{run.path} is frozen with other settings: {'; '.join(found)}; leave them out, or plan into a new"
            " directory"
        )
