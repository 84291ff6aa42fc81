"""Turn a request into settings: which posts, which points, which period; and check that they make sense.

The answers come from the log of the point DB (counts per 5 km square, platform and mode).  Points are read only where a
weight may lack its data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import pyarrow.parquet as pq

from cryotile.errors import InvalidValue, command
from cryotile.fit.config import OFFERED_TERMS, FitConfig
from cryotile.fit.offset_field import OffsetField
from cryotile.geo.grid import Grid, check_bounds
from cryotile.geo.mask import Mask
from cryotile.geo.regions import Regions
from cryotile.pointdb.sort_order import SQUARE_SIZE
from cryotile.points import Bounds
from cryotile.selection import Where
from cryotile.times import instant_text, parse_instant

if TYPE_CHECKING:
    from cryotile.pointdb import PointDB

__all__ = [
    "REGIONS",
    "SETTINGS",
    "TILE_SIZE",
    "Asked",
    "Settings",
    "completed",
    "differences",
    "extent_of",
    "resolve",
    "seen_by",
    "within_period",
]

REGIONS: dict[str, tuple[str, Bounds]] = {
    "antarctica": ("EPSG:3031", (-2_700_000.0, -2_250_000.0, 2_800_000.0, 2_300_000.0)),
    "greenland": ("EPSG:3413", (-660_000.0, -3_380_000.0, 880_000.0, -620_000.0)),
}
"""Name → CRS and bounds (metres) of the ice sheet with its margin."""

TILE_SIZE = 100
"""Posts along a side of a tile unless a plan asks for another number."""

_OF_FIT = {field.name: str(field.type).removesuffix(" | None") for field in fields(FitConfig)}

SETTINGS: dict[str, str] = {
    "posting": "float",
    "bounds": "Bounds",
    "region": "str",
    "where": "str",
    "mask": "str",
    "offsets": "OffsetField",
    "basins": "str",
    "column": "str",
    "tile_size": "int",
    **_OF_FIT,
}
"""Name → type of what a user can ask of a plan: a keyword of :func:`cryotile.plan`, an option of ``cryotile plan``."""

Asked = Mapping[str, Any]
"""Some of :data:`SETTINGS`; None, or no entry, leaves the choice to cryotile."""


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
    offsets : OffsetField or None
        Offsets of platforms and modes that are taken from points before they are fitted.
    regions : Regions or None
        Basins over which the sums of rates are made, without posts outside the mask; None: no sums.

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
    offsets: OffsetField | None = None
    regions: Regions | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.tile_size <= 10_000:
            raise InvalidValue(
                f"tile size {self.tile_size} is not between 1 and 10000 posts; 100 suits most runs"
            )
        if self.regions is not None and self.fit.recipe != "passes":
            raise InvalidValue(
                f"basins need the deltas of the recipe passes, and the recipe is {self.fit.recipe}; use passes"
            )

    @property
    def map_grid(self) -> Grid:
        """The posts of the map: those of the grid, cropped to the mask."""
        return self.grid if self.mask is None else self.mask.extent

    def as_asked(self) -> dict[str, Any]:
        """Return what one asks to get these settings, by the names of :data:`SETTINGS`."""
        return {
            "posting": self.grid.posting,
            "bounds": self.grid.bounds,
            "where": self.where,
            "mask": None if self.mask is None else self.mask.source,
            "offsets": self.offsets,
            "basins": None if self.regions is None else self.regions.source,
            "column": None if self.regions is None else self.regions.column,
            "tile_size": self.tile_size,
            **{name: getattr(self.fit, name) for name in _OF_FIT},
            "priors": tuple(prior for prior in self.fit.priors if not self._is_of_offsets(prior)),
        }

    def _is_of_offsets(self, prior: str) -> bool:
        return self.offsets is not None and prior.partition("=")[0] in self.offsets.sizes


def completed(asked: Asked, db: PointDB | None) -> dict[str, Any]:
    """Return what is asked, with a region given by bounds, each value in its type and the expression canonical.

    Parameters
    ----------
    asked : mapping of str to value
        Some of :data:`SETTINGS`.
    db : PointDB or None
        The points; None: not known.

    Raises
    ------
    InvalidValue
        A value is of another type; the region is unknown, given beside bounds, or in another CRS than the point DB; or
        the expression is invalid.
    """
    given = {name: _typed(name, value) for name, value in asked.items() if value is not None}
    if "where" in given:
        columns = None if db is None else db.column_names
        given["where"] = str(Where.parse(given["where"], columns=columns))
    if "region" in given:
        given["bounds"] = _region_bounds(given.pop("region"), given, db)
    return given


def _typed(name: str, value: Any) -> Any:
    """Return a setting in its type: 1000 and 1000.0 are one setting, as are 6000 and (6000,), a day and its text."""
    kind = SETTINGS[name]
    if kind == "OffsetField":
        return value
    several = kind == "Bounds" or kind.startswith("tuple")
    whole = several and isinstance(value, Iterable) and not isinstance(value, str)
    convert: Callable[[Any], object]
    if name in ("period", "reference_epoch"):
        what, convert = "an instant, such as '2015-07-01'", instant_text
    elif "str" in kind:
        what, convert = "a text", _text
    elif "int" in kind:
        what, convert = "a whole number", partial(_exact, int)
    else:
        what, convert = "a number", partial(_exact, float)
    try:
        parts = tuple(convert(part) for part in (value if whole else (value,)))
    except (TypeError, ValueError, OverflowError):
        raise InvalidValue(
            f"{name} {value!r} is not {what}; give one, or leave it out for the default"
        ) from None
    return parts if several else parts[0]


def _exact(convert: type[int] | type[float], value: Any) -> float:
    """Return a number of a type, without reading text or cutting a fraction off."""
    if isinstance(value, str) or (convert is int and value % 1):
        raise ValueError
    return convert(value)


def _text(value: Any) -> str:
    return str(value) if isinstance(value, Where) else os.fspath(value)


def _region_bounds(region: str, asked: Asked, db: PointDB | None) -> Bounds:
    if region not in REGIONS:
        raise InvalidValue(f"region {region!r} is unknown; choose one of {', '.join(REGIONS)}")
    crs, extent = REGIONS[region]
    if "bounds" in asked:
        raise InvalidValue(
            f"region {region!r} and bounds both say where the posts are; give one of them"
        )
    if db is not None and db.crs != crs:
        raise InvalidValue(
            f"region {region!r} is known in {crs}, and the point DB is in {db.crs_text}; give bounds"
        )
    return extent


def differences(asked: Asked, settings: Settings) -> list[str]:
    """Return what is asked and differs from the settings of a run.

    Parameters
    ----------
    asked : mapping of str to value
        As of :func:`completed`.
    settings : Settings
        Settings of the run.

    Returns
    -------
    list of str
        One ``name asked (frozen: value)`` for each difference; empty if all agree.
    """
    frozen = settings.as_asked()
    return [
        f"{name} {value!r} (frozen: {held!r})"
        for name, value in asked.items()
        if _meant(name, value) != _meant(name, held := frozen[name])
    ]


def _meant(name: str, value: object) -> object:
    """Return the meaning of a setting: an instant can be written in several ways."""
    if name == "period":
        return [parse_instant(str(text)) for text in cast("tuple[str, str]", value)]
    if isinstance(value, OffsetField):
        return value.digest
    if name in ("mask", "basins"):
        return None if value is None else Path(str(value)).resolve()
    return parse_instant(str(value)) if name == "reference_epoch" else value


def resolve(asked: Asked, db: PointDB) -> Settings:
    """Fill in what is not asked from the contents of the point DB, and check it.

    Parameters
    ----------
    asked : mapping of str to value
        As of :func:`completed`.
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
    fit = FitConfig(**{name: asked[name] for name in _OF_FIT if name in asked})
    offsets = asked.get("offsets")
    fit = fit if offsets is None else _tied(fit, offsets)
    bounds, where = asked.get("bounds"), asked.get("where")
    posting = asked.get("posting", 1000.0)
    _check_columns(fit, db)
    squares = _selected_squares(bounds, where, fit, db)
    if "uncertainty" in fit.weights:
        _check_uncertainties(bounds, where, fit, db)
    if "platform_offset" in fit.terms:
        found = set(squares.loc[squares["count"] > 0, "platform"].astype(str))
        others = sorted(found.difference(fit.platforms))
        fit = replace(fit, other_platforms=(*fit.other_platforms, *others))
    else:
        _refuse_mixed_platforms(squares)
    extent = extent_of(squares)
    _check_scales(posting, fit.radius, extent)
    crs = db.crs_text
    grid = Grid(crs, bounds, posting) if bounds else Grid.covering(extent, posting, crs)
    if offsets is not None:
        _check_place(offsets, grid)
    fit = fit.frozen(squares["time_min"].min(), squares["time_max"].max())
    mask = Mask.read(Path(asked["mask"]), grid) if "mask" in asked else None
    regions = _regions(asked, grid)
    regions = None if regions is None else regions.inside(mask)
    size = asked.get("tile_size", TILE_SIZE)
    return Settings(
        grid=grid, tile_size=size, where=where, fit=fit, mask=mask, regions=regions, offsets=offsets
    )


