"""The table of totals: area, mean rate, volume and mass of each region, with their standard errors."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cryotile.errors import command
from cryotile.geo.regions import WHOLE
from cryotile.maps.unknown import unknowns
from cryotile.totalling.corrections import Correction, Density, density_of, read_correction
from cryotile.totalling.fill import Filled, fill
from cryotile.totalling.posts import PassDeltas, Posts, deltas_of, region_names
from cryotile.totalling.sigma import Estimate, interval, of_deltas, pooled

__all__ = ["COLUMNS", "Totals", "total_over"]

Array = npt.NDArray[np.float64]

COLUMNS: Mapping[str, str] = {
    "region": "name of the region; all: the union of all regions",
    "term": "dhdt, gia, firn: what adds to the total; total: their sum, or dhdt alone without corrections",
    "area_km2": "true area of the region's posts",
    "fitted_km2": "of it, with a fit",
    "filled_km2": "of it, without a fit and filled",
    "filled_share": "of it, the share without a fit and filled, 0 to 1",
    "filled_by": "none, hypsometric or neighbours",
    "unknown_km2": "of it, neither fitted nor filled; of a correction: with a rate, where the grid has no value",
    "rate_m_yr": "mean rate over the fitted and filled area, m/yr",
    "rate_sigma": "its standard error",
    "volume_km3_yr": "change of volume, km3/yr",
    "volume_sigma": "its standard error",
    "volume_ci95": "half width of its 95 % interval",
    "mass_gt_yr": "change of mass, Gt/yr; NaN without a density",
    "mass_sigma": "its standard error",
    "mass_ci95": "half width of its 95 % interval",
    "dof": "degrees of freedom of the interval; inf: that of a normal distribution",
}
"""Columns of the table of totals."""

CUBIC_KM, GIGATONNE = 1e9, 1e12  # m3, kg


@dataclass(frozen=True, eq=False)
class Totals:
    """Totals over regions, and what they rest on.

    Attributes
    ----------
    table : DataFrame
        A row for each region and term, see :data:`COLUMNS`.
    notes : tuple of str
        What was filled, converted, assumed or is missing, in sentences.
    posts : Posts
        The posts of the map.
    filled : Filled
        Rates with the filled ones.
    density : Density or None
        Of each post.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]
    posts: Posts
    filled: Filled
    density: Density | None


@dataclass(frozen=True, eq=False)
class _Term:
    """What adds to a total: a rate at each post, and the variances of its sums of volume and of mass."""

    name: str
    rate: Array
    volume: list[Estimate]
    mass: list[Estimate]
    unknown: Array


def total_over(
    product: xr.Dataset,
    basins: Path,
    column: str,
    *,
    density: float | str | os.PathLike[str] | None = None,
    firn_mask: Path | None = None,
    gia: Path | None = None,
    firn: Path | None = None,
    by: str = "none",
    dem: Path | None = None,
) -> Totals:
    """Return the totals of a product over regions.

    Parameters
    ----------
    product : Dataset, dimensions (y, x)
        As of :func:`cryotile.open`.
    basins : Path
        Vector file of the regions.
    column : str
        Its column that names them.
    density, firn_mask
        As of :func:`cryotile.totalling.corrections.density_of`; neither: no mass.
    gia, firn : Path or None
        Grids of the uplift of the bedrock and of the change of firn air, which are subtracted; see
        :func:`cryotile.totalling.corrections.read_correction`.
    by, dem
        As of :func:`cryotile.totalling.fill.fill`.

    Returns
    -------
    Totals

    Raises
    ------
    InvalidValue
        A value breaks a rule.
    """
    posts = Posts.of(product, basins, column)
    deltas = deltas_of(product, posts)
    filled = fill(posts, by, dem)
    weight = None
    notes = [*_of_regions(posts), *_left_out(posts, by), *filled.notes]
    if density is not None or firn_mask is not None:
        weight = density_of(posts, density, firn_mask)
        notes += [weight.note, *_of_density(posts, filled, weight)]
    if deltas.changes is None:
        notes.append(_without_deltas(product, posts, deltas, basins, column))
    given = {"gia": gia, "firn": firn}
    terms = [_measured(posts, filled, deltas, weight)]
    for name, source in given.items():
        if source is not None:
            correction = read_correction(posts, name, source)
            terms.append(_subtracted(posts, filled, name, correction, weight))
            notes += [*correction.notes, *_of_correction(name, correction, terms[-1])]
    if firn is not None and firn_mask is not None:
        notes.append(
            "the air of firn counts twice: it is subtracted (firn), and the firn mask gives a density of firn"
        )
    removed = [name for name, source in given.items() if source is not None]
    notes += [f"not known: {line}" for line in unknowns(product, removed)]
    if len(terms) > 1:
        terms.append(_sum(terms))
    else:
        terms = [_Term("total", *_parts(terms[0]))]
    rows = [row for term in terms for row in _rows(posts, filled, term, weight)]
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    order = {name: k for k, name in enumerate(region_names(posts.regions))}
    table = table.sort_values(
        "region", key=lambda r: r.map(order), kind="stable", ignore_index=True
    )
    table.attrs["notes"] = notes
    return Totals(table, tuple(notes), posts, filled, weight)


