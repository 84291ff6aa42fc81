"""What is known of each post: the variables of a fit, a tile and a product, in one table.

Names follow ATL15 (``data_count``, ``misfit_rms``, ``…_sigma``) where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from cryotile.config import SECONDS_PER_YEAR, FitConfig

__all__ = ["VARIABLES", "Status", "Term", "Variable", "axis_attrs", "settings_attrs"]


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


def _terms() -> Variable:
    masks, meanings = _flags(Term, "int32")
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
    settings = {name: value for name, value in asdict(config).items() if value is not None}
    start, end = settings.pop("period", (None, None))
    if start is not None:
        settings |= {"time_coverage_start": start, "time_coverage_end": end}
    return {**settings, "year_length_seconds": SECONDS_PER_YEAR}
