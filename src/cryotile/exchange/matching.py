"""Two maps on one grid: what is averaged, what is interpolated, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj

from cryotile.errors import InvalidValue
from cryotile.exchange.reference import Field, Floats, Reference
from cryotile.geo.projection import crs_text

__all__ = ["Matched", "Places", "match"]

COARSER = 1.5
"""Ratio of two postings from which the finer map is averaged over the squares of the coarser one."""

FILLED = 0.5
"""Smallest share of a square that must have values for its average to count."""


@dataclass(frozen=True, eq=False)
class Places:
    """The places of a map.

    Attributes
    ----------
    crs : pyproj.CRS
        Of x and y.
    x, y : ndarray, shapes (nx,), (ny,); of points both (points,)
        Metres, of a grid ascending.
    scattered : bool
        Whether they are points.
    """

    crs: pyproj.CRS
    x: Floats
    y: Floats
    scattered: bool = False

    @classmethod
    def of(cls, reference: Reference) -> Places:
        """Return the places of a reference."""
        return cls(reference.crs, reference.x, reference.y, reference.scattered)

    @property
    def posting(self) -> float:
        """Distance between neighbours, metres; of points 0."""
        if self.scattered:
            return 0.0
        return float(max(self.x[1] - self.x[0], self.y[1] - self.y[0]))

    def places_in(self, crs: pyproj.CRS) -> tuple[Floats, Floats]:
        """Return x and y of every value in another CRS, in the order of the flattened map."""
        x, y = (self.x, self.y) if self.scattered else map(np.ravel, np.meshgrid(self.x, self.y))
        if self.crs == crs:
            return x, y
        to = pyproj.Transformer.from_crs(self.crs, crs, always_xy=True)
        found = to.transform(x, y, errcheck=False)
        return found[0], found[1]


@dataclass(frozen=True, eq=False)
class Matched:
    """Two maps at the same places.

    Attributes
    ----------
    grid : Places
        The grid of both.
    product, reference : Field
        Values there.
    note : str
        How they were brought there.
    extras : dict of str to ndarray
        Other maps of the product, averaged likewise; of integers the value at the nearest post, -1 beyond them.
    """

    grid: Places
    product: Field
    reference: Field
    note: str
    extras: dict[str, npt.NDArray[Any]]


def match(
    own: Places,
    product: Field,
    other: Places,
    reference: Field,
    extras: dict[str, npt.NDArray[Any]],
) -> Matched:
    """Bring a product and a reference to one grid.

    On one lattice, values stand against each other as they are.  The finer of two maps is averaged over the squares of
    the coarser one; points are averaged around the posts of the product.  Where postings are alike, the reference is
    interpolated linearly.

    Parameters
    ----------
    own, product
        Places and values of the product.
    other, reference
        Places and values of the reference.
    extras : dict of str to ndarray
        Other maps of the product, such as slopes.

    Raises
    ------
    InvalidValue
        The product has a single row or column of posts.
    """
    if min(own.x.size, own.y.size) < 2:
        raise InvalidValue(
            "the product has a single row or column of posts; compare a map of two or more"
        )
    name = crs_text(other.crs)
    crs = (
        ""
        if own.crs == other.crs
        else f" (the reference is in {name if len(name) < 20 else other.crs.name})"
    )
    if (cut := _on_one_lattice(own, other)) is not None:
        mine, theirs = cut
        grid = Places(own.crs, own.x[mine[1]], own.y[mine[0]])
        return Matched(
            grid,
            _cut(product, mine),
            _cut(reference, theirs),
            "both have the same posts",
            {name: values[mine] for name, values in extras.items()},
        )
    if other.posting > COARSER * own.posting:
        means = {
            name: (_mean if values.dtype.kind == "f" else _at_nearest)(own, values, other)
            for name, values in extras.items()
        }
        note = (
            f"the product is averaged over the squares of the reference, {other.posting:g} m{crs}"
        )
        return Matched(other, _averaged(own, product, other), reference, note, means)
    if other.scattered or own.posting > COARSER * other.posting:
        what = "points are" if other.scattered else "the reference is"
        note = f"{what} averaged over the squares around the posts of the product{crs}"
        return Matched(own, product, _averaged(other, reference, own), note, extras)
    note = f"the reference is interpolated linearly at the posts of the product{crs}"
    return Matched(own, product, _interpolated(other, reference, own), note, extras)


_Cut = tuple[slice, slice]


def _on_one_lattice(own: Places, other: Places) -> tuple[_Cut, _Cut] | None:
    """Return the rows and columns that two grids share; None if their posts differ."""
    if other.scattered or own.crs != other.crs:
        return None
    cuts = []
    for mine, theirs in ((own.y, other.y), (own.x, other.x)):
        step = mine[1] - mine[0]
        shift = (theirs[0] - mine[0]) / step
        alike = abs(theirs[1] - theirs[0] - step) * theirs.size < 0.01 * step
        if not alike or abs(shift - round(shift)) > 0.01:
            return None
        first = round(shift)
        low, high = max(first, 0), min(first + theirs.size, mine.size)
        if low >= high:
            return None
        cuts.append((slice(low, high), slice(low - first, high - first)))
    (rows, rows2), (columns, columns2) = cuts
    return (rows, columns), (rows2, columns2)


def _cut(field: Field, cut: _Cut) -> Field:
    return Field(field.value[cut], None if field.sigma is None else field.sigma[cut], field.notes)


def _averaged(fine: Places, field: Field, coarse: Places) -> Field:
    """Return means over squares; the sigma is the mean of sigmas: errors of neighbours are taken as common."""
    sigma = None if field.sigma is None else _mean(fine, field.sigma, coarse)
    return Field(_mean(fine, field.value, coarse), sigma, field.notes)


def _mean(fine: Places, values: Floats, coarse: Places) -> Floats:
    x, y = fine.places_in(coarse.crs)
    column, row = _nearest(coarse.x, x), _nearest(coarse.y, y)
    shape = (coarse.y.size, coarse.x.size)
    flat = values.ravel()
    used = (column >= 0) & (row >= 0) & np.isfinite(flat)
    square = row[used] * shape[1] + column[used]
    size = shape[0] * shape[1]
    count = np.bincount(square, minlength=size)
    total = np.bincount(square, weights=flat[used], minlength=size)
    least = 1.0 if fine.scattered else FILLED * (coarse.posting / fine.posting) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count >= least, total / count, np.nan).reshape(shape)


def _at_nearest(
    fine: Places, values: npt.NDArray[np.integer], coarse: Places
) -> npt.NDArray[np.integer]:
    x, y = coarse.places_in(fine.crs)
    column, row = _nearest(fine.x, x), _nearest(fine.y, y)
    beyond = (column < 0) | (row < 0)
    return np.where(beyond, -1, values[row, column]).reshape(coarse.y.size, coarse.x.size)


def _nearest(axis: Floats, at: Floats) -> npt.NDArray[np.int64]:
    """Return the place of the nearest coordinate of an axis; -1 beyond its ends."""
    place = (at - axis[0]) / (axis[1] - axis[0])
    inside = np.isfinite(place) & (place >= -0.5) & (place < axis.size - 0.5)
    return np.where(inside, np.rint(np.where(inside, place, 0.0)), -1).astype(np.int64)


def _interpolated(other: Places, field: Field, own: Places) -> Field:
    from scipy.interpolate import RegularGridInterpolator

    x, y = own.places_in(other.crs)
    shape = (own.y.size, own.x.size)

    def at_posts(values: Floats) -> Floats:
        between = RegularGridInterpolator((other.y, other.x), values, bounds_error=False)
        found: Floats = between(np.column_stack([y, x])).reshape(shape)
        return found

    sigma = None if field.sigma is None else at_posts(field.sigma)
    return Field(at_posts(field.value), sigma, field.notes)