def _check_place(offsets: OffsetField, grid: Grid) -> None:
    x_min, y_min, x_max, y_max = grid.bounds
    x, y = offsets.x, offsets.y
    if x[0] > x_max or x[-1] < x_min or y[0] > y_max or y[-1] < y_min:
        raise InvalidValue(
            f"offsets {offsets!r} cover {x[0]:.0f} {y[0]:.0f} {x[-1]:.0f} {y[-1]:.0f}, where the grid has no post; give"
            " a run of the same area"
        )


def _tied(fit: FitConfig, offsets: OffsetField) -> FitConfig:
    """Return a fit whose offsets are tied to what the field leaves of them."""
    for term in offsets.sizes:
        if term not in fit.terms:
            raise InvalidValue(
                f"offsets {offsets!r} come from the term {term}, which this plan does not name; add terms={term!r}"
            )
    given = [prior for prior in fit.priors if prior.partition("=")[0] in offsets.sizes]
    if given:
        raise InvalidValue(
            f"prior {given[0]!r} and offsets {offsets!r} both tie that term; leave the prior out"
        )
    sizes = (f"{term}={size:.4g}" for term, size in offsets.sizes.items())
    return replace(fit, priors=(*fit.priors, *sizes))


def _regions(asked: Asked, grid: Grid) -> Regions | None:
    given = [name for name in ("basins", "column") if name in asked]
    if len(given) == 1:
        raise InvalidValue(
            f"{given[0]} {asked[given[0]]!r} is one of two settings; give basins (a file of polygons) and column (of"
            " the file, which names them)"
        )
    return Regions.read(Path(asked["basins"]), asked["column"], grid) if given else None


