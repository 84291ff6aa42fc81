"""Masks: the posts inside the polygons of a vector file, or where a raster is not 0."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cryotile.errors import InvalidValue, MissingDependency
from cryotile.geo.grid import Grid, Tile
from cryotile.geo.polygons import VectorFile, is_vector, transform_of

__all__ = ["Mask"]

_REMEDY = "give a GeoPackage, shapefile, GeoJSON or GeoParquet file with polygons, or a GeoTIFF that is 0 outside"


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
            raise InvalidValue(f"mask {path} does not exist or is not a file; {_REMEDY}")
        try:
            inside = _within_polygons(path, grid) if is_vector(path) else _not_zero(path, grid)
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
        return self.inside[self.grid.places(posts)]


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
                file,
                crs=grid.crs,
                transform=transform_of(grid),
                width=nx,
                height=ny,
                add_alpha=False,
            ) as posts:
                band, known = posts.read(1), posts.read_masks(1)
    except RasterioError as error:
        raise VectorFile(path, "mask", _REMEDY).unreadable(error) from error
    # Rasters run from the north, grids from the south; NaN is not equal to itself.
    inside: npt.NDArray[np.bool_] = ((band != 0) & (known != 0) & (band == band))[::-1]
    return inside


def _within_polygons(path: Path, grid: Grid) -> npt.NDArray[np.bool_]:
    from rasterio.features import rasterize

    shapes = [
        ({"type": "Polygon", "coordinates": rings}, 1)
        for layer in VectorFile(path, "mask", _REMEDY).layers()
        for _, rings in layer.projected(grid)
    ]
    if not shapes:
        raise InvalidValue(f"mask {path} contains no polygon; {_REMEDY}")
    burnt = rasterize(
        shapes, out_shape=grid.shape, transform=transform_of(grid), fill=0, dtype="uint8"
    )
    inside: npt.NDArray[np.bool_] = burnt[::-1] == 1
    return inside
