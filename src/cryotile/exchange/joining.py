"""Files of one layout as one reference: files of other times, or of neighbouring parts such as quadrants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryotile.errors import InvalidValue
from cryotile.exchange.reference import Epoch, Field, Floats, Period, Rate, Reference

__all__ = ["join"]

_Part = tuple["_Place", Callable[[], Field]]


@dataclass(frozen=True)
class _Place:
    """Where the map of a file lies in that of all."""

    rows: slice
    columns: slice
    file: str


def join(found: Sequence[Reference]) -> Reference:
    """Return files of one layout as one reference.

    Parameters
    ----------
    found : sequence of Reference
        Grids of one CRS whose posts are on one lattice.

    Returns
    -------
    Reference
        On the grid that contains all; maps of equal periods are put side by side, and where they overlap the first
        value counts.

    Raises
    ------
    InvalidValue
        They are of different layouts, or their posts are not on one lattice.
    """
    first = found[0]
    for other in found[1:]:
        if other.layout != first.layout:
            raise InvalidValue(
                f"{first.name} is {first.layout} and {other.name} is {other.layout}; compare with one at a time"
            )
        if first.scattered or other.crs != first.crs:
            raise InvalidValue(
                f"{first.name} and {other.name} are not grids of one CRS; compare with one at a time"
            )
    x, y = (_union(found, axis) for axis in ("x", "y"))
    places = [_Place(_within(one.y, y), _within(one.x, x), Path(one.name).name) for one in found]
    shape = (y.size, x.size)
    notes = dict.fromkeys(note for one in found for note in one.notes)
    return replace(
        first,
        name=f"{first.name} and {len(found) - 1} more",
        x=x,
        y=y,
        rates=tuple(_rates(found, places, shape)),
        epochs=tuple(_epochs(found, places, shape)),
        notes=tuple(notes),
    )


def _rates(
    found: Sequence[Reference], places: Sequence[_Place], shape: tuple[int, int]
) -> list[Rate]:
    parts: dict[tuple[Period | None, str], list[_Part]] = {}
    for one, place in zip(found, places, strict=True):
        for rate in one.rates:
            parts.setdefault((rate.period, rate.label), []).append((place, rate.read))
    return [
        Rate(
            period, f"{label} of {some[0][0].file}" if len(some) == 1 else label, _read(some, shape)
        )
        for (period, label), some in parts.items()
    ]


def _epochs(
    found: Sequence[Reference], places: Sequence[_Place], shape: tuple[int, int]
) -> list[Epoch]:
    parts: dict[np.datetime64, list[_Part]] = {}
    for one, place in zip(found, places, strict=True):
        for epoch in one.epochs:
            parts.setdefault(epoch.time, []).append((place, epoch.read))
    epochs = [Epoch(time, _read(some, shape)) for time, some in parts.items()]
    return sorted(epochs, key=lambda epoch: epoch.time)


def _read(parts: Sequence[_Part], shape: tuple[int, int]) -> Callable[[], Field]:
    def read() -> Field:
        value, sigma = np.full(shape, np.nan), np.full(shape, np.nan)
        has_sigma, notes = True, dict[str, None]()
        for place, part in parts:
            field = part()
            notes |= dict.fromkeys(field.notes)
            there = value[place.rows, place.columns]
            empty = np.isnan(there)
            there[empty] = field.value[empty]
            if field.sigma is None:
                has_sigma = False
            else:
                sigma[place.rows, place.columns][empty] = field.sigma[empty]
        return Field(value, sigma if has_sigma else None, tuple(notes))

    return read


def _union(found: Sequence[Reference], axis: str) -> Floats:
    """Return the coordinates of an axis from the first to the last post of all grids."""
    each: list[Floats] = [getattr(one, axis) for one in found]
    step = each[0][1] - each[0][0]
    low = min(at[0] for at in each)
    high = max(at[-1] for at in each)
    for one, at in zip(found, each, strict=True):
        shift = (at[0] - low) / step
        if abs(at[1] - at[0] - step) * at.size > 0.01 * step or abs(shift - round(shift)) > 0.01:
            raise InvalidValue(
                f"{found[0].name} and {one.name} have different grids; compare with one at a time"
            )
    return np.linspace(low, high, round((high - low) / step) + 1)


def _within(part: Floats, whole: Floats) -> slice:
    start = round((part[0] - whole[0]) / (whole[1] - whole[0]))
    return slice(start, start + part.size)
