"""Directory of a run: its layout, and how its frozen settings are written and read.

::

    run/
      run.toml                  frozen settings, point DB, version; written once
      mask.npz                  the selected posts, unless all are
      generations/0001/         one task list: snapshot of the point DB and tasks.parquet, costliest first
      tiles/                    the tile store, which alone decides which tasks are done
      failed/                   one small file per tile that failed, until it is retried
      journal/0001/             what each worker did with a task list, appended as it happens
      jobs/                     submissions to a scheduler: scripts, tasks, output of members
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tomllib
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import pandas as pd
import tomli_w

import cryotile
from cryotile.errors import CryotileError, DamagedFile, InvalidValue, UnwritablePath
from cryotile.files import fsync_directory, write_text
from cryotile.fit.config import FitConfig
from cryotile.geo.grid import Grid
from cryotile.geo.mask import Mask
from cryotile.runs.plan import Settings

if TYPE_CHECKING:
    from cryotile.pointdb import PointDB

__all__ = [
    "frozen_db",
    "frozen_settings",
    "generation_directory",
    "make_run_directory",
    "newest_generation",
    "read_frozen",
    "read_snapshot",
    "repair_db",
    "write_generation",
]

MASK = "mask.npz"
FORMAT = "cryotile run"
FORMAT_VERSION = 1


def make_run_directory(
    directory: Path, settings: Settings, db: PointDB, table: pd.DataFrame
) -> None:
    """Make a run directory with its first task list, whole or not at all; an existing run is not changed.

    Parameters
    ----------
    directory : Path
        Absent or empty, or a run that another process made at the same time.
    settings : Settings
        Settings to freeze.
    db : PointDB
        The points.
    table : DataFrame
        The task list, as of :func:`cryotile.runs.cost.tile_table`.

    Raises
    ------
    UnwritablePath
        It cannot be written.
    """
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(6)}.tmp")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        for name in ("generations", "tiles", "failed", "journal"):
            (temporary / name).mkdir(parents=True)
        write_generation(temporary, 1, table, db.snapshot)
        if settings.mask is not None:
            (temporary / MASK).write_bytes(settings.mask.packed())
        write_text(temporary / "run.toml", tomli_w.dumps(_frozen(settings, db, directory)))
        # Whole or not at all; a directory that is not empty is never replaced.
        temporary.rename(directory)
        fsync_directory(directory.parent)
    except OSError as error:
        # Otherwise another process planned at the same moment; the caller compares the options.
        if not (directory / "run.toml").exists():
            raise UnwritablePath(
                f"run directory {directory} cannot be written: {error.strerror}; choose one that can"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_generation(directory: Path, number: int, table: pd.DataFrame, snapshot: int) -> None:
    """Add a task list to a run directory.

    Parameters
    ----------
    directory : Path
        The run.
    number : int
        Number of the generation.
    table : DataFrame
        The task list.
    snapshot : int
        Commit of the point DB that the list was made from.
    """
    generation = generation_directory(directory, number)
    temporary = generation.with_name(f".{secrets.token_hex(6)}.tmp")
    temporary.mkdir()
    try:
        (temporary / "tasks.parquet").write_bytes(table.to_parquet(index=False))
        write_text(temporary / "snapshot", f"{snapshot}\n")
        temporary.rename(generation)
    except OSError:
        # Another process planned at the same moment: the list follows from the snapshot, so theirs is the same.
        if not generation.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_directory(generation.parent)


def generation_directory(directory: Path, number: int) -> Path:
    """Return the directory of a task list of a run."""
    return directory / "generations" / f"{number:04d}"


def newest_generation(directory: Path) -> int:
    """Return the number of the newest task list.

    Raises
    ------
    DamagedFile
        There is no task list.
    """
    # A name that begins with a dot is being written.
    numbers = [int(entry.name) for entry in (directory / "generations").glob("[0-9]*")]
    if not numbers:
        raise DamagedFile(
            f"{directory / 'generations'} holds no task list; restore it, or plan into a new directory"
        )
    return max(numbers)


def read_snapshot(directory: Path, generation: int) -> int:
    """Return the commit of the point DB that a task list was made from."""
    text = (generation_directory(directory, generation) / "snapshot").read_text(encoding="utf-8")
    return int(text)


def read_frozen(directory: Path) -> dict[str, Any]:
    """Read ``run.toml``.

    Raises
    ------
    InvalidValue
        It is not a run, or another version of cryotile made it.
    DamagedFile
        It is not valid TOML.
    """
    try:
        frozen = tomllib.loads(_read_text(directory))
    except tomllib.TOMLDecodeError as error:
        raise DamagedFile(
            f"{directory / 'run.toml'} is not valid ({error}); restore it, or plan into a new directory"
        ) from error
    _check_version(directory, frozen)
    return frozen


def frozen_settings(directory: Path, frozen: dict[str, Any]) -> Settings:
    """Return the settings in what :func:`read_frozen` returned.

    Raises
    ------
    DamagedFile
        The mask is not the one that was frozen.
    """
    table, fit = frozen["grid"], dict(frozen["fit"])
    fit["period"] = tuple(fit["period"])
    grid = Grid(table["crs"], tuple(table["bounds"]), table["posting"])
    return Settings(
        grid=grid,
        tile_size=table["tile_size"],
        where=frozen["selection"].get("where"),
        fit=FitConfig(**fit),
        mask=_frozen_mask(directory / MASK, frozen["selection"], grid),
    )


def _frozen_mask(path: Path, selection: dict[str, str], grid: Grid) -> Mask | None:
    if "mask" not in selection:
        return None
    try:
        mask = Mask.load(path, selection["mask"], grid)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        # These are the errors of numpy for damaged bytes.
        mask = None
    if mask is None or mask.digest != selection["mask_digest"]:
        raise DamagedFile(
            f"{path} is not the mask that the run was planned with; restore it, or plan into a new directory"
        )
    return mask


def frozen_db(directory: Path, frozen: dict[str, Any]) -> Path:
    """Return where the point DB of a run directory is, from what :func:`read_frozen` returned."""
    return (directory / str(frozen["point_db"])).resolve()


def repair_db(directory: Path, db: PointDB) -> None:
    """Rewrite the path of the point DB in ``run.toml``; every other line stays."""
    path = directory / "run.toml"
    line = tomli_w.dumps({"point_db": _place_of(db.path, directory)}).strip()
    text = re.sub(r"^point_db *=.*$", lambda _: line, _read_text(directory), count=1, flags=re.M)
    write_text(path, text)


def _place_of(db: Path, directory: Path) -> str:
    """Return the path of a point DB as ``run.toml`` holds it.

    A run and its point DB that lie under one parent move together, and then the path is relative to the run.  Any
    other is absolute, because workers may be started in other directories.
    """
    db, run = db.resolve(), directory.resolve()
    together = db.is_relative_to(run.parent) or run.is_relative_to(db.parent)
    return os.path.relpath(db, run) if together else str(db)


def _frozen(settings: Settings, db: PointDB, directory: Path) -> dict[str, Any]:
    # TOML has no tuple and no null.
    fit = {
        name: list(v) if isinstance(v, tuple) else v
        for name, v in asdict(settings.fit).items()
        if v is not None
    }
    grid = settings.grid
    selection = {} if settings.where is None else {"where": settings.where}
    if settings.mask is not None:
        selection |= {"mask": settings.mask.source, "mask_digest": settings.mask.digest}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "cryotile_version": cryotile.__version__,
        "uuid": uuid.uuid4().hex,
        "point_db": _place_of(db.path, directory),
        "grid": {
            "crs": grid.crs,
            "bounds": list(grid.bounds),
            "posting": grid.posting,
            "tile_size": settings.tile_size,
        },
        "selection": selection,
        "fit": fit,
    }


def _read_text(directory: Path) -> str:
    path = directory / "run.toml"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidValue(
            f"{directory} is not a cryotile run (it has no run.toml); make one with 'cryotile plan'"
        ) from None
    except NotADirectoryError:
        raise InvalidValue(
            f"{directory} is a file, not a run directory; make one with 'cryotile plan'"
        ) from None
    except OSError as error:
        raise CryotileError(
            f"{path} cannot be read: {error.strerror}; correct its permissions"
        ) from error


def _check_version(directory: Path, frozen: dict[str, Any]) -> None:
    if frozen.get("format") != FORMAT:
        raise InvalidValue(
            f"{directory / 'run.toml'} is not a cryotile run's; make one with 'cryotile plan'"
        )
    # Tiles of one map must agree at their edges to the last bit, which any version may change.
    theirs = frozen["cryotile_version"]
    if frozen["format_version"] != FORMAT_VERSION or theirs != cryotile.__version__:
        raise InvalidValue(
            f"{directory} was planned by cryotile {theirs} and this is {cryotile.__version__}, whose numbers may"
            f" differ; go on with {theirs}, or plan into a new directory"
        )
