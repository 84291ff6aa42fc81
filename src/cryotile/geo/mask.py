"""Where a map is wanted: the posts inside the polygons of a GeoPackage, or where a GeoTIFF is not 0."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cryotile.errors import InvalidValue, MissingDependency
from cryotile.geo.grid import Grid, Tile

if TYPE_CHECKING:
    from rasterio import Affine

__all__ = ["Mask"]

_REMEDY = "give a GeoPackage (.gpkg) with polygons, or a GeoTIFF that is 0 where no map is wanted"
_POLYGON, _MULTI_POLYGON, _COLLECTION = 3, 6, 7


@dataclass(frozen=True, eq=False)
class Mask:
    """The posts of a grid that are wanted.

    Attributes
    ----------
    source : str
        The file that says so.
    grid : Grid
        The posts.
    inside : ndarray of bool, shape (ny, nx)
        Whether a post is wanted.
    """

    source: str
    grid: Grid
    inside: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, path: Path, grid: Grid) -> Mask:
        """Read a mask from a file in any CRS.

        Parameters
        ----------
        path : Path
            A GeoPackage, all of whose polygons count, or a GeoTIFF, whose first band does: not 0 and not "no data".
        grid : Grid
            Its posts are looked up, each for itself.

        Raises
        ------
        InvalidValue
            It cannot be read, or holds no post of the grid.
        MissingDependency
            Rasterio is not installed.
        """
        if not path.is_file():
            raise InvalidValue(f"mask {path} does not exist; {_REMEDY}")
        # A GeoPackage is an SQLite database, whatever its name ends in.
        with path.open("rb") as stream:
            vector = stream.read(15) == b"SQLite format 3"
        inside = _within_polygons(path, grid) if vector else _not_zero(path, grid)
        if not inside.any():
            raise InvalidValue(
                f"mask {path} holds none of the {inside.size} posts within {grid.bounds}; {_REMEDY}"
            )
        return cls(str(path.resolve()), grid, inside)

    @classmethod
    def load(cls, path: Path, source: str, grid: Grid) -> Mask:
        """Read what :meth:`packed` returned and was written to a file."""
        with np.load(BytesIO(path.read_bytes())) as stored:
            bits = np.unpackbits(stored["inside"], count=grid.shape[0] * grid.shape[1])
        return cls(source, grid, bits.reshape(grid.shape).astype(bool))

    def packed(self) -> bytes:
        """Return the content of a file that :meth:`load` reads."""
        content = BytesIO()
        np.savez_compressed(content, inside=np.packbits(self.inside))
        return content.getvalue()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the posts that are wanted, hexadecimal."""
        return hashlib.sha256(np.packbits(self.inside).tobytes()).hexdigest()

    def of(self, tile: Tile) -> npt.NDArray[np.bool_]:
        """Return which posts of a tile of the grid are wanted; ndarray of bool, the tile's shape."""
        row, column = self.grid.rows.start, self.grid.columns.start
        return self.inside[
            tile.rows.start - row : tile.rows.stop - row,
            tile.columns.start - column : tile.columns.stop - column,
        ]


def _not_zero(path: Path, grid: Grid) -> npt.NDArray[np.bool_]:
    rasterio = _rasterio(path)
    from rasterio.errors import RasterioError
    from rasterio.vrt import WarpedVRT

    ny, nx = grid.shape
    try:
        with rasterio.open(path) as file:
            if file.crs is None:
                raise InvalidValue(f"mask {path} has no CRS; {_REMEDY}")
            # Warped onto pixels whose centres are the posts; outside of the file there is no data.
            with WarpedVRT(
                file, crs=grid.crs, transform=_transform(grid), width=nx, height=ny, add_alpha=False
            ) as posts:
                band, known = posts.read(1), posts.read_masks(1)
    except RasterioError as error:
        raise InvalidValue(f"mask {path} cannot be read ({_one_line(error)}); {_REMEDY}") from error
    # Rasters run from the north, grids from the south; NaN is not equal to itself.
    inside: npt.NDArray[np.bool_] = ((band != 0) & (known != 0) & (band == band))[::-1]
    return inside


