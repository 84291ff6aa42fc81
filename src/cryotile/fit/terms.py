"""Terms of a fit, in one table: names, columns, needs, flags in files, outputs with their units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cryotile.points import MODES, PLATFORM_CODES
from cryotile.times import SECONDS_PER_YEAR

if TYPE_CHECKING:
    from cryotile.fit.inputs import Inputs

__all__ = [
    "FIRST_COLUMN_FLAG",
    "MAX_CATEGORIES",
    "TERMS",
    "Kind",
    "Output",
    "Term",
    "TermFlag",
    "column_term",
    "extra_columns",
    "name_coefficients",
    "platform_offset",
    "terms_for_kernel",
]

_Floats = npt.NDArray[np.float64]
_Places = npt.NDArray[np.integer]

FIRST_COLUMN_FLAG = 256
"""Bit of the first point column among a fit's terms; the bits of the other columns follow."""

MAX_CATEGORIES = 24
"""Most modes or platforms of a fit, with the unknown one; ``MAX_CATEGORIES`` of ``kernel/fit.h``."""


class Kind(IntEnum):
    """How the kernel treats a term; ``enum kind`` of ``kernel/fit.h``."""

    QUADRATIC = 0
    ACCELERATION = 1
    ANNUAL = 2
    DIRECTION = 3
    MODES = 4
    PLATFORMS = 5
    NAMED = 6


class TermFlag(IntFlag):
    """What the fit of a post has beyond the plane; the numbers are those of files."""

    MAJORITY_MODE = 1
    QUADRATIC = 2
    DIRECTION = 4
    ANNUAL = 8
    ACCELERATION = 16
    MODE_OFFSET = 32
    PLATFORM_OFFSET = 64
    MAJORITY_PLATFORM = 128
    PENETRATION = 1 << 20


class Output(NamedTuple):
    """A variable that a term adds to a fit: name, units and long name."""

    name: str
    units: str
    long_name: str


@dataclass(frozen=True)
class Term:
    """A term of the fit.

    Attributes
    ----------
    name : str
        Its name in a config.
    kind : Kind
        How the kernel treats it.
    flag : int
        Its bit of the variable ``terms``.
    outputs : tuple of Output
        The variables of its coefficients, NaN where there is no fit; the kernel gives one number for each.
    needs : tuple of str
        Point columns that it reads beside x, y and time.
    category : str or None
        Of an offset: the column of categories; the term has one column less than there are categories.
    make : callable or None
        (inputs, places of the points) → the columns that the kernel does not make itself.
    convert : callable or None
        (numbers of the kernel, shape (…, outputs), search radius in metres) → values of the outputs; None: they are
        the numbers.
    """

    name: str
    kind: Kind
    flag: int
    outputs: tuple[Output, ...]
    needs: tuple[str, ...] = ()
    category: str | None = None
    make: Callable[[Inputs, _Places], Sequence[_Floats]] | None = None
    convert: Callable[[_Floats, _Floats], Sequence[_Floats]] | None = None

    @property
    def sigmas(self) -> tuple[Output, ...]:
        """The variables of the standard errors of its coefficients, which terms have that users name."""
        if self.kind < Kind.MODES and self.kind != Kind.ACCELERATION:
            return ()
        return tuple(
            Output(f"{name}_sigma", units, f"delete-one-pass jackknife standard error of {name}")
            for name, units, _ in self.outputs
        )

    def columns(self, categories: Mapping[str, int]) -> int:
        """Return the number of columns of a row, given the number of categories among all points."""
        return len(self.outputs) if self.category is None else categories[self.category] - 1


def _amplitude_and_phase(numbers: _Floats, _: _Floats) -> tuple[_Floats, ...]:
    cosine, sine = numbers[..., 0], numbers[..., 1]
    return np.hypot(cosine, sine), np.arctan2(sine, cosine) % (2 * np.pi)


def _curvatures(numbers: _Floats, radius: _Floats) -> tuple[_Floats, ...]:
    uu, vv, uv = (numbers[..., k] for k in range(3))
    return 2 * uu / radius**2, 2 * vv / radius**2, uv / radius**2


def _season(inputs: Inputs, seen: _Places) -> Sequence[_Floats]:
    return list(inputs.season(seen))


def _direction(inputs: Inputs, seen: _Places) -> Sequence[_Floats]:
    """+½ on ascending and −½ on descending passes, NaN where the direction is unknown."""
    if "ascending" not in inputs.points.columns:
        return [np.full(seen.size, np.nan)]
    return [inputs.column("ascending").take(seen) - 0.5]


def _half_years(inputs: Inputs, seen: _Places) -> Sequence[_Floats]:
    """+½ τ of radars and −½ τ of lasers, so that the coefficient is the rate of radars less that of lasers."""
    if "mode" not in inputs.points.columns:
        return [np.zeros(seen.size)]
    years = (inputs.ticks.take(seen) * inputs.tick - inputs.config.epoch) / (SECONDS_PER_YEAR * 1e9)
    modes = inputs.points["mode"].take(seen)
    return [np.where(modes.isna(), 0.0, np.where(modes == "laser", -0.5, 0.5)) * years]


def _offset(
    category: str, kind: Kind, flag: TermFlag, long_name: str, categories: Sequence[str]
) -> Term:
    name = f"{category}_offset"
    outputs = tuple(
        Output(f"{name}_{one.replace('-', '_')}", "m", long_name.format(one))
        for one in (*categories, "unknown")
    )
    return Term(name, kind, flag.value, outputs, needs=(category,), category=category)


