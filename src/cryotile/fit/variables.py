"""What is known of each post: the variables of a fit, a tile and a product, in one table.

Names follow ATL15 (``data_count``, ``misfit_rms``, ``…_sigma``) where it has one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cryotile.fit.config import FitConfig
from cryotile.points import MODES, PLATFORM_CODES
from cryotile.times import SECONDS_PER_YEAR

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "FIRST_COLUMN_FLAG",
    "VARIABLES",
    "Status",
    "Term",
    "Variable",
    "axis_attrs",
    "fit_variables",
    "settings_attrs",
    "without",
]


class Status(IntEnum):
    """Why a post has a fit, or none; the numbers are those of files."""

    OK = 0
    NOT_COMPUTED = 1
    NO_POINTS = 2
    TOO_FEW_POINTS = 3
    TOO_SHORT_SPAN = 4
    TOO_FEW_PASSES = 5
    SINGULAR = 6
    RATE_OUT_OF_BOUNDS = 7
    NOT_CONVERGED = 8


class Term(IntFlag):
    """What the fit of a post has beyond the plane; the numbers are those of files."""

    MAJORITY_MODE = 1
    QUADRATIC = 2
    DIRECTION = 4
    ANNUAL = 8
    ACCELERATION = 16
    MODE_OFFSET = 32
    PLATFORM_OFFSET = 64
    MAJORITY_PLATFORM = 128


FIRST_COLUMN_FLAG = 256
"""Bit of the first of the point columns among a fit's terms; those of the others follow."""


@dataclass(frozen=True)
class Variable:
    """One variable with dimensions (y, x).

    Attributes
    ----------
    name : str
        Its name in Datasets and files.
    dtype : str
        NumPy's name of its type.
    fill : object
        Value of a post that is not computed; of the floats also of a post without a fit.
    attrs : mapping
        CF attributes; instants get their units where they are written.
    """

    name: str
    dtype: str
    fill: object
    attrs: Mapping[str, object]

    def empty(self, shape: tuple[int, int]) -> npt.NDArray[np.generic]:
        """Return an array of ``shape`` (ny, nx) in which no post is computed."""
        return np.full(shape, self.fill, dtype=self.dtype)


def _real(name: str, units: str, long_name: str, **attrs: str) -> Variable:
    return Variable(name, "float64", np.nan, {"units": units, "long_name": long_name, **attrs})


def _count(name: str, long_name: str, **attrs: str) -> Variable:
    return Variable(name, "int32", 0, {"units": "1", "long_name": long_name, **attrs})


def _time(name: str, long_name: str) -> Variable:
    # Units and calendar are the writer's: they go with the encoding.
    return Variable(name, "datetime64[ms]", np.datetime64("NaT", "ms"), {"long_name": long_name})


def _flags(
    members: type[IntEnum] | type[IntFlag], dtype: str
) -> tuple[npt.NDArray[np.generic], str]:
    return np.array([m.value for m in members], dtype=dtype), " ".join(
        str(m.name).lower() for m in members
    )


def _terms(columns: tuple[str, ...] = ()) -> Variable:
    masks, meanings = _flags(Term, "int32")
    masks = np.append(masks, [FIRST_COLUMN_FLAG << k for k in range(len(columns))]).astype("int32")
    meanings = " ".join([meanings, *columns])
    return Variable(
        "terms",
        "int32",
        0,
        {
            "long_name": "terms fitted beyond the plane",
            "flag_masks": masks,
            "flag_meanings": meanings,
        },
    )


def _status() -> Variable:
    values, meanings = _flags(Status, "int8")
    return Variable(
        "status",
        "int8",
        Status.NOT_COMPUTED.value,
        {
            "long_name": "why there is a fit, or none",
            "standard_name": "status_flag",
            "flag_values": values,
            "flag_meanings": meanings,
        },
    )


VARIABLES: tuple[Variable, ...] = (
    _real(
        "dhdt",
        "m yr-1",
        "elevation change rate",
        ancillary_variables="dhdt_sigma dhdt_ci95 dhdt_dof dhdt_sigma_formal status",
        comment="a year is 31557600 s",
    ),
    _real("dhdt_sigma", "m yr-1", "delete-one-pass jackknife standard error of dhdt"),
    _real("dhdt_ci95", "m yr-1", "half width of the 95 % confidence interval of dhdt"),
    _count("dhdt_dof", "degrees of freedom of dhdt_sigma: passes less one"),
    _real(
        "dhdt_sigma_formal",
        "m yr-1",
        "standard error of dhdt if points were independent",
        comment="too small wherever the points of a pass share an error",
    ),
    _real(
        "elevation",
        "m",
        "elevation at the post at the reference epoch",
        standard_name="height_above_reference_ellipsoid",
        ancillary_variables="elevation_sigma status",
    ),
    _real("elevation_sigma", "m", "delete-one-pass jackknife standard error of elevation"),
    _real("slope_x", "1", "surface slope along x, metres of height a metre of ground"),
    _real("slope_y", "1", "surface slope along y, metres of height a metre of ground"),
    _count("data_count", "points in the fit", standard_name="number_of_observations"),
    _count("rejected_count", "points rejected"),
    _count("pass_count", "passes in the fit"),
    _count("rejected_pass_count", "passes rejected"),
    _real("misfit_rms", "m", "root mean square of the residuals"),
    _real(
        "centroid_distance", "m", "distance of the centroid of the points from the post, projected"
    ),
    _time("time_start", "time of the first point"),
    _time("time_end", "time of the last point"),
    _real("radius", "m", "search radius of the fit"),
    _terms(),
    _status(),
)
"""Variables of a fit in the order of files.  Counts and times are given whatever the status; of a post whose points
failed a gate they say what was there."""


