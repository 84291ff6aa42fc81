"""A map of a product: red where ice is lost, blue where it is gained, grey where there is no fit."""

from __future__ import annotations

import io
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.errors import InvalidValue, MissingDependency
from cryotile.files import atomic_path
from cryotile.geo.projection import projected_crs
from cryotile.maps.product import read_product
from cryotile.plotting.caption import caption
from cryotile.plotting.graticule import draw_graticule
from cryotile.plotting.view import Extent, MapView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

__all__ = ["plot_product"]

# What a file says of itself that would change from one day or machine to the next.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}

# Names in cmocean.  Of dh/dt the field is used to seeing loss in red.
_DIVERGING = {
    "dhdt": "balance_r",
    "dhdt_difference": "balance_r",
    "dhdt_difference_ratio": "balance_r",
    "slope_x": "balance",
    "slope_y": "balance",
}
_SEQUENTIAL = {"elevation": "ice", "time_start": "thermal", "time_end": "thermal"}

_FLAG_COLOURS = (
    "#3b6fb6",
    "#efe6cf",
    "#ffffff",
    "#c9c9c9",
    "#e0a458",
    "#b9cc7a",
    "#8f6bb0",
    "#c8553d",
    "#333333",
)

_NO_FIT, _NOT_COMPUTED, _NO_POINTS = (0.80, 0.80, 0.80), (0.94, 0.90, 0.80), (1.0, 1.0, 1.0)

# The salt gives the elements of an SVG the same names each time: equal maps, equal bytes.
_STYLE: dict[Any, Any] = {"font.size": 9, "axes.linewidth": 0.6, "svg.hashsalt": "cryotile"}

MAP_INCHES, SLIMMEST = 6.0, 0.4
"""Longer side of a map, and the least share of it that the shorter side has."""

LEFT, RIGHT, TOP, BOTTOM, CAPTION_LINE = 0.8, 1.35, 0.45, 0.65, 0.155
"""Inches around a map: tick labels, colour bar, title, and below it axis label and lines of text."""

TITLE_LINE = 0.22
"""Inches for each line of the title but the first."""

_Values = npt.NDArray[np.float64]
_Colours = tuple["Colormap", "Normalize", dict[float, str]]


def plot_product(path: Path, out: Path, *, variable: str = "dhdt") -> None:
    """Draw a map of one variable of a product.

    Parameters
    ----------
    path : Path
        A NetCDF product.
    out : Path
        PNG, PDF or SVG, by its suffix.
    variable : str
        What to show.

    Raises
    ------
    InvalidValue
        The product, the variable or the suffix is unknown.
    MissingDependency
        matplotlib or cmocean is not installed.
    UnwritablePath
        ``out`` cannot be written.
    """
    suffix = out.suffix.lower()
    if suffix not in _METADATA:
        raise InvalidValue(
            f"{out} has no suffix of a picture; choose one of {', '.join(_METADATA)}"
        )
    try:
        import cmocean  # noqa: F401  (its colour maps enter matplotlib's registry)
        import matplotlib as mpl
    except ImportError as error:
        raise MissingDependency(
            f"maps need matplotlib and cmocean ({error.name} is missing): pip install 'cryotile[plot]'"
        ) from error
    names = [variable, "status", "time_start", "time_end"]
    product = read_product(path, list(dict.fromkeys(names)))
    picture = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure = _draw(product, variable)
        figure.savefig(picture, format=suffix[1:], metadata=_METADATA[suffix], dpi=200)
    with atomic_path(out) as temporary:
        temporary.write_bytes(picture.getvalue())


