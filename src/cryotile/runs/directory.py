"""Directory of a run: its layout, and how its frozen settings are written and read.

::

    run/
      run.toml                  frozen settings and their checksum, point DB, version; written once
      mask.npz                  the selected posts, unless all are
      offsets.npz               the offsets that are taken from points, if there are any
      regions.npz               the basin of each post, if the run has basins
      generations/0001/         one task list: tasks.parquet, costliest first, and its checksum and snapshot of the
                                point DB in generation.json
      tiles/                    the tile store, which alone decides which tasks are done
      failed/                   one small file per tile that failed, until it is retried
      journal/0001/             what each worker did with a task list, appended as it happens
      jobs/                     submissions to a scheduler: scripts, tasks, output of members

The settings in run.toml, the tiles and the point DB are the truth.  All else can be made anew: what cannot be read is
set aside as ``<name>.damaged-<n>``.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tomllib
import uuid
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zipfile import BadZipFile

import pandas as pd
import tomli_w

import cryotile
from cryotile.errors import CryotileError, DamagedFile, InvalidValue, UnwritablePath, command
from cryotile.files import (
    atomic_path,
    checksum_of_values,
    fsync,
    make_way,
    read_sealed,
    set_aside,
    write_sealed,
    write_text,
    writing,
)
from cryotile.fit.config import RETIRED, FitConfig
from cryotile.fit.offset_field import OffsetField
from cryotile.geo.grid import Grid
from cryotile.geo.mask import Mask
from cryotile.geo.regions import Regions
from cryotile.runs.plan import Settings

if TYPE_CHECKING:
    from cryotile.pointdb import PointDB

__all__ = [
    "Generation",
    "first_snapshot",
    "frozen_db",
    "frozen_settings",
    "generation_directory",
    "generation_numbers",
    "make_run_directory",
    "read_frozen",
    "read_generation",
    "read_tasks",
    "repair_db",
    "rewrite_tasks",
    "write_generation",
]

MASK, OFFSETS, REGIONS = "mask.npz", "offsets.npz", "regions.npz"
TASKS, GENERATION = "tasks.parquet", "generation.json"
FORMAT = "cryotile run"
FORMAT_VERSION = 2

_EDITABLE = ("point_db", "submit", "checksum")
"""Keys of ``run.toml`` that no number depends on: a user may edit them, and the checksum does not cover them."""

_REMEDY = "restore it, or make another run with 'cryotile plan'"


_UNREADABLE = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error)
"""Errors of numpy for damaged bytes."""


@dataclass(frozen=True)
class Generation:
    """What is known of a task list without reading it.

    Attributes
    ----------
    number : int
        Counted from 1.
    snapshot : int
        Number of the commit of the point DB that the list was made from.
    commit : str
        Id of that commit, which no other commit of this number has.
    tasks : str
        SHA-256 of ``tasks.parquet``.
    """

    number: int
    snapshot: int
    commit: str
    tasks: str


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
        write_generation(temporary, 1, table, db)
        if settings.mask is not None:
            (temporary / MASK).write_bytes(settings.mask.packed())
        if settings.offsets is not None:
            (temporary / OFFSETS).write_bytes(settings.offsets.packed())
        if settings.regions is not None:
            (temporary / REGIONS).write_bytes(settings.regions.packed())
        write_text(temporary / "run.toml", tomli_w.dumps(_frozen(settings, db, directory)))
        # Whole or not at all; a directory that is not empty is never replaced.
        temporary.rename(directory)
        fsync(directory.parent)
    except OSError as error:
        # Otherwise another process planned at the same moment; the caller compares the options.
        if not (directory / "run.toml").exists():
            raise UnwritablePath(
                f"run directory {directory} cannot be written: {error.strerror}; choose one that can"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_generation(directory: Path, number: int, table: pd.DataFrame, db: PointDB) -> None:
    """Add a task list to a run directory.

    Parameters
    ----------
    directory : Path
        The run.
    number : int
        Number of the generation.
    table : DataFrame
        The task list.
    db : PointDB
        The points that it was made from, as of their newest commit.
    """
    generation = generation_directory(directory, number)
    temporary = generation.with_name(f".{secrets.token_hex(6)}.tmp")
    content = table.to_parquet(index=False)
    about = Generation(
        number, db.snapshot, db.commit_id(db.snapshot), hashlib.sha256(content).hexdigest()
    )
    with writing(generation):
        make_way(generation.parent, directory=True)
        generation.parent.mkdir(exist_ok=True)
        temporary.mkdir()
        try:
            (temporary / TASKS).write_bytes(content)
            write_sealed(temporary / GENERATION, asdict(about))
            temporary.rename(generation)
        except OSError:
            # Another process planned at the same moment: the list follows from the snapshot, so theirs is the same.
            if not generation.exists():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync(generation.parent)


def generation_directory(directory: Path, number: int) -> Path:
    """Return the directory of a task list of a run."""
    return directory / "generations" / f"{number:04d}"


def generation_numbers(directory: Path) -> list[int]:
    """Return the numbers of the task lists, ascending, those included that are damaged or were set aside."""
    try:
        entries = [path.name for path in (directory / "generations").iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    # A name that begins with a dot is being written.
    return sorted({int(name.partition(".")[0]) for name in entries if re.match(r"\d+(\.|$)", name)})


def _plan_again(directory: Path) -> str:
    return f"make it anew with: {command('plan', directory)}"


def read_generation(directory: Path, number: int) -> Generation:
    """Read what is known of a task list.

    Raises
    ------
    DamagedFile
        It is missing or altered.
    """
    path = generation_directory(directory, number) / GENERATION
    try:
        content = read_sealed(path)
    except FileNotFoundError:
        raise DamagedFile(f"{path} is missing; {_plan_again(directory)}") from None
    if content["number"] != number:
        raise DamagedFile(
            f"{path} is that of task list {content['number']}; {_plan_again(directory)}"
        )
    return Generation(number, content["snapshot"], content["commit"], content["tasks"])


def first_snapshot(directory: Path) -> int:
    """Return the snapshot of the first task list that can be read.

    Raises
    ------
    DamagedFile
        None can be read.
    """
    for number in generation_numbers(directory):
        with suppress(DamagedFile):
            return read_generation(directory, number).snapshot
    raise DamagedFile(f"{directory} has no task list; {_plan_again(directory)}")


def read_tasks(directory: Path, generation: Generation) -> pd.DataFrame:
    """Read a task list.

    Raises
    ------
    DamagedFile
        It is missing or altered.
    """
    path = generation_directory(directory, generation.number) / TASKS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedFile(
            f"{path} cannot be read: {error.strerror}; {_plan_again(directory)}"
        ) from error
    # Checked before it is decoded, because damage can mislead Arrow.
    if hashlib.sha256(content).hexdigest() != generation.tasks:
        raise DamagedFile(f"{path} is not what was written; {_plan_again(directory)}")
    return pd.read_parquet(BytesIO(content))


def rewrite_tasks(directory: Path, generation: Generation, table: pd.DataFrame) -> None:
    """Write a damaged task list again.

    Raises
    ------
    DamagedFile
        The table is not the one that was written.
    """
    path, content = (
        generation_directory(directory, generation.number) / TASKS,
        table.to_parquet(index=False),
    )
    if hashlib.sha256(content).hexdigest() != generation.tasks:
        raise DamagedFile(f"{path} is not what was written; {_plan_again(directory)}")
    set_aside(path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


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
        _check_version(directory, frozen)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError) as error:
        raise DamagedFile(f"{directory / 'run.toml'} is not valid ({error}); {_REMEDY}") from error
    return frozen


def frozen_settings(directory: Path, frozen: dict[str, Any]) -> Settings:
    """Return the settings in what :func:`read_frozen` returned.

    Raises
    ------
    InvalidValue
        A value breaks its rule.
    DamagedFile
        A setting is not the one that was frozen, or the mask or the basins are not.
    """
    path = directory / "run.toml"
    try:
        table, fit = frozen["grid"], dict(frozen["fit"])
        fit["period"] = tuple(fit["period"])
        settings = Settings(
            grid=Grid(table["crs"], tuple(table["bounds"]), table["posting"]),
            tile_size=table["tile_size"],
            where=frozen["selection"].get("where"),
            fit=FitConfig(**fit),
        )
    except InvalidValue as error:
        raise InvalidValue(f"{path}: {error}; but a run keeps its settings: {_REMEDY}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFile(f"{path} is not valid ({error}); {_REMEDY}") from error
    if frozen.get("checksum") != checksum_of_values(frozen, but=_EDITABLE):
        raise DamagedFile(
            f"{path} is not what was frozen: its checksum differs; a run keeps its settings: {_REMEDY}"
        )
    selection, grid = frozen["selection"], settings.grid
    masks, offsets, regions = (directory / name for name in (MASK, OFFSETS, REGIONS))
    return replace(
        settings,
        mask=_frozen_file(
            "mask", selection, masks, lambda source: Mask.load(masks, source, grid), "digest"
        ),
        offsets=_frozen_file(
            "offsets",
            selection,
            offsets,
            lambda source: OffsetField.load(offsets.read_bytes(), source),
            "digest",
        ),
        regions=_frozen_file(
            "basins",
            selection,
            regions,
            lambda source: Regions.load(regions, source, selection["column"], grid),
            "posts_digest",
        ),
    )


Frozen = TypeVar("Frozen", Mask, OffsetField, Regions)


def _frozen_file(
    name: str,
    selection: dict[str, str],
    path: Path,
    load: Callable[[str], Frozen],
    digest: str,
) -> Frozen | None:
    """Load a file of the run by its source, and compare it with its digest in ``run.toml``."""
    if name not in selection:
        return None
    try:
        found: Frozen | None = load(selection[name])
    except _UNREADABLE:
        found = None
    if found is None or getattr(found, digest) != selection[f"{name}_digest"]:
        raise DamagedFile(f"{path} is not the {name} that the run was planned with; {_REMEDY}")
    return found


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
    if settings.offsets is not None:
        selection |= {"offsets": settings.offsets.source, "offsets_digest": settings.offsets.digest}
    if settings.regions is not None:
        selection |= {
            "basins": settings.regions.source,
            "column": settings.regions.column,
            "basins_digest": settings.regions.posts_digest,
        }
    frozen = {
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
    # Before the tables, where TOML wants it.
    return {"checksum": checksum_of_values(frozen, but=_EDITABLE), **frozen}


def _read_text(directory: Path) -> str:
    path = directory / "run.toml"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidValue(
            f"{directory} is not a cryotile run (it has no run.toml); {_REMEDY}"
        ) from None
    except NotADirectoryError:
        raise InvalidValue(
            f"{directory} is a file, not a run directory; make one with 'cryotile plan'"
        ) from None
    except OSError as error:
        raise CryotileError(f"{path} cannot be read: {error.strerror}; {_REMEDY}") from error


def _check_version(directory: Path, frozen: dict[str, Any]) -> None:
    if frozen.get("format") != FORMAT:
        raise InvalidValue(f"{directory / 'run.toml'} is not a cryotile run's; {_REMEDY}")
    recipe = frozen.get("fit", {}).get("recipe")
    if recipe in RETIRED:
        raise InvalidValue(
            f"{directory} was planned with the recipe {recipe}, which is retired: {RETIRED[recipe]}; plan into a new"
            " directory, with the recipe passes"
        )
    # Tiles of one map must agree at their edges to the last bit, which any version may change.
    theirs = frozen["cryotile_version"]
    if frozen["format_version"] != FORMAT_VERSION or theirs != cryotile.__version__:
        raise InvalidValue(
            f"{directory} was planned by cryotile {theirs} and this is {cryotile.__version__}, whose numbers may"
            f" differ; go on with {theirs}, or make another run with 'cryotile plan'"
        )