_TERM_VARIABLES: Mapping[str, tuple[Variable, ...]] = {
    "annual": (
        _real("annual_amplitude", "m", "amplitude of the annual cycle"),
        _real(
            "annual_phase",
            "rad",
            "phase of the annual maximum after 1 January, 2 pi a year",
        ),
    ),
    "direction": (
        _real(
            "direction_offset", "m", "elevation on ascending passes less that on descending ones"
        ),
    ),
    "acceleration": (_real("acceleration", "m yr-2", "elevation change acceleration"),),
    "quadratic": (
        _real("curvature_xx", "m-1", "second derivative of elevation along x, projected"),
        _real("curvature_yy", "m-1", "second derivative of elevation along y, projected"),
        _real("curvature_xy", "m-1", "mixed second derivative of elevation, projected"),
    ),
    "mode_offset": tuple(
        _real(f"mode_offset_{name}", "m", f"elevation in mode {name} less the mean over modes")
        for name in (*MODES, "unknown")
    ),
    "platform_offset": tuple(
        _real(f"platform_offset_{name}", "m", f"elevation of {name} less the mean over platforms")
        for name in (*PLATFORM_CODES, "unknown")
    ),
}
"""Term → the variables of its coefficients, NaN where it is dropped."""


def fit_variables(config: FitConfig) -> tuple[Variable, ...]:
    """Return :data:`VARIABLES` and those that the terms of a fit add.

    Parameters
    ----------
    config : FitConfig
        Its terms.

    Returns
    -------
    tuple of Variable
        In the order of files.
    """
    added = [v for term in config.terms for v in _TERM_VARIABLES.get(term, ())]
    added += [
        _real(f"{name}_coefficient", "1", f"metres of elevation per unit of {name}")
        for name in config.column_terms
    ]
    shared = [_terms(config.column_terms) if v.name == "terms" else v for v in VARIABLES]
    place = next(k for k, v in enumerate(shared) if v.name == "data_count")
    return (*shared[:place], *added, *shared[place:])


def without(fitted: xr.Dataset, posts: npt.NDArray[np.bool_], config: FitConfig) -> xr.Dataset:
    """Return a fitted tile in which some posts are not computed.

    Parameters
    ----------
    fitted : Dataset, dimensions (y, x)
        As of :func:`cryotile.fit_posts`.
    posts : ndarray of bool, shape (ny, nx)
        The posts that are not wanted.
    config : FitConfig
        Settings of the fit.

    Returns
    -------
    Dataset
        The same elsewhere.
    """
    blanks = {variable.name: variable.empty(posts.shape) for variable in fit_variables(config)}
    wanted = {
        name: (
            fitted[name].dims,
            np.where(posts, blank, fitted[name].to_numpy()),
            fitted[name].attrs,
        )
        for name, blank in blanks.items()
    }
    return fitted.assign(wanted)


def axis_attrs(name: str) -> dict[str, str]:
    """Return the CF attributes of the coordinate ``name``, ``x`` or ``y``."""
    return {
        "standard_name": f"projection_{name}_coordinate",
        "long_name": f"{name} of the post",
        "units": "m",
        "axis": name.upper(),
    }


def settings_attrs(config: FitConfig) -> dict[str, str | int | float]:
    """Return the global attributes that say what was fitted; nothing of the moment: equal points, equal bytes."""
    settings = asdict(config) | {
        "terms": " ".join(config.terms),
        "weights": " ".join(config.weights),
    }
    settings["fallback_radii"] = " ".join(f"{radius:g}" for radius in config.fallback_radii)
    start, end = settings.pop("period") or ("", "")
    settings |= {"time_coverage_start": start, "time_coverage_end": end}
    said = {name: value for name, value in settings.items() if value not in (None, "", math.inf)}
    return {**said, "year_length_seconds": SECONDS_PER_YEAR}
