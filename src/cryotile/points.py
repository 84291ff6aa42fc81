"""Points: their columns, dtypes and units, and the granules that they come from.

A point is one elevation measurement.  Readers return points with ``longitude, latitude``; projection replaces these
by ``x, y`` and changes nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from html import escape
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile.errors import InvalidValue

__all__ = [
    "CATEGORIES",
    "CORE_COLUMNS",
    "LASERS",
    "MODES",
    "MOST_PLATFORMS",
    "MOST_STATED",
    "PLATFORM_CODES",
    "SURFACE_TYPES",
    "TRACKS_PER_CYCLE",
    "Batch",
    "Bounds",
    "Granule",
    "InPieces",
    "ReprMixin",
    "empty_points",
    "index_platforms",
    "join_passes",
    "join_runs",
    "name_pass",
    "pass_id",
    "pass_keys",
    "platform_code",
    "platform_words",
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
"""Known platforms, and the upper 32 bits of their pass ids; other words: :func:`platform_code`.

Numbers are stored in point DBs: append, never renumber.
"""

LASERS = frozenset({"icesat2", "icesat"})
"""Known platforms that are lasers; the other known ones are radars, and of any other word each point's mode tells."""

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "platform": tuple(PLATFORM_CODES),
    "mode": MODES,
    "surface_type": SURFACE_TYPES,
}
"""Values of the text columns, in the order of their categories: append, never reorder.

These are all modes and surface types; a platform may be any other word, too.
"""

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
``uncertainty`` is one standard deviation in metres, NaN if the product has none; ``ascending`` is NA if unknown.
"""


MOST_PLATFORMS = 120
"""Largest number of platforms in a point DB: files number them in eight bits."""

_FIRST_FREE_CODE, _LAST_CODE = 1024, 2**21
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_WORDS = {code: word for word, code in PLATFORM_CODES.items()}
"""Code → word, of all platforms that this process has met."""


def platform_code(word: str) -> int:
    """Return the number of a platform: that of a known one, otherwise one that follows from its letters.

    A number that follows from the word alone needs no list, so that files, point DBs and their writers agree on it.

    Parameters
    ----------
    word : str
        Lower-case letters, digits, ``_`` and ``-``, at most 32, of which the first is a letter.

    Returns
    -------
    int
        The upper 32 bits of its pass ids: below 1024 if it is known, else below 2²¹, so that a pass id is exact as a
        floating-point number, too.

    Raises
    ------
    InvalidValue
        It is not such a word, or another spelling of a known one.
    """
    if word in PLATFORM_CODES:
        return PLATFORM_CODES[word]
    plain = re.sub(r"[\s_-]", "", word).lower()
    if plain in PLATFORM_CODES:
        raise InvalidValue(f"platform {word!r} has another spelling in cryotile; write {plain!r}")
    if not _WORD.fullmatch(word):
        raise InvalidValue(
            f"platform {word[:40]!r} must be a lower-case word of up to 32 letters, digits, _, -; write e.g. 'saral'"
        )
    digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
    code = _FIRST_FREE_CODE + int.from_bytes(digest, "big") % (_LAST_CODE - _FIRST_FREE_CODE)
    if _WORDS.setdefault(code, word) != word:
        raise InvalidValue(
            f"platforms {word!r} and {_WORDS[code]!r} have the same number in pass ids; spell one of them differently"
        )
    return code


def platform_words(codes: npt.NDArray[np.integer]) -> pd.Categorical[Any]:
    """Return the words of platforms, whose numbers this process has from :func:`platform_code`.

    Parameters
    ----------
    codes : ndarray of int, shape (points,)
        Numbers of platforms.

    Returns
    -------
    Categorical, shape (points,)
        Its categories are the known platforms, then the others that are there, by their numbers.
    """
    positions, words = index_platforms(codes)
    return pd.Categorical.from_codes(positions, dtype=pd.CategoricalDtype(words))


def index_platforms(codes: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int8], list[str]]:
    """Return the position of each platform among words; and the words, the known ones first."""
    known = list(PLATFORM_CODES.values())
    if not len(codes) or codes.max() <= len(known):
        return (codes - 1).astype(np.int8), list(PLATFORM_CODES)
    found = np.unique(codes)
    numbers = np.concatenate([known, found[found >= _FIRST_FREE_CODE]])
    if len(numbers) > MOST_PLATFORMS:
        raise InvalidValue(
            f"points have more than {MOST_PLATFORMS} platforms; give the flights of a fleet one word, e.g. 'airborne'"
        )
    words = [_WORDS[int(number)] for number in numbers]
    return np.searchsorted(numbers, codes).astype(np.int8), words


def pass_id(platform: str, orbit: int, ascending: bool) -> int:
    """Return the number of a satellite overflight: platform code · 2³² + 2 · orbit + ascending.

    The granule does not enter: one pass may be split over granules of several modes, and one granule may hold two
    passes.
    The direction enters only if the product states it; :func:`join_passes` tells which ids belong to one pass.

    Parameters
    ----------
    platform : str
        As of :func:`platform_code`.
    orbit : int
        Absolute orbit number, 0 ≤ orbit < 2³¹.
    ascending : bool
        Whether the satellite flies north.

    Returns
    -------
    int
        Positive, below 2⁵³.
    """
    return (platform_code(platform) << 32) + 2 * int(orbit) + bool(ascending)


LONGEST_GAP = 600_000
"""Milliseconds; a longer gap between points of an orbit divides two passes: a satellite crosses Greenland in less."""

TRACKS_PER_CYCLE = 1387
"""Reference ground tracks that ICESat-2 flies in the 91 days of a cycle; orbits count them from cycle 1."""

MOST_STATED = 1 << 20
"""Orbit numbers from here on are starts of passes in units of 600 s since 1970, so from 1989 on; real ones are less."""


def name_pass(number: int) -> str:
    """Return a pass id in words: platform, and orbit, or cycle and track, or the time at which an inferred pass starts.

    Parameters
    ----------
    number : int
        As of :func:`pass_id`; another number, below 2³², is returned as text.
    """
    code, orbit = number >> 32, (number & 0xFFFFFFFF) >> 1
    if number < 2**32:
        return str(number)
    platform = _WORDS.get(code, f"platform {code}")
    if orbit >= MOST_STATED:
        return f"{platform} from {pd.Timestamp(orbit * 600, unit='s'):%Y-%m-%d %H:%M}"
    if platform == "icesat2" and orbit > 0:
        cycle, track = divmod(orbit - 1, TRACKS_PER_CYCLE)
        return f"{platform} cycle {cycle + 1} track {track + 1}"
    return f"{platform} orbit {orbit}"


def join_passes(points: pd.DataFrame) -> npt.NDArray[Any]:
    """Return the pass of each point: the same number for the same platform and orbit, without a gap of 600 s.

    A pass id is what one file tells of a pass.  A file may not know all of a pass that is cut into several files, and
    an orbit number may repeat (a reference ground track), so that only all points together tell the passes.  The
    direction does not matter, nor does an orbit number that a reader inferred from the start of a pass.

    Parameters
    ----------
    points : DataFrame
        With ``pass_id``, as of :func:`pass_id` (others, below 2³², are returned as they are), and ``time``.

    Returns
    -------
    ndarray, shape (points,)
        The id of the first part of each pass; of the later passes of an orbit that repeats, an id by their start.
    """
    ids = points["pass_id"].to_numpy()
    if ids.dtype.kind != "i" or not ids.size or ids.min() < 2**32:
        return ids
    timed = points["time"].notna().to_numpy()
    if not timed.all():
        # A point without a time belongs to no pass and divides none.
        joined = ids.copy()
        joined[timed] = join_passes(points[timed])
        return joined
    instants = pd.DatetimeIndex(points["time"]).as_unit("ms").asi8
    # Points mostly come pass by pass: runs of points without a gap are few.
    breaks = (ids[1:] != ids[:-1]) | (np.abs(np.diff(instants)) >= LONGEST_GAP)
    heads = np.flatnonzero(np.concatenate([[True], breaks]))
    first, last = (reach.reduceat(instants, heads) for reach in (np.minimum, np.maximum))
    return np.repeat(join_runs(ids[heads], first, last), np.diff(heads, append=ids.size))


def join_runs(
    names: npt.NDArray[np.int64], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the pass of runs of points, each of one pass id and without a gap, as :func:`join_passes` does.

    Parameters
    ----------
    names : ndarray, shape (runs,)
        Pass ids, as of :func:`pass_id`.
    first, last : ndarray, shape (runs,)
        Milliseconds since 1970.
    """
    orbit = (names >> 1) & (2**31 - 1)
    keys = (names >> 32 << 31) + np.where(orbit < MOST_STATED, orbit + 1, 0)
    order = np.lexsort((names, first, keys))
    names, keys, first, last = names[order], keys[order], first[order], last[order]
    other = np.concatenate([[True], keys[1:] != keys[:-1]])
    # The latest end so far among runs of one key: complex numbers are compared by their real parts first.
    end = np.maximum.accumulate(np.cumsum(other) + 1j * last).imag
    begins = other | (first - np.concatenate([[0.0], end[:-1]]) >= LONGEST_GAP)
    distinct = dict[int, None]()
    for name, start in zip(names[begins].tolist(), first[begins].tolist(), strict=True):
        if name in distinct:
            name = (name >> 32 << 32) + 2 * (start // LONGEST_GAP % 2**30)
            while name in distinct:
                name += 2
        distinct[name] = None
    joined = np.empty_like(names)
    joined[order] = np.array(list(distinct), np.int64)[np.cumsum(begins) - 1]
    return joined


def pass_keys(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the same number for pass ids that may be of one pass, as of :func:`pass_id`; they may have no time.

    An orbit number that a reader inferred depends on the points of its file, so it may stand for any pass of its
    platform.
    """
    platforms, orbits = ids >> 32, (ids >> 1) & (2**31 - 1)
    loose = np.isin(platforms, platforms[orbits >= MOST_STATED])
    return np.where(loose, -1 - platforms, ids >> 1)


def empty_points(*, projected: bool) -> pd.DataFrame:
    """Return an empty DataFrame with all core columns in their dtypes.

    Parameters
    ----------
    projected : bool
        With ``x, y`` in place of ``longitude, latitude``.

    Returns
    -------
    DataFrame, shape (0, 10)
        No rows.
    """
    names = {} if projected else {"x": "longitude", "y": "latitude"}
    return pd.DataFrame({names.get(n, n): pd.Series([], dtype=d) for n, d in CORE_COLUMNS.items()})


class ReprMixin:
    """Readable ``repr`` of a few lines, and the same as an HTML table for notebooks.

    The lines are the fields of a dataclass, unless a class has its own ``_facts``.
    """

    def _facts(self) -> Mapping[str, str]:
        """Return name → value of each line."""
        return {f.name: _shown(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    def __repr__(self) -> str:
        facts = self._facts()
        width = max(map(len, facts))
        lines = (f"  {name:{width}}  {value}" for name, value in facts.items())
        return "\n".join([f"<cryotile.{type(self).__name__}>", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align: left">{escape(name)}</th>'
            f'<td style="text-align: left">{escape(value)}</td></tr>'
            for name, value in self._facts().items()
        )
        return f"<table><caption>cryotile.{type(self).__name__}</caption>{rows}</table>"


_ITEMS_SHOWN = 3


def _shown(value: Any) -> str:
    """Return a number with thousands separators; of a collection, its length and first items."""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return value
    items = [str(item) for item in value]
    if not items:
        return "none"
    more = ", …" if len(items) > _ITEMS_SHOWN else ""
    return f"{len(items):,} ({', '.join(items[:_ITEMS_SHOWN])}{more})"


@dataclass(frozen=True, eq=False, repr=False)
class Granule(ReprMixin):
    """One input file as the agency delivers it: its identity, its valid points, and the counts of dropped points.

    Attributes
    ----------
    id : str
        Product, zone, sensing start and orbit, without baseline and version, so that two deliveries of the same
        measurements have the same id.
    product : str
        Name of the product, e.g. ``"cryotempo_land_ice"``.
    baseline : str
        Processing baseline or release; deliveries of one granule are ordered by baseline, then version.
    version : int
        Version within the baseline.
    name : str
        File name, without directory.
    checksum : str
        SHA-256 of the file, hexadecimal.
    record_count : int
        Points in the file before any were dropped.
    dropped : mapping of str to int
        Reason → number of points that were dropped for it; each dropped point counts under its first reason only, so
        that ``len(points) + sum(dropped.values()) == record_count``.
    points : DataFrame
        The valid points, columns as :data:`CORE_COLUMNS` (with ``longitude, latitude`` in degrees in place of ``x, y``
        until projected), then the requested extra columns, float64.
    notes : tuple of str
        Information for the user, e.g. that passes were inferred.
    simulated : bool
        Whether the file says that its points are simulated.
    extent : ndarray
        Longitude and latitude (x and y once projected) and time in milliseconds since 1970 of the outermost of all
        records, dropped ones included; one row each.  Another delivery of a granule replaces it only if it reaches as
        far.  Empty: the points tell the extent.
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
    simulated: bool = False
    extent: npt.NDArray[np.float64] = field(default_factory=partial(np.empty, (0, 3)))

    def _facts(self) -> Mapping[str, str]:
        points = self.points
        facts = {
            "id": self.id,
            "name": self.name,
            "product": f"{self.product}, baseline {self.baseline}, version {self.version}",
            "points": f"{len(points):,} of {self.record_count:,} in the file",
            "dropped": ", ".join(f"{reason} {n:,}" for reason, n in self.dropped.items()) or "none",
        }
        for name in ("x", "y", "longitude", "latitude", "time"):
            if name in points and len(points):
                facts[name] = f"{points[name].min()} to {points[name].max()}"
        facts |= {"notes": "; ".join(self.notes)} if self.notes else {}
        return facts | ({"simulated": "yes"} if self.simulated else {})


_NO_POINTS = pd.DataFrame()


@dataclass(frozen=True, eq=False)
class Batch:
    """Granules, and their points as one DataFrame: one granule has too few points for efficient steps.

    Attributes
    ----------
    granules : tuple of Granule
        In the order of their points; their own ``points`` are empty.
    points : DataFrame
        Of all granules, one granule after the other.
    sizes : ndarray of int64
        Number of points of each granule; shape (granules,).
    """

    granules: tuple[Granule, ...]
    points: pd.DataFrame
    sizes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, granules: Sequence[Granule]) -> Self:
        """Combine granules; columns that a granule lacks are NaN in its points."""
        sizes = np.array([len(granule.points) for granule in granules], np.int64)
        frames = [granule.points for granule in granules if len(granule.points)]
        if not frames:
            frames = [granule.points for granule in granules[:1]] or [_NO_POINTS]
        points = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
        return cls(tuple(replace(g, points=_NO_POINTS) for g in granules), points, sizes)

    @property
    def owners(self) -> npt.NDArray[np.intp]:
        """Position of the granule of each point, ndarray of shape (points,)."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def keep(self, chosen: npt.NDArray[np.bool_], reason: str) -> Self:
        """Drop points, and count them as dropped in their granules.

        Parameters
        ----------
        chosen : ndarray of bool, shape (points,)
            True for the points to keep.
        reason : str
            Reason under which the others are counted.

        Returns
        -------
        Batch
            Itself if all points are kept.
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
    """A granule that has more points than fit in memory.

    Attributes
    ----------
    granule : Granule
        Its identity; counts and points are those of its pieces.
    batches : callable
        Returns an iterator over its pieces, each a batch of this granule alone; called again if all pieces are needed
        a second time.
    """

    granule: Granule
    batches: Callable[[], Iterable[Batch]]
