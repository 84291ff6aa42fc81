"""Turn a request into settings: which posts, which points, which period; and check that they make sense.

The answers come from the log of the point DB (counts per 5 km square, platform and mode).  Points are read only where
a weight may lack its data.
"""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from cryotile.errors import InvalidValue, command
from cryotile.fit.config import TERMS, FitConfig
from cryotile.geo.grid import Grid, check_bounds
from cryotile.geo.mask import Mask
from cryotile.pointdb.sort_order import SQUARE_SIZE
from cryotile.points import Bounds
from cryotile.selection import Where
from cryotile.times import parse_instant

if TYPE_CHECKING:
    from cryotile.pointdb import PointDB

__all__ = [
    "REGIONS",
    "PlanRequest",
    "Settings",
    "completed",
    "differences",
    "extent_of",
    "obstacles",
    "resolve",
    "within_period",
]

REGIONS: dict[str, tuple[str, Bounds]] = {
    "antarctica": ("EPSG:3031", (-2_700_000.0, -2_250_000.0, 2_800_000.0, 2_300_000.0)),
    "greenland": ("EPSG:3413", (-660_000.0, -3_380_000.0, 880_000.0, -620_000.0)),
}
"""Name → CRS and bounds (metres) of the ice sheet with its margin."""

MAX_POSTS = 1_000_000_000

CHUNKS_LOOKED_AT = 10
"""Number of chunks that are read to find a point without an uncertainty."""

_OF_FIT = tuple(field.name for field in fields(FitConfig))


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What a user asks for; None where the user leaves the choice to cryotile.

    Every field of :class:`cryotile.FitConfig` is a field here, with the same meaning.

    Attributes
    ----------
    posting : float or None
        Distance between neighbouring posts, metres; default 1000.
    radius : float or None
        Search radius, metres; default 2000.
    recipe : str or None
        Recipe of the fit; default ``robust``.
    terms : tuple of str or None
        Terms of the fit in place of the recipe's.
    weights : tuple of str or None
        What points are weighted by; default nothing.
    uncertainty_floor, distance_scale : float or None
        Scales of the weights, metres.
    fallback_radii : tuple of float or None
        Radii tried in turn where a gate fails, metres; default none.
    other_platforms : tuple of str or None
        Platforms that the term ``platform_offset`` tells apart beside the known ones; those of the points are added.
    period : (str, str) or None
        First instant and first instant after the last, UTC; default: whole years that cover the selected points.
    reference_epoch : str or None
        t = 0 of the fit; default: the middle of the period.
    min_points, min_passes, min_span_days, min_span_share, max_rate, min_tolerance : number or None
        Gates; default: the recipe's.
    bounds : Bounds or None
        Posts lie inside; default: the selected points' extent.
    region : str or None
        Bounds by name: one of :data:`REGIONS`.
    where : str or None
        Expression that selects points.
    mask : str or None
        File of the wanted posts, see :class:`cryotile.geo.mask.Mask`; default: all posts.
    tile_size : int or None
        Posts along a tile's side; default 100.
    """

    posting: float | None = None
    radius: float | None = None
    recipe: str | None = None
    terms: tuple[str, ...] | None = None
    weights: tuple[str, ...] | None = None
    uncertainty_floor: float | None = None
    distance_scale: float | None = None
    fallback_radii: tuple[float, ...] | None = None
    other_platforms: tuple[str, ...] | None = None
    period: tuple[str, str] | None = None
    reference_epoch: str | None = None
    min_points: int | None = None
    min_passes: int | None = None
    min_span_days: float | None = None
    min_span_share: float | None = None
    max_rate: float | None = None
    min_tolerance: float | None = None
    bounds: Bounds | None = None
    region: str | None = None
    where: str | None = None
    mask: str | None = None
    tile_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A request with all defaults filled in, as a run freezes it.

    Attributes
    ----------
    grid : Grid
        CRS, bounds and posting.
    tile_size : int
        Posts along a tile's side.
    where : str or None
        Expression that selects points, canonical.
    fit : FitConfig
        Settings of the fit, period and reference epoch resolved.
    mask : Mask or None
        Wanted posts; None: all.

    Raises
    ------
    InvalidValue
        The tile size breaks its rule; grid and fit check theirs.
    """

    grid: Grid
    tile_size: int
    where: str | None
    fit: FitConfig
    mask: Mask | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.tile_size <= 10_000:
            raise InvalidValue(
                f"tile size {self.tile_size} is not between 1 and 10000 posts; 100 suits most runs"
            )

    @property
    def map_grid(self) -> Grid:
        """The posts of the map: those of the grid, cropped to the mask."""
        return self.grid if self.mask is None else self.mask.extent

    def as_request(self) -> PlanRequest:
        """Return the request that resolves to these settings."""
        return PlanRequest(
            posting=self.grid.posting,
            bounds=self.grid.bounds,
            where=self.where,
            mask=None if self.mask is None else self.mask.source,
            tile_size=self.tile_size,
            **{name: getattr(self.fit, name) for name in _OF_FIT},
        )


