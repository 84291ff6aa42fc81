"""The common form of a map of elevation change, whatever layout it was published in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyproj

from cryotile.times import SECONDS_PER_YEAR

__all__ = ["Epoch", "Field", "Floats", "Period", "Rate", "Reference", "period_text", "years_of"]

Floats = npt.NDArray[np.float64]

Period = tuple[np.datetime64, np.datetime64]
"""First and last instant that a rate describes, UTC."""


@dataclass(frozen=True, eq=False)
class Field:
    """Values and their sigmas.

    Attributes
    ----------
    value : ndarray, shape (ny, nx) or (points,)
        Rates, m/yr, positive where the surface rises; or heights, m.  NaN: none.
    sigma : ndarray of the same shape or None
        Standard errors in the same unit; None: the reference has none.
    notes : tuple of str
        What was converted, dropped or assumed.
    """

    value: Floats
    sigma: Floats | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Rate:
    """A map of the rate over one period.

    Attributes
    ----------
    period : (datetime64, datetime64) or None
        None: the reference does not say.
    label : str
        Where in the reference it is, e.g. ``dhdt_lag4``.
    read : callable
        Returns its :class:`Field`, m/yr.
    """

    period: Period | None
    label: str
    read: Callable[[], Field]


@dataclass(frozen=True, eq=False)
class Epoch:
    """A map of heights at one time.

    Attributes
    ----------
    time : datetime64
        UTC.
    read : callable
        Returns its :class:`Field`, m.
    """

    time: np.datetime64
    read: Callable[[], Field]


@dataclass(frozen=True, eq=False)
class Reference:
    """A map of elevation change, or points with one.

    Attributes
    ----------
    layout : str
        Name of the layout, e.g. ``ATL15``.
    name : str
        The file.
    crs : pyproj.CRS
        Of x and y.
    x, y : ndarray, shapes (nx,), (ny,), or both (points,)
        Metres, of a grid ascending.
    rates : tuple of Rate
        One or more, unless there are epochs.
    epochs : tuple of Epoch
        In order of time; differences of two are rates.
    scattered : bool
        Whether x and y are those of points, not of a grid.
    notes : tuple of str
        What was assumed.
    """

    layout: str
    name: str
    crs: pyproj.CRS
    x: Floats
    y: Floats
    rates: tuple[Rate, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    scattered: bool = False
    notes: tuple[str, ...] = field(default=())

    def rates_for(self, period: Period) -> tuple[Rate, ...]:
        """Return the rates, of heights the one between the epochs nearest to the ends of a period."""
        if self.rates or len(self.epochs) < 2:
            return self.rates
        times = np.array([epoch.time for epoch in self.epochs])
        first, last = (self.epochs[int(np.argmin(np.abs(times - end)))] for end in period)
        return (difference(first, last),) if first.time < last.time else ()


def difference(first: Epoch, last: Epoch) -> Rate:
    """Return the rate between two epochs; their errors are taken as independent."""
    years = years_of((first.time, last.time))

    def read() -> Field:
        one, other = first.read(), last.read()
        both = one.sigma is not None and other.sigma is not None
        notes = tuple(dict.fromkeys([*one.notes, *other.notes]))
        if both:
            notes += ("sigma of the rate from those of both epochs, taken as independent",)
        sigma = np.hypot(one.sigma, other.sigma) / years if both else None  # type: ignore[arg-type]
        return Field((other.value - one.value) / years, sigma, notes)

    return Rate(
        (first.time, last.time), f"difference of {_day(first.time)} and {_day(last.time)}", read
    )


def years_of(period: Period) -> float:
    """Return the length of a period in years of 365.25 days."""
    return float((period[1] - period[0]) / np.timedelta64(1, "s")) / SECONDS_PER_YEAR


def period_text(period: Period | None) -> str:
    """Return a period in words."""
    return "unknown period" if period is None else f"{_day(period[0])} to {_day(period[1])}"


def _day(instant: np.datetime64) -> str:
    return str(instant.astype("datetime64[D]"))
