"""Cryo-TEMPO EOLIS point product (ESA, CryoSat-2) in NetCDF-4: swath and POCA points, a file a tile and month.

The product is filtered already: what it holds is valid.  It names neither orbit nor direction, so passes are inferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import CRSError

from cryotile.points import MODES, SURFACE_TYPES, Granule, pass_id
from cryotile.readers import passes
from cryotile.readers.base import Identity, Records, build_granule
from cryotile.readers.source import Shape, Source
from cryotile.times import TimeUnit, utc_instants

__all__ = ["EOLIS", "EolisPoints"]

_SWATH = ("isSwath", "is_swath", "isswath")
_DEGREES = (("lon", "lat"), ("longitude", "latitude"))
_TILE = 100_000.0
_NOTE = "the product holds ice and does not tell its kinds: all of it, ice shelves too, counts as grounded_ice"


@dataclass(frozen=True)
class EolisPoints:
    """Reader of the Cryo-TEMPO EOLIS point product."""

    product: str = "cryotempo_eolis_point"

    @property
    def columns(self) -> Mapping[str, str]:
        """Further columns offered → unit."""
        return {}

    def recognises(self, source: Source) -> bool:
        """Whether it has the product's heights, and its words for swath or for the files that it was made of."""
        named = _swath_name(source) is not None or "inputfileid" in source
        return named and all(name in source for name in ("time", "elevation", "uncertainty"))

    def read(
        self, source: Source, *, surface_types: Sequence[str], columns: Sequence[str]
    ) -> Granule:
        """Read the valid points, see :meth:`cryotile.readers.base.Reader.read`."""
        records, zone = _records(source)
        stated = source.attribute("product_version") is not None
        identity = Identity(
            product=self.product,
            zone=zone,
            # Of the month: a later delivery may begin with another point.
            start=source.sensing_start(None, records.time).astype("datetime64[M]"),
            orbit=0,
            baseline=str(source.attribute("product_baseline") or ""),
            version=source.integer("product_version") if stated else 0,
        )
        return build_granule(
            source,
            identity,
            records,
            surface_types=surface_types,
            columns=columns,
            notes=(_NOTE, passes.NOTE),
        )


def _records(source: Source) -> tuple[Records, str]:
    """All records, and the tile that they lie in."""
    shape = source.shape("elevation")
    longitude, latitude, zone = _positions(source, shape)
    time = _times(source, shape)
    orbit, ascending = passes.infer_passes(np.zeros(shape, np.int64), time, latitude)
    north = ascending.to_numpy(dtype=bool, na_value=False)
    swath = _swath_name(source)
    # A file of before they were told apart holds swath points.
    is_swath = np.ones(shape, np.int8) if swath is None else source.raw(swath, shape)
    poca, sounded = MODES.index("sarin_poca"), MODES.index("sarin_swath")
    grounded = SURFACE_TYPES.index("grounded_ice")
    records = Records(
        platform="cryosat2",
        longitude=longitude,
        latitude=latitude,
        time=time,
        elevation=source.values("elevation", shape),
        uncertainty=source.values("uncertainty", shape),
        pass_id=pass_id("cryosat2", 0, ascending=False) + 2 * orbit + north,
        ascending=ascending,
        mode=np.where(is_swath != 0, sounded, poca).astype(np.int8),
        surface_type=np.full(shape, grounded, dtype=np.int8),
    )
    return records, zone


def _swath_name(source: Source) -> str | None:
    return next((name for name in _SWATH if name in source), None)


def _positions(
    source: Source, shape: Shape
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Longitude and latitude, degrees, and the south-west corner of the tile of 100 km (or of whole degrees)."""
    for lon, lat in _DEGREES:
        if lon in source and lat in source:
            longitude, latitude = source.values(lon, shape), source.values(lat, shape)
            return longitude, latitude, _corner(longitude, latitude, 1.0)
    x, y = source.values("x", shape), source.values("y", shape)
    to_degrees = pyproj.Transformer.from_crs(_crs(source), "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform(x, y, errcheck=False)
    return longitude, latitude, _corner(x, y, _TILE)


def _corner(first: NDArray[np.float64], second: NDArray[np.float64], size: float) -> str:
    # The middle point decides: at the edges, points stand on the line or just across it.
    middles = (np.nanmedian(each) if np.isfinite(each).any() else 0.0 for each in (first, second))
    return "_".join(f"{np.floor(middle / size) * size:.0f}" for middle in middles)


def _crs(source: Source) -> pyproj.CRS:
    text = source.attribute("geospatial_projection")
    mapping = source.attribute("grid_mapping", of="elevation")
    if text is None and mapping is not None:
        text = source.attribute("crs_wkt", of=str(mapping))
    if text is None:
        raise source.lacks("attribute geospatial_projection, the CRS of its x and y,")
    try:
        return pyproj.CRS.from_user_input(text)
    except CRSError as error:
        raise source.damaged(f"geospatial_projection {text!r}", error) from error


def _times(source: Source, shape: Shape) -> NDArray[np.datetime64]:
    """UTC: seconds since 1970 unless the units say another epoch in the way of CF."""
    seconds = source.values("time", shape)
    try:
        return TimeUnit.parse(str(source.attribute("units", of="time"))).to_utc(seconds)
    except ValueError:
        return utc_instants(seconds, "1970-01-01")


EOLIS = EolisPoints()
