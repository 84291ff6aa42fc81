"""Heights over time at posts and along a line, from a map of a run with heights."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import xarray as xr

from cryotile.errors import InvalidValue, command
from cryotile.fit.variables import Status
from cryotile.geo.places import Places
from cryotile.geo.projection import projected_crs
from cryotile.maps.along import edges, inside, places_along
from cryotile.maps.netcdf import CHUNK

__all__ = ["KEPT", "bins_of", "heights_along", "heights_at", "plan_with", "without_heights"]

Array = npt.NDArray[np.float64]

OVER_TIME = ("height", "height_sigma", "height_ci95", "height_pass_count")

KEPT = (
    "Conventions",
    "source",
    "platform",
    "history",
    "cryotile_version",
    "crs",
    "posting",
    "reference_epoch",
)
"""Global attributes of maps that their series have, too."""

SHOWN = 3
"""Places that a note names."""


def heights_at(maps: xr.Dataset, places: Places, name: str) -> tuple[xr.Dataset, list[str]]:
    """Return the heights of the posts nearest to places.

    Parameters
    ----------
    maps : Dataset, dimensions (y, x)
        As of :func:`cryotile.open`, with heights.
    places : Places
        In the CRS of the maps.
    name : str
        What messages call the maps.

    Returns
    -------
    Dataset, dimensions (post, height_time)
        ``height`` and its ``height_sigma``, ``height_lower``, ``height_upper`` (ends of the 95 % interval), metres,
        relative to ``elevation``; ``height_pass_count``; ``status``.
    list of str
        Which places are outside the map or have no fit.

    Raises
    ------
    InvalidValue
        The maps have no heights, or no place has any.
    """
    _check_heights(maps, name)
    among = inside(maps, places.x, places.y)
    notes = [_outside(maps, places, ~among)] if not among.all() else []
    if not among.any():
        raise InvalidValue(notes[0])
    places = places.part(among)
    found = _picked(maps, places.x, places.y, "post")
    labels = np.array(places.names, dtype=object)
    found = found.assign_coords(post=("post", labels, {"long_name": "name of the place"}))
    notes += _without_fit(places, found["status"].to_numpy(), name)
    if not np.isfinite(found["height"].to_numpy()).any():
        raise InvalidValue(notes[-1] if notes else f"no place has a height in {name}; give others")
    return found, notes


def heights_along(maps: xr.Dataset, line: Array, name: str) -> tuple[xr.Dataset, list[str]]:
    """Return the heights of the posts nearest to places along a line, a posting apart.

    Parameters
    ----------
    maps : Dataset, dimensions (y, x)
        As of :func:`cryotile.open`, with heights.
    line : ndarray, shape (vertices, 2)
        x, y, metres.
    name : str
        What messages call the maps.

    Returns
    -------
    Dataset, dimensions (distance, height_time)
        As of :func:`heights_at`; ``distance`` is that from the start of the line along the ground, metres.
    list of str
        How many places are outside the map or have no fit.

    Raises
    ------
    InvalidValue
        The maps have no heights, or the line has no length or no post with a fit.
    """
    _check_heights(maps, name)
    along = places_along(maps, line, _crs(maps))
    found = _picked(maps, along.x, along.y, "distance", along.inside)
    about = {"units": "m", "long_name": "distance on the ground from the start of the line"}
    found = found.assign_coords(distance=("distance", along.distance, about))
    status = found["status"].to_numpy()
    count, notes = along.x.size, []
    if outside := int((~along.inside).sum()):
        notes.append(f"{outside:,} of {count:,} places of the line are outside the map")
    if lost := int((along.inside & (status != Status.OK)).sum()):
        notes.append(
            f"{lost:,} of {count:,} places of the line have no fit: {_reasons(status[along.inside])}"
        )
    if not np.isfinite(found["height"].to_numpy()).any():
        raise InvalidValue(f"no place of the line has a height in {name}; give another line")
    return found, notes


def without_heights(maps: xr.Dataset, name: str) -> str:
    """Return that maps have no heights, and the command that plans a run with them."""
    again = plan_with(maps, "--heights", "3m")
    return f"{name} has no heights over time, because its run was planned without them; plan another with: {again}"


def plan_with(maps: xr.Dataset, *options: str) -> str:
    """Return the ``cryotile plan`` of maps with further options.

    Parameters
    ----------
    maps : Dataset
        Their ``history`` names the command.
    *options : str
        Words to add.
    """
    planned = str(maps.attrs.get("history", "")).partition("cryotile plan ")[2].partition(";")[0]
    words = shlex.split(planned) or ["RUN", "--db", "DB"]
    if "--heights" in options and "plane" in words:
        # The recipe plane has no heights.
        words[words.index("plane")] = "passes"
    return command("plan", *words, *options)


def _check_heights(maps: xr.Dataset, name: str) -> None:
    if "dhdt" not in maps:
        again = command("assemble", "RUN", "-o", "dhdt.nc")
        raise InvalidValue(f"{name} has no dhdt; give a run, or a product made with: {again}")
    if "height" not in maps:
        raise InvalidValue(without_heights(maps, name))


def _crs(maps: xr.Dataset) -> pyproj.CRS:
    return projected_crs(str(maps.attrs["crs"]))


def _picked(
    maps: xr.Dataset, x: Array, y: Array, along: str, among: npt.NDArray[np.bool_] | None = None
) -> xr.Dataset:
    """Return the posts nearest to places, without values where a place is not among the posts."""
    axes = {axis: pd.Index(maps[axis].to_numpy()) for axis in ("y", "x")}
    rows, columns = (
        axes[axis].get_indexer(v, method="nearest") for axis, v in (("y", y), ("x", x))
    )
    names = [n for n in (*OVER_TIME, "elevation", "status") if n in maps]
    parts, order = [], []
    # Chunk by chunk: places far apart would have the whole map read, and one by one a chunk many times.
    chunks = pd.DataFrame({"y": rows // CHUNK, "x": columns // CHUNK}).groupby(["y", "x"]).indices
    for chosen in chunks.values():
        r, c = rows[chosen], columns[chosen]
        window = {"y": slice(r.min(), r.max() + 1), "x": slice(c.min(), c.max() + 1)}
        within = {
            "y": xr.DataArray(r - r.min(), dims=along),
            "x": xr.DataArray(c - c.min(), dims=along),
        }
        parts.append(maps[names].isel(window).load().isel(within))
        order.append(chosen)
    place = np.empty(x.size, np.intp)
    place[np.concatenate(order)] = np.arange(x.size)
    found = xr.concat(parts, along).isel({along: place})
    found = found.transpose(along, ...)
    if among is not None and not among.all():
        empty = {"status": Status.NOT_COMPUTED, "height_pass_count": 0}
        for variable, values in found.data_vars.items():
            has = xr.DataArray(among, dims=along)
            found[variable] = values.where(has, empty.get(str(variable), np.nan))
    return _described(maps, found, along)


def _described(maps: xr.Dataset, found: xr.Dataset, along: str) -> xr.Dataset:
    """Return heights with the ends of their intervals, positions and attributes."""
    to_degrees = pyproj.Transformer.from_crs(_crs(maps), "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform(found["x"].to_numpy(), found["y"].to_numpy())
    order = ("height", "height_sigma", "height_pass_count", "elevation", "status")
    kept = {n: (found[n].dims, found[n].to_numpy(), _attrs(maps[n])) for n in order if n in found}
    dims = found["height"].dims
    ends = {
        f"height_{end}": (
            dims,
            (found["height"] + sign * found["height_ci95"]).to_numpy(),
            {"units": "m", "long_name": f"{end} end of the 95 % confidence interval of height"},
        )
        for end, sign in (("lower", -1), ("upper", 1))
    }
    of_post = {"x": "x of the nearest post", "y": "y of the nearest post"}
    return xr.Dataset(
        {**kept, **ends},
        coords={
            **bins_of(maps),
            **{
                n: (along, found[n].to_numpy(), {"units": "m", "long_name": t})
                for n, t in of_post.items()
            },
            "longitude": (
                along,
                longitude,
                {"units": "degrees_east", "standard_name": "longitude"},
            ),
            "latitude": (along, latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        },
        attrs={n: maps.attrs[n] for n in KEPT if n in maps.attrs},
    )


def _attrs(variable: xr.DataArray) -> dict[str, Any]:
    """Return attributes without those that name variables of the map."""
    of_map = ("grid_mapping", "cell_measures", "ancillary_variables")
    return {name: value for name, value in variable.attrs.items() if name not in of_map}


def bins_of(maps: xr.Dataset) -> dict[str, xr.Variable]:
    """Return the coordinates of bins of heights: their middles and their bounds."""
    return {name: maps[name].variable.load() for name in ("height_time", "height_time_bnds")}


def _outside(maps: xr.Dataset, places: Places, chosen: npt.NDArray[np.bool_]) -> str:
    first = int(np.flatnonzero(chosen)[0])
    return (
        f"{_named(places, chosen)} outside the map, e.g. x {places.x[first]:.10g} m, y {places.y[first]:.10g} m,"
        f" and its posts are within {edges(maps)} m; give a place among them; for degrees use lonlat=True"
    )


def _without_fit(places: Places, status: npt.NDArray[np.int8], name: str) -> Iterator[str]:
    """Yield which places have no fit, and why."""
    for state in sorted({*status.tolist()} - {Status.OK}):
        chosen = status == state
        first = int(np.flatnonzero(chosen)[0])
        at = (f"{places.x[first]:.10g}", f"{places.y[first]:.10g}")
        remedy = f"give others, or see why with: {command('explain', 'RUN', '--at', *at)}"
        if state == Status.NOT_COMPUTED:
            remedy = f"its tile is not fitted yet, go on with: {command('run', 'RUN')}"
        yield f"{_named(places, chosen)} without a fit in {name} ({Status(state).name.lower()}); {remedy}"


def _named(places: Places, chosen: npt.NDArray[np.bool_]) -> str:
    names: Sequence[str] = [places.names[k] for k in np.flatnonzero(chosen)]
    if len(names) == 1:
        return f"point {names[0]} is"
    others = f" and {len(names) - SHOWN:,} others" if len(names) > SHOWN else ""
    return f"points {', '.join(names[:SHOWN])}{others} are"


def _reasons(status: npt.NDArray[np.int8]) -> str:
    counts = [(s.name.lower(), int((status == s).sum())) for s in Status if s != Status.OK]
    return ", ".join(f"{count:,} {name}" for name, count in counts if count)
