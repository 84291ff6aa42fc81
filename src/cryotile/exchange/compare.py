"""Comparison of a product with a reference: one grid, one sign, one period, and what remains of the difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.exchange.matching import Matched, Places, match
from cryotile.exchange.reference import (
    Field,
    Floats,
    Period,
    Rate,
    Reference,
    period_text,
    years_of,
)
from cryotile.fit.agreement import MAD_TO_SIGMA
from cryotile.fit.variables import axis_attrs
from cryotile.geo.projection import crs_text
from cryotile.geo.regions import Regions

__all__ = ["Comparison", "compare_maps", "label_of", "summary"]

_Inside = Mapping[str, npt.NDArray[np.bool_]]

SLOPES = (0.0, 0.1, 0.2, 0.5, 1.0, np.inf)
"""Edges of the classes of surface slope, degrees."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A product against a reference.

    Attributes
    ----------
    maps : Dataset
        Maps over y and x, m/yr: ``dhdt_product``, ``dhdt_reference``, ``dhdt_difference`` (product less reference);
        with sigmas ``dhdt_product_sigma``, ``dhdt_reference_sigma`` and ``dhdt_difference_ratio``, the difference over
        the root of both variances; ``slope``, degrees.
    table : DataFrame
        A row for all posts, for each class of slope and for each region; see :func:`summary`.
    layout : str
        Layout of the reference.
    product, reference : str
        What was compared: names and periods.
    notes : tuple of str
        What was converted, averaged, assumed or dropped.
    unknowns : tuple of str
        What the rates of the product and their standard errors do not know.
    """

    maps: xr.Dataset
    table: pd.DataFrame
    layout: str
    product: str
    reference: str
    notes: tuple[str, ...]
    unknowns: tuple[str, ...] = ()

    @property
    def overall(self) -> pd.Series:
        """The row of all posts."""
        return self.table.iloc[0]


def compare_maps(
    own: Reference,
    other: Reference,
    *,
    slope: Floats | None = None,
    regions: Regions | None = None,
    unknowns: Sequence[str] = (),
) -> Comparison:
    """Compare a product with a reference.

    Parameters
    ----------
    own : Reference
        The product, by :func:`cryotile.exchange.own.of_product`.
    other : Reference
        By :func:`cryotile.exchange.layouts.read_reference`.
    slope : ndarray, shape (ny, nx), or None
        Surface slope at the posts of the product, degrees.
    regions : Regions or None
        Regions on the grid of the product.
    unknowns : sequence of str
        As of :class:`Comparison`.

    Returns
    -------
    Comparison

    Raises
    ------
    InvalidValue
        The periods or the areas are disjoint.
    """
    mine, theirs, notes = _pair(own, other)
    one, two = mine.read(), theirs.read()
    extras: dict[str, npt.NDArray[Any]] = {} if slope is None else {"slope": slope}
    extras |= {} if regions is None else {"region": regions.number}
    matched = match(Places.of(own), one, Places.of(other), two, extras)
    maps = _maps(matched)
    if not np.isfinite(maps["dhdt_difference"]).any():
        raise InvalidValue(_disjoint(own, other, one, two))
    inside = {} if regions is None else dict(enumerate(regions.names))
    notes += [*other.notes, *(f"product: {note}" for note in one.notes), *two.notes, matched.note]
    table = summary(maps, {name: matched.extras["region"] == k for k, name in inside.items()})
    without = set(inside.values()) - set(table.loc[table["group"] == "region", "name"])
    notes += [f"basin {name} has no post with both" for name in inside.values() if name in without]
    return Comparison(
        maps,
        table,
        other.layout,
        f"{own.name}, {mine.label}, {period_text(mine.period)}",
        f"{other.name}, {theirs.label}, {period_text(theirs.period)}",
        tuple(dict.fromkeys(notes)),
        tuple(unknowns),
    )


# --- periods -----------------------------------------------------------------------------------------------------


def _pair(own: Reference, other: Reference) -> tuple[Rate, Rate, list[str]]:
    """Return the rates of product and reference whose periods are nearest to each other, and what differs."""
    whole = own.rates[0]
    pairs = [
        (mine, theirs)
        for mine in own.rates
        for theirs in (other.rates or (other.rates_for(mine.period) if mine.period else ()))
    ]
    if not pairs:
        raise InvalidValue(
            f"{other.name} ({other.layout}) has {len(other.epochs)} epoch(s), and a rate needs two that differ in the"
            " period of the product; give more of its files"
        )
    dated = [(m, t) for m, t in pairs if m.period is not None and t.period is not None]
    if not dated:
        return (
            whole,
            pairs[0][1],
            ["the reference states no period: the whole period of the product is compared"],
        )
    shares = np.array([_overlap(m.period, t.period) for m, t in dated])  # type: ignore[arg-type]
    if shares.max() <= 0.0:
        spans = [_span([r.period for r in rates]) for rates in zip(*dated, strict=True)]
        raise InvalidValue(
            f"{other.name} covers {spans[1]} and {own.name} {spans[0]}: they share no time; choose a reference of the"
            " same years"
        )
    # Of equal overlaps the longest: its rate is the most certain.
    lengths = np.array([years_of(m.period) for m, _ in dated if m.period is not None])
    best = np.lexsort((-lengths, -np.round(shares, 6)))[0]
    mine, theirs = dated[best]
    notes = []
    if shares[best] < 0.999:
        notes.append(
            f"periods differ: product {period_text(mine.period)}, reference {period_text(theirs.period)};"
            f" {100 * shares[best]:.0f} % of their union is common"
        )
    return mine, theirs, notes


def _overlap(one: Period, other: Period) -> float:
    """Return the common time of two periods over that of either."""
    common = min(one[1], other[1]) - max(one[0], other[0])
    union = max(one[1], other[1]) - min(one[0], other[0])
    return max(float(common / union), 0.0) if union else 0.0


def _span(periods: Sequence[Period | None]) -> str:
    known = [period for period in periods if period is not None]
    return period_text((min(start for start, _ in known), max(end for _, end in known)))


# --- places ------------------------------------------------------------------------------------------------------


def _disjoint(own: Reference, other: Reference, one: Field, two: Field) -> str:
    for name, field in ((own.name, one), (other.name, two)):
        if not np.isfinite(field.value).any():
            return f"{name} has no rate in this period; choose another period or file"
    edges = []
    for reference in (own, other):
        x, y = Places.of(reference).places_in(own.crs)
        edges.append((np.nanmin(x), np.nanmin(y), np.nanmax(x), np.nanmax(y)))
    texts = [" ".join(f"{edge / 1e3:.0f}" for edge in each) for each in edges]
    return (
        f"{other.name} and {own.name} share no post with a rate; their bounds are {texts[1]} and {texts[0]} km in"
        f" {_short(own.crs)}; choose a reference of the same region"
    )


def _short(crs: pyproj.CRS) -> str:
    text = crs_text(crs)
    return text if len(text) < 20 else str(crs.name)


def _maps(matched: Matched) -> xr.Dataset:
    one, two = matched.product, matched.reference
    both = np.isfinite(one.value) & np.isfinite(two.value)
    difference = np.where(both, one.value - two.value, np.nan)
    maps = {
        "dhdt_product": (np.where(both, one.value, np.nan), "m yr-1", "rate of the product"),
        "dhdt_reference": (np.where(both, two.value, np.nan), "m yr-1", "rate of the reference"),
        "dhdt_difference": (difference, "m yr-1", "rate of the product less that of the reference"),
    }
    for name, field in (("product", one), ("reference", two)):
        if field.sigma is not None:
            about = f"standard error of the rate of the {name}"
            maps[f"dhdt_{name}_sigma"] = (np.where(both, field.sigma, np.nan), "m yr-1", about)
    if one.sigma is not None and two.sigma is not None:
        sigma = np.hypot(one.sigma, two.sigma)
        ratio = np.divide(difference, sigma, out=np.full_like(sigma, np.nan), where=sigma > 0)
        about = "difference over the root of the sum of both variances"
        maps["dhdt_difference_ratio"] = (ratio, "1", about)
    if "slope" in matched.extras:
        maps["slope"] = (matched.extras["slope"], "degree", "surface slope by the product")
    grid = matched.grid
    return xr.Dataset(
        {
            name: (("y", "x"), values, {"units": units, "long_name": text})
            for name, (values, units, text) in maps.items()
        },
        coords={
            "y": ("y", grid.y, axis_attrs("y")),
            "x": ("x", grid.x, axis_attrs("x")),
        },
        attrs={"crs": crs_text(grid.crs), "posting": grid.posting},
    )


# --- numbers -----------------------------------------------------------------------------------------------------


def summary(maps: xr.Dataset, regions: _Inside = MappingProxyType({})) -> pd.DataFrame:
    """Return the numbers of a comparison: all posts, by slope, by region; posts weigh equally.

    Parameters
    ----------
    maps : Dataset
        As of :class:`Comparison`.
    regions : mapping of str to ndarray of bool
        Name of a region → posts of the maps in it.

    Returns
    -------
    DataFrame
        Columns ``group`` (``all``, ``slope`` or ``region``), ``name``, ``posts``; of the difference, m/yr: ``bias``
        (mean), ``median``, ``mad`` (1.4826 times the median distance from the median), ``rms``; of the ratio, NaN
        without sigmas: ``ratio_rms``, ``ratio_mad``, ``within_ci95`` (share within ±1.96; 0.95 is expected).  A class
        without a post has no row.
    """
    rows = [_row(maps, *group) for group in _groups(maps, regions)]
    return pd.DataFrame([row for row in rows if row["posts"] or row["group"] == "all"])


def label_of(row: Mapping[Any, Any]) -> str:
    """Return what a row of :func:`summary` is about, in words."""
    return str(row["name"]) if row["group"] == "all" else f"{row['group']} {row['name']}"


def _groups(maps: xr.Dataset, regions: _Inside) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    yield "all", "all", np.ones(maps["dhdt_difference"].shape, bool)
    if "slope" in maps:
        slope = maps["slope"].to_numpy()
        for low, high in pairwise(SLOPES):
            name = f"{low:g} to {high:g}°" if np.isfinite(high) else f"over {low:g}°"
            yield "slope", name, (slope >= low) & (slope < high)
    for name, inside in regions.items():
        yield "region", name, inside


def _row(
    maps: xr.Dataset, group: str, name: str, some: npt.NDArray[np.bool_]
) -> dict[str, str | int | float]:
    difference = _finite(maps["dhdt_difference"].to_numpy()[some])
    ratio = np.empty(0)
    if "dhdt_difference_ratio" in maps:
        ratio = _finite(maps["dhdt_difference_ratio"].to_numpy()[some])
    return {
        "group": group,
        "name": name,
        "posts": difference.size,
        **_spread(difference),
        "ratio_rms": float(np.sqrt(np.mean(ratio**2))) if ratio.size else np.nan,
        "ratio_mad": _mad(ratio),
        "within_ci95": float(np.mean(np.abs(ratio) <= 1.959964)) if ratio.size else np.nan,
    }


def _spread(difference: Floats) -> dict[str, float]:
    if not difference.size:
        return dict.fromkeys(("bias", "median", "mad", "rms"), np.nan)
    return {
        "bias": float(np.mean(difference)),
        "median": float(np.median(difference)),
        "mad": _mad(difference),
        "rms": float(np.sqrt(np.mean(difference**2))),
    }


def _mad(values: Floats) -> float:
    if not values.size:
        return float("nan")
    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]
