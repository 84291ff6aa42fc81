"""Masks: the posts inside the polygons of a vector file, or where a raster is not 0."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
from pyproj.exceptions import CRSError

from cryotile.errors import InvalidValue, MissingDependency
from cryotile.geo.grid import Grid, Tile, within

if TYPE_CHECKING:
    from rasterio import Affine

__all__ = ["Mask"]

_REMEDY = "give a GeoPackage, shapefile, GeoJSON or GeoParquet file with polygons, or a GeoTIFF that is 0 outside"

# First bytes of SQLite (GeoPackage), shapefile, zip archive and FlatGeobuf; JSON begins with a brace.
_VECTOR = (b"SQLite format 3", b"\x00\x00\x27\x0a", b"PK\x03\x04", b"fgb", b"{")
_PARQUET = b"PAR1"

_POLYGON, _FIRST_COLLECTION = 3, 4
"""Type numbers of shapely; those from 4 on are collections."""

DENSITY = 10
"""Vertices per posting along the edge of a polygon that is transformed: a straight edge becomes a curve."""

MAX_VERTICES = 2_000_000
"""Vertices of all polygons together, above which edges get fewer per posting."""

METRES_PER_DEGREE = 111_000.0

_Ring = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mask:
    """The posts of a grid where a map is wanted.

    Attributes
    ----------
    source : str
        Path of the file that the mask was read from.
    grid : Grid
        The posts.
    inside : ndarray of bool, shape (ny, nx)
        Whether a post is inside the mask.
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
            A GeoPackage, shapefile, GeoJSON or GeoParquet file, of which all polygons count; or a GeoTIFF, whose first
            band counts where it is neither 0 nor "no data".  The content decides, not the suffix.
        grid : Grid
            The posts to look up.

        Returns
        -------
        Mask
            A post is inside if its own position is.

        Raises
        ------
        InvalidValue
            The file is absent or unreadable, has no CRS, or contains no post of the grid.
        MissingDependency
            pyogrio, shapely or rasterio is not installed.
        """
        if not path.is_file():
            raise InvalidValue(f"mask {path} does not exist; {_REMEDY}")
        with path.open("rb") as stream:
            magic = stream.read(16)
        try:
            if magic.startswith(_PARQUET) or magic.lstrip().startswith(_VECTOR):
                inside = _within_polygons(path, grid, parquet=magic.startswith(_PARQUET))
            else:
                inside = _not_zero(path, grid)
        except ImportError as error:
            raise MissingDependency(
                f"mask {path} needs {error.name}: pip install 'cryotile[geo]'"
            ) from error
        if not inside.any():
            raise InvalidValue(
                f"mask {path} contains none of the {inside.size} posts within {grid.bounds}; {_REMEDY}"
            )
        return cls(str(path.resolve()), grid, inside)

    @classmethod
    def load(cls, path: Path, source: str, grid: Grid) -> Mask:
        """Return the mask that a file with the content of :meth:`packed` holds."""
        with np.load(BytesIO(path.read_bytes())) as stored:
            bits = np.unpackbits(stored["inside"], count=grid.shape[0] * grid.shape[1])
        return cls(source, grid, bits.reshape(grid.shape).astype(bool))

    def packed(self) -> bytes:
        """Return the content of the file that :meth:`load` reads."""
        content = BytesIO()
        np.savez_compressed(content, inside=np.packbits(self.inside))
        return content.getvalue()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ``inside``, hexadecimal."""
        return hashlib.sha256(np.packbits(self.inside).tobytes()).hexdigest()

    @cached_property
    def extent(self) -> Grid:
        """The smallest part of the grid that contains all posts inside."""
        rows, columns = (np.flatnonzero(self.inside.any(axis=axis)) for axis in (1, 0))
        return self.grid.part(
            self.grid.rows[rows[0] : rows[-1] + 1], self.grid.columns[columns[0] : columns[-1] + 1]
        )

    def of(self, posts: Tile | Grid) -> npt.NDArray[np.bool_]:
        """Return which posts of a tile or a part of the grid are inside; ndarray of bool, shape (ny, nx)."""
        rows, columns = (
            within(posts.rows, self.grid.rows),
            within(posts.columns, self.grid.columns),
        )
        return self.inside[rows, columns]


