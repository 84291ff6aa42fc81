"""Granules taken together: as many as are projected, encoded and committed in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile.points import Granule

__all__ = ["Batch", "InPieces"]

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
