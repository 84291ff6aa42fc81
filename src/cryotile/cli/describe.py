"""``cryotile info``: a point DB, a run, a granule or a product in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cryotile.cli.screen import counted, dropped_lines, number
from cryotile.errors import InvalidValue, command

if TYPE_CHECKING:
    from cryotile.pointdb import PointDB
    from cryotile.points import Granule
    from cryotile.readers import ColumnMapping

__all__ = ["describe"]

PASSES_SHOWN = 20
"""Number of passes shown; a table may hold years."""

ROWS_AT_ONCE = 500_000
"""Rows of a table read at once, because it may not fit into memory."""

COMMITS_SHOWN = 10
"""Number of commits shown; PointDB.history returns all."""


def describe(path: Path, *, mapping: ColumnMapping | None = None) -> Iterator[str]:
    """Yield the lines that describe a path.

    Parameters
    ----------
    path : Path
        A point DB, a run, a granule or a product.
    mapping : ColumnMapping or None
        The path is a table with these columns.

    Yields
    ------
    str
        Text for a person.

    Raises
    ------
    CryotileError
        The path does not exist, or is not one of the four.
    """
    if not path.exists():
        raise InvalidValue(f"{path} does not exist; give a point DB, a run, a granule or a product")
    if (path / "cryotile.json").exists():
        return _point_db(path)
    if (path / "run.toml").exists():
        return _run(path)
    if path.is_dir():
        raise InvalidValue(
            f"{path} is a directory that cryotile did not make; give a point DB, a run, a granule or a product"
        )
    return _file(path, mapping)


def _point_db(path: Path) -> Iterator[str]:
    from cryotile.pointdb import PointDB

    db = PointDB(path)
    granules, squares = db.granules, db.squares()
    yield f"point DB     {path}, {db.crs_text}, chunks of {db.chunk_size / 1000:g} km, commit {db.snapshot}"
    yield f"granules     {number(len(granules))}"
    yield f"points       {number(squares['count'].sum())}{_simulated(db.simulated())}"
    if squares.empty:
        return
    yield f"extent       {_extent(squares)} m (x_min y_min x_max y_max, to 5 km)"
    yield f"time         {squares['time_min'].min():%Y-%m-%d %H:%M} to {squares['time_max'].max():%Y-%m-%d %H:%M} UTC"
    kinds = (
        squares.astype({"platform": str, "mode": str})
        .groupby(["platform", "mode"], as_index=False)["count"]
        .sum()
    )
    for platform, mode, count in zip(kinds["platform"], kinds["mode"], kinds["count"], strict=True):
        yield f"  {platform:10} {mode:12} {number(count):>14}"
    if db.columns:
        yield f"extra      {', '.join(db.columns)}"
    dropped: Counter[str] = Counter()
    for reasons in granules["dropped"]:
        dropped.update(reasons)
    yield from dropped_lines(dropped)
    yield from _history(db)


def _simulated(share: float) -> str:
    """Return what is said behind the number of points."""
    if share in (0.0, 1.0):
        return ", all simulated" if share else ""
    return f", of them {100 * share:.2g} % simulated and the others real"


def _history(db: PointDB) -> Iterator[str]:
    history = db.history(last=COMMITS_SHOWN)
    yield f"history      snapshot, when (UTC), what; the newest {len(history)} of {db.snapshot}"
    for commit in history.to_dict("records"):
        what = f"{counted(commit['added'], 'granule')} in, {number(commit['removed'])} out"
        what = "compacted" if commit["compaction"] else what
        ended = "" if commit["available"] else ", ended by a compaction"
        yield f"  {commit['snapshot']:>10} {commit['time']:%Y-%m-%d %H:%M}  {what}{ended}"


def _extent(squares: pd.DataFrame) -> str:
    from cryotile.pointdb import SQUARE_SIZE

    low, high = squares[["x_min", "y_min"]].min(), squares[["x_min", "y_min"]].max() + SQUARE_SIZE
    return " ".join(f"{edge:.0f}" for edge in (*low, *high))


def _run(path: Path) -> Iterator[str]:
    from cryotile.pointdb import PointDB
    from cryotile.runs.run import Run

    run = Run.load(path)
    ny, nx = run.settings.grid.shape
    yield f"run          {path}, uuid {run.uuid}, task list {run.generation}"
    now = PointDB(run.db_path).snapshot if run.db_path.exists() else run.snapshot
    grown = f"; it is at commit {now} now" if now != run.snapshot else ""
    yield f"point DB     {run.db_path} as of commit {run.snapshot}{grown}"
    yield f"posts        {number(nx)} x {number(ny)} every {run.settings.grid.posting:g} m in {run.settings.grid.crs}"
    yield f"tiles        {number(len(run.tasks))} with points; status: {command('status', path)}"


def _file(path: Path, mapping: ColumnMapping | None) -> Iterator[str]:
    from cryotile.maps.product import summarize_product
    from cryotile.readers import is_table, read_granule, table_reader

    summary = summarize_product(path) if mapping is None else None
    if summary is not None:
        yield from summary
        return
    if not is_table(path, mapping):
        granule = read_granule(path)
        yield from _granule(granule, [granule])
        return
    pieces = table_reader(mapping).read_pieces(
        path,
        rows=ROWS_AT_ONCE,
        surface_types=("grounded_ice",),
        columns=(),
        seen=lambda: None,
    )
    yield from _granule(pieces.granule, pieces)


def _granule(granule: Granule, pieces: Iterable[Granule]) -> Iterator[str]:
    """Yield the lines that describe a granule, from pieces of which each has some of its points."""
    read = kept = 0
    dropped, kinds = Counter[str](), Counter[tuple[str, str]]()
    notes, passes, times = dict[str, None](), set[int](), list[pd.Timestamp]()
    for piece in pieces:
        points = piece.points
        read, kept = read + piece.record_count, kept + len(points)
        dropped.update(piece.dropped)
        notes |= dict.fromkeys(piece.notes)
        passes.update(points["pass_id"].unique().tolist())
        kinds.update(zip(points["platform"], points["mode"], strict=True))
        if len(points):
            times = [*times, points["time"].min(), points["time"].max()]
    baseline = f", baseline {granule.baseline}" if granule.baseline else ""
    yield f"granule      {granule.id}, {granule.product}{baseline}, version {granule.version}"
    mark = _simulated(1.0 if granule.simulated else 0.0)
    yield f"points       {number(read)} read, {number(kept)} kept{mark}"
    yield from dropped_lines(dropped)
    yield from notes
    if times:
        yield f"time         {min(times):%Y-%m-%d %H:%M:%S} to {max(times):%Y-%m-%d %H:%M:%S} UTC"
        more = (
            f" and {number(len(passes) - PASSES_SHOWN)} more" if len(passes) > PASSES_SHOWN else ""
        )
        yield f"passes       {', '.join(map(str, sorted(passes)[:PASSES_SHOWN]))}{more}"
        for (platform, mode), count in kinds.most_common():
            yield f"  {platform:10} {mode:12} {number(count):>14}"
