"""Conditions on points: the parsed tree of a ``where`` expression, in SQL's three-valued logic.

A condition returns two masks: where it is true and where it is false.  Elsewhere it is undecided, because a value is
missing.  A value returns its bounds, which are equal if the column is known and NaN if it is not: a comparison with NaN
is False, and so undecided.  Thus the same logic selects points (where it is true) and prunes groups of points known by
their bounds (where it is false).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = [
    "Always",
    "Among",
    "Arithmetic",
    "ColumnValue",
    "Compare",
    "Condition",
    "Constant",
    "IsTrue",
    "Joined",
    "Not",
    "Value",
]

Truth = tuple[Any, Any]
"""Where true, where false: bool ndarrays, shape (rows,), or one bool for all rows."""

Interval = tuple[Any, Any]
"""Lowest and highest value: ndarrays, shape (rows,), or one value for all rows; the same object if exact."""

ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": np.divide,
}


class Value(Protocol):
    """A number or an instant per row."""

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that it needs."""

    def interval(self, table: pd.DataFrame) -> Interval:
        """Return the bounds of the value in each row."""


class Condition(Protocol):
    """True, false or undecided per row."""

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that it needs."""

    def truth(self, table: pd.DataFrame) -> Truth:
        """Return where it is true and where it is false."""


@dataclass(frozen=True)
class _Named:
    name: str

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.name})

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ColumnValue(_Named):
    """A column of numbers or instants, given under its name or as ``<name>_min`` and ``<name>_max``."""

    def interval(self, table: pd.DataFrame) -> Interval:
        """Return the bounds of the value in each row."""
        if self.name in table:
            values = table[self.name].to_numpy()
            return values, values
        if f"{self.name}_min" in table:
            return table[f"{self.name}_min"].to_numpy(), table[f"{self.name}_max"].to_numpy()
        unknown = np.datetime64("NaT", "ms") if self.name == "time" else np.float64(np.nan)
        return unknown, unknown


@dataclass(frozen=True)
class Constant:
    """A number or an instant."""

    value: float | np.datetime64
    columns = frozenset[str]()

    def interval(self, table: pd.DataFrame) -> Interval:  # noqa: ARG002 - independent of the table
        """Return the bounds of the value in each row."""
        return self.value, self.value

    def __str__(self) -> str:
        return repr(str(self.value) if isinstance(self.value, np.datetime64) else self.value)


@dataclass(frozen=True)
class Arithmetic:
    """Two numbers joined by ``+ - * /``."""

    symbol: str
    left: Value
    right: Value

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that it needs."""
        return self.left.columns | self.right.columns

    def interval(self, table: pd.DataFrame) -> Interval:
        """Return the bounds of the value in each row."""
        apply = ARITHMETIC[self.symbol]
        left, right = self.left.interval(table), self.right.interval(table)
        if self.symbol == "/":
            # A quotient is between those of the bounds only if the divisor does not change its sign.
            safe = np.asarray((right[0] > 0) | (right[1] < 0))
            right = np.where(safe, right[0], np.nan), np.where(safe, right[1], np.nan)
        with np.errstate(invalid="ignore", over="ignore"):
            corners = [apply(a, b) for a in _ends(left) for b in _ends(right)]
        if len(corners) == 1:
            return corners[0], corners[0]
        return reduce(np.minimum, corners), reduce(np.maximum, corners)

    def __str__(self) -> str:
        return f"({self.left} {self.symbol} {self.right})"


def _ends(interval: Interval) -> Sequence[npt.NDArray[np.float64]]:
    ends = interval[:1] if interval[0] is interval[1] else interval
    return [np.asarray(end, np.float64) for end in ends]


@dataclass(frozen=True)
class Compare:
    """Two values joined by ``< <= > >= ==``."""

    symbol: str
    left: Value
    right: Value

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that it needs."""
        return self.left.columns | self.right.columns

    def truth(self, table: pd.DataFrame) -> Truth:
        """Return where it is true and where it is false."""
        (a_min, a_max), (b_min, b_max) = self.left.interval(table), self.right.interval(table)
        match self.symbol:
            case "<":
                return a_max < b_min, a_min >= b_max
            case "<=":
                return a_max <= b_min, a_min > b_max
            case ">":
                return a_min > b_max, a_max <= b_min
            case ">=":
                return a_min >= b_max, a_max < b_min
            case _:
                return (a_min == b_max) & (a_max == b_min), (a_max < b_min) | (a_min > b_max)

    def __str__(self) -> str:
        return f"{self.left} {self.symbol} {self.right}"


@dataclass(frozen=True)
class Among(_Named):
    """Whether a column of text has one of several values."""

    texts: tuple[str, ...]

    def truth(self, table: pd.DataFrame) -> Truth:
        """Return where it is true and where it is false."""
        if self.name not in table:
            return False, False
        # Evaluated once per category, then looked up; the appended element is for code -1, the missing value.
        values = table[self.name].astype("category").cat
        among = np.asarray(values.categories.isin(self.texts))
        codes = values.codes.to_numpy()
        return np.append(among, False)[codes], np.append(~among, False)[codes]

    def __str__(self) -> str:
        if len(self.texts) == 1:
            return f"{self.name} == {self.texts[0]!r}"
        return f"{self.name} in {self.texts!r}"


@dataclass(frozen=True)
class IsTrue(_Named):
    """Whether a column of flags is true."""

    def truth(self, table: pd.DataFrame) -> Truth:
        """Return where it is true and where it is false."""
        if self.name not in table:
            return False, False
        flags = table[self.name].astype("boolean")
        return flags.to_numpy(bool, na_value=False), (~flags).to_numpy(bool, na_value=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Always:
    """``True`` or ``False`` in every row."""

    value: bool
    columns = frozenset[str]()

    def truth(self, table: pd.DataFrame) -> Truth:  # noqa: ARG002 - independent of the table
        """Return where it is true and where it is false."""
        return np.bool_(self.value), np.bool_(not self.value)

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Not:
    """The negation of a condition; undecided rows stay undecided."""

    part: Condition

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that it needs."""
        return self.part.columns

    def truth(self, table: pd.DataFrame) -> Truth:
        """Return where it is true and where it is false."""
        true, false = self.part.truth(table)
        return false, true

    def __str__(self) -> str:
        return f"not ({self.part})"


@dataclass(frozen=True)
class Joined:
    """Two or more conditions joined by ``and`` or ``or``."""

    word: str
    parts: tuple[Condition, ...]

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that it needs."""
        return frozenset[str]().union(*(part.columns for part in self.parts))

    def truth(self, table: pd.DataFrame) -> Truth:
        """Return where it is true and where it is false."""
        true, false = zip(*(part.truth(table) for part in self.parts), strict=True)
        if self.word == "and":
            return reduce(operator.and_, true), reduce(operator.or_, false)
        return reduce(operator.or_, true), reduce(operator.and_, false)

    def __str__(self) -> str:
        shown = (f"({part})" if isinstance(part, Joined) else str(part) for part in self.parts)
        return f" {self.word} ".join(shown)
