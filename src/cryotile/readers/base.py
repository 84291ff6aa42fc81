"""Common parts of readers: their interface, the rules that drop a point, and the construction of a granule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryotile.geo.values import HIGHEST, LOWEST, has_utc_calendar
from cryotile.points import (
    MODES,
    SURFACE_TYPES,
    Granule,
    pass_id,
    platform_code,
    platform_words,
)
from cryotile.readers.pass_inference import DIRECTION_NOTE, NOTE, infer_directions, infer_passes
from cryotile.readers.source import Shape, Source
from cryotile.times import TimeUnit

__all__ = [
    "REASONS",
    "UNTRIED",
    "Identity",
    "Passes",
    "ProductReader",
    "Reader",
    "Records",
    "build_granule",
    "codes",
    "find_passes",
    "instants",
    "outermost",
    "pass_ids",
]

REASONS: Mapping[str, str] = {
    "no_position": "longitude or latitude is missing",
    "no_time": "the time is missing",
    "no_elevation": "the elevation is missing, unused (0), below -500 m or above 9000 m on the ellipsoid",
    "no_mode": "the measurement mode is unknown",
    "no_platform": "the platform is missing or not a lower-case word",
    "surface_ocean": "ocean, not asked for",
    "surface_grounded_ice": "grounded ice, not asked for",
    "surface_floating_ice": "floating ice, not asked for",
    "surface_ice_free_land": "ice-free land, not asked for",
    "surface_lake": "lake or enclosed sea, not asked for",
    "surface_unknown": "surface of unknown type, not asked for",
    "flag_missing": "the word of quality flags is missing",
    "height_error": "the error flag of the height used is set",
    "xtrack_angle_error": "the across-track angle of SARIn is in error",
    "height_ambiguous": "the SARIn phase is ambiguous, so the echo may lie elsewhere",
    "block_degraded": "the measurement confidence flags say that the block must not be used",
    "orbit_error": "the orbit is in error",
    "orbit_discontinuity": "the orbit is discontinuous",
    "mispointing_error": "the antenna is mispointed",
    "bad_baseline": "the interferometer baseline is bad",
    "slope_model_invalid": "the slope model that relocates an LRM echo is invalid",
    "not_best_quality": "the quality summary is not best quality",
    "geolocation_uncertain": "the height error from geolocation is over 1 m",
    "no_orbit": "the orbit number is missing, so the pass is unknown",
    "retracking_failed": "the flag of the retracker says that its range is bad",
    "relocation_failed": "the flag of the relocation says that the place of the echo is unknown",
    "poor_waveform": "the flag of the waveform over ice is set",
    "elevation_unusable": "the flag on the use of elevations is set",
    "bad_attitude": "the flag of the attitude is set",
    "saturated": "the receiver was saturated, and the correction of the elevation is missing",
    "several_peaks": "the waveform does not have a single peak",
}
"""Reason → sentence, for every reason under which a built-in reader drops a point.

