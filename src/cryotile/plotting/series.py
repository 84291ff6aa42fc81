"""Values over time with their intervals, and heights along a line as a picture of distance and time."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.plotting.colours import Shading, choose_colours, extend
from cryotile.plotting.look import Look
from cryotile.plotting.panel import NO_POINTS
from cryotile.plotting.picture import new_figure
from cryotile.plotting.view import date_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["is_series", "plot_series"]

Values = npt.NDArray[Any]

VALUES = ("mass", "volume", "height")
"""Variables that are drawn over time; the first that there is, unless one is named."""

ALONG = ("post", "region", "distance")
"""Dimensions of a series beside the time."""

TOGETHER, PANELS = 4, 30
"""Most curves in one panel, whose bands would hide each other; most panels of a picture."""

COLUMNS = 4


def is_series(data: xr.Dataset) -> bool:
    """Return whether a Dataset is of :func:`cryotile.series`."""
    return any(name in data and {*data[name].dims} & {*ALONG} for name in VALUES)


def plot_series(
    found: xr.Dataset, variable: str | None, look: Look, figure: Figure | None = None
) -> Axes | npt.NDArray[Any]:
    """Draw a series: curves with bands of their 95 % intervals, or heights along a line in colours.

    Parameters
    ----------
    found : Dataset
        As of :func:`cryotile.series`.
    variable : str or None
        ``mass``, ``volume`` or ``height``; None: the first of them.
    look : Look
        Choices of the user: ``limits``, ``title``, ``size``, and ``colour_map`` of a line.
    figure : Figure or None
        An empty figure; None: a new one.

    Returns
    -------
    Axes, or ndarray of Axes, shape (panels,)
        Curves in one panel, or a panel for each of more than :data:`TOGETHER`; a line has one.

    Raises
    ------
    InvalidValue
        The variable is not one of the series.
    """
    names = [name for name in VALUES if name in found]
    name = variable or names[0]
    if name not in names:
        raise InvalidValue(f"the series has no {name}; choose one of {', '.join(names)}")
    if "distance" in found[name].dims:
        return _draw_line(found, name, look, figure)
    along = str(next(dim for dim in found[name].dims if dim != "height_time"))
    has = found[name].notnull().any("height_time").to_numpy()
    chosen = np.flatnonzero(has)[:PANELS]
    if not chosen.size:
        raise InvalidValue(f"the series has no {name}; choose other places or basins")
    shown = found.isel({along: chosen})
    title = look.title or _title(found, name)
    size = look.size or 7.0
    if chosen.size <= TOGETHER:
        axes: Axes = new_figure(size, 0.52 * size, "constrained", figure).subplots()
        for k in range(chosen.size):
            _curve(axes, shown.isel({along: k}), name, _colour(k))
        if chosen.size > 1 or along == "region":
            axes.legend(loc="best", ncols=2 if chosen.size > 2 else 1)
        _finish(axes, name, look)
        axes.set_title(_wrapped(title, size))
        return axes
    return _panels(shown, name, look, figure, (title, size, has.size - chosen.size))


def _panels(
    shown: xr.Dataset, name: str, look: Look, figure: Figure | None, of: tuple[str, float, int]
) -> npt.NDArray[Any]:
    """Draw a panel for each curve."""
    title, size, left_out = of
    along = str(next(dim for dim in shown[name].dims if dim != "height_time"))
    count = shown.sizes[along]
    columns = min(COLUMNS, -(-count // 2))
    rows = -(-count // columns)
    wide, tall = 0.36 * size * columns, 0.24 * size * rows + 0.5
    drawn = new_figure(wide, tall, "constrained", figure)
    cells = drawn.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for k, axes in enumerate(cells[:count]):
        one = shown.isel({along: k})
        _curve(axes, one, name, _colour(0))
        _finish(axes, name, look)
        axes.set_title(str(one[along].item()), fontsize=8)
        if k % columns:
            axes.set_ylabel("")
        if k + columns >= count:
            axes.tick_params(labelbottom=True)
    for axes in cells[count:]:
        axes.remove()
    said = f"{title}; {left_out} others are not drawn" if left_out else title
    drawn.suptitle(_wrapped(said, wide), x=0.01, ha="left", fontsize=10, fontweight="bold")
    return np.array(cells[:count], dtype=object)


def _colour(number: int) -> str:
    """Return a colour of the style; "C0" would be that of the style in which the figure is saved."""
    import matplotlib as mpl

    return str(mpl.rcParams["axes.prop_cycle"].by_key()["color"][number])


def _curve(axes: Axes, one: xr.Dataset, name: str, colour: str) -> None:
    """Draw one curve; a bin without a value ends it, and its band."""
    time = one["height_time"].to_numpy()
    value, lower, upper = (
        one[n].to_numpy().astype(float) for n in (name, f"{name}_lower", f"{name}_upper")
    )
    label = str(one[next(dim for dim in ALONG if dim in one.coords)].item())
    axes.plot(time, value, color=colour, marker="o", markersize=2.5, linewidth=1.0, label=label)
    known = np.isfinite(value) & np.isfinite(lower)
    axes.fill_between(time, lower, upper, where=known, color=colour, alpha=0.22, linewidth=0)
    # A band needs two neighbours: a bin between two gaps has a bar.
    beside = np.append(False, known[:-1]) | np.append(known[1:], False)
    alone = known & ~beside
    if alone.any():
        axes.vlines(time[alone], lower[alone], upper[alone], color=colour, alpha=0.4, linewidth=2.0)


def _finish(axes: Axes, name: str, look: Look) -> None:
    axes.axhline(0.0, color="0.4", linewidth=0.6, zorder=0)
    axes.set_ylabel(_LABELS[name])
    if look.limits is not None:
        axes.set_ylim(look.limits)
    date_axis(axes.xaxis)


_LABELS = {
    "height": "height change (m)",
    "volume": "volume change (km³)",
    "mass": "mass change (Gt)",
}


def _title(found: xr.Dataset, name: str) -> str:
    band = ", 95\N{NO-BREAK SPACE}% interval"
    if name == "height":
        along = "distance" in found.dims
        where = " along the line" if along else _position(found)
        epoch = str(found.attrs.get("reference_epoch", ""))[:10]
        since = f" relative to the elevation of {epoch}" if epoch else ""
        return f"Height{where}{since}{'' if along else band}"
    starts = np.unique(found["relative_to"].dropna("region").to_numpy().astype("datetime64[D]"))
    since = f"the bin from {starts[0]}" if starts.size == 1 else "the first bin of each"
    return f"Change of {name} since {since}{band}"


def _position(found: xr.Dataset) -> str:
    if found.sizes.get("post") != 1:
        return ""
    longitude, latitude = (float(found[n].item()) for n in ("longitude", "latitude"))
    east, north = "E" if longitude >= 0 else "W", "N" if latitude >= 0 else "S"
    return f" at {abs(latitude):.3f}° {north} {abs(longitude):.3f}° {east}"


def _wrapped(text: str, inches: float) -> str:
    return "\n".join(textwrap.wrap(text, int(11.5 * inches)))


def _draw_line(found: xr.Dataset, name: str, look: Look, figure: Figure | None) -> Axes:
    """Draw heights over distance and time."""
    size = look.size or 7.0
    drawn = new_figure(size, 0.62 * size, "constrained", figure)
    axes: Axes = drawn.subplots()
    values = found[name].transpose("height_time", "distance")
    numbers = values.to_numpy().astype(float)
    colours = choose_colours(values, numbers, Shading(look.limits, look.colour_map))
    bounds = found["height_time_bnds"].to_numpy()
    axes.set_facecolor(NO_POINTS)
    mesh = axes.pcolormesh(
        _edges(found["distance"].to_numpy() / 1e3),
        np.append(bounds[:, 0], bounds[-1, 1]),
        np.ma.masked_invalid(numbers),
        cmap=colours.colour_map,
        norm=colours.norm,
    )
    ends = extend(numbers, colours.norm)
    drawn.colorbar(mesh, ax=axes, label=_LABELS[name], extend=ends, pad=0.02)
    axes.set_xlabel("distance on the ground from the start of the line (km); grey: no height")
    date_axis(axes.yaxis)
    axes.set_title(_wrapped(look.title or _title(found, name), size))
    return axes


def _edges(middle: Values) -> Values:
    """Return the edges of cells around places."""
    between = (middle[1:] + middle[:-1]) / 2
    return np.concatenate([middle[:1], between, middle[-1:]])
