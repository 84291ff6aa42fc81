"""Cryo-TEMPO EOLIS point product (ESA, CryoSat-2) in NetCDF-4: swath and POCA points, one file per tile and month.

The product is already filtered: every point is valid.  It states no direction.  It names the input file of each point,
which tells the pass in every tile alike; without these names, passes are inferred.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import CRSError

from cryotile.points import MODES, SURFACE_TYPES, pass_id
from cryotile.readers import pass_inference
from cryotile.readers.base import Identity, ProductReader, Records, instants
from cryotile.readers.cryotempo import delivery
from cryotile.readers.source import Shape, Source
from cryotile.times import parse_date

__all__ = ["EOLIS", "EolisPoints"]

_SWATH = ("isSwath", "is_swath", "isswath")
_DEGREES = (("lon", "lat"), ("longitude", "latitude"))
_TILE = 100_000.0
_INPUT_FILE = re.compile(r"(\d+)['\"]?\s*:\s*['\"]([^'\"]*)")
_ORBIT = re.compile(r"orbit (\d{1,6})\b")
_START = re.compile(r"\d{8}T\d{6}")
_NOTE = "the product holds ice and does not distinguish floating from grounded ice: all of it counts as grounded_ice"


class EolisPoints(ProductReader):
    """Reader of the Cryo-TEMPO EOLIS point product."""

    product = "cryotempo_eolis_point"
    variables: Mapping[str, tuple[str, str]] = {}
    notes = (_NOTE,)

    def recognises(self, source: Source) -> bool:
        """Return whether the product's heights are there, and its swath flags, input files or attribute of the CRS."""
        if not all(name in source for name in ("time", "elevation")):
            return False
        return (
            _swath_name(source) is not None
            or "inputfileid" in source
            or source.attribute("geospatial_projection") is not None
        )

    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:  # noqa: ARG002 - it has none
        """Return identity and records of a granule."""
        records, zone = _records(source)
        baseline, version = delivery(source)
        identity = Identity(
            product=self.product,
            zone=zone,
            # The month, because a later delivery may begin with another point.
            start=source.sensing_start(None, records.time).astype("datetime64[M]"),
            orbit=0,
            baseline=baseline,
            version=version,
        )
        return identity, records


def _records(source: Source) -> tuple[Records, str]:
    """Return all records, and the name of their tile."""
    shape = source.shape("elevation")
    longitude, latitude, zone = _positions(source, shape)
    # Seconds since 1970, whatever the words of its first files.
    time = instants(source, "time", shape, "seconds since 1970-01-01")
    stated = _stated(source, shape)
    orbit, ascending = pass_inference.infer_passes(stated, time, latitude)
    orbit[stated >= 0] = stated[stated >= 0]
    swath = _swath_name(source)
    # Files of the time before the flag hold swath points.
    is_swath = np.ones(shape, np.int8) if swath is None else source.raw(swath, shape)
    poca, sounded = MODES.index("sarin_poca"), MODES.index("sarin_swath")
    grounded = SURFACE_TYPES.index("grounded_ice")
    records = Records(
        platform="cryosat2",
        longitude=longitude,
        latitude=latitude,
        time=time,
        elevation=source.values("elevation", shape),
        uncertainty=source.values_or_nan("uncertainty", shape),
        pass_id=pass_id("cryosat2", 0, ascending=False) + 2 * orbit,
        ascending=ascending,
        mode=np.where(is_swath != 0, sounded, poca).astype(np.int8),
        surface_type=np.full(shape, grounded, dtype=np.int8),
        notes=(pass_inference.DIRECTION_NOTE if (stated >= 0).all() else pass_inference.NOTE,),
    )
    return records, zone


def _stated(source: Source, shape: Shape) -> NDArray[np.int64]:
    """Return what the names of input files tell: the orbit, or the start of the file in units of 600 s; else −1."""
    orbits = np.full(shape, -1, np.int64)
    names = str(source.attribute("fileids") or "")
    if "inputfileid" not in source:
        return orbits
    numbers = source.raw("inputfileid", shape)
    for number, name in _INPUT_FILE.findall(names):
        if orbit := _ORBIT.search(name):
            orbits[numbers == int(number)] = int(orbit[1])
        elif start := _START.search(name):
            # A number of other digits in a name is no date.
            with suppress(ValueError):
                instant = parse_date(start[0]).to_datetime64()
                orbits[numbers == int(number)] = pass_inference.number_of_start(instant)
    return orbits


def _swath_name(source: Source) -> str | None:
    return next((name for name in _SWATH if name in source), None)


def _positions(
    source: Source, shape: Shape
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return longitude and latitude (degrees), and the south-west corner of the tile of 100 km (or of 1 degree)."""
    for lon, lat in _DEGREES:
        if lon in source and lat in source:
            longitude, latitude = source.values(lon, shape), source.values(lat, shape)
            return longitude, latitude, _corner(longitude, latitude, 1.0)
    x, y = source.values("x", shape), source.values("y", shape)
    to_degrees = pyproj.Transformer.from_crs(_crs(source), "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform(x, y, errcheck=False)
    return longitude, latitude, _corner(x, y, _TILE)


def _corner(first: NDArray[np.float64], second: NDArray[np.float64], size: float) -> str:
    # The median decides, because points at the edges lie on the line or just across it.
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


EOLIS = EolisPoints()
