"""What a worker does with a batch of files: read, project, screen and append them within its share of memory."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from cryotile.batch import Batch
from cryotile.dem import Dem
from cryotile.errors import CryotileError, GranuleError, InvalidValue
from cryotile.pointdb import Appended, PointDB
from cryotile.points import Granule
from cryotile.projection import project_batch
from cryotile.readers import ColumnMapping, read_granule
from cryotile.where import Where

__all__ = ["FAR_FROM_DEM", "NOT_SELECTED", "Criteria", "Taken", "points_within", "take_in"]

log = logging.getLogger(__name__)

NOT_SELECTED = "not_selected"
"""Reason of points that the user's ``where`` leaves out."""

FAR_FROM_DEM = "far_from_dem"
"""Reason of points whose elevation differs too much from the DEM."""

WORKER_BYTES = 250e6
"""What a worker takes before it reads a point: Python, numpy, pandas, pyarrow, PROJ."""

BYTES_PER_POINT = 300.0
"""What it takes for each point that it holds: as read, as projected, as stored and as sorted; 220 were measured."""

BYTES_PER_COLUMN = 40.0
"""Likewise for each point and further column."""

LEAST_POINTS = 100_000
"""Points that there must be room for."""

MOST_POINTS = 4_000_000
"""Points of a commit; with more, fragments would be no better and an interruption lose more."""

NO_DEM_HERE = "none of its points lies where the DEM has a value, so it was not screened"


@dataclass(frozen=True)
class Criteria:
    """Which points of a granule go into a point DB, and how much memory a worker may take for it.

    Attributes
    ----------
    surface_types : tuple of str
        Surfaces to keep.
    where : str or None
        Further criterion.
    mapping : Path or None
        The files are tables, and this file names their columns.
    dem : Path or None
        Elevation model that points are compared with.
    max_dem_difference : float
        Largest distance from it that is believed, metres.
    memory : float
        Of a worker, bytes.
    """

    surface_types: tuple[str, ...] = ("grounded_ice",)
    where: str | None = None
    mapping: Path | None = None
    dem: Path | None = None
    max_dem_difference: float = 100.0
    memory: float = 2e9


@dataclass
class Taken:
    """What became of files.

    Attributes
    ----------
    ids : list of str
        Granules that the point DB has now.
    problems : list of (str, str)
        Path and one line of each file that did not go in; no path where only the granule is known.
    notes : dict of str to list of str
        What a user should know → names of the granules that it is true of.
    """

    ids: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def count(self, appended: Appended) -> None:
        """Add what one commit brought."""
        self.ids += [*appended.added, *appended.unchanged]
        self.problems += [("", line) for line in appended.refused.values()]
        for note, names in appended.notes.items():
            self.notes.setdefault(note, []).extend(names)
        for name in appended.replaced:
            self.notes.setdefault("made way for a newer delivery", []).append(name)


def points_within(memory: float, further: int = 0) -> int:
    """Return how many points a worker may hold at once.

    Parameters
    ----------
    memory : float
        Bytes of the worker.
    further : int
        Number of further columns.

    Raises
    ------
    InvalidValue
        That is too little to read anything.
    """
    each = BYTES_PER_POINT + BYTES_PER_COLUMN * further
    points = (memory - WORKER_BYTES) / each
    if not points >= LEAST_POINTS:
        least = (WORKER_BYTES + LEAST_POINTS * each) / 1e6
        raise InvalidValue(
            f"memory {memory / 1e6:.0f} MB is too little for a worker, which takes {WORKER_BYTES / 1e6:.0f} MB before"
            f" it reads a point; give {least:.0f}MB or more"
        )
    return int(min(points, MOST_POINTS))


def take_in(
    files: Sequence[Path], db: PointDB, criteria: Criteria, progress: Callable[[float], None]
) -> Taken:
    """Read files and commit their points; what is committed stays, whatever comes after.

    Parameters
    ----------
    files : sequence of Path
        Granules.
    db : PointDB
        Where they go.
    criteria : Criteria
        Which points, and how much memory.
    progress : callable
        Told the fraction done.

    Returns
    -------
    Taken
        What became of them.

    Raises
    ------
    CryotileError
        The point DB cannot be written or is damaged, or the DEM cannot be read.
    """
    intake = _Intake(db, criteria)
    limit = points_within(criteria.memory, len(db.columns))
    waiting, held = list[Granule](), 0
    for granule in intake.read(files, progress):
        if waiting and held + len(granule.points) > limit:
            intake.append(waiting)
            waiting, held = [], 0
        waiting.append(granule)
        held += len(granule.points)
    if waiting:
        intake.append(waiting)
    return intake.taken


