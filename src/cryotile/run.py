"""A run: a frozen, ordered list of tasks, one per tile with points, and its directory.

::

    run/
      run.toml                  what was frozen: settings, point DB, version; written once
      generations/0001/         one task list: snapshot of the point DB and tasks.parquet, dearest first
      tiles/                    the tile store, which alone says what is done
      failed/                   one small file per tile that failed, until it is retried
      journal/                  what each process did, appended as it happened
  jobs/                     what was submitted to a scheduler: scripts, tasks, what members print
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
import tomllib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

import cryotile
from cryotile.config import FitConfig
from cryotile.cost import tile_table
from cryotile.errors import CryotileError, DamagedFile, InvalidValue, UnwritablePath
from cryotile.files import fsync_directory, write_text
from cryotile.grid import Grid, Tile
from cryotile.plan import PlanRequest, Settings, differences, resolve
from cryotile.pointdb import PointDB
from cryotile.task import Outcome, Pending, Task
from cryotile.tiles import TileStore

__all__ = ["Run", "open_db", "plan_run"]

FORMAT = "cryotile run"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Run:
    """A frozen run and its newest task list.

    Attributes
    ----------
    path : Path
        The run directory.
    uuid : str
        Names the run, wherever it is moved to.
    db_path : Path
        The point DB it reads.
    settings : Settings
        Grid, tile size, selection, fit.
    generation : int
        Number of the task list, counted from 1; planning again after the data set has grown makes a new one.
    snapshot : int
        Commit of the point DB that the task list was made from, and that workers read.
    """

    path: Path
    uuid: str
    db_path: Path
    settings: Settings
    generation: int
    snapshot: int

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, generation: int | None = None) -> Run:
        """Open a run directory.

        Parameters
        ----------
        path : path
            A directory that ``cryotile plan`` made.
        generation : int or None
            Which task list; None: the newest.

        Raises
        ------
        InvalidValue
            No run is there, or another version of cryotile made it.
        DamagedFile
            Its ``run.toml`` cannot be understood.
        """
        directory = Path(path)
        text = _read_run_toml(directory)
        try:
            frozen = tomllib.loads(text)
            _check_version(directory, frozen)
            generation = generation or _newest_generation(directory)
            return cls(
                path=directory,
                uuid=frozen["uuid"],
                db_path=Path(frozen["point_db"]),
                settings=_settings_from(frozen),
                generation=generation,
                snapshot=_read_snapshot(directory, generation),
            )
        except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise DamagedFile(
                f"{directory / 'run.toml'} cannot be understood ({error}); restore it, or plan into a new directory"
            ) from error

    @cached_property
    def store(self) -> TileStore:
        """The tiles of this run."""
        return TileStore(self.path / "tiles")

    @cached_property
    def table(self) -> pd.DataFrame:
        """The frozen task list: row i is task i; columns as of :func:`cryotile.cost.tile_table`."""
        return pd.read_parquet(self._generation_directory / "tasks.parquet")

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks of the list, dearest first."""
        return [Task(index, float(cost)) for index, cost in enumerate(self.table["cost"])]

    @cached_property
    def tiles(self) -> list[Tile]:
        """The tile of each task, in the order of the tasks."""
        by_place = {(tile.ix, tile.iy): tile for tile in self.settings.grid.tiles(self.settings.tile_size)}
        return [by_place[place] for place in zip(self.table["ix"], self.table["iy"], strict=True)]

    def empty_tiles(self) -> list[Tile]:
        """Return the tiles in whose windows there is no point, and which need no task."""
        with_points = {tile.name for tile in self.tiles}
        tiles = self.settings.grid.tiles(self.settings.tile_size)
        return [tile for tile in tiles if tile.name not in with_points]

    def fingerprint(self, index: int) -> str:
        """Digest of all that the content of a tile follows from: settings, the tile's posts and its points."""
        tile = self.tiles[index]
        what = {
            "fit": asdict(self.settings.fit),
            "crs": self.settings.grid.crs,
            "where": self.settings.where,
            "posts": [tile.x[0], tile.x[-1], tile.x.size, tile.y[0], tile.y[-1], tile.y.size],
            "points": [int(self.table["points"].iloc[index]), int(self.table["digest"].iloc[index])],
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def missing(self) -> list[Task]:
        """Return the tasks whose tile is absent, damaged or of other points or settings; dearest first."""
        return [task for task in self.tasks if not self.is_done(task)]

    def is_done(self, task: Task) -> bool:
        """Tell whether a task's tile is there, undamaged, and of these points and settings."""
        return self.store.is_current(self.tiles[task.index], self.fingerprint(task.index))

    def pending(self, frozen: Sequence[Task] | None = None) -> Pending:
        """Return what a farm is to do of the task list, or of a frozen part of it: what is missing and did not fail."""
        failed = self.failed()
        return Pending(
            self.tasks if frozen is None else frozen,
            lambda task: task.index not in failed and not self.is_done(task),
        )

    def failed(self) -> dict[int, str]:
        """Return task index → error of each tile that failed and was not retried since."""
        errors = {}
        indices = {tile.name: task.index for task, tile in zip(self.tasks, self.tiles, strict=True)}
        for record in sorted((self.path / "failed").glob("*.json")):
            if (index := indices.get(record.stem)) is not None:
                errors[index] = json.loads(record.read_text(encoding="utf-8"))["error"]
        return errors

    def record(self, outcomes: Iterable[Outcome]) -> Iterable[Outcome]:
        """Pass outcomes on, each written to the journal, and failures to ``failed/``, before it is handed out."""
        name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(3)}.jsonl"
        journal = self.path / "journal" / name
        for outcome in outcomes:
            entry = asdict(outcome) | {"time": round(time.time(), 3), "generation": self.generation}
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            if outcome.error is not None:
                tile = self.tiles[outcome.task.index]
                write_text(self.path / "failed" / f"{tile.name}.json", json.dumps(entry))
            yield outcome

    def retry(self) -> int:
        """Put failed tiles back and return how many there were."""
        records = list((self.path / "failed").glob("*.json"))
        for record in records:
            record.unlink(missing_ok=True)
        return len(records)

    @property
    def _generation_directory(self) -> Path:
        return self.path / "generations" / f"{self.generation:04d}"