def _parts(term: _Term) -> tuple[Array, list[Estimate], list[Estimate], Array]:
    return term.rate, term.volume, term.mass, term.unknown


def _measured(posts: Posts, filled: Filled, deltas: PassDeltas, density: Density | None) -> _Term:
    """Return the term of the measured rates.

    The filled area is taken to err with the passes as the fitted one does: deltas grow by the ratio of areas.
    """
    has_rate = posts.sums(np.isfinite(filled.rate) * posts.area)
    fitted = posts.sums(posts.fitted * posts.area)
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = has_rate / fitted
    # A region's mean density weighted by the errors of its posts, which are of one sign where passes err.
    weight = _mean(
        posts, density, np.where(np.isfinite(posts.sigma), posts.sigma, 0.0) * posts.area
    )
    volume, mass = [], []
    for k, own in enumerate(growth):
        passes = Estimate(np.nan) if deltas.changes is None else of_deltas(deltas.changes[k] * own)
        found = pooled([passes, filled.estimates[k]])
        volume.append(found)
        mass.append(Estimate(found.variance * weight[k] ** 2, found.dof))
    unknown = posts.sums(posts.area) - has_rate
    return _Term("dhdt", filled.rate, volume, mass, unknown)


def _subtracted(
    posts: Posts, filled: Filled, name: str, correction: Correction, density: Density | None
) -> _Term:
    """Return the term of a correction; its errors are those of one model, of one sign all over a region."""
    has_rate = np.isfinite(filled.rate)
    rate = np.where(has_rate, -correction.rate, np.nan)
    nothing = [Estimate(np.nan)] * (len(posts.regions.names) + 1)
    volume = mass = nothing
    if correction.sigma is not None:
        area = np.where(np.isfinite(rate), posts.area, 0.0) * np.nan_to_num(correction.sigma)
        volume = [Estimate(float(s) ** 2) for s in posts.sums(area)]
        if density is not None:
            mass = [Estimate(float(s) ** 2) for s in posts.sums(area * density.at_posts)]
    unknown = posts.sums((has_rate & ~np.isfinite(rate)) * posts.area)
    return _Term(name, rate, volume, mass, unknown)


def _sum(terms: list[_Term]) -> _Term:
    """Return the sum of terms; a correction without a standard error adds none."""
    measured, *others = terms
    rate = measured.rate + sum(np.nan_to_num(term.rate) for term in others)
    volume, mass = (
        [
            pooled([own[0], *(part for part in own[1:] if not np.isnan(part.variance))])
            for own in zip(*columns, strict=True)
        ]
        for columns in ([t.volume for t in terms], [t.mass for t in terms])
    )
    return _Term("total", rate, volume, mass, measured.unknown)