class _Intake:
    """A point DB, what goes into it, and what became of the files so far."""

    def __init__(self, db: PointDB, criteria: Criteria) -> None:
        self._db, self._criteria = db, criteria
        where, mapping, dem = criteria.where, criteria.mapping, criteria.dem
        self._where = None if where is None else Where.parse(where, columns=db.column_names)
        self._mapping = None if mapping is None else ColumnMapping.load(mapping)
        self._dem = None if dem is None else Dem(dem, db.crs)
        self.taken = Taken()

    def read(self, files: Sequence[Path], progress: Callable[[float], None]) -> Iterator[Granule]:
        """Yield the granules that the point DB does not have yet; note those that it has, and the bad ones."""
        there = self._db.checksums()
        for done, file in enumerate(files):
            progress(0.8 * done / len(files))
            try:
                if there and (id := there.get(_checksum(file))) is not None:
                    self.taken.ids.append(id)
                    continue
                _refuse_giants(file, self._criteria.memory)
                yield read_granule(
                    file,
                    surface_types=self._criteria.surface_types,
                    columns=self._db.columns,
                    mapping=self._mapping,
                )
            except CryotileError as error:
                log.debug("granule %s failed", file, exc_info=True)
                self.taken.problems.append((str(file), str(error)))

    def append(self, granules: list[Granule]) -> None:
        """Project, screen and commit granules at once; the list is empty afterwards."""
        batch = project_batch(Batch.of(granules), self._db.crs)
        # The points as read are not needed any more; without this they would take memory until the end.
        granules.clear()
        if self._where is not None:
            batch = batch.keep(self._where.mask(batch.points), NOT_SELECTED)
        if self._dem is not None:
            batch = self._screened(batch, self._dem)
        self.taken.count(self._db.append(batch))

    def _screened(self, batch: Batch, dem: Dem) -> Batch:
        above = dem.difference(batch.points)
        known = np.bincount(batch.owners[~np.isnan(above)], minlength=len(batch.sizes))
        unscreened = zip(batch.granules, batch.sizes, known, strict=True)
        names = [granule.name for granule, size, seen in unscreened if size and not seen]
        if names:
            self.taken.notes.setdefault(NO_DEM_HERE, []).extend(names)
        # Compared this way round, what has no DEM stays.
        return batch.keep(~(np.abs(above) > self._criteria.max_dem_difference), FAR_FROM_DEM)


def _checksum(file: Path) -> str:
    with suppress(OSError), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
    return ""


def _refuse_giants(file: Path, memory: float) -> None:
    """Refuse a granule that cannot be read within the memory: a granule is read as a whole."""
    # At most as dense as 8 bytes a record; below that it fits in any case, and is not looked into.
    if not file.exists() or file.stat().st_size / 8 * BYTES_PER_POINT < memory - WORKER_BYTES:
        return
    records = _records(file)
    needed = WORKER_BYTES + records * BYTES_PER_POINT
    if needed > memory:
        raise GranuleError(
            f"granule {file} has some {records:,} records, for which a worker needs {needed / 1e6:.0f} MB, and it may"
            f" take {memory / 1e6:.0f} MB; give --memory {needed / 1e6:.0f}MB or more"
        )


def _records(file: Path) -> int:
    """Return about how many records a granule has: the longest variable of each group, but 30 bytes a line of text."""
    if not h5py.is_hdf5(file):
        return file.stat().st_size // 30
    longest: dict[str, int] = {}

    def look(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "iuf":
            group = name.rpartition("/")[0].partition("/")[0]
            longest[group] = max(longest.get(group, 0), node.size)

    with suppress(OSError, RuntimeError, KeyError), h5py.File(file, "r", locking=False) as source:
        source.visititems(look)
    return sum(longest.values())
