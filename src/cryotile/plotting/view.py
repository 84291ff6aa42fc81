"""The part of a product that a map shows: cut to its points, in squares large enough to be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.fit.variables import Status
from cryotile.maps.along import posting_of

if TYPE_CHECKING:
    from matplotlib.axis import Axis

__all__ = ["Extent", "MapView", "axis_numbers", "date_axis", "is_date", "numbers_of"]

SQUARES_DENSE, SQUARES_SPARSE = 1200, 240
"""Largest number of squares along a map: a reader cannot tell more apart, and a lone pass would vanish."""

DAYS_BEFORE_2000 = 10957.0
"""Days from 1970 to 2000."""

SPARSE = 0.05
"""A map with a smaller share of values to show is drawn in the larger squares."""

MARGIN = 0.04
"""Empty border around the posts that have points, as a share of the longer side."""

Extent = tuple[float, float, float, float]
"""Left, right, bottom, top edge of a map, kilometres."""

_BARE = (Status.NO_POINTS, Status.OUTSIDE_MASK)
"""Posts at the edge of a map with one of these are cut off."""

_Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MapView:
    """Values and the state of each square.

    Attributes
    ----------
    values : ndarray, shape (ny, nx)
        NaN where there is no value.
    has_points, not_computed, outside_mask : ndarray of bool, shape (ny, nx)
        Whether any post of a square has points; whether none has and some were not computed; whether all posts are
        outside the mask.
    extent : Extent
        Edges, kilometres.
    merged : int
        Posts along a side of a square.  The value of a square is their mean, or their lowest flag.
    """

    values: _Values
    has_points: npt.NDArray[np.bool_]
    not_computed: npt.NDArray[np.bool_]
    outside_mask: npt.NDArray[np.bool_]
    extent: Extent
    merged: int

    @classmethod
    def of(cls, product: xr.Dataset, variable: str, *, status: str = "status") -> MapView:
        """Cut a variable of a product to the posts with points, and merge posts into squares.

        Parameters
        ----------
        product : Dataset, dimensions (y, x)
            Coordinates ``x, y`` in metres, ascending and evenly spaced.  Without ``status``, a post has points where
            its value is not NaN.
        variable : str
            Name of the variable to show.
        status : str
            Name of the status of the variable; the extent is that of ``status``, so that maps side by side have one.

        Returns
        -------
        MapView
            Instants as decimal years.
        """
        cut = _where_something_is(_status(product, variable, "status"))
        part = product.isel(cut)
        state = _status(part, variable, status)
        not_computed = state == Status.NOT_COMPUTED
        has_points = ~np.isin(state, (*_BARE, Status.NOT_COMPUTED))
        values = np.where(has_points, numbers_of(part[variable]), np.nan)
        squares = SQUARES_DENSE if np.isfinite(values).mean() > SPARSE else SQUARES_SPARSE
        merged = -(-max(values.shape) // squares)
        any_points = _merge(np.where(has_points, 1.0, np.nan), merged) == 1.0
        any_skipped = _merge(np.where(not_computed, 1.0, np.nan), merged) == 1.0
        posting = posting_of(product)
        left, bottom = float(part["x"][0]) - posting / 2, float(part["y"][0]) - posting / 2
        ny, nx = any_points.shape
        right, top = left + nx * merged * posting, bottom + ny * merged * posting
        return cls(
            values=_merge(values, merged, lowest="flag_meanings" in product[variable].attrs),
            has_points=any_points,
            not_computed=any_skipped & ~any_points,
            outside_mask=_merge(1.0 * (state != Status.OUTSIDE_MASK), merged) == 0.0,
            extent=(left / 1e3, right / 1e3, bottom / 1e3, top / 1e3),
            merged=merged,
        )


def _status(product: xr.Dataset, variable: str, status: str) -> npt.NDArray[np.integer]:
    if status in product:
        return product[status].to_numpy()
    return np.where(product[variable].isnull().to_numpy(), Status.NO_POINTS, Status.OK)


def _where_something_is(status: npt.NDArray[np.integer]) -> dict[str, slice]:
    something = ~np.isin(status, _BARE)
    if not something.any():
        return {"y": slice(None), "x": slice(None)}
    rows, columns = np.flatnonzero(something.any(axis=1)), np.flatnonzero(something.any(axis=0))
    margin = 1 + int(MARGIN * max(np.ptp(rows), np.ptp(columns)))
    return {
        name: slice(max(numbers[0] - margin, 0), numbers[-1] + margin + 1)
        for name, numbers in (("y", rows), ("x", columns))
    }


def numbers_of(variable: xr.DataArray) -> _Values:
    """Return the values of a variable as floats, instants as decimal years."""
    values = variable.to_numpy()
    if values.dtype.kind != "M":
        return values.astype(np.float64)
    days = (values - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    return 2000.0 + np.where(np.isnat(values), np.nan, days) / 365.25


def is_date(variable: xr.DataArray) -> bool:
    """Return whether a variable has instants, for which an axis has dates."""
    return bool(variable.dtype.kind == "M")


def axis_numbers(variable: xr.DataArray, years: _Values) -> _Values:
    """Return values as an axis has them: of instants, days since 1970 in place of decimal years."""
    # As numbers_of counts years.
    return (years - 2000.0) * 365.25 + DAYS_BEFORE_2000 if is_date(variable) else years


def date_axis(axis: Axis) -> None:
    """Let an axis of days since 1970 show dates."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    axis.set_major_formatter(formatter)


def _merge(values: _Values, side: int, *, lowest: bool = False) -> _Values:
    """Merge squares of ``side`` by ``side`` posts, leaving NaN out; the last squares may reach beyond the edge."""
    if side == 1:
        return values
    ny, nx = (-(-size // side) for size in values.shape)
    padded = np.full((ny * side, nx * side), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    squares = padded.reshape(ny, side, nx, side)
    finite = np.isfinite(squares)
    count = finite.sum(axis=(1, 3))
    if lowest:
        merged = np.where(finite, squares, np.inf).min(axis=(1, 3))
    else:
        merged = np.where(finite, squares, 0.0).sum(axis=(1, 3)) / np.maximum(count, 1)
    return np.where(count > 0, merged, np.nan)