A point counts under its first reason.  Reasons common to all products come first, in the order above, then those of the
product's own flags.
"""

UNTRIED = "this reader follows descriptions of its product and is untried on a real file"
"""Note on granules of a product of which no file was to be had."""

_STAND_INS_NAMED = 3

# All granules have the same categories, so that joined frames keep them.
_MODES, _SURFACES = (pd.CategoricalDtype(list(names)) for names in (MODES, SURFACE_TYPES))


class Reader(Protocol):
    """Reads the granules of one product.  Third parties offer theirs under the entry-point group ``cryotile.readers``.

    Attributes
    ----------
    product : str
        Name of the product, e.g. ``"cryotempo_land_ice"``.
    columns : mapping of str to str
        Extra columns offered → unit.
    """

    @property
    def product(self) -> str: ...  # noqa: D102

    @property
    def columns(self) -> Mapping[str, str]: ...  # noqa: D102

    def recognises(self, source: Source) -> bool:
        """Return whether the content of ``source``, regardless of its name, is of this product."""
        ...

    def read(
        self, source: Source, *, surface_types: Sequence[str], columns: Sequence[str]
    ) -> Granule:
        """Read the valid points on ``surface_types``, with the extra ``columns``; columns not offered are NaN.

        Raises
        ------
        GranuleError
            The granule lacks a part of its product, or is damaged.
        """
        ...


@dataclass(frozen=True)
class Identity:
    """The identity of a granule, and of this delivery of it.

    Attributes
    ----------
    product, zone : str
        Product, and the region or kind of file within the product.
    start : datetime64
        Sensing start, UTC.
    orbit : int
        Absolute orbit number, or reference ground track if a granule holds many orbits.
    baseline : str
        Baseline or release, "" if the granule does not state it.
    version : int
        Version within the baseline, 0 if the granule does not state it.
    """

    product: str
    zone: str
    start: np.datetime64
    orbit: int
    baseline: str = ""
    version: int = 0

    @property
    def id(self) -> str:
        """``product:zone:start:orbit``, the start rounded to the second as in file names."""
        second = (self.start.astype("datetime64[ms]") + np.timedelta64(500, "ms")).astype(
            "datetime64[s]"
        )
        stamp = str(second).replace("-", "").replace(":", "")
        return f"{self.product}:{self.zone.lower()}:{stamp}:{self.orbit}"


@dataclass(frozen=True, eq=False)
class Records:
    """All records of a granule, before any is dropped; arrays of equal length.

    Parameters
    ----------
    platform : str or ndarray of int, shape (records,)
        A word, or per record its :func:`cryotile.points.platform_code`, −1 where unknown.
    longitude, latitude : ndarray, shape (records,)
        Degrees; NaN where missing.
    time : ndarray of datetime64[ms], shape (records,)
        UTC; NaT where missing.
    elevation, uncertainty : ndarray, shape (records,)
        Metres; NaN where missing.
    pass_id : ndarray of int64, shape (records,)
        See :func:`cryotile.points.pass_id`.
    ascending : ndarray of bool or BooleanArray, shape (records,)
        Whether the satellite flies north; NA where unknown.
    mode, surface_type : ndarray of int8, shape (records,)
        Positions in :data:`cryotile.points.MODES` (−1 unknown) and :data:`cryotile.points.SURFACE_TYPES`.
    rejected : mapping of str to ndarray of bool
        Reason → records that the product's own flags reject, in order of precedence.
    extra : mapping of str to ndarray
        Extra column → values.
    notes : tuple of str
        Facts that a user should know about this granule, in addition to those of its product.
    """

    platform: str | NDArray[np.integer]
    longitude: NDArray[np.float64]
    latitude: NDArray[np.float64]
    time: NDArray[np.datetime64]
    elevation: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    pass_id: NDArray[np.int64]
    ascending: NDArray[np.bool_] | pd.arrays.BooleanArray
    mode: NDArray[np.int8]
    surface_type: NDArray[np.int8]
    rejected: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    extra: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def tests(self, surface_types: Sequence[str]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yield reasons and the records that each rejects, in order of precedence."""
        # Written so that NaN fails.
        yield "no_position", ~((np.abs(self.latitude) <= 90.0) & (np.abs(self.longitude) <= 360.0))
        yield "no_time", np.isnat(self.time)
        yield "no_elevation", ~((self.elevation >= LOWEST) & (self.elevation <= HIGHEST))
        yield "no_mode", self.mode < 0
        if not isinstance(self.platform, str):
            yield "no_platform", self.platform < 0
        for code, name in enumerate(SURFACE_TYPES):
            if name not in surface_types:
                yield f"surface_{name}", self.surface_type == code
        yield from self.rejected.items()


class ProductReader(ABC):
    """A reader of a product whose extra columns are variables of its files.

    Attributes
    ----------
    product : str
        Name of the product.
    variables : mapping of str to tuple of str
        Extra column → variable and unit.
    notes : tuple of str
        Facts that a user should know about every granule.
    tried : bool
        Whether it has read a file of the agency; otherwise its granules have the note :data:`UNTRIED`.
    """

    product: str
    variables: Mapping[str, tuple[str, str]]
    notes: tuple[str, ...]
    tried: bool = True

    @property
    def columns(self) -> Mapping[str, str]:
        """Extra columns offered → unit."""
        return {name: unit for name, (_, unit) in self.variables.items()}

    @abstractmethod
    def recognises(self, source: Source) -> bool:
        """Return whether the content of ``source`` is of this product."""

    @abstractmethod
    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:
        """Return the identity of a granule and all its records, with those ``extra`` columns, which are all offered."""

    def read(
        self, source: Source, *, surface_types: Sequence[str], columns: Sequence[str]
    ) -> Granule:
        """Read the valid points; see :meth:`Reader.read`."""
        extra = [name for name in columns if name in self.variables]
        identity, records = self.contents(source, extra)
        return build_granule(
            source,
            identity,
            records,
            surface_types=surface_types,
            columns=columns,
            notes=self.notes if self.tried else (*self.notes, UNTRIED),
        )


