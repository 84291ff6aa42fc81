"""The kinds of pictures of a product, and their choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.errors import DamagedFile, InvalidValue, command
from cryotile.files import atomic_path
from cryotile.fit.variables import Status
from cryotile.plotting.histogram import plot_histogram
from cryotile.plotting.look import Look, uncertainties
from cryotile.plotting.map import plot_map, plot_uncertainty
from cryotile.plotting.picture import check_suffix, save_picture, styled
from cryotile.plotting.section import plot_section
from cryotile.plotting.series import is_series, plot_series
from cryotile.plotting.windows import animate, plot_film, plot_windows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["KINDS", "draw", "save"]

KINDS: Mapping[str, Callable[[xr.Dataset, str, Look, Figure | None], Any]] = {
    "map": plot_map,
    "uncertainty": plot_uncertainty,
    "histogram": plot_histogram,
    "status": plot_map,
    "section": plot_section,
    "windows": plot_windows,
    "film": plot_film,
}

OVER_TIME = ("windows", "film")

_BESIDE = ("status", "window_status", "time_start", "time_end", "elevation", "dhdt_ci95")
"""Variables that a picture of another one uses."""


def draw(
    data: xr.DataArray | xr.Dataset,
    variable: str | None = None,
    kind: str | None = None,
    *,
    figure: Figure | None = None,
    **look: Any,
) -> Axes | npt.NDArray[Any]:
    """Draw a picture of one variable.

    Parameters
    ----------
    data : DataArray or Dataset, dimensions (y, x) or (time, y, x)
        A product, a fit of :func:`cryotile.fit_posts`, or one variable of these, with coordinates ``x, y`` in metres.
        Meridians and parallels are drawn if it names its CRS: by a CF grid mapping, or by the attribute ``crs``.  Or a
        series of :func:`cryotile.series`, which has no kinds.
    variable : str or None
        Name of the variable; None: that of the kind, ``dhdt``, or the only one.
    kind : str or None
        One of :data:`KINDS`; None: ``section`` with a line, ``windows`` of a variable over time, otherwise ``map``.
    figure : Figure or None
        An empty figure; None: a new one that pyplot does not know.
    **look
        The fields of :class:`cryotile.plotting.look.Look`.

    Returns
    -------
    Axes or ndarray of Axes
        As of the kind's function.

    Raises
    ------
    InvalidValue
        The kind, the variable or the colour map is unknown, or they do not suit each other.
    MissingDependency
        matplotlib or cmcrameri is not installed.
    """
    with styled():
        if isinstance(data, xr.Dataset) and is_series(data):
            return plot_series(data, variable, _of_series(kind, look), figure)
        product, name, kind, chosen = _prepare(data, variable, kind, look)
        axes: Axes | npt.NDArray[Any] = KINDS[kind](product, name, chosen, figure)
        return axes


def save(
    data: xr.DataArray | xr.Dataset,
    path: Path,
    variable: str | None = None,
    kind: str | None = None,
    *,
    dpi: int = 200,
    **look: Any,
) -> None:
    """Draw a picture and write it to a file, whole or not at all.

    Parameters
    ----------
    data, variable, kind, **look
        As of :func:`draw`.
    path : Path
        PNG, PDF or SVG, by its suffix; GIF: an animation of all windows.
    dpi : int
        Dots per inch of a PNG or GIF.

    Raises
    ------
    InvalidValue
        As of :func:`draw`, or the suffix is unknown.
    MissingDependency
        matplotlib or cmcrameri is not installed.
    UnwritablePath
        The file cannot be written.
    """
    if path.suffix.lower() != ".gif":
        check_suffix(path)

        def make() -> Figure:
            axes = draw(data, variable, kind, **look)
            figure: Figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
            return figure

        save_picture(path, make, dpi=dpi)
        return
    if kind not in (None, *OVER_TIME):
        raise InvalidValue(f"{path} would be an animation, and a {kind} has one picture; give .png")
    with styled():
        product, name, _, chosen = _prepare(data, variable, kind or "film", look)
        film = animate(product, name, chosen, dpi=min(dpi, 110))
    with atomic_path(path) as temporary:
        temporary.write_bytes(film)


def _of_series(kind: str | None, look: dict[str, Any]) -> Look:
    if kind is not None:
        raise InvalidValue(f"a series has no kind {kind!r}; leave the kind out")
    return Look(**look)


def _prepare(
    data: xr.DataArray | xr.Dataset, variable: str | None, kind: str | None, look: dict[str, Any]
) -> tuple[xr.Dataset, str, str, Look]:
    """Return what the function of a kind needs, with the variables read."""
    if kind is not None and kind not in KINDS:
        raise InvalidValue(f"kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    chosen = Look(**look)
    if isinstance(data, xr.DataArray):
        variable = str(data.name or variable or "value")
        data = data.to_dataset(name=variable)
    kind = kind or ("section" if chosen.line is not None else None)
    name = _name(data, variable, kind)
    over_time = data[name].ndim == 3
    kind = kind or ("windows" if over_time else "map")
    if over_time != (kind in OVER_TIME):
        raise InvalidValue(_mismatch(data, name, kind))
    if chosen.line is not None and kind != "section":
        raise InvalidValue(f"a {kind} has no line; leave the line out, or choose the kind section")
    for axis in ("x", "y"):
        if axis not in data.coords:
            raise InvalidValue(
                f"the data have no coordinate {axis!r}; give x and y of the posts in metres"
            )
    return _read(data, name), name, kind, chosen


def _maps(data: xr.Dataset) -> list[str]:
    """Return the names of variables over (y, x), or a time before them."""
    return [
        str(name)
        for name, values in data.data_vars.items()
        if (values.ndim in (2, 3) and {*values.dims[-2:]} == {"y", "x"})
        or {*values.dims} == {"y", "x"}
    ]


def _name(data: xr.Dataset, variable: str | None, kind: str | None) -> str:
    """Return the variable to draw."""
    maps = _maps(data)
    if kind == "status":
        if variable not in (None, "status"):
            raise InvalidValue(
                f"the kind status shows the variable status, not {variable!r}; leave the variable out"
            )
        variable = "status"
    if variable is None and kind in OVER_TIME:
        times = [name for name in maps if data[name].ndim == 3]
        if not times:
            raise InvalidValue(
                "the data have no windows: no variable is over (time, y, x); plan a run with --window 5y"
            )
        return times[0]
    name = variable or ("dhdt" if "dhdt" in maps or not maps else maps[0])
    if name not in maps:
        raise InvalidValue(
            f"the data have no variable {name!r} over (y, x); choose one of {', '.join(maps) or 'none'}, or select the"
            " other dimensions first"
        )
    return name


def _mismatch(data: xr.Dataset, name: str, kind: str) -> str:
    if kind in OVER_TIME:
        times = [other for other in _maps(data) if data[other].ndim == 3]
        remedy = f"choose one of {', '.join(times)}" if times else "plan a run with --window 5y"
        return f"{name} is one map, without windows; {remedy}"
    count, along = data[name].shape[0], data[name].dims[0]
    return (
        f"{name} has {count} maps along {along}, and a {kind} shows one; choose the kind windows or film, or select"
        " one of them in Python"
    )


def _not_begun(data: xr.Dataset) -> str:
    """Return that no post is computed yet, and the command that computes them."""
    source = Path(data.encoding.get("source", "RUN"))
    run = command("run", source)
    if not source.is_dir():
        run = f"{command('run', 'RUN')}, then assemble again"
    return f"{source} has no tile yet, so that there is nothing to draw; make them with: {run}"


def _read(data: xr.Dataset, name: str) -> xr.Dataset:
    """Read the variable and those that its picture uses, over ascending (y, x)."""
    mapping = (data[name].attrs | data[name].encoding).get("grid_mapping")
    bounds = f"{data[name].dims[0]}_bnds"
    wanted = [name, *uncertainties(name), *_BESIDE, mapping, bounds]
    names = [n for n in dict.fromkeys(wanted) if n in data.variables]
    try:
        part = data[names].load()
    except (OSError, RuntimeError) as error:
        raise DamagedFile(f"the product is damaged ({error}); assemble it again") from error
    if "status" in part and (part["status"] == Status.NOT_COMPUTED).all():
        raise InvalidValue(_not_begun(data))
    return part.sortby(["y", "x"]).transpose(..., "y", "x")
