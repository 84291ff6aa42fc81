"""Settings of the fit: one frozen value that a run records and a kernel obeys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pandas as pd

from cryotile.errors import InvalidValue

__all__ = ["RECIPES", "SECONDS_PER_YEAR", "FitConfig", "parse_instant"]

SECONDS_PER_YEAR = 31_557_600.0
"""Length of the year of all rates, seconds (365.25 days)."""

RECIPES = ("plane",)

_RADII = (1e-3, 1e7)


def parse_instant(text: str) -> pd.Timestamp:
    """Return the instant that ``text`` names.

    Parameters
    ----------
    text : str
        ISO 8601, to the microsecond; UTC unless it carries an offset.

    Returns
    -------
    Timestamp
        UTC without a time zone, in nanoseconds.

    Raises
    ------
    InvalidValue
        It is no instant, or none that nanoseconds since 1970 can count.
    """
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not None:
            instant = instant.astimezone(UTC).replace(tzinfo=None)
        return pd.Timestamp(instant).as_unit("ns")
    except (ValueError, TypeError, OverflowError):
        # pandas' OutOfBoundsDatetime is a ValueError.
        raise InvalidValue(
            f"{text!r} is no instant between 1678 and 2262; write it as 2015-07-01 or 2015-07-01T12:00:00 (UTC)"
        ) from None


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What is fitted at each post, and when a fit counts.

    Parameters
    ----------
    radius : float
        Search radius, metres; points at a distance strictly below it are fitted.
    recipe : {"plane"}
        ``plane`` is z = c0·u + c1·v + ḣ·τ + c2 with no rejection; it gates on neither the period nor six passes.
    period : (str, str) or None
        First instant and first instant after the last, ISO 8601, UTC: points outside are not fitted.  None: whole years
        that cover the points at hand.
    reference_epoch : str or None
        The t = 0 of the fit, ISO 8601, UTC.  None: the middle of the period.
    min_points : int
        Fewer points than this give status ``too_few_points``; at least 4, the number of unknowns.
    min_passes : int
        Fewer distinct ``pass_id`` give ``too_few_passes``.
    min_span_days : float
        Time between the first and last point below this gives ``too_short_span``.
    min_tolerance : float
        Smallest tolerance 1 − R² of each of u, v and τ against the other columns; below it the status is ``singular``.

    Raises
    ------
    InvalidValue
        A value breaks its rule.
    """

    radius: float = 2000.0
    recipe: str = "plane"
    period: tuple[str, str] | None = None
    reference_epoch: str | None = None
    min_points: int = 5
    min_passes: int = 2
    min_span_days: float = 30.0
    min_tolerance: float = 1e-4

    def __post_init__(self) -> None:
        low, high = _RADII
        if not low <= self.radius <= high:
            raise InvalidValue(
                f"search radius {self.radius} m is not between {low:g} and {high:g} m; give metres, e.g. 2000"
            )
        if self.recipe not in RECIPES:
            raise InvalidValue(
                f"recipe {self.recipe!r} is unknown; choose one of {', '.join(RECIPES)}"
            )
        if self.period is not None and not parse_instant(self.period[0]) < parse_instant(
            self.period[1]
        ):
            raise InvalidValue(
                f"period {self.period[0]} to {self.period[1]} is reversed or empty;"
                " give its first day, then the day after its last"
            )
        if self.reference_epoch is not None:
            parse_instant(self.reference_epoch)
        self._check_gates()

    def _check_gates(self) -> None:
        if not 4 <= self.min_points < 2**31:
            raise InvalidValue(
                f"min_points {self.min_points} is not 4 (the number of unknowns) or more; 5 is the recipe's"
            )
        if not 1 <= self.min_passes < 2**31:
            raise InvalidValue(f"min_passes {self.min_passes} is not 1 or more; 2 is the recipe's")
        if not 0 <= self.min_span_days < float("inf"):
            raise InvalidValue(
                f"min_span_days {self.min_span_days} is not 0 or more; 30 is the recipe's"
            )
        if not 1e-10 <= self.min_tolerance <= 1:
            raise InvalidValue(
                f"min_tolerance {self.min_tolerance} is not between 1e-10 (rounding) and 1; 1e-4 is the recipe's"
            )

    def frozen(self, first: pd.Timestamp, last: pd.Timestamp) -> FitConfig:
        """Return these settings with period and reference epoch filled in, where they were left open.

        Parameters
        ----------
        first, last : Timestamp
            Times of the first and last point, UTC without a time zone.

        Returns
        -------
        FitConfig
            With the whole years that cover ``first`` to ``last`` as the period, and its middle as the reference epoch.

        Raises
        ------
        InvalidValue
            The points are not within 1678 to 2261.
        """
        period = self.period or (f"{first.year:04d}-01-01", f"{last.year + 1:04d}-01-01")
        return replace(self, period=period, reference_epoch=self.reference_epoch or _middle(period))


def _middle(period: tuple[str, str]) -> str:
    start, end = (parse_instant(text) for text in period)
    middle = start + (end - start) / 2
    return middle.floor("us").isoformat()