def _within_polygons(path: Path, grid: Grid) -> npt.NDArray[np.bool_]:
    _rasterio(path)
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom

    try:
        shapes = [(transform_geom(crs, grid.crs, polygon), 1) for crs, polygon in _polygons(path)]
    except (sqlite3.DatabaseError, struct.error, IndexError) as error:
        raise InvalidValue(f"mask {path} cannot be read ({_one_line(error)}); {_REMEDY}") from error
    if not shapes:
        raise InvalidValue(f"mask {path} holds no polygon; {_REMEDY}")
    burnt = rasterize(
        shapes, out_shape=grid.shape, transform=_transform(grid), fill=0, dtype="uint8"
    )
    inside: npt.NDArray[np.bool_] = burnt[::-1] == 1
    return inside


def _transform(grid: Grid) -> Affine:
    """Pixels whose centres are the posts, from the north-west, as rasters are."""
    from rasterio import Affine

    half = grid.posting / 2
    return Affine(grid.posting, 0, grid.x[0] - half, 0, -grid.posting, grid.y[-1] + half)


def _rasterio(path: Path) -> Any:
    try:
        import rasterio
    except ImportError as error:
        raise MissingDependency(
            f"mask {path} needs rasterio to be read: pip install 'cryotile[geotiff]'"
        ) from error
    return rasterio


def _polygons(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """CRS (WKT) and GeoJSON geometry of each polygon in a GeoPackage (OGC 12-128r15)."""
    # Read-only, or SQLite might leave files of its own beside the user's.
    file = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        layers = file.execute(
            "SELECT g.table_name, g.column_name, s.definition FROM gpkg_geometry_columns g"
            " JOIN gpkg_spatial_ref_sys s ON s.srs_id = g.srs_id"
        ).fetchall()
        for table, column, crs in layers:
            name, geometry = (text.replace('"', '""') for text in (table, column))
            for (blob,) in file.execute(f'SELECT "{geometry}" FROM "{name}"'):
                if blob is not None:
                    yield from ((crs, polygon) for polygon in _Geometry(blob).polygons())
    finally:
        file.close()


class _Geometry:
    """A geometry of a GeoPackage, read from front to end: a header, then well-known binary (ISO 13249-3)."""

    _ENVELOPES = (0, 32, 48, 48, 64)

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        # Magic, version, flags and CRS take 8 bytes; the flags say how long the envelope behind them is.
        self.at = 8 + self._ENVELOPES[blob[3] >> 1 & 7]

    def polygons(self) -> Iterator[dict[str, Any]]:
        """Yield the polygons of the next geometry; others hold no area and are passed over."""
        order = "<" if self.blob[self.at] else ">"
        self.at += 1
        kind, parts = self._numbers(order, "II")
        # Thousands say which of Z and M each point has besides x and y.
        dimensions = (2, 3, 3, 4)[kind // 1000]
        if kind % 1000 == _POLYGON:
            rings = [self._ring(order, dimensions) for _ in range(parts)]
            yield {"type": "Polygon", "coordinates": rings}
        elif kind % 1000 in (_MULTI_POLYGON, _COLLECTION):
            for _ in range(parts):
                yield from self.polygons()

    def _ring(self, order: str, dimensions: int) -> list[tuple[float, float]]:
        (count,) = self._numbers(order, "I")
        numbers = self._numbers(order, f"{count * dimensions}d")
        return list(zip(numbers[::dimensions], numbers[1::dimensions], strict=True))

    def _numbers(self, order: str, form: str) -> tuple[Any, ...]:
        numbers = struct.unpack_from(order + form, self.blob, self.at)
        self.at += struct.calcsize(order + form)
        return numbers


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
