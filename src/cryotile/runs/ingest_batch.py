"""Work on one batch of files: read, project, screen and append them within a worker's memory; report the result."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cryotile.errors import CryotileError, GranuleError, IncompleteIngest, InvalidValue
from cryotile.geo.dem import Dem
from cryotile.geo.projection import project_batch, project_granule
from cryotile.points import SURFACE_TYPES, Batch, Granule, InPieces, ReprMixin
from cryotile.readers import ColumnMapping, is_table, read_granule, table_reader
from cryotile.selection import Where

if TYPE_CHECKING:
    from cryotile.pointdb import Appended, PointDB

__all__ = [
    "FAR_FROM_DEM",
    "NOT_SELECTED",
    "Criteria",
    "IngestReport",
    "Taken",
    "memory_of",
    "points_within",
    "take_in",
]

log = logging.getLogger(__name__)

NOT_SELECTED = "not_selected"
"""Reason for points that the ``where`` of the user leaves out."""

FAR_FROM_DEM = "far_from_dem"
"""Reason for points whose elevation differs too much from the DEM."""

WORKER_BYTES = 250e6
"""Memory of a worker before it reads a point: Python, numpy, pandas, pyarrow, PROJ."""

BYTES_PER_POINT = 300.0
"""Memory for each point that it holds: as read, projected, stored and sorted; 220 were measured."""

BYTES_PER_COLUMN = 40.0
"""Memory for each point and extra column."""

BYTES_PER_ROW = 800.0
"""Memory for each row of a piece of a table, held until its points are written; 670 were measured."""

LEAST_POINTS = 100_000
"""Points that must fit into memory."""

MOST_POINTS = 4_000_000
"""Most points of a commit; with more, fragments are no better and an interruption loses more."""

READING = 0.8
"""Share of the time of a batch in which its files are read; then their points are written."""

NO_DEM_HERE = "none of its points lies where the DEM has a value, so it was not screened"


@dataclass(frozen=True)
class Criteria:
    """Which points of a granule go into a point DB, and the memory of a worker.

    Attributes
    ----------
    surface_types : tuple of str
        Surfaces to keep.
    where : str or None
        Expression that points must satisfy.
    mapping : Path or None
        File that names the columns of files that are tables.
    dem : Path or None
        Elevation model that points are compared with.
    max_dem_difference : float
        Largest distance from it, metres; points beyond it are dropped.
    memory : float
        Memory of a worker, bytes.
    """

    surface_types: tuple[str, ...] = ("grounded_ice",)
    where: str | None = None
    mapping: Path | None = None
    dem: Path | None = None
    max_dem_difference: float = 100.0
    memory: float = 2e9

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.surface_types).difference(SURFACE_TYPES)):
            raise InvalidValue(
                f"surface type {unknown[0]!r} does not exist; choose from {', '.join(SURFACE_TYPES)}"
            )


@dataclass
class Taken:
    """Result of a batch of files.

    Attributes
    ----------
    ids : list of str
        Granules that are in the point DB now.
    checksums : list of str
        Of their files, in the same order: one granule may come in several files.
    problems : list of (str, str)
        Path and one line for each file that could not be added; empty path if only the granule is known.
    notes : dict of str to list of str
        Note → names of the granules that it is about.
    replaced : list of str
        Names of older deliveries that newer ones have replaced.
    refused, older : int
        How many of the problems are deliveries that contradict what the point DB has, and older ones.
    """

    ids: list[str] = field(default_factory=list)
    checksums: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    refused: int = 0
    older: int = 0

    def count(self, appended: Appended) -> None:
        """Add the result of one commit."""
        self.ids += [*appended.added, *appended.unchanged]
        self.checksums += appended.checksums
        self.problems += [("", line) for line in appended.refused.values()]
        self.replaced += appended.replaced
        self.refused += len(appended.refused) - len(appended.older)
        self.older += len(appended.older)
        for note, names in appended.notes.items():
            self.notes.setdefault(note, []).extend(names)

    def is_in(self, there: Collection[str]) -> bool:
        """Tell whether all files are among those with the checksums ``there``."""
        # A batch with a problem is not done: the file may be corrected by the next time.
        return not self.problems and all(checksum in there for checksum in self.checksums)


def memory_of(size: float | str) -> float:
    """Return a size of memory in bytes.

    Parameters
    ----------
    size : float or str
        Bytes, or a text such as ``800MB`` or ``2 GB``.

    Raises
    ------
    InvalidValue
        It is neither.
    """
    if isinstance(size, float | int):
        return size
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([kMGT]?)i?B?", str(size).strip(), re.IGNORECASE)
    if match is None or not float(match[1]) > 0:
        raise InvalidValue(f"memory {size!r} is not a size; write e.g. 800MB or 2GB")
    return float(match[1]) * 1000.0 ** " kmgt".index(match[2].lower() or " ")


def points_within(memory: float, extra: int = 0) -> int:
    """Return how many points fit into the memory of a worker.

    Parameters
    ----------
    memory : float
        Memory of the worker, bytes.
    extra : int
        Number of extra columns.

    Raises
    ------
    InvalidValue
        The memory is too small to read anything.
    """
    each = BYTES_PER_POINT + BYTES_PER_COLUMN * extra
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
    """Read files and commit their points; commits stay, whatever happens later.

    Parameters
    ----------
    files : sequence of Path
        Granules.
    db : PointDB
        The point DB that they are added to.
    criteria : Criteria
        Which points, and memory.
    progress : callable
        Called with the fraction done, by bytes.

    Returns
    -------
    Taken
        Result of the files.

    Raises
    ------
    CryotileError
        The point DB cannot be written or is damaged, or the DEM cannot be read.
    """
    ingest_batch = _IngestBatchState(db, criteria, progress)
    limit = points_within(criteria.memory, len(db.columns))
    waiting, held = list[Granule](), 0
    for granule in ingest_batch.read(files):
        size = limit if isinstance(granule, Path) else len(granule.points)
        if waiting and held + size > limit:
            ingest_batch.append(waiting)
            waiting, held = [], 0
        if isinstance(granule, Path):
            ingest_batch.append_long(granule)
        else:
            waiting.append(granule)
            held += size
    if waiting:
        ingest_batch.append(waiting)
    return ingest_batch.taken


class _IngestBatchState:
    """A point DB, the criteria of an ingest, and the result so far."""

    def __init__(self, db: PointDB, criteria: Criteria, progress: Callable[[float], None]) -> None:
        self._db, self._criteria, self._progress = db, criteria, progress
        where, mapping, dem = criteria.where, criteria.mapping, criteria.dem
        self._where = None if where is None else Where.parse(where, columns=db.column_names)
        self._mapping = None if mapping is None else ColumnMapping.load(mapping)
        self._dem = None if dem is None else Dem(dem, db.crs)
        self._done = self._share = 0.0
        self.taken = Taken()

    def read(self, files: Sequence[Path]) -> Iterator[Granule | Path]:
        """Yield the granules that are not in the point DB yet; note those that are, and files with problems.

        Of a table that does not fit into memory, yield only the path.
        """
        there = self._db.checksums()
        sizes = [_size(file) for file in files]
        for file, size in zip(files, sizes, strict=True):
            self._done, self._share = self._done + self._share, READING * size / sum(sizes)
            self._tell(0.0)
            try:
                checksum = _checksum(file) if there else ""
                if (id := there.get(checksum)) is not None:
                    self.taken.ids.append(id)
                    self.taken.checksums.append(checksum)
                elif self._is_long(file):
                    yield file
                else:
                    yield read_granule(
                        file,
                        surface_types=self._criteria.surface_types,
                        columns=self._db.columns,
                        mapping=self._mapping,
                    )
            except CryotileError as error:
                self._note_problem(file, error)

    def append(self, granules: list[Granule]) -> None:
        """Project, screen and commit granules at once; the list is empty afterwards."""
        batch = Batch.of(granules)
        # Free the points as read, which are not needed any more.
        granules.clear()
        batch, unscreened = self._selected(batch)
        if unscreened:
            self.taken.notes.setdefault(NO_DEM_HERE, []).extend(unscreened)
        self.taken.count(self._db.append(batch))

    def append_long(self, file: Path) -> None:
        """Read a table twice, in pieces: for its identity, and to project, screen and write its points."""
        rows = _rows_within(self._criteria.memory, len(self._db.columns))
        unscreened = list[bool]()
        total, read, is_first = max(_records(file), 1), 0, True

        def seen() -> None:
            # Keeps the lease alive, too.
            nonlocal read
            read += rows
            self._tell((0.0 if is_first else 0.5) + 0.5 * min(read / total, 1.0))

        def batches() -> Iterator[Batch]:
            nonlocal read, total, is_first
            # The first reading has counted the rows.
            total, read, is_first = (read if is_first else total), 0, False
            unscreened.clear()
            for piece in pieces:
                batch, names = self._selected(Batch.of([piece]))
                unscreened.append(bool(names) or not batch.sizes.any())
                yield batch
                seen()

        try:
            pieces = table_reader(self._mapping).read_pieces(
                file,
                rows=rows,
                surface_types=self._criteria.surface_types,
                columns=self._db.columns,
                seen=seen,
            )
            granule = project_granule(pieces.granule, self._db.crs)
            self.taken.count(self._db.append(InPieces(granule, batches)))
        except (GranuleError, InvalidValue) as error:
            self._note_problem(file, error)
            return
        if self._dem is not None and all(unscreened):
            self.taken.notes.setdefault(NO_DEM_HERE, []).append(file.name)

    def _tell(self, fraction: float) -> None:
        """Report progress: the fraction of the file that is being read."""
        self._progress(self._done + self._share * fraction)

    def _note_problem(self, file: Path, error: CryotileError) -> None:
        log.debug("granule %s failed", file, exc_info=error)
        line = str(error) if str(file) in str(error) else f"granule {file}: {error}"
        self.taken.problems.append((str(file), line))

    def _is_long(self, file: Path) -> bool:
        """Return whether a file is a table that must be read in pieces.

        Raises
        ------
        GranuleError
            It does not fit into memory and is not a table: other granules are read as a whole.
        """
        memory = self._criteria.memory
        # A record takes 8 bytes or more; a file that fits at 8 bytes a record is not inspected.
        if _size(file) / 8 * BYTES_PER_ROW < memory - WORKER_BYTES:
            return False
        records = _records(file)
        if is_table(file, self._mapping):
            return records > _rows_within(memory, len(self._db.columns))
        needed = WORKER_BYTES + records * BYTES_PER_POINT
        if needed > memory:
            raise GranuleError(
                f"granule {file} has some {records:,} records, for which a worker needs {needed / 1e6:.0f} MB, and it"
                f' may take {memory / 1e6:.0f} MB; give memory="{needed / 1e6:.0f}MB" or more'
            )
        return False

    def _selected(self, batch: Batch) -> tuple[Batch, list[str]]:
        """Project points and drop unwanted ones; also return the granules that no DEM value could screen."""
        batch = project_batch(batch, self._db.crs)
        if self._where is not None:
            batch = batch.keep(self._where.mask(batch.points), NOT_SELECTED)
        if self._dem is None:
            return batch, []
        above = self._dem.difference(batch.points)
        known = np.bincount(batch.owners[~np.isnan(above)], minlength=len(batch.sizes))
        named = zip(batch.granules, batch.sizes, known, strict=True)
        unscreened = [granule.name for granule, size, seen in named if size and not seen]
        # Written so that points without a DEM value (NaN) stay.
        near = ~(np.abs(above) > self._criteria.max_dem_difference)
        return batch.keep(near, FAR_FROM_DEM), unscreened


def _size(file: Path) -> int:
    """Return the bytes of a file, at least 1."""
    # A file that cannot be opened is refused, with the reason, when it is read.
    with suppress(OSError):
        return max(file.stat().st_size, 1)
    return 1


def _checksum(file: Path) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read, which its reader reports."""
    with suppress(OSError), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
    return ""