def _mean(posts: Posts, density: Density | None, weights: Array) -> Array:
    """Return the weighted mean density of each region, and of all regions."""
    if density is None:
        return np.full(len(posts.regions.names) + 1, np.nan)
    known = np.where(np.isfinite(density.at_posts) & np.isfinite(posts.rate), weights, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean: Array = posts.sums(known * np.nan_to_num(density.at_posts)) / posts.sums(known)
    return mean


def _rows(
    posts: Posts, filled: Filled, term: _Term, density: Density | None
) -> list[dict[str, object]]:
    area, fitted = posts.sums(posts.area), posts.sums(posts.fitted * posts.area)
    of_fill = posts.sums(filled.filled * posts.area)
    volume = posts.sums(term.rate * posts.area) / CUBIC_KM
    mass = np.full(len(area), np.nan)
    if density is not None:
        mass = posts.sums(term.rate * posts.area * density.at_posts) / GIGATONNE
    rows = []
    for k, name in enumerate(region_names(posts.regions)):
        has_rate = fitted[k] + of_fill[k]
        if not has_rate:
            volume[k] = mass[k] = np.nan
        sigma = np.sqrt(term.volume[k].variance) / CUBIC_KM
        per_area = CUBIC_KM / has_rate if has_rate else np.nan
        rows.append(
            {
                "region": name,
                "term": term.name,
                "area_km2": area[k] / 1e6,
                "fitted_km2": fitted[k] / 1e6,
                "filled_km2": of_fill[k] / 1e6,
                "filled_share": of_fill[k] / area[k] if area[k] else np.nan,
                "filled_by": filled.by,
                "unknown_km2": term.unknown[k] / 1e6,
                "rate_m_yr": volume[k] * per_area,
                "rate_sigma": sigma * per_area,
                "volume_km3_yr": volume[k],
                "volume_sigma": sigma,
                "volume_ci95": interval(term.volume[k]) / CUBIC_KM,
                "mass_gt_yr": mass[k],
                "mass_sigma": np.sqrt(term.mass[k].variance) / GIGATONNE,
                "mass_ci95": interval(term.mass[k]) / GIGATONNE,
                "dof": term.volume[k].dof,
            }
        )
    return rows


def _of_regions(posts: Posts) -> list[str]:
    notes = []
    area = posts.sums(posts.area)
    fitted = posts.sums(posts.fitted * posts.area)
    for k, name in enumerate(posts.regions.names):
        if not area[k]:
            notes.append(f"basin {name} has no post of the map")
        elif not fitted[k]:
            notes.append(f"basin {name} has no post with a fit")
        elif posts.regions.beyond[k] > 0.001:
            notes.append(
                f"{100 * posts.regions.beyond[k]:.0f} % of basin {name} lie beyond the map and are not in its area"
            )
    return notes


def _left_out(posts: Posts, by: str) -> list[str]:
    left = float(posts.area[posts.wanted & ~posts.fitted].sum())
    if by != "none" or not left:
        return []
    share = 100 * left / float(posts.area[posts.wanted].sum())
    return [f"{left / 1e6:,.0f} km2 ({share:.2g} %) have no fit and are left out of the totals"]


def _of_density(posts: Posts, filled: Filled, density: Density) -> list[str]:
    lost = posts.wanted & np.isfinite(filled.rate) & ~np.isfinite(density.at_posts)
    if not lost.any():
        return []
    area = float(posts.area[lost].sum()) / 1e6
    return [
        f"density: no value over {area:,.0f} km2 with a rate, which count as volume and not as mass"
    ]


def _of_correction(name: str, correction: Correction, term: _Term) -> list[str]:
    notes = []
    if term.unknown[-1]:
        notes.append(
            f"{name}: no value over {term.unknown[-1] / 1e6:,.0f} km2 with a rate, where nothing is subtracted"
        )
    if correction.sigma is None:
        notes.append(f"{name}: the file has no standard error, so that of the total is without it")
    elif (np.isfinite(term.rate) & ~np.isfinite(correction.sigma)).any():
        notes.append(f"{name}: the standard error is missing at some posts, where it counts as 0")
    return notes


def _without_deltas(
    product: xr.Dataset, posts: Posts, deltas: PassDeltas, basins: Path, column: str
) -> str:
    alone = np.sqrt(posts.sums((posts.sigma * posts.area) ** 2)[-1]) / CUBIC_KM
    planned = str(product.attrs.get("history", "")).partition("cryotile plan ")[2].partition(";")[0]
    as_planned = shlex.split(planned) or ["RUN", "--db", "DB"]
    words = command("plan", *as_planned, "--basins", basins.name, "--column", column)
    return (
        f"no standard errors: the map cannot tell what its passes share, because {deltas.reason}; plan a run with them:"
        f" {words} (posts taken as independent would pretend {alone:.2g} km3/yr for {WHOLE}, which is far too small)"
    )
