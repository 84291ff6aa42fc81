"""Settings of the fit: one frozen value that a run records and the kernel follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from cryotile.errors import InvalidValue
from cryotile.fit.intervals import Intervals, bins_over, months_of, windows_within
from cryotile.fit.terms import MAX_CATEGORIES, TERMS, Term, column_term, platform_offset
from cryotile.points import PLATFORM_CODES, platform_code
from cryotile.times import SECONDS_PER_YEAR, parse_instant

__all__ = [
    "BUILT_IN",
    "NANOSECONDS_PER_YEAR",
    "OFFERED_TERMS",
    "RECIPES",
    "WEIGHTS",
    "FitConfig",
]

NANOSECONDS_PER_YEAR = SECONDS_PER_YEAR * 1e9

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "passes": {
        "min_points": 6,
        "min_passes": 5,
        "max_rate": 30.0,
        "max_ci95": 1.0,
    },
    "plane": {
        "min_points": 5,
        "min_passes": 2,
        "min_span_days": 30.0,
        "min_tolerance": 1e-4,
        "max_rate": math.inf,
    },
}
"""Name → gates of a recipe."""

RETIRED = {
    "robust": "it refused up to 60 % of the posts with few passes, where passes gives an honest interval"
}
"""Name → why a recipe is no more."""

BUILT_IN = ("quadratic", "direction", "annual")
"""Terms that every fit of the recipe ``passes`` has, under priors that fade where the data speak."""

OFFERED_TERMS = tuple(name for name in TERMS if name not in BUILT_IN)
"""Terms that a fit of the recipe ``passes`` has if they are named."""

_NO_GATES: Mapping[str, float] = {
    "min_span_days": 0.0,
    "min_tolerance": 1e-4,
    "max_rate": math.inf,
    "max_ci95": math.inf,
}
"""Values of the gates that a recipe does not have."""

WEIGHTS = ("uncertainty", "distance")

MAX_COLUMN_TERMS = 4

_OF_RECIPE: Any = None  # default: the recipe's value

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
    """Settings of the fit at each post, and the gates that it must pass.

    Parameters
    ----------
    radius : float
        Search radius, metres; points at a distance strictly below it are fitted.
    recipe : {"passes", "plane"}
        ``passes`` gives each pass an offset of its own, drawn from a spread that the data of the post tell; it has
        curvature, direction and season under weak priors, rejects points and frees bad passes, which then shape the
        terrain and not the rate.  ``plane`` is z = c0·u + c1·v + ḣ·τ + c2 without terms and rejection.
    terms : tuple of str
        Terms of ``passes`` beside :data:`BUILT_IN`: ``acceleration``, ``mode_offset``, ``platform_offset``,
        ``penetration``, and up to four point columns, which are centred on their median at each post.
    priors : tuple of str
        ``name=size`` for each of these terms whose coefficient is expected within about ± size, in the units of its
        variable (metres per unit of a point column); the others are free.
    weights : tuple of str
        ``uncertainty``: 1 / (uncertainty² + uncertainty_floor²); ``distance``: exp(−d / distance_scale), d the distance
        from the post; with both, their product.
    uncertainty_floor : float
        Metres.
    distance_scale : float
        Metres, at least a twentieth of the largest radius.
    fallback_radii : tuple of float
        Radii, metres, ascending, that are tried in turn at a post that fails a gate.
    other_platforms : tuple of str
        With the term ``platform_offset``: platforms that may be among the points beside the known ones.  A plan adds
        those of its points.
    period : (str, str) or None
        First instant, and first instant after the last, ISO 8601, UTC: points outside are not fitted.  None: whole
        years that cover the points.
    reference_epoch : str or None
        The t = 0 of the fit, ISO 8601, UTC.  None: the middle of the period.
    min_points : int
        Fewer points than this give status ``too_few_points``; at least 4, the number of unknowns of a plane.  For this
        gate and the next ones the default is the recipe's, and rejected points do not count.
    min_passes : int
        Fewer passes, free ones not counted, give ``too_few_passes``.
    min_span_days : float
        A shorter time between the first and last point gives ``too_short_span``.  Recipe ``plane`` only.
    max_rate : float
        A rate beyond ± this, m/yr, gives ``rate_out_of_bounds``.
    max_ci95 : float
        A wider ``dhdt_ci95``, m/yr, gives ``too_uncertain``.  Recipe ``passes`` only.
    min_tolerance : float
        A smaller tolerance 1 − R² of u, v or τ against the others gives ``singular``.  Recipe ``plane`` only.
    windows : (str, str) or None
        Length and step of windows within the period, e.g. ``("5y", "1m")``: each has a rate of its own, with the pass
        offsets and free passes of the whole fit, and passes the gates by itself.  Recipe ``passes`` only.
    heights : str or None
        Width of bins that cover the period, e.g. ``"1m"``: each has a height.  Recipe ``passes`` only.

    Raises
    ------
    InvalidValue
        A value is invalid.
    """

    radius: float = 2000.0
    recipe: str = "passes"
    terms: tuple[str, ...] = ()
    priors: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    uncertainty_floor: float = 0.1
    distance_scale: float = 1000.0
    fallback_radii: tuple[float, ...] = ()
    other_platforms: tuple[str, ...] = ()
    period: tuple[str, str] | None = None
    reference_epoch: str | None = None
    min_points: int = _OF_RECIPE
    min_passes: int = _OF_RECIPE
    min_span_days: float = _OF_RECIPE
    max_rate: float = _OF_RECIPE
    max_ci95: float = _OF_RECIPE
    min_tolerance: float = _OF_RECIPE
    windows: tuple[str, str] | None = None
    heights: str | None = None

    def __post_init__(self) -> None:
        if self.recipe in RETIRED:
            raise InvalidValue(
                f"recipe {self.recipe!r} is retired: {RETIRED[self.recipe]}; use passes, or plane for a plane"
            )
        if self.recipe not in RECIPES:
            raise InvalidValue(
                f"recipe {self.recipe!r} is unknown; choose one of {', '.join(RECIPES)}"
            )
        for name, value in {**_NO_GATES, **RECIPES[self.recipe]}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("terms", "priors", "weights", "fallback_radii", "other_platforms"):
            object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
        if self.windows is not None:
            object.__setattr__(self, "windows", _as_tuple("windows", self.windows))
        self._check_radii()
        self._check_terms()
        _check_names("weight", self.weights, WEIGHTS, columns=0)
        self._check_platforms()
        self._check_instants()
        self._check_weights()
        self._check_gates()
        self._check_intervals()

    @property
    def reach(self) -> float:
        """The largest radius that is tried, metres."""
        return (self.radius, *self.fallback_radii)[-1]

    @property
    def column_terms(self) -> tuple[str, ...]:
        """Terms that are point columns."""
        return tuple(name for name in self.terms if name not in TERMS)

    @property
    def kernel_terms(self) -> tuple[Term, ...]:
        """Terms in the order of the kernel: that of :data:`TERMS`, then point columns."""
        columns = (column_term(name, k) for k, name in enumerate(self.column_terms))
        table = {**TERMS, "platform_offset": platform_offset(self.platforms)}
        return (*(table[name] for name in table if name in self.fitted_terms), *columns)

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platforms that the points may have, in the order in which the kernel numbers them."""
        return (*PLATFORM_CODES, *self.other_platforms)

    @property
    def fitted_terms(self) -> tuple[str, ...]:
        """Terms in the order of their variables: built-in ones, then those of ``terms``, point columns last."""
        known = (name for name in self.terms if name in TERMS)
        return (*(BUILT_IN if self.recipe == "passes" else ()), *known, *self.column_terms)

    @property
    def prior_sizes(self) -> dict[str, float]:
        """Term → plausible size of its coefficient, infinite for a term without a prior."""
        given = (text.partition("=") for text in self.priors)
        return dict.fromkeys(self.terms, math.inf) | {name: float(size) for name, _, size in given}

    @property
    def intervals(self) -> dict[str, Intervals]:
        """Dimension → start and end of each interval: ``time`` of windows, ``height_time`` of bins of heights.

        While the period is open there are no points, and no intervals.
        """
        found = {}
        if self.windows is not None:
            found["time"] = windows_within(self.period, *self.windows)
        if self.heights is not None:
            found["height_time"] = bins_over(self.period, self.heights)
        return found

    @property
    def point_columns(self) -> tuple[str, ...]:
        """Columns of points that affect the fit; others need not be read."""
        # Every fit reads platform and mode: platforms that mix are refused, and modes are cut to the most frequent.
        names = ["x", "y", "time", "elevation", "pass_id", "platform", "mode"]
        names += ["uncertainty"] * ("uncertainty" in self.weights)
        return tuple(
            dict.fromkeys([*names, *(n for term in self.kernel_terms for n in term.needs)])
        )

    @property
    def epoch(self) -> int:
        """The reference epoch, nanoseconds since 1970; 0 while it is open, when there are no points to fit."""
        return 0 if self.reference_epoch is None else parse_instant(self.reference_epoch).value

    def _check_radii(self) -> None:
        low, high = _RADII
        for radius in (self.radius, *self.fallback_radii):
            if not low <= radius <= high:
                raise InvalidValue(
                    f"search radius {radius} m must be between {low:g} and {high:g} m; give metres, e.g. 2000"
                )
        radii = (self.radius, *self.fallback_radii)
        if sorted(set(radii)) != list(radii):
            raise InvalidValue(
                f"fallback radii {', '.join(f'{r:g}' for r in self.fallback_radii)} m must ascend from the search"
                f" radius of {self.radius:g} m; give larger ones, ascending"
            )

    def _check_platforms(self) -> None:
        for word in self.other_platforms:
            platform_code(word)
        # Names of variables in products have no hyphen.
        if len({word.replace("-", "_") for word in self.platforms}) < len(self.platforms):
            raise InvalidValue(
                f"other platforms {', '.join(self.other_platforms)} name a known one, or one twice; leave it out"
            )
        if len(self.platforms) >= MAX_CATEGORIES:
            raise InvalidValue(
                f"{len(self.other_platforms)} other platforms are more than {MAX_CATEGORIES - len(PLATFORM_CODES) - 1},"
                " which a fit can tell apart; select fewer with where, or give the flights of a fleet one word"
            )

    def _check_terms(self) -> None:
        if self.terms and self.recipe == "plane":
            raise InvalidValue(
                f"term {self.terms[0]!r} does not belong to the recipe plane, which has no terms; use the recipe passes"
            )
        twice = [name for name in self.terms if name in BUILT_IN]
        if twice:
            raise InvalidValue(f"term {twice[0]!r} is built into the recipe passes; leave it out")
        _check_names("term", self.terms, OFFERED_TERMS, columns=MAX_COLUMN_TERMS)
        if "penetration" in self.terms and "platform_offset" not in self.terms:
            raise InvalidValue(
                "term 'penetration' needs the term platform_offset, or the step between a laser and a radar would"
                " become a difference of their rates; name both"
            )
        named = []
        for prior in self.priors:
            name, _, size = str(prior).partition("=")
            if name not in self.terms or name in named or not _is_size(size):
                raise InvalidValue(
                    f"prior {prior!r} must give a term and its plausible size above 0, once; terms are"
                    f" {', '.join(self.terms) or 'not named'}; write e.g. power=0.02"
                )
            named.append(name)

    def _check_intervals(self) -> None:
        if self.windows is None and self.heights is None:
            return
        if self.recipe != "passes":
            raise InvalidValue(
                f"windows and heights follow from the recipe passes, and the recipe is {self.recipe}; use passes"
            )
        if self.windows is not None and len(self.windows) != 2:
            raise InvalidValue(
                f"windows {self.windows!r} must be a length and a step; give e.g. ('5y', '1m')"
            )
        for span in (*(self.windows or ()), *([self.heights] if self.heights else ())):
            months_of(span)
        _ = self.intervals  # a window that is longer than the period raises

    def _check_instants(self) -> None:
        if self.period is not None and (isinstance(self.period, str) or len(self.period) != 2):
            raise InvalidValue(
                f"period {self.period!r} must be two instants; give its first day and the day after its last, e.g."
                " ('2011-01-01', '2021-01-01')"
            )
        if self.period is not None and not _countable(self.period[0]) < _countable(self.period[1]):
            raise InvalidValue(
                f"period {self.period[0]} to {self.period[1]} is reversed or empty;"
                " give its first day, then the day after its last"
            )
        if self.reference_epoch is not None:
            _countable(self.reference_epoch)

    def _check_weights(self) -> None:
        if self.weights and self.recipe == "plane":
            raise InvalidValue(
                f"weight {self.weights[0]!r} does not belong to the recipe plane, where all points weigh the same; use"
                " the recipe passes"
            )
        if not 1e-3 <= self.uncertainty_floor <= 1e3:
            raise InvalidValue(
                f"uncertainty_floor {self.uncertainty_floor} m must be between 0.001 and 1000 m; 0.1 is the default"
            )
        if not self.reach / 20 <= self.distance_scale < math.inf and "distance" in self.weights:
            raise InvalidValue(
                f"distance_scale {self.distance_scale} m must be at least a twentieth of the radius of {self.reach:g}"
                " m, or far points would have no weight; use a smaller radius instead"
            )

    def _check_gates(self) -> None:
        usual = {**_NO_GATES, **RECIPES[self.recipe]}
        for name, value in _NO_GATES.items():
            if name not in RECIPES[self.recipe] and getattr(self, name) != value:
                raise InvalidValue(
                    f"{name} {getattr(self, name)} is not a gate of the recipe {self.recipe}, whose gates are"
                    f" {', '.join(RECIPES[self.recipe])}; leave it out"
                )
        if not 4 <= self.min_points < 2**31:
            raise InvalidValue(
                f"min_points {self.min_points} must be 4 (the number of unknowns) or more; {usual['min_points']} is the"
                " recipe's"
            )
        if not 1 <= self.min_passes < 2**31:
            raise InvalidValue(
                f"min_passes {self.min_passes} must be 1 or more; {usual['min_passes']} is the recipe's"
            )
        if not 0 <= self.min_span_days < math.inf:
            raise InvalidValue(
                f"min_span_days {self.min_span_days} must be 0 or more; {usual['min_span_days']:g} is the recipe's"
            )
        if not self.max_rate > 0:
            raise InvalidValue(
                f"max_rate {self.max_rate} m/yr must be above 0; {usual['max_rate']:g} is the recipe's"
            )
        if not self.max_ci95 > 0:
            raise InvalidValue(
                f"max_ci95 {self.max_ci95} m/yr must be above 0; {usual['max_ci95']:g} is the recipe's"
            )
        if not 1e-8 <= self.min_tolerance <= 1:
            raise InvalidValue(
                f"min_tolerance {self.min_tolerance} must be between 1e-8 (rounding) and 1; 1e-4 is the recipe's"
            )

    def frozen(self, first: pd.Timestamp, last: pd.Timestamp) -> FitConfig:
        """Return these settings with period and reference epoch filled in if they are open.

        Parameters
        ----------
        first, last : Timestamp
            Times of the first and last point, UTC without a time zone.

        Returns
        -------
        FitConfig
            Default period: the whole years that cover ``first`` to ``last``; default reference epoch: its middle.

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
        raise InvalidValue(f"{text!r} must be between 1678 and 2262; give an instant in this range")
    return instant


def _is_size(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _middle(period: tuple[str, str]) -> str:
    start, end = (parse_instant(text) for text in period)
    middle = start + (end - start) / 2
    return middle.floor("us").isoformat()


def _as_tuple(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise InvalidValue(
            f"{name} {value!r} must be a list; give a tuple, e.g. {name}=({value!r},)"
        )
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
                f"{kind} {name!r} is unknown; choose from {', '.join(known)}"
                + (", or name an extra column of the points" if columns else "")
            )
    if len(others) > columns:
        raise InvalidValue(
            f"{len(others)} point columns are named as terms ({', '.join(others)}); name {columns} at most"
        )