def platform_offset(platforms: Sequence[str]) -> Term:
    """Return the term of the offsets of these platforms."""
    return _offset(
        "platform",
        Kind.PLATFORMS,
        TermFlag.PLATFORM_OFFSET,
        "elevation of {} less the mean over platforms",
        platforms,
    )


TERMS: Mapping[str, Term] = {
    term.name: term
    for term in (
        Term(
            "annual",
            Kind.ANNUAL,
            TermFlag.ANNUAL.value,
            (
                Output("annual_amplitude", "m", "amplitude of the annual cycle"),
                Output(
                    "annual_phase",
                    "rad",
                    "phase of the annual maximum after 1 January, 2 pi a year",
                ),
            ),
            make=_season,
            convert=_amplitude_and_phase,
        ),
        Term(
            "acceleration",
            Kind.ACCELERATION,
            TermFlag.ACCELERATION.value,
            (Output("acceleration", "m yr-2", "elevation change acceleration"),),
        ),
        Term(
            "direction",
            Kind.DIRECTION,
            TermFlag.DIRECTION.value,
            (
                Output(
                    "direction_offset",
                    "m",
                    "elevation on ascending passes less that on descending ones",
                ),
            ),
            needs=("ascending",),
            make=_direction,
        ),
        _offset(
            "mode",
            Kind.MODES,
            TermFlag.MODE_OFFSET,
            "elevation in mode {} less the mean over modes",
            MODES,
        ),
        Term(
            "penetration",
            Kind.NAMED,
            TermFlag.PENETRATION.value,
            (Output("penetration_rate", "m yr-1", "rate of radars less that of lasers"),),
            needs=("mode",),
            make=_half_years,
        ),
        platform_offset(tuple(PLATFORM_CODES)),
        Term(
            "quadratic",
            Kind.QUADRATIC,
            TermFlag.QUADRATIC.value,
            (
                Output("curvature_xx", "m-1", "second derivative of elevation along x, projected"),
                Output("curvature_yy", "m-1", "second derivative of elevation along y, projected"),
                Output("curvature_xy", "m-1", "mixed second derivative of elevation, projected"),
            ),
            convert=_curvatures,
        ),
    )
}
"""Terms by name, beside point columns, in the order of the kernel."""


def column_term(name: str, number: int) -> Term:
    """Return the term of a point column, centred on its median at each post.

    Parameters
    ----------
    name : str
        The column.
    number : int
        Its place among the column terms of a config, from 0.
    """

    def values(inputs: Inputs, seen: _Places) -> Sequence[_Floats]:
        return [inputs.column(name).take(seen)]

    output = Output(f"{name}_coefficient", "1", f"metres of elevation per unit of {name}")
    flag = FIRST_COLUMN_FLAG << number
    return Term(name, Kind.NAMED, flag, (output,), needs=(name,), make=values)


def extra_columns(terms: Sequence[Term], inputs: Inputs, seen: _Places) -> _Floats | None:
    """Return the columns of terms that the kernel does not make itself.

    Parameters
    ----------
    terms : sequence of Term
        In the order of the kernel.
    inputs : Inputs
        All points.
    seen : ndarray of int, shape (points,)
        Places of the points that posts can see.

    Returns
    -------
    ndarray, shape (points, columns), or None
        NaN where a value is unknown; None if no term has such a column.
    """
    columns = [column for term in terms if term.make for column in term.make(inputs, seen)]
    return np.column_stack(columns) if columns else None


def terms_for_kernel(
    terms: Sequence[Term], categories: Mapping[str, int], priors: Mapping[str, float]
) -> list[tuple[int | float, ...]]:
    """Give each term its columns, its place among the extra columns, and its coefficients.

    Parameters
    ----------
    terms : sequence of Term
        In the order of the kernel.
    categories : mapping of str to int
        Number of modes and of platforms among all points.
    priors : mapping of str to float
        Term → plausible size of its coefficients; the kernel knows those of built-in terms.

    Returns
    -------
    list of tuple
        Of each term its kind, flag, number of columns, first extra column, first coefficient, number of coefficients
        and prior, as ``Term`` of ``kernel/fit.h``.
    """
    extras = accumulate((len(term.outputs) if term.make else 0 for term in terms), initial=0)
    slots = accumulate((len(term.outputs) for term in terms), initial=0)
    return [
        (
            *(term.kind, term.flag, term.columns(categories), extra, slot, len(term.outputs)),
            priors.get(term.name, math.inf),
        )
        for term, extra, slot in zip(terms, extras, slots, strict=False)
    ]


def name_coefficients(
    terms: Sequence[Term], numbers: _Floats, radius: _Floats
) -> dict[str, _Floats]:
    """Return the outputs of terms by name.

    Parameters
    ----------
    terms : sequence of Term
        In the order of the kernel.
    numbers : ndarray, shape (ny, nx, twice the outputs of all terms)
        As the kernel gives them: coefficients, then their sigmas.
    radius : ndarray, shape (ny, nx)
        Search radius of each fit, metres.
    """
    named: dict[str, _Floats] = {}
    first, half = 0, numbers.shape[-1] // 2
    for term in terms:
        own = numbers[..., first : first + len(term.outputs)]
        values = term.convert(own, radius) if term.convert else np.moveaxis(own, -1, 0)
        named |= {output.name: value for output, value in zip(term.outputs, values, strict=True)}
        for k, output in enumerate(term.sigmas):
            named[output.name] = numbers[..., half + first + k]
        first += len(term.outputs)
    return named
