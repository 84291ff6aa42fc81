"""Terms of a fit between their names and the kernel: which columns they need, and what their coefficients mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile._fit import seasons
from cryotile.errors import InvalidValue
from cryotile.fit.config import TERMS, FitConfig
from cryotile.fit.variables import FIRST_COLUMN_FLAG, Term
from cryotile.points import MODES, PLATFORM_CODES
from cryotile.times import SECONDS_PER_YEAR, parse_instant

__all__ = [
    "Layout",
    "annual_columns",
    "category_numbers",
    "coefficients",
    "materialize",
    "point_weights",
]

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]

_BASE = 4  # u, v, τ and z come first in a row
_KINDS = ("quadratic", "acceleration", "annual", "direction", "mode_offset", "platform_offset")
_CATEGORIES = {"mode": MODES, "platform": tuple(PLATFORM_CODES)}
_SLOTS = {"quadratic": 3, "acceleration": 1, "annual": 2, "direction": 1}
_SLOTS_OF_OFFSET = 10


@dataclass(frozen=True)
class Layout:
    """Where the kernel finds the columns of each term, and where it leaves its coefficients.

    Attributes
    ----------
    terms : tuple of tuple
        Of each term its kind, flag, first column of a row, number of columns, first column of the extras, first slot.
    columns : int
        Columns of a row.
    extras : tuple of str
        What the extras hold: ``cos``, ``sin``, ``ascending`` and point columns.
    slots : dict of str to int
        Term → first of its coefficients.
    slot_total : int
        Number of coefficients.
    """

    terms: tuple[tuple[int, ...], ...]
    columns: int
    extras: tuple[str, ...]
    slots: dict[str, int]
    slot_total: int


def materialize(config: FitConfig, *, modes: int, platforms: int) -> Layout:
    """Give each term of a fit its columns; the time-like ones in the order in which they are dropped.

    Parameters
    ----------
    config : FitConfig
        Its terms.
    modes, platforms : int
        How many of them there are among all points.
    """
    names = [name for name in TERMS if name in config.terms]
    columns, slot, slots = _BASE, 0, {}
    terms: list[tuple[int, ...]] = []
    extras: list[str] = []
    for name in (*names, *config.column_terms):
        further = {"annual": ("cos", "sin"), "direction": ("ascending",)}.get(
            name, () if name in TERMS else (name,)
        )
        offsets = {"mode_offset": modes - 1, "platform_offset": platforms - 1}
        count = offsets.get(name, _SLOTS.get(name, 1))
        kind = _KINDS.index(name) if name in TERMS else len(_KINDS)
        terms.append((kind, _flag(name, config), columns, count, len(extras), slot))
        slots[name] = slot
        extras += further
        columns += count
        slot += _SLOTS_OF_OFFSET if name in offsets else _SLOTS.get(name, 1)
    return Layout(tuple(terms), columns, tuple(extras), slots, slot)


def _flag(name: str, config: FitConfig) -> int:
    if name in TERMS:
        return Term[name.upper()].value
    return FIRST_COLUMN_FLAG << config.column_terms.index(name)


def annual_columns(nanoseconds: _Integers, epoch: str) -> tuple[_Floats, _Floats]:
    """Return cosine and sine of the season: one turn a year, from 1 January of the reference epoch's year.

    Parameters
    ----------
    nanoseconds : ndarray of int64, shape (points,)
        Since 1970.
    epoch : str
        The reference epoch.
    """
    january = pd.Timestamp(parse_instant(epoch).year, 1, 1).as_unit("ns").value
    year = int(SECONDS_PER_YEAR * 1e9)
    cosines, sines = seasons(np.ascontiguousarray(nanoseconds), january, year)
    return cosines, sines


def category_numbers(
    points: pd.DataFrame, seen: npt.NDArray[np.integer], name: str
) -> npt.NDArray[np.uint8] | None:
    """Number each point's mode or platform in the order of their lists; where none is given, that is one more.

    Parameters
    ----------
    points : DataFrame
        Without the column there are no numbers.
    seen : ndarray of int
        Which points.
    name : {"mode", "platform"}
        The column.

    Raises
    ------
    InvalidValue
        A value is not in the list.
    """
    known = _CATEGORIES[name]
    if name not in points.columns:
        return None
    values = points[name].take(seen).astype("category").cat
    unknown = [str(value) for value in values.categories if value not in known]
    if unknown:
        raise InvalidValue(
            f"{name} {unknown[0]!r} is unknown; column {name!r} holds {', '.join(known)}"
        )
    numbers = np.array([*(known.index(value) for value in values.categories), len(known)], np.uint8)
    return numbers.take(values.codes)


def point_weights(
    points: pd.DataFrame, seen: npt.NDArray[np.integer], config: FitConfig
) -> _Floats:
    """Return the weight of each point, but for its distance from the post.

    Parameters
    ----------
    points : DataFrame
        With ``uncertainty`` (m) where that is a weight.
    seen : ndarray of int
        Which points.
    config : FitConfig
        Its weights.

    Raises
    ------
    InvalidValue
        A point has no uncertainty.
    """
    if "uncertainty" not in config.weights:
        return np.ones(seen.size)
    if "uncertainty" not in points.columns:
        raise InvalidValue(
            "points have no column 'uncertainty' to weight by; leave that weight out"
        )
    uncertainty = points["uncertainty"].to_numpy(np.float64, na_value=np.nan).take(seen)
    bad = np.flatnonzero(~((uncertainty >= 0) & (uncertainty < np.inf)))
    if bad.size:
        raise InvalidValue(
            f"column 'uncertainty' is {uncertainty[bad[0]]:g} for {bad.size} of {seen.size} points, and a weight"
            ' needs a finite one; select points by where="uncertainty >= 0", or leave that weight out'
        )
    return 1 / (uncertainty**2 + config.uncertainty_floor**2)


def coefficients(values: _Floats, layout: Layout, radius: _Floats) -> dict[str, _Floats]:
    """Name the coefficients of the terms, in SI units.

    Parameters
    ----------
    values : ndarray, shape (ny, nx, slots)
        As the kernel gives them.
    layout : Layout
        Of its terms.
    radius : ndarray, shape (ny, nx)
        Search radius of each fit, metres.
    """
    named: dict[str, _Floats] = {}
    for term, slot in layout.slots.items():
        first = values[..., slot]
        if term == "annual":
            sine = values[..., slot + 1]
            named["annual_amplitude"] = np.hypot(first, sine)
            named["annual_phase"] = np.arctan2(sine, first) % (2 * np.pi)
        elif term == "quadratic":
            named["curvature_xx"] = 2 * first / radius**2
            named["curvature_yy"] = 2 * values[..., slot + 1] / radius**2
            named["curvature_xy"] = values[..., slot + 2] / radius**2
        elif term in ("mode_offset", "platform_offset"):
            known = _CATEGORIES[term.removesuffix("_offset")]
            for k, name in enumerate((*known, "unknown")):
                named[f"{term}_{name}"] = values[..., slot + k]
        else:
            others = {"direction": "direction_offset", "acceleration": "acceleration"}
            named[others.get(term, f"{term}_coefficient")] = first
    return named
