"""What the writers of layouts share: a whole file or none, its grid, and maps with a reason where they are empty."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

import cryotile
from cryotile.exchange.own import of_product, values_of
from cryotile.exchange.reference import Floats, Reference
from cryotile.files import atomic_path, writing
from cryotile.maps.netcdf import reason
from cryotile.maps.unknown import unknowns

__all__ = [
    "Exported",
    "Source",
    "add_map",
    "add_projection",
    "add_vector",
    "file_of",
    "new_file",
    "plain",
]

FILL = np.finfo(np.float32).max
"""Marks a missing float, as in ATL15."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes
    ----------
    files : tuple of Path
        In order of time.
    notes : tuple of str
        What is NaN and why, and what differs from the layout's own products.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Source:
    """A product to write.

    Attributes
    ----------
    product : Dataset
        Opened lazily.
    rates : Reference
        The same in the common form.
    """

    product: xr.Dataset
    rates: Reference

    @classmethod
    def of(cls, product: xr.Dataset, name: str) -> Source:
        """Return a product by its Dataset and what messages call it."""
        return cls(product, of_product(product, name))

    @property
    def posting(self) -> float:
        """Distance between neighbouring posts, metres."""
        return float(self.product.attrs.get("posting", self.rates.x[1] - self.rates.x[0]))

    @property
    def region(self) -> str:
        """``AA`` for the Antarctic, ``GL`` for the Arctic, by the latitude of the first post."""
        to = pyproj.Transformer.from_crs(self.rates.crs, "EPSG:4326", always_xy=True)
        return "AA" if to.transform(self.rates.x[0], self.rates.y[0])[1] < 0 else "GL"

    @property
    def about(self) -> dict[str, str]:
        """Global attributes of every layout: where the numbers come from; nothing of the moment."""
        given = {
            name: str(self.product.attrs[name])
            for name in (
                "history",
                "platform",
                "simulated",
                "source",
                "creator_name",
                "licence",
                "license",
            )
            if name in self.product.attrs
        }
        return given | {
            "limitations": "; ".join(unknowns(self.product)),
            "made_by": f"cryotile {cryotile.__version__}",
            "comment": "Written by cryotile in the layout of another product; not made by the agency of that product.",
        }

    def values(self, name: str) -> Floats:
        """Return a map of the product in float64, y and x ascending."""
        return values_of(self.product.sortby(["y", "x"]), name)


def file_of(output: Path, name: str) -> Path:
    """Return the file to write: ``output`` itself, or, if it is a directory, which is created, one of that name in it.

    Raises
    ------
    UnwritablePath
        The directory cannot be created.
    """
    if output.suffix.lower() == ".nc":
        return output
    with writing(output):
        output.mkdir(exist_ok=True)
    return output / name


@contextmanager
def new_file(path: Path) -> Iterator[netCDF4.Dataset]:
    """Yield a NetCDF-4 file to fill; it appears under its name when the body ends without an error.

    Raises
    ------
    UnwritablePath
        It cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.touch()
        try:
            with netCDF4.Dataset(temporary, "w") as file:
                yield file
        except (RuntimeError, OSError) as error:
            raise reason(temporary, error) from error


def add_vector(
    node: Any,
    name: str,
    dims: tuple[str, ...],
    values: npt.ArrayLike,
    attributes: Mapping[str, Any],
) -> None:
    """Add a coordinate or other small variable; missing dimensions are made in its size."""
    array = np.asarray(values)
    for dim, size in zip(dims, array.shape, strict=True):
        if dim not in node.dimensions:
            node.createDimension(dim, size)
    created = node.createVariable(name, array.dtype, dims, fill_value=False)
    created.setncatts(dict(attributes))
    created[...] = array


def add_map(
    node: Any,
    name: str,
    dims: tuple[str, ...],
    maps: list[Callable[[], Floats] | None],
    attributes: Mapping[str, Any],
    *,
    why_empty: str = "",
) -> bool:
    """Add a map of float32, one after another along the first of three dimensions.

    Parameters
    ----------
    node : netCDF4.Dataset or netCDF4.Group
        With the dimensions.
    name, dims : str, tuple of str
        Of the variable.
    maps : list of callable or None
        Each returns values, shape (ny, nx); None: NaN.
    attributes : mapping
        Of the variable.
    why_empty : str
        Reason of the maps that are NaN.

    Returns
    -------
    bool
        Whether a map is NaN.
    """
    created = node.createVariable(
        name, np.float32, dims, compression="zlib", complevel=4, fill_value=FILL
    )
    created.set_auto_mask(False)
    empty = any(one is None for one in maps)
    created.setncatts({**attributes, **({"reason": why_empty} if empty else {})})
    for place, one in enumerate(maps):
        if one is None:
            continue
        values = np.where(np.isfinite(found := one()), found, FILL).astype(np.float32)
        created[(place, ...) if len(dims) == 3 else ...] = values
    return empty


def add_projection(node: Any, name: str, crs: pyproj.CRS) -> None:
    """Add the variable that describes the projection: by WKT, by EPSG code and by CF parameters."""
    created = node.createVariable(name, np.int8, ())
    parameters = {n: v for n, v in crs.to_cf().items() if isinstance(v, str | float | int)}
    code = crs.to_epsg()
    more = {} if code is None else {"spatial_epsg": str(code), "crs": f"epsg:{code}"}
    created.setncatts({**parameters, "spatial_ref": crs.to_wkt(), **more})


def plain(text: str) -> str:
    """Return a text as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "", text).upper()
