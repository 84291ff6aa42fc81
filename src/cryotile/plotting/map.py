"""A map of a product: red where ice is lost, blue where it is gained, grey where there is no fit."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cryotile.errors import InvalidValue, MissingDependency
from cryotile.geo.grid import check_bounds
from cryotile.geo.projection import crs_text
from cryotile.maps.product import read_product
from cryotile.plotting.caption import caption
from cryotile.plotting.graticule import draw_graticule
from cryotile.plotting.picture import STYLE, new_figure, save_picture
from cryotile.plotting.view import Extent, MapView
from cryotile.points import Bounds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

__all__ = ["plot_map", "plot_product"]

CHANGE, SIGNED, SEQUENTIAL, CYCLIC = "cmc.vik_r", "cmc.vik", "cmc.batlow", "cmc.romaO"
"""Crameri's colour maps, which readers with a colour vision deficiency and grey prints can tell: loss of ice in red."""

_CHANGES = ("dhdt", "dhdt_difference", "dhdt_difference_ratio", "acceleration")

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

_NO_FIT, _NOT_COMPUTED, _NO_POINTS = (0.80, 0.80, 0.80), (0.94, 0.90, 0.80), (1.0, 1.0, 1.0)

MAP_INCHES, SLIMMEST = 6.0, 0.4
"""Longer side of a map, and the smallest ratio of its shorter side to that."""

LEFT, RIGHT, TOP, BOTTOM, CAPTION_LINE = 0.8, 1.35, 0.45, 0.65, 0.155
"""Inches around a map: tick labels, colour bar, title, and below it axis label and lines of text."""

TITLE_LINE = 0.22
"""Inches for each line of the title but the first."""

_Values = npt.NDArray[np.float64]
_Colours = tuple[_Values, "Colormap", "Normalize", dict[float, str]]

_Shading = tuple[tuple[float, float] | None, str | None]
"""Values at the ends of the colour bar, and the name of a colour map; None: chosen from the data."""


def plot_map(
    data: xr.DataArray | xr.Dataset,
    variable: str | None = None,
    *,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
    colour_map: str | None = None,
    extent: Bounds | None = None,
    size: float = MAP_INCHES,
    hatch: bool = False,
) -> Figure:
    """Draw a map of one variable.

    Parameters
    ----------
    data : DataArray or Dataset, dimensions (y, x)
        A product, a fit of :func:`cryotile.fit_posts`, or one variable of these, with coordinates ``x, y`` in metres.
        Meridians and parallels are drawn if it names its CRS: by a CF grid mapping, or by the attribute ``crs``.  A
        Dataset with ``status`` also shows where points have no fit.
    variable : str or None
        Name of the variable of a Dataset; None: ``dhdt``, or the only variable.
    limits : (float, float) or None
        Values at the ends of the colour bar; None: chosen from the data.
    title : str or None
        Text above the map; None: the variable's long name.
    colour_map : str or None
        Name of a colour map of matplotlib; None: one that suits the variable.
    extent : Bounds or None
        Part to show, metres; None: the posts with points, inside the mask.
    size : float
        Longer side of the map, inches.
    hatch : bool
        Whether to hatch where ``dhdt_ci95`` exceeds the rate; only for ``dhdt`` beside ``dhdt_ci95``.

    Returns
    -------
    Figure
        Of matplotlib, not known to pyplot; a notebook shows it, ``figure.savefig("dhdt.png")`` writes it.

    Raises
    ------
    InvalidValue
        The variable or the colour map is unknown, the variable is not a map over (y, x), the extent has no post, or the
        size is not positive.
    MissingDependency
        matplotlib or cmcrameri is not installed.
    """
    try:
        import cmcrameri.cm  # noqa: F401  (registers its colour maps with matplotlib)
        import matplotlib as mpl
    except ImportError as error:
        raise MissingDependency(
            f"maps need matplotlib and cmcrameri ({error.name} is missing): pip install 'cryotile[plot]'"
        ) from error
    product, name = _as_product(data, variable)
    if colour_map is not None and colour_map not in mpl.colormaps:
        raise InvalidValue(
            f"colour map {colour_map!r} is unknown; give one of matplotlib or Crameri, e.g. {CHANGE}"
        )
    if not 1.0 <= size <= 40.0:
        raise InvalidValue(f"size {size:g} is not between 1 and 40 inches; 6 suits most maps")
    with mpl.rc_context(STYLE):
        return _draw(_within(product, extent), name, (limits, colour_map), title, size, hatch)


