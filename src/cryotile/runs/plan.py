"""From a request to settings: which posts, which points, which period, and whether that makes sense.

Everything here is answered by the log of the point DB (counts per 5 km square, platform and mode); no point is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import pandas as pd

from cryotile.errors import InvalidValue
from cryotile.fit.config import TERMS, FitConfig
from cryotile.geo.grid import Grid, check_bounds
from cryotile.geo.mask import Mask
from cryotile.pointdb import SQUARE_SIZE, PointDB
from cryotile.points import Bounds
from cryotile.times import parse_instant

__all__ = [
    "REGIONS",
    "PlanRequest",
    "Settings",
    "differences",
    "extent_of",
    "resolve",
    "within_period",
]

REGIONS: dict[str, tuple[str, Bounds]] = {
    "antarctica": ("EPSG:3031", (-2_700_000.0, -2_250_000.0, 2_800_000.0, 2_300_000.0)),
    "greenland": ("EPSG:3413", (-660_000.0, -3_380_000.0, 880_000.0, -620_000.0)),
}
"""Name → CRS and bounds (metres) that hold the ice sheet with its margin."""

MAX_POSTS = 1_000_000_000

_OF_FIT = ("radius", "recipe", "terms", "fallback_radii", "weights", "period", "reference_epoch")


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What a user asked for; None where nothing was said.

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
    fallback_radii : tuple of float or None
        Radii tried in turn where a gate fails, metres; default none.
    weights : tuple of str or None
        What points are weighted by; default nothing.
    bounds : Bounds or None
        Posts lie inside; default: the selected points' extent.
    where : str or None
        Expression that selects points.
    mask : str or None
        File that says at which posts a map is wanted, see :class:`cryotile.geo.mask.Mask`; default: at all.
    period : (str, str) or None
        First instant and first instant after the last, UTC; default: whole years that cover the selected points.
    reference_epoch : str or None
        t = 0 of the fit; default: the middle of the period.
    tile_size : int or None
        Posts along a tile's side; default 100.
    """

    posting: float | None = None
    radius: float | None = None
    recipe: str | None = None
    terms: tuple[str, ...] | None = None
    fallback_radii: tuple[float, ...] | None = None
    weights: tuple[str, ...] | None = None
    bounds: Bounds | None = None
    where: str | None = None
    mask: str | None = None
    period: tuple[str, str] | None = None
    reference_epoch: str | None = None
    tile_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A request with every default filled in: what a run freezes.

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
        The posts that are wanted; None: all.
    """

    grid: Grid
    tile_size: int
    where: str | None
    fit: FitConfig
    mask: Mask | None = None

    def as_request(self) -> PlanRequest:
        """Return the request that would resolve to exactly these settings."""
        return PlanRequest(
            posting=self.grid.posting,
            radius=self.fit.radius,
            recipe=self.fit.recipe,
            terms=self.fit.terms,
            fallback_radii=self.fit.fallback_radii,
            weights=self.fit.weights,
            bounds=self.grid.bounds,
            where=self.where,
            mask=None if self.mask is None else self.mask.source,
            period=self.fit.period,
            reference_epoch=self.fit.reference_epoch,
            tile_size=self.tile_size,
        )


def differences(request: PlanRequest, settings: Settings) -> list[str]:
    """Name each setting of a request that is not what a run was frozen with.

    Parameters
    ----------
    request : PlanRequest
        Fields that are None ask for nothing.
    settings : Settings
        The run's.

    Returns
    -------
    list of str
        One ``name asked (frozen: value)`` per difference; empty when the request agrees.
    """
    frozen = settings.as_request()
    return [
        f"{field.name} {asked!r} (frozen: {held!r})"
        for field in fields(request)
        if (asked := getattr(request, field.name)) is not None
        and _meant(field.name, asked) != _meant(field.name, held := getattr(frozen, field.name))
    ]


def _meant(name: str, value: object) -> object:
    """Return what a setting means: an instant can be written in several ways."""
    if name == "period":
        return [parse_instant(str(text)) for text in cast("tuple[str, str]", value)]
    if name == "mask":
        return None if value is None else Path(str(value)).resolve()
    return parse_instant(str(value)) if name == "reference_epoch" else value


def resolve(request: PlanRequest, db: PointDB) -> Settings:
    """Fill in the defaults of a request from what the point DB holds, and check it.

    Parameters
    ----------
    request : PlanRequest
        What the user asked for.
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
    tile_size = _checked_tile_size(request.tile_size)
    squares = _selected_squares(request, fit, db)
    if "platform_offset" not in fit.terms:
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
    return Settings(grid=grid, tile_size=tile_size, where=request.where, fit=fit, mask=mask)


def _check_columns(fit: FitConfig, db: PointDB) -> None:
    for name in fit.column_terms:
        if name not in db.columns:
            raise InvalidValue(
                f"term {name!r} is neither one of {', '.join(TERMS)} nor a extra column of {db.path}"
                f" ({', '.join(db.columns) or 'none'}); leave it out, or ingest with --columns {name}"
            )


def _checked_tile_size(tile_size: int | None) -> int:
    size = 100 if tile_size is None else tile_size
    if not 1 <= size <= 10_000:
        raise InvalidValue(
            f"tile size {size} is not between 1 and 10000 posts; 100 suits most runs"
        )
    return size


def within_period(squares: pd.DataFrame, period: tuple[str, str] | None) -> pd.DataFrame:
    """Return the squares that may have points in a period.

    Parameters
    ----------
    squares : DataFrame
        As of :meth:`cryotile.PointDB.squares`.
    period : (str, str) or None
        First instant and first instant after the last; None: any time.

    Returns
    -------
    DataFrame
        Its rows whose times overlap with the period.
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
            f"{what}: nothing to plan; look at what there is with 'cryotile info {db.path}'"
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
    x_min, y_min, x_max, y_max = request.bounds
    reach = fit.reach
    seen = (x_min - reach, y_min - reach, x_max + reach, y_max + reach)
    inside = within_period(db.squares(seen, where=request.where), fit.period)
    if inside.empty:
        extent = " ".join(f"{edge:.0f}" for edge in extent_of(everything))
        bounds = " ".join(f"{edge:g}" for edge in request.bounds)
        raise InvalidValue(
            f"bounds {bounds} hold no point; give some that overlap with the data, {extent} (x_min y_min x_max y_max)"
        )
    return inside


def extent_of(squares: pd.DataFrame) -> Bounds:
    """Return the bounds of squares, of which there is one at least, given by ``x_min, y_min``."""
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
