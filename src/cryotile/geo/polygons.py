"""Polygons, lines and points of vector files: read with the names of their features, moved to the CRS of a grid."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
from pyproj.exceptions import CRSError

from cryotile.errors import InvalidValue
from cryotile.geo.grid import Grid

if TYPE_CHECKING:
    from rasterio import Affine

__all__ = ["LINE", "POINT", "POLYGON", "Layer", "Ring", "VectorFile", "is_vector", "transform_of"]

# First bytes of SQLite (GeoPackage), shapefile, zip archive and FlatGeobuf; JSON begins with a brace.
_VECTOR = (b"SQLite format 3", b"\x00\x00\x27\x0a", b"PK\x03\x04", b"fgb", b"{")
_PARQUET = b"PAR1"

POINT, LINE, POLYGON = 0, 1, 3
"""Type numbers of shapely."""

_FIRST_COLLECTION = 4

DENSITY = 10
"""Vertices per posting along the edge of a polygon that is transformed: a straight edge becomes a curve."""

MAX_VERTICES = 2_000_000
"""Vertices of all polygons together, above which edges get fewer per posting."""

METRES_PER_DEGREE = 111_000.0

Ring = npt.NDArray[np.float64]


def is_vector(path: Path) -> bool:
    """Return whether a file holds features rather than a raster; its content decides, not its suffix."""
    magic = _magic(path)
    return magic.startswith(_PARQUET) or magic.lstrip().startswith(_VECTOR)


def _magic(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(16)


@dataclass(frozen=True, eq=False)
class Layer:
    """The features of one layer.

    Attributes
    ----------
    crs : pyproj.CRS
        Of the shapes.
    shapes : ndarray of object, shape (shapes,)
        Polygons, lines or points of shapely; those of geometries and of collections of them.
    features : ndarray of int, shape (shapes,)
        Number of the feature that each belongs to.
    values : ndarray, shape (features,), or None
        The wanted column.
    """

    crs: pyproj.CRS
    shapes: npt.NDArray[np.object_]
    features: npt.NDArray[np.intp]
    values: npt.NDArray[Any] | None

    def projected(self, grid: Grid) -> Iterator[tuple[int, list[Ring]]]:
        """Yield the feature and the rings of each polygon in the CRS of a grid, the outer ring first."""
        import shapely

        move = self.mover(grid.crs, grid.posting / DENSITY)
        for feature, polygon in zip(self.features, self.shapes, strict=True):
            rings = [move(shapely.get_coordinates(ring)) for ring in shapely.get_rings(polygon)]
            if rings and len(rings[0]) >= 4:
                yield int(feature), [ring for ring in rings if len(ring) >= 4]

    def mover(self, crs: str, step: float) -> Callable[[Ring], Ring]:
        """Return what moves rings, lines and points of the layer to another CRS.

        Parameters
        ----------
        crs : str
            Projected, metres.
        step : float
            Largest distance of the vertices of a moved line, metres; more where the layer has millions.
        """
        import shapely

        target = pyproj.CRS.from_user_input(crs)
        if self.crs.to_2d() == target:
            return lambda ring: ring
        step /= METRES_PER_DEGREE if self.crs.is_geographic else 1.0
        step = max(step, float(shapely.length(self.shapes).sum()) / MAX_VERTICES)
        transformer = pyproj.Transformer.from_crs(self.crs, target, always_xy=True)
        return lambda ring: _transformed(_unwrapped(ring, self.crs), transformer, step)


@dataclass(frozen=True)
class VectorFile:
    """A GeoPackage, shapefile, GeoJSON, FlatGeobuf or GeoParquet file.

    Attributes
    ----------
    path : Path
        The file.
    noun : str
        What messages call it.
    remedy : str
        What messages advise.
    """

    path: Path
    noun: str
    remedy: str

    def layers(self, column: str | None = None, kind: int = POLYGON) -> list[Layer]:
        """Return the layers that have geometries; with a column, those that have it.

        Parameters
        ----------
        column : str or None
            Name of a column to read.
        kind : int
            Which shapes are wanted: :data:`POINT`, :data:`LINE` or :data:`POLYGON`.

        Raises
        ------
        InvalidValue
            The file cannot be read, has no CRS, or has no such column.
        ImportError
            pyogrio or shapely is not installed.
        """
        found = (
            self._parquet(column) if _magic(self.path).startswith(_PARQUET) else self._ogr(column)
        )
        return [self._layer(*layer, kind) for layer in found]

    def unreadable(self, error: Exception | str) -> InvalidValue:
        """Return the error that says why the file cannot be read."""
        reason = " ".join(str(error).split())
        return InvalidValue(f"{self.noun} {self.path} cannot be read ({reason}); {self.remedy}")

    def _ogr(self, column: str | None) -> list[tuple[Any, Any, Any]]:
        """Return CRS, geometries (well-known binary) and values of each layer."""
        import pyogrio
        from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
        from pyogrio.raw import read

        layers, columns = [], []
        try:
            with warnings.catch_warnings():
                # GDAL warns of unusual file names and ids, and reads such files all the same.
                warnings.simplefilter("ignore", RuntimeWarning)
                for name, kind in pyogrio.list_layers(self.path):
                    if kind is None:
                        continue
                    fields = [str(f) for f in pyogrio.read_info(self.path, layer=name)["fields"]]
                    columns += [field for field in fields if field not in columns]
                    if column is None or column in fields:
                        wanted = [] if column is None else [column]
                        about, _, blobs, values = read(
                            self.path, layer=name, columns=wanted, force_2d=True
                        )
                        layers.append((about["crs"], blobs, values[0] if wanted else None))
        except (DataLayerError, DataSourceError, FeatureError, GeometryError) as error:
            raise self.unreadable(error) from error
        if column is not None and not layers:
            raise self._no_column(column, columns)
        return layers

    def _parquet(self, column: str | None) -> list[tuple[Any, Any, Any]]:
        """Return the same of a GeoParquet file, for which many builds of GDAL have no driver."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(self.path)
            about = json.loads((schema.metadata or {}).get(b"geo", b"{}"))
            name = about.get("primary_column")
            if name is None:
                raise InvalidValue(
                    f"{self.noun} {self.path} is Parquet without GeoParquet metadata; {self.remedy}"
                )
            geometry = about["columns"][name]
            if geometry["encoding"] != "WKB":
                raise InvalidValue(
                    f"{self.noun} {self.path} has geometries encoded as {geometry['encoding']}; write them as WKB"
                )
            if column is not None and column not in schema.names:
                raise self._no_column(column, [field for field in schema.names if field != name])
            table = pq.read_table(self.path, columns=[name] if column is None else [name, column])
        except (pa.ArrowException, OSError, KeyError, json.JSONDecodeError) as error:
            raise self.unreadable(error) from error
        values = None if column is None else table[column].to_pandas().to_numpy()
        # By the specification, a file that names no CRS is in longitude and latitude; null means unknown.
        return [(geometry.get("crs", "OGC:CRS84"), table[name].to_numpy(), values)]

    def _no_column(self, column: str, columns: list[str]) -> InvalidValue:
        remedy = f"choose one of {', '.join(columns)}" if columns else "it has none at all"
        return InvalidValue(f"{self.noun} {self.path} has no column {column!r}; {remedy}")

    def _layer(self, crs: Any, blobs: Any, values: Any, kind: int) -> Layer:
        import shapely

        try:
            parts = shapely.from_wkb(blobs)
        except shapely.errors.ShapelyError as error:
            raise self.unreadable(error) from error
        lost = int(shapely.is_missing(parts).sum())
        if lost:
            # GDAL hands out a damaged geometry as a missing one, and the area without it would be too small.
            raise self.unreadable(f"{lost} of {len(parts)} geometries are missing or damaged")
        features = np.arange(len(parts))
        while (shapely.get_type_id(parts) >= _FIRST_COLLECTION).any():
            parts, whence = shapely.get_parts(parts, return_index=True)
            features = features[whence]
        wanted = shapely.get_type_id(parts) == kind
        return Layer(self._crs(crs), parts[wanted], features[wanted], values)

    def _crs(self, crs: Any) -> pyproj.CRS:
        if crs is None:
            raise InvalidValue(f"{self.noun} {self.path} has no CRS; {self.remedy}")
        try:
            return pyproj.CRS.from_user_input(crs)
        except CRSError as error:
            raise self.unreadable(error) from error


