"""An ingest: granules frozen into batches, as a list of tasks that any backend works on.

::

    ice.pdb/ingests/<digest>/
      ingest.toml        frozen settings: which points to keep, memory; written once
      granules.parquet   one row per file: path, bytes, batch; in the order of the batches, costliest first
      done/              one small file per finished batch: its granules, and what was wrong with them
      failed/  journal/  jobs/    as in a run

The digest follows from the files (path, size, time of change) and from the settings, so that the same command, given
again or by many members of a farm, finds the same directory.  The point DB decides what is done, never this list.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tomllib
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

import cryotile
from cryotile.backends import resolved
from cryotile.backends.pool import pool_size
from cryotile.errors import (
    DamagedFile,
    GranuleError,
    InvalidValue,
    command,
)
from cryotile.farm.task import Task
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
from cryotile.geo.dem import Dem
from cryotile.geo.projection import projected_crs
from cryotile.pointdb.db import PointDB
from cryotile.pointdb.overlap import ALREADY_THERE
from cryotile.readers import (
    ColumnMapping,
    read_granule,
)
from cryotile.runs.ingest_batch import Criteria, IngestReport, Taken, points_within
from cryotile.runs.ingest_checks import check_area_of_use, check_granules, spread_out
from cryotile.runs.tasklist import Estimate, TaskList, last_line
from cryotile.selection import Where

__all__ = ["FILE_NAME", "Ingest", "freeze_ingest", "prepare_ingest", "report_of"]

FILE_NAME = "ingest.toml"
GRANULES = "granules.parquet"
FORMAT = "cryotile ingest"

_EDITABLE = ("submit", "checksum")
"""Keys of ``ingest.toml`` that a user may edit: the checksum does not cover them."""

_FILES = frozenset({"dem", "mapping"})
"""Criteria that are files."""

BATCH_GRANULES = 1000
"""Most granules of a batch, so that an interrupted ingest loses little."""

LEAST_POINTS = 100_000
"""Fewest points of a batch, if there are that many: smaller batches make many small fragments."""

BATCHES_A_WORKER = 2
"""Batches for each worker, so that a slow one does not keep the others waiting for long."""

SPARE = 1.1
"""Headroom factor over the estimated points of a batch, up to which the batch is still one commit."""

POINTS_PER_GRANULE = 1000
"""Time to open a granule, in points that could be read meanwhile."""

SAMPLED = 8
"""Number of granules that are read to estimate the points per byte."""

POINTS_PER_BYTE = 1 / 100
"""Estimate if none of those granules can be read."""

POINTS_PER_SECOND = 3e5
"""Points that one core reads, projects and writes per second, measured on small granules."""

UNKNOWN_WORKERS = 16
"""Number of workers that batches are made for if the backend does not tell how many will come."""


@dataclass(frozen=True)
class Ingest(TaskList):
    """A frozen ingest; its tasks are batches of granules.

    Attributes
    ----------
    path : Path
        The directory in the point DB.
    uuid : str
        Identifies the ingest.
    criteria : Criteria
        Which points go in.
    generation : int
        Always 1: other files are another ingest.
    """

    path: Path
    uuid: str
    criteria: Criteria
    generation: int = 1
    things: ClassVar[str] = "granules"
    noun: ClassVar[str] = "batch"
    nouns: ClassVar[str] = "batches"
    verb: ClassVar[str] = "ingest"
    file_name: ClassVar[str] = FILE_NAME
    results: ClassVar[str] = "done"

    @classmethod
    def load(cls, path: Path) -> Ingest:
        """Open the directory of an ingest.

        Raises
        ------
        DamagedFile
            Its frozen settings are not valid.
        """
        try:
            frozen = tomllib.loads((path / FILE_NAME).read_text(encoding="utf-8"))
            granules = (path / GRANULES).read_bytes()
        except (OSError, ValueError) as error:
            raise _damage(path) from error
        whole = frozen.get("checksum") == checksum_of_values(frozen, but=_EDITABLE)
        if not whole or frozen["granules"] != hashlib.sha256(granules).hexdigest():
            raise _damage(path)
        criteria = dict(frozen["criteria"])
        criteria["surface_types"] = tuple(criteria["surface_types"])
        for name in _FILES & criteria.keys():
            criteria[name] = Path(criteria[name])
        return cls(path, frozen["uuid"], Criteria(**criteria))

    @property
    def db_path(self) -> Path:
        """The point DB."""
        return self.path.parent.parent

    @cached_property
    def tasks(self) -> list[Task]:
        """All batches, costliest first."""
        return [Task(index, float(sum(size))) for index, size in enumerate(self._column("bytes"))]

    @cached_property
    def names(self) -> list[str]:
        """Name of each batch."""
        return [f"batch-{index:05d}" for index in range(len(self.tasks))]

    def files(self, index: int) -> list[Path]:
        """Return the files of a batch."""
        table = pq.read_table(self.path / GRANULES, filters=[("batch", "=", index)])
        return [Path(path) for path in table["path"].to_pylist()]

    @cached_property
    def sizes(self) -> list[int]:
        """Number of files of each batch."""
        return [len(size) for size in self._column("bytes")]

    def missing(self, tasks: Sequence[Task] | None = None) -> list[Task]:
        """Return the batches whose granules are not all in the point DB."""
        tasks = self.tasks if tasks is None else tasks
        # The point DB is the truth; the saved result only names the files to look for in it.
        there = PointDB(self.db_path).checksums()
        taken = {task.index: self.taken(task.index) for task in tasks}
        return [t for t in tasks if (each := taken[t.index]) is None or not each.is_in(there)]

    def missing_quick(self, tasks: Sequence[Task] | None = None) -> list[Task]:
        """Return the batches that no worker has finished."""
        tasks = self.tasks if tasks is None else tasks
        done = {path.stem for path in (self.path / "done").glob("*.json")}
        return [task for task in tasks if self.names[task.index] not in done]

    def taken(self, index: int) -> Taken | None:
        """Return the result of a batch; None if no worker has finished it, or its record is damaged."""
        path = self._done(index)
        try:
            saved = read_sealed(path)
        except FileNotFoundError:
            return None
        except DamagedFile:
            set_aside(path)
            return None
        del saved["checksum"]
        return Taken(**saved | {"problems": [tuple(problem) for problem in saved["problems"]]})

    def save(self, index: int, taken: Taken) -> None:
        """Save the result of a batch."""
        path = self._done(index)
        make_way(path)
        with atomic_path(path) as temporary:
            write_sealed(temporary, asdict(taken))

    def check(self) -> None:
        """Check that the point DB is there."""
        PointDB(self.db_path)
        super().check()

    def saved(self) -> str:
        """Say how many of its granules the point DB has, which is the truth after an interruption, too."""
        table = pq.read_table(self.path / GRANULES, columns=["path"])
        granules = PointDB(self.db_path).granules
        there = granules[granules["name"].isin([Path(p).name for p in table["path"].to_pylist()])]
        return (
            f"{len(there):,} of {len(table):,} granules are in {self.db_path}, with {there['rows'].sum():,} points; go"
            f" on with the same command, or with: {command('run', self.path)}"
        )

    def estimate(self, tasks: Sequence[Task]) -> Estimate:
        """Estimate time and memory of batches from the bytes of their files."""
        points = sum(task.cost for task in tasks) * POINTS_PER_BYTE
        return Estimate(points / POINTS_PER_SECOND / 3600, self.criteria.memory)

    def _done(self, index: int) -> Path:
        return self.path / "done" / f"{self.names[index]}.json"

    def _column(self, name: str) -> list[list[Any]]:
        """Return the values of a column, by batch."""
        table = pq.read_table(self.path / GRANULES, columns=[name, "batch"])
        starts = np.flatnonzero(np.diff(table["batch"].to_numpy(), prepend=-1))[1:]
        return [part.tolist() for part in np.split(table[name].to_numpy(), starts)]


def _damage(path: Path) -> DamagedFile:
    return DamagedFile(
        f"{path} is not what was frozen: its checksum differs; give the same 'cryotile ingest' again, which makes it"
        " anew"
    )


def prepare_ingest(
    db: PointDB | str | os.PathLike[str],
    granules: Sequence[Path],
    criteria: Criteria,
    *,
    crs: str | None = None,
    columns: Sequence[str] = (),
    chunk_size: float | None = None,
    backend: str = "auto",
) -> Ingest:
    """Freeze an ingest, and create its point DB if there is none.

    Everything that can be checked is checked before the point DB is created, so that a mistake leaves no empty point
    DB whose CRS is fixed.

    Parameters
    ----------
    db : PointDB or path
        The point DB; a path may be absent or an empty directory.
    granules : sequence of Path
        Files.
    criteria : Criteria
        Which points go in.
    crs : str or None
        Projected CRS, metres; required for a new point DB.
    columns : sequence of str
        Extra columns of a new point DB.
    chunk_size : float or None
        Side of a chunk, metres; None: 100 km.
    backend : str
        Spec of the backend that will work on it; batches suit its number of workers.

    Raises
    ------
    InvalidValue
        A value breaks its rule, or differs from that of the point DB.
    IncompleteIngest
        None of the granules can be read, so no point DB was created.
    """
    points_within(criteria.memory)
    points = (
        db
        if isinstance(db, PointDB)
        else _open_or_create(Path(db), granules, criteria, crs, columns, chunk_size)
    )
    points.check_matches(crs=crs, columns=columns or None, chunk_size=chunk_size)
    if criteria.dem is not None:
        Dem(criteria.dem, points.crs)
    if criteria.where is not None:
        where = str(Where.parse(criteria.where, columns=points.column_names))
        criteria = replace(criteria, where=where)
    return freeze_ingest(points, granules, criteria, workers=_workers(backend))


def _open_or_create(
    path: Path,
    granules: Sequence[Path],
    criteria: Criteria,
    crs: str | None,
    columns: Sequence[str],
    chunk_size: float | None,
) -> PointDB:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        return PointDB(path)
    if crs is not None and criteria.dem is not None:
        Dem(criteria.dem, projected_crs(crs))
    check_granules(granules, columns, criteria)
    if crs is None:
        raise InvalidValue(
            f'point DB {path} does not exist yet; to create it, name its CRS, e.g. crs="EPSG:3031"'
        )
    check_area_of_use(granules, crs, criteria)
    return PointDB.create(path, crs, columns=columns, chunk_size=chunk_size or 100_000.0)


def _workers(backend: str) -> int:
    """Return how many workers a backend will have, as far as that is known when batches are made."""
    scheme, _, argument = resolved(backend).partition(":")
    if scheme in ("serial", "local"):
        return 1 if scheme == "serial" else pool_size(scheme, argument)
    return UNKNOWN_WORKERS


def freeze_ingest(
    db: PointDB, files: Sequence[Path], criteria: Criteria, *, workers: int
) -> Ingest:
    """Freeze granules into batches, or load what another process froze for the same call.

    Parameters
    ----------
    db : PointDB
        The point DB that they are added to.
    files : sequence of Path
        Granules.
    criteria : Criteria
        Which points go in.
    workers : int
        Expected number of workers.

    Returns
    -------
    Ingest

    Raises
    ------
    InvalidValue
        The memory is too little.
    UnwritablePath
        The point DB cannot be written.
    """
    points_within(criteria.memory, len(db.columns))
    # Workers may be started in other directories.
    files = [file.absolute() for file in files]
    stats = [_stat(file) for file in files]
    directory = db.path / "ingests" / _digest(files, stats, criteria)
    # It appears whole: one that another process makes after this look is not taken for a damaged one.
    if os.path.lexists(directory):
        try:
            return Ingest.load(directory)
        except DamagedFile:
            set_aside(directory)
    sizes = np.array([size for size, _ in stats])
    batches = _batches(files, sizes, criteria, workers, len(db.columns))
    _write(directory, files, sizes, batches, criteria)
    return Ingest.load(directory)


def _stat(file: Path) -> tuple[int, int]:
    """Return size and time of change; zeros for a file that cannot be found, which its reader reports."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _digest(files: Sequence[Path], stats: Sequence[tuple[int, int]], criteria: Criteria) -> str:
    digest = hashlib.sha256(json.dumps(_frozen(criteria), sort_keys=True).encode())
    # A mapping or an elevation model that is changed in place makes another ingest, too.
    for name in sorted(_FILES):
        path = getattr(criteria, name)
        digest.update(repr(path and _stat(path)).encode())
    # By size and time, not by content: reading all content would take as long as the ingest.
    for file, stat in zip(files, stats, strict=True):
        digest.update(f"{file}\0{stat}\0".encode())
    return digest.hexdigest()[:16]