def completed(request: PlanRequest, db: PointDB | None) -> PlanRequest:
    """Return a request whose region is given by bounds, and whose numbers and expression are canonical.

    Parameters
    ----------
    request : PlanRequest
        What the user asks for.
    db : PointDB or None
        The points; None: not known.

    Raises
    ------
    InvalidValue
        The region is unknown, given beside bounds, or in another CRS than the point DB; or the expression is invalid.
    """
    request = replace(request, **{f.name: _number(f, request) for f in fields(request)})
    where = request.where
    if where is not None:
        where = str(Where.parse(where, columns=None if db is None else db.column_names))
    bounds = request.bounds if request.region is None else _region_bounds(request, db)
    return replace(request, where=where, bounds=bounds, region=None)


def _number(field: Field[Any], request: PlanRequest) -> Any:
    """Return a value of a request, whole numbers as floats where those are meant: 1000 and 1000.0 are one setting."""
    value, kind = getattr(request, field.name), str(field.type)
    if value is None or not ("float" in kind or "int" in kind or "Bounds" in kind):
        return value
    convert = int if "int" in kind else float
    try:
        if "tuple" in kind or "Bounds" in kind:
            return tuple(_exact(convert, number) for number in value)
        return _exact(convert, value)
    except (TypeError, ValueError, OverflowError):
        what = "a whole number" if convert is int else "a number"
        raise InvalidValue(
            f"{field.name} {value!r} is not {what}; give one, or leave it out for the default"
        ) from None


def _exact(convert: type[int] | type[float], value: Any) -> float:
    """Return a number of a type, without reading text or cutting a fraction off."""
    if isinstance(value, str) or (convert is int and value % 1):
        raise ValueError
    return convert(value)


def _region_bounds(request: PlanRequest, db: PointDB | None) -> Bounds:
    region = str(request.region)
    if region not in REGIONS:
        raise InvalidValue(f"region {region!r} is unknown; choose one of {', '.join(REGIONS)}")
    crs, extent = REGIONS[region]
    if request.bounds is not None:
        raise InvalidValue(
            f"--region {region} and --bounds both say where the posts are; give one of them"
        )
    if db is not None and db.crs != crs:
        raise InvalidValue(
            f"--region {region} is known in {crs}, and the point DB is in {db.crs_text}; give --bounds"
        )
    return extent


def differences(request: PlanRequest, settings: Settings) -> list[str]:
    """Return the settings of a request that differ from those of a run.

    Parameters
    ----------
    request : PlanRequest
        Fields that are None are not compared.
    settings : Settings
        Settings of the run.

    Returns
    -------
    list of str
        One ``name asked (frozen: value)`` for each difference; empty if the request agrees.
    """
    frozen = settings.as_request()
    return [
        f"{field.name} {asked!r} (frozen: {held!r})"
        for field in fields(request)
        if (asked := getattr(request, field.name)) is not None
        and _meant(field.name, asked) != _meant(field.name, held := getattr(frozen, field.name))
    ]