def build_granule(
    source: Source,
    identity: Identity,
    records: Records,
    *,
    surface_types: Sequence[str],
    columns: Sequence[str],
    notes: tuple[str, ...] = (),
    checksum: str | None = None,
    simulated: bool | None = None,
    extent: NDArray[np.float64] | None = None,
) -> Granule:
    """Drop records that are invalid or not asked for, and make a granule of the others.

    Parameters
    ----------
    source : Source
        The file.
    identity : Identity
        Identity of the granule.
    records : Records
        All its records.
    surface_types : sequence of str
        Surfaces to keep.
    columns : sequence of str
        Extra columns to return; NaN if the records do not have one.
    notes : tuple of str
        Facts that a user should know.
    checksum : str or None
        SHA-256 of the file, if it is already known.
    simulated : bool or None
        Whether the file says that its points are simulated; None: as :attr:`Source.simulated`.
    extent : ndarray or None
        The outermost records of the file as of :func:`outermost`; None: those of ``records``.

    Returns
    -------
    Granule
        Its points have longitude and latitude.
    """
    keep = np.ones(records.time.shape, dtype=bool)
    dropped = {}
    for reason, bad in records.tests(surface_types):
        count = int(np.count_nonzero(keep & bad))
        if count:
            dropped[reason] = count
            keep &= ~bad
    return Granule(
        id=identity.id,
        product=identity.product,
        baseline=identity.baseline,
        version=identity.version,
        name=source.path.name,
        checksum=source.checksum() if checksum is None else checksum,
        record_count=keep.size,
        dropped=dropped,
        points=_frame(records, keep, columns),
        notes=(*notes, *records.notes, *_stand_ins(records.elevation)),
        simulated=source.simulated if simulated is None else simulated,
        extent=outermost(records.longitude, records.latitude, records.time)
        if extent is None
        else extent,
    )


def outermost(
    longitude: NDArray[np.float64], latitude: NDArray[np.float64], time: NDArray[np.datetime64]
) -> NDArray[np.float64]:
    """Return the records that lie farthest out in time and in each direction; those without time or place do not count.

    Parameters
    ----------
    longitude, latitude : ndarray, shape (records,)
        Degrees; NaN where missing.
    time : ndarray of datetime64, shape (records,)
        UTC; NaT where missing.

    Returns
    -------
    ndarray, shape (n, 3)
        Longitude, latitude, and milliseconds since 1970, of at most 12 records.
    """
    known = np.flatnonzero(
        ~np.isnat(time) & (np.abs(latitude) <= 90.0) & (np.abs(longitude) <= 360.0)
    )
    if not known.size:
        return np.empty((0, 3))
    u, v = longitude[known], latitude[known]
    t = time[known].astype("datetime64[ms]").astype(np.int64)
    # Seen from above a pole, where longitudes have no seam; diagonals, because axes of a projection may lie there.
    # Single precision resolves a few metres, in half the time.
    lon, lat = (
        np.radians(degrees, dtype=np.float32) for degrees in (u.astype("f4"), v.astype("f4"))
    )
    radius = np.cos(lat)
    east, north = radius * np.cos(lon), radius * np.sin(lon)
    along = (t, v, east, north, east + north, east - north)
    rows = np.unique([find(values) for values in along for find in (np.argmin, np.argmax)])
    return np.column_stack([u[rows], v[rows], t[rows]])


def _stand_ins(elevation: NDArray[np.float64]) -> Iterator[str]:
    """Yield a note on each impossible elevation that stands in the file several times and is not declared missing."""
    impossible = elevation[(elevation < LOWEST) | (elevation > HIGHEST)]
    values, counts = np.unique(impossible, return_counts=True)
    for value in values[counts > 1][:_STAND_INS_NAMED]:
        yield f"the elevation {value:.10g} m stands for a missing value, which the file does not declare"


def _frame(records: Records, keep: NDArray[np.bool_], columns: Sequence[str]) -> pd.DataFrame:
    uncertainty = records.uncertainty[keep]
    platform = records.platform
    if isinstance(platform, str):
        platform = np.full(records.time.shape, platform_code(platform), np.int32)
    core: dict[str, Any] = {
        "longitude": records.longitude[keep],
        "latitude": records.latitude[keep],
        "time": records.time[keep],
        "elevation": records.elevation[keep],
        "uncertainty": np.where((uncertainty > 0.0) & (uncertainty < HIGHEST), uncertainty, np.nan),
        "pass_id": records.pass_id[keep],
        "ascending": pd.array(records.ascending[keep], dtype="boolean"),
        "platform": platform_words(platform[keep]),
        "mode": pd.Categorical.from_codes(records.mode[keep], dtype=_MODES),
        "surface_type": pd.Categorical.from_codes(records.surface_type[keep], dtype=_SURFACES),
    }
    extra = {
        name: records.extra[name][keep] if name in records.extra else np.nan for name in columns
    }
    points = pd.DataFrame(core, copy=False)
    return points.assign(**extra) if extra else points


