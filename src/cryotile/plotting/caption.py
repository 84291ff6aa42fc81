"""The text under a map: what was fitted, from which points, and what the colours mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cryotile.fit.variables import Status
from cryotile.plotting.view import MapView

if TYPE_CHECKING:
    from cryotile.plotting.panel import Panel

__all__ = ["caption", "text_under"]

HATCHED = " Hatched: the 95 % confidence interval includes zero."
RELIEF = " Shading: relief of the fitted elevations, lit from the upper left."

DAYS_PER_YEAR = 365.25

SHORT = 0.9
"""Years; a rate from a shorter span is not annual, because one season weighs more than the others."""

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
_SEASONS = ("winter", "spring", "summer", "autumn")


def caption(product: xr.Dataset, variable: str, view: MapView) -> str:
    """Return the sentences under a map.

    Parameters
    ----------
    product : Dataset
        The variable and, where a fit made it, ``status``, ``time_start``, ``time_end`` and the settings as attributes;
        sentences about absent ones are left out.
    variable : str
        Name of the variable that the map shows.
    view : MapView
        The part of the product that the map shows.

    Returns
    -------
    str
        Sentences on one line.
    """
    sentences = [
        _settings(product, variable),
        _warning(product) if "yr-1" in product[variable].attrs.get("units", "") else "",
        _legend(view, "no points" if "status" in product else "no value"),
        f"Each square shows {view.merged} × {view.merged} posts." if view.merged > 1 else "",
    ]
    return " ".join(filter(None, sentences))


def text_under(product: xr.Dataset, variable: str, panel: Panel) -> str:
    """Return the sentences under maps of which the first is a panel."""
    text = caption(product, variable, panel.view)
    text += RELIEF if panel.relief is not None else ""
    return text + (HATCHED if panel.uncertain is not None else "")


def _settings(product: xr.Dataset, variable: str) -> str:
    about = product.attrs
    if "status" not in product or not {"posting", "radius", "recipe"} <= about.keys():
        return ""
    count = int((product["status"] == Status.OK).sum())
    posts = {0: "No post", 1: "1 post"}.get(count, f"{count:,} posts")
    return (
        f"{posts} with {_fit(variable)}, every {_length(about['posting'])}, to {_points(about)} within"
        f" {_length(about['radius'])}; recipe {about['recipe']}{_period(about)}."
    )


def _fit(variable: str) -> str:
    return "a fit to both halves" if variable.startswith("dhdt_difference") else "a fit"


def _points(about: dict[str, str]) -> str:
    """Return what the points are; nobody must take a simulated map for a measured one."""
    if "simulated" not in about:
        return "points"
    whole = about["simulated"].startswith("100 %")
    return "simulated points" if whole else "partly simulated points"


def _length(metres: float) -> str:
    return f"{metres / 1e3:g} km" if metres >= 1000 else f"{metres:g} m"


def _period(about: dict[str, str]) -> str:
    if "time_coverage_start" not in about:
        return ""
    return f"; {about['time_coverage_start']} to {about['time_coverage_end']}"


def _warning(product: xr.Dataset) -> str:
    if not {"status", "time_start", "time_end"} <= product.keys():
        return ""
    fitted = product["status"].to_numpy() == Status.OK
    start, end = (
        product[name].to_numpy()[fitted].astype("datetime64[s]").astype(np.int64) / 86_400.0
        for name in ("time_start", "time_end")
    )
    if not start.size or np.median(end - start) >= SHORT * DAYS_PER_YEAR:
        return ""
    months = max(1, round(12 * float(np.median(end - start)) / DAYS_PER_YEAR))
    located = months <= 4 and "geospatial_lat_max" in product.attrs
    season = _season(float(np.median(start + end)) / 2, product.attrs) if located else ""
    plural = "s" if months > 1 else ""
    return f"{_NUMBERS[months - 1].capitalize()} {season}month{plural} scaled to a year, not an annual rate."


def _season(day: float, about: dict[str, float]) -> str:
    month = int(np.datetime64(int(day), "D").astype("datetime64[M]").astype(np.int64)) % 12
    south = about["geospatial_lat_max"] + about["geospatial_lat_min"] < 0
    return f"{_SEASONS[((month + 1) % 12 // 3 + 2 * south) % 4]} "


def _legend(view: MapView, without: str) -> str:
    kinds = {
        "dark grey": view.has_points & np.isnan(view.values),
        "beige": view.not_computed,
        "light grey": ~view.has_points & ~view.not_computed & ~view.outside_mask,
    }
    meanings = {
        "dark grey": "points but no fit",
        "beige": "not computed",
        "light grey": without,
    }
    shown = [f"{colour}: {meanings[colour]}" for colour, where in kinds.items() if where.any()]
    shown += ["beyond the line: outside the mask"] if view.outside_mask.any() else []
    text = "; ".join(shown)
    return f"{text[0].upper()}{text[1:]}." if shown else ""