def _meant(name: str, value: object) -> object:
    """Return the meaning of a setting: an instant can be written in several ways."""
    if name == "period":
        return [parse_instant(str(text)) for text in cast("tuple[str, str]", value)]
    if name == "mask":
        return None if value is None else Path(str(value)).resolve()
    return parse_instant(str(value)) if name == "reference_epoch" else value


def resolve(request: PlanRequest, db: PointDB) -> Settings:
    """Fill in the defaults of a request from the contents of the point DB, and check it.

    Parameters
    ----------
    request : PlanRequest
        What the user asks for.
    db : PointDB
        The points.

    Returns
    -------
    Settings
        Complete and consistent with the data.

    Raises
    ------
    InvalidValue
        A value breaks its rule, nothing is selected, or the selection mixes platforms.
    """
    posting = 1000.0 if request.posting is None else request.posting
    asked = {name: getattr(request, name) for name in _OF_FIT if getattr(request, name) is not None}
    fit = FitConfig(**asked)
    _check_columns(fit, db)
    squares = _selected_squares(request, fit, db)
    if "uncertainty" in fit.weights:
        _check_uncertainties(request, fit, db)
    if "platform_offset" in fit.terms:
        found = set(squares.loc[squares["count"] > 0, "platform"].astype(str))
        others = sorted(found.difference(fit.platforms))
        fit = replace(fit, other_platforms=(*fit.other_platforms, *others))
    else:
        _refuse_mixed_platforms(squares)
    extent = extent_of(squares)
    _check_scales(posting, fit.radius, extent)
    crs = db.crs_text
    grid = (
        Grid(crs, request.bounds, posting)
        if request.bounds
        else Grid.covering(extent, posting, crs)
    )
    fit = fit.frozen(squares["time_min"].min(), squares["time_max"].max())
    mask = None if request.mask is None else Mask.read(Path(request.mask), grid)
    size = 100 if request.tile_size is None else request.tile_size
    return Settings(grid=grid, tile_size=size, where=request.where, fit=fit, mask=mask)


def _check_columns(fit: FitConfig, db: PointDB) -> None:
    for name in fit.column_terms:
        if name not in db.columns:
            raise InvalidValue(
                f"term {name!r} is neither one of {', '.join(TERMS)} nor an extra column of {db.path}"
                f" ({', '.join(db.columns) or 'none'}); leave it out, or ingest with --columns {name}"
            )


def within_period(squares: pd.DataFrame, period: tuple[str, str] | None) -> pd.DataFrame:
    """Return the squares that may hold points in a period.

    Parameters
    ----------
    squares : DataFrame
        As of :meth:`cryotile.PointDB.squares`.
    period : (str, str) or None
        First instant and first instant after the last; None: any time.

    Returns
    -------
    DataFrame
        Rows whose times overlap with the period.
    """
    if period is None:
        return squares
    start, end = (parse_instant(text) for text in period)
    return squares[(squares["time_max"] >= start) & (squares["time_min"] < end)]


def _selected_squares(request: PlanRequest, fit: FitConfig, db: PointDB) -> pd.DataFrame:
    everything = db.squares(where=request.where)
    if everything.empty:
        what = (
            f"no point satisfies {request.where!r}"
            if request.where
            else "the point DB holds no points"
        )
        raise InvalidValue(
            f"{what}: nothing to plan; look at what there is with: {command('info', db.path)}"
        )
    span = f"{everything['time_min'].min():%Y-%m-%d} to {everything['time_max'].max():%Y-%m-%d}"
    everything = within_period(everything, fit.period)
    if everything.empty and fit.period is not None:
        raise InvalidValue(
            f"period {fit.period[0]} to {fit.period[1]} holds no point; give one that overlaps with the data, {span}"
        )
    if request.bounds is None:
        return everything
    check_bounds(request.bounds)
    seen = _seen(request.bounds, fit)
    inside = within_period(db.squares(seen, where=request.where), fit.period)
    if inside.empty:
        extent = " ".join(f"{edge:.0f}" for edge in extent_of(everything))
        bounds = " ".join(f"{edge:g}" for edge in request.bounds)
        raise InvalidValue(
            f"bounds {bounds} hold no point; give some that overlap with the data, {extent} (x_min y_min x_max y_max)"
        )
    return inside


