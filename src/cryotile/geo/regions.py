"""Regions: labelled sets of posts over which totals are made, from the polygons of a vector file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cryotile.errors import InvalidValue, MissingDependency
from cryotile.geo.grid import Grid, Tile
from cryotile.geo.polygons import Layer, Ring, VectorFile, is_vector, transform_of
from cryotile.geo.projection import areal_scale, projected_crs

if TYPE_CHECKING:
    from cryotile.geo.mask import Mask

__all__ = ["WHOLE", "Regions"]

WHOLE = "all"
"""Name of the union of all regions."""

_REMEDY = "give a GeoPackage, shapefile, GeoJSON or GeoParquet file of polygons with a column that names them"

NUDGE = 1e-6
"""Postings by which posts are moved before they are looked up, so that one on a common edge is in one region."""

_DIGITS = {True: 7, False: 2}
"""Decimals of coordinates in the digest, of degrees and of metres: about a centimetre."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The region of each post of a grid.

    Attributes
    ----------
    source : str
        Path of the file that the regions were read from.
    column : str
        Column of the file that names them.
    grid : Grid
        The posts.
    names : tuple of str
        In the order of the file; features of one name are one region.
    number : ndarray of int32, shape (ny, nx)
        Place of the post's region in ``names``; -1: the post is in no region.
    beyond : ndarray, shape (regions,)
        Share of the region's projected area that lies beyond the grid; 0 for a region within it.
    digest : str
        SHA-256 of names and geometries, hexadecimal; it does not depend on the grid or on the order of the features.
    parts : tuple of int
        Features that make each region.
    """

    source: str
    column: str
    grid: Grid
    names: tuple[str, ...]
    number: npt.NDArray[np.int32]
    beyond: npt.NDArray[np.float64]
    digest: str
    parts: tuple[int, ...]

    @classmethod
    def read(cls, path: Path, column: str, grid: Grid) -> Regions:
        """Read regions from a vector file in any CRS.

        Parameters
        ----------
        path : Path
            A GeoPackage, shapefile, GeoJSON, FlatGeobuf or GeoParquet file.
        column : str
            Its column that names the region of each feature.
        grid : Grid
            The posts to look up; a post belongs to the region that contains its position.

        Returns
        -------
        Regions
            A region may have no post.

        Raises
        ------
        InvalidValue
            The file is absent, unreadable or has no CRS; it lacks the column, or a feature has no name; two regions
            overlap at a post; a region has the name of the whole, :data:`WHOLE`; or no region has a post.
        MissingDependency
            pyogrio, shapely or rasterio is not installed.
        """
        if not path.is_file():
            raise InvalidValue(f"basins {path} do not exist or are not a file; {_REMEDY}")
        if not is_vector(path):
            raise InvalidValue(f"basins {path} are not a vector file; {_REMEDY}")
        try:
            layers = VectorFile(path, "basins", _REMEDY).layers(column)
            named = [_names(path, column, layer) for layer in layers]
            rings = _rings(layers, named, grid)
            if not rings:
                raise InvalidValue(f"basins {path} contain no polygon; {_REMEDY}")
            number, beyond = _burnt(path, rings, grid)
        except ImportError as error:
            raise MissingDependency(
                f"basins {path} need {error.name}: pip install 'cryotile[geo]'"
            ) from error
        if (number < 0).all():
            raise InvalidValue(
                f"basins {path} contain none of the {number.size} posts within {grid.bounds}; {_REMEDY}"
            )
        features = Counter(name for names in named for name in names)
        return cls(
            str(path.resolve()),
            column,
            grid,
            tuple(rings),
            number,
            beyond,
            _digest(layers, named),
            tuple(features[name] for name in rings),
        )

    @classmethod
    def load(cls, path: Path, source: str, column: str, grid: Grid) -> Regions:
        """Return the regions that a file with the content of :meth:`packed` holds."""
        with np.load(BytesIO(path.read_bytes())) as stored:
            regions = cls(
                source,
                column,
                grid,
                tuple(stored["names"].tolist()),
                stored["number"].reshape(grid.shape),
                stored["beyond"],
                str(stored["digest"]),
                tuple(stored["parts"].tolist()),
            )
            # Kept, because it takes a microsecond a post.
            regions.__dict__["area"] = stored["area"]
        return regions

    def packed(self) -> bytes:
        """Return the content of the file that :meth:`load` reads; equal regions give equal bytes."""
        content = BytesIO()
        np.savez_compressed(
            content,
            names=np.array(self.names),
            number=self.number,
            beyond=self.beyond,
            digest=np.array(self.digest),
            parts=np.array(self.parts),
            area=self.area,
        )
        return content.getvalue()

    @cached_property
    def posts_digest(self) -> str:
        """SHA-256 of names, geometries and the region of each post, hexadecimal."""
        content = self.digest.encode() + "\0".join(self.names).encode() + self.number.tobytes()
        return hashlib.sha256(content).hexdigest()

    @cached_property
    def area(self) -> npt.NDArray[np.float64]:
        """True area of the squares of one posting around the posts of each region, m²; shape (regions,)."""
        crs, total = projected_crs(self.grid.crs), np.zeros(len(self.names))
        for y, number in zip(self.grid.y, self.number, strict=True):
            chosen = number >= 0
            if chosen.any():
                x = self.grid.x[chosen]
                area = self.grid.posting**2 / areal_scale(crs, x, np.full_like(x, y))
                total += np.bincount(number[chosen], area, minlength=len(total))
        return total

    def inside(self, mask: Mask | None) -> Regions:
        """Return the regions without their posts outside a mask.

        Raises
        ------
        InvalidValue
            No post is left.
        """
        if mask is None:
            return self
        number = np.where(mask.inside, self.number, np.int32(-1))
        if (number < 0).all():
            raise InvalidValue(
                f"basins {self.source} contain no post inside the mask {mask.source}; give a mask that overlaps"
            )
        return replace(self, number=number)

    def of(self, posts: Tile | Grid) -> npt.NDArray[np.int32]:
        """Return the region of each post of a tile or a part of the grid; shape (ny, nx)."""
        return self.number[self.grid.places(posts)]

    def remarks(self) -> Iterator[str]:
        """Yield a line for each region without a post, and one of names that several features have."""
        counts = np.bincount(self.number[self.number >= 0], minlength=len(self.names))
        for name in np.array(self.names)[counts == 0]:
            yield (
                f"basin {name} of {self.source} has no post of the run: its totals are 0; enlarge the bounds or the"
                " mask, use a smaller posting, or leave it out"
            )
        several = [f"{name} ({n})" for name, n in zip(self.names, self.parts, strict=True) if n > 1]
        if several:
            yield (
                f"features of one {self.column} are one basin: {', '.join(several)} (number of features);"
                " choose another column if they are not"
            )


def _names(path: Path, column: str, layer: Layer) -> list[str]:
    """Return the name of each feature; whole numbers have no decimal point."""
    values = np.asarray(layer.values)
    missing = [value is None or value != value or not str(value).strip() for value in values]
    if any(missing):
        raise InvalidValue(
            f"basins {path}: {sum(missing)} of {len(missing)} features have no {column}; name them, or remove them"
        )
    if values.dtype.kind == "f" and not (values % 1).any():
        values = values.astype(np.int64)
    names = [str(value).strip() for value in values.tolist()]
    if WHOLE in names:
        raise InvalidValue(
            f"basins {path} have a region named {WHOLE!r}, which is the name of the sum of all; choose another column"
        )
    return names


def _rings(layers: list[Layer], named: list[list[str]], grid: Grid) -> Mapping[str, list[Any]]:
    """Return the polygons of each region, as lists of rings in the CRS of the grid."""
    rings: dict[str, list[list[Ring]]] = {}
    for layer, names in zip(layers, named, strict=True):
        for feature, polygon in layer.projected(grid):
            rings.setdefault(names[feature], []).append(polygon)
    return rings


def _burnt(
    path: Path, rings: Mapping[str, list[list[Ring]]], grid: Grid
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return the region of each post, and the share of each region beyond the grid."""
    number = np.full(grid.shape, -1, np.int32)
    beyond = np.zeros(len(rings))
    for k, polygons in enumerate(rings.values()):
        part = _around(polygons, grid)
        if part is not None:
            inside = _inside(polygons, part)
            places = number[grid.places(part)]
            _check_apart(path, list(rings), k, places[inside])
            places[inside] = k
        outer = np.concatenate([polygon[0] for polygon in polygons])
        half = grid.posting / 2
        low, high = np.min(outer, axis=0), np.max(outer, axis=0)
        edges = [grid.x[0] - half, grid.y[0] - half, grid.x[-1] + half, grid.y[-1] + half]
        if (low < edges[:2]).any() or (high > edges[2:]).any():
            area = sum(_area(polygon) for polygon in polygons)
            beyond[k] = max(0.0, 1.0 - (number == k).sum() * grid.posting**2 / area)
    return number, beyond


