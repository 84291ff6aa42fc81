"""Radar less laser: how much the rates of both differ, over a map whose run has the term ``penetration``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.fit.variables import Status

__all__ = ["Penetration", "summarize_penetration"]


@dataclass(frozen=True)
class Penetration:
    """The rate of radars less that of lasers, over the posts that tell it.

    Attributes
    ----------
    posts : int
        Number of posts with a value.
    percentiles : (float, float, float)
        5, 50 and 95, m/yr.
    beyond : float
        Share of the posts whose 95 % interval does not hold 0; 0.05 is expected where both see the same change.
    """

    posts: int
    percentiles: tuple[float, float, float]
    beyond: float


def summarize_penetration(maps: xr.Dataset) -> Penetration:
    """Summarize the difference between the rates of radars and lasers.

    Parameters
    ----------
    maps : Dataset, dimensions (y, x)
        Maps of a run with the terms ``platform_offset`` and ``penetration``.

    Raises
    ------
    InvalidValue
        They have no ``penetration_rate``, or no post has both kinds of instrument.
    """
    if "penetration_rate" not in maps:
        raise InvalidValue(
            "the maps have no penetration_rate; plan a run on a point DB with lasers and radars, with --term"
            " platform_offset --term penetration"
        )
    status, rate, interval = (
        maps[name].to_numpy() for name in ("status", "penetration_rate", "penetration_rate_ci95")
    )
    known = (status == Status.OK) & np.isfinite(rate) & np.isfinite(interval)
    if not known.any():
        raise InvalidValue(
            "no post has a rate of both lasers and radars; use a larger radius, or a period that both cover"
        )
    low, middle, high = np.percentile(rate[known], [5, 50, 95]).tolist()
    beyond = float(np.mean(np.abs(rate[known]) > interval[known]))
    return Penetration(int(known.sum()), (low, middle, high), beyond)