def extent_of(squares: pd.DataFrame) -> Bounds:
    """Return the bounds of one or more squares, given by ``x_min, y_min``."""
    return (
        float(squares["x_min"].min()),
        float(squares["y_min"].min()),
        float(squares["x_min"].max()) + SQUARE_SIZE,
        float(squares["y_min"].max()) + SQUARE_SIZE,
    )


def _refuse_mixed_platforms(squares: pd.DataFrame) -> None:
    counts = squares.groupby(squares["platform"].astype(str))["count"].sum()
    counts = counts[counts > 0]
    if len(counts) < 2:
        return
    modes = set(squares["mode"].astype(str))
    kinds = "laser and radar" if "laser" in modes and len(modes) > 1 else "platforms"
    found = ", ".join(f"{name}: {count} points" for name, count in counts.items())
    raise InvalidValue(
        f"the selection mixes {kinds} ({found}), and the step between them would become elevation change; select one"
        f" with --where \"platform == '{counts.idxmax()}'\", or fit the step with the term platform_offset where the"
        " recipe has terms (plane has none)"
    )


def _check_scales(posting: float, radius: float, extent: Bounds) -> None:
    size = max(extent[2] - extent[0], extent[3] - extent[1])
    if not (math.isfinite(posting) and posting > 0):
        raise InvalidValue(f"posting {posting} m is not a positive number; give metres, e.g. 1000")
    if posting > size:
        raise InvalidValue(
            f"posting {posting:g} m exceeds the data's extent of {size:g} m; use {size / 10:g} m or less"
        )
    if radius > size:
        raise InvalidValue(
            f"search radius {radius:g} m exceeds the data's extent of {size:g} m; 2000 m is usual"
        )
    if radius < posting / 2:
        raise InvalidValue(
            f"search radius {radius:g} m is under half the posting ({posting:g} m), so points between posts would be in"
            f" no fit; use {posting / 2:g} m or more"
        )
    posts = (extent[2] - extent[0]) / posting * ((extent[3] - extent[1]) / posting)
    if posts > MAX_POSTS:
        raise InvalidValue(
            f"posting {posting:g} m makes {posts:.2g} posts over the data's extent, more than {MAX_POSTS:.0e};"
            " use a larger one, or --bounds"
        )


def _seen(bounds: Bounds, fit: FitConfig) -> Bounds:
    """Return the bounds of all points that posts within some bounds can see."""
    x_min, y_min, x_max, y_max = bounds
    return x_min - fit.reach, y_min - fit.reach, x_max + fit.reach, y_max + fit.reach


def _check_uncertainties(request: PlanRequest, fit: FitConfig, db: PointDB) -> None:
    """Refuse to weight by an uncertainty that a selected point does not have, as far as a cheap look tells.

    The footers of the fragments count their nulls.  Only if there are any, some chunks are read.
    """
    bounds = None if request.bounds is None else _seen(request.bounds, fit)
    if not any(map(_may_lack_uncertainty, db.fragments(bounds))):
        return
    chunks = db.iter_chunks(bounds, columns=["uncertainty"], where=request.where, time=fit.period)
    for points in islice(chunks, CHUNKS_LOOKED_AT):
        lacking = int(points["uncertainty"].isna().sum())
        if lacking:
            raise InvalidValue(
                f"weight 'uncertainty': {lacking:,} of {len(points):,} selected points of a chunk have no uncertainty,"
                ' and a weight needs one; select points with --where "uncertainty >= 0", or leave that weight out'
            )


def _may_lack_uncertainty(fragment: Path) -> bool:
    try:
        metadata = pq.read_metadata(fragment)
    except FileNotFoundError:
        return True  # merged by a compaction meanwhile
    place = metadata.schema.to_arrow_schema().get_field_index("uncertainty_mm")
    groups = [
        metadata.row_group(n).column(place).statistics for n in range(metadata.num_row_groups)
    ]
    return any(g is None or not g.has_null_count or g.null_count > 0 for g in groups)