def _not_zero(path: Path, grid: Grid) -> npt.NDArray[np.bool_]:
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.vrt import WarpedVRT

    ny, nx = grid.shape
    try:
        with rasterio.open(path) as file:
            if file.crs is None:
                raise InvalidValue(f"mask {path} has no CRS; {_REMEDY}")
            # Warped onto pixels whose centres are the posts; beyond the edge of the file there is no data.
            with WarpedVRT(
                file, crs=grid.crs, transform=_transform(grid), width=nx, height=ny, add_alpha=False
            ) as posts:
                band, known = posts.read(1), posts.read_masks(1)
    except RasterioError as error:
        raise _unreadable(path, error) from error
    # Rasters run from the north, grids from the south; NaN is not equal to itself.
    inside: npt.NDArray[np.bool_] = ((band != 0) & (known != 0) & (band == band))[::-1]
    return inside


def _within_polygons(path: Path, grid: Grid, *, parquet: bool) -> npt.NDArray[np.bool_]:
    from rasterio.features import rasterize

    layers = _parquet_layers(path) if parquet else _layers(path)
    shapes = [
        ({"type": "Polygon", "coordinates": rings}, 1)
        for crs, blobs in layers
        for rings in _projected(_polygons(path, blobs), _source_crs(path, crs), grid)
    ]
    if not shapes:
        raise InvalidValue(f"mask {path} contains no polygon; {_REMEDY}")
    burnt = rasterize(
        shapes, out_shape=grid.shape, transform=_transform(grid), fill=0, dtype="uint8"
    )
    inside: npt.NDArray[np.bool_] = burnt[::-1] == 1
    return inside


def _transform(grid: Grid) -> Affine:
    """Return the transform of pixels whose centres are the posts, from the north-west, as in rasters."""
    from rasterio import Affine

    half = grid.posting / 2
    return Affine(grid.posting, 0, grid.x[0] - half, 0, -grid.posting, grid.y[-1] + half)


def _layers(path: Path) -> list[tuple[Any, Any]]:
    """Return CRS and geometries (well-known binary) of each layer of a vector file."""
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
    from pyogrio.raw import read

    layers = []
    try:
        with warnings.catch_warnings():
            # GDAL warns of unusual file names and ids, and reads such files all the same.
            warnings.simplefilter("ignore", RuntimeWarning)
            for name, kind in pyogrio.list_layers(path):
                if kind is not None:
                    about, _, blobs, _ = read(path, layer=name, columns=[], force_2d=True)
                    layers.append((about["crs"], blobs))
    except (DataLayerError, DataSourceError, FeatureError, GeometryError) as error:
        raise _unreadable(path, error) from error
    return layers