def _around(polygons: list[list[Ring]], grid: Grid) -> Grid | None:
    """Return the part of the grid that polygons may contain; None if there is none."""
    outer = np.concatenate([polygon[0] for polygon in polygons])
    spans = []
    for low, high, posts in zip(
        outer.min(axis=0), outer.max(axis=0), (grid.columns, grid.rows), strict=True
    ):
        first = max(posts.start, int(np.floor(low / grid.posting)))
        last = min(posts.stop - 1, int(np.ceil(high / grid.posting)))
        if last < first:
            return None
        spans.append(range(first, last + 1))
    return grid.part(spans[1], spans[0])


def _inside(polygons: list[list[Ring]], part: Grid) -> npt.NDArray[np.bool_]:
    from rasterio import Affine
    from rasterio.features import rasterize

    shapes = [({"type": "Polygon", "coordinates": polygon}, 1) for polygon in polygons]
    # GDAL takes a centre on a horizontal edge for inside on both sides of it: no centre may lie on an edge of a grid.
    t = transform_of(part)
    transform = Affine(t.a, t.b, t.c + NUDGE * t.a, t.d, t.e, t.f + NUDGE * t.e)
    burnt = rasterize(shapes, out_shape=part.shape, transform=transform, fill=0, dtype="uint8")
    inside: npt.NDArray[np.bool_] = burnt[::-1] == 1
    return inside


