"""Settings of the fit: one frozen value that a run records and a kernel obeys."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from cryotile.errors import InvalidValue

__all__ = ["RECIPES", "SECONDS_PER_YEAR", "FitConfig"]

SECONDS_PER_YEAR = 31_557_600.0
"""Length of the year of all rates, seconds (365.25 days)."""

RECIPES = ("plane",)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What is fitted at each post, and when a fit counts.

    Parameters
    ----------
    radius : float
        Search radius, metres; points at a distance strictly below it are fitted.
    recipe : {"plane"}
        ``plane`` is z = c0·u + c1·v + ḣ·τ + c2 with no rejection.
    period : (str, str) or None
        First instant and first instant after the last, ISO 8601, UTC: points outside are not fitted.  None: whole years
        that cover the points at hand.
    reference_epoch : str or None
        The t = 0 of the fit, ISO 8601, UTC.  None: the middle of the period.
    min_points : int
        Fewer points than this give status ``too_few_points``.
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
        if not (isfinite(self.radius) and self.radius > 0):
            raise InvalidValue(
                f"search radius {self.radius} m is not a positive number; give a radius in metres, e.g. 2000"
            )
        if self.recipe not in RECIPES:
            raise InvalidValue(f"recipe {self.recipe!r} is unknown; choose one of {', '.join(RECIPES)}")
