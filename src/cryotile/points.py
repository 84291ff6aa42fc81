"""What a point is: its columns, their dtypes and units, and the granule it comes from.

A point is one elevation measurement.  Readers hand out points with ``longitude, latitude``; after projection they
carry ``x, y`` instead and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = [
    "CATEGORIES",
    "CORE_COLUMNS",
    "MODES",
    "PLATFORM_CODES",
    "SURFACE_TYPES",
    "Batch",
    "Bounds",
    "Granule",
    "InPieces",
    "empty_points",
    "pass_id",
]

Bounds = tuple[float, float, float, float]
"""``(x_min, y_min, x_max, y_max)``, metres."""

MODES = ("lrm", "sar", "sarin_poca", "sarin_swath", "laser")
"""Measurement modes; all but ``laser`` are radar."""

SURFACE_TYPES = ("ocean", "grounded_ice", "floating_ice", "ice_free_land", "lake", "unknown")
"""Surface classes that readers map their product's classes to."""

PLATFORM_CODES: Mapping[str, int] = {
    "cryosat2": 1,
    "icesat2": 2,
    "icesat": 3,
    "envisat": 4,
    "ers1": 5,
    "ers2": 6,
    "sentinel3a": 7,
    "sentinel3b": 8,
}
"""The high word of a pass id.  Numbers are stored in point DBs: append, never renumber."""

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "platform": tuple(PLATFORM_CODES),
    "mode": MODES,
    "surface_type": SURFACE_TYPES,
}
"""What the columns of text can hold, in the order of their categories: append, never reorder."""

CORE_COLUMNS: Mapping[str, str] = {
    "x": "float64",
    "y": "float64",
    "time": "datetime64[ms]",
    "elevation": "float64",
    "uncertainty": "float64",
    "pass_id": "int64",
    "ascending": "boolean",
    "platform": "category",
    "mode": "category",
    "surface_type": "category",
}
"""Columns of projected points in memory and their pandas dtypes.

``x, y`` are projected metres; ``time`` is UTC without a time zone; ``elevation`` is metres above the WGS84 ellipsoid;
``uncertainty`` is one standard deviation in metres, NaN where the product gives none; ``ascending`` is NA where
unknown.
"""


def pass_id(platform: str, orbit: int, ascending: bool) -> int:
    """Number of one satellite overflight: platform code · 2³² + 2 · orbit + ascending.

    Never the granule: one pass is split over granules of several modes, and one granule can hold two passes.

    Parameters
    ----------
    platform : str
        A key of :data:`PLATFORM_CODES`.
    orbit : int
        Absolute orbit number, 0 ≤ orbit < 2³¹.
    ascending : bool
        Whether the satellite flies north.

    Returns
    -------
    int
        Positive, below 2⁶³.
    """
    return (PLATFORM_CODES[platform] << 32) + 2 * int(orbit) + bool(ascending)


def empty_points(*, projected: bool) -> pd.DataFrame:
    """Return no points, with all core columns in their dtypes.

    Parameters
    ----------
    projected : bool
        ``x, y`` in place of ``longitude, latitude``.

    Returns
    -------
    DataFrame, shape (0, 10)
        No rows.
    """
    names = {} if projected else {"x": "longitude", "y": "latitude"}
    return pd.DataFrame({names.get(n, n): pd.Series([], dtype=d) for n, d in CORE_COLUMNS.items()})


@dataclass(frozen=True, eq=False)
class Granule:
    """One input file as the agency delivers it, read: its identity, its valid points, and what was dropped.

    Attributes
    ----------
    id : str
        Product, zone, sensing start and orbit, without baseline and version: two deliveries of the same measurements
        share it.
    product : str
        Name of the product, e.g. ``"cryotempo_land_ice"``.
    baseline : str
        Processing baseline or release; orders deliveries of one granule together with ``version``.
    version : int
        Version within the baseline.
    name : str
        File name, without directory.
    checksum : str
        SHA-256 of the file, hexadecimal.
    record_count : int
        Points in the file before any was dropped.
    dropped : mapping of str to int
        Reason → number of points dropped for it; each dropped point counts under its first reason only, so that
        ``len(points) + sum(dropped.values()) == record_count``.
    points : DataFrame
        The valid points, columns as :data:`CORE_COLUMNS` (with ``longitude, latitude`` in degrees in place of ``x, y``
        until projected), then extra columns asked for, float64.
    notes : tuple of str
        What a user should know, e.g. that passes were inferred.
    """

    id: str
    product: str
    baseline: str
    version: int
    name: str
    checksum: str
    record_count: int
    dropped: Mapping[str, int]
    points: pd.DataFrame
    notes: tuple[str, ...] = ()


_NO_POINTS = pd.DataFrame()


@dataclass(frozen=True, eq=False)
class Batch:
    """Granules, and their points as one DataFrame: a granule has too few to be worth a step of its own.

    Attributes
    ----------
    granules : tuple of Granule
        In the order of their points, which are not theirs any more but the batch's.
    points : DataFrame
        Of all granules, one granule after the other.
    sizes : ndarray of int64, shape (granules,)
        How many points each has.
    """

    granules: tuple[Granule, ...]
    points: pd.DataFrame
    sizes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, granules: Sequence[Granule]) -> Self:
        """Take granules together; columns that some lack are NaN there."""
        sizes = np.array([len(granule.points) for granule in granules], np.int64)
        frames = [granule.points for granule in granules if len(granule.points)]
        if not frames:
            frames = [granule.points for granule in granules[:1]] or [_NO_POINTS]
        points = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
        return cls(tuple(replace(g, points=_NO_POINTS) for g in granules), points, sizes)

    @property
    def owners(self) -> npt.NDArray[np.intp]:
        """Position of the granule of each point, shape (points,)."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def keep(self, chosen: npt.NDArray[np.bool_], reason: str) -> Self:
        """Drop points, and count them in their granules.

        Parameters
        ----------
        chosen : ndarray of bool, shape (points,)
            Which points stay.
        reason : str
            What the others are counted under.

        Returns
        -------
        Batch
            Itself where all stay.
        """
        if chosen.all():
            return self
        sizes = np.bincount(self.owners[chosen], minlength=len(self.sizes))
        granules = tuple(
            replace(granule, dropped={**granule.dropped, reason: count}) if count else granule
            for granule, count in zip(self.granules, (self.sizes - sizes).tolist(), strict=True)
        )
        return replace(
            self,
            granules=granules,
            points=self.points[chosen].reset_index(drop=True),
            sizes=sizes.astype(np.int64),
        )

    def split(self) -> list[Granule]:
        """Return the granules, each with its points."""
        ends = np.cumsum(self.sizes).tolist()
        return [
            replace(granule, points=self.points.iloc[end - size : end].reset_index(drop=True))
            for granule, size, end in zip(self.granules, self.sizes.tolist(), ends, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class InPieces:
    """A granule with more points than memory holds.

    Attributes
    ----------
    granule : Granule
        What it is; its counts and points are those of its pieces.
    batches : callable
        Returns its pieces, one after the other, each a batch of this granule alone; called again where all of them are
        needed once more.
    """

    granule: Granule
    batches: Callable[[], Iterable[Batch]]