def obstacles(settings: Settings, db: PointDB, *, snapshot: int | None = None) -> list[str]:
    """Say why no post of a run can have a fit, from counts and times alone.

    The comparison uses the most that any post could have, so the list is empty if some post may pass.

    Parameters
    ----------
    settings : Settings
        What the run freezes.
    db : PointDB
        The points.
    snapshot : int or None
        The commit to look at; None: the newest.

    Returns
    -------
    list of str
        One line for each gate that no post can pass.
    """
    fit = settings.fit
    assert fit.period is not None
    start, end = (parse_instant(text) for text in fit.period)
    squares = db.squares(_seen(settings.grid.bounds, fit), where=settings.where, snapshot=snapshot)
    squares = within_period(squares, fit.period)
    if squares.empty:
        return []
    found = []
    count, days = _most_around(squares, fit.reach, start, end)
    if count < fit.min_points:
        found.append(
            f"at most {count:,} points lie around any post, and a fit needs {fit.min_points:,} (min_points): no post"
            " can pass; use a larger radius or a smaller min_points"
        )
    period = (end - start) / pd.Timedelta(days=1)
    needed = max(fit.min_span_days, fit.min_span_share * period)
    if days < needed:
        asked = (
            f"{needed:.0f} days (min_span_days)"
            if needed == fit.min_span_days
            else f"{fit.min_span_share:.0%} (min_span_share) of the {period:.0f} days from {fit.period[0]} to"
            f" {fit.period[1]}"
        )
        found.append(
            f"the points around any post span at most {days:.0f} days, and a fit needs {asked}: no post can pass; use a"
            " period that the points fill, a lower gate, or the recipe plane, which asks for 30 days"
        )
    passes = _passes_up_to(fit.min_passes, db, start, end)
    if passes < fit.min_passes:
        found.append(
            f"the point DB holds at most {passes} passes in the period, and a fit needs {fit.min_passes} (min_passes):"
            " no post can pass; ingest more passes, or use a lower gate"
        )
    return found


def _most_around(
    squares: pd.DataFrame, reach: float, start: pd.Timestamp, end: pd.Timestamp
) -> tuple[int, float]:
    """Return the most points, and the longest span in days, of the squares that a single post can see."""
    column, row = (
        np.rint((squares[name] - squares[name].min()) / SQUARE_SIZE).astype(np.int64).to_numpy()
        for name in ("x_min", "y_min")
    )
    shape = int(row.max()) + 1, int(column.max()) + 1
    low, high = (int(instant.timestamp() * 1000) for instant in (start, end))
    first, last = (
        np.clip(squares[name].to_numpy("datetime64[ms]").astype(np.int64), low, high)
        for name in ("time_min", "time_max")
    )
    count = np.zeros(shape, np.int64)
    earliest, latest = np.full(shape, np.iinfo(np.int64).max // 2), np.full(shape, -(2**62))
    np.add.at(count, (row, column), squares["count"].to_numpy())
    np.minimum.at(earliest, (row, column), first)
    np.maximum.at(latest, (row, column), last)
    steps = math.ceil(reach / SQUARE_SIZE)
    span = _around(latest, steps, np.maximum) - _around(earliest, steps, np.minimum)
    return int(_around(count, steps, np.add).max()), float(span.max()) / 86_400_000.0


def _around(values: npt.NDArray[np.int64], steps: int, combine: np.ufunc) -> npt.NDArray[np.int64]:
    """Combine each value with those at most ``steps`` away along either axis."""
    for _ in range(2):
        near = values.copy()
        for step in range(1, min(steps, len(values) - 1) + 1):
            combine(near[step:], values[:-step], out=near[step:])
            combine(near[:-step], values[step:], out=near[:-step])
        values = near.T
    return values


def _passes_up_to(most: int, db: PointDB, start: pd.Timestamp, end: pd.Timestamp) -> int:
    """Count the passes of the granules that overlap with a period; from ``most`` on, counting ends."""
    granules = db.granules
    passes: set[int] = set()
    overlaps = (granules["time_max"] >= start) & (granules["time_min"] < end)
    for some in granules.loc[overlaps, "passes"]:
        passes.update(some)
        if len(passes) >= most:
            break
    return len(passes)