def plot_product(
    path: Path, out: Path, *, variable: str = "dhdt", dpi: int = 200, **options: Any
) -> None:
    """Draw a map of one variable of a product file.

    Parameters
    ----------
    path : Path
        A NetCDF product.
    out : Path
        PNG, PDF or SVG, by its suffix.
    variable : str
        Name of the variable to show.
    dpi : int
        Dots per inch of a PNG.
    **options
        As of :func:`plot_map`.

    Raises
    ------
    InvalidValue
        The product, the variable or the suffix is unknown, or as for :func:`plot_map`.
    MissingDependency
        matplotlib or cmcrameri is not installed.
    UnwritablePath
        ``out`` cannot be written.
    """

    def draw() -> Figure:
        names = [variable, "status", "time_start", "time_end"]
        if options.get("hatch") and variable == "dhdt":
            names.append("dhdt_ci95")
        return plot_map(read_product(path, list(dict.fromkeys(names))), variable, **options)

    save_picture(out, draw, dpi=dpi)


def _within(product: xr.Dataset, extent: Bounds | None) -> xr.Dataset:
    if extent is None:
        return product
    check_bounds(extent)
    part = product.sel(x=slice(extent[0], extent[2]), y=slice(extent[1], extent[3]))
    if not (part.sizes["x"] and part.sizes["y"]):
        raise InvalidValue(
            f"extent {' '.join(f'{edge:g}' for edge in extent)} has no post; the posts are within"
            f" {float(product['x'][0]):g} {float(product['y'][0]):g} {float(product['x'][-1]):g}"
            f" {float(product['y'][-1]):g} m"
        )
    return part


def _as_product(data: xr.DataArray | xr.Dataset, variable: str | None) -> tuple[xr.Dataset, str]:
    """Return a Dataset over ascending (y, x) and the name of the variable to draw."""
    if isinstance(data, xr.DataArray):
        variable = str(data.name or variable or "value")
        data = data.to_dataset(name=variable)
    maps = [str(name) for name, values in data.data_vars.items() if {*values.dims} == {"y", "x"}]
    name = variable or ("dhdt" if "dhdt" in maps or not maps else maps[0])
    if name not in maps:
        raise InvalidValue(
            f"the data have no variable {name!r} over (y, x); choose one of {', '.join(maps) or 'none'}, or select the"
            " other dimensions first"
        )
    lacking = [axis for axis in ("x", "y") if axis not in data.coords]
    if lacking:
        raise InvalidValue(
            f"the data have no coordinate {lacking[0]!r}; give x and y of the posts in metres"
        )
    return data.sortby(["y", "x"]).transpose("y", "x", ...), name


def _crs(product: xr.Dataset, variable: str) -> pyproj.CRS | None:
    """Return the CRS that the grid mapping or the attribute ``crs`` names; None if neither does."""
    attrs = product[variable].attrs | product[variable].encoding
    mapping = attrs.get("grid_mapping")
    if mapping in product.variables:
        return pyproj.CRS.from_cf(dict(product[mapping].attrs))
    named = attrs.get("crs", product.attrs.get("crs"))
    return None if named is None else pyproj.CRS.from_user_input(named)


