"""Settings of the fit: one frozen value that a run records and a kernel obeys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from cryotile.errors import InvalidValue
from cryotile.times import parse_instant

__all__ = ["RECIPES", "TERMS", "WEIGHTS", "FitConfig"]

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "robust": {
        "terms": ("quadratic", "direction", "annual"),
        "min_points": 20,
        "min_passes": 6,
        "min_span_days": 0.0,
        "min_span_share": 0.7,
        "max_rate": 30.0,
    },
    "plane": {
        "terms": (),
        "min_points": 5,
        "min_passes": 2,
        "min_span_days": 30.0,
        "min_span_share": 0.0,
        "max_rate": math.inf,
    },
}
"""Name → what a recipe sets where nothing else is said; ``robust`` also rejects passes and points."""

TERMS = ("annual", "acceleration", "direction", "mode_offset", "platform_offset", "quadratic")
"""Terms by name, beside point columns; the time-like ones in the order in which they are dropped."""

WEIGHTS = ("uncertainty", "distance")

MAX_COLUMN_TERMS = 4

_OF_RECIPE: Any = None

_NO_TERMS = (
    "x",
    "y",
    "time",
    "elevation",
    "pass_id",
    "ascending",
    "platform",
    "mode",
    "surface_type",
)
_RADII = (1e-3, 1e7)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What is fitted at each post, and when a fit counts.

    Parameters
    ----------
    radius : float
        Search radius, metres; points at a distance strictly below it are fitted.
    recipe : {"robust", "plane"}
        ``plane`` is z = c0·u + c1·v + ḣ·τ + c2 with no rejection; it gates on neither the period nor six passes.
        ``robust`` has terms, rejects passes and then points, and gates on both.
    terms : tuple of str
        What is fitted beside the plane: names of :data:`TERMS` and of up to four point columns, which are centred on
        their median at each post.  A term that a post does not determine is dropped there.  Default: the recipe's.
    weights : tuple of str
        ``uncertainty``: 1 / (uncertainty² + uncertainty_floor²); ``distance``: exp(−d / distance_scale), d the distance
        from the post; their product where both are named.
    uncertainty_floor : float
        Metres.
    distance_scale : float
        Metres, at least a twentieth of the largest radius.
    fallback_radii : tuple of float
        Radii, metres, ascending, that are tried in turn at a post where a gate fails.
    period : (str, str) or None
        First instant and first instant after the last, ISO 8601, UTC: points outside are not fitted.  None: whole years
        that cover the points at hand.
    reference_epoch : str or None
        The t = 0 of the fit, ISO 8601, UTC.  None: the middle of the period.
    min_points : int
        Fewer points than this give status ``too_few_points``; at least 4, the number of unknowns of a plane.  Like the
        gates that follow: default is the recipe's, and what is rejected does not count.
    min_passes : int
        Fewer distinct ``pass_id`` give ``too_few_passes``.
    min_span_days : float
        Time between the first and last point below this gives ``too_short_span``.
    min_span_share : float
        So does less than this share of the period.
    max_rate : float
        A rate beyond ± this, m/yr, gives ``rate_out_of_bounds``.
    min_tolerance : float
        Smallest tolerance 1 − R² of each column against the others; below it a term is dropped, and if that does not
        help u, v or τ the status is ``singular``.

    Raises
    ------
    InvalidValue
        A value breaks its rule.
    """

    radius: float = 2000.0
    recipe: str = "robust"
    terms: tuple[str, ...] = _OF_RECIPE
    weights: tuple[str, ...] = ()
    uncertainty_floor: float = 0.1
    distance_scale: float = 1000.0
    fallback_radii: tuple[float, ...] = ()
    period: tuple[str, str] | None = None
    reference_epoch: str | None = None
    min_points: int = _OF_RECIPE
    min_passes: int = _OF_RECIPE
    min_span_days: float = _OF_RECIPE
    min_span_share: float = _OF_RECIPE
    max_rate: float = _OF_RECIPE
    min_tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise InvalidValue(
                f"recipe {self.recipe!r} is unknown; choose one of {', '.join(RECIPES)}"
            )
        for name, value in RECIPES[self.recipe].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("terms", "weights", "fallback_radii"):
            object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
        self._check_radii()
        _check_names("term", self.terms, TERMS, columns=MAX_COLUMN_TERMS)
        _check_names("weight", self.weights, WEIGHTS, columns=0)
        self._check_instants()
        self._check_weights()
        self._check_gates()

    @property
    def rejects(self) -> bool:
        """Whether passes and points that stand out are rejected."""
        return self.recipe == "robust"

    @property
    def reach(self) -> float:
        """The largest radius that is tried, metres."""
        return (self.radius, *self.fallback_radii)[-1]

    @property
    def column_terms(self) -> tuple[str, ...]:
        """Terms that are point columns."""
        return tuple(name for name in self.terms if name not in TERMS)

    @property
    def point_columns(self) -> tuple[str, ...]:
        """Columns of points that a fit looks at: others make no difference to it, and need not be read."""
        # Platform and mode are looked at even by a plane: platforms that mix are refused, of modes the majority counts.
        names = ["x", "y", "time", "elevation", "pass_id", "platform", "mode"]
        names += ["ascending"] * ("direction" in self.terms)
        names += ["uncertainty"] * ("uncertainty" in self.weights)
        return tuple(dict.fromkeys([*names, *self.column_terms]))

    def _check_instants(self) -> None:
        if self.period is not None and not _countable(self.period[0]) < _countable(self.period[1]):
            raise InvalidValue(
                f"period {self.period[0]} to {self.period[1]} is reversed or empty;"
                " give its first day, then the day after its last"
            )
        if self.reference_epoch is not None:
            _countable(self.reference_epoch)

    def _check_radii(self) -> None:
        low, high = _RADII
        for radius in (self.radius, *self.fallback_radii):
            if not low <= radius <= high:
                raise InvalidValue(
                    f"search radius {radius} m is not between {low:g} and {high:g} m; give metres, e.g. 2000"
                )
        radii = (self.radius, *self.fallback_radii)
        if sorted(set(radii)) != list(radii):
            raise InvalidValue(
                f"fallback radii {', '.join(f'{r:g}' for r in self.fallback_radii)} m do not grow from the search"
                f" radius of {self.radius:g} m; give larger ones, ascending"
            )

    def _check_weights(self) -> None:
        if not 1e-3 <= self.uncertainty_floor <= 1e3:
            raise InvalidValue(
                f"uncertainty_floor {self.uncertainty_floor} m is not between 0.001 and 1000 m; 0.1 is the default"
            )
        if not self.reach / 20 <= self.distance_scale < math.inf and "distance" in self.weights:
            raise InvalidValue(
                f"distance_scale {self.distance_scale} m is not a twentieth of the radius of {self.reach:g} m or more,"
                " so that far points would count for nothing; use a smaller radius instead"
            )

    def _check_gates(self) -> None:
        usual = RECIPES[self.recipe]
        if not 4 <= self.min_points < 2**31:
            raise InvalidValue(
                f"min_points {self.min_points} is not 4 (the number of unknowns) or more; {usual['min_points']} is the"
                " recipe's"
            )
        if not 1 <= self.min_passes < 2**31:
            raise InvalidValue(
                f"min_passes {self.min_passes} is not 1 or more; {usual['min_passes']} is the recipe's"
            )
        if not 0 <= self.min_span_days < math.inf:
            raise InvalidValue(
                f"min_span_days {self.min_span_days} is not 0 or more; {usual['min_span_days']:g} is the recipe's"
            )
        if not 0 <= self.min_span_share <= 1:
            raise InvalidValue(
                f"min_span_share {self.min_span_share} is not between 0 and 1;"
                f" {usual['min_span_share']:g} is the recipe's"
            )
        if not self.max_rate > 0:
            raise InvalidValue(
                f"max_rate {self.max_rate} m/yr is not above 0; {usual['max_rate']:g} is the recipe's"
            )
        if not 1e-8 <= self.min_tolerance <= 1:
            raise InvalidValue(
                f"min_tolerance {self.min_tolerance} is not between 1e-8 (rounding) and 1; 1e-4 is the recipe's"
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


def _countable(text: str) -> pd.Timestamp:
    """Return an instant that the kernel can count in nanoseconds since 1970."""
    instant = parse_instant(text)
    if not pd.Timestamp.min <= instant <= pd.Timestamp.max:
        raise InvalidValue(f"{text!r} is not between 1678 and 2262; give an instant that is")
    return instant


def _middle(period: tuple[str, str]) -> str:
    start, end = (parse_instant(text) for text in period)
    middle = start + (end - start) / 2
    return middle.floor("us").isoformat()


def _as_tuple(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise InvalidValue(f"{name} {value!r} is no list; give a tuple, e.g. {name}=({value!r},)")
    return tuple(value)


def _check_names(
    kind: str, names: tuple[str, ...], known: tuple[str, ...], *, columns: int
) -> None:
    others = [name for name in names if name not in known]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InvalidValue(f"{kind} {twice[0]!r} is named twice; name it once")
    for name in others:
        if columns == 0 or not str(name).isidentifier() or name in _NO_TERMS:
            raise InvalidValue(
                f"{kind} {name!r} is unknown; choose of {', '.join(known)}"
                + (", or name a further column of the points" if columns else "")
            )
    if len(others) > columns:
        raise InvalidValue(
            f"{len(others)} point columns are named as terms ({', '.join(others)}); {columns} is the most"
        )
