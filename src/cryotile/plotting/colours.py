"""Colours of a variable: colour map, range, and names of flags."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize

__all__ = [
    "Colours",
    "Shading",
    "choose_colours",
    "extend",
    "label_of",
    "round_up",
    "symmetric_limits",
    "title_of",
]

CHANGE, SIGNED, SEQUENTIAL, CYCLIC = "cmc.vik_r", "cmc.vik", "cmc.batlow", "cmc.romaO"
"""Crameri's colour maps, which readers with a colour vision deficiency and grey prints can tell: loss of ice in red."""

_CHANGES = (
    *("dhdt", "dhdt_difference", "dhdt_difference_ratio", "acceleration"),
    *("window_dhdt", "height", "height_change", "difference"),
)

_FLAG_COLOURS = (
    "#3b6fb6",
    "#efe6cf",
    "#ffffff",
    "#f2b8c6",
    "#e0a458",
    "#b9cc7a",
    "#8f6bb0",
    "#c8553d",
    "#333333",
    "#f4f4f4",
    "#4aa7a0",
)

_TERM_COLOURS = (
    "#3b6fb6",
    "#e0a458",
    "#8f6bb0",
    "#b9cc7a",
    "#c8553d",
    "#4aa7a0",
    "#efe6cf",
    "#333333",
    "#f2b8c6",
)
"""Neither white nor grey, which are the colours of posts without points and without a fit."""


_Values = npt.NDArray[np.float64]


class Shading(NamedTuple):
    """What a user asks of the colours; None: chosen from the data.

    Attributes
    ----------
    limits : (float, float) or None
        Values at the ends of the colour bar.
    colour_map : str or None
        Name of a colour map of matplotlib.
    """

    limits: tuple[float, float] | None = None
    colour_map: str | None = None


@dataclass(frozen=True, eq=False)
class Colours:
    """Values and their colours.

    Attributes
    ----------
    values : ndarray, shape (ny, nx)
        What to show: the values given, or the rank of each set of terms.
    colour_map : Colormap
        Of matplotlib.
    norm : Normalize
        From values to the colour map.
    ticks : dict of float to str
        Names of flags at their places on the colour bar; empty for a variable without flags.
    """

    values: _Values
    colour_map: Colormap
    norm: Normalize
    ticks: dict[float, str]


def choose_colours(
    variable: xr.DataArray, values: _Values, shading: Shading | None = None
) -> Colours:
    """Return the colours of a variable.

    Parameters
    ----------
    variable : DataArray
        Its name, type and attributes choose the colour map.
    values : ndarray, shape (ny, nx)
        What the map shows of it; they choose the range.
    shading : Shading
        What the user asks; None: nothing.

    Returns
    -------
    Colours
        Changes have red for loss, a neutral zero and blue for gain.
    """
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap, Normalize

    meanings = str(variable.attrs.get("flag_meanings", "")).split()
    if "flag_values" in variable.attrs:
        flags = np.atleast_1d(variable.attrs["flag_values"]).tolist()
        return _flag_colours(dict(zip(flags, meanings, strict=True)), values, _FLAG_COLOURS)
    if "flag_masks" in variable.attrs:
        return _term_colours(meanings, np.atleast_1d(variable.attrs["flag_masks"]), values)
    limits, asked = shading or Shading()
    name = asked or _colour_map(variable, values)
    colour_map = mpl.colormaps[name]
    if name == CYCLIC:
        start = -math.pi if (values < 0.0).any() else 0.0
        limits = limits or (start, start + 2.0 * math.pi)
    elif name in (CHANGE, SIGNED):
        limits = limits or symmetric_limits(values)
        # The last few colours of either end are all but black.
        colour_map = ListedColormap(colour_map(np.linspace(0.06, 0.94, 256)))
    return Colours(values, colour_map, Normalize(*(limits or _limits(values))), {})


def _colour_map(variable: xr.DataArray, values: _Values) -> str:
    if variable.attrs.get("units") == "rad":
        return CYCLIC
    if variable.name in _CHANGES:
        return CHANGE
    signed = bool((values < 0.0).any() and (values > 0.0).any())
    return SIGNED if signed and variable.name != "elevation" else SEQUENTIAL