def _parquet_layers(path: Path) -> list[tuple[Any, Any]]:
    """Return the same of a GeoParquet file, for which many builds of GDAL have no driver."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = json.loads((pq.read_schema(path).metadata or {}).get(b"geo", b"{}"))
        name = about.get("primary_column")
        if name is None:
            raise InvalidValue(f"mask {path} is Parquet without GeoParquet metadata; {_REMEDY}")
        column = about["columns"][name]
        if column["encoding"] != "WKB":
            raise InvalidValue(
                f"mask {path} has geometries encoded as {column['encoding']}; write them as WKB"
            )
        # By the specification, a file that names no CRS is in longitude and latitude; null means unknown.
        blobs = pq.read_table(path, columns=[name])[name].to_numpy()
        return [(column.get("crs", "OGC:CRS84"), blobs)]
    except (pa.ArrowException, OSError, KeyError, json.JSONDecodeError) as error:
        raise _unreadable(path, error) from error


def _source_crs(path: Path, crs: Any) -> pyproj.CRS:
    if crs is None:
        raise InvalidValue(f"mask {path} has no CRS; {_REMEDY}")
    try:
        return pyproj.CRS.from_user_input(crs)
    except CRSError as error:
        raise _unreadable(path, error) from error


def _polygons(path: Path, blobs: Any) -> npt.NDArray[np.object_]:
    """Return the polygons of geometries and of collections of them; other geometries have no area."""
    import shapely

    try:
        parts = shapely.from_wkb(blobs)
    except shapely.errors.ShapelyError as error:
        raise _unreadable(path, error) from error
    lost = int(shapely.is_missing(parts).sum())
    if lost:
        # GDAL hands out a damaged geometry as a missing one, and a mask without it would be too small.
        raise _unreadable(path, f"{lost} of {len(parts)} geometries are missing or damaged")
    while (shapely.get_type_id(parts) >= _FIRST_COLLECTION).any():
        parts = shapely.get_parts(parts)
    polygons: npt.NDArray[np.object_] = parts[shapely.get_type_id(parts) == _POLYGON]
    return polygons


def _projected(
    polygons: npt.NDArray[np.object_], crs: pyproj.CRS, grid: Grid
) -> Iterator[list[_Ring]]:
    """Yield the rings of each polygon in the CRS of the grid, the outer ring first."""
    import shapely

    target = pyproj.CRS.from_user_input(grid.crs)
    transformer = pyproj.Transformer.from_crs(crs, target, always_xy=True)
    step = grid.posting / DENSITY / (METRES_PER_DEGREE if crs.is_geographic else 1.0)
    step = max(step, float(shapely.length(polygons).sum()) / MAX_VERTICES)
    for polygon in polygons:
        rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygon)]
        if crs.to_2d() != target:
            rings = [_transformed(_unwrapped(ring, crs), transformer, step) for ring in rings]
        if rings and len(rings[0]) >= 4:
            yield [ring for ring in rings if len(ring) >= 4]


def _unwrapped(ring: _Ring, crs: pyproj.CRS) -> _Ring:
    """Return a ring whose longitudes run on across the antimeridian.

    An edge from 170° to -170° is 20° long.  One from -180° to 180° goes round the Earth: rings that are cut at the
    antimeridian have such edges.
    """
    if not crs.is_geographic:
        return ring
    jumps = np.diff(ring[:, 0])
    turns = np.where((np.abs(jumps) > 180.0) & (np.abs(jumps) < 360.0), -np.sign(jumps), 0.0)
    return ring + np.column_stack([360.0 * np.append(0.0, np.cumsum(turns)), np.zeros(len(ring))])


def _transformed(ring: _Ring, transformer: pyproj.Transformer, step: float) -> _Ring:
    """Return a ring in another CRS, with a vertex every ``step`` (units of its own CRS) or closer."""
    edges = np.hypot(*np.diff(ring, axis=0).T)
    pieces = np.maximum(np.ceil(edges / step), 1.0).astype(np.int64)
    first = np.cumsum(pieces) - pieces
    along = np.arange(pieces.sum()) - np.repeat(first, pieces)
    at = np.append(
        np.repeat(np.arange(len(edges)), pieces) + along / np.repeat(pieces, pieces), len(edges)
    )
    x, y = (np.interp(at, np.arange(len(ring)), column) for column in ring.T)
    moved: _Ring = np.column_stack(transformer.transform(x, y, errcheck=False))
    # To a tenth of a millimetre, so that both sides of a cut along the antimeridian are one line.
    return moved[np.isfinite(moved).all(axis=1)].round(4)


def _unreadable(path: Path, error: Exception | str) -> InvalidValue:
    reason = " ".join(str(error).split())
    return InvalidValue(f"mask {path} cannot be read ({reason}); {_REMEDY}")
