"""The variables of a fit, a tile and a product, in one table, and their values from the numbers of the kernel.

Names follow ATL15 (``data_count``, ``misfit_rms``, ``…_sigma``) where it has the variable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cryotile.fit.config import NANOSECONDS_PER_YEAR, FitConfig
from cryotile.fit.terms import FIRST_COLUMN_FLAG, TermFlag, name_coefficients
from cryotile.geo.projection import point_scale
from cryotile.times import SECONDS_PER_YEAR

__all__ = [
    "HEIGHT_VARIABLES",
    "VARIABLES",
    "WINDOW_VARIABLES",
    "Fitted",
    "Status",
    "Variable",
    "axis_attrs",
    "fit_variables",
    "instants_of",
    "name_variables",
    "settings_attrs",
    "student_quantile",
    "time_axes",
    "without",
]

_Floats = npt.NDArray[np.float64]


class Status(IntEnum):
    """Why a post has a fit or not; the numbers are those of files and of ``enum status`` in ``kernel/fit.h``.

    Number 8 was that of a recipe that is retired.
    """

    OK = 0
    NOT_COMPUTED = 1
    NO_POINTS = 2
    TOO_FEW_POINTS = 3
    TOO_SHORT_SPAN = 4
    TOO_FEW_PASSES = 5
    SINGULAR = 6
    RATE_OUT_OF_BOUNDS = 7
    OUTSIDE_MASK = 9
    TOO_UNCERTAIN = 10


@dataclass(frozen=True)
class Variable:
    """One variable with dimensions (y, x), or one more before them.

    Attributes
    ----------
    name : str
        Its name in Datasets and files.
    dtype : str
        NumPy's name of its type.
    fill : object
        Value at a post that is not computed; for floats also at a post without a fit.
    attrs : mapping
        CF attributes; the writer of a file adds the units of instants.
    along : str or None
        The dimension before y and x: ``time`` (of windows), ``height_time`` (of bins of heights) or none.
    size : int or None
        Length of that dimension.
    """

    name: str
    dtype: str
    fill: object
    attrs: Mapping[str, object]
    along: str | None = None
    size: int | None = None

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return ("y", "x") if self.along is None else (self.along, "y", "x")

    def empty(self, shape: tuple[int, int]) -> npt.NDArray[np.generic]:
        """Return an array for ``shape`` (ny, nx) whose posts are not computed."""
        first = () if self.size is None else (self.size,)
        return np.full((*first, *shape), self.fill, dtype=self.dtype)


def _real(name: str, units: str, long_name: str, **attrs: str) -> Variable:
    return Variable(name, "float64", np.nan, {"units": units, "long_name": long_name, **attrs})


def _count(name: str, long_name: str, **attrs: str) -> Variable:
    return Variable(name, "int32", 0, {"units": "1", "long_name": long_name, **attrs})


def _time(name: str, long_name: str) -> Variable:
    # Units and calendar belong to the encoding, which the writer of a file chooses.
    return Variable(name, "datetime64[ms]", np.datetime64("NaT", "ms"), {"long_name": long_name})


def _flags(
    members: type[IntEnum] | type[IntFlag], dtype: str
) -> tuple[npt.NDArray[np.generic], str]:
    return np.array([m.value for m in members], dtype=dtype), " ".join(
        str(m.name).lower() for m in members
    )


def _terms(columns: tuple[str, ...] = ()) -> Variable:
    masks, meanings = _flags(TermFlag, "int32")
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


def _status(name: str = "status", long_name: str = "why there is a fit, or none") -> Variable:
    values, meanings = _flags(Status, "int8")
    return Variable(
        name,
        "int8",
        Status.NOT_COMPUTED.value,
        {
            "long_name": long_name,
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
    _real("dhdt_sigma", "m yr-1", "delete-one-pass standard error of dhdt"),
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
    _real("pass_offset_sigma", "m", "standard deviation of the offsets of passes, recipe passes"),
    _real("noise_sigma", "m", "standard deviation of points within a pass, recipe passes"),
    _count("data_count", "points in the fit", standard_name="number_of_observations"),
    _count("rejected_count", "points rejected"),
    _count("pass_count", "passes in the fit, free ones not counted"),
    _count("free_pass_count", "passes of unknown offset, which shape the terrain and not the rate"),
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
"""Variables of a fit in the order of files.  Counts and times have values whatever the status: at a post that failed a
gate they describe its points."""


WINDOW_VARIABLES: tuple[Variable, ...] = (
    _real(
        "window_dhdt",
        "m yr-1",
        "elevation change rate in a window",
        ancillary_variables="window_dhdt_sigma window_dhdt_ci95 window_status",
        comment="a year is 31557600 s",
    ),
    _real("window_dhdt_sigma", "m yr-1", "delete-one-pass jackknife standard error of window_dhdt"),
    _real(
        "window_dhdt_ci95", "m yr-1", "half width of the 95 % confidence interval of window_dhdt"
    ),
    _count("window_data_count", "points of a window in the fit"),
    _count("window_pass_count", "passes of a window in the fit"),
    _status("window_status", "why a window has a rate, or none"),
)
"""Variables of a fit with windows; pass offsets and free passes are those of the whole fit."""

HEIGHT_VARIABLES: tuple[Variable, ...] = (
    _real(
        "height",
        "m",
        "height of the surface in a bin of time, relative to elevation",
        ancillary_variables="height_sigma height_ci95",
    ),
    _real("height_sigma", "m", "standard error of height"),
    _real("height_ci95", "m", "half width of the 95 % confidence interval of height"),
    _count("height_pass_count", "passes of a bin in the fit"),
)
"""Variables of a fit with heights; NaN in a bin without a pass."""


def fit_variables(config: FitConfig) -> tuple[Variable, ...]:
    """Return :data:`VARIABLES` and the variables that terms, windows and heights add.

    Parameters
    ----------
    config : FitConfig
        Settings of the fit.

    Returns
    -------
    tuple of Variable
        In the order of files.
    """
    terms = {term.name: term for term in config.kernel_terms}
    added = [
        _real(*output)
        for name in config.fitted_terms
        for output in (*terms[name].outputs, *terms[name].sigmas)
    ]
    if "penetration" in terms:
        added.append(
            _real(
                "penetration_rate_ci95",
                "m yr-1",
                "half width of the 95 % confidence interval of penetration_rate",
            )
        )
    shared = [_terms(config.column_terms) if v.name == "terms" else v for v in VARIABLES]
    place = next(k for k, v in enumerate(shared) if v.name == "data_count")
    over_time = {"time": WINDOW_VARIABLES, "height_time": HEIGHT_VARIABLES}
    return (
        *shared[:place],
        *added,
        *shared[place:],
        *(
            replace(variable, along=name, size=len(intervals))
            for name, intervals in config.intervals.items()
            for variable in over_time[name]
        ),
    )


@dataclass(frozen=True, eq=False)
class Fitted:
    """The numbers of the kernel at a rectangle of posts.

    Attributes
    ----------
    posts : ndarray, shape (ny, nx)
        Records of dtype ``cryotile._fit.POST``.
    coefficients : ndarray, shape (ny, nx, twice the outputs of all terms)
        Of the terms, then their sigmas.
    radius : ndarray, shape (ny, nx)
        Search radius of each fit, m.
    windows, heights : ndarray, shape (ny, nx, n)
        Records of dtypes ``cryotile._fit.WINDOW`` and ``cryotile._fit.HEIGHT``; n may be 0.
    """

    posts: npt.NDArray[np.void]
    coefficients: _Floats
    radius: _Floats
    windows: npt.NDArray[np.void]
    heights: npt.NDArray[np.void]

    @classmethod
    def stacked(cls, parts: Sequence[Fitted]) -> Fitted:
        """Return rows of posts, one part after another."""
        arrays = zip(*(part._arrays for part in parts), strict=True)
        return cls(*(np.concatenate(some) for some in arrays))

    def replace(self, posts: npt.NDArray[np.bool_], other: Fitted) -> None:
        """Take some posts from another fit of the same rectangle."""
        for own, others in zip(self._arrays, other._arrays, strict=True):
            own[posts] = others[posts]

    @property
    def _arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        return self.posts, self.coefficients, self.radius, self.windows, self.heights


def name_variables(
    fitted: Fitted, x: _Floats, y: _Floats, config: FitConfig, crs: pyproj.CRS | str | None
) -> xr.Dataset:
    """Return the numbers of the kernel as variables in SI units.

    Parameters
    ----------
    fitted : Fitted
        At all posts.
    x, y : ndarray, shapes (nx,), (ny,)
        Posts, m.
    config : FitConfig
        Settings of the fit.
    crs : pyproj.CRS or str or None
        CRS of x and y; None: slopes are per metre of the projection.

    Returns
    -------
    Dataset, dimensions (y, x), and of windows and heights (time, y, x) and (height_time, y, x)
        The variables of :func:`fit_variables`.
    """
    found = fitted.posts
    has_fit = found["status"] == Status.OK
    scale = 1.0 if crs is None else point_scale(pyproj.CRS.from_user_input(crs), *np.meshgrid(x, y))
    dof = np.where(has_fit, found["pass_count"] - 1, 0)
    values = {name: found[name] for name in found.dtype.names or ()} | {
        "dhdt_ci95": found["dhdt_sigma"] * student_quantile(0.975, dof),
        "dhdt_dof": dof,
        "slope_x": found["c0"] * (scale / fitted.radius),
        "slope_y": found["c1"] * (scale / fitted.radius),
        "time_start": instants_of(found["time_start"], config),
        "time_end": instants_of(found["time_end"], config),
        "radius": np.where(has_fit, fitted.radius, np.nan),
        **name_coefficients(config.kernel_terms, fitted.coefficients, fitted.radius),
        **_over_time("window", fitted.windows),
        **_over_time("height", fitted.heights),
    }
    if "penetration_rate" in values:
        quantile = student_quantile(0.975, dof)
        values["penetration_rate_ci95"] = values["penetration_rate_sigma"] * quantile
    if "height" in values:
        values["height"] = values["height"] - found["elevation"]
    # Ready variables and coordinates halve the work of xarray, which takes as long as the fit of a thousand posts.
    axes = {name: (name, axis, axis_attrs(name)) for name, axis in (("y", y), ("x", x))}
    return xr.Dataset(
        {
            v.name: xr.Variable(v.dims, values[v.name].astype(v.dtype), dict(v.attrs))
            for v in fit_variables(config)
        },
        coords=xr.Coordinates(axes | time_axes(config)),
        attrs=settings_attrs(config),
    )


def _over_time(prefix: str, records: npt.NDArray[np.void]) -> dict[str, npt.NDArray[np.generic]]:
    """Return the fields of records, shape (ny, nx, n), as variables of shape (n, ny, nx)."""
    return {
        name if name.startswith(prefix) else f"{prefix}_{name}": np.moveaxis(records[name], -1, 0)
        for name in records.dtype.names or ()
    }


def time_axes(config: FitConfig) -> dict[str, xr.Variable]:
    """Return the coordinates of windows and bins: their middles and their bounds, as CF has them."""
    axes = {}
    for name, intervals in config.intervals.items():
        of = "windows" if name == "time" else "bins of heights"
        middle = intervals[:, 0] + (intervals[:, 1] - intervals[:, 0]) / 2
        attrs = {"standard_name": "time", "long_name": f"middle of {of}", "bounds": f"{name}_bnds"}
        axes[name] = xr.Variable(name, middle, attrs | {"axis": "T"})
        axes[f"{name}_bnds"] = xr.Variable((name, "bnds"), intervals)
    return axes


def student_quantile(probability: float, dof: npt.NDArray[np.generic]) -> _Floats:
    """Return the quantile of Student's t distribution.

    Parameters
    ----------
    probability : float
        E.g. 0.975: ± quantile · sigma is the 95 % confidence interval.
    dof : ndarray, any shape
        Degrees of freedom, whole or not.

    Returns
    -------
    ndarray, the shape of ``dof``
        NaN where there is no degree of freedom.
    """
    from scipy.special import stdtrit  # takes longer to import than a tile to fit

    # A tile has few distinct numbers of passes, and a quantile costs as much as the fit of a post.
    distinct, places = np.unique(dof, return_inverse=True)
    quantiles: _Floats = stdtrit(np.where(distinct > 0, distinct, np.nan), probability)
    return quantiles[places].reshape(dof.shape)


def instants_of(years: _Floats, config: FitConfig) -> npt.NDArray[np.datetime64]:
    """Return the instants that are so many years from the reference epoch; NaT for NaN."""
    # Years hold an instant to some 50 ns over a century: rounded to the millisecond it is that of the point.
    instants = np.full(years.shape, np.datetime64("NaT", "ms"))
    known = np.isfinite(years)
    since = np.rint(years[known] * NANOSECONDS_PER_YEAR).astype(np.int64) + config.epoch
    instants[known] = ((since + 500_000) // 1_000_000).astype("datetime64[ms]")
    return instants


def without(fitted: xr.Dataset, posts: npt.NDArray[np.bool_], config: FitConfig) -> xr.Dataset:
    """Return a fitted tile whose unwanted posts have no values and status ``outside_mask``.

    Parameters
    ----------
    fitted : Dataset, dimensions (y, x)
        As of :func:`cryotile.fit_posts`.
    posts : ndarray of bool, shape (ny, nx)
        The unwanted posts.
    config : FitConfig
        Settings of the fit.

    Returns
    -------
    Dataset
        Other posts are unchanged.
    """
    blanks = {variable.name: variable.empty(posts.shape) for variable in fit_variables(config)}
    blanks["status"].fill(Status.OUTSIDE_MASK)
    blanks.get("window_status", blanks["status"]).fill(Status.OUTSIDE_MASK)
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
    """Return the settings of a fit as global attributes; none depends on the moment or the host."""
    settings = asdict(config) | {
        "terms": " ".join(config.terms),
        "priors": " ".join(config.priors),
        "weights": " ".join(config.weights),
        "windows": " ".join(config.windows or ()),
    }
    settings["other_platforms"] = " ".join(config.other_platforms)
    settings["fallback_radii"] = " ".join(f"{radius:g}" for radius in config.fallback_radii)
    start, end = settings.pop("period") or ("", "")
    settings |= {"time_coverage_start": start, "time_coverage_end": end}
    given = {name: value for name, value in settings.items() if value not in (None, "", math.inf)}
    return {**given, "year_length_seconds": SECONDS_PER_YEAR}