def _term_colours(meanings: list[str], masks: npt.NDArray[np.integer], values: _Values) -> Colours:
    """Return colours for sets of terms: the most frequent sets by name, all others as one."""
    finite = np.isfinite(values)
    flags, places, counts = np.unique(
        values[finite].astype(int), return_inverse=True, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    most = len(_TERM_COLOURS) - 1
    ranks = np.empty(len(flags), int)
    ranks[order] = np.minimum(np.arange(len(flags)), most)
    names = {
        rank: "+".join(m for m, mask in zip(meanings, masks, strict=True) if flags[k] & mask)
        or "plane"
        for rank, k in enumerate(order[:most])
    }
    shown = values.copy()
    shown[finite] = ranks[places]
    return _flag_colours(names | {most: "others"}, shown, _TERM_COLOURS)


def _flag_colours(meanings: Mapping[int, str], values: _Values, palette: Sequence[str]) -> Colours:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    shown = np.unique(values[np.isfinite(values)]).astype(int)
    shown = shown if shown.size else np.zeros(1, int)
    edges = np.append(shown - 0.5, shown[-1] + 0.5)
    finite = max(1, int(np.isfinite(values).sum()))
    # Lines of 12 characters fit beside the bar.
    names = [
        f"{textwrap.fill(re.sub('[_+]', ' ', meanings[flag]), 12)}\n{_share((values == flag).sum() / finite)}"
        for flag in shown
    ]
    centres = (edges[1:] + edges[:-1]) / 2
    colours = ListedColormap([palette[flag] for flag in shown])
    ticks = dict(zip(centres.tolist(), names, strict=True))
    return Colours(values, colours, BoundaryNorm(edges, shown.size), ticks)


def _share(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"


def symmetric_limits(values: _Values) -> tuple[float, float]:
    """Return limits about zero that hold 98 % of the values."""
    limit = round_up(_percentile(np.abs(values), 98.0))
    return -limit, limit


def _limits(values: _Values) -> tuple[float, float]:
    low, high = _percentile(values, 2.0), _percentile(values, 98.0)
    if 0.0 <= low < high / 2:
        return 0.0, round_up(high)
    step = round_up((high - low) / 20)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _percentile(values: _Values, share: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, share)) if finite.size else 0.0


def round_up(value: float) -> float:
    """Return the next of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten; 1 for zero."""
    if value <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
    # A hair's breadth over a step is the step: 0.3 / 0.1 exceeds 3.
    return next(step for step in steps if step * (1 + 1e-9) >= value / power) * power


def extend(values: _Values, norm: Normalize) -> str:
    """Return which ends of the colour bar have values beyond them, in the words of matplotlib."""
    finite = values[np.isfinite(values)]
    low, high = norm.vmin or 0.0, norm.vmax or 0.0
    below, above = bool((finite < low).any()), bool((finite > high).any())
    return (("neither", "max"), ("min", "both"))[below][above]


def title_of(variable: xr.DataArray) -> str:
    """Return the long name of a variable, with a capital letter."""
    text = str(variable.attrs.get("long_name", variable.name))
    return f"{text[0].upper()}{text[1:]}"


_NAMES = {
    "dhdt": "dh/dt",
    "window_dhdt": "dh/dt",
    "dhdt_difference_ratio": "difference over its standard error",
    "season_ratio": "change over its sigma (rms)",
    "campaign_ratio": "change over its sigma (rms)",
}


def label_of(variable: xr.DataArray) -> str:
    """Return the text at the colour bar or axis of a variable: name and units."""
    if variable.dtype.kind == "M":
        return ""  # the title says what they are, and dates need the room
    name = _NAMES.get(str(variable.name), str(variable.name))
    units = str(variable.attrs.get("units", "1")).replace("yr-1", "yr⁻¹").replace("m2", "m²")
    return name if units == "1" else f"{name} ({units})"