def plan_run(path: str | os.PathLike[str], request: PlanRequest, *, db: PointDB | None = None) -> Run:
    """Freeze a run, or look again at one that is frozen.

    A new directory gets its settings and its first task list.  On an existing run the settings stay; when the points
    in some tile's window have changed, it gets a new task list.

    Parameters
    ----------
    path : path
        The run directory; absent or empty for a new run.
    request : PlanRequest
        What is asked for; on an existing run nothing need be, and nothing may differ.
    db : PointDB or None
        The points; needed for a new run only.

    Returns
    -------
    Run
        With its newest task list.

    Raises
    ------
    InvalidValue
        A value breaks its rule, differs from the run's, or the directory is something else.
    UnwritablePath
        The directory cannot be written.
    """
    directory = Path(path)
    if (directory / "run.toml").exists():
        return _plan_again(Run.load(directory), request, db)
    if db is None:
        raise InvalidValue(f"{directory} is no run yet, and no point DB was named; name one with --db")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InvalidValue(f"{directory} exists and is no cryotile run; choose a new directory for the run")
    settings = resolve(request, db)
    _freeze(directory, settings, db)
    run = Run.load(directory)
    # Whoever planned at the same time may have been first, with other options.
    _refuse_differences(run, request, db)
    return run


def open_db(run: Run) -> PointDB:
    """Open the point DB of a run.

    Raises
    ------
    InvalidValue
        It is not where it was.
    """
    if not run.db_path.exists():
        raise InvalidValue(
            f"the point DB {run.db_path} of this run is gone; move it back, or set point_db in {run.path / 'run.toml'}"
        )
    return PointDB(run.db_path)


def _plan_again(run: Run, request: PlanRequest, db: PointDB | None) -> Run:
    _refuse_differences(run, request, db)
    db = open_db(run)
    if db.snapshot == run.snapshot:
        return run
    table = tile_table(run.settings, db)
    if table.equals(run.table):
        return run
    _write_generation(run.path / "generations", run.generation + 1, table, db.snapshot)
    return Run.load(run.path)


