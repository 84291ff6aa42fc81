"""The grid of posts, and the tiles in which its posts are fitted.

Pure geometry.  Post number i lies at i · posting from the origin of the CRS.  Its position is always computed from the
integer, so that every tile, grid and process has the same floats for the same post.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryotile.errors import InvalidValue
from cryotile.points import Bounds

__all__ = ["MAX_POSTS", "MAX_TILES", "Grid", "Tile", "check_bounds", "shared", "within"]

MAX_POSTS = 1_000_000_000
"""Limit that catches typing errors: Antarctica at 250 m has 0.4 billion posts."""

MAX_TILES = 1_000_000
"""A run of more tiles spends its time on opening files."""

# Tolerance of bounds, in units of the posting: 0.3 / 0.1 < 3, but bounds of 0.3 include the post at 0.3.
_ROUNDING = 1e-9

_Coordinates = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of posts, fitted as one unit and stored as one file.

    Attributes
    ----------
    ix, iy : int
        Position among the tiles of its size, counted from the origin of the CRS.
    columns, rows : range
        Numbers of its posts along x and y: post i lies at i · posting.
    posting : float
        Distance between neighbouring posts, metres.
    """

    ix: int
    iy: int
    columns: range
    rows: range
    posting: float

    @property
    def name(self) -> str:
        """Name of the tile, equal in every grid and run, e.g. ``x+0012_y-0034``."""
        return f"x{self.ix:+05d}_y{self.iy:+05d}"

    @property
    def x(self) -> _Coordinates:
        """Posts' x, metres, ascending; ndarray, shape (nx,)."""
        return _positions(self.columns, self.posting)

    @property
    def y(self) -> _Coordinates:
        """Posts' y, metres, ascending; ndarray, shape (ny,)."""
        return _positions(self.rows, self.posting)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of posts, (ny, nx)."""
        return len(self.rows), len(self.columns)

    @property
    def bounds(self) -> Bounds:
        """Bounds from the first to the last post, metres."""
        return self.window(0.0)

    def window(self, radius: float) -> Bounds:
        """Return the bounds of the points that the tile uses: its own with a margin of the search radius on every side.

        With the margin, each post has all of its points, so a fit does not depend on how the grid is tiled.

        Parameters
        ----------
        radius : float
            Search radius, metres.

        Returns
        -------
        Bounds
            Metres.
        """
        x, y = self.columns, self.rows
        return (
            x[0] * self.posting - radius,
            y[0] * self.posting - radius,
            x[-1] * self.posting + radius,
            y[-1] * self.posting + radius,
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """CRS, bounds and posting of the output: posts at all multiples of the posting within the bounds.

    Parameters
    ----------
    crs : str
        Projected CRS in metres, as the point DB names it.
    bounds : Bounds
        Metres; a post on an edge is included.
    posting : float
        Distance between neighbouring posts, metres.

    Raises
    ------
    InvalidValue
        Bounds are reversed or not finite, the posting is not positive, or the grid has no post or more than
        :data:`MAX_POSTS`.
    """

    crs: str
    bounds: Bounds
    posting: float

    def __post_init__(self) -> None:
        check_bounds(self.bounds)
        _check_posting(self.posting)
        _check_count(self.bounds, self.posting)

    @classmethod
    def covering(cls, bounds: Bounds, posting: float, crs: str) -> Grid:
        """Return the grid whose outermost posts stand on or just outside ``bounds``.

        Parameters
        ----------
        bounds : Bounds
            Area to cover, metres.
        posting : float
            Distance between neighbouring posts, metres.
        crs : str
            Projected CRS in metres.

        Returns
        -------
        Grid
            Its bounds are multiples of the posting.

        Raises
        ------
        InvalidValue
            As for :class:`Grid`.
        """
        check_bounds(bounds)
        _check_posting(posting)
        low = [math.floor(edge / posting + _ROUNDING) * posting for edge in bounds[:2]]
        high = [math.ceil(edge / posting - _ROUNDING) * posting for edge in bounds[2:]]
        return cls(crs, (low[0], low[1], high[0], high[1]), posting)

    @property
    def columns(self) -> range:
        """Numbers of the posts along x."""
        return _numbers(self.bounds[0], self.bounds[2], self.posting)

    @property
    def rows(self) -> range:
        """Numbers of the posts along y."""
        return _numbers(self.bounds[1], self.bounds[3], self.posting)

    @property
    def x(self) -> _Coordinates:
        """Posts' x, metres, ascending; ndarray, shape (nx,)."""
        return _positions(self.columns, self.posting)

    @property
    def y(self) -> _Coordinates:
        """Posts' y, metres, ascending; ndarray, shape (ny,)."""
        return _positions(self.rows, self.posting)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of posts, (ny, nx)."""
        return len(self.rows), len(self.columns)

    def part(self, rows: range, columns: range) -> Grid:
        """Return the grid of some of the rows and columns of posts, by their numbers."""
        edges = (columns[0], rows[0], columns[-1], rows[-1])
        x_min, y_min, x_max, y_max = (number * self.posting for number in edges)
        return Grid(self.crs, (x_min, y_min, x_max, y_max), self.posting)

    def places(self, posts: Tile | Grid) -> tuple[slice, slice]:
        """Return the rows and columns of a tile or a part of the grid, which index an array over its posts."""
        return within(posts.rows, self.rows), within(posts.columns, self.columns)

    def tiles(self, tile_size: int) -> list[Tile]:
        """Cut the grid into tiles; each post is in exactly one.

        Tiles begin at multiples of ``tile_size`` posts from the origin of the CRS, so that overlapping grids are cut
        alike.  The outermost tiles end at the edge of the grid.

        Parameters
        ----------
        tile_size : int
            Posts along a side.

        Returns
        -------
        list of Tile
            Row by row, in ascending y, then x.

        Raises
        ------
        InvalidValue
            As for :meth:`cuts`.
        """
        across, up = self.cuts(tile_size)
        return [
            Tile(ix, iy, columns, rows, self.posting)
            for iy, rows in up.items()
            for ix, columns in across.items()
        ]

    def cuts(self, tile_size: int) -> tuple[dict[int, range], dict[int, range]]:
        """Return the numbers of the posts in each column (by ``ix``) and in each row (by ``iy``) of tiles.

        Parameters
        ----------
        tile_size : int
            Posts along a side.

        Returns
        -------
        (dict of int to range, dict of int to range)
            In ascending order.

        Raises
        ------
        InvalidValue
            The tile size is not positive, or gives more than :data:`MAX_TILES` tiles.
        """
        if tile_size < 1:
            raise InvalidValue(
                f"tile size {tile_size} is not a positive number of posts; 100 suits most runs"
            )
        across, up = _cut(self.columns, tile_size), _cut(self.rows, tile_size)
        if len(across) * len(up) > MAX_TILES:
            raise InvalidValue(
                f"tile size {tile_size} cuts the grid of {self.shape[0]} by {self.shape[1]} posts into"
                f" {len(across) * len(up)} tiles, more than {MAX_TILES}; use a larger one, 100 suits most runs"
            )
        return across, up


def shared(one: range, other: range) -> range:
    """Return the numbers that two ranges of posts share."""
    start = max(one.start, other.start)
    return range(start, max(start, min(one.stop, other.stop)))


def within(part: range, whole: range) -> slice:
    """Return the places of a range of posts in another that contains it."""
    return slice(part.start - whole.start, part.stop - whole.start)


def check_bounds(bounds: Bounds) -> None:
    """Check that bounds are finite and in order.

    Parameters
    ----------
    bounds : Bounds
        Metres.

    Raises
    ------
    InvalidValue
        There are not four, one is NaN or infinite, or a lower bound exceeds its upper one.
    """
    if np.shape(bounds) != (4,) or not all(map(math.isfinite, bounds)):
        raise InvalidValue(
            f"bounds {bounds!r} are not four finite numbers; give x_min y_min x_max y_max in metres"
        )
    x_min, y_min, x_max, y_max = bounds
    text = " ".join(f"{edge:.12g}" for edge in bounds)
    for axis, low, high in (("x", x_min, x_max), ("y", y_min, y_max)):
        if low > high:
            raise InvalidValue(
                f"bounds {text} are reversed: {axis}_min {low:.12g} exceeds {axis}_max {high:.12g};"
                " give x_min y_min x_max y_max in metres"
            )


def _check_posting(posting: float) -> None:
    if not (math.isfinite(posting) and posting > 0):
        raise InvalidValue(f"posting {posting} m is not a positive number; give metres, e.g. 1000")


def _check_count(bounds: Bounds, posting: float) -> None:
    x_min, y_min, x_max, y_max = bounds
    # In floats first: the numbers of an absurd posting are too large to count in integers.
    posts = ((x_max - x_min) / posting + 1) * ((y_max - y_min) / posting + 1)
    if posts > MAX_POSTS:
        raise InvalidValue(
            f"posting {posting:g} m makes {posts:.3g} posts within the bounds, more than {MAX_POSTS:.0e};"
            " use a larger posting or smaller bounds"
        )
    for axis, low, high in (("x", x_min, x_max), ("y", y_min, y_max)):
        if not _numbers(low, high, posting):
            raise InvalidValue(
                f"posting {posting:.12g} m has no multiple between {axis}_min {low:.12g} and {axis}_max {high:.12g},"
                " so the grid has no post; use a smaller posting or wider bounds"
            )


def _numbers(low: float, high: float, posting: float) -> range:
    return range(math.ceil(low / posting - _ROUNDING), math.floor(high / posting + _ROUNDING) + 1)


def _positions(numbers: range, posting: float) -> _Coordinates:
    return np.arange(numbers.start, numbers.stop, dtype=np.float64) * posting


def _cut(numbers: range, size: int) -> dict[int, range]:
    return {
        i: range(max(i * size, numbers.start), min((i + 1) * size, numbers.stop))
        for i in range(numbers.start // size, (numbers.stop - 1) // size + 1)
    }
