"""Which points are asked for, as limits of stored values, and the fragments that may have them."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cryotile.errors import InvalidValue
from cryotile.geo.grid import Tile
from cryotile.pointdb.encoding import TIME
from cryotile.points import Bounds
from cryotile.selection.parser import Where, instant

__all__ = ["Limits", "Time", "checked_bounds", "read_limits", "row_filter", "touched"]

Time = str | np.datetime64 | pd.Timestamp

Limits = dict[str, tuple[int, int]]
"""Stored name → first and last value."""

FARTHEST = 21_474_836.47
"""Metres that centimetres in 32 bits can hold."""


def checked_bounds(bounds: Bounds | Tile) -> Bounds:
    """Return bounds, a tile's or those given, or refuse those that are reversed or NaN."""
    if isinstance(bounds, Tile):
        return bounds.bounds
    x_min, y_min, x_max, y_max = bounds
    if not (x_min <= x_max and y_min <= y_max):
        raise InvalidValue(
            f"bounds {' '.join(map(str, bounds))} are reversed or no numbers; give x_min y_min x_max y_max, metres"
        )
    return bounds


def read_limits(bounds: Bounds | Tile | None, time: tuple[Time, Time] | None) -> Limits:
    """Turn metres and instants into stored values; bounds are inside, the second time is not."""
    limits: Limits = {}
    if bounds is not None:
        x_min, y_min, x_max, y_max = checked_bounds(bounds)
        limits["x_cm"] = _first_at_least(x_min), -_first_at_least(-x_max)
        limits["y_cm"] = _first_at_least(y_min), -_first_at_least(-y_max)
    if time is not None:
        start, end = (
            instant(t) if isinstance(t, str) else pd.Timestamp(t).to_datetime64() for t in time
        )
        if not start <= end:
            raise InvalidValue(
                f"times {time[0]} to {time[1]} are reversed; give the earlier one first"
            )
        first, last = (int(t.astype("datetime64[ms]").astype(np.int64)) for t in (start, end))
        limits["time"] = first, last - 1
    return limits


def _first_at_least(metres: float) -> int:
    """Smallest number of centimetres that reads as at least so many metres."""
    metres = min(max(metres, -FARTHEST), FARTHEST)
    cm = ceil(metres * 100) - 2
    # The product may be off by a rounding, the quotient is what a reader sees.
    while cm / 100 < metres:
        cm += 1
    return cm


def row_filter(limits: Limits) -> pc.Expression | None:
    """Return the limits as Arrow understands them, None where there are none."""
    keep = None
    for name, ends in limits.items():
        first, last = (pa.scalar(end, TIME if name == "time" else pa.int32()) for end in ends)
        within = (pc.field(name) >= first) & (pc.field(name) <= last)
        keep = within if keep is None else keep & within
    return keep


def touched(
    fragments: pa.Table, limits: Limits, where: Where | None, chunk: int | None = None
) -> list[dict[str, Any]]:
    """List fragments that may hold points within the limits that ``where`` selects, in the order of their chunks."""
    keep = np.ones(len(fragments), bool)
    if chunk is not None:
        keep &= fragments["chunk"].to_numpy() == chunk
    for name, (first, last) in limits.items():
        keep &= fragments[f"{name}_max"].to_numpy() >= first
        keep &= fragments[f"{name}_min"].to_numpy() <= last
    near = fragments.filter(keep)
    if where is not None and len(near):
        near = near.filter(where.possible(_known(near)))
    chosen = near.select(["chunk", "path", "bytes", "checksum"])
    rows: list[dict[str, Any]] = chosen.sort_by(
        [("chunk", "ascending"), ("path", "ascending")]
    ).to_pylist()
    return rows


def _known(fragments: pa.Table) -> pd.DataFrame:
    columns = {name: fragments[name].to_pandas() for name in ("platform", "mode")}
    for end in ("min", "max"):
        columns[f"time_{end}"] = fragments[f"time_{end}"].to_numpy().view("datetime64[ms]")
        for axis in ("x", "y"):
            columns[f"{axis}_{end}"] = fragments[f"{axis}_cm_{end}"].to_numpy() / 100
    return pd.DataFrame(columns)