def _frozen(criteria: Criteria) -> dict[str, Any]:
    frozen = {name: value for name, value in asdict(criteria).items() if value is not None}
    frozen["surface_types"] = sorted(criteria.surface_types)
    frozen |= {name: str(frozen[name].absolute()) for name in _FILES & frozen.keys()}
    return frozen


def _batches(
    files: Sequence[Path],
    sizes: np.ndarray[Any, Any],
    criteria: Criteria,
    workers: int,
    extra: int,
) -> np.ndarray[Any, Any]:
    """Divide files into batches of neighbours of equal duration, estimated from the sizes of files.

    Parameters
    ----------
    files : sequence of Path
        Granules.
    sizes : ndarray, shape (files,)
        Bytes of each.
    criteria : Criteria
        Which points go in, and memory.
    workers : int
        Expected number of workers.
    extra : int
        Number of extra columns of the point DB.

    Returns
    -------
    ndarray, shape (files,)
        Batch of each file.
    """
    points = sizes * _points_per_byte(files, criteria)
    most = points_within(criteria.memory, extra)
    # Enough batches that workers end together, but none so small that its commit takes longer than its points.
    wanted = min(workers * BATCHES_A_WORKER if workers > 1 else 1, points.sum() / LEAST_POINTS)
    count = ceil(max(wanted, SPARE * points.sum() / most, len(files) / BATCH_GRANULES))
    effort = points + POINTS_PER_GRANULE
    # The middle of each granule if all efforts lie in a row.
    middle = (np.cumsum(effort) - effort / 2) / effort.sum()
    numbers = np.unique((middle * count).astype(np.int64), return_inverse=True)[1]
    # A batch's number is its place in the list: costliest first.
    order = np.argsort(-np.bincount(numbers, weights=sizes), kind="stable")
    ranks: np.ndarray[Any, Any] = np.argsort(order)[numbers]
    return ranks


