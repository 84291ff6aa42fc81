"""ICESat-2 ATL11, land ice height along reference tracks: one height per reference point and cycle.

Early releases keep the heights in ``ptN/corrected_h``, later ones in ``ptN`` itself.  ``crossing_track_data`` is
not read: it repeats heights of other granules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryotile.points import MODES, SURFACE_TYPES
from cryotile.readers import icesat2
from cryotile.readers.base import Identity, ProductReader, Records, find_passes
from cryotile.readers.source import Source

__all__ = ["ATL11", "Atl11"]

_PAIRS = ("pt1", "pt2", "pt3")
_BEST_QUALITY = 0


class Atl11(ProductReader):
    """Reader of ICESat-2 ATL11."""

    product = "icesat2_atl11"
    variables: Mapping[str, tuple[str, str]] = {
        "uncertainty_systematic": ("h_corr_sigma_systematic", "m")
    }
    notes = (icesat2.NOTE,)

    def recognises(self, source: Source) -> bool:
        """Return whether ``short_name`` is ATL11 or, if it is absent, a pair of beams has corrected heights."""
        short_name = source.attribute("short_name")
        return bool(_pairs(source)) if short_name is None else short_name == "ATL11"

    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:
        """Return identity and records of a granule, a record for each reference point and cycle of each pair."""
        pairs = _pairs(source)
        delivery = icesat2.delivery(source, "ATL11")
        stored = {name: self.variables[name][0] for name in extra}
        parts = [
            _pair(source, pair, heights, delivery.track, stored.values())
            for pair, heights in pairs.items()
        ]
        if not parts:
            raise source.lacks("groups pt1, pt2 and pt3")

        def gather(name: str) -> NDArray[Any]:
            return np.concatenate([part[name] for part in parts])

        latitude, orbit = gather("latitude"), gather("orbit")
        time = icesat2.utc_times(source, gather("delta_time"))
        passes = find_passes(
            "icesat2",
            orbit if (orbit >= 0).all() else None,
            icesat2.northward(gather("azimuth")),
            time,
            latitude,
        )
        records = Records(
            platform="icesat2",
            longitude=gather("longitude"),
            latitude=latitude,
            time=time,
            elevation=gather("h_corr"),
            uncertainty=gather("h_corr_sigma"),
            pass_id=passes.pass_id,
            ascending=passes.ascending,
            mode=np.full(time.shape, MODES.index("laser"), dtype=np.int8),
            surface_type=np.full(time.shape, SURFACE_TYPES.index("grounded_ice"), dtype=np.int8),
            rejected={"not_best_quality": gather("quality_summary") != _BEST_QUALITY},
            extra={name: gather(variable) for name, variable in stored.items()},
            notes=passes.notes,
        )
        return self._identity(source, pairs, delivery, records.time), records

    def _identity(
        self,
        source: Source,
        pairs: Mapping[str, str],
        delivery: icesat2.Delivery,
        times: NDArray[np.datetime64],
    ) -> Identity:
        cycles = [source.raw(f"{heights}/cycle_number") for heights in pairs.values()]
        track = _track(source, next(iter(pairs)), delivery.track)
        last_cycle = int(np.concatenate(cycles).max(initial=0))
        return Identity(
            product=self.product,
            zone=delivery.region,
            start=source.sensing_start(None, times),
            orbit=track or 0,
            baseline=delivery.release,
            # A granule gains a cycle every 91 days, so its last cycle orders deliveries, too.
            version=100 * delivery.version + last_cycle,
        )


def _pairs(source: Source) -> dict[str, str]:
    """Return pair of beams → group of its heights, for the pairs that the granule has."""
    found = {}
    for pair in _PAIRS:
        if f"{pair}/corrected_h" in source:
            found[pair] = f"{pair}/corrected_h"
        elif f"{pair}/h_corr" in source:
            found[pair] = pair
    return found


def _track(source: Source, pair: str, delivered: int | None) -> int | None:
    """Return the reference ground track that a pair states, otherwise that of the granule; None if unknown."""
    if source.attribute("ReferenceGroundTrack", of=pair) is None:
        return delivered
    return source.integer("ReferenceGroundTrack", of=pair)


def _pair(
    source: Source, pair: str, heights: str, delivered: int | None, extra: Iterable[str]
) -> dict[str, NDArray[Any]]:
    """Return the arrays of one pair, each of points · cycles values: all cycles of a point, then the next point."""
    cycles = source.raw(f"{heights}/cycle_number")
    points = source.raw(f"{heights}/latitude").shape
    shape = (*points, *cycles.shape)
    track = _track(source, pair, delivered)
    orbits = [-1 if track is None else icesat2.orbit_number(int(cycle), track) for cycle in cycles]

    def per_point(values: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(values, cycles.size)

    def per_cycle(read: Callable[..., NDArray[Any]], name: str) -> NDArray[Any]:
        return read(f"{heights}/{name}", shape).ravel()

    return {
        "longitude": per_point(source.values(f"{heights}/longitude", points)),
        "latitude": per_point(source.values(f"{heights}/latitude", points)),
        "azimuth": per_point(source.values_or_nan(f"{pair}/ref_surf/rgt_azimuth", points)),
        "orbit": np.tile(np.array(orbits, dtype=np.int64), points),
        "quality_summary": per_cycle(source.raw, "quality_summary"),
        **{name: per_cycle(source.values, name) for name in ("delta_time", "h_corr")},
        "h_corr_sigma": per_cycle(source.values_or_nan, "h_corr_sigma"),
        **{name: per_cycle(source.values_or_nan, name) for name in extra},
    }


ATL11 = Atl11()