def _draw(
    product: xr.Dataset,
    variable: str,
    shading: _Shading,
    title: str | None,
    size: float,
    hatch: bool,
) -> Figure:
    view = MapView.of(product, variable)
    values, colours, norm, ticks = _colours(product[variable], view.values, shading)
    window = _window(view.extent)
    width, height = _map_inches(window, size)
    uncertain = _uncertain(product, variable, view) if hatch else None
    text = caption(product, variable, view)
    text += "" if uncertain is None else " Hatched: the 95 % confidence interval includes zero."
    lines = textwrap.wrap(text, int(18 * (LEFT + width)))
    bottom = BOTTOM + CAPTION_LINE * len(lines)
    titles = textwrap.wrap(title or _title(product[variable]), int(9 * (width + RIGHT)))
    total_width = LEFT + width + RIGHT
    total_height = bottom + height + TOP + TITLE_LINE * (len(titles) - 1)
    figure = new_figure(total_width, total_height)

    def place(x: float, y: float, across: float, up: float) -> Axes:
        return figure.add_axes(
            (x / total_width, y / total_height, across / total_width, up / total_height)
        )

    axes = place(LEFT, bottom, width, height)
    show = partial(axes.imshow, extent=view.extent, origin="lower", interpolation="nearest")
    show(_background(view))
    image = show(np.ma.masked_invalid(values), cmap=colours, norm=norm)
    _overlay(axes, view, uncertain)
    _dress(axes, _crs(product, variable), window, "\n".join(titles))
    bar_axes = place(LEFT + width + 0.15, bottom + 0.04 * height, 0.17, 0.92 * height)
    extend = "neither" if ticks else _extend(view.values, norm)
    bar = figure.colorbar(image, cax=bar_axes, extend=extend, extendfrac=0.04)
    bar.outline.set_linewidth(0.4)
    bar.set_label("" if ticks else _label(product[variable]))
    _set_ticks(bar, product[variable], ticks)
    figure.text(
        0.12 / total_width,
        (CAPTION_LINE * len(lines) + 0.08) / total_height,
        "\n".join(lines),
        fontsize=7.5,
        color="0.25",
        linespacing=1.4,
        va="top",
    )
    return figure


def _uncertain(product: xr.Dataset, variable: str, view: MapView) -> npt.NDArray[np.bool_] | None:
    """Return where the confidence interval of a rate includes zero; None if the interval is unknown."""
    if variable != "dhdt" or "dhdt_ci95" not in product:
        return None
    interval = MapView.of(product, "dhdt_ci95").values
    return interval > np.abs(view.values)


def _overlay(axes: Axes, view: MapView, uncertain: npt.NDArray[np.bool_] | None) -> None:
    """Draw the outline of the mask and the hatching of uncertain rates."""
    ny, nx = view.values.shape
    left, right, bottom, top = view.extent
    x = left + (np.arange(nx) + 0.5) * (right - left) / nx
    y = bottom + (np.arange(ny) + 0.5) * (top - bottom) / ny
    if min(ny, nx) < 2:
        return
    if view.outside_mask.any() and not view.outside_mask.all():
        axes.contour(x, y, view.outside_mask, [0.5], colors="0.2", linewidths=0.6)
    if uncertain is not None and uncertain.any():
        filled = axes.contourf(x, y, uncertain, [0.5, 1.5], colors="none", hatches=["/////"])
        filled.set_edgecolor("0.15")
        filled.set_linewidth(0.0)