def _draw(product: xr.Dataset, variable: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    view = MapView.of(product, variable)
    colours, norm, ticks = _colours(product[variable], view.values)
    window = _window(view.extent)
    width, height = _map_inches(window)
    lines = textwrap.wrap(caption(product, variable, view), int(18 * (LEFT + width)))
    bottom = BOTTOM + CAPTION_LINE * len(lines)
    title = textwrap.wrap(_title(product[variable]), int(9 * (width + RIGHT)))
    total_width = LEFT + width + RIGHT
    total_height = bottom + height + TOP + TITLE_LINE * (len(title) - 1)
    figure = Figure(figsize=(total_width, total_height))
    # No pyplot, whose figures outlive the call and whose windows belong to the user.
    FigureCanvasAgg(figure)

    def place(x: float, y: float, across: float, up: float) -> Axes:
        return figure.add_axes(
            (x / total_width, y / total_height, across / total_width, up / total_height)
        )

    axes = place(LEFT, bottom, width, height)
    axes.imshow(_background(view), extent=view.extent, origin="lower", interpolation="nearest")
    image = axes.imshow(
        np.ma.masked_invalid(view.values),
        extent=view.extent,
        origin="lower",
        interpolation="nearest",
        cmap=colours,
        norm=norm,
    )
    _dress(axes, product, window, "\n".join(title))
    bar_axes = place(LEFT + width + 0.15, bottom + 0.04 * height, 0.17, 0.92 * height)
    extend = "neither" if ticks else _extend(view.values, norm)
    bar = figure.colorbar(image, cax=bar_axes, extend=extend, extendfrac=0.04)
    bar.outline.set_linewidth(0.4)
    bar.set_label("" if ticks else _label(product[variable]))
    if ticks:
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
    text_y = (CAPTION_LINE * len(lines) + 0.08) / total_height
    figure.text(
        0.12 / total_width,
        text_y,
        "\n".join(lines),
        fontsize=7.5,
        color="0.25",
        linespacing=1.4,
        va="top",
    )
    return figure


def _window(extent: Extent) -> Extent:
    """Widen a map that is all too slim, so that axes, title and colour bar find room beside it."""
    left, right, bottom, top = extent
    least = SLIMMEST * max(right - left, top - bottom)
    across, up = max(0.0, least - right + left) / 2, max(0.0, least - top + bottom) / 2
    return left - across, right + across, bottom - up, top + up


def _map_inches(window: Extent) -> tuple[float, float]:
    across, up = window[1] - window[0], window[3] - window[2]
    return MAP_INCHES * across / max(across, up), MAP_INCHES * up / max(across, up)


def _dress(axes: Axes, product: xr.Dataset, window: Extent, title: str) -> None:
    draw_graticule(axes, projected_crs(product.attrs["crs"]), window)
    axes.set_xlim(window[:2])
    axes.set_ylim(window[2:])
    axes.set_aspect("equal")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=8)
    axes.set_xlabel(f"x (km), {product.attrs['crs'][:20]}")
    axes.set_ylabel("y (km)")
    axes.tick_params(width=0.6, length=3)


def _background(view: MapView) -> _Values:
    colours = np.where(view.not_computed[..., np.newaxis], _NOT_COMPUTED, _NO_POINTS)
    return np.where(view.has_points[..., np.newaxis], _NO_FIT, colours)


def _colours(variable: xr.DataArray, values: _Values) -> _Colours:
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap, Normalize

    if "flag_values" in variable.attrs:
        return _flag_colours(variable.attrs["flag_meanings"].split(), values)
    name = str(variable.name)
    low, high = _symmetric_limits(values) if name in _DIVERGING else _limits(values)
    colormap = mpl.colormaps[f"cmo.{(_DIVERGING | _SEQUENTIAL).get(name, 'matter')}"]
    # The last few colours of either end are all but black.
    return ListedColormap(colormap(np.linspace(0.06, 0.94, 256))), Normalize(low, high), {}


def _flag_colours(meanings: list[str], values: _Values) -> _Colours:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    shown = np.unique(values[np.isfinite(values)]).astype(int)
    shown = shown if shown.size else np.zeros(1, int)
    edges = np.append(shown - 0.5, shown[-1] + 0.5)
    # Beside the bar there is room for so many letters.
    names = [textwrap.fill(meanings[flag].replace("_", " "), 12) for flag in shown]
    centres = (edges[1:] + edges[:-1]) / 2
    colours = ListedColormap([_FLAG_COLOURS[flag] for flag in shown])
    return colours, BoundaryNorm(edges, shown.size), dict(zip(centres, names, strict=True))


def _symmetric_limits(values: _Values) -> tuple[float, float]:
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


def _extend(values: _Values, norm: Normalize) -> str:
    finite = values[np.isfinite(values)]
    low, high = norm.vmin or 0.0, norm.vmax or 0.0
    below, above = bool((finite < low).any()), bool((finite > high).any())
    return (("neither", "max"), ("min", "both"))[below][above]


def _title(variable: xr.DataArray) -> str:
    text = str(variable.attrs.get("long_name", variable.name))
    return f"{text[0].upper()}{text[1:]}"


_NAMES = {"dhdt": "dh/dt", "dhdt_difference_ratio": "difference over its standard error"}


def _label(variable: xr.DataArray) -> str:
    if variable.dtype.kind == "M":
        return f"{variable.name} (year)"
    name = _NAMES.get(str(variable.name), str(variable.name))
    units = str(variable.attrs.get("units", "1")).replace("yr-1", "yr⁻¹").replace("m2", "m²")
    return name if units == "1" else f"{name} ({units})"
