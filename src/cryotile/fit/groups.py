"""Groups of passes that may share an error, and what the rate changes by when all passes of one are left out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cryotile.fit.agreement import SPLITS
from cryotile.fit.config import FitConfig
from cryotile.fit.inputs import Inputs, make_kernel, take_inputs
from cryotile.fit.variables import VARIABLES, Status, Variable, instants_of

__all__ = [
    "GROUPINGS",
    "MAPPED",
    "Grouping",
    "Sharing",
    "campaigns",
    "leave_out",
    "seasons",
    "sharing",
    "variables",
]

GROUPINGS = ("season", "campaign")

MAPPED = {
    **dict.fromkeys(SPLITS, "dhdt_difference_ratio"),
    **{name: f"{name}_ratio" for name in GROUPINGS},
}
"""Name of a comparison of a validation, by halves or by groups → the variable that a map of it shows."""

SEASONS = ("DJF", "MAM", "JJA", "SON")

LONGEST_PAUSE = np.timedelta64(15, "D")
"""A longer one between granules of a platform divides two campaigns; ICESat's pauses were of two months and more."""

LONGEST_CAMPAIGN = np.timedelta64(366, "D")
"""A longer one, of a platform that never pauses, is cut into calendar years."""

LEVEL = 0.01
"""Chance that some part of a grouping shows a shared error where there is none, at most."""

MARGIN = 1.1
"""Factor on the largest ratio by chance: the ratio of simulated worlds without shared errors is 0.95 to 1.09."""

