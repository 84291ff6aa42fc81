"""Projection of longitude and latitude to x, y, and the scale of projected metres to metres on the ground."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
from pyproj.exceptions import CRSError

from cryotile.errors import InvalidValue
from cryotile.points import Batch, Granule

__all__ = [
    "OUTSIDE_PROJECTION",
    "areal_scale",
    "crs_text",
    "in_area_of_use",
    "point_scale",
    "project",
    "project_batch",
    "project_granule",
    "projected_crs",
]

OUTSIDE_PROJECTION = "outside_projection"
"""Reason under which :func:`project_batch` counts dropped points."""

REACH = 2.1e7
"""Largest |x| and |y|, metres: half the circumference of the Earth, and storable as centimetres in 32 bits."""

Array = npt.NDArray[np.float64]

_REMEDY = "give a projected CRS in metres, e.g. EPSG:3031 for Antarctica or EPSG:3413 for Greenland"


def projected_crs(text: str | pyproj.CRS) -> pyproj.CRS:
    """Return the CRS that ``text`` names, after a check that maps can be made in it.

    Parameters
    ----------
    text : str or pyproj.CRS
        Any form that PROJ understands: ``EPSG:3031``, WKT, a PROJ string.

    Returns
    -------
    pyproj.CRS
        Projected, two axes, metres.

    Raises
    ------
    InvalidValue
        The CRS is unknown to PROJ, geographic, has a vertical axis, or is not in metres.
    """
    shown = " ".join(str(text).split())
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    try:
        crs = pyproj.CRS.from_user_input(text)
    except CRSError as error:
        raise InvalidValue(f"CRS {shown!r} is unknown to PROJ; {_REMEDY}") from error
    if crs.is_geographic:
        raise InvalidValue(
            f"CRS {shown!r} ({crs.name}) is geographic, and a grid of latitude and longitude is"
            f" singular at the pole; {_REMEDY}"
        )
    if not crs.is_projected:
        raise InvalidValue(f"CRS {shown!r} ({crs.name}) is not a projected CRS; {_REMEDY}")
    if len(crs.axis_info) != 2:
        raise InvalidValue(
            f"CRS {shown!r} ({crs.name}) has a vertical axis, but elevations are always above the"
            " WGS84 ellipsoid; give its horizontal part alone"
        )
    units = {axis.unit_name for axis in crs.axis_info if axis.unit_conversion_factor != 1.0}
    if units:
        raise InvalidValue(
            f"CRS {shown!r} ({crs.name}) is in {', '.join(sorted(units))}, not in metres; {_REMEDY}"
        )
    return crs


@lru_cache(maxsize=8)
def crs_text(crs: pyproj.CRS) -> str:
    """Return the shortest text for ``crs``: ``EPSG:3031`` if an authority lists it, else WKT."""
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else crs.to_wkt()


def in_area_of_use(points: pd.DataFrame, crs: pyproj.CRS) -> npt.NDArray[np.bool_]:
    """Tell which points lie where their CRS is meant to be used.

    Parameters
    ----------
    points : DataFrame
        With ``longitude, latitude``, degrees.
    crs : pyproj.CRS
        Its area of use is that of its registry, a box in longitude and latitude; without one, all points lie in it.

    Returns
    -------
    ndarray of bool, shape (points,)
    """
    area = crs.area_of_use
    if area is None:
        return np.ones(len(points), bool)
    longitude, latitude = points["longitude"].to_numpy(), points["latitude"].to_numpy()
    # The box may lie across the antimeridian.
    width = (area.east - area.west) % 360.0 or 360.0
    inside = (longitude - area.west) % 360.0 <= width
    return inside & (latitude >= area.south) & (latitude <= area.north)


def project(points: pd.DataFrame, crs: pyproj.CRS) -> pd.DataFrame:
    """Replace ``longitude, latitude`` by ``x, y``.

    Parameters
    ----------
    points : DataFrame
        With ``longitude, latitude``, degrees on WGS84; longitudes may exceed ±180.
    crs : pyproj.CRS
        As of :func:`projected_crs`.

    Returns
    -------
    DataFrame, as many rows
        ``x, y`` in metres first, then the other columns unchanged; ``attrs["crs"]`` names the CRS.  Both are NaN for a
        point that has no position in the projection (the other pole of a polar projection, a latitude beyond 90°, over
        21 000 km from the origin); :func:`project_batch` drops and counts such points.
    """
    x, y = _projected(
        points["longitude"].to_numpy(np.float64), points["latitude"].to_numpy(np.float64), crs
    )
    columns: dict[str, Any] = {"x": x, "y": y}
    others = {str(name): points[name] for name in points if name not in ("longitude", "latitude")}
    projected = pd.DataFrame(columns | others, index=points.index, copy=False)
    projected.attrs = {**points.attrs, "crs": crs_text(crs)}
    return projected


def _projected(longitude: Array, latitude: Array, crs: pyproj.CRS) -> tuple[Array, Array]:
    x, y = _transformer(crs).transform(longitude, latitude, errcheck=False)
    # PROJ returns inf where it fails; the comparison is False for NaN, too.
    placed = (np.abs(x) <= REACH) & (np.abs(y) <= REACH)
    return np.where(placed, x, np.nan), np.where(placed, y, np.nan)


def project_batch(batch: Batch, crs: pyproj.CRS) -> Batch:
    """Project the points of granules; drop and count those that have no position in the projection.

    Parameters
    ----------
    batch : Batch
        As returned by readers, with ``longitude, latitude``.
    crs : pyproj.CRS
        As of :func:`projected_crs`.

    Returns
    -------
    Batch
        The same with ``x, y``, also in the extents of its granules; ``dropped`` of these counts dropped points as
        ``outside_projection``.
    """
    granules = batch.granules
    corners = np.concatenate([np.empty((0, 3)), *(granule.extent for granule in granules)])
    corners[:, 0], corners[:, 1] = _projected(corners[:, 0], corners[:, 1], crs)
    ends = np.cumsum([len(granule.extent) for granule in granules])[:-1]
    projected = replace(
        batch,
        granules=tuple(
            replace(granule, extent=extent[~np.isnan(extent[:, 0])])
            for granule, extent in zip(granules, np.split(corners, ends), strict=True)
        ),
        points=project(batch.points, crs),
    )
    return projected.keep(projected.points["x"].notna().to_numpy(), OUTSIDE_PROJECTION)


def project_granule(granule: Granule, crs: pyproj.CRS) -> Granule:
    """Return a projected granule; see :func:`project_batch`."""
    (projected,) = project_batch(Batch.of([granule]), crs).split()
    return projected


def areal_scale(crs: pyproj.CRS, x: Array, y: Array) -> Array:
    """Return projected area over area on the ground, from the derivatives of the projection.

    Parameters
    ----------
    crs : pyproj.CRS
        As of :func:`projected_crs`.
    x, y : ndarray, same shape
        Projected metres.

    Returns
    -------
    ndarray, shape of ``x``
        1 where the projection keeps areas, NaN where it is singular or undefined.  True area is projected area divided
        by this.
    """
    projection = pyproj.Proj(crs)
    longitude, latitude = projection(np.ravel(x), np.ravel(y), inverse=True)
    factors = projection.get_factors(longitude, latitude, errcheck=False)
    scale = np.asarray(factors.areal_scale, np.float64).reshape(np.shape(x))
    return np.where(np.isfinite(scale), scale, np.nan)


def point_scale(crs: pyproj.CRS, x: Array, y: Array) -> Array:
    """Return projected length over length on the ground: the factor from a projected slope to a true one.

    Parameters
    ----------
    crs : pyproj.CRS
        As of :func:`projected_crs`.
    x, y : ndarray, same shape
        Projected metres.

    Returns
    -------
    ndarray, shape of ``x``
        The square root of :func:`areal_scale`: in a conformal projection (EPSG:3031, 3413) the scale in every
        direction, otherwise the geometric mean of the two principal scales.
    """
    return np.sqrt(areal_scale(crs, x, y))


@lru_cache(maxsize=8)
def _transformer(crs: pyproj.CRS) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