def _set_ticks(bar: Colorbar, variable: xr.DataArray, ticks: dict[float, str]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if ticks:
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
    elif variable.dtype.kind in "iu":
        bar.locator = MaxNLocator(nbins=6, integer=True)
        bar.update_ticks()
    elif variable.dtype.kind == "M":
        bar.formatter = FuncFormatter(lambda year, _: str(_date(year)))
        bar.update_ticks()


def _date(year: float) -> np.datetime64:
    """Return the day of a decimal year, the inverse of that of :class:`cryotile.plotting.view.MapView`."""
    return np.datetime64("2000-01-01") + np.timedelta64(round((year - 2000.0) * 365.25), "D")


def _window(extent: Extent) -> Extent:
    """Return the edges of the map, wider where it is too slim for axes, title and colour bar."""
    left, right, bottom, top = extent
    least = SLIMMEST * max(right - left, top - bottom)
    across, up = max(0.0, least - right + left) / 2, max(0.0, least - top + bottom) / 2
    return left - across, right + across, bottom - up, top + up


def _map_inches(window: Extent, size: float) -> tuple[float, float]:
    across, up = window[1] - window[0], window[3] - window[2]
    return size * across / max(across, up), size * up / max(across, up)


def _dress(axes: Axes, crs: pyproj.CRS | None, window: Extent, title: str) -> None:
    name = ""
    if crs is not None:
        draw_graticule(axes, crs, window)
        text = crs_text(crs)
        name = f", {text if len(text) <= 20 else crs.name}"
    axes.set_xlim(window[:2])
    axes.set_ylim(window[2:])
    axes.set_aspect("equal")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=8)
    axes.set_xlabel(f"x (km){name}")
    axes.set_ylabel("y (km)")
    axes.tick_params(width=0.6, length=3)


def _background(view: MapView) -> _Values:
    colours = np.where(view.not_computed[..., np.newaxis], _NOT_COMPUTED, _NO_POINTS)
    return np.where(view.has_points[..., np.newaxis], _NO_FIT, colours)


def _colours(variable: xr.DataArray, values: _Values, shading: _Shading) -> _Colours:
    """Return the values to show, their colour map and norm, and the names of flags."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap, Normalize

    meanings = str(variable.attrs.get("flag_meanings", "")).split()
    if "flag_values" in variable.attrs:
        flags = np.atleast_1d(variable.attrs["flag_values"]).tolist()
        return _flag_colours(dict(zip(flags, meanings, strict=True)), values, _FLAG_COLOURS)
    if "flag_masks" in variable.attrs:
        return _term_colours(meanings, np.atleast_1d(variable.attrs["flag_masks"]), values)
    limits, asked = shading
    name = asked or _colour_map(variable, values)
    colormap = mpl.colormaps[name]
    if name == CYCLIC:
        start = -math.pi if (values < 0.0).any() else 0.0
        limits = limits or (start, start + 2.0 * math.pi)
    elif name in (CHANGE, SIGNED):
        limits = limits or _symmetric_limits(values)
        # The last few colours of either end are all but black.
        colormap = ListedColormap(colormap(np.linspace(0.06, 0.94, 256)))
    return values, colormap, Normalize(*(limits or _limits(values))), {}


def _colour_map(variable: xr.DataArray, values: _Values) -> str:
    if variable.attrs.get("units") == "rad":
        return CYCLIC
    if variable.name in _CHANGES:
        return CHANGE
    signed = bool((values < 0.0).any() and (values > 0.0).any())
    return SIGNED if signed and variable.name != "elevation" else SEQUENTIAL


def _term_colours(meanings: list[str], masks: npt.NDArray[np.integer], values: _Values) -> _Colours:
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


def _flag_colours(meanings: Mapping[int, str], values: _Values, palette: Sequence[str]) -> _Colours:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    shown = np.unique(values[np.isfinite(values)]).astype(int)
    shown = shown if shown.size else np.zeros(1, int)
    edges = np.append(shown - 0.5, shown[-1] + 0.5)
    # Lines of 12 characters fit beside the bar.
    names = [textwrap.fill(re.sub("[_+]", " ", meanings[flag]), 12) for flag in shown]
    centres = (edges[1:] + edges[:-1]) / 2
    colours = ListedColormap([palette[flag] for flag in shown])
    return values, colours, BoundaryNorm(edges, shown.size), dict(zip(centres, names, strict=True))


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
        return ""  # the title says what they are, and dates need the room
    name = _NAMES.get(str(variable.name), str(variable.name))
    units = str(variable.attrs.get("units", "1")).replace("yr-1", "yr⁻¹").replace("m2", "m²")
    return name if units == "1" else f"{name} ({units})"
