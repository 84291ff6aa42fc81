"""Explain one post of a run: its points and passes, rejections and their reasons, gates and the interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyproj
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.fit.config import FitConfig
from cryotile.fit.diagnosis import (
    Diagnosis,
    Gate,
    Reason,
    explain_gates,
    explain_post,
)
from cryotile.fit.posts import fit_posts
from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid, Tile
from cryotile.points import name_pass
from cryotile.runs.run import Run, open_db
from cryotile.runs.work import read_window

__all__ = ["Explanation", "StoredPost", "explain_at", "nearest_post"]


@dataclass(frozen=True)
class StoredPost:
    """Values of a tile at a post.

    Attributes
    ----------
    tile : str
        Name of the tile.
    dhdt : float
        m/yr; NaN without a fit or a tile.
    status : Status
        ``NOT_COMPUTED`` if there is no tile, ``OUTSIDE_MASK`` if the post is not wanted.
    wanted : bool
        Whether the post is inside the mask of the run.
    """

    tile: str
    dhdt: float
    status: Status
    wanted: bool = True

    def agrees(self, fit: xr.Dataset) -> bool:
        """Return whether a fit equals that of the tile."""
        same = np.isclose(self.dhdt, float(fit["dhdt"]), rtol=0, atol=1e-9, equal_nan=True)
        return bool(same) and self.status == int(fit["status"])


@dataclass(frozen=True, eq=False)
class Explanation:
    """Everything that is known of a post.

    Attributes
    ----------
    x, y : float
        The post, m.
    longitude, latitude : float
        Position of the post, degrees.
    config : FitConfig
        Settings, with the radius of the fit.
    fit : Dataset
        Fit of the post, without dimensions.
    gates : list of Gate
        In the order in which they are tried.
    points : DataFrame
        The points within the radius, with ``distance`` (m), ``residual`` (m, NaN before there is a fit), ``reason``
        (of :class:`cryotile.fit.diagnosis.Reason`), ``pass_offset`` (m, of its pass), ``granule`` (names of the files
        that have its pass and reach to its place and time, with commas between) and ``detail``.
    passes : DataFrame
        One row a pass: ``pass_id``, ``name`` (in words), ``time``, ``direction``, ``mode``, ``platform``, ``granule``,
        ``points``, ``rejected``, ``offset`` (m), ``t``, ``free``, ``delta`` (m/yr, dh/dt without it less dh/dt) and
        ``share`` (of the variance of dh/dt).
    likelihood : DataFrame
        As of :class:`cryotile.fit.diagnosis.Diagnosis`.
    point_limit : float
        A point is rejected further than this from the offset of its pass, m; NaN if no point was screened.
    stored : StoredPost
        Values of the run at the post.
    """

    x: float
    y: float
    longitude: float
    latitude: float
    config: FitConfig
    fit: xr.Dataset
    gates: list[Gate]
    points: pd.DataFrame
    passes: pd.DataFrame
    likelihood: pd.DataFrame
    point_limit: float
    stored: StoredPost


def nearest_post(grid: Grid, x: float, y: float) -> tuple[int, int]:
    """Return the numbers along x and y of the post nearest to a place.

    Parameters
    ----------
    grid : Grid
        Where the posts are.
    x, y : float
        Metres in the CRS of the grid.

    Raises
    ------
    InvalidValue
        The place is more than half a posting outside the grid.
    """
    numbers = []
    for name, value, posts in (("x", x, grid.columns), ("y", y, grid.rows)):
        # A value that is not finite gets a number behind the last post.
        number = round(value / grid.posting) if math.isfinite(value) else posts.stop
        if number not in posts:
            low, high = posts[0] * grid.posting, posts[-1] * grid.posting
            # Few users mean a place within 360 m of the pole.
            degrees = "; for degrees use lonlat=True" if abs(x) <= 360 and abs(y) <= 90 else ""
            raise InvalidValue(
                f"{name} {value:.12g} m is outside the grid, whose posts reach from {low:.12g} to {high:.12g} m in"
                f" {grid.crs}; give a place among them{degrees}"
            )
        numbers.append(number)
    return numbers[0], numbers[1]


def explain_at(run: Run, x: float, y: float) -> Explanation:
    """Fit one post of a run again, and keep the intermediate results.

    Parameters
    ----------
    run : Run
        Settings and snapshot.
    x, y : float
        Metres in the CRS of the run; the nearest post is taken.

    Raises
    ------
    InvalidValue
        The place is outside the grid, or the point DB is gone.
    """
    grid = run.settings.grid
    i, j = nearest_post(grid, x, y)
    place = (i * grid.posting, j * grid.posting)
    (x, y), reach = place, run.settings.fit.reach
    db = open_db(run)
    points = read_window(run, db, (x - reach, y - reach, x + reach, y + reach))
    # By the function that fits tiles, so that the same fit is explained.
    # Without limits a fit tells its rate and interval, however large.
    unlimited = replace(run.settings.fit, max_rate=math.inf, max_ci95=math.inf)
    fit, ungated = (
        fit_posts(points, [x], [y], config).isel(x=0, y=0)
        for config in (run.settings.fit, unlimited)
    )
    diagnosis = explain_post(points, *place, run.settings.fit)
    near = _judged(points, place, diagnosis, db.granules_at(run.snapshot))
    # Gates and terms of the radius that the fit of the post has.
    config = replace(run.settings.fit, radius=diagnosis.radius, fallback_radii=())
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform(*place)
    return Explanation(
        x=x,
        y=y,
        longitude=longitude,
        latitude=latitude,
        config=config,
        fit=fit,
        gates=explain_gates(fit, config, diagnosis, ungated),
        points=near,
        passes=_by_pass(near, diagnosis),
        likelihood=diagnosis.likelihood,
        point_limit=diagnosis.point_limit,
        stored=_stored(run, i, j),
    )


def _judged(
    points: pd.DataFrame,
    place: tuple[float, float],
    diagnosis: Diagnosis,
    granules: pd.DataFrame,
) -> pd.DataFrame:
    """Return the points within the radius, each with its verdict and the reason."""
    told, limit = diagnosis.points, diagnosis.point_limit
    near: pd.DataFrame = points.iloc[told["index"].to_numpy()].reset_index(drop=True)
    near["granule"] = _granules_of(near, granules)
    near["distance"] = np.hypot(near["x"] - place[0], near["y"] - place[1])
    for name in ("pass_id", "residual", "pass_offset", "reason"):
        near[name] = told[name]
    details = {
        Reason.KEPT: "",
        Reason.FREE_PASS: "its pass has an unknown offset",
        Reason.POINT_REJECTED: "{off:+.2f} m from its pass, more than {limit:.2f} m",
        Reason.OTHER_KIND: "of a mode or platform that is not the most frequent",
    }
    off = near["residual"] - near["pass_offset"]
    near["detail"] = [
        details[Reason(reason)].format(off=one, limit=limit)
        for reason, one in zip(near["reason"], off, strict=True)
    ]
    return near


def _granules_of(points: pd.DataFrame, granules: pd.DataFrame) -> list[str]:
    """Return the names of the granules that hold the pass of each point and reach to its place and time."""
    here = granules[granules["rows"] > 0]
    for name in ("x", "y", "time"):
        low, high = points[name].min(), points[name].max()
        here = here[(here[f"{name}_min"] <= high) & (here[f"{name}_max"] >= low)]
    columns = ["name", "x_min", "x_max", "y_min", "y_max", "time_min", "time_max"]
    held = here[["passes", *columns]].explode("passes").groupby("passes")
    names = np.full(len(points), "", dtype=object)
    for number, rows in points.groupby("pass_id").indices.items():
        some = points.iloc[rows]
        for _, one in held.get_group(number).iterrows() if number in held.groups else ():
            inside = np.logical_and.reduce(
                [some[n].between(one[f"{n}_min"], one[f"{n}_max"]) for n in ("x", "y", "time")]
            )
            names[rows[inside]] += f"{one['name']},"
    return [text.removesuffix(",") for text in names]


def _by_pass(points: pd.DataFrame, diagnosis: Diagnosis) -> pd.DataFrame:
    """Return one row for each pass, in order of time."""
    rows = [
        {
            "pass_id": number,
            "name": name_pass(int(str(number))),
            "time": some["time"].min(),
            "direction": _direction(some["ascending"]),
            "mode": "+".join(sorted(some["mode"].astype(str).unique())),
            "platform": "+".join(sorted(some["platform"].astype(str).unique())),
            "granule": ",".join(
                sorted({n for text in some["granule"].unique() for n in text.split(",") if n})
            ),
            "points": len(some),
            "rejected": int((~some["reason"].isin([Reason.KEPT, Reason.FREE_PASS])).sum()),
        }
        for number, some in points.groupby("pass_id")
    ]
    columns = ["pass_id", "name", "time", "direction", "mode", "platform", "granule"]
    table = pd.DataFrame(rows, columns=[*columns, "points", "rejected"]).set_index("pass_id")
    table = table.join(diagnosis.passes.set_index("pass_id"))
    # A pass of another mode is in no fit.
    table["free"] = table["free"].eq(True)
    table["share"] = table["delta"] ** 2 / (table["delta"] ** 2).sum()
    return table.reset_index().sort_values(["time", "pass_id"], ignore_index=True)


def _direction(ascending: pd.Series) -> str:
    known = ascending.dropna()
    if known.empty:
        return "unknown"
    return "ascending" if known.all() else "mixed" if known.any() else "descending"


def _stored(run: Run, i: int, j: int) -> StoredPost:
    """Read the post from its tile."""
    grid, size, mask = run.settings.grid, run.settings.tile_size, run.settings.mask
    at = j - grid.rows.start, i - grid.columns.start
    wanted = mask is None or bool(mask.inside[at])
    found = np.flatnonzero((run.table["ix"] == i // size) & (run.table["iy"] == j // size))
    if not found.size:
        name = f"x{i // size:+05d}_y{j // size:+05d}"
        status = Status.NO_POINTS if wanted else Status.OUTSIDE_MASK
        return StoredPost(name, np.nan, status, wanted)
    tile: Tile = run.tile(int(found[0]))
    if not run.store.is_current(tile, run.fingerprint(int(found[0]))):
        status = Status.NOT_COMPUTED if wanted else Status.OUTSIDE_MASK
        return StoredPost(tile.name, np.nan, status, wanted)
    post = run.store.load(tile).isel(x=tile.columns.index(i), y=tile.rows.index(j))
    return StoredPost(tile.name, float(post["dhdt"]), Status(int(post["status"])), wanted)
