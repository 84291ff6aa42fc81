"""``cryotile info``: what a path is, in words, and which command goes on from there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from cryotile.cli.screen import counted, dropped_lines, number
from cryotile.errors import DamagedFile, GranuleError, InvalidValue, MissingDependency, command
from cryotile.maps.metadata import MARK
from cryotile.maps.product import is_product, summarize_product
from cryotile.maps.unknown import unknowns

if TYPE_CHECKING:
    from cryotile.pointdb import PointDB
    from cryotile.points import Granule
    from cryotile.readers import ColumnMapping

__all__ = ["describe", "facts", "lead_on"]

PASSES_SHOWN = 20
"""Number of passes shown; a table may hold years."""

ROWS_AT_ONCE = 500_000
"""Rows of a table read at once, because it may not fit into memory."""

LOOKED_INTO = 200
"""Number of entries of a directory that are opened; of granules there may be thousands."""

COMMITS_SHOWN = 10
"""Number of commits shown; PointDB.history returns all."""


class Kind(StrEnum):
    """What a path is, as far as its first bytes or the names in it tell."""

    POINT_DB = "point DB"
    RUN = "run"
    INGEST = "ingest"
    VALIDATION = "validation"
    DIRECTORY = "directory"
    PRODUCT = "product"
    GEOTIFF = "GeoTIFF"
    OTHER = "file"

    @classmethod
    def of(cls, path: Path) -> Kind:
        """Return the kind of a path that exists."""
        for name, kind in _MARKS.items():
            if (path / name).exists():
                return kind
        if path.is_dir() and not is_product(path):
            return (
                cls.VALIDATION if _of_a_run(path) and path.name == "validation" else cls.DIRECTORY
            )
        if is_product(path):
            return cls.PRODUCT
        with path.open("rb") as stream:
            first = stream.read(4)
        return cls.GEOTIFF if first in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") else cls.OTHER


_MARKS = {
    "cryotile.json": Kind.POINT_DB,
    "run.toml": Kind.RUN,
    "ingest.toml": Kind.INGEST,
    "validation.json": Kind.VALIDATION,
}


def _of_a_run(path: Path) -> bool:
    return (path.absolute().parent / "run.toml").exists()


def lead_on(path: Path) -> str | None:
    """Return what a path is that cannot be drawn, and which command goes on from there; None if it is a product."""
    if not path.exists():
        return f"{path} does not exist; give a product in NetCDF, or make one with: {_ASSEMBLE}"
    match kind := Kind.of(path):
        case Kind.PRODUCT | Kind.RUN:
            return None
        case Kind.POINT_DB:
            run = command("plan", "RUN", "--db", path)
            return f"{path} is a point DB, not a product; plan a run over it with: {run}"
        case Kind.INGEST | Kind.DIRECTORY:
            what = "an ingest" if kind == Kind.INGEST else "a directory"
            return (
                f"{path} is {what}, not a product; see what it holds with: {command('info', path)}"
            )
        case Kind.VALIDATION:
            return f"{path} holds the maps of a validation; see which with: {command('info', path)}"
        case Kind.GEOTIFF:
            return f"{path} is a GeoTIFF, which map programs draw; make the product in NetCDF, too: {_ASSEMBLE}"
    return _other(path)


_ASSEMBLE = command("assemble", "RUN", "-o", "dhdt.nc")


def _other(path: Path) -> str:
    product = _product_of(path)
    if not product:
        return f"{path} is not a product of cryotile; make one with: {_ASSEMBLE}"
    return (
        f"{path} is a granule ({product}), not a product; describe it with: {command('info', path)}"
    )


def _product_of(path: Path) -> str:
    """Return the name of the product that a file is a granule of; empty if it is none that a reader knows."""
    from cryotile.readers import find_reader

    try:
        return find_reader(path).product
    except GranuleError:
        return ""


def describe(path: Path, *, mapping: ColumnMapping | None = None) -> Iterator[str]:
    """Yield the lines that describe a path.

    Parameters
    ----------
    path : Path
        Anything that cryotile makes or reads.
    mapping : ColumnMapping or None
        The path is a table with these columns.

    Yields
    ------
    str
        Text for a person.

    Raises
    ------
    CryotileError
        The path does not exist, or holds nothing that cryotile makes or reads.
    """
    if not path.exists():
        raise InvalidValue(f"{path} does not exist; give a point DB, a run, a granule or a product")
    match Kind.of(path):
        case Kind.POINT_DB:
            return _point_db(path)
        case Kind.RUN:
            return _run(path)
        case Kind.INGEST:
            return _ingest(path)
        case Kind.VALIDATION:
            return _validation(path)
        case Kind.DIRECTORY:
            return _directory(path)
        case Kind.GEOTIFF:
            return _geotiff(path)
        case Kind.PRODUCT if mapping is None:
            return _product(path)
        case _:
            return _file(path, mapping)


def _ingest(path: Path) -> Iterator[str]:
    from cryotile.runs.ingest import Ingest

    ingest = Ingest.load(path)
    yield f"ingest       {path}, into {ingest.db_path}"
    yield f"batches      {number(len(ingest.tasks))}; status: {command('status', path)}"
    yield f"granules     {ingest.saved()}"


def _validation(path: Path) -> Iterator[str]:
    from cryotile.fit.groups import MAPPED

    yield f"validation   {path}, of the run {path.absolute().parent}"
    for product in sorted(path.glob("*.nc")):
        yield f"  {command('info', product)}"
        if product.stem in MAPPED:
            yield f"  {command('plot', product, MAPPED[product.stem])}"
    if not (path / "validation.json").exists():
        yield f"  not finished; go on with: {command('validate', path.absolute().parent)}"


def _directory(path: Path) -> Iterator[str]:
    from cryotile.readers import granules_under

    places = sorted(path.iterdir())[:LOOKED_INTO]
    own = [(kind, place) for place in places if (kind := Kind.of(place)) in _SHOWN_WITHIN]
    files = [file for file in granules_under(path)[0] if (Kind.PRODUCT, file) not in own]
    granule = next((file for file in files[:LOOKED_INTO] if _product_of(file)), None)
    if not own and granule is None:
        raise InvalidValue(
            f"{path} is a directory without a file that cryotile makes or reads; give a point DB, a run, a granule or"
            " a product"
        )
    yield f"directory    {path}"
    for kind, place in own:
        yield f"  {kind:12} {command('info', place)}"
    if granule is not None:
        files = [file for file in files if file.suffix == granule.suffix]
        yield f"  {counted(len(files), 'file')} that may be granules; describe one, or add all to a point DB:"
        yield f"  {command('info', granule)}"
        yield f"  {command('ingest', 'DB', os.path.commonpath([file.parent for file in files]))}"


_SHOWN_WITHIN = (Kind.POINT_DB, Kind.RUN, Kind.INGEST, Kind.VALIDATION, Kind.PRODUCT)


def _geotiff(path: Path) -> Iterator[str]:
    found = _geotiff_facts(path)
    about = found["attributes"]
    if MARK not in about:
        yield f"GeoTIFF      {path}, not made by cryotile; it may serve as --dem or --mask"
        yield f"pixels       {number(found['shape'][1])} x {number(found['shape'][0])} in {found['crs']}"
        return
    yield f"product      {path}, made by cryotile {about[MARK]}, as a GeoTIFF for other programs"
    yield from _map_lines(about, found["shape"])
    yield f"bands        {', '.join(name or '?' for name in found['bands'])}"
    yield f"             'plot' reads the product in NetCDF or Zarr: {_ASSEMBLE}"
    yield from _unknown_lines(about)


def _geotiff_facts(path: Path) -> dict[str, Any]:
    try:
        import rasterio
    except ImportError as error:
        raise MissingDependency(
            f"{path} is a GeoTIFF, and to describe it needs rasterio: pip install 'cryotile[geo]'"
        ) from error
    try:
        with rasterio.open(path) as file:
            return {
                "attributes": file.tags(),
                "shape": list(file.shape),
                "crs": str(file.crs),
                "bands": list(file.descriptions),
            }
    except rasterio.RasterioIOError as error:
        raise DamagedFile(f"{path} is damaged ({error}); make it again") from error


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

    found = _run_facts(path)
    yield f"run          {path}, uuid {found['uuid']}, task list {found['task_list']}"
    db, snapshot = Path(found["point_db"]), found["commit"]
    now = PointDB(db).snapshot if db.exists() else snapshot
    grown = f"; it is at commit {now} now" if now != snapshot else ""
    yield f"point DB     {db} as of commit {snapshot}{grown}"
    yield from _map_lines(found["attributes"], found["shape"])
    yield f"tiles        {number(found['tiles'])} with points; status: {command('status', path)}"
    yield from _unknown_lines(found["attributes"])


def _run_facts(path: Path) -> dict[str, Any]:
    from cryotile.fit.variables import settings_attrs
    from cryotile.runs.origin import about, plan_command
    from cryotile.runs.run import Run

    run = Run.load(path)
    settings = run.settings
    line = plan_command(settings, db=str(run.db_path))
    return {
        "uuid": run.uuid,
        "task_list": run.generation,
        "point_db": str(run.db_path),
        "commit": run.snapshot,
        "shape": list(settings.grid.shape),
        "tiles": len(run.tasks),
        "attributes": {
            **about(run),
            **settings_attrs(settings.fit),
            "crs": settings.grid.crs,
            "posting": settings.grid.posting,
            **({} if line is None else {"command": line}),
        },
    }


_MADE_OF = {
    "title": ("title", "{}"),
    "platforms": ("platform", "{}"),
    "modes": ("source_modes", "{}"),
    "products": ("source_products", "{}"),
    "granules": (
        "source_granules",
        "{:,} of the point DB, with points of these platforms in the period",
    ),
    "points": ("source_points", "{:,} in the 5 km squares that posts see"),
    "snapshot": ("point_db_snapshot", "digest {} of these points"),
    "simulated": ("simulated", "{}"),
    "selection": ("selection", "{}"),
    "mask": ("mask", "{}"),
    "offsets": ("offsets", "{}"),
    "bounds": ("bounds", "{} (x_min y_min x_max y_max)"),
    "terms": ("terms", "{}"),
    "weights": ("weights", "{}"),
    "command": ("command", "{}"),
}
"""Label → global attribute, and how it is shown."""


def _map_lines(about: Mapping[str, Any], shape: Sequence[int]) -> Iterator[str]:
    """Yield the lines on what a map is made of, from the global attributes of a product."""
    yield f"posts        {number(shape[1])} x {number(shape[0])} every {float(about['posting']):g} m in {about['crs']}"
    yield f"fit          recipe {about['recipe']}, search radius {float(about['radius']):g} m"
    if "time_coverage_start" in about:
        yield f"period       {about['time_coverage_start']} to {about['time_coverage_end']}"
    shown = {"selection": "all points", "command": about.get("history", ""), **about}
    for label, (name, form) in _MADE_OF.items():
        if name in shown:
            # A GeoTIFF has text alone.
            value = int(shown[name]) if ":," in form else shown[name]
            yield f"{label:12} {form.format(value)}"


def _product(path: Path) -> Iterator[str]:
    found = summarize_product(path)
    assert found is not None
    about = found["attributes"]
    yield f"product      {path}, made by cryotile {about[MARK]}"
    yield from _map_lines(about, found["shape"])
    for name in ("dhdt", "dhdt_difference"):
        if name in found:
            low, middle, high = found[name]
            yield f"{name:12} median {middle:.3f} m/yr, 90 % within {low:.3f} to {high:.3f}"
    for status, count in found.get("status", {}).items():
        yield f"  {status:20} {number(count):>12} posts"
    yield from _unknown_lines(about)


def _unknown_lines(about: Mapping[str, Any]) -> Iterator[str]:
    """Yield what neither the rates nor their standard errors know, by the global attributes of a map."""
    yield "not known to the rates and their standard errors:"
    for sentence in unknowns(xr.Dataset(attrs=about)):
        yield f"  {sentence}"


def facts(path: Path) -> dict[str, Any]:
    """Return what :func:`describe` says of a product or a run, for programs.

    Parameters
    ----------
    path : Path
        A product, in NetCDF or GeoTIFF, or a run.

    Returns
    -------
    dict
        ``kind``, ``path``, ``attributes`` (as the global ones of a product), ``shape`` (rows, columns) and more, of
        types that JSON knows.

    Raises
    ------
    InvalidValue
        The path is neither.
    """
    kind = Kind.of(path) if path.exists() else None
    found = {
        Kind.PRODUCT: summarize_product,
        Kind.GEOTIFF: _geotiff_facts,
        Kind.RUN: _run_facts,
    }
    if kind not in found:
        what = f"is a {kind}" if kind else "does not exist"
        raise InvalidValue(
            f"{path} {what}, and --json describes a product or a run; leave it out, or give one"
        )
    return {"kind": str(kind), "path": str(path), **(found[kind](path) or {})}


def _file(path: Path, mapping: ColumnMapping | None) -> Iterator[str]:
    from cryotile.readers import is_table, read_granule, table_reader

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