_Floats = npt.NDArray[np.float64]
_Instants = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class Grouping:
    """A way to group passes; each group is left out at once.

    Attributes
    ----------
    name : str
        Of :data:`GROUPINGS`.
    parts : tuple of str
        What groups are summarized by: the four seasons, whatever the year, or each campaign.
    groups : tuple of (int, str, str, str)
        Place of its part, platform (empty: any), first instant and first instant after the last, ISO 8601.
    """

    name: str
    parts: tuple[str, ...]
    groups: tuple[tuple[int, str, str, str], ...]

    @property
    def of_part(self) -> Iterator[tuple[str, npt.NDArray[np.intp]]]:
        """Each part, and the places of its groups."""
        places = np.array([group[0] for group in self.groups], int)
        for k, part in enumerate(self.parts):
            yield part, np.flatnonzero(places == k)

    def labels(self, times: _Instants, platforms: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Return the place of the group of each pass, -1 for none."""
        found = np.full(times.size, -1, np.int32)
        for k, (_, platform, start, end) in enumerate(self.groups):
            inside = (times >= np.datetime64(start)) & (times < np.datetime64(end))
            found[inside & ((platforms == platform) | (not platform))] = k
        return found


def seasons(period: tuple[str, str]) -> Grouping:
    """Return the seasons of a period: three months each, from December on.

    Parameters
    ----------
    period : (str, str)
        First instant, and first instant after the last.
    """
    first, last = (pd.Timestamp(text) for text in period)
    # Numbers of quarters that start a month before those of the calendar.
    start, end = ((12 * t.year + t.month) // 3 for t in (first, last - pd.Timedelta(1, "ms")))
    months = [np.datetime64("0000-01", "M") + 3 * k - 1 for k in range(start, end + 2)]
    groups = tuple(
        (k % 4, "", str(months[k - start]), str(months[k - start + 1]))
        for k in range(start, end + 1)
    )
    return Grouping("season", SEASONS, groups)


def campaigns(granules: pd.DataFrame, period: tuple[str, str]) -> Grouping:
    """Return the campaigns of each platform: times without a long pause, or calendar years where it never pauses.

    Parameters
    ----------
    granules : DataFrame
        ``platforms`` (lists), ``rows``, ``time_min`` and ``time_max``, as :attr:`cryotile.pointdb.PointDB.granules`.
    period : (str, str)
        First instant, and first instant after the last.
    """
    bounds = [np.datetime64(pd.Timestamp(text).as_unit("ms")) for text in period]
    held = granules[granules["rows"] > 0].explode("platforms").dropna(subset="time_min")
    groups: list[tuple[int, str, str, str]] = []
    parts: list[str] = []
    for platform, some in held.groupby("platforms"):
        some = some.sort_values("time_min")
        starts, ends = some["time_min"].to_numpy(), some["time_max"].cummax().to_numpy()
        new = np.append(True, starts[1:] - ends[:-1] > LONGEST_PAUSE)
        last = np.append(np.flatnonzero(new)[1:], len(some)) - 1
        for start, end in zip(starts[new], ends[last] + np.timedelta64(1, "ms"), strict=True):
            for name, *limits in _cut(max(start, bounds[0]), min(end, bounds[1])):
                groups.append((len(parts), str(platform), str(limits[0]), str(limits[1])))
                parts.append(f"{platform} {name}")
    return Grouping("campaign", tuple(parts), tuple(groups))


def _cut(start: np.datetime64, end: np.datetime64) -> Iterator[tuple[str, Any, Any]]:
    """Cut a time into calendar years if it is longer than one; yield names and limits."""
    if end <= start:
        return
    if end - start <= LONGEST_CAMPAIGN:
        yield str(start.astype("datetime64[D]")), start, end
        return
    first, last = (t.astype("datetime64[Y]") for t in (start, end - np.timedelta64(1, "ms")))
    for year in np.arange(first, last + 1):
        yield (
            str(year),
            max(start, year.astype(start.dtype)),
            min(end, (year + 1).astype(end.dtype)),
        )


def leave_out(
    points: pd.DataFrame,
    post_x: _Floats,
    post_y: _Floats,
    config: FitConfig,
    grouping: Grouping,
    *,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> xr.Dataset:
    """Fit posts by the recipe ``passes``, and once more without the passes of each group.

    The spread of pass offsets, the prior and the free passes are those of the whole fit.

    Parameters
    ----------
    points : DataFrame
        As of :func:`cryotile.fit_posts`.
    post_x, post_y : ndarray, shapes (nx,), (ny,)
        Posts, m.
    config : FitConfig
        Settings of the fit.
    grouping : Grouping
        The groups.
    wanted : ndarray of bool, shape (ny, nx), or None
        Posts to fit; None: all.

    Returns
    -------
    Dataset, dimensions (y, x)
        The variables of :func:`variables`.
    """
    inputs = take_inputs(points, config)
    labels = _labels(inputs, grouping)
    still_open = np.ones((len(post_y), len(post_x)), bool) if wanted is None else wanted.copy()
    posts = changes = None
    for radius in (config.radius, *config.fallback_radii):
        kernel, cells = make_kernel(inputs, post_x, post_y, radius)
        fitted, _, more = kernel.fit(
            post_x,
            post_y,
            still_open.view(np.uint8),
            cells.order.size,
            groups=labels,
            group_total=len(grouping.groups),
        )
        found = still_open & (fitted["status"] == Status.OK)
        if posts is None or changes is None:
            posts, changes = fitted, more["changes"]
            _clear(posts, ~still_open)
        else:
            posts[found], changes[found] = fitted[found], more["changes"][found]
        still_open &= ~found
    assert posts is not None
    assert changes is not None
    values = _summarize_posts(posts, changes, inputs.config, grouping)
    values["passes_around"] = np.full(posts.shape, int((labels >= 0).sum()))
    return xr.Dataset(
        {
            v.name: (("y", "x"), values[v.name].astype(v.dtype), dict(v.attrs))
            for v in variables(grouping)
        },
        coords={"y": post_y, "x": post_x},
    )


def _clear(posts: npt.NDArray[np.void], unwanted: npt.NDArray[np.bool_]) -> None:
    """Take the values from posts that the kernel has not touched."""
    for name in posts.dtype.names or ():
        if posts[name].dtype.kind == "f":
            posts[name][unwanted] = np.nan
    posts["status"][unwanted] = Status.NOT_COMPUTED


def _labels(inputs: Inputs, grouping: Grouping) -> npt.NDArray[np.int32]:
    """Return the group of each pass, by its earliest point."""
    used = np.flatnonzero(inputs.passes >= 0)
    order = used[np.argsort(inputs.ticks[used], kind="stable")]
    codes, first = np.unique(inputs.passes[order], return_index=True)
    times = (inputs.ticks[order[first]] * inputs.tick).astype("datetime64[ns]")
    known = "platform" in inputs.points.columns
    platforms = (
        inputs.points["platform"].iloc[order[first]].astype(str).to_numpy()
        if known
        else np.full(codes.size, "")
    )
    labels = np.full((1, max(inputs.pass_total, 1)), -1, np.int32)
    labels[0, codes] = grouping.labels(times, platforms)
    return labels


def _summarize_posts(
    posts: npt.NDArray[np.void], changes: _Floats, config: FitConfig, grouping: Grouping
) -> dict[str, npt.NDArray[Any]]:
    """Return the values of each post, by the names of their variables."""
    name, ok = grouping.name, posts["status"] == Status.OK
    delta, sigma = changes[..., 0], changes[..., 1]
    dof = np.where(ok, posts["pass_count"] - 1, 0)
    # The square of Student's t has the expectation ν / (ν - 2).
    shrink = np.sqrt(np.where(dof > 2, (dof - 2) / np.maximum(dof, 1), np.nan))
    ratio = delta / sigma * shrink[..., None]
    known = np.isfinite(ratio)
    squares = np.where(known, delta, 0) ** 2
    values = {
        **{name: posts[name] for name in ("dhdt", "dhdt_sigma", "pass_count", "status")},
        f"dhdt_sigma_{name}": np.where(known.any(-1), np.sqrt(squares.sum(-1)), np.nan),
        f"{name}_ratio": _rms(ratio),
        f"{name}_count": known.sum(-1),
        **{end: instants_of(posts[end], config) for end in ("time_start", "time_end")},
    }
    for (_, places), variable in zip(grouping.of_part, _of_parts(grouping), strict=True):
        values[variable.name] = _rms(ratio[..., places])
    return values


def _rms(ratio: _Floats) -> _Floats:
    """Return the root mean square along the last axis of what is known; NaN where nothing is."""
    known = np.isfinite(ratio)
    count = known.sum(-1)
    mean = np.where(known, ratio, 0) ** 2
    found: _Floats = np.sqrt(mean.sum(-1) / np.where(count > 0, count, np.nan))
    return found


def _of_parts(grouping: Grouping) -> list[Variable]:
    """Return the variable of each part."""
    return [
        Variable(
            f"ratio_{part.lower().replace(' ', '_').replace('-', '_')}",
            "float64",
            np.nan,
            {"units": "1", "long_name": _RATIO.format(of=part)},
        )
        for part in grouping.parts
    ]


_RATIO = "change of dhdt without {of}, over its sigma if passes share no error"


def variables(grouping: Grouping) -> tuple[Variable, ...]:
    """Return the variables of :func:`leave_out`."""
    name = grouping.name
    shared = {variable.name: variable for variable in VARIABLES}
    sigma = f"standard error of dhdt, by leaving out each {name}"
    return (
        shared["dhdt"],
        shared["dhdt_sigma"],
        Variable(f"dhdt_sigma_{name}", "float64", np.nan, {"units": "m yr-1", "long_name": sigma}),
        Variable(
            f"{name}_ratio",
            "float64",
            np.nan,
            {"units": "1", "long_name": f"rms {_RATIO.format(of=f'a {name}')}"},
        ),
        Variable(
            f"{name}_count",
            "int32",
            0,
            {"units": "1", "long_name": f"number of each {name} that can be left out"},
        ),
        *_of_parts(grouping),
        Variable(
            "passes_around",
            "int32",
            0,
            {"units": "1", "long_name": "passes of all points that the tile was fitted from"},
        ),
        *(shared[name] for name in ("pass_count", "time_start", "time_end", "status")),
    )


@dataclass(frozen=True)
class Sharing:
    """Whether passes of a part of a grouping share an error.

    Attributes
    ----------
    part : str
        ``all``, or one of the parts.
    groups, posts : int
        Number of its groups that are left out somewhere, and of posts where one is.
    ratio : float
        Root mean square over posts and groups of the change of the rate without a group, over the standard deviation
        that it has if passes share no error; 1 is expected.
    limit : float
        Ratio beyond which a shared error shows: :data:`MARGIN` times the largest by chance.
    sigma : float
        Median over posts of the standard error by leaving out groups, over that by leaving out passes; NaN but for
        ``all``.
    beyond : float
        Share of posts whose own ratio is beyond that of 95 %, where 0.05 is expected; NaN but for ``all``.
    """

    part: str
    groups: int
    posts: int
    ratio: float
    limit: float
    sigma: float = math.nan
    beyond: float = math.nan

    @property
    def shows(self) -> bool:
        """Whether a shared error shows."""
        return self.ratio > self.limit


def sharing(left_out: xr.Dataset, grouping: Grouping) -> list[Sharing]:
    """Summarize the changes at some posts.

    Parameters
    ----------
    left_out : Dataset
        As of :func:`leave_out`.
    grouping : Grouping
        Its groups.

    Returns
    -------
    list of Sharing
        All groups first; parts without a group that is left out somewhere are not listed, so the list may be empty.
    """
    from scipy.stats import chi2  # takes longer to import than a tile to fit

    # Posts that share a pass share its error: as many are independent as have passes of their own.
    fitted = np.isfinite(left_out["dhdt_sigma"].to_numpy())
    around, of_post = (
        left_out[name].to_numpy()[fitted] for name in ("passes_around", "pass_count")
    )
    independent = float(np.median(around / of_post)) if fitted.any() else 1.0
    ratio, counts, sigma = (
        left_out[name].to_numpy()
        for name in (
            f"{grouping.name}_ratio",
            f"{grouping.name}_count",
            f"dhdt_sigma_{grouping.name}",
        )
    )
    known = np.isfinite(ratio)
    rows = [("all", len(grouping.groups), ratio, np.where(known, counts, 0))]
    for (part, places), variable in zip(grouping.of_part, _of_parts(grouping), strict=True):
        values = left_out[variable.name].to_numpy()
        rows.append((part, places.size, values, np.isfinite(values).astype(int)))
    rows = [row for row in rows if row[3].any()]
    found = []
    for part, groups, values, weights in rows:
        size = groups * independent
        found.append(
            Sharing(
                part=part,
                groups=groups,
                posts=int((weights > 0).sum()),
                ratio=float(np.sqrt(np.average(np.nan_to_num(values) ** 2, weights=weights))),
                limit=float(MARGIN * np.sqrt(chi2.ppf(1 - LEVEL / len(rows), size) / size)),
            )
        )
    if found:
        by_passes = left_out["dhdt_sigma"].to_numpy()[known]
        own = ratio[known] ** 2 * counts[known] > chi2.ppf(0.95, counts[known])
        found[0] = replace(
            found[0],
            sigma=float(np.median(sigma[known] / by_passes)),
            beyond=float(np.mean(own)),
        )
    return found
