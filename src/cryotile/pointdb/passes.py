"""Passes that came in twice: as points of two products, which a fit would take for independent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["shared_passes"]

_COLUMNS = ["name", "product", "passes", "time_min", "time_max"]


def shared_passes(new: Sequence[Mapping[str, Any]], granules: pa.Table) -> dict[str, list[str]]:
    """Say which products have passes in common with which.

    Parameters
    ----------
    new : sequence of mapping
        Granules, as rows of :data:`cryotile.pointdb.state.GRANULES`.
    granules : pyarrow.Table
        Those that were there before.

    Returns
    -------
    dict of str to list of str
        One line for each pair of products → file names of the new granules that it is true of.
    """
    ours = _exploded(pd.DataFrame([{name: row[name] for name in _COLUMNS} for row in new]))
    products = pa.array(ours["product"].unique(), pa.string())
    if len(products) < 2:
        # Nearly always: all granules are of one product, and none of another need be looked at.
        granules = granules.filter(pc.invert(pc.is_in(granules["product"], value_set=products)))
    theirs = _exploded(granules.select(_COLUMNS).to_pandas())
    both = ours.merge(pd.concat([ours, theirs]), on="passes")
    # A pass is split over granules, of several modes, say; only what was measured at the same time is doubled.
    same = (both["time_min_x"] <= both["time_max_y"]) & (both["time_min_y"] <= both["time_max_x"])
    both = both[same & (both["product_x"] != both["product_y"])]
    notes: dict[str, list[str]] = {}
    pairs = both[["product_x", "product_y", "name_x"]].drop_duplicates()
    for *products, name in pairs.itertuples(index=False, name=None):
        one, other = sorted(products)
        note = (
            f"the same passes are in {one} and {other}: a fit would take their points for independent; keep one of the"
            " two products, and take the other's granules out with 'cryotile remove'"
        )
        notes.setdefault(note, []).append(name)
    return {note: sorted(set(names)) for note, names in notes.items()}


def _exploded(granules: pd.DataFrame) -> pd.DataFrame:
    """One row per granule and pass; granules without points have none."""
    return granules.explode("passes").dropna(subset="passes")
