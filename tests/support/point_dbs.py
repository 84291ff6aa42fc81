"""Fill point DBs of tests, and list their fragments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

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


def same_points(one: PointDB, other: PointDB) -> None:
    """Check that two point DBs, opened afresh, have the same points and squares, bit for bit."""
    one, other = PointDB(one.path), PointDB(other.path)
    pd.testing.assert_frame_equal(one.read(), other.read(), check_exact=True)
    pd.testing.assert_frame_equal(one.squares(), other.squares(), check_exact=True)
