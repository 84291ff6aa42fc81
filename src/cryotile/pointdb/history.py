"""What the commits of a point DB did, for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from cryotile.pointdb.state import State

__all__ = ["describe_commits"]


def describe_commits(entries: Iterable[Mapping[str, Any]], state: State) -> pd.DataFrame:
    """Describe commits, one row each.

    Parameters
    ----------
    entries : iterable of mapping
        What they say, the newest first, without gaps.
    state : State
        After the newest.

    Returns
    -------
    DataFrame
        ``snapshot, time, cryotile, added, removed, rows, compaction, available``.
    """
    rows: list[dict[str, Any]] = []
    for entry in entries:
        number, granules = entry["number"], entry["granules"]
        # A snapshot that a compaction follows at once has the same points as the one after it.
        alike = bool(rows) and rows[-1]["compaction"] and rows[-1]["available"]
        rows.append(
            {
                "snapshot": number,
                "time": pd.Timestamp(entry["time"]).tz_convert(None),
                "cryotile": entry["cryotile"],
                "added": len(granules["added"]),
                "removed": len(granules["removed"]),
                "rows": sum(granule["rows"] for granule in granules["added"]),
                "compaction": entry["compaction"],
                "available": number >= state.oldest or number in state.kept or alike,
            }
        )
    columns = [
        "snapshot",
        "time",
        "cryotile",
        "added",
        "removed",
        "rows",
        "compaction",
        "available",
    ]
    return pd.DataFrame(rows, columns=columns)