def transform_of(grid: Grid) -> Affine:
    """Return the transform of pixels whose centres are the posts, from the north-west, as in rasters."""
    from rasterio import Affine

    half = grid.posting / 2
    return Affine(grid.posting, 0, grid.x[0] - half, 0, -grid.posting, grid.y[-1] + half)


def _unwrapped(ring: Ring, crs: pyproj.CRS) -> Ring:
    """Return a ring or line whose longitudes run on across the antimeridian.

    An edge from 170° to -170° is 20° long.  One from -180° to 180° goes round the Earth: rings that are cut at the
    antimeridian have such edges.
    """
    if not crs.is_geographic:
        return ring
    jumps = np.diff(ring[:, 0])
    turns = np.where((np.abs(jumps) > 180.0) & (np.abs(jumps) < 360.0), -np.sign(jumps), 0.0)
    return ring + np.column_stack([360.0 * np.append(0.0, np.cumsum(turns)), np.zeros(len(ring))])


def _transformed(ring: Ring, transformer: pyproj.Transformer, step: float) -> Ring:
    """Return a ring or line in another CRS, with a vertex every ``step`` (units of its own CRS) or closer."""
    edges = np.hypot(*np.diff(ring, axis=0).T)
    pieces = np.maximum(np.ceil(edges / step), 1.0).astype(np.int64)
    first = np.cumsum(pieces) - pieces
    along = np.arange(pieces.sum()) - np.repeat(first, pieces)
    at = np.append(
        np.repeat(np.arange(len(edges)), pieces) + along / np.repeat(pieces, pieces), len(edges)
    )
    x, y = (np.interp(at, np.arange(len(ring)), column) for column in ring.T)
    moved: Ring = np.column_stack(transformer.transform(x, y, errcheck=False))
    # To a tenth of a millimetre, so that both sides of a cut along the antimeridian are one line.
    return moved[np.isfinite(moved).all(axis=1)].round(4)
