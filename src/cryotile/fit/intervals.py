"""Intervals of calendar time within a period: windows that have a rate of their own, and bins of heights."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile.errors import InvalidValue
from cryotile.times import parse_instant

__all__ = ["bins_over", "months_of", "windows_within"]

Intervals = npt.NDArray[np.datetime64]

_NONE = np.empty((0, 2), "datetime64[ms]")
_SPAN = re.compile(r"([1-9]\d{0,3})([my])")


def months_of(text: str) -> int:
    """Return the number of months of a span such as ``3m`` or ``5y``.

    Raises
    ------
    InvalidValue
        It is not a whole number of months or years.
    """
    found = _SPAN.fullmatch(str(text))
    if found is None:
        raise InvalidValue(
            f"span {text!r} must be a whole number of months or years; write e.g. 3m or 5y"
        )
    return int(found[1]) * (12 if found[2] == "y" else 1)


@lru_cache
def windows_within(period: tuple[str, str] | None, length: str, step: str) -> Intervals:
    """Return the windows of a length that begin every step from the start of a period and end within it.

    Parameters
    ----------
    period : (str, str) or None
        First instant, and first instant after the last; None: there are no intervals.
    length, step : str
        As of :func:`months_of`.

    Returns
    -------
    ndarray of datetime64[ms], shape (windows, 2)
        Start and end of each, half open.

    Raises
    ------
    InvalidValue
        No window fits.
    """
    if period is None:
        return _NONE
    start, end = (parse_instant(text) for text in period)
    months, between = months_of(length), months_of(step)
    windows: list[tuple[pd.Timestamp, pd.Timestamp]] = []
    while (last := _later(start, len(windows) * between + months)) <= end:
        windows.append((_later(start, len(windows) * between), last))
    if not windows:
        raise InvalidValue(
            f"a window of {length} does not fit into the period {period[0]} to {period[1]}; use a shorter window"
        )
    return np.array(windows, "datetime64[ms]")


@lru_cache
def bins_over(period: tuple[str, str] | None, width: str) -> Intervals:
    """Return the bins of a width that cover a period from its start on; the last one ends with the period.

    Parameters
    ----------
    period : (str, str) or None
        First instant, and first instant after the last; None: there are no intervals.
    width : str
        As of :func:`months_of`.

    Returns
    -------
    ndarray of datetime64[ms], shape (bins, 2)
        Start and end of each, half open.
    """
    if period is None:
        return _NONE
    start, end = (parse_instant(text) for text in period)
    edges = [start]
    while edges[-1] < end:
        edges.append(min(_later(start, len(edges) * months_of(width)), end))
    return np.array(list(pairwise(edges)), "datetime64[ms]")


def _later(instant: pd.Timestamp, months: int) -> pd.Timestamp:
    # From the start each time: months have different lengths, and 31 January + 1 month + 1 month is 28 March.
    return instant + pd.DateOffset(months=months)