def codes(raw: NDArray[Any], meanings: Mapping[int, str], names: Sequence[str]) -> NDArray[np.int8]:
    """Translate a product's classes into positions in ``names``.

    Parameters
    ----------
    raw : ndarray
        Stored classes.
    meanings : mapping of int to str
        Class → name.
    names : sequence of str
        :data:`cryotile.points.MODES` or :data:`cryotile.points.SURFACE_TYPES`.

    Returns
    -------
    ndarray of int8, shape of ``raw``
        Positions; a class without a meaning gives that of ``"unknown"``, or −1 if there is no such name.
    """
    default = names.index("unknown") if "unknown" in names else -1
    positions = np.full(raw.shape, default, dtype=np.int8)
    for value, name in meanings.items():
        positions[raw == value] = names.index(name)
    return positions


def instants(
    source: Source, name: str, shape: Shape, default: str | None
) -> NDArray[np.datetime64]:
    """Return the instants in the variable ``name``, in the unit that the file states.

    Parameters
    ----------
    source : Source
        The granule.
    name : str
        The variable.
    shape : tuple of int
        Its required shape.
    default : str or None
        Its unit where the file does not state one, such as ``"seconds since 2000-01-01"``; None: it must state it.

    Returns
    -------
    ndarray of datetime64[ms]
        UTC; NaT where missing.

    Raises
    ------
    GranuleError
        The variable is missing, its calendar is not that of UTC, or it has no unit.
    """
    numbers = source.values(name, shape)
    calendar = source.attribute("calendar", of=name)
    if not has_utc_calendar(calendar):
        raise source.lacks(f"calendar of UTC (it is {calendar!r})")
    stated = str(source.attribute("units", of=name) or "").removesuffix("UTC")
    for unit in (stated, default):
        try:
            return TimeUnit.parse(unit or "").to_utc(numbers)
        except ValueError:
            continue
    raise source.lacks(f"unit of its variable {name}, such as 'seconds since 2000-01-01',")


@dataclass(frozen=True, eq=False)
class Passes:
    """Passes and directions of records, and how they are known.

    Attributes
    ----------
    pass_id : ndarray of int64, shape (records,)
        See :func:`cryotile.points.pass_id`.
    ascending : BooleanArray, shape (records,)
        Whether the satellite flies north; NA where unknown.
    notes : tuple of str
        What was inferred.
    """

    pass_id: NDArray[np.int64]
    ascending: pd.arrays.BooleanArray
    notes: tuple[str, ...]


def find_passes(
    platform: str,
    orbit: int | NDArray[np.int64] | None,
    stated: NDArray[np.float64] | None,
    time: NDArray[np.datetime64],
    latitude: NDArray[np.float64],
) -> Passes:
    """Return the passes of records, and infer what the granule does not state.

    Parameters
    ----------
    platform : str
        As of :func:`cryotile.points.platform_code`.
    orbit : int, ndarray of int64 of shape (records,), or None
        Orbit number of all records or of each; None: unknown, so that gaps in time divide the passes.
    stated : ndarray, shape (records,), or None
        Direction of flight as stated: positive where north, NaN where not stated; None: not stated at all.
    time : ndarray of datetime64[ms], shape (records,)
        UTC; NaT where missing.
    latitude : ndarray, shape (records,)
        Degrees; NaN where missing.

    Returns
    -------
    Passes
        Of each record.
    """
    notes: tuple[str, ...] = ()
    if orbit is None:
        orbit, ascending = infer_passes(np.zeros(time.shape, np.int64), time, latitude)
        notes = (NOTE,)
    orbits = np.broadcast_to(orbit, time.shape)
    north = np.zeros(time.shape, bool) if stated is None else stated > 0.0
    known = np.zeros(time.shape, bool) if stated is None else ~np.isnan(stated)
    if known.all():
        ascending = pd.array(north, dtype="boolean")
    else:
        ascending = infer_directions(orbits, time, latitude)
        ascending[known] = north[known]
        notes = notes or (DIRECTION_NOTE,)
    north = ascending.to_numpy(dtype=bool, na_value=False)
    return Passes(pass_ids(platform, orbits, north), ascending, notes)


def pass_ids(
    platform: str, orbit: int | NDArray[np.int64], ascending: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the pass of each record; see :func:`cryotile.points.pass_id`."""
    ids: NDArray[np.int64] = pass_id(platform, 0, ascending=False) + 2 * orbit + ascending
    return ids