def _refuse_differences(run: Run, request: PlanRequest, db: PointDB | None) -> None:
    found = differences(request, run.settings)
    if db is not None and db.path.resolve() != run.db_path:
        found.append(f"point DB {str(db.path)!r} (frozen: {str(run.db_path)!r})")
    if found:
        raise InvalidValue(
            f"{run.path} is frozen with other settings: {'; '.join(found)}; leave them out, or plan into a new directory"
        )


def _freeze(directory: Path, settings: Settings, db: PointDB) -> None:
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(6)}.tmp")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        for name in ("generations", "tiles", "failed", "journal"):
            (temporary / name).mkdir(parents=True)
        _write_generation(temporary / "generations", 1, tile_table(settings, db), db.snapshot)
        write_text(temporary / "run.toml", tomli_w.dumps(_frozen(settings, db)))
        # Whole or not at all; a directory that is not empty is never replaced.
        temporary.rename(directory)
        fsync_directory(directory.parent)
    except OSError as error:
        if not (directory / "run.toml").exists():
            raise UnwritablePath(
                f"run directory {directory} cannot be written: {error.strerror}; choose one that can"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_generation(generations: Path, number: int, table: pd.DataFrame, snapshot: int) -> None:
    temporary = generations / f".{secrets.token_hex(6)}.tmp"
    temporary.mkdir()
    try:
        table.to_parquet(temporary / "tasks.parquet", index=False)
        write_text(temporary / "snapshot", f"{snapshot}\n")
        temporary.rename(generations / f"{number:04d}")
    except OSError:
        # Somebody planned the same at the same moment: the list depends on the snapshot alone, theirs will do.
        if not (generations / f"{number:04d}").exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_directory(generations)


def _frozen(settings: Settings, db: PointDB) -> dict[str, Any]:
    fit = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(settings.fit).items() if v is not None}
    grid = settings.grid
    selection = {} if settings.where is None else {"where": settings.where}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "cryotile_version": cryotile.__version__,
        "uuid": uuid.uuid4().hex,
        "point_db": str(db.path.resolve()),
        "grid": {
            "crs": grid.crs,
            "bounds": list(grid.bounds),
            "posting": grid.posting,
            "tile_size": settings.tile_size,
        },
        "selection": selection,
        "fit": fit,
    }


def _settings_from(frozen: dict[str, Any]) -> Settings:
    grid, fit = frozen["grid"], dict(frozen["fit"])
    fit["period"] = tuple(fit["period"])
    return Settings(
        grid=Grid(grid["crs"], tuple(grid["bounds"]), grid["posting"]),
        tile_size=grid["tile_size"],
        where=frozen["selection"].get("where"),
        fit=FitConfig(**fit),
    )


def _read_run_toml(directory: Path) -> str:
    try:
        return (directory / "run.toml").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidValue(f"{directory} is no cryotile run (it has no run.toml); make one with 'cryotile plan'") from None
    except NotADirectoryError:
        raise InvalidValue(f"{directory} is a file, not a run directory; make one with 'cryotile plan'") from None
    except OSError as error:
        raise CryotileError(f"{directory / 'run.toml'} cannot be read: {error.strerror}; mend its permissions") from error


def _check_version(directory: Path, frozen: dict[str, Any]) -> None:
    if frozen.get("format") != FORMAT:
        raise InvalidValue(f"{directory / 'run.toml'} is not a cryotile run's; make one with 'cryotile plan'")
    theirs = frozen["cryotile_version"]
    if frozen["format_version"] != FORMAT_VERSION or theirs != cryotile.__version__:
        raise InvalidValue(
            f"{directory} was planned by cryotile {theirs} and this is {cryotile.__version__}, whose numbers may differ;"
            f" go on with {theirs}, or plan into a new directory"
        )


def _newest_generation(directory: Path) -> int:
    numbers = [int(entry.name) for entry in (directory / "generations").glob("[0-9]*")]
    if not numbers:
        raise DamagedFile(f"{directory / 'generations'} holds no task list; restore it, or plan into a new directory")
    return max(numbers)


def _read_snapshot(directory: Path, generation: int) -> int:
    return int((directory / "generations" / f"{generation:04d}" / "snapshot").read_text(encoding="utf-8"))