def _check_columns(fit: FitConfig, db: PointDB) -> None:
    for name in fit.column_terms:
        if name not in db.columns:
            raise InvalidValue(
                f"term {name!r} is neither one of {', '.join(OFFERED_TERMS)} nor an extra column of {db.path}"
                f' ({", ".join(db.columns) or "none"}); leave it out, or ingest with columns="{name}"'
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


def _selected_squares(
    bounds: Bounds | None, where: str | None, fit: FitConfig, db: PointDB
) -> pd.DataFrame:
    """Return the squares with selected points that posts within the bounds can see; refuse a selection of none."""
    everything = db.squares(where=where)
    if everything.empty:
        what = f"no point satisfies {where!r}" if where else "the point DB holds no points"
        raise InvalidValue(
            f"{what}: nothing to plan; look at what there is with: {command('info', db.path)}"
        )
    span = f"{everything['time_min'].min():%Y-%m-%d} to {everything['time_max'].max():%Y-%m-%d}"
    everything = within_period(everything, fit.period)
    if everything.empty and fit.period is not None:
        raise InvalidValue(
            f"period {fit.period[0]} to {fit.period[1]} holds no point; give one that overlaps with the data, {span}"
        )
    if bounds is None:
        return everything
    check_bounds(bounds)
    inside = within_period(db.squares(seen_by(bounds, fit), where=where), fit.period)
    if inside.empty:
        extent = " ".join(f"{edge:.0f}" for edge in extent_of(everything))
        asked = " ".join(f"{edge:g}" for edge in bounds)
        raise InvalidValue(
            f"bounds {asked} hold no point; give some that overlap with the data, {extent} (x_min y_min x_max y_max)"
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
        f" with where=\"platform == '{counts.idxmax()}'\", or fit the step with the term platform_offset of the"
        " recipe passes"
    )


def _check_scales(posting: float, radius: float, extent: Bounds) -> None:
    size = max(extent[2] - extent[0], extent[3] - extent[1])
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


def seen_by(bounds: Bounds, fit: FitConfig) -> Bounds:
    """Return the bounds of all points that posts within some bounds can see."""
    x_min, y_min, x_max, y_max = bounds
    return x_min - fit.reach, y_min - fit.reach, x_max + fit.reach, y_max + fit.reach


def _check_uncertainties(
    bounds: Bounds | None, where: str | None, fit: FitConfig, db: PointDB
) -> None:
    """Refuse to weight by an uncertainty that a selected point does not have.

    The footers of the fragments count their nulls.  Only if there are any, the selected points are read.
    """
    bounds = None if bounds is None else seen_by(bounds, fit)
    if not any(map(_may_lack_uncertainty, db.fragments(bounds))):
        return
    for points in db.iter_chunks(bounds, columns=["uncertainty"], where=where, time=fit.period):
        lacking = int(points["uncertainty"].isna().sum())
        if lacking:
            raise InvalidValue(
                f"weight 'uncertainty': {lacking:,} of {len(points):,} selected points of a chunk have no uncertainty,"
                ' and a weight needs one; select points with where="uncertainty >= 0", or leave that weight out'
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