def _rows_within(memory: float, extra: int) -> int:
    """Return how many rows of a table fit into the memory of a worker."""
    each = BYTES_PER_ROW + BYTES_PER_COLUMN * extra
    return int(min((memory - WORKER_BYTES) / each, MOST_POINTS))


def _records(file: Path) -> int:
    """Estimate the records of a granule: the longest variable of each group; 30 bytes a line of text."""
    if not h5py.is_hdf5(file):
        try:
            with file.open("rb") as stream:
                head = stream.read(4)
        except OSError:
            # Its reader refuses it, with the reason.
            return 0
        if head == b"PAR1":
            with suppress(OSError, pa.ArrowException):
                return int(pq.read_metadata(file).num_rows)
        return file.stat().st_size // (8 if head.startswith(b"\x1f\x8b") else 30)
    longest: dict[str, int] = {}

    def look(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "iuf":
            group = name.rpartition("/")[0].partition("/")[0]
            longest[group] = max(longest.get(group, 0), node.size)

    with suppress(OSError, RuntimeError, KeyError), h5py.File(file, "r", locking=False) as source:
        source.visititems(look)
    return sum(longest.values())


@dataclass(frozen=True, repr=False)
class IngestReport(ReprMixin):
    """What an ingest did, or the share of it that this process answers for.

    Attributes
    ----------
    path : Path
        The point DB.
    added : tuple of str
        Ids of the granules that were added; of a granule that came in several files, for each file.
    present : int
        Number of files that were in the point DB before.
    replaced : tuple of str
        Names of older deliveries that newer ones have replaced.
    refused : int
        Number of deliveries that were not added because they contradict what the point DB has: a newer one that covers
        only part of an older one, or the same version with other elevations.
    older : int
        Number of deliveries that were not added because the point DB has newer ones.
    overlapping : int
        Number of granules that were added without records that another granule of their product has.
    already_there : int
        Number of these records.
    points : int
        Points kept of the granules added.
    records : int
        Points read of them.
    dropped : mapping of str to int
        Reason → points of them that were dropped.
    notes : mapping of str to tuple of str
        Note → names of the granules that it is about.
    problems : tuple of str
        One line for each granule that is not in the point DB.
    granules : int
        Number of all granules of the share.
    unfinished : str
        One line if some batches were not done, else empty.
    """

    path: Path
    added: tuple[str, ...]
    present: int
    points: int
    records: int
    granules: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    unfinished: str = ""
    replaced: tuple[str, ...] = ()
    refused: int = 0
    older: int = 0
    overlapping: int = 0
    already_there: int = 0

    @property
    def events(self) -> Mapping[str, tuple[int, str]]:
        """What else became of granules → how many, and what that means; only of what happened."""
        events = {
            "replaced": (len(self.replaced), "by a newer baseline or version"),
            "overlapping": (
                self.overlapping,
                f"{self.already_there:,} of their records were there already, and count once",
            ),
            "older": (self.older, "than what the point DB has, so not put in; leave them out"),
            "refused": (
                self.refused,
                "since the point DB has a larger part or other content of the granule; see the remedy of each",
            ),
        }
        return {name: event for name, event in events.items() if event[0]}

    def check(self) -> None:
        """Raise an error if some granule is not in the point DB.

        Raises
        ------
        IncompleteIngest
            With a line for each granule that could not be added.
        """
        if self.unfinished:
            raise IncompleteIngest(self.unfinished, self.problems)
        if self.problems:
            granules = f"{self.granules:,} granule{'s' * (self.granules != 1)}"
            raise IncompleteIngest(
                f"{len(self.problems):,} of {granules} did not go in: {self._remedy}",
                self.problems,
            )

    @property
    def _remedy(self) -> str:
        if len(self.problems) > self.older:
            return "repair them or leave them out, then ingest again"
        return "they are older than what the point DB has; leave them out"

    def _facts(self) -> Mapping[str, str]:
        """Return the lines of ``repr``."""
        facts = {
            "path": str(self.path),
            "granules": f"{len(self.added):,} added, {self.present:,} there already, {len(self.problems):,} not added",
            "points": f"{self.points:,} of {self.records:,} kept",
        }
        facts |= {name: f"{count:,} {meaning}" for name, (count, meaning) in self.events.items()}
        facts |= {f"dropped: {reason}": f"{n:,}" for reason, n in self.dropped.items() if n}
        facts |= {f"note on {len(names):,}": note for note, names in self.notes.items()}
        facts |= {f"problem {n}": line for n, line in enumerate(self.problems[:5], start=1)}
        return facts | ({"unfinished": self.unfinished} if self.unfinished else {})