def _check_apart(path: Path, names: list[str], k: int, found: npt.NDArray[np.int32]) -> None:
    """Refuse a region whose posts belong to another one: their totals would count a place twice."""
    taken = found[found >= 0]
    if len(taken):
        other = names[int(taken[0])]
        raise InvalidValue(
            f"basins {path}: {other} and {names[k]} overlap at {len(taken)} posts; give basins that do not overlap,"
            " or choose a column whose regions do not"
        )


def _area(polygon: list[Ring]) -> float:
    """Return the projected area of a polygon, m²: that of its outer ring less those of its holes."""
    outer, *holes = (
        abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2
        for x, y in (np.asarray(ring - ring[0]).T for ring in polygon)
    )
    return outer - sum(holes)


def _digest(layers: list[Layer], named: list[list[str]]) -> str:
    import shapely

    parts = []
    for layer, names in zip(layers, named, strict=True):
        digits = _DIGITS[layer.crs.is_geographic]
        for feature, polygon in zip(layer.features, layer.shapes, strict=True):
            rings = [
                shapely.get_coordinates(ring).round(digits) + 0.0
                for ring in shapely.get_rings(polygon)
            ]
            parts.append(
                "\0".join([names[feature], layer.crs.to_wkt(), *(r.tobytes().hex() for r in rings)])
            )
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()
