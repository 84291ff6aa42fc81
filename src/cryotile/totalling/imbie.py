"""The tables of the Ice sheet Mass Balance Inter-comparison Exercise (IMBIE): rates and series of mass by basin.

Columns, ids and intervals are those of the public IMBIE/validator (``validator/data/schema.yml`` of IMBIE3).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.files import atomic_path
from cryotile.geo.regions import WHOLE
from cryotile.maps.unknown import instruments
from cryotile.times import parse_instant
from cryotile.totalling.table import GIGATONNE, Totals

__all__ = ["GROUPS", "Contribution", "check_year", "decimal_year", "imbie_ids", "write_imbie"]

GROUPS = ("RA", "LA")
"""Radar altimetry, laser altimetry."""

FIRST_OF_UNKNOWN_LAYOUT = 2024

TOTALS = ("AIS", "EAIS", "WAIS", "APIS", "GRIS")

_ANTARCTICA = (
    "A-Ap Ap-B B-C C-Cp Cp-D D-Dp Dp-E E-Ep Ep-F F-G G-H H-Hp Hp-I I-Ipp Ipp-J J-Jpp Jpp-K K-A"
)
_GREENLAND = "1.1 1.2 1.3 1.4 2.1 2.2 3.1 3.2 3.3 4.1 4.2 4.3 5.0 6.1 6.2 7.1 7.2 8.1 8.2"

SHEETS = {
    ("Rignot", "AIS"): tuple(_ANTARCTICA.split()),
    ("Rignot", "GRIS"): ("NO", "NE", "SE", "SW", "CW", "NW"),
    ("Zwally", "AIS"): tuple(str(k) for k in range(1, 28)),
    ("Zwally", "GRIS"): tuple(_GREENLAND.split()),
}
"""Basin set and ice sheet → ids of all its basins."""

_ONE_YEAR = 1e-4
"""Tolerance of the validator for the interval between dates, years."""

Array = npt.NDArray[np.float64]


def check_year(year: int | None) -> None:
    """Refuse an exercise whose layout is not public.

    Raises
    ------
    InvalidValue
        It is that of 2024 or a later one.
    """
    if year is not None and year >= FIRST_OF_UNKNOWN_LAYOUT:
        raise InvalidValue(
            f"the tables of IMBIE {year} cannot be written: the exercise of 2024 asks for one column more, and the"
            ' order of its columns is not public; write the layout before it (imbie_year="2023") and add the column'
        )


def decimal_year(instant: str | np.datetime64 | pd.Timestamp) -> float:
    """Return an instant in years, with every month a twelfth of one: months are then equally long, as IMBIE checks."""
    time = parse_instant(instant) if isinstance(instant, str) else pd.Timestamp(instant)
    begin = pd.Timestamp(time.year, time.month, 1, tz=time.tz)
    days = (time - begin) / pd.Timedelta(days=1)
    return float(time.year + (time.month - 1 + days / time.days_in_month) / 12)


@dataclass(frozen=True)
class Contribution:
    """Who contributes which kind of table.

    Attributes
    ----------
    contributor : str
        The name that all rows carry.
    group : str
        One of :data:`GROUPS`.
    """

    contributor: str
    group: str

    @classmethod
    def of(cls, product: xr.Dataset, contributor: str | None, group: str | None) -> Contribution:
        """Return the contribution of a product; its modes tell the group, unless that is given.

        Raises
        ------
        InvalidValue
            There is no contributor, or the modes do not tell one group.
        """
        name = (contributor or "").strip()
        if not name or set(name) & set(',#"\n'):
            raise InvalidValue(
                f"IMBIE contributor {contributor!r} is not a name without commas; give"
                ' imbie_contributor="NAME"'
            )
        kinds = instruments(product)
        of_one = {"radar": "RA", "laser": "LA"}[kinds.pop()] if len(kinds) == 1 else ""
        found = (group or of_one).upper()
        if found not in GROUPS:
            modes = product.attrs.get("source_modes", "that the product does not name")
            what = f"group {group!r}" if group else f"modes {modes}"
            raise InvalidValue(
                f"{what}: a table of IMBIE is of radar (RA) or of laser altimetry (LA); give"
                ' imbie_group="RA" or imbie_group="LA"'
            )
        return cls(name, found)


def write_imbie(
    path: Path, totals: Totals, product: xr.Dataset, contribution: Contribution
) -> tuple[list[Path], list[str]]:
    """Write the table of rates, and with heights by region that of the series.

    Parameters
    ----------
    path : Path
        CSV of the rates; that of the series has ``-series`` before its suffix.
    totals : Totals
        With a density.
    product : Dataset
        The product of the totals.
    contribution : Contribution
        Whose tables.

    Returns
    -------
    (list of Path, list of str)
        The files, and notes on rows that were left out or are assumed.

    Raises
    ------
    InvalidValue
        There is no mass or no standard error, or an id is not one of IMBIE.
    UnwritablePath
        A file cannot be written.
    """
    if path.suffix.lower() != ".csv":
        raise InvalidValue(f"{path} does not end in .csv; name the table e.g. {path.stem}.csv")
    table = totals.table[totals.table["term"] == "total"]
    if table["mass_gt_yr"].isna().all():
        raise InvalidValue('IMBIE tables are of mass; give a density, e.g. density="917"')
    if table["mass_sigma"].isna().all():
        raise InvalidValue(
            "IMBIE tables need the standard error of each mass, and this product has none; plan a run with the basins"
        )
    ids, basin_set, notes = imbie_ids(totals.posts.regions.names)
    start, end = (
        decimal_year(str(product.attrs[f"time_coverage_{which}"])) for which in ("start", "end")
    )
    rates, series = [], []
    for row in table.to_dict("records"):
        name = ids.get(str(row["region"]))
        if name is None or not np.isfinite([row["mass_gt_yr"], row["mass_sigma"]]).all():
            notes.append(
                f"IMBIE: no row for {row['region']}, which has no id or no mass with its error"
            )
            continue
        head = [contribution.contributor, contribution.group, basin_set, name]
        head += [f"{row['area_km2']:.3f}", f"{row['fitted_km2']:.3f}"]
        values = [row["mass_gt_yr"], row["mass_sigma"]]
        rates.append([*head, f"{start:.6f}", f"{end:.6f}", *(f"{v:.6f}" for v in values)])
        series += [[*head, *own] for own in _series(product, str(row["region"]), totals)]
    files = [path]
    _write(path, rates)
    if series:
        files.append(path.with_name(f"{path.stem}-series{path.suffix}"))
        _write(files[1], series)
        notes.append(
            "IMBIE series: one bin a year, relative to the first; heights of fitted posts alone, without corrections"
        )
    else:
        notes.append(
            "IMBIE: no series, which needs a run planned with the basins and with heights (plan --heights 1y)"
        )
    return files, notes


def imbie_ids(names: Sequence[str]) -> tuple[dict[str, str], str, list[str]]:
    """Return the ids of regions as IMBIE spells them, their basin set, and notes.

    Parameters
    ----------
    names : sequence of str
        Of the regions, in any case.

    Returns
    -------
    (dict of str to str, str, list of str)
        Name → id, of the union of all regions too if they are all basins of an ice sheet.

    Raises
    ------
    InvalidValue
        A name is no id, or the names are of two sets.
    """
    totals = {name.casefold(): name for name in TOTALS}
    basins = [name for name in names if name.casefold() not in totals]
    sets = {one for one, _ in SHEETS}
    for basin_set in sorted(sets):
        known = {i.casefold(): i for key, ids in SHEETS.items() if key[0] == basin_set for i in ids}
        if all(name.casefold() in known for name in basins):
            break
    else:
        unknown = [n for n in basins if not any(n in ids for ids in SHEETS.values())] or basins
        raise InvalidValue(
            f"IMBIE knows no basin {unknown[0]!r} in one set with the others; name basins by the ids of Zwally"
            " (1 to 27, 1.1 to 8.2) or Rignot (A-Ap to K-A, NO to NW), or AIS, EAIS, WAIS, APIS, GRIS"
        )
    found = {name: (known | totals)[name.casefold()] for name in names}
    notes = []
    for (own, sheet), ids in SHEETS.items():
        if own == basin_set and sorted(found.values()) == sorted(ids):
            found[WHOLE] = sheet
    if WHOLE not in found:
        notes.append(
            "IMBIE: the basins are not those of a whole ice sheet, so there is no row for all"
        )
    return found, basin_set, notes


def _series(product: xr.Dataset, region: str, totals: Totals) -> list[list[str]]:
    """Return date, mass and its standard error of one bin a year, relative to the first bin with heights."""
    needed = ("region_height", "region_height_covariance", "height_time_bnds")
    if any(name not in product.variables for name in needed):
        return []
    own = product.sel(region=region)
    height, covariance = (own[name].to_numpy().astype(np.float64) for name in needed[:2])
    dates = np.array([np.mean([decimal_year(t) for t in two]) for two in own[needed[2]].to_numpy()])
    known = np.flatnonzero(np.isfinite(height))
    if not len(known):
        return []
    since = dates - dates[known[0]]
    chosen = known[np.abs(since[known] - since[known].round()) < _ONE_YEAR]
    first = chosen[0]
    density = _mean_density(totals, region)
    mass = density * (height[chosen] - height[first]) / GIGATONNE
    variance = covariance[chosen, chosen] + covariance[first, first] - 2 * covariance[chosen, first]
    sigma = density * np.sqrt(np.maximum(variance, 0.0)) / GIGATONNE
    return [
        [f"{value:.6f}" for value in row] for row in zip(dates[chosen], mass, sigma, strict=True)
    ]


def _mean_density(totals: Totals, region: str) -> float:
    """Return the mean density of the fitted area of a region, kg m-3."""
    assert totals.density is not None
    names = [*totals.posts.regions.names, WHOLE]
    known = totals.posts.fitted * totals.posts.area
    mean: Array = totals.posts.sums(known * totals.density.at_posts) / totals.posts.sums(known)
    return float(mean[names.index(region)])


def _write(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