def _points_per_byte(files: Sequence[Path], criteria: Criteria) -> float:
    """Return the points per byte of some granules, which are read."""
    if len(files) == 1:
        return POINTS_PER_BYTE
    mapping = None if criteria.mapping is None else ColumnMapping.load(criteria.mapping)
    points = bytes_read = 0
    for file in spread_out(files, SAMPLED):
        size, _ = _stat(file)
        if size * POINTS_PER_BYTE > LEAST_POINTS:
            # Reading a large file takes too long.
            continue
        try:
            points += len(
                read_granule(file, surface_types=criteria.surface_types, mapping=mapping).points
            )
            bytes_read += size
        except GranuleError:
            continue
    return points / bytes_read if points else POINTS_PER_BYTE


def _write(
    directory: Path,
    files: Sequence[Path],
    sizes: np.ndarray[Any, Any],
    batches: np.ndarray[Any, Any],
    criteria: Criteria,
) -> None:
    """Make the directory, whole or not at all; one that another process made meanwhile is kept."""
    order = np.argsort(batches, kind="stable")
    table = pa.table(
        {
            "path": pa.array([str(files[at]) for at in order], pa.string()),
            "bytes": pa.array(sizes[order], pa.int64()),
            "batch": pa.array(batches[order], pa.int32()),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=1 << 14)
    content = sink.getvalue().to_pybytes()
    frozen = {
        "format": FORMAT,
        "cryotile_version": cryotile.__version__,
        "granules": hashlib.sha256(content).hexdigest(),
        "uuid": uuid.uuid4().hex,
        "criteria": _frozen(criteria),
    }
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(6)}.tmp")
    with writing(directory):
        make_way(directory.parent, directory=True)
        try:
            for name in ("done", "failed", "journal"):
                (temporary / name).mkdir(parents=True)
            (temporary / GRANULES).write_bytes(content)
            checksum = checksum_of_values(frozen, but=_EDITABLE)
            write_text(temporary / FILE_NAME, tomli_w.dumps({"checksum": checksum, **frozen}))
            temporary.rename(directory)
            fsync(directory.parent)
        except OSError:
            # Another process was faster and froze the same: the digest in the name covers all settings.
            if not (directory / FILE_NAME).exists():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def report_of(
    ingest: Ingest, share: Collection[int], before: Collection[str], shown: Mapping[str, str]
) -> IngestReport:
    """Report what has become of batches.

    Parameters
    ----------
    ingest : Ingest
        All batches.
    share : collection of int
        The batches that this process answers for.
    before : collection of str
        Checksums of the files that the point DB had when this process began.
    shown : mapping of str to str
        Path → the same path as the user wrote it.
    """
    # A point DB that was repaired may have lost the granules of a batch that had been done.
    there = set(PointDB(ingest.db_path).checksums())
    taken = {
        index: each if each is not None and there.issuperset(each.checksums) else None
        for index, each in ((index, ingest.taken(index)) for index in sorted(share))
    }
    done = [each for each in taken.values() if each is not None]
    # What earlier calls did is not reported again.
    new_batches = [each for each in done if not each.is_in(before)]
    files = [pair for each in done for pair in zip(each.checksums, each.ids, strict=True)]
    new = {checksum: id for checksum, id in files if checksum not in before}
    granules = PointDB(ingest.db_path).granules
    added = granules[granules["checksum"].isin(list(new))]
    notes: dict[str, list[str]] = {}
    noted = [(note, names) for each in done for note, names in each.notes.items()]
    noted += [
        (note, [name])
        for name, own in zip(added["name"], added["notes"], strict=True)
        for note in own
    ]
    for note, names in noted:
        notes.setdefault(note, []).extend(names)
    dropped: Counter[str] = Counter()
    for reasons in added["dropped"]:
        dropped.update(reasons)
    already_there = dropped.pop(ALREADY_THERE, 0)
    return IngestReport(
        path=ingest.db_path,
        added=tuple(new.values()),
        present=len(files) - len(new),
        points=int(added["rows"].sum()),
        records=int(added["record_count"].sum()),
        granules=sum(ingest.sizes[index] for index in share),
        dropped=dropped,
        notes={note: tuple(names) for note, names in notes.items()},
        problems=tuple(
            line.replace(path, shown.get(path, path)) for t in done for path, line in t.problems
        ),
        unfinished=_unfinished(ingest, [i for i, each in taken.items() if each is None], share),
        replaced=tuple(name for each in new_batches for name in each.replaced),
        refused=sum(each.refused for each in done),
        older=sum(each.older for each in done),
        overlapping=int(added["overlaps"].map(len).gt(0).sum()),
        already_there=already_there,
    )


def _unfinished(ingest: Ingest, missing: Sequence[int], share: Collection[int]) -> str:
    """Return why batches of a share are missing, and what to do, in one line; empty if none is."""
    if not missing:
        return ""
    failed = ingest.failed()
    errors = [failed[index] for index in missing if index in failed]
    why = (
        f" (the first: {last_line(errors[0])}); put failed ones back, and give the same command again:"
        f" {command('retry', ingest.path)}"
        if errors
        else "; the same command goes on"
    )
    return f"{len(missing):,} of {len(share):,} batches did not go in{why}"
