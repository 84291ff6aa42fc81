"""Offsets of platforms and modes on a grid, which are taken from points before they are fitted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["OffsetField"]

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OffsetField:
    """Offsets of categories relative to a reference category, on a grid.

    Attributes
    ----------
    x, y : ndarray, shapes (nx,), (ny,)
        Nodes, m, ascending.
    values : mapping of (str, str) to ndarray, shape (ny, nx)
        (column, category) → its offset, m; a category that is not named is a reference, or has none.
    sizes : mapping of str to float
        Term → plausible size of what is left of its offsets at a post, m.
    source : str
        Path of the run that it was made from, as the user named it.
    """

    x: _Floats
    y: _Floats
    values: Mapping[tuple[str, str], _Floats]
    sizes: Mapping[str, float]
    source: str = ""

    def __repr__(self) -> str:
        """Return the path of the run that it was made from."""
        return repr(self.source)

    def correct(self, points: pd.DataFrame) -> pd.DataFrame:
        """Return points without the offsets of their platforms and modes at their places.

        Parameters
        ----------
        points : DataFrame
            With ``x, y, elevation`` and the columns of the field.
        """
        from scipy.ndimage import map_coordinates

        elevation = points["elevation"].to_numpy(dtype=np.float64, copy=True)
        places = np.stack(
            [
                (points[name].to_numpy() - axis[0]) / (axis[1] - axis[0])
                for name, axis in (("y", self.y), ("x", self.x))
            ]
        )
        for (column, category), offsets in self.values.items():
            of = (points[column] == category).to_numpy(dtype=bool, na_value=False)
            elevation[of] -= map_coordinates(offsets, places[:, of], order=1, mode="nearest")
        corrected = points.assign(elevation=elevation)
        corrected.attrs = points.attrs
        return corrected

    def packed(self) -> bytes:
        """Return the content of the file that :meth:`load` reads."""
        content = BytesIO()
        names = {f"{column}/{category}": v for (column, category), v in self.values.items()}
        sizes = {f"size/{term}": np.float64(size) for term, size in self.sizes.items()}
        np.savez_compressed(content, allow_pickle=False, x=self.x, y=self.y, **names, **sizes)
        return content.getvalue()

    @classmethod
    def load(cls, content: bytes, source: str) -> OffsetField:
        """Read the content of :meth:`packed`; raise an error of numpy if it is another."""
        with np.load(BytesIO(content)) as file:
            arrays = {name: file[name] for name in file.files}
        x, y = arrays.pop("x"), arrays.pop("y")
        parts = {tuple(name.split("/")): array for name, array in arrays.items()}
        sizes = {name: float(v) for (kind, name), v in parts.items() if kind == "size"}
        values: dict[Any, _Floats] = {key: v for key, v in parts.items() if key[0] != "size"}
        return cls(x, y, values, sizes, source)

    @property
    def digest(self) -> str:
        """SHA-256 of the nodes, the offsets and the sizes, hexadecimal."""
        digest = hashlib.sha256(self.x.tobytes() + self.y.tobytes())
        for key, values in sorted(self.values.items()):
            digest.update("/".join(key).encode() + values.tobytes())
        digest.update(repr(sorted(self.sizes.items())).encode())
        return digest.hexdigest()
