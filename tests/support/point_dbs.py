"""Fill point DBs of tests, and list their fragments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cryotile.pointdb import PointDB
from cryotile.pointdb.log import Log
from cryotile.points import Granule


def filled(
    path: Path,
    *batches: Sequence[Granule],
    chunk_size: float = 100e3,
    columns: Iterable[str] = (),
) -> PointDB:
    """Create a point DB in EPSG:3031 with one commit for each batch of granules."""
    db = PointDB.create(path, "EPSG:3031", chunk_size=chunk_size, columns=columns)
    for batch in batches:
        db.append(batch)
    return db


def fragment_files(db: PointDB) -> set[str]:
    """Return the fragments on the disk, as paths relative to the point DB."""
    return {path.relative_to(db.path).as_posix() for path in db.path.rglob("chunks/**/*.parquet")}


def named_fragments(db: PointDB) -> set[str]:
    """Return the fragments that the newest snapshot names, as paths relative to the point DB."""
    return set(Log(db.path / "log").load().fragments["path"].to_pylist())
